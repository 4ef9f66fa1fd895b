"""The settings of a project as the editor sees them: what is listed, what a typed text would store. Free of Textual.

`Browsing` knows which settings are listed and which one is lit. `SettingsForm` reads `rlhf.toml`, checks what is
typed, stores it and takes it back. Nothing is ever written over what another program has put there meanwhile.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.trust import KEYS as TRUST_KEYS
from rlhf_tui.runs.trust import trust, untrusted
from rlhf_tui.settings import SettingInfo, Settings, catalogue, from_tree, load, parse_value, value, write

#: The section that belongs to a stage, where it has another name.
SECTION_OF_STAGE = {"pairs": "generate"}


@dataclass(frozen=True, eq=False)  # each exists once
class Entry:
    """A setting in the list, with the values there are when it is one of a few."""

    info: SettingInfo
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def section(self) -> str:
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    @property
    def is_switch(self) -> bool:
        return isinstance(self.info.default, bool)

    @property
    def is_text(self) -> bool:
        return self.info.kind == "text"

    @property
    def kind(self) -> str:
        """What may stand there, in words."""
        return f"{self.info.kind}, {self.info.bounds}" if self.info.bounds else self.info.kind

    def says(self, wanted: Sequence[str]) -> bool:
        """Whether each of these words occurs in the key or in the explanation."""
        text = f"{self.key} {self.info.explanation}".casefold()
        return all(word in text for word in wanted)

    def spelt(self, now: Any) -> str:
        """A value as a person reads it: a text in quotes, so that a blank at its end is seen."""
        if isinstance(now, bool):
            return "true" if now else "false"
        if self.is_text:
            return f'"{now}"' if now else "empty"
        return str(now)


@cache
def entries() -> tuple[Entry, ...]:
    """Every setting there is, in the order of the file."""
    return tuple(Entry(item, _options(item.key)) for item in catalogue())


@cache
def _places() -> dict[str, int]:
    """Where each setting stands among all."""
    return {one.key: at for at, one in enumerate(entries())}


@cache
def sections() -> dict[str, str]:
    """The sections and what each is about, in one sentence."""
    said = {name: (field.annotation.__doc__ or "") for name, field in Settings.model_fields.items() if field.annotation}
    return {name: text.strip().partition("\n")[0].partition(". ")[0].rstrip(".") for name, text in said.items()}


def _options(key: str) -> tuple[str, ...]:
    section, _, name = key.partition(".")
    outer = Settings.model_fields[section].annotation
    assert outer is not None
    return tuple(str(option) for option in get_args(outer.model_fields[name].annotation))


# What is listed


class Browsing:
    """Which settings are listed, and which one of them is lit."""

    def __init__(self, section: str = "", differing: Callable[[], Collection[str]] = tuple) -> None:
        """`section` is where to begin; `differing` gives the keys that differ from their defaults."""
        self.needle = ""
        self.only_differing = False
        self._differing = differing
        self._anchor = 0
        self._lit = next((at for at, one in enumerate(entries()) if one.section == section), 0)

    @property
    def listed(self) -> list[Entry]:
        """The settings that pass the filter."""
        wanted = self.needle.casefold().split()
        found = [one for one in entries() if one.says(wanted)] if wanted else list(entries())
        if self.only_differing:
            kept = self._differing()
            found = [one for one in found if one.key in kept]
        return found

    @property
    def lit(self) -> Entry | None:
        """The setting under the cursor: the next one in the file when the lit one has left the list."""
        listed = self.listed
        last = listed[-1] if listed else None
        return next((one for one in listed if _places()[one.key] >= self._lit), last)

    @property
    def narrowed(self) -> bool:
        """Whether a filter is on."""
        return bool(self.needle) or self.only_differing

    def light(self, key: str) -> None:
        """Move the cursor to a setting."""
        self._lit = _places()[key]

    def move(self, by: int) -> None:
        """Move the cursor so many settings down, or up; it stops at the ends."""
        listed = self.listed
        if listed and self.lit:
            at = listed.index(self.lit) + by
            self.light(listed[min(max(at, 0), len(listed) - 1)].key)

    def turn_section(self, by: int) -> None:
        """Go to the first setting of the next section (or the one before), around the ends."""
        listed = self.listed
        names = list(dict.fromkeys(one.section for one in listed))
        if self.lit:
            name = names[(names.index(self.lit.section) + by) % len(names)]
            self.light(next(one.key for one in listed if one.section == name))

    def begin_filter(self) -> None:
        """From here on `narrow` follows what is typed."""
        self._anchor = self._lit

    def narrow(self, needle: str) -> None:
        """List what says this, and light what is most likely meant: a setting that is called so."""
        self.needle, self._lit = needle, self._anchor
        wanted = needle.casefold().split()
        lit = self.lit
        called = [one.key for one in self.listed if all(word in one.key for word in wanted)]
        if wanted and called and (lit is None or lit.key not in called):
            self.light(called[0])

    def widen(self) -> None:
        """List all again; the lit one stays lit."""
        if self.lit:
            self.light(self.lit.key)
        self.needle, self.only_differing = "", False


# What is stored


class ChangedMeanwhileError(UserError):
    """Another program has changed the setting since it was shown. `now` is what it holds."""

    def __init__(self, entry: Entry, now: Any) -> None:
        super().__init__(
            f"{entry.key} is {entry.spelt(now)} by now: another program changed rlhf.toml meanwhile.",
            why="Nothing was written.",
        )
        self.now = now


@dataclass(frozen=True)
class Change:
    """A setting that was changed here, and the file before and after, byte for byte."""

    entry: Entry
    old: Any
    new: Any
    before: bytes | None
    after: bytes | None
    #: What went wrong after it was stored.
    remark: UserError | None = None


class SettingsForm:
    """The settings of one project, read from its file and written to it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.settings: Settings | None = None
        self.trouble: UserError | None = None
        self._content: bytes | None = None
        self._done: list[Change] = []
        self._read()

    def look(self) -> bool:
        """Read the file again; True when it is another one than before."""
        before = self._content, str(self.trouble)
        self._read()
        return before != (self._content, str(self.trouble))

    def differing(self) -> Collection[str]:
        """The keys that differ from their defaults; none while the file cannot be read."""
        return [one.key for one in entries() if self.differs(one)]

    def now(self, entry: Entry) -> Any:
        """The value of a setting; None while the file cannot be read."""
        return getattr(getattr(self.settings, entry.section), entry.name) if self.settings else None

    def differs(self, entry: Entry) -> bool:
        """Whether it has another value than its default."""
        return self.settings is not None and self.now(entry) != entry.info.default

    def check(self, entry: Entry, typed: str) -> Any:
        """What a typed text would store. Raises UsageError as `settings.write` would: it is the same validation."""
        new = typed if entry.is_text else parse_value(entry.key, typed.strip())
        if new == "" and not entry.is_text:
            raise UsageError("Nothing is typed yet.", why=f"It is {entry.kind}.")
        try:
            typed.encode()
        except UnicodeEncodeError:
            raise UsageError("It holds half a character, which no file can keep.", why="Type that one again.") from None
        tree = (self.settings or Settings()).model_dump()
        tree[entry.section][entry.name] = new
        return value(from_tree(tree, origin=str(self.project.config)), entry.key)

    def require_changeable(self) -> None:
        """Raise UserError when nothing can be written now: the file is broken, or the project read-only."""
        if not self.project.writable:
            raise UsageError(
                f"{self.project.root} is read-only.",
                why="Settings are written to rlhf.toml in it.",
                todo="Copy the project to a folder you may write to, or ask for the right to write to this one.",
            )
        if self.trouble:
            raise self.trouble

    def store(self, entry: Entry, new: Any, *, seen: Any) -> Change:
        """Write a value in place of the one that was `seen`. Raises ChangedMeanwhileError, or UserError.

        Runs may use a program or an address that is typed here, as with `config set`.
        """
        change = self._write(entry, new, seen)
        self._done.append(change)
        try:
            trust(self.project.root, {entry.key: new})
        except UserError as error:
            return replace(change, remark=error)
        return change

    def is_allowed(self, entry: Entry) -> bool:
        """Whether runs use it: a program or an address must have been typed on this machine, or allowed on it."""
        if self.settings is None or entry.key not in TRUST_KEYS:
            return True
        return entry.key not in untrusted(self.settings.notify, self.project.root)

    def undo(self) -> Change | None:
        """Take the last change back, again and again; None when there is none left. Raises as `store` does.

        While nobody else has written to the file it becomes what it was, to the byte: a reset has taken the comment
        behind the value away with it.
        """
        if not self._done:
            return None
        last = self._done[-1]
        self.require_changeable()
        self._read()
        if last.before is not None and self._content == last.after:
            earlier = last.before
            _guarded(lambda: _put_back(self.project.config, earlier))
            self._read()
            taken = replace(last, old=last.new, new=last.old, before=last.after, after=last.before)
        else:
            taken = self._write(last.entry, last.old, last.new)
        self._done.pop()
        return taken

    @property
    def shell_root(self) -> str:
        """The project's folder as a shell reads it."""
        return shlex.quote(str(self.project.root))

    def command(self, entry: Entry, new: Any) -> str:
        """The command line that stores this value, without the project."""
        return f"rlhf-tui config set {_arguments(entry, new)}"

    def whole_command(self, entry: Entry, new: Any) -> str:
        """The command line that stores this value in this project."""
        return f"rlhf-tui config set --project {self.shell_root} {_arguments(entry, new)}"

    def _write(self, entry: Entry, new: Any, seen: Any) -> Change:
        self.require_changeable()
        self._read()
        if self.trouble:
            raise self.trouble
        now = self.now(entry)
        if now != seen:
            raise ChangedMeanwhileError(entry, now)
        before = self._content
        _guarded(lambda: write(self.project.config, entry.key, new))
        self._read()
        return Change(entry, now, new, before, self._content)

    def _read(self) -> None:
        path = self.project.config
        try:
            content = path.read_bytes() if path.exists() else None
            if self._content == content and self.settings is not None:
                return
            self._content = content
            self.settings, self.trouble = load(path), None
        except UserError as error:
            self.settings, self.trouble = None, error
        except OSError as error:
            self.settings, self._content = None, None
            self.trouble = UserError(
                f"{path} cannot be read.", why=error.strerror or str(error), todo="Check the file's rights."
            )


def headed(listed: Sequence[Entry]) -> Iterator[str | Entry]:
    """The lines of a list: each section's name before its settings."""
    section = ""
    for entry in listed:
        if entry.section != section:
            section = entry.section
            yield section
        yield entry


def _arguments(entry: Entry, new: Any) -> str:
    """KEY VALUE as a shell and the command line take them apart again."""
    text = new if entry.is_text else entry.spelt(new)
    if entry.is_text and parse_value(entry.key, text) != text:  # it has quotes of its own, which would be taken off
        text = f"'{text}'" if text.startswith('"') else f'"{text}"'
    dashes = "-- " if text.startswith("-") else ""
    return f"{dashes}{entry.key} {shlex.quote(text)}"


def _guarded(act: Callable[[], object]) -> None:
    """Do something to the file. Raises UserError for whatever stands in the way."""
    try:
        act()
    except (OSError, ValueError) as error:  # of tomlkit, too: it knows fewer forms of TOML than Python does
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise UserError(
            "rlhf.toml could not be changed.", why=why, todo="Nothing was written. Look at the file, disk and rights."
        ) from None


def _put_back(path: Path, content: bytes) -> None:
    """Give the file an earlier content, in one step."""
    beside = path.with_name(path.name + ".partial")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
