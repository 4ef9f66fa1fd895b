"""Completing a half-typed path from what lies on the disk. Free of Textual."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_tui.preferences.display import clean

#: Entries of a folder that are looked at: a larger one is completed from its first ones.
LOOKED_AT = 5000


@dataclass(frozen=True)
class Choices:
    """What a half-typed path may become.

    `head` is the text up to its last slash, `names` are the entries that fit, folders with a slash at the end.
    """

    head: str
    typed: str
    names: tuple[str, ...]

    @property
    def completed(self) -> str:
        """The text with as much filled in as all entries share."""
        first, last = min(self.names, default=""), max(self.names, default="")
        same = next((at for at, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), len(first))
        return self.head + (first[:same] if same >= len(self.typed) else self.typed)

    def taken(self, index: int) -> str:
        """The text with one of the entries taken."""
        return self.head + self.names[index]


def as_path(text: str, base: Path) -> Path:
    """The path that a typed text means: `~` is the home folder, anything relative lies in `base`."""
    path = Path(text.strip())
    with suppress(RuntimeError):  # a '~name' whom nobody knows
        path = path.expanduser()
    return base / path


def choices(text: str, base: Path, fits: Callable[[str], bool]) -> Choices:
    """The entries that `text` may be completed to: folders, and files whose name fits.

    Hidden entries are offered once the dot is typed; capitals matter only where they were typed rightly.
    """
    if text == "~":
        return Choices("", text, ("~/",))
    before, slash, typed = text.rpartition("/")
    found = _entries(as_path(before + slash, base), fits)
    found = [name for name in found if not name.startswith(".") or typed.startswith(".")]
    same = [name for name in found if name.startswith(typed)]
    if not same:
        same = [name for name in found if name.casefold().startswith(typed.casefold())]
    return Choices(before + slash, typed, tuple(same))


def _entries(folder: Path, fits: Callable[[str], bool]) -> Sequence[str]:
    """Folders first, then files, each by name; none when the folder cannot be read."""
    folders, files = [], []
    try:
        with os.scandir(folder) as found:
            for _, entry in zip(range(LOOKED_AT), found, strict=False):
                if clean(entry.name) != entry.name or "\n" in entry.name:
                    continue  # what cannot be shown cannot be chosen here either
                if entry.is_dir():
                    folders.append(entry.name + "/")
                elif fits(entry.name):
                    files.append(entry.name)
    except (OSError, ValueError):
        return ()
    return [*sorted(folders, key=str.casefold), *sorted(files, key=str.casefold)]
