"""Stages that hold memory as a model would, save how far they are, and go on from there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from rlhf_tui.runs.control import StopRequested
from rlhf_tui.runs.events import Checkpoint, Metric
from rlhf_tui.runs.folder import create_run, list_runs
from rlhf_tui.runs.worker import StageContext, execute

STEPS = 60


def heavy(context: StageContext) -> Mapping[str, Any]:
    """Holds options.bytes of memory; every step is a Metric whose value depends on all the steps before.

    The file `go` in the run's folder says how many steps it may do at most; it waits at that one.
    """
    weights = os.urandom(1 << 20) * (context.run.record.options["bytes"] >> 20)
    saved, allowed = context.run.path / "saved", context.run.path / "go"
    step, value = map(int, saved.read_text().split()) if saved.exists() else (0, 1)

    def save() -> None:
        saved.write_text(f"{step} {value}")
        context.emit(Checkpoint(step, "saved"))

    while step < STEPS:
        while step >= int(allowed.read_text()):
            context.control.boundary(save)
            time.sleep(0.005)
        step, value = step + 1, value * 31 % 65_537
        context.emit(Metric(step, {"value": float(value)}))
        context.control.boundary(save)
    return {"value": value, "bytes": len(weights)}


def whole(context: StageContext) -> Mapping[str, Any]:
    """A run made of one `heavy` run, in the same process."""
    parts = [run for run in list_runs(context.project) if run.record.parents.get("whole") == context.run.name]
    part = parts[0] if parts else create_run(
        context.project, "heavy", options=context.run.record.options, parents={"whole": context.run.name}
    )  # fmt: skip
    (part.path / "go").write_text((context.run.path / "go").read_text())
    done = execute(context.project, part, control_folders=(context.run.control_dir,), stages=__name__)
    if done.status == "stopped":
        raise StopRequested
    return done.result


STAGES = {stage.__name__: stage for stage in (heavy, whole)}
