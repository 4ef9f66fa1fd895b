"""What is offered together: nothing empty, nothing twice, nothing too alike, and the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.preferences.store import Completion, Message, NewCompletion, NewPrompt, Store
from rlhf_tui.preferences.tasks import group_up, pair_up, similarity

Filled = Callable[..., Store]
Sit = Callable[..., Any]

words = st.lists(st.sampled_from(["rain", "sun", "snow", "wind", "fog"]))


@pytest.fixture
def prompt(store: Store) -> int:
    """The only prompt of the store."""
    store.add_prompts([NewPrompt((Message("user", "q"),), "test")], heldout_fraction=0.2)
    return store.prompts()[0].id


def write(store: Store, prompt_id: int, texts: Iterable[str], *, model: str = "m", seed: int = 0) -> list[int]:
    """Completions of these texts, one draw each; their ids."""
    writer = store.add_model(model, "base")
    return store.add_completions(
        NewCompletion(prompt_id, writer, None, text, seed=seed + place) for place, text in enumerate(texts)
    )


def offered(store: Store, kind: str = "pair") -> list[list[int]]:
    """The completions of each task of a kind."""
    rows = store.database.rows("SELECT id FROM task WHERE kind = ? ORDER BY id", kind)
    find = "SELECT completion_id FROM task_item WHERE task_id = ? ORDER BY slot"
    return [[item[0] for item in store.database.rows(find, row["id"])] for row in rows]


# How alike two texts are


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("It rains.", "it RAINS", 1.0),
        ("rain and sun", "rain and snow", 2 / 4),
        ("rain", "snow", 0.0),
        ("", "", 1.0),
        ("", "rain", 0.0),
        ("今日は晴れ", "今日は雨", 3 / 6),  # a script without spaces counts by sign, not as one long word
        ("東京", "京都", 1 / 3),
        ("วันนี้", "วันนี้", 1.0),
        ("오늘", "내일", 0.0),
        ("👍 👍 🎉", "🎉 👍", 2 / 3),
        ("👍", "👎", 0.0),
        ("?!", "!!", 1 / 3),  # no words at all: the signs count
    ],
)
def test_similarity_of_known_texts(one: str, other: str, expected: float) -> None:
    assert similarity(one, other) == pytest.approx(expected)
    assert similarity(other, one) == pytest.approx(expected)


@given(one=words, other=words)
def test_similarity_is_the_share_of_common_words(one: list[str], other: list[str]) -> None:
    left, common = list(other), 0
    for word in one:
        if word in left:
            left.remove(word)
            common += 1
    together = len(one) + len(other) - common
    expected = common / together if together else 1.0
    assert similarity(" ".join(one), "  ".join(reversed(other))) == pytest.approx(expected)


@given(one=st.text(), other=st.text())
def test_similarity_is_a_share_and_has_no_direction(one: str, other: str) -> None:
    assert 0.0 <= similarity(one, other) == similarity(other, one) <= 1.0
    assert similarity(one, one) == 1.0


def test_a_text_that_repeats_itself_is_not_like_one_that_does_not() -> None:
    assert similarity("ha", "ha " * 200) == pytest.approx(1 / 200)


def test_an_emoji_beside_words_is_part_of_what_is_said() -> None:
    assert similarity("Yes 👍", "Yes 👎") < 1.0


def test_vowel_signs_do_not_break_a_word_into_letters() -> None:
    assert similarity("हिन्दी", "हान्दा") == 0.0  # one word each, and not the same


# Who meets whom


@given(kinds=st.lists(st.sampled_from(["plain", "brief", "third"]), max_size=6))
def test_pairs_cross_kinds_as_far_as_possible(kinds: list[str]) -> None:
    candidates = [completion(number, kind) for number, kind in enumerate(kinds)]
    couples = pair_up(candidates)
    used = [side.id for couple in couples for side in couple]
    assert len(couples) == len(kinds) // 2
    assert len(set(used)) == len(used)
    largest = max((kinds.count(kind) for kind in kinds), default=0)
    within = sum(one.model == other.model for one, other in couples)
    assert within == max(0, (2 * largest - len(kinds)) // 2)


@given(count=st.integers(0, 30), size=st.integers(2, 6))
def test_groups_are_full_but_for_the_last_and_nobody_is_alone(count: int, size: int) -> None:
    groups = group_up([completion(number) for number in range(count)], size)
    assert all(len(group) == size for group in groups[:-1])
    assert all(2 <= len(group) <= size for group in groups)
    used = [member.id for group in groups for member in group]
    assert used == list(range(len(used)))
    assert count - len(used) == (1 if count % size == 1 else 0)


def completion(number: int, model: str = "m") -> Completion:
    return Completion(number, f"u{number}", 1, f"t{number}", None, None, model, None)


# What is offered


@pytest.mark.parametrize(
    ("texts", "tasks"),
    [
        (["a", "b"], 1),
        (["a"], 0),
        (["a", "a"], 0),
        (["a", " a\n"], 0),
        (["a", ""], 0),
        (["a", "b", "c"], 1),
        (["a", "b", "c", "d", "a", " "], 2),
        (["雨が降る", "晴れている"], 1),
        (["👍", "🎉"], 1),
        (["👍", "👍"], 0),
    ],
)
def test_pairs_leave_out_empty_and_identical_texts(store: Store, prompt: int, texts: list[str], tasks: int) -> None:
    write(store, prompt, texts)
    assert store.make_tasks(prompt) == tasks
    assert store.make_tasks(prompt) == 0
    ids = [number for members in offered(store) for number in members]
    assert len(set(ids)) == len(ids) == 2 * tasks


def test_of_texts_that_are_too_alike_one_is_offered_and_the_rest_are_counted(store: Store, prompt: int) -> None:
    ten = "one two three four five six seven eight nine ten"
    first, near, other, *_ = write(store, prompt, [ten, f"{ten} eleven", "something else", ten.upper()])
    assert store.make_tasks(prompt, max_similarity=0.9) == 1  # 10 of 11 words are the same: 0.909
    assert offered(store) == [offered_pair(store, first, other)]
    assert store.counts().near_duplicates == 2
    assert (store.near_duplicates([first, near]), store.near_duplicates([other]), store.near_duplicates([])) == (
        1,
        0,
        0,
    )
    like = store.database.rows("SELECT completion_id, like_id, similarity FROM near_duplicate ORDER BY completion_id")
    assert (like[0]["completion_id"], like[0]["like_id"]) == (near, first)
    assert like[0]["similarity"] == pytest.approx(10 / 11)
    store.make_tasks(prompt)
    store.make_tasks(prompt, kind="rank", size=4)
    assert store.counts().near_duplicates == 2  # counted once


def offered_pair(store: Store, one: int, other: int) -> list[int]:
    """Members stand in the order of their uids."""
    uids = {row["id"]: row["uid"] for row in store.database.rows("SELECT id, uid FROM completion")}
    return sorted((one, other), key=lambda number: uids[number])


@pytest.mark.parametrize(("limit", "tasks"), [(0.5, 1), (0.49, 0), (1.0, 1), (0.0, 0)])
def test_as_alike_as_the_limit_is_still_offered(store: Store, prompt: int, limit: float, tasks: int) -> None:
    write(store, prompt, ["rain and sun", "rain and snow"])
    assert store.make_tasks(prompt, max_similarity=limit) == tasks


def test_a_later_generation_is_paired_too_but_never_with_a_text_already_offered(store: Store, prompt: int) -> None:
    write(store, prompt, "abc")
    assert store.make_tasks(prompt) == 1
    write(store, prompt, "abcd", seed=10)
    assert store.make_tasks(prompt) == 1
    assert store.counts().pairs_waiting == 2
    assert store.counts().near_duplicates == 3


def test_each_kind_groups_the_completions_for_itself(store: Store, prompt: int) -> None:
    write(store, prompt, "abcdefg")
    made = {kind: store.make_tasks(prompt, kind=kind, size=4) for kind in ("pair", "rank", "rate", "accept")}
    assert made == {"pair": 3, "rank": 2, "rate": 2, "accept": 2}
    assert [len(members) for members in offered(store, "rank")] == [4, 3]
    assert [store.make_tasks(prompt, kind=kind, size=4) for kind in made] == [0, 0, 0, 0]
    assert store.database.number("SELECT COUNT(DISTINCT uid) FROM task") == 9
    with pytest.raises(ValueError, match="unknown kind"):
        store.make_tasks(prompt, kind="essay")


def test_rounds_count_the_tasks_of_a_kind_before(store: Store, prompt: int) -> None:
    write(store, prompt, "abcdef")
    store.make_tasks(prompt)
    store.make_tasks(prompt, kind="rank", size=3)
    rounds = store.database.rows("SELECT kind, round FROM task ORDER BY kind, round")
    assert [tuple(row) for row in rounds] == [("pair", 0), ("pair", 1), ("pair", 2), ("rank", 0), ("rank", 1)]


def test_what_a_person_wrote_is_offered_to_nobody(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=1)
    me = sit(store)
    shown = me.answer()
    store.edit(shown.shown[0].id, "By hand.", rater_id=me.rater, session_id=me.session)
    store.edit(shown.shown[1].id, "By hand as well, and longer.", rater_id=me.rater, session_id=me.session)
    before = len(offered(store))
    assert store.make_tasks(shown.prompt.id) == 0
    assert store.make_tasks(shown.prompt.id, kind="rank", size=6) == 1
    assert len(offered(store)) == before
    assert sorted(offered(store, "rank")[0]) == sorted(one.id for one in shown.shown)


def test_an_edit_does_not_use_up_its_original_for_pairs(fill: Filled, sit: Sit) -> None:
    """Who ranks first, and edits while ranking, can still be asked about pairs."""
    store = fill(prompts=1, per_prompt=0)
    prompt_id = store.prompts()[0].id
    ids = write(store, prompt_id, "abcd")
    me = sit(store)
    store.make_tasks(prompt_id, kind="rank", size=4)
    store.edit(ids[0], "better", rater_id=me.rater, session_id=me.session)
    assert store.make_tasks(prompt_id) == 2


TEXTS = ["rain", "sun", "snow", "wind", "fog", "東京", "京都", "👍"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(TEXTS), kind=st.sampled_from(["pair", "rank"]))
def test_the_same_texts_are_grouped_the_same_on_every_machine(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[str], kind: str
) -> None:
    def tasks(texts: Sequence[str]) -> set[tuple[str, int]]:
        path = tmp_path_factory.mktemp("machine") / "p.db"
        with Store.create(path, name="x", seed=3) as store:
            store.add_prompts([NewPrompt((Message("user", "q"),), "test")], heldout_fraction=0.2)
            model = store.add_model("m", "base")
            store.add_completions(NewCompletion(1, model, None, text) for text in texts)
            store.make_tasks(1, kind=kind, size=3)
            return {(row["uid"], row["position"]) for row in store.database.rows("SELECT uid, position FROM task")}

    assert tasks(order) == tasks(TEXTS)


def test_another_seed_is_another_draw(tmp_path: Path) -> None:
    def tasks(seed: int) -> set[str]:
        with Store.create(tmp_path / f"{seed}.db", name="x", seed=seed) as store:
            store.add_prompts([NewPrompt((Message("user", "q"),), "test")], heldout_fraction=0.2)
            write(store, 1, TEXTS)
            store.make_tasks(1)
            return {row["uid"] for row in store.database.rows("SELECT uid FROM task")}

    assert len({frozenset(tasks(seed)) for seed in range(5)}) > 1
