"""What the six stage screens share: the frame, the refresh from the overview, starting a run."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from rlhf_tui.app import keys, keytable, opening, words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.summary import summary, too_small
from rlhf_tui.app.widgets.panel import Panel, tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine, StageBar
from rlhf_tui.runs.control import asked

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp

#: From this width on the head also tells how busy the machine is, and which run that is.
ROOMY = 120
#: A run's status as glyph, word and tone.
STATES = {
    "new": ("○", "not started", "quiet"),
    "queued": ("○", "QUEUED", "warn"),
    "running": ("●", "RUNNING", "accent"),
    "paused": ("‖", "PAUSED", "warn"),
    "finished": ("✓", "finished", "good"),
    "stopped": ("■", "stopped", "warn"),
    "failed": ("✗", "FAILED", "bad"),
    "crashed": ("✗", "CRASHED", "bad"),
}


STOPPING = ("■", "STOPPING", "warn")


def state_of(run: Watched) -> tuple[str, str, str]:
    """A run's state as glyph, word and tone; it may take a while until one that was asked to stop has saved."""
    return STOPPING if run.alive and asked(run.folder, "stop") else STATES[run.status]


class StageScreen(Screen[None]):
    """A stage on screen. A subclass says `STAGE`, yields its body and fills it in `show`."""

    STAGE: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("run", "stage")

    def __init__(self) -> None:
        super().__init__()
        self._focus_before: Widget | None = None

    def compose(self) -> ComposeResult:
        """The frame, with the stage's own body in the middle."""
        yield Ends(id="head")
        yield StageBar(self.STAGE, id="stages")
        with Container(id="body"):
            yield from self.compose_body()
        yield Panel("", id="summary")
        yield KeyLine(id="keys")

    def compose_body(self) -> ComposeResult:
        """The stage's own widgets."""
        yield from ()

    def on_mount(self) -> None:
        """Fill the screen as soon as it exists."""
        self.renew()

    def on_screen_resume(self) -> None:
        """The screen is on top again: it may be out of date."""
        self.renew()

    def on_resize(self) -> None:
        """Some texts are cut to the width."""
        self.call_after_refresh(self.renew)

    @property
    def rlhf(self) -> RlhfApp:
        """The app, typed."""
        return cast("RlhfApp", self.app)

    @property
    def overview(self) -> Overview:
        """The project as last seen."""
        return self.rlhf.overview

    @property
    def run_shown(self) -> Watched | None:
        """The newest run of this stage."""
        return self.overview.run(self.STAGE)

    @property
    def waiting(self) -> Watched | None:
        """The run of this stage that can be taken up, while none goes on."""
        return None if self.overview.live else self.overview.unfinished(self.STAGE)

    @property
    def wide(self) -> bool:
        """Whether there is room for the large layout."""
        return self.app.size.width >= 140 and self.app.size.height >= 40

    @property
    def roomy(self) -> bool:
        """Whether there is room for some of what only the large layout shows."""
        width, height = self.app.size
        return not self.wide and width >= 110 and height >= 32

    def renew(self) -> None:
        """Show the overview as it is now."""
        if not self.is_mounted or not self.query("#head"):  # not made yet, or the app is closing
            return
        view = self.overview
        left, right = headline(view, self.rlhf.starting, time.time(), self.app.size.width, self.rlhf.machine_words)
        self.query_one("#head", Ends).show(left, right)
        self._fold(too_small(*self.app.size))
        self.set_class(self.roomy, "-roomy")
        self.query_one(StageBar).show([view.mark(name) for name, _ in keytable.STAGES])
        there = [*self.there, *(("unfinished",) if self.waiting else ())]
        footer = keys.footer(
            self.STAGE, self.app.size.width, live=view.live is not None, there=there, keymap=self.rlhf.keymap
        )
        self.query_one(KeyLine).show(footer)
        self.show(view)

    def _fold(self, tiny: bool) -> None:
        """Text in place of the panels while there is no room for them; the chart that was lit is lit again."""
        if tiny:
            room = max(self.app.size.width - 2, 10)
            told = summary(self.overview, self.STAGE, lambda run: progress_lines(run, time.time(), room))
            self.query_one("#summary", Panel).show(told)
        if tiny == self.has_class("-tiny"):
            return
        if tiny:
            self._focus_before = self.focused
        self.set_class(tiny, "-tiny")
        if not tiny and self._focus_before is not None and self._focus_before.is_attached:
            self.call_after_refresh(self.set_focus, self._focus_before)

    def beside(self, said: str) -> str:
        """What stands in the border of what a run does: `said`, or how busy the machine is if no head tells."""
        return said or ("" if self.app.size.width >= ROOMY else self.rlhf.machine_words)

    @property
    def there(self) -> Sequence[keytable.When]:
        """What some keys of this screen need that is there: a report to read, charts to light up."""
        return ()

    def show(self, view: Overview) -> None:
        """Fill the stage's own widgets."""

    @property
    def keys_named(self) -> str:
        """The name in `keytable.SCOPES` of the keys that work here."""
        return self.STAGE

    def command_line(self) -> str:
        """The command that follows the stage's run while it lives, takes up one that broke off, or starts one."""
        run, waiting = self.run_shown, self.waiting
        verb = f"runs resume {waiting.name}" if waiting else self.command()
        verb = f"runs watch {run.name}" if run is not None and run.alive else verb
        return f"rlhf-tui {verb} --project {shlex.quote(str(self.overview.project.root))}"

    def command(self) -> str:
        """What this screen does on the command line, without the program's name and the project."""
        raise NotImplementedError

    def options(self) -> dict[str, str]:
        """What a run started here is asked beyond the settings."""
        return {}

    def action_scroll_body(self, by: int) -> None:
        """Scroll whatever part of the body does not fit, by most of a page."""
        for part in self.query("#body, .page").results(Container):
            if part.max_scroll_y > 0:
                part.scroll_relative(y=by * max(part.size.height - 2, 1), animate=False)

    def action_talk(self) -> None:
        """Talk to base and tuned model."""
        self.app.push_screen(opening.chat_screen(self.overview.project))

    def action_doctor(self) -> None:
        """What this machine can do."""
        self.app.push_screen(opening.doctor_screen(self.overview.project))

    def action_start(self) -> None:
        """Start a run of this stage."""
        self.rlhf.start_stage(self.STAGE, self.options())


