"""The journal of a run: one writer appends lines, any number of readers follow.

The writer puts a whole line into one `os.write` to a file opened for appending and checks how much
arrived, because a nearly full disk takes a part of a line without an error. The reader takes only
whole lines, remembers where the first unread one starts, and so survives torn tails, healing,
truncation and replacement of the file.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

import msgspec

from rlhf_tui.errors import FULL, DiskError, UserError
from rlhf_tui.runs.events import Checkpoint, Done, Event, Head, Stamped, decode, encode, head

CHUNK = 1 << 16


class DiskFull(DiskError):
    """The disk (or the user's quota on it) has no room for another event."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            "The disk is full.",
            why=f"There was no room left for {path}.",
            todo="Free some space, then start again from the last checkpoint.",
        )


class JournalWriter:
    """The one writer of a journal; an EventSink. May be called from several threads.

    Opening it cuts a torn last line, so that the next one starts clean. Checkpoint and Done are
    forced to the disk. Raises DiskFull, or UserError for any other trouble with the file; after
    either, the file still ends with a whole line and the writer can be used again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Re-entrant: a signal may interrupt a write, and its handler's way out writes Done.
        self._lock = threading.RLock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(path, error) from None
        self._clean = False
        self.empty = self._heal() == 0

    def __call__(self, event: Event) -> None:
        line = encode(event, time.time())
        with self._lock:
            if not self._clean:
                self._heal()
            self._clean = False
            try:
                self._append(line)
                if isinstance(event, Checkpoint | Done):
                    os.fsync(self._fd)
            except OSError as error:
                raise _unwritable(self.path, error) from None
            self._clean = True

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        start = os.fstat(self._fd).st_size
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, start)
            raise DiskFull(self.path)

    def _heal(self) -> int:
        """Cut what follows the last newline; returns the size that is left."""
        size = os.fstat(self._fd).st_size
        whole = _last_newline(self._fd, size) + 1
        if whole < size:
            os.ftruncate(self._fd, whole)
        self._clean = True
        return whole


class JournalReader:
    """Follows a journal that somebody else writes, a time budget at a time, from its byte `start` on.

    `skipped` counts broken lines; `resets` counts how often the file was found replaced or cut, and is
    read again from its start. Whether a newer version wrote it, `versions` says.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.skipped = 0
        self.resets = 0
        self._offset = start  # where the first unread line starts
        self._size = 0
        self._identity: tuple[int, int] | None = None
        self._caught_up = False

    @property
    def caught_up(self) -> bool:
        """Whether the last `read` came to the end of the file."""
        return self._caught_up

    @property
    def fraction(self) -> float:
        """Share of the file that has been read, as of the last `read`."""
        return min(1.0, self._offset / self._size) if self._size else 1.0

    def read(self, budget: float = 0.05) -> list[Stamped]:
        """Events that have become readable, oldest first; at most about `budget` seconds of work.

        Call again while `caught_up` is false. A missing file reads as empty.
        """
        deadline = time.monotonic() + budget
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            self._caught_up = True
            return []
        try:
            self._notice_replacement(fd)
            return self._read_lines(fd, deadline)
        finally:
            os.close(fd)

    def _read_lines(self, fd: int, deadline: float) -> list[Stamped]:
        events: list[Stamped] = []
        pending = b""
        while chunk := os.pread(fd, CHUNK, self._offset + len(pending)):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._take(line, events)
                self._offset += len(line) + 1
            if lines and time.monotonic() >= deadline:
                self._caught_up = len(chunk) < CHUNK  # less than was asked for: that was the end of the file
                return events
        # The unfinished line is read again next time: the writer may cut it and write another.
        self._caught_up = True
        return events

    def _take(self, line: bytes, events: list[Stamped]) -> None:
        try:
            stamped = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.skipped += 1
            return
        if stamped is not None:
            events.append(stamped)

    def _notice_replacement(self, fd: int) -> None:
        """Start over when this is another file, or no longer the one whose lines were read."""
        facts = os.fstat(fd)
        identity = (facts.st_dev, facts.st_ino)
        # What was read ended with a newline; if there is none at that place, the file was rewritten.
        continues = self._offset == 0 or os.pread(fd, 1, self._offset - 1) == b"\n"
        if not continues or (self._identity is not None and identity != self._identity):
            self._offset = 0
            self.resets += 1
        self._identity = identity
        self._size = facts.st_size


def last_event(path: Path) -> Stamped | None:
    """The event in the last whole line; None when there is no such line or it cannot be read."""
    try:
        return decode(line) if (line := _last_line(path)) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def last_head(path: Path) -> Head | None:
    """Version, time and type of the last whole line; None when there is no such line or it cannot be read."""
    try:
        return head(line) if (line := _last_line(path)) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def whole_size(path: Path) -> int:
    """Where the next line will start: the size of the file without a torn last line, 0 for a missing one."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        return _last_newline(fd, os.fstat(fd).st_size) + 1
    finally:
        os.close(fd)


def _last_line(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        stop = _last_newline(fd, os.fstat(fd).st_size)
        start = _last_newline(fd, stop) + 1
        return os.pread(fd, stop - start, start) if stop > 0 else b""
    finally:
        os.close(fd)


def _last_newline(fd: int, end: int) -> int:
    """Offset of the last newline before `end`, or -1."""
    while end > 0:
        start = max(0, end - CHUNK)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found
        end = start
    return -1


def _unwritable(path: Path, error: OSError) -> UserError:
    if error.errno in FULL:
        return DiskFull(path)
    return UserError(
        f"{path} cannot be written.", why=error.strerror or str(error), todo="Check the disk and the folder's rights."
    )
