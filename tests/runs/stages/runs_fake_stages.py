"""Stages that stand in for the engine: they work, wait, break, and fill the disk, as real ones may."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Mapping
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.runs.control import StopRequested
from rlhf_tui.runs.events import Checkpoint, Metric, Progress, Sample
from rlhf_tui.runs.folder import create_run
from rlhf_tui.runs.worker import StageContext, execute


class OutOfMemoryError(RuntimeError):
    """Named as torch's is; the worker knows that one by name only."""


def quick(context: StageContext) -> Mapping[str, Any]:
    print("a library says something")
    for step in range(3):
        context.emit(Metric(step, {"loss": 1.0 / (step + 1)}))
    return {"rank": context.settings.adapters.rank, "options": context.run.record.options}


def steady(context: StageContext) -> Mapping[str, Any]:
    """Works until it is stopped; every save is a Checkpoint whose step says how far it had come."""
    for step in range(10_000):
        context.emit(Progress(step, 10_000, "steps"))

        def save(step: int = step) -> None:
            context.emit(Checkpoint(step, f"step-{step:06d}"))

        context.control.boundary(save)
        time.sleep(0.005)
    return {}


def deaf(context: StageContext) -> Mapping[str, Any]:
    """Never comes to a boundary; Progress 1 says that it has heard, and does not care."""
    context.emit(Progress(0, 1))
    while not context.control.poll().stop:
        time.sleep(0.01)
    context.emit(Progress(1, 1))
    while True:
        time.sleep(0.01)


def user_error(context: StageContext) -> Mapping[str, Any]:
    raise UserError("No pairs to train on.", why="Nobody has judged any.", todo="Label some first.")


def bug(context: StageContext) -> Mapping[str, Any]:
    found: dict[str, int] = {}
    return {"x": found["missing"]}


def card_full(context: StageContext) -> Mapping[str, Any]:
    raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nProcess 1 has 3 GiB.")


def card_gone(context: StageContext) -> Mapping[str, Any]:
    raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported elsewhere.")


def library_disk_full(context: StageContext) -> Mapping[str, Any]:
    """As safetensors says it: an error that is no OSError."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def wrapped_memory(context: StageContext) -> Mapping[str, Any]:
    """As a phase says it that has tried everything smaller."""
    try:
        raise OutOfMemoryError("CUDA out of memory.")
    except OutOfMemoryError as error:
        raise UserError("The memory is not enough for a single forward pass.", why=str(error)) from error


def crash_natively(context: StageContext) -> Mapping[str, Any]:
    faulthandler._sigsegv()  # type: ignore[attr-defined]
    return {}


def unwritable_result(context: StageContext) -> Mapping[str, Any]:
    return {"thing": object()}


def flood(context: StageContext) -> Mapping[str, Any]:
    """Writes until the disk is full; the journal's error ends it."""
    step = 0
    while True:
        context.emit(Sample(step, "prompt", "x" * 500))
        step += 1


def segfault(context: StageContext) -> Mapping[str, Any]:
    os.kill(os.getpid(), 9)
    return {}


def nested(context: StageContext) -> Mapping[str, Any]:
    """As the demo does: other runs, in this process, in folders of their own."""
    child = create_run(context.project, context.run.record.options["child"])
    context.emit(Metric(0, {"child": child.number}))
    done = execute(context.project, child, control_folders=(context.run.control_dir,), stages="runs_fake_stages")
    if done.status == "stopped":
        raise StopRequested
    return {"child": child.name, "status": done.status, "parent_alive": context.run.alive}


def writes(context: StageContext) -> Mapping[str, Any]:
    """As a library writes that knows nothing of privacy: into the run's folder, the adapters and the exports."""
    for folder in (context.run.path / "answers", context.project.adapters / "policy", context.project.exports / "m"):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "deep" / f"{context.run.name}.json").write_text("{}")
    return {}


def export(context: StageContext) -> Mapping[str, Any]:
    """The same as the kind of run that is made for others."""
    return writes(context)


STAGES = {
    stage.__name__: stage
    for stage in (
        quick,
        steady,
        deaf,
        user_error,
        bug,
        card_full,
        card_gone,
        library_disk_full,
        wrapped_memory,
        crash_natively,
        unwritable_result,
        flood,
        segfault,
        nested,
        writes,
        export,
    )
}
