"""The projects known on this machine: a small file of the user's, and how a project is made and put on the list.

The list only helps to find projects again. Whatever becomes of it, projects work: a list that cannot be read is
an empty one, and one that cannot be written stays as it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs

from rlhf_tui.locate import require
from rlhf_tui.project import CONFIG, DATABASE, Project, create_project

#: How many projects the list holds; the ones opened longest ago fall off.
LONGEST = 200


@dataclass(frozen=True)
class Known:
    """A project folder, and when it was last opened in the app (unix seconds; 0: never)."""

    root: str
    opened: float = 0.0

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.root)


@dataclass(frozen=True)
class Projects:
    """The list, last opened first. `begun`: some project has been opened in the app on this machine before."""

    known: tuple[Known, ...] = ()
    begun: bool = False
    later: dict[str, Any] = field(default_factory=dict)
    """what a later version keeps in the file, and this one does not know"""


def list_file() -> Path:
    """Where the list is, whether or not the file exists."""
    return platformdirs.user_state_path("rlhf-tui") / "projects.json"


def read() -> Projects:
    """The list; an empty one when there is none that can be read."""
    try:
        tree = json.loads(list_file().read_text(encoding="utf-8"))
        known = [Known(str(one["root"]), float(one.get("opened", 0.0))) for one in tree.pop("projects", [])]
        begun = bool(tree.pop("begun", False))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Projects()
    return Projects(tuple(sorted(known, key=lambda one: -one.opened)), begun, tree)


def note(root: Path, *, opened: bool = True) -> None:
    """Put a project on the list: it has been opened in the app, or only made."""
    place = str(root.resolve())

    def noted(now: Projects) -> Projects:
        before = next((one for one in now.known if one.root == place), Known(place))
        after = replace(before, opened=time.time()) if opened else before
        rest = [one for one in now.known if one.root != place]
        return replace(now, known=(after, *rest)[:LONGEST], begun=now.begun or opened)

    _change(noted)


def drop(root: Path) -> None:
    """Take a project off the list. Its folder, if there is one, stays as it is."""
    _change(lambda now: replace(now, known=tuple(one for one in now.known if one.path != root)))


def seems_project(root: Path) -> bool:
    """Whether a folder is a project, or what is left of one."""
    return any((root / name).exists() for name in (CONFIG, DATABASE))


def new_project(root: Path, model: str, overrides: Sequence[str] = ()) -> Project:
    """Make a project with this base model and put it on the list; nothing is fetched yet.

    Raises UsageError when the model cannot be had, a setting is wrong or the folder is not empty, UserError when
    it cannot be written.
    """
    found = require(model)
    name = found.path if found.kind == "folder" else found.name
    project = create_project(root, overrides=[f"model.name={name}", *overrides])
    note(project.root, opened=False)
    return project


def _change(make: Callable[[Projects], Projects]) -> None:
    """Replace the list by what `make` makes of it, whole or not at all, one program at a time."""
    path = list_file()
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock")):
            new = make(read())
            tree = {**new.later, "begun": new.begun, "projects": [asdict(one) for one in new.known]}
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
            beside.replace(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock on a file; it is let go when the process ends, however it ends."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
