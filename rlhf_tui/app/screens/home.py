"""Home: every project known on this machine with its stage and the run that goes on; or the first steps."""

from __future__ import annotations

import shlex
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from rlhf_tui import projects
from rlhf_tui.app import keys, words
from rlhf_tui.app.screens.dialogs import ConfirmDialog, error_dialog
from rlhf_tui.app.screens.doctor import DoctorScreen
from rlhf_tui.app.screens.first import SAMPLE, FirstSteps, starter
from rlhf_tui.app.screens.new_project import Made, NewProjectWindow
from rlhf_tui.app.screens.stage import STATES
from rlhf_tui.app.shelf import Glance, Shelf, is_there, short
from rlhf_tui.app.widgets.panel import Panel, lines, tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.demo import create_demo_project
from rlhf_tui.demo.start import FOLDER, start_demo
from rlhf_tui.doctor import Check, examine
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.project import Project, open_project

if TYPE_CHECKING:
    from rlhf_tui.app.home import HomeApp


class HomeScreen(Screen[None]):
    """The list, or the first steps while no project has been opened on this machine."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("home", "first", "begin")

    class Seen(Message):
        """The projects have been looked at."""

        def __init__(self, listed: projects.Projects, glances: Sequence[Glance], drops: int) -> None:
            """`drops`: how many projects had been taken off the list when the look began."""
            super().__init__()
            self.listed, self.glances, self.drops = listed, glances, drops

    class Examined(Message):
        """The machine has been looked at."""

        def __init__(self, checks: Sequence[Check]) -> None:
            super().__init__()
            self.checks = checks

    class Ready(Message):
        """What a thread was asked to make is there: `go` opens it. Or it failed."""

        def __init__(self, go: Callable[[], None] | None, error: UserError | None = None) -> None:
            super().__init__()
            self.go, self.error = go, error

    def __init__(self) -> None:
        super().__init__()
        self._listed = projects.read()
        self._glances: Sequence[Glance] = [Glance(one, True) for one in self._listed.known]
        self._shelf = Shelf()
        self._looking = False
        self._drops = 0
        self._checks: Sequence[Check] | None = None
        self._busy = ""

    def compose(self) -> ComposeResult:
        """The list and the steps share the middle; one of them is shown."""
        yield Ends(id="head")
        with Container(id="body"):
            with Container(classes="panel", id="shelf") as shelf:
                shelf.border_title = Content("Projects on this machine")
                yield OptionList(id="known", markup=False)
            yield FirstSteps(id="first")
            yield Panel("Next", id="next")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show what is known at once, and look closer in a thread."""
        self.renew()
        self._look_again()
        self.set_interval(2.0, self._look_again)
        if self.first:
            self._examine()

    def on_resize(self) -> None:
        """Rows are made for a width."""
        self.call_after_refresh(self.renew)

    @property
    def home(self) -> HomeApp:
        """The app, typed."""
        return cast("HomeApp", self.app)

    @property
    def sample(self) -> Path:
        """Where the sample project is, or would be."""
        return self.home.base / SAMPLE

    @property
    def first(self) -> bool:
        """Whether nothing has been opened on this machine yet, and nothing is there but the sample project."""
        return not self._listed.begun and all(one.path == self.sample for one in self._listed.known)

    @property
    def keys_named(self) -> str:
        """The name in `keytable.SCOPES` of what is shown."""
        return "first" if self.first else "home"

    @property
    def lit(self) -> Glance | None:
        """The project under the cursor."""
        at = self.query_one("#known", OptionList).highlighted
        return self._glances[at] if not self.first and at is not None and at < len(self._glances) else None

    def command_line(self) -> str:
        """The command that opens the lit project."""
        return f"rlhf-tui {shlex.quote(self.lit.known.root)}" if self.lit else "rlhf-tui init my-assistant"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The keys of what is not shown do nothing."""
        if action in ("sample", "try_labels"):
            return self.first
        return not self.first if action in ("open", "drop") else True

    # What is shown

    def renew(self) -> None:
        """Show everything as it is now."""
        if not self.is_mounted:
            return
        first, short_of_room = self.first, self.app.size.height < 22
        self.query_one("#next").display = not (first and short_of_room)
        left = Content.assemble(tinted("rlhf_tui", "accent"), "  ", tinted("Home", "strong"))
        self.query_one("#head", Ends).show(left, self._state())
        self.query_one("#shelf").display = not first
        steps = self.query_one("#first", FirstSteps)
        steps.display = first
        if first:
            steps.show(self._checks, self.sample, is_there(self.sample), brief=short_of_room)
        else:
            self._fill()
        self.query_one("#next", Panel).show(next_words(self.lit, first, bool(self._glances)))
        footer = keys.footer(self.keys_named, self.app.size.width, live=False, keymap=self.home.keymap)
        self.query_one(KeyLine).show(footer)

    def _state(self) -> Content:
        if self._busy:
            return tinted(f"● {self._busy}…", "accent")
        live = sum(glance.live is not None for glance in self._glances)
        return tinted(f"● {words.plural(live, 'run')} going on", "accent") if live else tinted("○ idle", "quiet")

    def _fill(self) -> None:
        """Make the rows anew where they differ; the cursor stays on its project."""
        listed = self.query_one("#known", OptionList)
        width, now = max(listed.size.width - 3, 20), time.time()
        at = listed.highlighted or 0
        shown = [glance_row(glance, width, now, lit=place == at) for place, glance in enumerate(self._glances)]
        names = [glance.known.root for glance in self._glances]
        if names == [option.id for option in listed.options]:
            for at, row in enumerate(shown):
                if listed.get_option_at_index(at).prompt != row:
                    listed.replace_option_prompt_at_index(at, row)
            return
        lit = listed.highlighted_option.id if listed.highlighted_option else None
        listed.clear_options()
        listed.add_options(Option(row, id=name) for name, row in zip(names, shown, strict=True))
        if names:
            listed.highlighted = names.index(lit) if lit in names else 0
            listed.focus()

    @on(OptionList.OptionHighlighted)
    def _moved(self) -> None:
        self.renew()

    # What keys do

    @on(OptionList.OptionSelected)
    def action_open(self) -> None:
        """Open the lit project."""
        lit = self.lit
        if lit is None or self._busy:
            return
        if not lit.there:
            self.notify("Its folder is gone, or its disk is not mounted. x takes it off the list.", timeout=4)
            return
        try:
            project = open_project(lit.known.path)
        except (UserError, OSError) as error:
            self._show_error(error if isinstance(error, UserError) else UserError(str(error)))
        else:
            self.home.choose(project)

    def action_drop(self) -> None:
        """Take the lit project off the list, after a question when it is there."""
        lit = self.lit
        if lit is None:
            return
        if lit.there:
            question = f"Take {clean(lit.name)} off this list? Its folder stays; opening it brings it back."
            self.app.push_screen(ConfirmDialog("Off the list", question), lambda yes: self._drop_if(yes, lit))
        else:
            self._drop_if(True, lit)

    def action_new(self) -> None:
        """Open the window that makes a project."""
        if not self._busy:
            self.app.push_screen(NewProjectWindow(self.home.base), self._open_made)

    def action_demo(self) -> None:
        """Start the demo, after saying what it does."""
        if self._busy:
            return
        folder = self.home.base / FOLDER
        if is_there(folder):
            question = f"Open the demo that is in {short(folder)}? If it has not finished, it goes on."
        else:
            question = (
                f"See the whole loop on the starter model: generate, reward, PPO, compare, export. It takes about ten "
                f"minutes without a card and goes into {short(folder)}; {starter()}."
            )
        self.app.push_screen(ConfirmDialog("The demo", question), self._demo_if)

    def action_scroll_body(self, by: int) -> None:
        """Scroll what does not fit."""
        self.query_one("#body").scroll_relative(y=by * max(self.size.height - 4, 1), animate=False)

    def action_machine(self) -> None:
        """What this machine can do, in detail."""
        self.app.push_screen(DoctorScreen(self.home.base, self._checks))

    def action_sample(self) -> None:
        """Make the sample project, unless it is there."""
        if is_there(self.sample):
            self.notify("It is there already. 3 judges five of its pairs.", timeout=4)
        else:
            self._make_sample(then_label=False)

    def action_try_labels(self) -> None:
        """Judge pairs of the sample project, which is made first where it is not there."""
        self._make_sample(then_label=True)

    # What happens

    @on(Seen)
    def _seen(self, event: Seen) -> None:
        self._looking = False
        if event.drops != self._drops:  # it would bring back what has been dropped meanwhile
            return self._look_again()
        self._listed, self._glances = event.listed, event.glances
        self.renew()

    @on(Examined)
    def _examined(self, event: Examined) -> None:
        self._checks = event.checks
        self.renew()

    @on(Ready)
    def _ready(self, event: Ready) -> None:
        self._busy = ""
        self._look_again()
        self.renew()
        if event.error:
            self._show_error(event.error)
        elif event.go:
            event.go()

    def _open_made(self, made: Made | None) -> None:
        if made:
            self.home.choose(made.project, start="pairs" if made.prompts else "", greeting=made.told)

    def _demo_if(self, yes: bool | None) -> None:
        if not yes:
            return

        def make() -> Callable[[], None]:
            demo = start_demo(self.home.base / FOLDER)
            return lambda: self.home.choose(demo.project, follow=None if demo.finished else demo.run)

        self._begin("starting the demo", make)

    def _make_sample(self, *, then_label: bool) -> None:
        left, right = (keys.key_of("label", f"label.{side}", self.home.keymap) for side in ("left", "right"))
        greeting = f"Which answer is better? {left}: A, {right}: B. Five are enough; esc leads on, then H goes Home."

        def make() -> Callable[[], None] | None:
            project = Project(self.sample) if is_there(self.sample) else create_demo_project(self.sample)
            projects.note(project.root, opened=False)
            return (lambda: self.home.choose(project, start="label", greeting=greeting)) if then_label else None

        self._begin("making the sample project", make)

    def _begin(self, what: str, make: Callable[[], Callable[[], None] | None]) -> None:
        """Let a thread make something; one thing at a time."""
        if not self._busy:
            self._busy = what
            self.renew()
            self._make(make)

    def _drop_if(self, yes: bool | None, lit: Glance) -> None:
        if yes:
            projects.drop(lit.known.path)
            self._drops += 1
            self._glances = [glance for glance in self._glances if glance.known.path != lit.known.path]
            self._listed = projects.read()
            self.renew()

    def _show_error(self, error: UserError) -> None:
        self.app.push_screen(error_dialog(error))

    def _look_again(self) -> None:
        if not self._looking:
            self._looking = True
            self._look(self._drops)

    @work(thread=True, group="look")
    def _look(self, drops: int) -> None:
        listed = projects.read()
        self.post_message(self.Seen(listed, self._shelf.look(listed.known), drops))

    @work(thread=True, exclusive=True, group="examine")
    def _examine(self) -> None:
        self.post_message(self.Examined(examine(self.home.base)))

    @work(thread=True, group="make")
    def _make(self, make: Callable[[], Callable[[], None] | None]) -> None:
        try:
            self.post_message(self.Ready(make()))
        except UserError as error:
            self.post_message(self.Ready(None, error))
        except (OSError, sqlite3.Error) as error:
            self.post_message(self.Ready(None, UserError("That could not be made.", why=str(error))))


def glance_row(glance: Glance, width: int, now: float, *, lit: bool) -> Content:
    """Two lines about a project: name, stage and run; then when it was opened, and its folder."""
    room = min(width // 3, 40) if width >= 70 else 12
    name = tinted(words.one_line(clean(glance.name), room).ljust(room + 2), "strong")
    name = Content.assemble(tinted("▸ " if lit else "  ", "accent"), name)
    where = clean(short(glance.known.root))
    if not glance.there:
        return lines(Content.assemble(name, tinted("✗ its folder is gone", "warn")), _below(where, width))
    stage = "✓ every stage is done" if glance.done else glance.stage
    run = Content("")
    if glance.live is not None:
        glyph, word, tone = STATES[glance.status]
        run = Content.assemble(tinted(f"{glyph} {word} ", tone), f"{glance.live.name} {glance.progress}".rstrip())
    top = Content.assemble(name, tinted(stage.ljust(9), "good" if glance.done else ""), "  ", run)
    opened = f"opened {ago(now - glance.known.opened)}" if glance.known.opened else "not opened yet"
    told = [opened, glance.labels, where] if glance.labels and width >= 100 else [opened, where]
    return lines(top.truncate(width, ellipsis=True), _below(" · ".join(told), width))


def _below(text: str, width: int) -> Content:
    return tinted("    " + words.one_line(text, max(width - 4, 1)), "quiet")


def ago(seconds: float) -> str:
    """How long ago, roughly."""
    if seconds < 60:
        return "just now"
    for unit, length in (("day", 86400), ("hour", 3600)):
        if seconds >= length:
            return f"{words.plural(int(seconds // length), unit)} ago"
    return f"{words.plural(int(seconds // 60), 'minute')} ago"


def next_words(lit: Glance | None, first: bool, some: bool) -> Content | str:
    """What to press now."""
    if first:
        return "Press 3 to judge your first five, or n to begin a project of your own."
    if lit is None:
        return "" if some else "The list is empty: n makes a project, d starts the demo."
    if not lit.there:
        return "x takes it off the list. If its disk comes back, so does the project."
    name = clean(lit.name)
    if lit.live is not None:
        return f"⏎ opens {name}, where {lit.live.name} is going on; the app shows it, past and present."
    return f"⏎ opens {name}. n makes a new project."
