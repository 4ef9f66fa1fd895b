"""Reading settings from `rlhf.toml` and from the command line, and writing one back with the comments kept."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import ValidationError
from tomlkit.items import AbstractTable, Item

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.settings.catalogue import Settings, info


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a TOML file (may be absent), then `section.key=value` overrides.

    Raises UsageError for a broken file, an unknown name, a wrong type or a value out of bounds.
    """
    tree: dict[str, Any] = {}
    if path.exists():
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} is not valid TOML.", why=str(error), todo="Correct the line named above."
            ) from None
    for override in overrides:
        key, value = parse_override(override)
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return from_tree(tree, origin=str(path))


def from_tree(tree: Mapping[str, Any], *, origin: str) -> Settings:
    """Settings from nested mappings; `origin` names the source in error messages."""
    for section, content in tree.items():
        if not isinstance(content, Mapping):
            raise UsageError(
                f"{origin}: {section!r} stands outside a section.",
                todo=f"Put it under one of {', '.join(f'[{name}]' for name in Settings.model_fields)}.",
            )
        for name in content:
            info(f"{section}.{name}")
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _readable(error, origin) from None


def parse_override(text: str) -> tuple[str, Any]:
    """`section.key=value` as a known key and a typed value (TOML syntax; bare words are text)."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals:
        raise UsageError(f"{text!r} is not of the form section.key=value.")
    return key, parse_value(key, raw.strip())


def parse_value(key: str, raw: str) -> Any:
    """A value typed at a prompt, read for the setting `key`."""
    if info(key).kind == "text":
        # One pair of quotes around everything; quotes inside belong to the text, as in a command.
        quoted = len(raw) >= 2 and raw[0] in {'"', "'"} and raw.find(raw[0], 1) == len(raw) - 1
        return raw[1:-1] if quoted else raw
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw


def write(path: Path, key: str, new: Any) -> Settings:
    """Set one value in the TOML file, keeping everything else in it, comments included.

    A value equal to the default is removed from the file, unless its line carries a comment. The file is
    replaced in one step, and only when the result is valid. Returns the resulting settings; raises UsageError as
    `load` does, and UserError when the file cannot be written.
    """
    load(path)  # says what is wrong with a file that cannot be read
    document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    section, _, name = info(key).key.partition(".")
    table = document.get(section)
    if table is None:
        table = document[section] = tomlkit.table()
    if new == info(key).default and not _has_comment(table, name):
        table.pop(name, None)
    else:
        table[name] = new
    if not table and not (isinstance(table, AbstractTable) and "#" in table.as_string()):
        document.pop(section)
    text = tomlkit.dumps(document)
    settings = from_tree(tomllib.loads(text), origin=str(path))
    beside = path.with_name(path.name + ".partial")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise UserError(
            f"{path} cannot be written.",
            why=error.strerror or str(error),
            todo="Nothing was changed. Check the disk and the folder's rights.",
        ) from None
    return settings


def _has_comment(table: Any, name: str) -> bool:
    if name not in table:
        return False
    item = table.item(name) if isinstance(table, AbstractTable) else table[name]  # dotted keys: a table without `item`
    return bool(item.trivia.comment) if isinstance(item, Item) else False


def _readable(error: ValidationError, origin: str) -> UsageError:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    setting = info(key)
    given = problem.get("input")
    bounds = f", {setting.bounds}" if setting.bounds else ""
    return UsageError(
        f"{key} cannot be {given!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}.",
        why=f"It is {setting.kind}{bounds}; the default is {setting.default!r}.",
        todo=f"Correct it in {origin}, or with --set {key}=…",
    )
