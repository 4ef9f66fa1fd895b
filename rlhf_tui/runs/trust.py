"""Which programs a project's runs may start, and which addresses they may write to: those the user has allowed.

A project is a folder that may come from anywhere, and so may its rlhf.toml and the records of its runs. What
`notify.command` and `notify.webhook` name is therefore used only when somebody has typed it on this machine, or has
said so with 'rlhf-tui config trust'. That is kept in a file of the user's, as one hash for each project folder,
setting and value: a copy of the project, or another value, is not allowed with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import platformdirs

from rlhf_tui.errors import UserError
from rlhf_tui.settings import NotifySettings, parse_override

KEYS = ("notify.command", "notify.webhook")


def trust_file() -> Path:
    """Where it is kept, whether or not the file exists."""
    return platformdirs.user_state_path("rlhf-tui") / "trusted"


def untrusted(settings: NotifySettings, root: Path) -> dict[str, str]:
    """What the project in `root` names and the user has not allowed: `section.key` → value."""
    named = {key: value for key in KEYS if (value := getattr(settings, _name(key)))}
    known = _known() if named else set()
    return {key: value for key, value in named.items() if _mark(root, key, value) not in known}


def allowed(settings: NotifySettings, root: Path) -> NotifySettings:
    """The settings without what the user has not allowed."""
    without = {_name(key): "" for key in untrusted(settings, root)}
    return settings.model_copy(update=without) if without else settings


def trust(root: Path, values: Mapping[str, str]) -> None:
    """Allow these values from now on in the project in `root`; of other settings than KEYS there is nothing to allow.

    Raises UserError when that cannot be kept.
    """
    known = _known()
    wanted = [_mark(root, key, value) for key, value in values.items() if key in KEYS and value]
    new = [mark for mark in wanted if mark not in known]
    if not new:
        return
    path = trust_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Appended in one write: two at a time lose nothing.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, "".join(f"{mark}\n" for mark in new).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written.",
            why=f"It says which programs and addresses runs may tell. {error.strerror or error}.",
            todo="Check the disk and the folder's rights.",
        ) from None


def trust_typed(root: Path, overrides: Iterable[str]) -> None:
    """Allow what the user has just typed as `section.key=value`. Raises UsageError for what is no such thing."""
    trust(root, dict(parse_override(text) for text in overrides))


def _known() -> set[str]:
    try:
        return set(trust_file().read_text(encoding="ascii").split())
    except (OSError, UnicodeDecodeError):
        return set()  # then nothing is allowed


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _mark(root: Path, key: str, value: str) -> str:
    return hashlib.sha256(json.dumps([str(root.resolve()), key, value]).encode("ascii")).hexdigest()
