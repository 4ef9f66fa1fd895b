"""Stage 1, Model: which base model, does it fit here, can this machine do it, and the download that brings it.

What is read from disk, driver and hub is read in threads; what is said about it is in `app.model_rows`. Nothing is
downloaded before ⏎ on a model that is not here, and the hub is asked nothing before `a`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.message import Message

from rlhf_tui import hub, models
from rlhf_tui.app import keys, keytable, model_about, model_rows
from rlhf_tui.app.model_plan import Outcome, Wanted, planned, with_model
from rlhf_tui.app.overview import BROKEN, Overview, Watched
from rlhf_tui.app.screens import model_changes
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.model_window import ModelWindow
from rlhf_tui.app.screens.stage import StageScreen, progress_body
from rlhf_tui.app.widgets.listing import Listing
from rlhf_tui.app.widgets.panel import Panel, lines, rows, tinted
from rlhf_tui.doctor import Check, examine
from rlhf_tui.errors import UserError
from rlhf_tui.locate import locate, not_had
from rlhf_tui.models import FoundModel
from rlhf_tui.preferences.display import clean
from rlhf_tui.room import Fitting
from rlhf_tui.settings import Settings
from rlhf_tui.shape import shape_of


class ModelScreen(StageScreen):
    """The models to choose from, the memory of each stage, the checks of this machine, and what ⏎ does."""

    STAGE = "model"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("model")

    class Listed(Message):
        """The models on this machine."""

        def __init__(self, found: Sequence[FoundModel]) -> None:
            super().__init__()
            self.found = found

    class Planned(Message):
        """What the memory plan came to; `cures`: whether lowering settings lets every stage fit."""

        def __init__(self, wanted: Wanted, outcome: Outcome, cures: bool) -> None:
            super().__init__()
            self.wanted, self.outcome, self.cures = wanted, outcome, cures

    class Examined(Message):
        """What the doctor found."""

        def __init__(self, checks: Sequence[Check]) -> None:
            super().__init__()
            self.checks = checks

    class Answered(Message):
        """What the hub says of a model, or why it does not."""

        def __init__(self, name: str, answer: hub.HubModel | UserError) -> None:
            super().__init__()
            self.name, self.answer = name, answer

    def __init__(self) -> None:
        super().__init__()
        self._found: list[FoundModel] = []
        self._told_by_hub: dict[str, hub.HubModel] = {}
        self._lit: str | None = None  # the name of the lit model; "" for the last line; None: the project's
        self._outcome: Outcome = None
        self._cures = False
        self._planned_for: Wanted | None = None
        self._listed_for: object = None
        self._checks: Sequence[Check] | None = None
        self._asking = ""

    def compose_body(self) -> ComposeResult:
        """The list, with all about it where there is room; memory, checks, settings, and what comes next."""
        with Container(classes="side-by-side choosing"):
            yield Listing(id="models")
            yield Panel("This model", id="about-model", classes="only-large")
        yield Panel("Does it fit?", id="fits")
        yield Panel("This machine", id="checks-brief")
        with Container(classes="side-by-side held only-large"):
            yield Panel("How it is held", id="base")
            yield Panel("Adapters (LoRA)", id="adapters")
        with Container(classes="side-by-side rest only-large"):
            yield Panel("Settings that differ from the defaults", id="changed")
            yield Panel("What the settings say", id="explained")
        yield Panel("Next", id="next")

    def on_screen_resume(self) -> None:
        """Back from a window, or from another stage: the models on the disk may be others."""
        self._listed_for = None
        super().on_screen_resume()
        self._examine()

    # What is shown

    @property
    def current(self) -> FoundModel | None:
        """The project's model; None while the settings cannot be read."""
        settings = self.overview.settings
        if settings is None or self.overview.problem:
            return None
        known = next((one for one in self._found if one.name == settings.model.name), None)
        return known or self._with_answer(models.find(settings.model))

    @property
    def listed(self) -> list[FoundModel]:
        """The models in the list; before the disk has been read the project's alone."""
        if self._found:
            return self._found
        return [self.current] if self.current else []

    @property
    def lit(self) -> FoundModel | None:
        """The lit model; None on the line that asks for one."""
        if self._lit == "":
            return None
        current = self.current
        wanted = current.name if self._lit is None and current else self._lit
        return next((one for one in self.listed if one.name == wanted), current)

    @property
    def there(self) -> Sequence[keytable.When]:
        """Whether there is something to lower, and something to ask the hub."""
        there: list[keytable.When] = []
        if isinstance(self._outcome, Fitting) and not self._outcome.fits:
            there.append("unfit")
        return [*there, "unasked"] if self._askable(self.lit) else there

    @staticmethod
    def _askable(lit: FoundModel | None) -> bool:
        return lit is not None and lit.kind == "hub" and lit.fetchable

    def show(self, view: Overview) -> None:
        """Fill the panels, and have read anew what may have changed."""
        settings, current = view.settings, self.current
        if settings is None or current is None:
            broken = view.problem
            parts = (broken.what, broken.why, broken.todo) if broken else ()
            self.query_one("#next", Panel).show(tinted(clean(" ".join(parts)), "bad"), title="The settings are broken")
            return
        self._renew_what_moved(view, settings)
        self._show_list(current)
        self._show_plan()
        self.query_one("#checks-brief", Panel).show(
            lambda width, height: model_rows.checks_body(self._checks, width, height),
            note=f"{keys.key_of('model', 'stage.doctor', self.rlhf.keymap)}: all of it",
        )
        self._show_next(view, current)
        if self.wide or self.roomy:
            lit = self.lit
            about = model_rows.about_rows(lit) if lit else tinted("A folder on this machine, or owner/model.", "quiet")
            self.query_one("#about-model", Panel).show(about)
        if self.wide:
            self._show_settings(view, settings)

    def _show_list(self, current: FoundModel) -> None:
        listed, lit = self.listed, self.lit
        at = len(listed) if lit is None else next((n for n, one in enumerate(listed) if one.name == lit.name), 0)

        def line(place: int, width: int) -> Content:
            if place == len(listed):
                return model_rows.other_line(width, lit=place == at)
            found = listed[place]
            return model_rows.model_line(found, width, lit=place == at, current=found.name == current.name)

        listing = self.query_one("#models", Listing)
        listing.border_title = Content("Base model")
        listing.border_subtitle = Content("● asking the hub…" if self._asking else "")
        listing.show([False] * (len(listed) + 1), at, line)

    def _show_plan(self) -> None:
        outcome = self._outcome
        where = f" {outcome.room.what}" if isinstance(outcome, Fitting) else ""
        title = clean(f"Does it fit{where}?")
        self.query_one("#fits", Panel).show(
            lambda width, height: model_rows.plan_body(outcome, width, height),
            title=title if len(title) < self.app.size.width - 8 else "Does it fit?",
            note="estimated, not measured" if isinstance(outcome, Fitting) else "",
        )

    def _show_next(self, view: Overview, current: FoundModel) -> None:
        panel, run = self.query_one("#next", Panel), self.run_shown
        if run is not None and _worth_telling(run, current):
            panel.show(progress_body(run), title="Download")
            return
        panel.show(model_rows.next_words(self.lit, current, view.next_step()), title="Next")

    def _show_settings(self, view: Overview, settings: Settings) -> None:
        self.query_one("#base", Panel).show(rows(model_about.base_rows(settings)))
        self.query_one("#adapters", Panel).show(rows(model_about.adapter_rows(view, settings)))
        self.query_one("#changed", Panel).show(model_about.changed_settings(settings))
        self.query_one("#explained", Panel).show(lambda width, _: model_about.explanations(settings, width))

    def command(self) -> str:
        """What is on screen, on the command line."""
        lit, current = self.lit, self.current
        if lit is None or current is None:
            return "model list"
        if lit.name != current.name:
            return f"model choose {shlex.quote(lit.name)}"
        return "model download" if lit.fetchable else "fit"

    # What keys do

    def action_move(self, by: int) -> None:
        """Light the model above or below."""
        names = [one.name for one in self.listed] + [""]
        lit = self.lit
        at = names.index(lit.name if lit else "")
        self._light(names[min(max(at + by, 0), len(names) - 1)])

    def action_take(self) -> None:
        """What ⏎ does: choose the lit model, download it, or go on."""
        lit, current = self.lit, self.current
        if lit is None:
            self.action_other()
        elif current is None:
            self.rlhf.start_stage("model", {})  # says what is wrong with the settings
        elif lit.name != current.name:
            model_changes.choose(self.rlhf, lit.name, lit.title, self._chosen)
        elif lit.state == "gone":
            self.rlhf.show_error(UserError(lit.problem, todo=lit.todo))
        elif lit.fetchable:
            self.rlhf.start_stage("model", {})
        else:
            self.rlhf.action_stage("pairs")

    def action_other(self) -> None:
        """Name a folder or a model of the hub."""
        self.app.push_screen(ModelWindow(Path.cwd()), self._named)

    def action_read(self) -> None:
        """All about the lit model, the memory and the settings, in a window."""
        settings, lit = self.overview.settings, self.lit
        if settings is None:
            return
        parts: list[Content | str] = [model_rows.about_rows(lit), ""] if lit else []
        width = min(self.app.size.width * 4 // 5 - 6, 86)  # of the window, as the style sheet says
        parts += [model_rows.plan_body(self._outcome, width, 40), "", rows(model_about.base_rows(settings)), ""]
        parts += [rows(model_about.adapter_rows(self.overview, settings)), ""]
        parts += [rows(model_about.project_rows(self.overview)), "", model_about.changed_settings(settings)]
        self.app.push_screen(TextDialog("The model", lines(*parts)))

    def action_make_fit(self) -> None:
        """Ask, then lower the settings that keep a stage from fitting."""
        outcome, lit, current = self._outcome, self.lit, self.current
        if not isinstance(outcome, Fitting):
            self.notify("There is no memory plan yet.", timeout=3)
        elif outcome.fits:
            self.notify("Every stage fits already.", timeout=3)
        elif lit is not None and current is not None and lit.name != current.name:
            self.notify("Choose this model first: ⏎.", timeout=3)
        else:
            model_changes.make_fit(self.rlhf, outcome, self._cures, self.renew)

    def action_ask_hub(self) -> None:
        """Ask the hub about the lit model, away from the thread that draws."""
        lit, settings = self.lit, self.overview.settings
        if lit is None or settings is None or not self._askable(lit):
            self.notify("Only a model of the hub that is not here needs asking.", timeout=3)
            return
        if not self._asking:
            self._asking = lit.name
            self.renew()
            self._ask(lit.name, settings.model.revision if lit.name == settings.model.name else "")

    # What comes of it

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        """Light what was clicked; what is lit already is taken."""
        names = [one.name for one in self.listed] + [""]
        lit = self.lit
        if names[event.at] == (lit.name if lit else ""):
            self.action_take()
        else:
            self._light(names[event.at])

    def on_listing_turned(self, event: Listing.Turned) -> None:
        """The cursor goes along with the wheel."""
        self.action_move(event.by)

    def _light(self, name: str) -> None:
        self._lit = name
        self.renew()

    def _named(self, name: str | None) -> None:
        if name:
            model_changes.choose(self.rlhf, name, name, self._chosen)

    def _chosen(self) -> None:
        self._lit = None
        self.renew()

    def _with_answer(self, found: FoundModel) -> FoundModel:
        """A model that is not here, with what the hub has said of it."""
        said = self._told_by_hub.get(found.name)
        if said is None or found.here:
            return found
        licence = found.licence or said.licence
        return replace(found, size=said.size, licence=licence, parameters=found.parameters or said.parameters)

    @on(Listed)
    def _models_listed(self, event: Listed) -> None:
        self._found = [self._with_answer(one) for one in event.found]
        self.renew()

    @on(Planned)
    def _memory_planned(self, event: Planned) -> None:
        if event.wanted == self._planned_for:
            self._outcome, self._cures = event.outcome, event.cures
            self.renew()

    @on(Examined)
    def _machine_examined(self, event: Examined) -> None:
        self._checks = event.checks
        self.renew()

    @on(Answered)
    def _hub_answered(self, event: Answered) -> None:
        self._asking = ""
        if isinstance(event.answer, UserError):
            self.rlhf.show_error(event.answer)
        else:
            self._told_by_hub[event.name] = event.answer
            self._planned_for = self._listed_for = None
        self.renew()

    # What threads do

    def _renew_what_moved(self, view: Overview, settings: Settings) -> None:
        """Read anew what depends on the settings, the labels, the lit model, or a download that has ended."""
        run = self.run_shown
        listed_for = (settings.model, run.status if run else "")
        if listed_for != self._listed_for:
            self._listed_for = listed_for
            self._list(settings)
        lit = self.lit
        name = lit.name if lit else settings.model.name
        wanted = Wanted(name, settings, view.labels_seen, lit.state if lit else "")
        if wanted != self._planned_for:
            if self._planned_for is None or self._planned_for.model != name:
                self._outcome = None
            self._planned_for = wanted
            self._plan(wanted, with_model(settings, name))

    @work(thread=True, exclusive=True, group="list")
    def _list(self, settings: Settings) -> None:
        self.post_message(self.Listed(models.listed(settings.model)))

    @work(thread=True, exclusive=True, group="plan")
    def _plan(self, wanted: Wanted, settings: Settings) -> None:
        self.post_message(self.Planned(wanted, *planned(settings, self.overview.project.root)))

    @work(thread=True, exclusive=True, group="examine")
    def _examine(self) -> None:
        self.post_message(self.Examined(examine(self.overview.project.root)))

    @work(thread=True, exclusive=True, group="ask")
    def _ask(self, name: str, revision: str) -> None:
        answer: hub.HubModel | UserError
        try:
            answer = hub.look_up(name, revision)
            shape_of(locate(name), revision)  # fetches config.json
        except UserError as error:
            answer = error
        except Exception as error:  # the hub's library has many
            answer = not_had(name, error)
        self.post_message(self.Answered(name, answer))


def _worth_telling(run: Watched, current: FoundModel) -> bool:
    """Whether a download goes on, or broke off and its model is still missing."""
    if run.alive:
        return True
    try:
        meant = run.folder.record.settings["model"]["name"] == current.name
    except (UserError, LookupError, TypeError):
        return False
    return meant and current.fetchable and run.status in (*BROKEN, "stopped")