def headline(view: Overview, starting: str, now: float, width: int, machine: str = "") -> tuple[Content, Content]:
    """Line 1: the project on the left; on the right the state of the run in words, pace, and memory or the machine."""
    left = Content.assemble(tinted("rlhf_tui", "accent"), tinted("  ", ""), tinted(view.project.name, "strong"))
    if not view.project.writable:
        left = Content.assemble(left, tinted("  read-only", "warn"))
    run = view.live
    behind = view.behind
    if behind is not None:  # what is shown is of long ago: no pace, no memory
        text = f"● reading {behind.name}: {words.percent(behind.reader.fraction)}"
        return left, tinted(text, "accent")
    if run is None:
        text = f"● starting {starting}…" if starting else "○ idle"
        return left, tinted(text, "accent" if starting else "quiet")
    glyph, word, tone = state_of(run)
    parts = [f"{run.folder.kind} {step_words(run)}".strip()]
    left_over = run.state.pace.left(now)
    if not math.isnan(left_over) and run.status == "running":
        parts.append(f"ETA {words.duration(left_over)}")
    if width >= ROOMY and machine:
        parts.append(machine)
    elif width >= 72 and run.state.memory:
        parts.append(memory_words(run))
    if width >= ROOMY:
        parts.append(run.name)
        if not math.isnan(run.state.started):
            parts.append(f"started {time.strftime('%H:%M', time.localtime(run.state.started))}")
    return left, Content.assemble(tinted(f"{glyph} {word} ", tone), "  ".join(parts))


def step_words(run: Watched) -> str:
    """How far the run is: '182/400', or what it prepares."""
    progress = run.state.progress
    if progress and progress.total:
        return words.progress(progress.done, progress.total, "bytes" if progress.unit == "bytes" else "")
    return ""


def memory_words(run: Watched) -> str:
    """The memory the worker holds: on the card when it uses one, else resident."""
    memory = run.state.memory
    if memory is None:
        return ""
    return f"card {words.size(memory.device)}" if memory.device else f"mem {words.size(memory.rss)}"


def state_line(run: Watched, now: float) -> Content:
    """One line about a run: its state in words, what it is doing, how long it still takes."""
    glyph, word, tone = state_of(run)
    state = run.state
    parts = [tinted(f"{glyph} {word}", tone), tinted(f"  {run.name}", "quiet")]
    if run.alive:
        if state.stage:
            doing = " · ".join(part for part in (state.stage.name, state.stage.detail) if part)
            parts.append(Content.assemble("  ", doing))
        each = state.pace.seconds_each
        if not math.isnan(each):
            pace = f"{words.number(1 / each)}/s" if 0 < each < 1 else f"{words.duration(each)} each"
            if each and state.progress and state.progress.unit == "bytes":
                pace = f"{words.size(round(1 / each))}/s"
            parts.append(tinted(f"  {pace}, {words.duration(state.pace.left(now))} left", "quiet"))
    elif state.done:
        goes_on = "; r goes on with it" if run.status == "stopped" and run.waits else ""
        parts.append(Content.assemble("  ", ending(run), goes_on))
    elif run.status == "crashed":
        parts.append(Content(f"  {crash_words(run)}"))
    return Content("").join(parts)


def crash_words(run: Watched) -> str:
    """What became of the worker, and what is saved."""
    if run.end is None:
        return ""
    happened = run.end.what.removeprefix(f"{run.name} crashed: ").rstrip(".")
    goes_on = "r goes on with it, " if run.waits else ""
    return f"{happened}; {goes_on}L shows its log"


def ending(run: Watched) -> str:
    """How a run ended, in one line."""
    done = run.state.done
    if done is None:
        return ""
    if done.error:
        what = done.error.get("what", done.message).rstrip(".")
        return f"{what}; L says why, and what to do"
    took = words.duration(run.state.heard - run.state.started)
    return done.message or ("" if took == "-" else f"after {took}")


def progress_body(run: Watched) -> Callable[[int, int], Content]:
    """The progress of a run, for a panel."""
    return lambda width, _: progress_lines(run, time.time(), width)


def progress_lines(run: Watched, now: float, width: int) -> Content:
    """The bar with its count, and the state line below it."""
    progress = run.state.progress
    if progress is None or not progress.total:
        return state_line(run, now)
    count = f"  {words.progress(progress.done, progress.total, progress.unit)}"
    bar = words.bar(progress.done, progress.total, max(width - len(count), 10))
    return Content("\n").join([Content.assemble(tinted(bar, "accent"), count), state_line(run, now)])
