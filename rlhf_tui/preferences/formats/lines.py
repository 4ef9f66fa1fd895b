"""JSON lines with errors that name the file and the line."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.records import ROLES, Message


class Malformed(Exception):
    """A line does not say what it should. Always caught by the reader, which knows file and line."""


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a UTF-8 file that are not blank, numbered from 1. Raises UsageError, also for an empty file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read.", why=error.strerror or str(error)) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise broken(path, line, "It is not UTF-8 text.", todo="Save the file as UTF-8 and try again.") from None
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    found = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise UsageError(f"{path} is empty.", todo="Name a file with at least one line.")
    return found


def parse(path: Path, number: int, line: str) -> Any:
    """The JSON value of a line. Raises UsageError naming the line."""
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise broken(path, number, "It holds half a character (a lone surrogate).") from None
    except (ValueError, RecursionError) as error:
        raise broken(path, number, f"It is not JSON: {error}.") from None
    return value


def broken(path: Path, number: int, why: str, *, todo: str = "") -> UsageError:
    """The error for a bad line; nothing of the file has been taken."""
    return UsageError(f"{path}, line {number} cannot be read.", why=why, todo=todo or "Nothing was imported.")


def text(row: dict[str, Any], key: str, default: str | None = None) -> str:
    """A string field; absent or null is the default. Raises Malformed."""
    value = default if row.get(key) is None else row[key]
    if not isinstance(value, str):
        raise Malformed(f"{key!r} must be a text.")
    return value


def choice(row: dict[str, Any], key: str, known: Collection[str]) -> str | None:
    """A field that is one of the known words, or absent. Raises Malformed."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or value not in known:
        raise Malformed(f"{key!r} is {value!r}; known are {', '.join(known)}.")
    return value


def whole(row: dict[str, Any], key: str) -> int | None:
    """An integer field, or None when it is absent. Raises Malformed."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise Malformed(f"{key!r} must be a whole number.")
    return value


def texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """A field that is a list of strings, empty when absent. Raises Malformed."""
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{key!r} must be a list of texts.")
    return tuple(value)


def messages(value: Any, key: str) -> tuple[Message, ...]:
    """A conversation: a list of {"role", "content"}. Raises Malformed."""
    if not isinstance(value, list):
        raise Malformed(f"{key!r} must be a list of messages.")
    found = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str) or item.get("role") not in ROLES:
            raise Malformed(f'{key!r} must hold messages like {{"role": "user", "content": "…"}}.')
        found.append(Message(item["role"], item["content"]))
    return tuple(found)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write JSON lines beside the target and rename them into place; return how many. Raises UserError."""
    count = 0
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as stream:
                for row in rows:
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written.", why=error.strerror or str(error), todo="Choose another place."
        ) from None
    return count
