"""Windows over the PPO screen that grow while the run goes on: all alerts, and what is kept and takes time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from rlhf_tui.app import chartview, glossary, keys, words
from rlhf_tui.app.overview import Watched
from rlhf_tui.app.screens.ppo_heldout import best_update
from rlhf_tui.app.screens.ppo_live import LEVELS, kept_line
from rlhf_tui.app.screens.reward_panels import wrapped
from rlhf_tui.app.state import RunState, Timed
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.peaks import beside_plan, is_over, taken
from rlhf_tui.runs.events import Alert, Checkpoint

#: How grave an alert is, in a word.
GRAVITY = {"note": "note", "warning": "warning", "stop": "serious"}
PHASES = (("seconds_sampling", "sampling"), ("seconds_scoring", "scoring"), ("seconds_update", "updating"))
_INDENT = "   "


class NewsDialog(ModalScreen[None]):
    """A text about a run, made anew for the width, and when the run has something new to tell."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,w,enter", "close", "Close"),
        ("j", "scroll(1)", "Down"),
        ("k", "scroll(-1)", "Up"),
        ("space", "page", "Page down"),
    ]

    def __init__(self, title: str, run: Watched, body: Callable[[Watched, int], Content]) -> None:
        super().__init__(classes="window")
        self._title, self._run, self._body = title, run, body
        self._shown: object = None

    def compose(self) -> ComposeResult:
        """A titled box around the text."""
        with VerticalScroll(classes="dialog tall reading", id="reading") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("↑↓ PgUp PgDn scroll · esc close")
            yield Static("", markup=False, id="dialog-text")

    def on_mount(self) -> None:
        """Take the focus for scrolling, and look for news every second."""
        self.query_one("#reading").focus()
        self.set_interval(1.0, self._renew)

    def on_resize(self) -> None:
        """The text is made for a width."""
        self._shown = None
        self.call_after_refresh(self._renew)

    def action_scroll(self, by: int) -> None:
        """A line up or down."""
        self.query_one("#reading").scroll_relative(y=by, animate=False)

    def action_page(self) -> None:
        """A page down."""
        self.query_one("#reading").scroll_page_down(animate=False)

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _renew(self) -> None:
        now = (id(self._run.state), self._run.state.revision)
        if self._shown != now:
            self._shown = now
            text = self.query_one("#dialog-text", Static)
            text.update(self._body(self._run, max(text.size.width, 20)))


def alerts(run: Watched, width: int) -> Content:
    """Every alert, newest first: when, how grave, what, why, and what to do."""
    found = list(run.state.alerts)
    if not found:
        return tinted("No alerts: nothing that the run is watched for has set in.", "quiet")
    told: list[Content | str] = []
    for at, timed in enumerate(reversed(found)):
        told += ["", *_alert(timed, width)] if at else _alert(timed, width)
    return lines(*told)


def _alert(timed: Timed[Alert], width: int) -> Iterator[Content]:
    alert = timed.news
    glyph, tone = LEVELS.get(alert.level, ("·", "quiet"))
    when = f"{day_and_time(timed.at)}, after update {timed.step}" if timed.step else day_and_time(timed.at)
    yield Content.assemble(
        tinted(f"{glyph} {GRAVITY.get(alert.level, alert.level)}", tone), tinted(f"  {when}", "quiet")
    )
    yield from (Content.styled(_INDENT + line, "bold") for line in wrapped(alert.message, width - len(_INDENT)))
    for heading, text in (("Why: ", alert.why), ("What to do: ", alert.remedy)):
        if text:
            yield from (Content(_INDENT + line) for line in wrapped(heading + text, width - len(_INDENT)))


def kept(run: Watched, width: int) -> Content:
    """The checkpoints, newest first, with the best one in words; where the time of an update goes; and memory."""
    state = run.state
    end = kept_line(run)
    told: list[Content | str] = [end, ""] if end else []
    told += [Content.styled("Checkpoints", "bold"), *checkpoints(state), ""]
    told += [Content.styled("Where the time of an update goes", "bold"), *phases(state, width), ""]
    told += [Content.styled("Memory at its peak", "bold"), *memory(state)]
    return lines(*told)


def memory(state: RunState) -> list[Content]:
    """The peak of each phase beside its plan; what was not planned is not listed."""
    return [
        Content.assemble(
            tinted(f"{phase:<11} ", "quiet"),
            tinted(beside_plan(taken(one), one.planned, one.reserved), "warn" if is_over(one) else ""),
        )
        for phase, one in state.peaks.items()
        if one.planned
    ] or [tinted("Not measured yet.", "quiet")]


def checkpoints(state: RunState) -> list[Content]:
    """A line for each, newest first."""
    if not state.checkpoints:
        return [tinted("None yet.", "quiet")]
    best = best_update(state)
    return [_checkpoint(state, timed, best) for timed in reversed(state.checkpoints)]


def _checkpoint(state: RunState, timed: Timed[Checkpoint], best: int | None) -> Content:
    saved = timed.news
    said = f"{day_and_time(timed.at)}  update {saved.step:<5}"
    score = chartview.reading(state.line("heldout_score"), saved.step)
    measured = f"  held-out {words.number(score.mean)}" if score and score.exact else ""
    if not saved.best:
        return Content.assemble(tinted(said, "quiet"), " saved", tinted(measured, "quiet"))
    which = "the best so far" if saved.step == best else "was the best then"
    tone = "good" if saved.step == best else ""
    mark = "✓ " if saved.step == best else ""
    return Content.assemble(tinted(said, "quiet"), tinted(f" {mark}{which}", tone), tinted(measured, "quiet"))


def phases(state: RunState, width: int) -> list[Content]:
    """A bar for each phase with its seconds and its share: means of the last twenty updates."""
    found = [(label, state.line(name).recent_mean()) for name, label in PHASES]
    known = [(label, seconds) for label, seconds in found if not math.isnan(seconds)]
    total = sum(seconds for _, seconds in known)
    if total <= 0:
        return [tinted("Not measured yet.", "quiet")]
    room = min(max(width - 30, 8), 48)
    told = [
        Content.assemble(
            tinted(f"{label:<9} ", "quiet"),
            tinted(words.bar(round(1000 * seconds / total), 1000, room), "accent"),
            f"  {seconds_words(seconds):>6}  {words.percent(seconds / total):>5}",
        )
        for label, seconds in known
    ]
    whole = f"{'together':<9} {'':{room}}  {seconds_words(total):>6}"
    more = [
        tinted(f"{words.number(state.latest[name])} {glossary.label(name)}", "quiet")
        for name in ("tokens_per_second", "update_tokens_per_second")
        if name in state.latest
    ]
    return [*told, tinted(whole, "quiet"), *more, tinted("Means of the last 20 updates.", "quiet")]


def seconds_words(seconds: float) -> str:
    """Short times with a digit behind the point, long ones in minutes: '0.8s', '21s', '2m10s'."""
    return words.duration(seconds) if seconds >= 10 else f"{seconds:.1f}s"


def day_and_time(at: float) -> str:
    """The time of day; with the date when it was not today."""
    then = time.localtime(at)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if today else "%d %b %H:%M", then)
