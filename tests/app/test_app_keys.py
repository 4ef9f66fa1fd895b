"""The key registry: no key that terminals swallow, none bound twice, a footer that fits, help that is whole."""

from __future__ import annotations

from collections import Counter

import pytest

from rlhf_tui.app import keys, keytable
from rlhf_tui.errors import UsageError

ALL = [action for group in keytable.REGISTRY.values() for action in group]
SWALLOWED = {f"ctrl+{letter}" for letter in "hijmbaz"}


def split(action: keytable.Action) -> list[str]:
    return [key.strip() for key in action.keys.split(",")]


def test_no_key_that_terminals_keep_for_themselves() -> None:
    used = {key for action in ALL for key in split(action)}
    assert not used & SWALLOWED
    assert not [key for key in used if "alt+" in key or key == "ctrl+enter"]


def test_ids_are_unique() -> None:
    assert [name for name, count in Counter(action.id for action in ALL).items() if count > 1] == []


@pytest.mark.parametrize("screen", keytable.SCOPES)
def test_no_key_means_two_things_on_one_screen(screen: str) -> None:
    used = Counter(key for action in keys.actions(screen) for key in split(action))
    assert [key for key, count in used.items() if count > 1] == []


@pytest.mark.parametrize("screen", keytable.SCOPES)
@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("live", [False, True])
def test_the_footer_fits_and_keeps_what_matters_most(screen: str, width: int, live: bool) -> None:
    shown = keys.footer(screen, width, live=live)
    assert len("  ".join(f"{key} {label}" for key, label in shown)) <= width - 1
    assert shown
    offered = [a for a in keys.actions(screen) if a.rank and a.when in ("always", "live" if live else "idle")]
    first = min(offered, key=lambda action: action.rank)
    assert (first.shown, first.label) in shown


@pytest.mark.parametrize("there", [(), ("charts",), ("report",), ("charts", "report")])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("screen", [name for name in keytable.SCOPES if name != "chat"])
def test_help_and_the_way_out_are_in_the_last_line_of_80_columns(
    screen: str, live: bool, there: tuple[keytable.When, ...]
) -> None:
    shown = [label for _, label in keys.footer(screen, 80, live=live, there=there)]
    assert {"Help", "Leave"} <= set(shown)


def test_keys_of_charts_are_shown_only_where_there_are_charts() -> None:
    for screen in ("reward", "ppo"):
        assert "Charts" in dict(keys.footer(screen, 160, live=False, there=("charts",))).values()
        assert "Charts" not in dict(keys.footer(screen, 160, live=False)).values()


@pytest.mark.parametrize("screen", keytable.SCOPES)
def test_help_lists_every_action(screen: str) -> None:
    assert [text for _, text in keys.help_rows(screen)] == [action.help for action in keys.actions(screen)]


def test_the_labelling_keys_are_on_the_home_row_with_digits_beside_them() -> None:
    answers = {action.call: action.keys for action in keytable.REGISTRY["label-pair"]}
    order = ["prefer(0, 2)", "prefer(0, 1)", "tie", "prefer(1, 1)", "prefer(1, 2)"]
    assert [answers[call] for call in order] == ["d,1", "f,2", "space,3", "j,4", "k,5"]


def test_an_answer_never_needs_a_modifier() -> None:
    groups = [group for group in keytable.REGISTRY if group.startswith("label-")]
    assert len(groups) == 4
    assert not [key for group in groups for action in keytable.REGISTRY[group] for key in split(action) if "+" in key]


@pytest.mark.parametrize("kind", ["pair", "rank", "rate", "accept"])
def test_every_way_of_judging_has_its_keys(kind: str) -> None:
    ids = {action.id for action in keys.actions(keys.screen_of(kind))}
    assert {"label.skip", "label.discard", "label.undo", "label.history", "app.help"} <= ids
    assert ("label.left" in ids) == (kind == "pair")
    assert ("label.equal" in ids) == (kind == "rank")


# Keys of one's own


def test_without_overrides_there_is_nothing_to_map() -> None:
    assert keys.keymap({}) == {}


def test_an_override_changes_the_keys_the_footer_and_the_help() -> None:
    mapped = keys.keymap({"label.left": "a,f9", "label.undo": "-", "label.note": ","})
    assert mapped["label.left"] == "a,f9"
    assert mapped["label.undo"] == "minus"
    assert mapped["label.note"] == "comma"
    assert mapped["label.right"] == "j,4"
    assert ("-", "Undo") in keys.footer("label", 160, live=False, keymap=mapped)
    assert ("u", "Undo") not in keys.footer("label", 160, live=False, keymap=mapped)
    assert ("a F9", "A is better.") in keys.help_rows("label", mapped)
    assert keys.key_of("label", "label.left", mapped) == "a"


def test_two_actions_may_change_places() -> None:
    mapped = keys.keymap({"label.left": "j", "label.right": "f"})
    assert (mapped["label.left"], mapped["label.right"]) == ("j", "f")


def test_the_same_key_may_answer_in_two_modes() -> None:
    mapped = keys.keymap({"label.left": "a"})
    assert mapped["label.accept"] == "a"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"label.lefty": "a"}, "Did you mean 'label.left'?"),
        ({"label.left": "s"}, "'label.left' and 'label.skip'"),
        ({"label.accept": "q"}, "'label.accept' and 'app.leave'"),
        ({"label.left": "a,a"}, "would mean two things"),
        ({"label.left": "escape"}, "esc cannot be used"),
        ({"label.left": "F1"}, "F1 cannot be used"),
        ({"label.left": "ctrl+x"}, "Not every terminal sends it"),
        ({"label.left": "alt+f"}, "Not every terminal sends it"),
        ({"label.left": "shift+up"}, "Not every terminal sends it"),
        ({"label.left": "f13"}, "Not every terminal sends it"),
        ({"label.left": "\x07"}, "Not every terminal sends it"),
        ({"label.left": "enterr"}, "Not every terminal sends it"),
    ],
)
def test_a_key_map_that_cannot_work_is_refused_in_words(overrides: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        keys.keymap(overrides)
    assert words in str(caught.value)


def test_an_action_may_be_given_the_reserved_keys_it_has() -> None:
    assert keys.keymap({"label.back": "escape,b"})["label.back"] == "escape,b"


@pytest.mark.parametrize(
    ("key", "spelt"),
    [
        ("question_mark", "?"),
        ("minus", "-"),
        ("slash", "/"),
        ("underscore", "_"),
        ("exclamation_mark", "!"),
        ("left_square_bracket", "["),
        ("full_stop", "."),
        ("ctrl+s", "^s"),
        ("shift+up", "shift+↑"),
        ("f10", "F10"),
        ("space", "space"),
        ("enter", "⏎"),
        ("U", "U"),
    ],
)
def test_keys_are_written_as_people_write_them(key: str, spelt: str) -> None:
    assert keys.spelt(key) == spelt


@pytest.mark.parametrize("screen", keytable.SCOPES)
def test_what_the_footer_shows_is_the_key_itself(screen: str) -> None:
    """The registry's own spelling and the one made for an override agree, so that a remapped screen reads the same."""
    for action in keys.actions(screen):
        assert keys.spelt(split(action)[0]) in (action.shown.split()[0], action.shown[0])
