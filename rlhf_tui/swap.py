"""Folders that are there whole or not at all: the old content until the new one is complete.

Beside `name` may lie `name.partial`, which is being written, and for a moment `name.old`, which is being replaced. A
program that dies leaves them behind; `heal` puts that right, also while another program is replacing the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL, OLD = ".partial", ".old"
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` at the end, or vanishes when something is raised."""
    beside = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        yield beside
        _flush(beside)
        _put(beside, folder)
        _flush_entry(folder.parent)
    except BaseException:
        heal(folder)
        shutil.rmtree(beside, ignore_errors=True)
        raise


def heal(folder: Path) -> None:
    """Bring `folder` back when a program died just when it had put the old content away. Harmless at any time."""
    old = folder.with_name(folder.name + OLD)
    if old.is_dir() and not folder.exists():
        with suppress(OSError):  # whoever replaces it has just finished, or the disk is read-only
            old.rename(folder)


def heal_all(parent: Path) -> None:
    """`heal` every folder in `parent`."""
    for old in parent.glob(f"*{OLD}"):
        heal(old.with_name(old.name.removesuffix(OLD)))


def sweep(parent: Path) -> None:
    """Heal every folder in `parent` and remove what is left over. Only for one who alone writes there."""
    heal_all(parent)
    for left in (*parent.glob(f"*{OLD}"), *parent.glob(f"*{PARTIAL}")):
        shutil.rmtree(left, ignore_errors=True)


def _put(beside: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + OLD)
    heal(folder)
    while True:
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
            break
        except OSError as error:
            if error.errno not in _OCCUPIED:  # a reader has healed it in between
                raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Let all of `folder` reach the disk."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            _flush_entry(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _flush_entry(folder: Path) -> None:
    # Some network file systems know no fsync of folders; the files themselves are safe there all the same.
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
