"""Text files line by line and JSON value by value, however large, with errors that name file and line.

Files may be gzipped (told by their first bytes) and may begin with a byte order mark; lines end with LF or
CRLF and with nothing else: a JSON string may hold U+2028 and its like as they are. Nothing here holds more
than one line or one JSON value, and one that is longer than `LONGEST` is refused, so that a small file that
unpacks to a huge one cannot fill the memory.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from rlhf_tui.errors import UsageError

LONGEST = 64 * 2**20  # bytes of one line, characters of one JSON value
_CHUNK = 2**18
_GZIP = b"\x1f\x8b"
_SPACE = re.compile(r"[ \t\n\r]*")


class Row(NamedTuple):
    """One value of a file and the number of the line (in a table without lines: of the row) it begins on.

    `rows`: how many rows of the file it was put together from.
    """

    number: int
    value: Any
    rows: int = 1


def broken(name: object, number: int, why: str, *, todo: str = "", unit: str = "line") -> UsageError:
    """The error for a bad line; nothing of the file has been taken."""
    return UsageError(f"{name}, {unit} {number} cannot be read.", why=why, todo=todo or "Nothing was imported.")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The bytes of a file, unpacked when it is gzipped. Raises UsageError when they cannot be read."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", todo="Check the name. Nothing was imported.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(
            f"{path} cannot be unpacked.", why=f"It is a damaged gzip file: {error}.", todo="Nothing was imported."
        ) from None
    except OSError as error:
        todo = "Name a file that you may read. Nothing was imported."
        raise UsageError(f"{path} cannot be read.", why=error.strerror or str(error), todo=todo) from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their ends, numbered from 1. Raises UsageError."""
    with open_bytes(path) as stream:
        number = 1
        while raw := _next_line(path, stream, number):
            if len(raw) > LONGEST:
                raise broken(path, number, f"It is longer than {LONGEST >> 20} MiB.")
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                todo = "Save the file as UTF-8 and try again."
                raise broken(path, number, "It is not UTF-8 text.", todo=todo) from None
            number += 1


def _next_line(path: Path, stream: IO[bytes] | gzip.GzipFile, number: int) -> bytes:
    try:
        return stream.readline(LONGEST + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise broken(path, number, f"The gzip file is damaged from here on: {error}.") from None


def filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without the white space around them. Raises UsageError."""
    for number, line in text_lines(path):
        if stripped := line.strip():
            yield number, stripped


def json_rows(path: Path) -> Iterator[Row]:
    """The values of a file of JSON lines, of one JSON list, or of one JSON object. Raises UsageError.

    The first line that is not blank tells which. Where it begins a list ('['), or begins an object and holds
    nothing else of it ('{' alone, as in an indented file), the file is read as that one value, and a list as its
    elements. Otherwise every line is a value by itself.
    """
    first = next(filled_lines(path), None)
    if first is None:
        return
    if first[1].startswith("[") or first[1] == "{":
        yield from _document(path)
        return
    for number, line in filled_lines(path):
        yield Row(number, parse(path, number, line))


def parse(path: Path, number: int, line: str) -> Any:
    """The JSON value of a line. Raises UsageError naming the line."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise broken(path, number, f"It is not JSON: {error}.") from None


def _document(path: Path) -> Iterator[Row]:
    """The elements of the one list in a file, decoded one by one; a value that is no list is a list of one."""
    window = _Window(path)
    if not window.skip("["):
        yield window.value()
        window.expect_end()
        return
    if window.skip("]"):
        window.expect_end()
        return
    while True:
        yield window.value()
        if window.skip("]"):
            window.expect_end()
            return
        if not window.skip(","):
            raise window.damaged("a comma or the end of the list is missing", window.at)


class _Window:
    """A sliding window over the text of a file that grows until it holds a whole JSON value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0
        self._text = ""
        self._line = 1  # of the first character of the window
        self._lines = text_lines(path)
        self._ended = False
        self._decoder = json.JSONDecoder()

    def skip(self, sign: str) -> bool:
        """Pass white space, and `sign` if it is next; whether it was."""
        self._to_next()
        if not self._text.startswith(sign, self.at):
            return False
        self.at += 1
        return True

    def expect_end(self) -> None:
        self._to_next()
        if self.at < len(self._text):
            raise self.damaged("there is more after its end", self.at)

    def value(self) -> Row:
        """The next JSON value and the line it begins on."""
        self._to_next()
        self._drop_read()
        size = _CHUNK
        while True:
            self._grow(size)
            try:
                value, end = self._decoder.raw_decode(self._text)
            except json.JSONDecodeError as error:
                # An error well inside the window cannot be cured by more text, an open string can.
                cut_off = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated string")
                if self._ended or not cut_off:
                    raise self.damaged(error.msg, error.pos) from None
            except RecursionError:
                raise self.damaged("it is nested too deep", 0) from None
            else:
                # A number at the edge of the window may go on.
                if self._ended or end < len(self._text):
                    self.at = end
                    return Row(self._line, value)
            size *= 4
            if size > LONGEST:
                raise self.damaged(f"one value is longer than {LONGEST >> 20} MiB", 0)

    def damaged(self, why: str, position: int) -> UsageError:
        """The error for the text at `position` of the window."""
        number = self._line + self._text.count("\n", 0, position)
        return broken(self.path, number, f"It is not JSON: {why}.")

    def _to_next(self) -> None:
        while True:
            match = _SPACE.match(self._text, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self._text) or self._ended:
                return
            self._drop_read()
            self._grow(_CHUNK)

    def _drop_read(self) -> None:
        self._line += self._text.count("\n", 0, self.at)
        self._text, self.at = self._text[self.at :], 0

    def _grow(self, size: int) -> None:
        """Read on until the window holds `size` characters, or the file ends."""
        parts, length = [self._text], len(self._text)
        while length < size:
            line = next(self._lines, None)
            if line is None:
                self._ended = True
                break
            parts.append(line[1])
            length += len(line[1])
        if len(parts) > 1:
            self._text = "".join(parts)
