"""What the app of a project and Home have in common: the terminal, keys, themes, copying, and living on after a bug."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.actions import ActionParseResult
from textual.app import App, ReturnType, ScreenStackError, SystemCommand
from textual.binding import BindingType
from textual.command import CommandPalette
from textual.css.query import NoMatches
from textual.dom import DOMNode
from textual.errors import NoWidget
from textual.events import Event, MouseEvent
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import OptionList
from textual.worker import WorkerFailed

from rlhf_tui.app import copying, keys, terminal
from rlhf_tui.app.glyphs import PlainFilter, ascii_wanted
from rlhf_tui.app.harmless import HarmlessFilter
from rlhf_tui.app.look import CALM, HEIGHTS, WIDTHS, colourless, dress
from rlhf_tui.app.screens.dialogs import ConfirmDialog, error_dialog, give_up_dialog
from rlhf_tui.app.sheet import Sheet
from rlhf_tui.app.themefile import Taste, keep
from rlhf_tui.errors import UserError

#: Seconds that a notice must have left to be shown on another screen, too.
_BARELY = 0.25


class Frame(App[ReturnType]):
    """An app in our terminal. A subclass calls `begin` when it is mounted.

    A screen says in `keys_named` which keys work on it, in `command_line` which command does what it shows, and in
    `unstored` what of it would be lost if one left now.
    """

    CSS_PATH = "app.tcss"
    TITLE = "rlhf_tui"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("app")
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def __init__(self, crashes: Path, keymap: keys.Keymap | None, taste: Taste | None) -> None:
        """`crashes` is the folder for tracebacks."""
        super().__init__(driver_class=terminal.Driver, ansi_color=colourless() or None)
        self.stylesheet = Sheet(variables=self.get_css_variables())
        self.taste = taste or Taste()
        dress(self, self.taste.theme)
        self.keymap: keys.Keymap = keymap or {}
        self.bugs = terminal.Bugs(crashes)
        self.animation_level = "none"
        self._filters_of_ours: list[LineFilter] = [HarmlessFilter(), *([PlainFilter()] if ascii_wanted() else [])]

    def begin(self) -> None:
        """Take the user's keys, say what is wrong with their theme, and leave in order when the terminal goes."""
        self.set_keymap(dict(self.keymap))
        self.call_after_refresh(_collect_again)
        if self.taste.notice:
            self.notify(self.taste.notice, markup=False, timeout=15)
        if not self.is_headless:
            terminal.leave_on_signals(self.exit)
            self.set_interval(1.0, self._leave_when_hung_up)

    def screen_name(self, screen: Screen[Any]) -> str:
        """The name in `keytable.SCOPES` of the keys that work on a screen."""
        return str(getattr(screen, "keys_named", ""))

    def command_line(self) -> str:
        """The command that does what is on screen; a window leaves the word to the screen behind it."""
        for screen in reversed(self.screen_stack):
            told: Callable[[], str] | None = getattr(screen, "command_line", None)
            if told is not None:
                return told()
        return "rlhf-tui"

    def show_error(self, error: UserError) -> None:
        """What happened, why and what to do, in a window."""
        self.push_screen(error_dialog(error))

    # What keys do

    def action_copy_command(self) -> None:
        """Copy the command line of this screen, and show it."""
        copying.copy(self, self.command_line())

    def action_copy_text(self) -> None:
        """Copy all that the window on top has to read."""
        copying.copy(self, copying.text_in(self.screen))

    def action_leave(self) -> None:
        """Leave; runs go on. Where something that was begun would be lost, after a question."""
        lost = next((said for screen in self.screen_stack if (said := getattr(screen, "unstored", ""))), "")
        if not lost:
            self.exit()
        elif not isinstance(self.screen, ConfirmDialog):  # once is asked enough
            self.push_screen(give_up_dialog(lost), lambda yes: self.exit() if yes else None)

    async def action_quit(self) -> None:
        """Leave from wherever one is."""
        self.action_leave()

    def action_command_palette(self) -> None:
        """Open the palette, unless the one before is still being taken away: Textual 8.2 falls over two of them."""
        if not any(isinstance(one, CommandPalette) for one in self._nodes):
            super().action_command_palette()

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Carry out what a key asks for. A bug in it is kept in a file and told, and the app lives on."""
        if _has_no_page(str(action), default_namespace):
            return True
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except Exception as error:
            self.meet_bug(error)
            return True

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: every action of the screen."""
        for action in keys.actions(self.screen_name(screen), self.keymap):
            yield SystemCommand(f"{action.label} ({action.shown})", action.help, self._runner(action.call, screen))

    # How it is drawn

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's own filters, the one that draws nothing a terminal obeys, and the one for plain ASCII."""
        return [*super().get_line_filters(), *self._filters_of_ours]

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own colours, as long as no theme is on."""
        return CALM.variables

    def watch_theme(self, name: str) -> None:
        """Keep a theme that the user has chosen."""
        trouble = keep(self.taste.file, name) if self.is_running and self.taste.file else ""
        if trouble:
            self.notify(trouble, markup=False, timeout=6)

    def _refresh_notifications(self) -> None:
        """Show no notice anew that is about to go: Textual 8.2 would wait for a time in the past, and never end."""
        for notice in [one for one in self._notifications if one.time_left < _BARELY]:
            self._unnotify(notice, refresh=False)
        super()._refresh_notifications()

    async def on_event(self, event: Event) -> None:
        """A click on a notice that has just gone is none: Textual 8.2 falls over it until all is drawn anew."""
        if event.is_forwarded or not (isinstance(event, MouseEvent) and self._on_what_is_gone(event)):
            await super().on_event(event)

    def _on_what_is_gone(self, event: MouseEvent) -> bool:
        try:
            widget, _ = self.get_widget_at(event.x, event.y)
        except (NoWidget, ScreenStackError):
            return False
        return not widget.is_attached

    # How it ends

    def meet_bug(self, error: Exception) -> None:
        """Tell of a bug once, however often it comes back."""
        told = self.bugs.meet(error)
        if told is not None:
            self.show_error(told)

    def _handle_exception(self, error: Exception) -> None:
        """A worker that fails ends no app; Textual's palette looks for its list in one that it has closed with it."""
        if not isinstance(error, WorkerFailed):
            super()._handle_exception(error)
        elif not (isinstance(error.error, NoMatches) and CommandPalette.__name__ in str(error.error)):
            self.meet_bug(error.error if isinstance(error.error, Exception) else error)

    def _fatal_error(self) -> None:
        """Keep the traceback in a file only the user can read; print no values of variables."""
        error = sys.exc_info()[1] or self._exception
        if error is not None:
            self._exit_renderables.append(Text(f"{self.bugs.told(error)}\nA run goes on without the app."))
        self._close_messages_no_wait()

    def _leave_when_hung_up(self) -> None:
        if terminal.hung_up():
            self.exit()

    def _runner(self, call: str, screen: Screen[Any]) -> Callable[[], None]:
        def run() -> None:
            self.call_later(self.run_action, call, screen)

        return run


def _has_no_page(action: str, node: DOMNode | None) -> bool:
    """Whether a page is to be turned in a list that has no room for a line: Textual 8.2 falls over that."""
    if "page_" not in action or not isinstance(node, OptionList | CommandPalette):
        return False
    return not all(one.scrollable_content_region for one in node.query(OptionList) or [node])


def _collect_again() -> None:
    """The first screen is drawn: what was made until now stays, and garbage is looked for from now on."""
    gc.freeze()
    gc.enable()
