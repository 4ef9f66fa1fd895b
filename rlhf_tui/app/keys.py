"""What is made of the table of keys: bindings, footer, help, and the user's own keys instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from textual.binding import Binding, BindingType
from textual.keys import KEY_NAME_REPLACEMENTS, _character_to_key, key_to_character

from rlhf_tui.app.keytable import REGISTRY, SCOPES, Action, When
from rlhf_tui.errors import UsageError, nearest

#: What leads away from the one judgement that is judged again.
_ELSEWHERE = {f"label.{name}" for name in ("skip", "undo", "redo", "history", "mode", "rater")}

#: What an override may not give to anything else: the ways out and to the help, in every terminal.
RESERVED = {"escape": "esc", "f1": "F1", "ctrl+c": "^c", "ctrl+p": "^p", "ctrl+q": "^q"}
#: Keys with names that an override may use; all others are one sign each, or F2 to F12.
NAMED = ("space", "enter", "tab", "backspace", "delete", "insert", "home", "end", "pageup", "pagedown")
ARROWS = ("up", "down", "left", "right")

#: Action id to keys, as `keymap` makes it; empty: every action has the keys of the registry.
Keymap = Mapping[str, str]


def keymap(overrides: Mapping[str, str]) -> Keymap:
    """Other keys for some actions, ready for Textual's `App.set_keymap` and for `footer` and `help_rows`.

    `overrides` is action id to keys ("a", "a,f5", "?"). Raises UsageError in words when an id is unknown, a
    key is none that every terminal sends, a key is reserved, or two actions of one screen would share one.
    """
    if not overrides:
        return {}
    known = {action.id: action for group in REGISTRY.values() for action in group}
    # Every action stands in the map: Textual drops a binding whose key an override takes, and on the labelling
    # screen one key may mean different things in different modes.
    mapped = {action.id: action.keys for action in known.values()}
    for name, wanted in overrides.items():
        if name not in known:
            todo = nearest(name, known) or "The help of a screen (?) lists its actions."
            raise UsageError(f"No action is called {name!r}.", why="It is set in the key map.", todo=todo)
        mapped[name] = ",".join(_checked(name, key, known[name]) for key in _listed(wanted))
    for screen in SCOPES:
        _refuse_clashes(screen, mapped)
    return mapped


def _listed(wanted: str) -> list[str]:
    """The keys of a list; the comma itself is a key when it stands alone."""
    return [","] if wanted.strip() == "," else [key.strip() or "space" for key in wanted.split(",")]


def _checked(name: str, key: str, action: Action) -> str:
    """The key as Textual calls it. Raises UsageError when it cannot be used for this action."""
    called = _character_to_key(key) if len(key) == 1 else key.lower()
    if called in action.keys.split(","):
        return called
    if called in RESERVED:
        raise UsageError(f"{RESERVED[called]} cannot be used for {name!r}.", why="It is the way out, or to the help.")
    plain = len(spelt(called)) == 1 and spelt(called).isprintable()
    if not plain and called not in (*NAMED, *ARROWS) and not re.fullmatch(r"f([2-9]|1[0-2])", called):
        raise UsageError(
            f"{key!r} cannot be used for {name!r}.",
            why="Not every terminal sends it, or screen, tmux or the shell keep it.",
            todo=f"Use one sign, F2 to F12, an arrow, or {', '.join(NAMED)}.",
        )
    return called


def _refuse_clashes(screen: str, mapped: Keymap) -> None:
    taken: dict[str, str] = {}
    for action in actions(screen, mapped):
        for key in action.keys.split(","):
            if key in taken:
                raise UsageError(
                    f"{spelt(key)} would mean two things: {taken[key]!r} and {action.id!r}.",
                    why="Both work on the same screen.",
                    todo="Give one of them another key.",
                )
            taken[key] = action.id


def bindings(*groups: str) -> list[BindingType]:
    """Textual bindings of the named groups. Textual's own footer is not used, so none is shown there."""
    return [
        Binding(action.keys, action.call, action.label, show=False, id=action.id, tooltip=action.help)
        for group in groups
        for action in REGISTRY[group]
    ]


def actions(screen: str, keymap: Keymap = MappingProxyType({})) -> Iterator[Action]:
    """Every action that works on a screen, with the keys that the map gives it."""
    for group in SCOPES[screen]:
        for action in REGISTRY[group]:
            if action.id in _ELSEWHERE and screen.startswith("rejudge"):
                continue
            keys = keymap.get(action.id, action.keys)
            if keys == action.keys:
                yield action
            else:
                yield replace(action, keys=keys, shown=spelt(keys.split(",")[0]))


def key_of(screen: str, action_id: str, keymap: Keymap = MappingProxyType({})) -> str:
    """The key of an action as people write it. Raises KeyError when the screen has no such action."""
    return {action.id: action.shown for action in actions(screen, keymap)}[action_id]


def screen_of(kind: str) -> str:
    """The name in SCOPES of the labelling screen when tasks of `kind` are judged."""
    return "label" if kind == "pair" else f"label-{kind}"


def rejudging(screen: str) -> str:
    """The name in SCOPES of a labelling screen when one earlier judgement is judged again."""
    return screen.replace("label", "rejudge")


def footer(
    screen: str, width: int, *, live: bool, there: Sequence[When] = (), keymap: Keymap = MappingProxyType({})
) -> list[tuple[str, str]]:
    """(key, label) pairs for the last line: the most important ones that fit, in registry order.

    `live`: a run is going on; `there`: what else some keys need and have.
    """
    states = {"always", "live" if live else "idle", *there}
    offered = [action for action in actions(screen, keymap) if action.rank and action.when in states]
    kept: set[str] = set()
    used = 1
    for action in sorted(offered, key=lambda item: item.rank):
        needed = len(action.shown) + 1 + len(action.label) + 2
        if used + needed <= width + 2:
            kept.add(action.id)
            used += needed
    return [(action.shown, action.label) for action in offered if action.id in kept]


def help_rows(screen: str, keymap: Keymap = MappingProxyType({})) -> Sequence[tuple[str, str]]:
    """(keys, what they do) for the help window."""
    return [
        (" ".join(spelt(key.strip()) for key in action.keys.split(",")), action.help)
        for action in actions(screen, keymap)
    ]


_SPELT = {"escape": "esc", "enter": "⏎", "backspace": "bksp", "pageup": "PgUp", "pagedown": "PgDn"}
_UNICODE = {short: name for name, short in KEY_NAME_REPLACEMENTS.items()}
_SPELT |= {"up": "↑", "down": "↓", "left": "←", "right": "→"}


def spelt(key: str) -> str:
    """A key as people write it: '?' for 'question_mark', '^s' for 'ctrl+s', 'F5' for 'f5'."""
    held, plus, last = key.rpartition("+")
    if plus:
        return f"^{last}" if held == "ctrl" else f"{held}+{spelt(last)}"
    if key in _SPELT or key in (*NAMED, *ARROWS):
        return _SPELT.get(key, key)
    return key.upper() if re.fullmatch(r"f\d+", key) else key_to_character(_UNICODE.get(key, key)) or key
