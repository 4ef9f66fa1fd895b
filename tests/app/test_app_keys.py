"""The key registry: no key that terminals swallow, none bound twice, a footer that fits, help that is whole."""

from __future__ import annotations

from collections import Counter

import pytest

from rlhf_tui.app import keys

ALL = [action for group in keys.REGISTRY.values() for action in group]
SWALLOWED = {f"ctrl+{letter}" for letter in "hijmbaz"}


def split(action: keys.Action) -> list[str]:
    return [key.strip() for key in action.keys.split(",")]


def test_no_key_that_terminals_keep_for_themselves() -> None:
    used = {key for action in ALL for key in split(action)}
    assert not used & SWALLOWED
    assert not [key for key in used if "alt+" in key or key == "ctrl+enter"]


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(action.id for action in ALL).items() if count > 1] == []


@pytest.mark.parametrize("screen", keys.SCOPES)
def test_no_key_means_two_things_on_one_screen(screen: str) -> None:
    used = Counter(key for action in keys.actions(screen) for key in split(action))
    assert [key for key, count in used.items() if count > 1] == []


@pytest.mark.parametrize("screen", keys.SCOPES)
@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("live", [False, True])
def test_the_footer_fits_and_keeps_what_matters_most(screen: str, width: int, live: bool) -> None:
    shown = keys.footer(screen, width, live=live)
    assert len("  ".join(f"{key} {label}" for key, label in shown)) <= width - 1
    assert shown
    offered = [a for a in keys.actions(screen) if a.rank and a.when in ("always", "live" if live else "idle")]
    first = min(offered, key=lambda action: action.rank)
    assert (first.shown, first.label) in shown


@pytest.mark.parametrize("screen", keys.SCOPES)
def test_help_lists_every_action(screen: str) -> None:
    assert [text for _, text in keys.help_rows(screen)] == [action.help for action in keys.actions(screen)]


def test_the_labelling_keys_are_on_the_home_row_with_digits_beside_them() -> None:
    answers = {action.call: action.keys for action in keys.REGISTRY["label"]}
    order = [("left", 2), ("left", 1), ("tie", 1), ("right", 1), ("right", 2)]
    assert [answers[f"answer('{side}', {n})"] for side, n in order] == ["d,1", "f,2", "space,3", "j,4", "k,5"]
