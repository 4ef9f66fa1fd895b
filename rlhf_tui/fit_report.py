"""The memory plan as a person reads it: each stage at its tightest, against a card or this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rlhf_tui import settings as settings_module
from rlhf_tui.cli_options import HERE
from rlhf_tui.fit import GIB, MemoryPlan, Parts
from rlhf_tui.fit_verdict import Verdict
from rlhf_tui.locate import locate
from rlhf_tui.project import CONFIG, open_project
from rlhf_tui.room import Room, fitting, judged_candidates, room_for
from rlhf_tui.settings import Settings
from rlhf_tui.shape import shape_of

_MOMENTS = {"log-probabilities": "log-probs", "reading prompts": "prompts"}  # where a column is too narrow


def fit_report(folder: Path, model: str, card: float, overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The plan as a document and as a text.

    `model` empty: the project's, or the default where `folder` is the current one and no project.
    `card`: GiB; 0 asks this machine. Raises UsageError for an unknown model or setting, a folder that
    is not a project, and a card that is asked for where there is none.
    """
    settings = _settings(folder, model, overrides)
    room = room_for(settings, card)
    shape = shape_of(locate(settings.model.name), settings.model.revision)
    found = fitting(settings, shape, room, judged_candidates(folder))
    return _document(found.plan, room, found.verdicts), _text(found.plan, room, found.verdicts)


def _settings(folder: Path, model: str, overrides: Sequence[str]) -> Settings:
    # Where nobody named a project, there need not be one.
    if folder != HERE or (folder / CONFIG).exists():
        folder = open_project(folder).root
    settings = settings_module.load(folder / CONFIG, overrides)
    if model in ("", settings.model.name):
        return settings
    return settings_module.load(folder / CONFIG, [f"model.name={model}", "model.revision=", *overrides])


def _document(planned: MemoryPlan, room: Room, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    stages = [
        {"stage": stage.stage, "moment": stage.moment, "peak": stage.peak, "parts": asdict(stage.parts)}
        | {"phases": {phase: parts.total for phase, parts in stage.phases.items()}}
        | {"fits": judged.fits, "spare": judged.spare, "lower": list(judged.lower), "advice": judged.advice}
        for stage, judged in zip(planned.stages, verdicts, strict=True)
    ]
    return {
        "model": planned.shape.name,
        "parameters": planned.shape.parameters,
        "quantisation": planned.quantisation,
        "device": planned.device,
        "room": asdict(room),
        "estimated": True,
        "stages": stages,
    }


def _text(planned: MemoryPlan, room: Room, verdicts: Sequence[Verdict]) -> str:
    stored = "not quantised" if planned.quantisation == "none" else f"stored as {planned.quantisation}"
    lines = [
        f"{planned.shape.name}: {planned.shape.parameters / 1e6:,.1f} million parameters, {stored}, on {room.what}.",
        "Memory of each stage at its tightest, in GiB; estimated from the settings, not measured:",
        "",
        _row("", [stage.stage for stage in planned.stages]),
        _row("tightest in", [_MOMENTS.get(stage.moment, stage.moment) for stage in planned.stages]),
    ]
    for name in (field.name for field in fields(Parts)):
        sizes = [getattr(stage.parts, name) for stage in planned.stages]
        if any(size >= 0.005 * GIB for size in sizes):
            lines.append(_row(name, [_gib(size) for size in sizes]))
    lines += [
        _row("in all", [_gib(stage.peak) for stage in planned.stages]),
        _row("left over", [_gib(judged.spare) for judged in verdicts]),
        "",
        "PPO phase by phase: " + ", ".join(f"{name} {_gib(parts.total)}" for name, parts in planned.ppo.phases.items()),
        "",
    ]
    short = [judged.advice for judged in verdicts if not judged.fits]
    return "\n".join(lines + (short or ["Every stage fits."]))


def _row(name: str, cells: Sequence[str]) -> str:
    return f"  {name:<12}" + "".join(f"{cell:>14}" for cell in cells)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
