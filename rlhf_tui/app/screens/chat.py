"""Talking to base and tuned model side by side. The chat is a run: leaving the screen leaves it alone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input, Static

from rlhf_tui.app import keys, talking
from rlhf_tui.app.overview import ALIVE
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import launcher, mailbox
from rlhf_tui.runs.control import request
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.folder import RunFolder, create_run, latest
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.preflight import require_ready

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp

_LOOK = 0.3  # seconds
_LOOKED = 5.0  # seconds between two signs that somebody is here


class ChatScreen(Screen[None]):
    """Two conversations and a line to type; what was said before is read from the run."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("chat")
    keys_named = "chat"
    AUTO_FOCUS = "#question"

    class Started(Message):
        """A chat has been started, or could not be."""

        def __init__(self, error: UserError | None) -> None:
            super().__init__()
            self.error = error

    def __init__(self, project: Project, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._project, self._clock = project, clock
        self._run: RunFolder | None = None
        self._talk: mailbox.Conversation | None = None
        self._reader: JournalReader | None = None
        self._shown: dict[str, talking.SideText] = {}
        self._fresh, self._busy, self._looked = False, "", -_LOOKED
        self._turn_to_newest()

    def compose(self) -> ComposeResult:
        """Base and tuned, what to know, the line to type."""
        yield Ends(id="head")
        with Container(id="talk"):
            for side in mailbox.SIDES:
                yield TextPane(talking.TITLES[side], id=f"talk-{side}")
        yield Static("", markup=False, id="talk-hint")
        yield Input(placeholder="Ask both something; ⏎ sends it", compact=True, id="question")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show what was said, and look for more a few times a second."""
        self._here()
        self.call_after_refresh(self.look)
        self.set_interval(_LOOK, self.look)

    def on_screen_resume(self) -> None:
        """A window has closed."""
        self._here()

    def on_resize(self) -> None:
        """Lines are broken anew."""
        self.call_after_refresh(self._to_the_end)

    def command_line(self) -> str:
        """The command that does the same."""
        return f"rlhf-tui chat --project {shlex.quote(str(self._project.root))}"

    # What is shown

    def look(self) -> None:
        """Read what is new, and show it."""
        if not self.is_mounted:
            return
        self._turn_to_newest()
        run, talk = self._run, self._talk
        status = run.status() if run is not None else None
        if run is not None and talk is not None and self._reader is not None:
            try:
                for stamped in self._reader.read():
                    talk.take(stamped)
                talk.notice()
            except UserError as error:
                self._fail(error)
            for side in mailbox.SIDES:
                self._show_side(side, talking.side_text(talk, side, mailbox.heard(run)))
        alone = talk is not None and talk.alone
        self.query_one("#talk-policy").display = not alone
        app = cast("RlhfApp", self.app)
        left = Content.assemble(tinted("rlhf_tui", "accent"), "  ", tinted("Talk", "strong"))
        end = ending(run) if run is not None and status in ("failed", "crashed") else None
        self.query_one("#head", Ends).show(left, talking.state_words(status, talk, end, self._busy))
        self.query_one("#talk-hint", Static).update(tinted(talking.hint(status, alone, self._fresh), "quiet"))
        live = status in ALIVE
        self.query_one(KeyLine).show(keys.footer("chat", self.app.size.width, live=live, keymap=app.keymap))

    def _show_side(self, side: str, said: talking.SideText) -> None:
        if said == self._shown.get(side):
            return
        pane = self.query_one(f"#talk-{side}", TextPane)
        at_end = not pane.lines_below
        self._shown[side] = said
        pane.show(said.text, quiet=said.quiet, begin=pane.offset_of(pane.top))
        if at_end:
            self._scroll_to_end(pane)

    def _to_the_end(self) -> None:
        for pane in self.query(TextPane):
            self._scroll_to_end(pane)

    def _scroll_to_end(self, pane: TextPane) -> None:
        pane.scroll_to_line(pane.reach)
        pane.scroll_to_line(pane.reach)  # only now all lines are broken

    # What keys do

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask; where no chat lives, one is started."""
        text = event.value.strip()
        if not text or self._busy:
            return
        event.input.value = ""
        fresh, self._fresh = self._fresh, False
        if self._run is not None and self._run.status() in ALIVE:
            try:
                mailbox.ask(self._run, text, fresh=fresh)
            except UserError as error:
                self._fail(error)
        else:
            self._busy = "starting"
            self._start(text)
        self.look()

    def on_input_changed(self) -> None:
        """Somebody types: the chat does not end yet."""
        self._here()

    def action_page(self, by: int) -> None:
        """A page up or down, in both."""
        for pane in self.query(TextPane):
            pane.scroll_by(by * max(pane.size.height - 2, 1))

    def action_afresh(self) -> None:
        """Let the next question begin afresh, or not."""
        self._fresh = not self._fresh
        self.look()

    def action_stop(self) -> None:
        """Stop the chat and free the memory; what was said is kept."""
        if self._run is None or self._run.status() not in ALIVE:
            self.notify("No chat is going on.", timeout=2)
            return
        try:
            request(self._run, "stop")
        except UserError as error:
            self._fail(error)
        else:
            self.notify("Stopping: the model is let go of; what was said is kept.", timeout=3)

    def action_back(self) -> None:
        """Leave; the chat goes on until nobody has looked for a while."""
        self.dismiss(None)

    # What happens

    @on(Started)
    def _started(self, event: Started) -> None:
        self._busy = ""
        self.look()
        if event.error is not None:
            self._fail(event.error)

    def _turn_to_newest(self) -> None:
        """Turn to the newest chat of the project."""
        newest = latest(self._project, "chat")
        if newest is not None and newest != self._run:
            self._run, self._talk = newest, mailbox.Conversation(newest)
            self._reader = JournalReader(newest.events_path)

    def _here(self) -> None:
        """Let the chat know now and then that somebody is here."""
        if self._run is not None and self._clock() - self._looked >= _LOOKED and self._run.status() in ALIVE:
            self._looked = self._clock()
            mailbox.look(self._run)

    def _fail(self, error: UserError) -> None:
        cast("RlhfApp", self.app).show_error(error)

    @work(thread=True, exclusive=True, group="chat")
    def _start(self, text: str) -> None:
        """Make the run with its first question in it, and launch its worker, away from the thread that draws."""
        project = self._project
        try:
            require_ready(project, "chat", project.settings())
            run = create_run(project, "chat")
            mailbox.ask(run, text)
            launcher.launch(project, run)
        except UserError as error:
            self.post_message(self.Started(error))
        except OSError as error:
            self.post_message(self.Started(UserError("The chat could not be started.", why=str(error))))
        else:
            self.post_message(self.Started(None))
