"""Home: the app while no project is open. It ends with the project that was chosen, or with none."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.actions import ActionParseResult
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen

from rlhf_tui.app import copying, keys, terminal
from rlhf_tui.app.app import require_terminal
from rlhf_tui.app.glyphs import PlainFilter, ascii_wanted
from rlhf_tui.app.harmless import HarmlessFilter
from rlhf_tui.app.keyfile import key_file, load_keymap
from rlhf_tui.app.look import CALM, HEIGHTS, WIDTHS, colourless, dress
from rlhf_tui.app.screens.dialogs import error_dialog, help_dialog
from rlhf_tui.app.screens.home import HomeScreen
from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.app.themefile import Taste, keep, taste, theme_file
from rlhf_tui.project import Project
from rlhf_tui.projects import list_file
from rlhf_tui.runs.folder import RunFolder


@dataclass(frozen=True)
class Choice:
    """A project to open; `follow`, `start` and `greeting` as `run_app` takes them."""

    project: Project
    follow: RunFolder | None = None
    start: str = ""
    greeting: str = ""

    def how(self) -> dict[str, Any]:
        """All but the project."""
        return {"follow": self.follow, "start": self.start, "greeting": self.greeting}


class HomeApp(App[Choice]):
    """One screen with the projects of this machine, or with the first steps."""

    CSS_PATH = "app.tcss"
    TITLE = "rlhf_tui"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("app")
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def __init__(self, base: Path, *, keymap: keys.Keymap | None = None, taste: Taste | None = None) -> None:
        """`base` is the folder in which new projects are made."""
        super().__init__(driver_class=terminal.Driver, ansi_color=colourless() or None)
        self._taste = taste or Taste()
        dress(self, self._taste.theme)
        self.keymap: keys.Keymap = keymap or {}
        self.base = base.resolve()
        self.bugs = terminal.Bugs(list_file().parent)
        self.animation_level = "none"
        self._plain = [PlainFilter()] if ascii_wanted() else []

    def on_mount(self) -> None:
        """Show the screen; leave in order when the terminal goes."""
        self.set_keymap(dict(self.keymap))
        self.push_screen(HomeScreen())
        if self._taste.notice:
            self.notify(self._taste.notice, markup=False, timeout=15)
        if not self.is_headless:
            terminal.leave_on_signals(self.exit)
            self.set_interval(1.0, self._leave_when_hung_up)

    def choose(self, project: Project, *, follow: RunFolder | None = None, start: str = "", greeting: str = "") -> None:
        """Leave Home for a project."""
        self.exit(Choice(project, follow, start, greeting))

    def action_help(self) -> None:
        """The keys of Home, or of the screen in front of it."""
        name = self._keys_named(self.screen)
        self.push_screen(help_dialog(name, keys.TITLES.get(name, "Home"), self.keymap))

    def action_copy_command(self) -> None:
        """Copy the command line that opens the lit project, and show it."""
        lit = self._home.lit
        copying.copy(self, f"rlhf-tui {shlex.quote(lit.known.root)}" if lit else "rlhf-tui init my-assistant")

    def action_copy_text(self) -> None:
        """Copy all that the window on top has to read."""
        copying.copy(self, copying.text_in(self.screen))

    def action_show_log(self) -> None:
        """The logs of the lit project's runs, that of the one that goes on first."""
        lit = self._home.lit
        if lit is None or not lit.there:
            self.notify("No project is lit whose logs could be shown.", timeout=3)
        elif not isinstance(self.screen, LogScreen):
            self.push_screen(LogScreen(Project(lit.known.path), lit.live.name if lit.live else ""))

    def action_leave(self) -> None:
        """Leave; runs go on."""
        self.exit()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's own filters, and the one for plain ASCII when it is asked for."""
        return [*super().get_line_filters(), HarmlessFilter(), *self._plain]

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: every action of the screen."""
        for action in keys.actions(self._keys_named(screen), self.keymap):
            yield SystemCommand(f"{action.label} ({action.shown})", action.help, self._runner(action.call, screen))

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own colours, as long as no theme is on."""
        return CALM.variables

    def watch_theme(self, name: str) -> None:
        """Keep a theme that the user has chosen."""
        trouble = keep(self._taste.file, name) if self.is_running and self._taste.file else ""
        if trouble:
            self.notify(trouble, markup=False, timeout=6)

    @property
    def _home(self) -> HomeScreen:
        return next(screen for screen in self.screen_stack if isinstance(screen, HomeScreen))

    def _keys_named(self, screen: Screen[Any]) -> str:
        return getattr(screen, "keys_named", "") or self._home.keys_named

    def _runner(self, call: str, screen: Screen[Any]) -> Callable[[], None]:
        namespace = screen if hasattr(screen, "keys_named") else self._home

        def run() -> None:
            self.call_later(self.run_action, call, namespace)

        return run

    def _leave_when_hung_up(self) -> None:
        if terminal.hung_up():
            self.exit()

    async def run_action(
        self,
        action: str | ActionParseResult,
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Carry out what a key asks for. A bug in it is kept in a file and told, and the app lives on."""
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except Exception as error:
            if (told := self.bugs.meet(error)) is not None:
                self.push_screen(error_dialog(told))
            return True

    def _fatal_error(self) -> None:
        """Keep the traceback in a file only the user can read; print no values of variables."""
        error = sys.exc_info()[1] or self._exception
        kept = terminal.keep_crash(list_file().parent, error) if error else None
        where = f"Its traceback is in {kept}" if kept else "Its traceback could not be written."
        self._exit_renderables.append(Text(f"rlhf-tui met a bug: {type(error).__name__}: {error}\n{where}"))
        self._close_messages_no_wait()


def run_home(base: Path) -> Choice | None:
    """Show Home until a project is chosen; None: the user left. Raises UserError as `run_app` does."""
    require_terminal()
    app = HomeApp(base, keymap=load_keymap(key_file()), taste=taste(theme_file()))
    return app.run()
