"""A project folder: where each thing lies, and how one comes to be."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_tui import settings as settings_module
from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.store import Store
from rlhf_tui.settings import Settings
from rlhf_tui.swap import heal_all

CONFIG = "rlhf.toml"
DATABASE = "preferences.db"

_TEMPLATE = """\
# Settings of this project. Only what differs from the defaults stands here;
# 'rlhf-tui config show' lists everything, 'rlhf-tui config explain KEY' says what it means.
"""


@dataclass(frozen=True)
class Project:
    """The paths of one project. Holds no open files; cheap to pass around."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def database(self) -> Path:
        return self.root / DATABASE

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def writable(self) -> bool:
        """Whether anything can be changed here; a project on a read-only disk can still be looked at."""
        return os.access(self.root, os.W_OK)

    def adapter(self, role: str) -> Path:
        """Where the current adapter of `role` lies."""
        return self.adapters / role

    def settings(self, overrides: Sequence[str] = ()) -> Settings:
        """The project's settings with `section.key=value` overrides. Raises UsageError."""
        return settings_module.load(self.config, overrides)

    def store(self) -> Store:
        """The project's preferences. The caller closes it (it is a context manager)."""
        return Store.open(self.database)


def open_project(root: Path) -> Project:
    """The project in `root`. Raises UsageError when there is none."""
    root = root.resolve()
    if not (root / CONFIG).is_file() or not (root / DATABASE).is_file():
        raise UsageError(
            f"{root} is not an rlhf-tui project.",
            why=f"It holds no {CONFIG} and {DATABASE}.",
            todo="Make one with 'rlhf-tui init DIR', or name another folder with --project DIR.",
        )
    project = Project(root)
    heal_all(project.adapters)  # a worker may have died while it replaced one
    return project


def require_writable(project: Project) -> None:
    """Raise UsageError when the project can only be looked at."""
    if not project.writable:
        raise UsageError(
            f"{project.root} is read-only.",
            why="Judgements and runs are written there.",
            todo="Copy the project to a folder you may write to, or ask for the right to write to this one.",
        )


def create_project(root: Path, *, overrides: Sequence[str] = ()) -> Project:
    """Make a new project in `root` (absent or empty), whole or not at all.

    `overrides` are `section.key=value` settings to write into it. Raises UsageError for a bad
    setting or an occupied folder, UserError when the folder cannot be written.
    """
    root = root.resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(f"{root} exists and is not empty.", todo="Choose a new folder for the project.")
    settings_module.load(root / CONFIG, overrides)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    except OSError as error:
        raise UserError(f"{root} cannot be made.", why=str(error), todo="Choose a folder you may write to.") from None
    try:
        _fill(Project(beside), overrides, name=root.name)
        os.replace(beside, root)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return Project(root)


def _fill(project: Project, overrides: Sequence[str], *, name: str) -> None:
    with open(os.open(project.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_TEMPLATE)
    for override in overrides:
        key, new = settings_module.parse_override(override)
        settings_module.write(project.config, key, new)
    for folder in (project.adapters, project.runs):
        folder.mkdir(mode=0o700)
    # What is exported is meant for others: its files get the rights that the user's umask gives, and only
    # the project's own folder keeps them private while they lie in it.
    project.exports.mkdir()
    Store.create(project.database, name=name, seed=project.settings().run.seed).close()
