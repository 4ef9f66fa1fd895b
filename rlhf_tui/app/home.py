"""Home: the app while no project is open. It ends with the project that was chosen, or with none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_tui.app import keys, keytable, terminal
from rlhf_tui.app.frame import Frame
from rlhf_tui.app.keyfile import key_file, load_keymap
from rlhf_tui.app.screens.dialogs import help_dialog
from rlhf_tui.app.screens.home import HomeScreen
from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.app.themefile import Taste, taste, theme_file
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


class HomeApp(Frame[Choice]):
    """One screen with the projects of this machine, or with the first steps."""

    def __init__(self, base: Path, *, keymap: keys.Keymap | None = None, taste: Taste | None = None) -> None:
        """`base` is the folder in which new projects are made."""
        super().__init__(list_file().parent, keymap, taste)
        self.base = base.resolve()

    def on_mount(self) -> None:
        """Show the screen."""
        self.begin()
        self.push_screen(HomeScreen())

    def choose(self, project: Project, *, follow: RunFolder | None = None, start: str = "", greeting: str = "") -> None:
        """Leave Home for a project."""
        self.exit(Choice(project, follow, start, greeting))

    def action_help(self) -> None:
        """The keys of Home, or of the screen in front of it."""
        name = self.screen_name(self.screen)
        self.push_screen(help_dialog(name, keytable.TITLES.get(name, "Home"), self.keymap))

    def action_show_log(self) -> None:
        """The logs of the lit project's runs, that of the one that goes on first."""
        lit = self._home.lit
        if lit is None or not lit.there:
            self.notify("No project is lit whose logs could be shown.", timeout=3)
        elif not isinstance(self.screen, LogScreen):
            self.push_screen(LogScreen(Project(lit.known.path), lit.live.name if lit.live else ""))

    @property
    def _home(self) -> HomeScreen:
        return next(screen for screen in self.screen_stack if isinstance(screen, HomeScreen))


def run_home(base: Path) -> Choice | None:
    """Show Home until a project is chosen; None: the user left. Raises UserError as `run_app` does."""
    terminal.require_terminal()
    app = HomeApp(base, keymap=load_keymap(key_file()), taste=taste(theme_file()))
    return app.run()
