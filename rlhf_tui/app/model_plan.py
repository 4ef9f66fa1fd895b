"""The memory plan that the Model screen shows: for which model and settings, and what came of it. No widgets."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rlhf_tui import models
from rlhf_tui.errors import UserError
from rlhf_tui.project import CONFIG
from rlhf_tui.room import Fitting, fitting, judged_candidates, remedy, room_for
from rlhf_tui.settings import Settings, load


@dataclass(frozen=True)
class Unknown:
    """A plan that cannot be made yet: what is missing."""

    name: str


#: What is known of the memory: being counted, counted, not countable before the hub is asked, or why not at all.
Outcome = Fitting | Unknown | UserError | None


class Wanted(NamedTuple):
    """What a plan is for; another one is made when any of it has changed."""

    model: str
    settings: Settings
    labels: object
    state: str
    """of the model's files"""


def planned(settings: Settings, folder: Path) -> tuple[Outcome, bool]:
    """The memory plan of a project, and whether lowering settings lets every stage fit. Never asks the hub."""
    try:
        shape = models.shape_here(settings.model)
        if shape is None:
            return Unknown(settings.model.name), False
        found = fitting(settings, shape, room_for(settings), judged_candidates(folder))
        if found.fits:
            return found, False
        lower = remedy(found)
        after = load(folder / CONFIG, [f"model.name={settings.model.name}", *lower])
        return found, bool(lower) and fitting(after, shape, found.room, found.plan.candidates).fits
    except UserError as error:
        return error, False
    except (OSError, sqlite3.Error) as error:
        return UserError("The memory plan cannot be made.", why=str(error)), False


def with_model(settings: Settings, name: str) -> Settings:
    """The settings as they would be with another model."""
    if name == settings.model.name:
        return settings
    return settings.model_copy(update={"model": settings.model.model_copy(update={"name": name, "revision": ""})})
