"""The app itself: modes for the stages, the clock that reads the journals, and what keys start and steer.

The app only reads the project and asks runs for things; the model lives in the worker of a run. Leaving
the app, however it happens, leaves the run alone.
"""

from __future__ import annotations

import shlex
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.actions import ActionParseResult
from textual.app import App, ScreenStackError, SystemCommand
from textual.binding import BindingType
from textual.content import Content
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.message import Message
from textual.screen import Screen

from rlhf_tui.app import announcing, copying, keys, terminal
from rlhf_tui.app.glyphs import PlainFilter, ascii_wanted
from rlhf_tui.app.harmless import HarmlessFilter
from rlhf_tui.app.keyfile import key_file, load_keymap
from rlhf_tui.app.look import CALM, HEIGHTS, WIDTHS, colourless, dress
from rlhf_tui.app.newswatch import NewsWatch
from rlhf_tui.app.overview import KIND_OF_STAGE, Overview, Watched, how_it_ended
from rlhf_tui.app.screens.compare import CompareScreen
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog, error_dialog, help_dialog
from rlhf_tui.app.screens.export import ExportScreen
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.label_opening import labelling_screen, rejudging_screen
from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.app.screens.model import ModelScreen
from rlhf_tui.app.screens.pairs import PairsScreen
from rlhf_tui.app.screens.ppo import PpoScreen
from rlhf_tui.app.screens.reward import RewardScreen
from rlhf_tui.app.screens.settings import SettingsScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.app.settings_form import SECTION_OF_STAGE, SettingsForm
from rlhf_tui.app.themefile import Taste, keep, taste, theme_file
from rlhf_tui.app.usage import MachineWatch
from rlhf_tui.app.widgets.chart import Chart
from rlhf_tui.app.widgets.status import StageBar
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.project import Project
from rlhf_tui.runs import launcher
from rlhf_tui.runs.control import Verb, request
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.preflight import require_ready

_PATIENCE = 60.0  # seconds for a chat that was stopped to let go of the model; then a run is queued or refused


