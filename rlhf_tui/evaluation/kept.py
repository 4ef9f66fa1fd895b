"""Sampled completions on the disk: a comparison that was cut off does not sample them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rlhf_tui.model.generation import Completion


class _Part(msgspec.Struct, frozen=True):
    key: str
    ids: list[tuple[int, ...]]
    ended: list[bool]


def key_of(*facts: object) -> str:
    """What tells completions from those of another model, of other prompts or with other settings."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def keep(path: Path, key: str, completions: Sequence[Completion]) -> None:
    """Write them to `path`, whole or not at all. Raises OSError when the disk does not take them."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    part = _Part(key, [one.ids for one in completions], [one.ended for one in completions])
    try:
        beside.write_bytes(msgspec.json.encode(part))
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def recall(path: Path, key: str) -> list[Completion] | None:
    """What was kept at `path` under `key`; None when there is nothing, something else, or it is damaged."""
    try:
        part = msgspec.json.decode(path.read_bytes(), type=_Part)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if part.key != key or len(part.ids) != len(part.ended):
        return None
    return [Completion(ids, ended) for ids, ended in zip(part.ids, part.ended, strict=True)]
