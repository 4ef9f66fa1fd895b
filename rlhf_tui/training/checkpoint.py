"""Checkpoints of a PPO run: everything from which the next update would come out the same.

The random draws of an update depend on the seed and its number alone, so adapters, heads,
optimisers, the KL coefficient and the number of updates are the whole state. Tensors are stored as
safetensors, never as pickles; a folder appears complete under its final name or not at all.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import ADAPTER_FILE, HEAD_FILE, WITH_HEAD, Role, file_sha256, replace_folder
from rlhf_tui.training.ppo import LEARNING, Ppo

OPTIMISERS = "optimisers.safetensors"
STATE = "state.json"
KEPT = 2


def save_checkpoint(ppo: Ppo, checkpoints: Path) -> Path:
    """Write `checkpoints/step-000012` and drop all but the newest ones; returns its folder."""
    folder = checkpoints / f"step-{ppo.done:06d}"
    beside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for role in LEARNING:
        ppo.roles.save(role, beside / role, {"update": ppo.done})
    save_file(_flat(ppo.optimisers), beside / OPTIMISERS)
    files = {str(path.relative_to(beside)): file_sha256(path) for path in sorted(beside.rglob("*")) if path.is_file()}
    state = {"v": 1, "done": ppo.done, "kl_coefficient": ppo.kl_coefficient, "files": files}
    (beside / STATE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    replace_folder(beside, folder)
    for old in sorted(checkpoints.glob("step-[0-9]*[0-9]"))[:-KEPT]:
        shutil.rmtree(old)
    return folder


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The newest undamaged checkpoint, or None. A damaged one is passed over."""
    for folder in sorted(checkpoints.glob("step-[0-9]*[0-9]"), reverse=True):
        try:
            _read_state(folder)
        except UserError:
            continue
        return folder
    return None


def load_checkpoint(ppo: Ppo, folder: Path) -> None:
    """Put `ppo` where it was when the checkpoint was written. Raises UserError when a file is damaged."""
    state = _read_state(folder)
    for role in LEARNING:
        ppo.roles.restore(role, folder / role)
    tensors = load_file(folder / OPTIMISERS)
    for role, optimiser in ppo.optimisers.items():
        held = optimiser.state_dict()
        held["state"] = _unflat(tensors, role)
        optimiser.load_state_dict(held)
    ppo.done = state["done"]
    ppo.kl_coefficient = state["kl_coefficient"]


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        damaged = [name for name, digest in state["files"].items() if file_sha256(folder / name) != digest]
        int(state["done"]), float(state["kl_coefficient"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"The checkpoint {folder} cannot be read.", why=str(error)) from None
    needed = [f"{role}/{ADAPTER_FILE}" for role in LEARNING] + [f"{r}/{HEAD_FILE}" for r in LEARNING if r in WITH_HEAD]
    damaged += [name for name in needed if name not in state["files"]]
    if damaged:
        raise UserError(f"The checkpoint {folder} is damaged.", why=f"Not as it was written: {', '.join(damaged)}.")
    return state


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
