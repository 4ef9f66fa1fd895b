"""The model hub: what of it lies on this machine, what a model there consists of, and its errors in plain words.

The cache is the one of the hub's own library, which transformers reads, too. What lies there is found by its layout,
so that a glance costs no import; only what asks the hub imports the library.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from rlhf_tui.errors import chain

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# What loading reads beside the weights, all of it small, and what says under which licence a model is.
_SMALL = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "*.spm",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.j*",
    "additional_chat_templates/*.jinja",
    "README.md",
    "LICENSE*",
    "LICENCE*",
)
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """A file of a model on the hub. Size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class HubModel:
    """A model as the hub describes it: the files that loading needs, the small ones first."""

    name: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str = ""
    parameters: int | None = None
    pickled: bool = False
    """its weights are there as pickles only"""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def loadable(self) -> bool:
        """Whether its weights are safetensors under the names that loading looks for."""
        return any(file.name == WEIGHTS or _SHARD.fullmatch(file.name) for file in self.files)


# -- what lies here -------------------------------------------------------------------------------


def cache() -> Path:
    """The folder in which the hub's library keeps models, whether or not it exists; the same rules as its own."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    found = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(os.path.expanduser(found)))


def snapshot(name: str, revision: str = "") -> Path | None:
    """The folder in which the files of a model lie that have been downloaded, some or all; None: none have."""
    repository = cache() / f"models--{name.replace('/', '--')}"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (repository / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    folder = repository / "snapshots" / commit
    return folder if commit and folder.is_dir() else None


def is_whole(folder: Path) -> bool:
    """Whether all that loading needs lies in a folder: configuration, tokenizer and every safetensors file."""
    return (
        (folder / "config.json").is_file()
        and any((folder / name).is_file() for name in _TOKENIZERS)
        and (bool(shards := weight_files(folder)) and all(path.is_file() for path in shards))
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, there or not: the one, or those that the index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(named))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def is_cached(name: str, revision: str = "") -> bool:
    """Whether a model of the hub can be loaded without the hub."""
    folder = snapshot(name, revision)
    return folder is not None and is_whole(folder)


# -- asking the hub -------------------------------------------------------------------------------


def look_up(name: str, revision: str = "", timeout: float = 10) -> HubModel:
    """What the hub says of a model. Goes to the network; raises whatever the hub's library does (see `reason`)."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # whoever asks draws or prints for themselves
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    info = HfApi().model_info(name, revision=revision or None, files_metadata=True, timeout=timeout)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    card = info.card_data
    return HubModel(
        name=name,
        commit=info.sha or "",
        files=tuple(HubFile(file, sizes[file]) for file in needed(sizes)),
        licence=licence_named(getattr(card, "license", None), getattr(card, "license_name", None)),
        parameters=info.safetensors.total if info.safetensors else None,
        pickled=any(file.endswith((".bin", ".pt", ".pth")) for file in sizes),
    )


def needed(names: Iterable[str]) -> list[str]:
    """Of the files of a model those that loading reads: no pickles, no second copy of the weights, the small first."""
    there = sorted(names)
    small = [name for name in there if any(fnmatch(name, shape) for shape in _SMALL)]
    if WEIGHTS in there:
        return [*small, WEIGHTS]
    shards = [name for name in there if _SHARD.fullmatch(name)]
    return [*small, *([INDEX] if INDEX in there else []), *shards]


def reason(name: str, error: BaseException) -> tuple[str, str]:
    """Why the hub did not give a model, and what to do: the error of its library in plain words."""
    kinds = {kind.__name__ for link in chain(error) for kind in type(link).__mro__}
    for known, why, todo in _REASONS:
        if kinds & set(known):
            return why.format(name=name), todo.format(name=name)
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return first, "Check the spelling and the connection, name a local folder, or use 'starter'."


_REASONS = (
    (
        ("GatedRepoError",),
        "Its owner asks everybody to agree to terms first.",
        "Open https://huggingface.co/{name}, accept them, and log in on this machine with 'hf auth login'.",
    ),
    (
        ("RevisionNotFoundError",),
        "It is there, but not in that revision.",
        "Correct model.revision, or leave it empty for the newest.",
    ),
    (
        ("RepositoryNotFoundError", "HFValidationError"),
        "The hub knows no such model, or it is a private one.",
        "Check the spelling; for a private one log in on this machine with 'hf auth login'.",
    ),
    (
        ("DisabledRepoError",),
        "The hub has closed this model.",
        "Choose another one.",
    ),
    (
        ("OfflineModeIsEnabled",),
        "HF_HUB_OFFLINE is set: the hub is not asked.",
        "Unset it, name a local folder, or use 'starter'.",
    ),
    (
        ("TransportError", "ConnectionError", "TimeoutError", "LocalEntryNotFoundError"),
        "The hub cannot be reached.",
        "Check the connection and try again, name a local folder, or use 'starter'.",
    ),
    (
        ("EntryNotFoundError",),
        "It lacks a file that loading needs, such as config.json: it is no transformers model.",
        "Choose a repository with config.json and safetensors weights; GGUF files alone cannot be trained.",
    ),
)


# -- licences -------------------------------------------------------------------------------------


def licence_of(folder: Path) -> str:
    """The licence of the model in a folder, as its card or its LICENSE says; empty: neither does."""
    return _licence_of_card(folder / "README.md") or _licence_of_text(folder)


def licence_named(licence: object, name: object = None) -> str:
    """What a card says: 'other' has a name of its own. Several are listed."""
    if isinstance(licence, list):
        return ", ".join(str(one) for one in licence)
    if licence == "other" and name:
        return str(name)
    return str(licence) if licence else ""


def _licence_of_card(card: Path) -> str:
    """From the head of a model card, between two lines of dashes."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            head = file.read(1 << 16)
    except OSError:
        return ""
    if not head.startswith("---"):
        return ""
    said: dict[str, str] = {}
    for line in head.splitlines()[1:]:
        if line.startswith("---"):
            break
        key, colon, value = line.partition(":")
        if colon and key in ("license", "license_name"):
            said[key] = value.strip().strip("'\"")
    return licence_named(said.get("license"), said.get("license_name"))


_TEXTS = (
    ("Apache License", "apache-2.0"),
    ("MIT License", "mit"),
    ("GNU AFFERO GENERAL PUBLIC", "agpl"),
    ("GNU LESSER GENERAL PUBLIC", "lgpl"),
    ("GNU GENERAL PUBLIC", "gpl"),
)


def _licence_of_text(folder: Path) -> str:
    """From the file of the licence itself: its name where it is a well-known one, else which file to read."""
    for path in sorted((*folder.glob("LICENSE*"), *folder.glob("LICENCE*"))):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                head = file.read(2000)
        except OSError:
            continue
        return next((known for text, known in _TEXTS if text.lower() in head.lower()), f"see {path.name}")
    return ""
