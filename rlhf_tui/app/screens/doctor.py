"""This machine: everything the doctor looks at, the lit check explained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.screen import Screen

from rlhf_tui.app import keys, machine
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.widgets.board import Board
from rlhf_tui.app.widgets.listing import Listing
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.doctor import Check, examine

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp
    from rlhf_tui.app.home import HomeApp

_WHEEL = 2  # lines that a turn of the wheel moves the cursor


class DoctorScreen(Screen[None]):
    """The checks of a folder, as a list; a thread looks, so that the screen is there at once."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("doctor")
    keys_named = "doctor"
    AUTO_FOCUS = ""

    class Examined(Message):
        """The machine has been looked at."""

        def __init__(self, checks: Sequence[Check]) -> None:
            super().__init__()
            self.checks = checks

    def __init__(self, folder: Path, checks: Sequence[Check] | None = None) -> None:
        """`folder` may be a project. `checks`: what has been found there already."""
        super().__init__()
        self._folder = folder
        self._checks: Sequence[Check] = checks or ()
        self._looking = checks is None
        self._at = machine.worst(self._checks)

    def compose(self) -> ComposeResult:
        """The list, the lit check, the line of keys."""
        yield Ends(id="head")
        with Container(classes="explained"):
            yield Listing(id="checks")
            yield Board("", id="check")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show what is known, and look if nothing is."""
        self.query_one("#checks").border_title = Content("What was looked at")
        self.show()
        if self._looking:
            self._examine()

    def on_resize(self) -> None:
        """Lines are cut to the width."""
        self.call_after_refresh(self.show)

    def show(self) -> None:
        """Everything as it is now."""
        if not self.is_mounted:
            return
        app = cast("RlhfApp | HomeApp", self.app)
        left = Content.assemble(tinted("rlhf_tui", "accent"), "  ", tinted("This machine", "strong"))
        self.query_one("#head", Ends).show(left, machine.summary(None if self._looking else self._checks))
        checks, at = self._checks, self._at
        self.query_one("#checks", Listing).show(
            [False] * len(checks),
            at if checks else None,
            lambda place, width: machine.row(checks[place], width, lit=place == at),
        )
        board = self.query_one("#check", Board)
        if checks:
            board.show(machine.brief_about(checks[at]), title=checks[at].name)
        else:
            board.show(tinted("● Looking at packages, card, disk and terminal…", "accent"), title="")
        self.query_one(KeyLine).show(keys.footer("doctor", self.app.size.width, live=False, keymap=app.keymap))

    def command_line(self) -> str:
        """The command that looks at the same."""
        return f"rlhf-tui doctor --project {shlex.quote(str(self._folder))}"

    # What keys do

    def action_move(self, by: int) -> None:
        """So many checks up or down."""
        self._at = max(min(self._at + by, len(self._checks) - 1), 0)
        self.show()

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self.action_move(by * self.query_one("#checks", Listing).page)

    def action_far(self, by: int) -> None:
        """To the first, or the last."""
        self.action_move(by * len(self._checks))

    def action_read(self) -> None:
        """All about the lit check, in a window."""
        if self._checks:
            check = self._checks[self._at]
            self.app.push_screen(TextDialog(check.name, machine.about(check)))

    def action_again(self) -> None:
        """Look again; what was found stays until it is there."""
        if not self._looking:
            self._looking = True
            self.show()
            self._examine()

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)

    # What happens

    @on(Examined)
    def _examined(self, event: Examined) -> None:
        lit = self._checks[self._at].name if self._checks else ""
        self._looking, self._checks = False, event.checks
        names = [check.name for check in event.checks]
        self._at = names.index(lit) if lit in names else machine.worst(event.checks)
        self.show()

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        """Light what was clicked; what is lit already is read."""
        if event.at == self._at:
            self.action_read()
        self.action_move(event.at - self._at)

    def on_listing_turned(self, event: Listing.Turned) -> None:
        """The cursor goes along with the wheel."""
        self.action_move(event.by * _WHEEL)

    @work(thread=True, exclusive=True, group="examine")
    def _examine(self) -> None:
        self.post_message(self.Examined(examine(self._folder)))
