"""What an execution that broke off has left behind, and the command that goes on from there.

Every kind of run saves in its own way, and a sentence about that has to be true for each: what it
promises is what the stage finds when it is started again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.runs.folder import RunFolder, runs_in


def saved(run: RunFolder) -> str:
    """What is saved of `run`, as half a sentence; empty when it would begin anew.

    Goes by names and marks alone: whether a checkpoint is undamaged is found out when it is loaded.
    """
    return _KEPT.get(run.kind, _steps)(run)


def way_on(run: RunFolder) -> str:
    """What is saved of an execution that broke off, and the command that goes on from there."""
    if not run.path.is_dir():
        return "Its folder is no longer there: the project was moved or removed while the run was going on."
    resume = f"'{resume_command(run)}'"
    if kept := saved(run):
        return f"{kept[0].upper()}{kept[1:]}: {resume} goes on from there."
    if run.kind in KEEPS_NOTHING:
        return KEEPS_NOTHING[run.kind].format(resume=resume)
    anew = "begins anew" if _whole(run) == run.name else "begins this stage anew"
    return f"{_NOTHING.get(run.kind, 'No checkpoint was saved')}: {resume} {anew}."


def resume_command(run: RunFolder) -> str:
    """The command that takes the run up again."""
    return f"rlhf-tui runs resume {_whole(run)}"


def _whole(run: RunFolder) -> str:
    """The name of the run to resume: a part of a demo goes on with the demo."""
    with suppress(UserError):
        return run.record.parents.get("demo", run.name)
    return run.name


# -- what each kind leaves ------------------------------------------------------------------------


def _steps(run: RunFolder) -> str:
    step = _newest_step([run.checkpoints])
    return "" if step is None else f"step {step} is saved"


def _models(run: RunFolder) -> str:
    """A reward run trains one model after the other; a finished one needs its checkpoints no more."""
    finished = {path.parent.name for path in run.path.glob("fits/*/fit.json") if not path.parent.suffix}
    step = _newest_step(folder for folder in run.checkpoints.glob("*/") if folder.name not in finished)
    if not finished:
        return "" if step is None else f"step {step} is saved"
    trained = f"{len(finished)} of its models {'is' if len(finished) == 1 else 'are'} trained"
    return trained if step is None else f"{trained} and step {step} of the next one is saved"


def _candidates(run: RunFolder) -> str:
    return "the candidates sampled so far are in the project" if (run.path / "plan.json").exists() else ""


def _answers(run: RunFolder) -> str:
    return "the answers sampled so far are kept" if any(run.path.glob("answers/*.json")) else ""


def _stages(run: RunFolder) -> str:
    """A demo is made of runs: the finished ones count, and what is saved of the one it was at."""
    finished, begun = [], ""
    for part in runs_in(run.path.parent):
        if not _is_part(part, run):
            continue
        done = part.done()
        if done is not None and done.status == "finished":
            finished.append(part.kind)
        elif kept := saved(part):
            begun = f"in {part.name} {kept}"
    names = " and ".join([part for part in (", ".join(finished[:-1]), *finished[-1:]) if part])
    whole = f"{names} {'is' if len(finished) == 1 else 'are'} finished" if finished else ""
    return ", and ".join(part for part in (whole, begun) if part)


def _is_part(part: RunFolder, whole: RunFolder) -> bool:
    with suppress(UserError):
        return part.record.parents.get("demo") == whole.name
    return False


def _newest_step(folders: Iterable[Path]) -> int | None:
    """The step of the newest complete checkpoint in these folders, or None."""
    steps = []
    for folder in folders:
        for checkpoint in folder.glob("step-[0-9]*[0-9]"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                steps.append(int(json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["done"]))
    return max(steps, default=None)


def _none(run: RunFolder) -> str:
    return ""


_KEPT: Mapping[str, Callable[[RunFolder], str]] = {
    "generate": _candidates,
    "reward": _models,
    "compare": _answers,
    "demo": _stages,
    "export": _none,
    "bench": _none,
    "download": _none,
    "chat": _none,
}
#: What is said when a run that does save had not come that far.
_NOTHING = {
    "generate": "Nothing was sampled yet",
    "compare": "No answer was kept",
    "demo": "No stage was finished",
}
KEEPS_NOTHING = {
    "chat": "What was said is kept: {resume} goes on with it.",
    "export": "An export is in its place whole or not at all: {resume} writes it if it is not there.",
    "download": "Files that had arrived whole are kept: {resume} fetches the rest.",
    "bench": "A bench saves nothing on its way: {resume} measures again.",
}
