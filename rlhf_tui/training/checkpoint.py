"""Checkpoints of a training: everything from which the next step would come out the same.

The random draws of a step depend on the seed and its number alone, so that adapters, heads, optimisers, the number
of steps and a few values of the trainer's own are the whole state. Tensors are stored as safetensors, never as
pickles; a folder appears complete under its final name or not at all, and every number in it is under a hash.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from rlhf_tui.errors import DiskError, UserError, chain, is_disk_full
from rlhf_tui.model.manifest import ADAPTER_FILE, HEAD_FILE, WITH_HEAD, file_sha256, read_manifest
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import Alert, EventSink
from rlhf_tui.settings import RunSettings
from rlhf_tui.swap import replacing, sweep

BEST = "best"
OPTIMISERS = "optimisers.safetensors"
OWN = "own.safetensors"
STATE = "state.json"
DEFAULTS = RunSettings()
_VERSION = 3
_NAME = re.compile(r"step-\d+")


class Resumable(Protocol):
    """A training that can be put down after any step and taken up again."""

    @property
    def roles(self) -> Roles:
        """Whose adapters and heads are kept."""
        ...

    @property
    def optimisers(self) -> dict[Role, torch.optim.AdamW]:
        """One for each role that learns."""
        ...

    @property
    def done(self) -> int:
        """Steps so far."""
        ...

    def state(self) -> dict[str, Any]:
        """What else decides the next step, as JSON."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """What else it keeps, on the CPU."""
        ...

    def resume(self, done: int, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Be where another one was when it gave `state` and `tensors`."""
        ...


