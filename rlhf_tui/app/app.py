"""The app itself: modes for the stages, the clock that reads the journals, and what keys start and steer.

The app only reads the project and asks runs for things; the model lives in the worker of a run. Leaving
the app, however it happens, leaves the run alone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual import on, work
from textual.app import ScreenStackError
from textual.content import Content
from textual.message import Message
from textual.screen import Screen

from rlhf_tui.app import announcing, keys, keytable, opening
from rlhf_tui.app.frame import Frame
from rlhf_tui.app.newswatch import NewsWatch
from rlhf_tui.app.overview import KIND_OF_STAGE, Overview, Watched, how_it_ended
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog, help_dialog
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.app.themefile import Taste
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


class RlhfApp(Frame[None]):
    """The stages of one project on screen."""

    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = dict(opening.STAGES)

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
        super().__init__(project.root, keymap, taste)
        self._machine = machine
        self._rater = rater
        self._rules = rules
        self.overview = Overview(project, follow=follow)
        self.starting = ""
        self.announced = False
        self._news = NewsWatch(project, time.time())
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
        self.begin()
        self.overview.poll(budget=0.3)
        self._following = self.overview.demo is not None and self.overview.demo.alive
        self._followed = (self._following and self.overview.followed_stage()) or self.overview.first_stage()
        self._open()
        if not self.overview.project.writable:
            self.notify("This folder is read-only: look around, but nothing can be judged or started.", timeout=10)
        if self._greeting:
            self.notify(self._greeting, markup=False, timeout=15)
        self.set_interval(0.5, self.look)
        self.set_interval(1.0, self._look_at_machine)

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
            labelling = any(
                getattr(screen, "writes_labels", False) for screen in self.screen_stack
            )  # under a window, too
            changed = self.overview.poll_runs() if labelling else self.overview.poll()
            self._announce()
        except (UserError, OSError) as error:
            return self._tell_once(error)
        except Exception as error:
            return self.meet_bug(error)
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
        names = [name for name, _ in keytable.STAGES]
        self.action_stage(names[(names.index(self.current_mode) + by) % len(names)])

    def action_help(self) -> None:
        """The keys of the screen on top, and what the lit chart means."""
        name = self.screen_name(self.screen)
        lit = self.screen.focused
        about = lit.metric if isinstance(lit, Chart) else ""
        self.push_screen(help_dialog(name, keytable.TITLES.get(name, "Label"), self.keymap, lit=about))

    def action_show_log(self) -> None:
        """The logs of the runs, that of the newest one of this stage first."""
        if self.screen_name(self.screen) != "log":
            run = self.overview.run(self.current_mode)
            self.push_screen(opening.log_screen(self.overview.project, run.name if run else ""))

    def action_home(self) -> None:
        """Leave the project for the list of all projects; a run goes on."""
        self.going_home = True
        self.exit()

    def action_edit_setting(self) -> None:
        """All settings of the project, from those of the stage on screen on."""
        self.push_screen(opening.settings_screen(self.overview.project, self.current_mode))

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
        project, kind = self.overview.project, KIND_OF_STAGE[stage]

        def make() -> RunFolder:
            require_ready(project, kind, project.settings())
            return create_run(project, kind, options=dict(options))

        if self._free_for(stage):
            if missing := self.overview.missing(stage):
                self.show_error(missing)
            else:
                self._begin_when_asked(kind, make)

    def action_resume_run(self) -> None:
        """Take up the run of this stage that was stopped or broke off."""
        stage = self.current_mode
        if self._free_for(stage):
            run = self.overview.unfinished(stage)
            if run is None:
                self.notify("No run of this stage waits to be taken up.", timeout=3)
            else:
                self._begin_when_asked(run.name, lambda: run.folder)

    def _free_for(self, stage: str) -> bool:
        """Whether nothing keeps a run of this stage from beginning; says what does."""
        self.look()  # what was true half a second ago may be no reason any more
        other, chat = self.overview.in_the_way(stage), self.overview.runs.get("chat")
        if self.starting or (other and other is not chat):
            name = other.name if other else self.starting
            self.notify(f"{name} is going on. Wait for it, or stop it with '.' first.", timeout=4)
            return False
        return True

    def _begin_when_asked(self, what: str, make: Callable[[], RunFolder]) -> None:
        """Begin; where a chat has the model, after a question."""
        chat = self.overview.runs.get("chat")
        if chat is None or chat.status not in ("running", "paused"):
            self._begin(what, make)
            return
        question = f"{chat.name} has the model. Stop it and start this? What was said is kept; n leaves it as it is."
        self.push_screen(
            ConfirmDialog("A chat is open", question), lambda yes: self._begin(what, make, chat) if yes else None
        )

    def _begin(self, what: str, make: Callable[[], RunFolder], instead_of: Watched | None = None) -> None:
        """Have a worker started; a chat that has the model is stopped first."""
        if instead_of is not None:
            self._ask("stop", f"{instead_of.name} ends.", instead_of)
        self.starting = what
        self.renew()
        self._start(make, instead_of.folder if instead_of else None)

    def open_label(self) -> None:
        """Open the labelling screen."""
        from rlhf_tui.app.screens.label_opening import labelling_screen

        self._following = False
        self._open_screen(
            lambda: labelling_screen(
                self.overview.project, rater=self._rater, rules=self._rules, clock=self._clock, keymap=self.keymap
            )
        )

    def judge_again(self, judgement_id: int) -> None:
        """Open the labelling screen on one earlier judgement."""
        from rlhf_tui.app.screens.label_opening import rejudging_screen

        project = self.overview.project
        self._open_screen(lambda: rejudging_screen(project, judgement_id, clock=self._clock, keymap=self.keymap))

    def _open_screen(self, make: Callable[[], Screen[None]]) -> None:
        try:
            screen = make()
        except UserError as error:
            self.show_error(error)
        else:
            self.push_screen(screen)

    def show_text(self, title: str, paragraphs: Sequence[str]) -> None:
        """A text in a window."""
        self.push_screen(TextDialog(title, Content("\n\n".join(clean(part) for part in paragraphs))))

    # What happens

    @on(StageBar.Chosen)
    def _stage_chosen(self, event: StageBar.Chosen) -> None:
        self.action_stage(event.stage)

    @on(RunStarted)
    def _run_started(self, event: RunStarted) -> None:
        self.starting = ""
        self.look()
        demo = self.overview.demo
        if demo is not None and demo.name == event.name:  # taken up: from stage to stage again
            self._following = demo.alive
        self.renew()

    @on(StartFailed)
    def _start_failed(self, event: StartFailed) -> None:
        self.starting = ""
        self.look()
        self.renew()
        self.show_error(event.error)

    @work(thread=True, exclusive=True, exit_on_error=False, group="start")
    def _start(self, make: Callable[[], RunFolder], after: RunFolder | None = None) -> None:
        """Launch the worker of a run, away from the thread that draws; when `after` has ended."""
        try:
            deadline = time.monotonic() + _PATIENCE
            while after is not None and after.alive and time.monotonic() < deadline:
                time.sleep(0.1)
            run = make()
            launcher.launch(self.overview.project, run)
        except UserError as error:
            self.post_message(self.StartFailed(error))
        except (OSError, sqlite3.Error) as error:
            wrapped = UserError(
                "The run could not be started.", why=str(error), todo="Check the disk and the rights of the project."
            )
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
