"""A window on a large file of lines that others may still write to: opened at its end, moved block by block.

What is not asked for is not read: a log of 100 MB costs as much as its last blocks. A caller's `Shown` turns the
bytes of a line into text, or leaves the line out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BLOCK = 1 << 16
#: Blocks that one step of a window reads at most, where few of the lines are shown.
_REACH = 64

#: The text of a line without its newline; None: it is not shown.
Shown = Callable[[bytes], str | None]


class Line(NamedTuple):
    """A shown line: where it begins in the file, how many bytes it has, its text."""

    offset: int
    size: int
    text: str


class Window:
    """The shown lines between two places of a file. A file that is not there is an empty one."""

    def __init__(self, path: Path, shown: Shown, *, block: int = BLOCK, most: int = 2 * BLOCK) -> None:
        """`most`: how many characters it holds; what is too much is dropped on the side it moves away from."""
        self.path = path
        self._shown, self._block, self._most = shown, block, most
        self._whole: list[Line] = []
        self._rest: list[Line] = []  # the last line of the file while nothing has ended it yet
        self._unfinished = 0  # its bytes, shown or not
        self.start = self.end = self.size = 0
        self._identity: tuple[int, int] | None = None
        self.to_end()

    @property
    def lines(self) -> list[Line]:
        """What is shown, from the top."""
        return [*self._whole, *self._rest]

    @property
    def at_start(self) -> bool:
        """Whether nothing lies before it."""
        return self.start == 0

    @property
    def at_end(self) -> bool:
        """Whether nothing lies after it, as of the last look."""
        return self.end + self._unfinished >= self.size

    def to_end(self) -> None:
        """Move to the end of the file."""
        with _opened(self.path) as fd:
            self._look(fd)
            self._move_to(_last_line(fd, self.size, self._block))
        self.on()
        self.back()

    def around(self, offset: int) -> None:
        """Move so that the line beginning at `offset` is in it, and some lines before it. 0: the beginning."""
        with _opened(self.path) as fd:
            self._look(fd)
        self._move_to(min(offset, self.size))
        self.on()
        self.back()

    def follow(self) -> None:
        """Move on to the end; past what lies between, if that is much."""
        with _opened(self.path) as fd:
            another = self._look(fd)
        if another or self.size - self.end > 2 * self._block:
            self.to_end()
            return
        self.on()
        while not self.at_end and self.on():
            pass

    def back(self) -> int:
        """Take in what lies before, until lines are shown; returns how many."""
        found: list[Line] = []
        with _opened(self.path) as fd:
            for _ in range(_REACH):
                if found or not self.start or fd < 0:
                    break
                self.start, data = _before(fd, self.start, self._block)
                found = list(_lines(self.start, data, self._shown))
        self._whole = [*found, *self._whole]
        spare = sum(len(line.text) for line in self.lines) - self._most
        while spare > 0 and len(self._whole) > len(found) + 1:
            last = self._whole.pop()
            self.end, spare = last.offset, spare - len(last.text)
            self._rest, self._unfinished = [], 0
        return len(found)

    def on(self) -> int:
        """Take in what lies after, new or not, until lines are shown; returns how many."""
        found: list[Line] = []
        with _opened(self.path) as fd:
            if self._look(fd):
                self._move_to(0)
            self._rest, self._unfinished = [], 0
            for _ in range(_REACH):
                if found or self.end >= self.size or fd < 0:
                    break
                data = os.pread(fd, self._block, self.end)
                whole = _whole_lines(data, last=self.end + len(data) >= self.size)
                found = list(_lines(self.end, data[:whole], self._shown))
                self.end += whole
                if self.end + len(data) - whole >= self.size or not whole:
                    self._unfinished = len(data) - whole
                    self._rest = list(_lines(self.end, data[whole:], self._shown))
                    break
        self._whole += found
        spare = sum(len(line.text) for line in self.lines) - self._most
        gone = 0
        while spare > 0 and gone < len(self._whole) - len(found) - 1:
            spare -= len(self._whole[gone].text)
            gone += 1
        if gone:
            self._whole = self._whole[gone:]
            self.start = self._whole[0].offset
        return len(found) + len(self._rest)

    def changed(self) -> bool:
        """Whether the file is another one, or longer or shorter, than when the window was last moved."""
        with _opened(self.path) as fd:
            return _facts(fd) != (self._identity, self.size)

    def _move_to(self, offset: int) -> None:
        self._whole, self._rest, self._unfinished = [], [], 0
        self.start = self.end = offset

    def _look(self, fd: int) -> bool:
        """Learn the size; True when this is another file than before, or it was cut."""
        before = self._identity
        self._identity, self.size = _facts(fd)
        return (before is not None and self._identity != before) or self.size < self.end


def search(
    path: Path, shown: Shown, needle: str, at: int, *, backwards: bool, stopped: Callable[[], bool], block: int = BLOCK
) -> int | None:
    """Where the nearest shown line that says `needle` begins, before (or after) the one at `at`; None: nowhere.

    `at` is where a line begins, or the end of the file. Capitals do not matter. `stopped` is asked after every block.
    """
    wanted = needle.casefold()
    with _opened(path) as fd:
        if fd < 0:
            return None
        for start, data in _blocks_back(fd, at, block) if backwards else _blocks_on(fd, at, block):
            found = [line.offset for line in _lines(start, data, shown) if wanted in line.text.casefold()]
            found = [offset for offset in found if (offset < at if backwards else offset > at)]
            if found:
                return found[-1] if backwards else found[0]
            if stopped():
                return None
    return None


def _blocks_back(fd: int, at: int, block: int) -> Iterator[tuple[int, bytes]]:
    while at > 0:
        at, data = _before(fd, at, block)
        yield at, data


def _blocks_on(fd: int, at: int, block: int) -> Iterator[tuple[int, bytes]]:
    while data := os.pread(fd, block, at):
        whole = _whole_lines(data, last=len(data) < block) or len(data)
        yield at, data[:whole]
        at += whole


def _before(fd: int, end: int, block: int) -> tuple[int, bytes]:
    """Whole lines that end at `end`, and where they begin. A line longer than a block is cut."""
    start = max(0, end - block)
    data = os.pread(fd, end - start, start)
    cut = data.find(b"\n", 0, len(data) - 1) + 1 if start else 0
    return start + cut, data[cut:]


def _whole_lines(data: bytes, *, last: bool) -> int:
    """How many bytes of `data` are whole lines; of one that fills a block and goes on, all."""
    found = data.rfind(b"\n") + 1
    return found if found or last else len(data)


def _last_line(fd: int, size: int, block: int) -> int:
    """Where the last line begins: an unfinished one, or one that would begin at the very end."""
    start = max(0, size - block)
    data = os.pread(fd, size - start, start) if fd >= 0 else b""
    return start + data.rfind(b"\n") + 1


def _lines(start: int, data: bytes, shown: Shown) -> Iterator[Line]:
    for line in data.removesuffix(b"\n").split(b"\n") if data else ():
        text = shown(line)
        if text is not None:
            yield Line(start, len(line), text)
        start += len(line) + 1


def _facts(fd: int) -> tuple[tuple[int, int] | None, int]:
    """Which file it is, and its size; none, and 0, for one that is not there."""
    if fd < 0:
        return None, 0
    found = os.fstat(fd)
    return (found.st_dev, found.st_ino), found.st_size


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file, or -1 when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)