def save_checkpoint(training: Resumable, checkpoints: Path, settings: RunSettings = DEFAULTS) -> Path:
    """Write `checkpoints/step-000012` and drop those that need not stay (run.keep_…); returns its folder.

    Raises DiskError when the disk is full: what was there before is then as it was.
    """
    folder = checkpoints / f"step-{training.done:06d}"
    with _told_when_full(f"the checkpoint of step {training.done}"), replacing(folder) as beside:
        for role in training.optimisers:
            training.roles.save(role, beside / role, {"step": training.done})
        save_file(_flat(training.optimisers), beside / OPTIMISERS)
        save_file(training.tensors(), beside / OWN)
        paths = sorted(path for path in beside.rglob("*") if path.is_file())
        files = {str(path.relative_to(beside)): file_sha256(path) for path in paths}
        state = signed({"v": _VERSION, "done": training.done, "own": training.state(), "files": files})
        (beside / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    _tidy(checkpoints, folder, training.optimisers, settings)
    return folder


def newest_checkpoint(checkpoints: Path, roles: Iterable[Role], emit: EventSink = lambda event: None) -> Path | None:
    """The newest undamaged checkpoint of a training of these roles, or None; `emit` hears of damaged ones.

    First puts right what a killed writer left: nobody else may be writing there.
    """
    sweep(checkpoints)
    wanted, damaged = list(roles), []
    found = None
    for folder in reversed(_steps(checkpoints)):
        try:
            _read_state(folder, wanted)
        except UserError as error:
            damaged.append(error)
        else:
            found = folder
            break
    way_on = f"The run goes on from {found.name}." if found else "There is none before it: the run begins anew."
    for one in damaged:
        emit(Alert("warning", "checkpoint-damaged", one.what, why=one.why, remedy=way_on))
    return found


def load_checkpoint(training: Resumable, folder: Path) -> None:
    """Put `training` where it was when the checkpoint was written. Raises UserError when a file is damaged."""
    state = _read_state(folder, training.optimisers)
    for role in training.optimisers:
        training.roles.restore(role, folder / role)
    tensors = load_file(folder / OPTIMISERS)
    for role, optimiser in training.optimisers.items():
        held = optimiser.state_dict()
        held["state"] = _unflat(tensors, role)
        optimiser.load_state_dict(held)
    training.resume(state["done"], state["own"], load_file(folder / OWN))


def keep_best(roles: Roles, names: Iterable[Role], facts: Mapping[str, Any], checkpoints: Path) -> Path:
    """Write `checkpoints/best`: adapters and heads of these roles with `facts`, in the place of the one before.

    Raises DiskError when the disk is full: the one before is then still there.
    """
    folder = checkpoints / BEST
    with _told_when_full("the best policy so far"), replacing(folder) as beside:
        for role in names:
            roles.save(role, beside / role, facts)
    return folder


def best_facts(names: Iterable[Role], checkpoints: Path) -> dict[str, Any] | None:
    """What was kept with `checkpoints/best`; None when there is none, or it is damaged."""
    try:
        found = [read_manifest(checkpoints / BEST / role, role)["facts"] for role in names]
    except UserError:
        return None
    return dict(found[0]) if found and all(facts == found[0] for facts in found) else None


def restore_best(roles: Roles, names: Iterable[Role], checkpoints: Path) -> None:
    """Be as in `checkpoints/best`. Raises UserError when it is missing or damaged."""
    for role in names:
        roles.restore(role, checkpoints / BEST / role)


def signed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with 'sha256': the hash of all else in it, as it comes back from JSON."""
    plain = {name: value for name, value in json.loads(json.dumps(document)).items() if name != "sha256"}
    return plain | {"sha256": hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()}


@contextmanager
def _told_when_full(what: str) -> Iterator[None]:
    """Says what could not be kept when the disk is full."""
    try:
        yield
    except Exception as error:
        full = next((link for link in chain(error) if is_disk_full(link)), None)
        if full is None:
            raise
        raise DiskError(
            f"The disk is full: {what} could not be kept.", why=str(full), todo="Free some space on it."
        ) from error


def _tidy(checkpoints: Path, newest: Path, roles: Iterable[Role], settings: RunSettings) -> None:
    """Remove the checkpoints that need not stay, now that `newest` is whole."""
    wanted, kept = list(roles), 1
    for folder in reversed(_steps(checkpoints)):
        # Beyond the newest lie only those that were damaged when the run went on from an older one.
        older = _step(folder) < _step(newest)
        if folder == newest or (older and settings.keep_every and _step(folder) % settings.keep_every == 0):
            continue
        if older and kept < settings.keep_checkpoints and _is_whole(folder, wanted):
            kept += 1
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _steps(checkpoints: Path) -> list[Path]:
    """The folders of checkpoints, oldest first, whole or not."""
    return sorted((path for path in checkpoints.glob("step-*") if _NAME.fullmatch(path.name)), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _is_whole(folder: Path, roles: Iterable[Role]) -> bool:
    try:
        _read_state(folder, roles)
    except UserError:
        return False
    return True


def _read_state(folder: Path, roles: Iterable[Role]) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["v"] != _VERSION:
            raise _other_version(folder, state["v"])
        damaged = [name for name, digest in state["files"].items() if file_sha256(folder / name) != digest]
        damaged += [STATE] if signed(state)["sha256"] != state["sha256"] else []
        int(state["done"]), dict(state["own"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"The checkpoint {folder} cannot be read.", why=str(error), todo="The one before it can still be used."
        ) from None
    needed = [OPTIMISERS, OWN]
    for role in roles:
        needed += [f"{role}/{ADAPTER_FILE}"] + ([f"{role}/{HEAD_FILE}"] if role in WITH_HEAD else [])
    damaged += [name for name in needed if name not in state["files"]]
    if damaged:
        raise UserError(
            f"The checkpoint {folder} is damaged.",
            why=f"Not as it was written: {', '.join(damaged)}.",
            todo="The one before it can still be used.",
        )
    return state


def _other_version(folder: Path, version: object) -> UserError:
    return UserError(
        f"The checkpoint {folder} was written by another version of this program.",
        why=f"Its format is {version}; this version reads format {_VERSION} and no other.",
        todo="Go on with the version that wrote it, or start a new run.",
    )


def _flat(optimisers: dict[Role, torch.optim.AdamW]) -> dict[str, torch.Tensor]:
    flat = {}
    for role, optimiser in optimisers.items():
        for index, slots in optimiser.state_dict()["state"].items():
            for name, tensor in slots.items():
                flat[f"{role}/{index}/{name}"] = tensor.detach().cpu().contiguous()
    return flat


def _unflat(tensors: dict[str, torch.Tensor], role: str) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        owner, index, name = key.split("/")
        if owner == role:
            state.setdefault(int(index), {})[name] = tensor
    return state
