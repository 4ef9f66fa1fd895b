"""What a program may do that cannot be taken back, heard at its outer boundary; and which keys may ask for it.

Python tells of every file that is opened for writing, renamed or removed, of every program and of every connection
(`sys.addaudithook`), whichever part of the app it comes from. `RULES` says which of these acts are destructive and
what a person must have done for each: what no rule explains is a finding.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rlhf_tui.app.overview import KIND_OF_STAGE


@dataclass(frozen=True)
class Press:
    """A key, or 'click', and the class of the window that had it; of a question also its title."""

    screen: str
    key: str


@dataclass(frozen=True)
class Act:
    """Something that was done: `what` is a path below the cage, or the kind of a run."""

    kind: str
    what: str


@dataclass(frozen=True)
class Rule:
    """Acts of a `kind` on what fits `pattern` may come from these presses, (window, keys)."""

    name: str
    kind: str
    pattern: str
    by: tuple[tuple[str, Collection[str]], ...]

    def explains(self, act: Act, presses: Sequence[Press]) -> bool:
        """Whether one of the presses may have asked for the act."""
        mine = act.kind == self.kind and fnmatchcase(act.what, self.pattern)
        return mine and any(
            fnmatchcase(press.screen, screen) and press.key in keys for press in presses for screen, keys in self.by
        )


YES = ("y", "enter")
TAKE = ("enter", "click")
#: The list of commands names what it does, and enter there is as deliberate as the key itself.
PALETTE = ("CommandPalette", TAKE)
_SCREEN_OF_KIND = {kind: f"{stage.capitalize()}Screen" for stage, kind in KIND_OF_STAGE.items()}
_OPEN_CHAT = ("ConfirmDialog: A chat is open", YES)
_ANYWHERE = "*"


def asked(title: str) -> tuple[str, Collection[str]]:
    """A question with this title was answered with yes."""
    return (f"ConfirmDialog: {title}", YES)


#: Every destructive act, and what must have been done for it.
RULES = (
    # A run: it is stopped only after a question. Starting one is what enter does on its stage, going on with one what
    # r does, of a demo on the stage that it was at: the last line says so.
    Rule("stop a run", "stop", "*", (asked("Stop the run"), _OPEN_CHAT)),
    # Only the model is let go of, what was said is kept, and the next question starts it again: no question.
    Rule("end a chat", "stop", "*/runs/chat-*", (("ChatScreen", ("ctrl+t",)),)),
    *(
        Rule(f"start a run: {kind}", "start", kind, ((screen, ("enter", "r")), _OPEN_CHAT, PALETTE))
        for kind, screen in _SCREEN_OF_KIND.items()
    ),
    Rule("start a download", "start", "download", (("ModelScreen", TAKE), _OPEN_CHAT, PALETTE)),
    Rule("start a chat", "start", "chat", (("ChatScreen", ("enter",)),)),
    Rule("start the demo", "start", "demo", (asked("The demo"), ("*Screen", ("r",)), PALETTE)),
    Rule("let a run go on", "delete", "*/control/pause", (("*Screen", ("space",)), PALETTE)),
    Rule("pause or save once more", "overwrite", "*/control/*", (("*Screen", ("space", "ctrl+s")), PALETTE)),
    # Settings: each change is stored at once, is said, and can be taken back with u; the others after a question.
    Rule(
        "write a setting",
        "overwrite",
        "*/rlhf.toml",
        (
            ("SettingsScreen", (*TAKE, "space", "e", "r", "u")),
            ("ChoiceOfFew", (*TAKE, "space")),
            ("TypedValue", TAKE),
            ("ModelScreen", TAKE),
            ("ModelWindow", TAKE),
            asked("Make it fit"),
            asked("Another base model"),
            PALETTE,
        ),
    ),
    Rule("keep a theme", "overwrite", "*/theme.toml", (PALETTE,)),
    # The list of Home: a project that is there leaves it after a question; one whose folder is gone, with x.
    Rule("forget a project that is there", "forget", "there", (asked("Off the list"),)),
    Rule("forget a project that is gone", "forget", "gone", (asked("Off the list"), ("HomeScreen", ("x",)), PALETTE)),
    # What was copied last is replaced by what is copied now.
    Rule("replace what was copied", "overwrite", "*/copied.txt", ((_ANYWHERE, ("y", "ctrl+y", "c")), PALETTE)),
    # A text of several lines, or a note, an order or marks for what is judged: given up only after a question. What
    # takes one to another answer (u, U, h) keeps the note; that it drops an order is left to the person.
    Rule("give up a text", "discard", "*", (asked("Give up what you wrote"),)),
)


def explained(act: Act, presses: Sequence[Press]) -> bool:
    """Whether a rule explains an act by what has been pressed."""
    return any(rule.explains(act, presses) for rule in RULES)


@dataclass
class Watch:
    """The acts of this process below `root`, and everything it does elsewhere.

    What was made since the last `calm` may be renamed and removed again: a file written beside another one.
    """

    root: Path
    acts: list[Act] = field(default_factory=list)
    _fresh: set[str] = field(default_factory=set)

    def note(self, kind: str, what: str) -> None:
        """Remember an act."""
        self.acts.append(Act(kind, what))

    def calm(self) -> None:
        """Nothing goes on any more: what is there now is old."""
        self._fresh.clear()

    def taken(self) -> list[Act]:
        """The acts since the last time, each once."""
        taken, self.acts = self.acts, []
        return list(dict.fromkeys(taken))

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """What the interpreter tells. Raises PermissionError where something would leave the cage."""
        if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "socket.connect", "os.kill", "webbrowser.open"):
            self.note("outside", f"{event}{args[:2]}")
            raise PermissionError(f"{event} is not for a monkey")
        if event == "open":
            self._opened(*args)
        elif event == "os.truncate":
            self._overwritten(_place(args[0]))
        elif event == "os.mkdir":
            self._fresh.add(_place(args[0]))
        elif event in ("os.remove", "os.rmdir", "shutil.rmtree"):
            self._removed(_place(args[0]), *args[1:2])
        elif event == "os.rename":
            self._renamed(_place(args[0]), _place(args[1]))

    def _opened(self, path: Any, mode: Any, flags: int) -> None:
        if isinstance(path, int) or path is None or not flags & (os.O_WRONLY | os.O_RDWR):
            return
        place = _place(path)
        if not os.path.lexists(place):
            self._fresh.add(place)
        elif flags & os.O_TRUNC and os.path.isfile(place):
            self._overwritten(place)

    def _overwritten(self, place: str) -> None:
        if place not in self._fresh:
            self.note("overwrite", self._named(place))

    def _removed(self, place: str, beneath: object = None) -> None:
        if isinstance(beneath, int) and beneath >= 0:
            return  # a part of a folder whose removal has been told
        if place in self._fresh:
            self._fresh.discard(place)
        elif os.path.lexists(place):
            self.note("delete", self._named(place))

    def _renamed(self, old: str, new: str) -> None:
        if old in self._fresh:
            self._fresh.discard(old)
        else:
            self.note("delete", self._named(old))
        if new.endswith("/control/stop"):
            self.note("stop", self._named(str(Path(new).parents[1])))
        elif new.endswith("/projects.json") and os.path.lexists(new):
            self.acts += _forgotten(Path(old), Path(new))
        elif os.path.lexists(new):
            self._overwritten(new)
        self._fresh.add(new)

    def _named(self, place: str) -> str:
        return os.path.relpath(place, self.root) if place.startswith(str(self.root)) else place


def _place(path: Any) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return os.path.abspath(os.fsdecode(path))


def _forgotten(new: Path, old: Path) -> Iterator[Act]:
    """The projects that a new list no longer has."""
    import json

    before, after = ({one["root"] for one in json.loads(path.read_text())["projects"]} for path in (old, new))
    for root in before - after:
        yield Act("forget", "there" if Path(root).exists() else "gone")


_watching: list[Watch] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _watching:
        _watching[-1].hear(event, args)


@contextmanager
def watching(root: Path) -> Iterator[Watch]:
    """Hear what this process does, until the block ends. The interpreter keeps the hook; it is deaf then."""
    if not hasattr(sys, "_monkey_hears"):
        sys.addaudithook(_hear)
        sys._monkey_hears = True  # type: ignore[attr-defined]
    _watching.append(watch := Watch(root))
    try:
        yield watch
    finally:
        _watching.remove(watch)


# What lies on the disk before and after

#: What people and models said: rows are only ever added.
KEPT = ("guideline", "prompt", "completion", "task", "presentation", "judgement", "judgement_item", "gold", "revision")
#: Files that come and go with a connection or a request.
PASSING = ("*-wal", "*-shm", "*/control/*", "*.lock", "*/lock")

Rows = Mapping[str, set[tuple[Any, ...]]]


@dataclass(frozen=True)
class Inventory:
    """Every file of a folder with its size, and every row of its databases that is to stay."""

    sizes: Mapping[str, int]
    rows: Mapping[str, Rows]

    def missing(self, later: Inventory) -> list[Act]:
        """What has gone or become smaller since."""
        acts = [
            Act("delete" if name not in later.sizes else "overwrite", name)
            for name, size in self.sizes.items()
            if later.sizes.get(name, -1) < size and not any(fnmatchcase(name, one) for one in PASSING)
        ]
        for name, tables in self.rows.items():
            after = later.rows.get(name, {})
            acts += [Act("delete", f"{name}: {table}") for table in KEPT if tables[table] - after.get(table, set())]
        return acts


def inventory(root: Path) -> Inventory:
    """What lies in a folder now."""
    files = [path for path in root.rglob("*") if path.is_file()]
    sizes = {}
    for path in files:
        with suppress(FileNotFoundError):
            sizes[str(path.relative_to(root))] = path.stat().st_size
    return Inventory(sizes, {str(one.relative_to(root)): _rows(one) for one in files if one.suffix == ".db"})


def _rows(path: Path) -> Rows:
    import sqlite3

    with closing(sqlite3.connect(path)) as database:
        return {table: set(database.execute(f"SELECT * FROM {table}")) for table in KEPT}
