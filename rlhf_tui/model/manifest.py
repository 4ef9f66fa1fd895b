"""The folder of an adapter: what it holds, with the hash of every file, and what is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.model.heads import Reading

WITH_HEAD = ("reward", "value", "gold")

ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "head.safetensors"
MANIFEST = "manifest.json"


def write_manifest(folder: Path, role: str, layout: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write `manifest.json`: what the folder holds, with the SHA-256 of every file in it."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    manifest = {"v": 1, "role": role, "layout": dict(layout), "facts": dict(facts), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path, role: str) -> dict[str, Any]:
    """The manifest of an adapter folder, every file checked against it. Raises UserError when anything is amiss."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"There is no {role} adapter yet.",
            why=f"{folder} holds no {MANIFEST}.",
            todo=f"Run 'rlhf-tui train {'ppo' if role != 'reward' else 'reward'}' first.",
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is damaged.", why=str(error), todo="Train this stage again.") from None
    parts = (manifest, manifest.get("layout"), manifest.get("files")) if isinstance(manifest, dict) else (None,)
    if not all(isinstance(part, dict) for part in parts) or "facts" not in manifest:
        raise UserError(
            f"{folder / MANIFEST} is damaged.", why="Something is missing in it.", todo="Train this stage again."
        )
    if manifest.get("role") != role:
        raise UserError(
            f"{folder} holds a {manifest.get('role')} adapter, not a {role} adapter.",
            todo=f"Train the {role} adapter again, or put the right folder in its place.",
        )
    needed = {ADAPTER_FILE, *([HEAD_FILE] if role in WITH_HEAD else [])}
    for name in sorted(needed | set(manifest["files"])):
        path = folder / name
        if not path.is_file() or file_sha256(path) != manifest["files"].get(name):
            raise UserError(
                f"{path} is {'damaged' if path.is_file() else 'missing'}.",
                why="It does not match the hash that was written with it.",
                todo="Train this stage again, or restore the file from a backup.",
            )
    return manifest


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def saved_reading(folder: Path, role: str) -> Reading:
    """Where the head of the role saved in `folder` reads. Raises UserError when anything is amiss there."""
    layout = read_manifest(folder, role)["layout"]
    try:
        return Reading(layout["layer"], layout["pooling"])
    except KeyError:
        raise UserError(
            f"The {role} adapter in {folder} does not say where it is read.",
            why="An earlier version of this program wrote it.",
            todo="Train the reward model again.",
        ) from None