class RlhfApp(App[None]):
    """The stages of one project on screen."""

    CSS_PATH = "app.tcss"
    TITLE = "rlhf_tui"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("app")
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "model": ModelScreen,
        "pairs": PairsScreen,
        "reward": RewardScreen,
        "ppo": PpoScreen,
        "compare": CompareScreen,
        "export": ExportScreen,
    }
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    class RunStarted(Message):
        """The worker of a run has launched."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    class StartFailed(Message):
        """A run could not be started."""

        def __init__(self, error: UserError) -> None:
            super().__init__()
            self.error = error

    def __init__(
        self,
        project: Project,
        *,
        follow: RunFolder | None = None,
        start: str = "",
        rater: str = "",
        rules: Rules | None = None,
        greeting: str = "",
        keymap: keys.Keymap | None = None,
        taste: Taste | None = None,
        machine: MachineWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(driver_class=terminal.Driver, ansi_color=colourless() or None)
        self._taste = taste or Taste()
        dress(self, self._taste.theme)
        self._machine = machine
        self.keymap: keys.Keymap = keymap or {}
        self._rater = rater
        self._rules = rules
        self.animation_level = "none"
        self.overview = Overview(project, follow=follow)
        self.starting = ""
        self.crash: Path | None = None
        self.bugs = terminal.Bugs(project.root)
        self.announced = False
        self._news = NewsWatch(project, time.time())
        self._plain = [PlainFilter()] if ascii_wanted() else []
        self._following = False
        self._followed = ""
        self._start_at = start
        self._greeting = greeting
        self.going_home = False
        self._trouble = ""
        self._goes_on: list[tuple[str, str]] = []
        self._passed_over = False
        self._clock = clock

    def on_mount(self) -> None:
        """Open the right stage, then look at the project twice a second."""
        self.set_keymap(dict(self.keymap))
        self.overview.poll(budget=0.3)
        self._following = self.overview.demo is not None and self.overview.demo.alive
        self._followed = (self._following and self.overview.followed_stage()) or self.overview.first_stage()
        self._open()
        if not self.overview.project.writable:
            self.notify("This folder is read-only: look around, but nothing can be judged or started.", timeout=10)
        for told in (self._taste.notice, self._greeting):
            if told:
                self.notify(told, markup=False, timeout=15)
        self.set_interval(0.5, self.look)
        self.set_interval(1.0, self._look_at_machine)
        if not self.is_headless:
            terminal.leave_on_signals(self.exit)
            self.set_interval(1.0, self._leave_when_hung_up)

    def _open(self) -> None:
        """Show the screen that was asked for, or else the one that the project is at."""
        if self._start_at == "label":
            self.switch_mode("pairs")
            self.call_after_refresh(self.open_label)
        else:
            self.switch_mode(self._start_at or self._followed)

    def look(self) -> None:
        """Read what is new; move on with a followed demo; renew the screen on top if anything changed."""
        top = self._on_top()
        if top is None:
            return
        try:
            labelling = any(isinstance(screen, LabelScreen) for screen in self.screen_stack)  # under a window, too
            changed = self.overview.poll_runs() if labelling else self.overview.poll()
            self._announce()
        except (UserError, OSError) as error:
            return self._tell_once(error)
        except Exception as error:
            return self._meet_bug(error)
        if self._following:
            self._move_on()
        if self._worth_showing(changed):
            self.renew()

    def _worth_showing(self, changed: bool) -> bool:
        """Whether to draw now. While a run goes on, every second look is drawn: drawing costs most."""
        live = self.overview.live
        running = live is not None and live.status == "running"
        goes_on = [(run.name, run.status) for run in self.overview.runs.values()] if running else []
        self._passed_over = bool(goes_on) and goes_on == self._goes_on and not self._passed_over
        self._goes_on = goes_on
        return (changed or running) and not self._passed_over

    def _announce(self) -> None:
        """Let the terminal tell what has happened to the runs."""
        watched = [run for run in (self.overview.demo, *self.overview.runs.values()) if run is not None]
        text = "".join(announcing.for_run(run, news) for run, news in self._news.look(watched))
        if text:
            self.tell_terminal(text if self.announced else announcing.KEEP_TITLE + text)
            self.announced = True

    def tell_terminal(self, text: str) -> None:
        """Write to the terminal behind the screen, if there is one: something that does not show on it."""
        if not self.is_headless and self._driver is not None:
            self._driver.write(text)

    def renew(self) -> None:
        """Show the newest state on the screen on top."""
        screen = self._on_top()
        if isinstance(screen, StageScreen):
            screen.renew()

    @property
    def machine_words(self) -> str:
        """How busy the machine is, while a run is at work; else nothing, for nobody would look again."""
        live = self.overview.live
        return self._machine.words if self._machine and live and live.status == "running" else ""

    def _look_at_machine(self) -> None:
        live = self.overview.live
        if self._machine and live and live.status == "running":
            self._machine.look()

    def _on_top(self) -> Screen[Any] | None:
        """The screen on top; None once the app is closing and a timer fires for the last time."""
        try:
            return self.screen
        except ScreenStackError:
            return None

    # What keys do

    def action_stage(self, name: str) -> None:
        """Go to a stage; from now on the user leads."""
        self._following = False
        self.switch_mode(name)

    def action_turn_stage(self, by: int) -> None:
        """Go to the stage before or after."""
        names = [name for name, _ in keys.STAGES]
        self.action_stage(names[(names.index(self.current_mode) + by) % len(names)])

    def action_help(self) -> None:
        """The keys of the screen on top, and what the lit chart means."""
        name = self._screen_name(self.screen)
        lit = self.screen.focused
        about = lit.metric if isinstance(lit, Chart) else ""
        self.push_screen(help_dialog(name, keys.TITLES.get(name, "Label"), self.keymap, lit=about))

    def action_copy_command(self) -> None:
        """Copy the command line of this screen, and show it."""
        copying.copy(self, self.command_line())

    def action_copy_text(self) -> None:
        """Copy all that the window on top has to read."""
        copying.copy(self, copying.text_in(self.screen))

    def action_show_log(self) -> None:
        """The logs of the runs, that of the newest one of this stage first."""
        if not isinstance(self.screen, LogScreen):
            run = self.overview.run(self.current_mode)
            self.push_screen(LogScreen(self.overview.project, run.name if run else ""))

    def action_leave(self) -> None:
        """Leave; a run goes on."""
        self.exit()

    def action_home(self) -> None:
        """Leave the project for the list of all projects; a run goes on."""
        self.going_home = True
        self.exit()

    def action_edit_setting(self) -> None:
        """All settings of the project, from those of the stage on screen on."""
        section = SECTION_OF_STAGE.get(self.current_mode, self.current_mode)
        self.push_screen(SettingsScreen(SettingsForm(self.overview.project), section))

    def action_toggle_pause(self) -> None:
        """Pause the run, or let it go on."""
        run = self.overview.steered(self.current_mode)
        if run is None:
            self.notify("No run is going on.", timeout=2)
            return
        if run.status == "paused":
            self._ask("resume", "Going on.")
        elif run.status == "queued":
            self._ask("pause", "It leaves the queue and waits.")
        else:
            self._ask("pause", "Pausing after this step…")

    def action_save_now(self) -> None:
        """Save a checkpoint at the next step."""
        self._ask("save", "Saving after this step…")

    def action_stop_run(self) -> None:
        """Stop the run, after a question."""
        run = self.overview.steered(self.current_mode)
        if run is None:
            self.notify("No run is going on.", timeout=2)
            return
        saves = "Files that have arrived whole stay." if run.folder.kind == "download" else "It saves first."
        question = f"Stop {run.name}? {saves}"
        self.push_screen(ConfirmDialog("Stop the run", question), lambda yes: self._stop_if(yes, run))

    def start_stage(self, stage: str, options: Mapping[str, str]) -> None:
        """Start a run of a stage, unless one is going on or something is missing."""
        other, chat = self.overview.in_the_way(stage), self.overview.runs.get("chat")
        if self.starting or (other and other is not chat):
            name = other.name if other else self.starting
            self.notify(f"{name} is going on. Wait for it, or stop it with '.' first.", timeout=4)
            return
        missing = self.overview.missing(stage)
        if missing:
            self.show_error(missing)
        elif chat is not None and chat.status in ("running", "paused"):
            question = (
                f"{chat.name} has the model. Stop it and start this? What was said is kept; n leaves it as it is."
            )
            begin = self._begin
            self.push_screen(
                ConfirmDialog("A chat is open", question), lambda yes: begin(stage, options, chat) if yes else None
            )
        else:
            self._begin(stage, options)

    def _begin(self, stage: str, options: Mapping[str, str], instead_of: Watched | None = None) -> None:
        """Start a run of a stage; a chat that has the model is stopped first."""
        if instead_of is not None:
            self._ask("stop", f"{instead_of.name} ends.", instead_of)
        self.starting = KIND_OF_STAGE[stage]
        self.renew()
        self._start(KIND_OF_STAGE[stage], dict(options), instead_of.folder if instead_of else None)

    def open_label(self) -> None:
        """Open the labelling screen."""
        self._following = False
        self._open_screen(
            lambda: labelling_screen(
                self.overview.project, rater=self._rater, rules=self._rules, clock=self._clock, keymap=self.keymap
            )
        )

    def judge_again(self, judgement_id: int) -> None:
        """Open the labelling screen on one earlier judgement."""
        project = self.overview.project
        self._open_screen(lambda: rejudging_screen(project, judgement_id, clock=self._clock, keymap=self.keymap))

    def _open_screen(self, make: Callable[[], Screen[None]]) -> None:
        try:
            screen = make()
        except UserError as error:
            self.show_error(error)
        else:
            self.push_screen(screen)

    def show_error(self, error: UserError) -> None:
        """What happened, why and what to do, in a window."""
        self.push_screen(error_dialog(error))

    def show_text(self, title: str, paragraphs: Sequence[str]) -> None:
        """A text in a window."""
        self.push_screen(TextDialog(title, Content("\n\n".join(clean(part) for part in paragraphs))))

    def command_line(self) -> str:
        """The command that does what is on screen."""
        screen = self.screen
        if isinstance(screen, SettingsScreen):
            return screen.command_line()
        verb = screen.command() if isinstance(screen, StageScreen | LabelScreen) else ""
        run = self.overview.run(self.current_mode)
        if run is not None and run.alive and isinstance(screen, StageScreen):
            verb = f"runs watch {run.name}"
        return f"rlhf-tui {verb} --project {shlex.quote(str(self.overview.project.root))}"

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's own filters, and the one for plain ASCII when it is asked for."""
        return [*super().get_line_filters(), HarmlessFilter(), *self._plain]

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: every action of the screen."""
        for action in keys.actions(self._screen_name(screen), self.keymap):
            yield SystemCommand(f"{action.label} ({action.shown})", action.help, self._runner(action.call, screen))

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own colours, as long as no theme is on."""
        return CALM.variables

    # What happens

    def watch_theme(self, name: str) -> None:
        """Keep a theme that the user has chosen."""
        trouble = keep(self._taste.file, name) if self.is_running and self._taste.file else ""
        if trouble:
            self.notify(trouble, markup=False, timeout=6)

    @on(StageBar.Chosen)
    def _stage_chosen(self, event: StageBar.Chosen) -> None:
        self.action_stage(event.stage)

    @on(RunStarted)
    def _run_started(self) -> None:
        self.starting = ""
        self.look()
        self.renew()

    @on(StartFailed)
    def _start_failed(self, event: StartFailed) -> None:
        self.starting = ""
        self.look()
        self.renew()
        self.show_error(event.error)

    @work(thread=True, exclusive=True, exit_on_error=False, group="start")
    def _start(self, kind: str, options: dict[str, str], after: RunFolder | None = None) -> None:
        """Make the run and launch its worker, away from the thread that draws; when `after` has ended."""
        project = self.overview.project
        try:
            deadline = time.monotonic() + _PATIENCE
            while after is not None and after.alive and time.monotonic() < deadline:
                time.sleep(0.1)
            require_ready(project, kind, project.settings())
            run = create_run(project, kind, options=options)
            launcher.launch(project, run)
        except UserError as error:
            self.post_message(self.StartFailed(error))
        except (OSError, sqlite3.Error) as error:
            wrapped = UserError(f"The {kind} run could not be started.", why=str(error), todo="Check disk and rights.")
            self.post_message(self.StartFailed(wrapped))
        else:
            self.post_message(self.RunStarted(run.name))

    def _tell_once(self, error: UserError | OSError) -> None:
        """Trouble that every look would meet again is shown once."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            self.show_error(
                error if isinstance(error, UserError) else UserError("The project cannot be read.", why=str(error))
            )

    def _ask(self, verb: Verb, answer: str, run: Watched | None = None) -> None:
        run = run or self.overview.steered(self.current_mode)
        if run is None:
            self.notify("No run is going on.", timeout=2)
            return
        try:
            request(run.folder, verb)
        except UserError as error:
            self.show_error(error)
        else:
            self.notify(answer, timeout=2)

    def _stop_if(self, yes: bool | None, run: Watched) -> None:
        if yes:  # the run that was asked about, whichever is steered by now
            self._ask("stop", "Stopping after this step…", run)

    def _move_on(self) -> None:
        """Follow the demo to the stage it is in now, unless the user is reading something."""
        stage = self.overview.followed_stage()
        if stage and stage != self._followed and isinstance(self.screen, StageScreen):
            self._followed = stage
            self.switch_mode(stage)
        demo = self.overview.demo
        if demo and not demo.alive:
            self._following = False
            told = how_it_ended(demo)
            if isinstance(told, UserError):
                self.show_error(told)
            else:
                self.notify(told, timeout=10)

    def _screen_name(self, screen: Screen[Any]) -> str:
        """The name in `keys.SCOPES` of the keys that work on a screen: what the screen says, or its stage."""
        return str(getattr(screen, "keys_named", self.current_mode))

    def _run_on_screen(self) -> Watched | None:
        return self.overview.run(self.current_mode) or self.overview.live

    def _runner(self, call: str, screen: Screen[Any]) -> Callable[[], None]:
        def run() -> None:
            self.call_later(self.run_action, call, screen)

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
            self._meet_bug(error)
            return True

    def _meet_bug(self, error: Exception) -> None:
        """Tell of a bug once, however often it comes back."""
        told = self.bugs.meet(error)
        if told is not None:
            self.show_error(told)

    def _fatal_error(self) -> None:
        """Keep the traceback in a file only the user can read; print no values of variables."""
        error = sys.exc_info()[1] or self._exception
        self.crash = terminal.keep_crash(self.overview.project.root, error) if error else None
        kept = f"Its traceback is in {self.crash}" if self.crash else "Its traceback could not be written."
        self._exit_renderables.append(
            Text(f"rlhf-tui met a bug: {type(error).__name__}: {error}\n{kept}\nA run goes on without the app.")
        )
        self._close_messages_no_wait()


def run_app(
    project: Project,
    *,
    follow: RunFolder | None = None,
    start: str = "",
    rater: str = "",
    rules: Rules | None = None,
    greeting: str = "",
) -> bool:
    """Show the project until the user leaves it; whether for Home, where all projects are.

    `follow` is a demo run whose stages the app moves along with; `start` names the screen to open with
    ('label', or a stage) instead of the one the project is at; `rater` and `rules` are those of labelling,
    instead of the project's own; `greeting` is said once. Raises UserError without a terminal, or for a broken
    file of keys.
    """
    require_terminal()
    machine = MachineWatch()
    app = RlhfApp(
        project,
        follow=follow,
        start=start,
        rater=rater,
        rules=rules,
        greeting=greeting,
        keymap=load_keymap(key_file()),
        taste=taste(theme_file()),
        machine=machine,
    )
    with closing(machine):
        app.run()
    if app.announced:
        print(announcing.FORMER_TITLE, end="", file=sys.__stderr__, flush=True)
    live = app.overview.live
    if live is not None and not app.going_home:
        print(f"{live.name} goes on. Come back with: rlhf-tui {shlex.quote(str(project.root))}")
    return app.going_home


def require_terminal() -> None:
    """Raise UserError when there is no terminal to draw on."""
    if not (sys.stdin.isatty() and sys.__stderr__ is not None and sys.__stderr__.isatty()):
        raise UserError(
            "The app needs a terminal.",
            why="Its input or output is not one.",
            todo="Run it in a terminal, or use the other verbs: 'rlhf-tui --help'.",
        )
