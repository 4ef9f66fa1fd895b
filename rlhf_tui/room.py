"""The memory that a model has to fit into here, and whether a project's stages do: no torch, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rlhf_tui import doctor
from rlhf_tui.errors import UsageError
from rlhf_tui.fit import GIB, MemoryPlan, plan, resolve
from rlhf_tui.fit_verdict import Verdict, verdict
from rlhf_tui.project import DATABASE, Project
from rlhf_tui.settings import Settings, parse_override
from rlhf_tui.shape import ModelShape


@dataclass(frozen=True)
class Room:
    """The memory that the model has to fit into."""

    what: str
    size: int
    """bytes"""
    is_card: bool


@dataclass(frozen=True)
class Fitting:
    """What every stage of a project takes, and whether there is that much here."""

    plan: MemoryPlan
    room: Room
    verdicts: tuple[Verdict, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage does."""
        return all(judged.fits for judged in self.verdicts)


def room_for(settings: Settings, card: float = 0.0) -> Room:
    """The room that these settings ask for: a card, or this machine's memory.

    `card`: GiB; 0 asks this machine. Raises UsageError for a card that is asked for where there is none.
    """
    wanted = settings.model.device
    if card:
        if wanted == "cpu":
            raise UsageError("model.device is 'cpu': no card is used.", todo="Leave out --card, or set model.device.")
        return Room(f"a card with {card:g} GiB", round(card * GIB), True)
    found = [] if wanted == "cpu" else _usable_cards()
    if found:
        return Room(f"{found[0].name} with {found[0].total / GIB:.1f} GiB", found[0].total, True)
    if wanted == "cuda":
        raise UsageError(
            "model.device is 'cuda', and there is no card here that torch can use.",
            todo="Say how large yours is with --card GIB, or see 'rlhf-tui doctor'.",
        )
    memory = psutil.virtual_memory()
    what = f"the CPU with {memory.total / GIB:.1f} GiB of memory, {memory.available / GIB:.1f} GiB of it free now"
    return Room(what, memory.total, False)


def fitting(settings: Settings, shape: ModelShape, room: Room, candidates: int | None) -> Fitting:
    """The plan of every stage, and for those that do not fit, what to lower. The search takes tens of milliseconds."""
    quantisation, device = resolve(settings.model, card=room.is_card)
    planned = plan(shape, settings, quantisation=quantisation, device=device, candidates=candidates)
    return Fitting(planned, room, tuple(verdict(planned, room.size)))


def remedy(found: Fitting) -> tuple[str, ...]:
    """The `section.key=value` settings that let every stage fit for which there is a way; the lower one of two."""
    wanted: dict[str, Any] = {}
    for judged in found.verdicts:
        for override in judged.lower:
            key, value = parse_override(override)
            before = wanted.get(key, value)
            wanted[key] = min(before, value) if isinstance(value, int) else value
    return tuple(f"{key}={value}" for key, value in wanted.items())


def judged_candidates(folder: Path) -> int | None:
    """How many judged completions the project has, at most; None when that says nothing: no project, or none yet."""
    if not (folder / DATABASE).is_file():
        return None
    with Project(folder).store() as store:
        return 2 * len(store.pairs()) or None


def _usable_cards() -> list[doctor.Card]:
    if doctor.torch_build() != "cuda":
        return []
    try:
        return doctor.cards()
    except doctor.NoDriver:
        return []
