"""The labels of a run, held still: what enters, in which split and fold, how sure of each rater, and on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences import snapshot
from rlhf_tui.preferences.consistency import reliability
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Verdict, prefer
from rlhf_tui.preferences.snapshot import MOST_SMOOTHING, NO_FOLD, Row, Snapshot
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`


def take(store: Store, **more: Any) -> Snapshot:
    return snapshot.take(store, **{"ties": "half", "folds": 4, "smoothing": 0.05, "seed": 7} | more)


def judge_all(store: Store, sit: Sit, handle: str = "me") -> Any:
    """One answer to every pair."""
    me = sit(store, handle, repeat_share=0.0)
    while me.queue.next() is not None:
        me.answer()
    return me


def again(me: Any, task_id: int, *, same: bool = True) -> None:
    """Show a task the other way round and give the same answer, or the opposite one."""
    first = me.store.answer(me.rater, task_id, "label")
    shown = me.store.present(
        task_id, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat", selection="repeat"
    )
    winner = first.shown[first.verdict.ranks.index(1)]
    place = [one.id for one in shown.shown].index(winner)
    me.store.judge(shown.id, prefer(place if same else 1 - place), latency_ms=1)


# The same labels, the same snapshot


def test_the_same_store_gives_the_same_snapshot(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=30)
    me = judge_all(store, sit)
    one = take(store)
    with Store.open(store.database.path) as elsewhere:
        assert take(elsewhere) == one
        assert take(elsewhere).hash == one.hash
    assert one.labels == store.snapshot_hash()
    again(me, 1)
    assert take(store) != one  # one repeat more is left out
    assert take(store).rows == one.rows


def test_a_new_judgement_changes_the_next_snapshot_and_not_the_one_on_disk(
    fill: Filled, sit: Sit, tmp_path: Path
) -> None:
    store = fill(prompts=12, split="train")
    me = sit(store)
    for _ in range(6):
        me.answer()
    before = take(store)
    snapshot.write(before, tmp_path / "snapshot.jsonl")
    me.answer()
    after = take(store)
    assert after.hash != before.hash
    assert len(after.rows) == 7
    assert snapshot.read(tmp_path / "snapshot.jsonl") == before


@pytest.mark.parametrize(
    "other", [{"ties": "drop"}, {"folds": 3}, {"smoothing": 0.1}, {"seed": 8}, {"raters": ("me",)}]
)
def test_the_hash_knows_how_the_pairs_were_chosen(fill: Filled, sit: Sit, other: dict[str, Any]) -> None:
    store = fill(prompts=30)
    judge_all(store, sit)
    assert take(store, **other).hash != take(store).hash


# What enters


def test_a_row_names_what_was_judged(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=8, split="train")
    me = sit(store)
    for place, strength in ((0, 1), (1, 2), (1, 1)):
        me.judge(prefer(place, strength))
    found = take(store)
    for row, judged in zip(found.rows, store.judgements(), strict=True):
        winner = judged.verdict.ranks.index(1)
        assert (row.judgement, row.judgement_id, row.prompt) == (judged.uid, judged.id, judged.prompt.uid)
        assert (row.better, row.worse) == (judged.shown[winner].uid, judged.shown[1 - winner].uid)
        assert (row.tie, row.strength, row.weight) == (False, judged.verdict.strength, 1.0)
        assert row.better_first == (winner == 0)
    assert [row.strength for row in found.rows] == [1, 2, 1]
    assert found.left_out == {}


def test_only_what_prefers_something_enters_and_the_rest_is_counted(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=8, split="train")
    me = sit(store)
    first = me.answer()
    for outcome in ("tie", "both_bad", "both_bad", "skip", "discard"):
        me.answer(outcome)
    again(me, first.task_id)
    found = take(store)
    assert [row.tie for row in found.rows] == [False, True]
    assert found.left_out == {
        snapshot.BOTH_BAD: 2,
        snapshot.DISCARDED: 1,
        snapshot.REPEATS: 1,
        snapshot.SKIPPED: 1,
    }


def test_ties_are_kept_as_halves_or_dropped_from_training_only(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=24)
    me = sit(store, repeat_share=0.0)
    for number in range(24):
        me.answer("tie" if number % 2 else "ordered")
    kept, dropped = take(store), take(store, ties="drop")
    ties = [row for row in kept.rows if row.tie]
    assert len(kept.rows) == 24
    assert len(ties) == 12
    assert all(row.strength == 0 and row.better_first is None for row in ties)
    train = [row for row in ties if row.split == "train"]
    assert 0 < len(train) < 12
    assert {row.split for row in dropped.rows if row.tie} == {"heldout"}
    assert dropped.left_out == {snapshot.TIES: len(train)}
    assert len(dropped.rows) == 24 - len(train)


def test_a_ranking_shares_its_weight_and_its_order(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=1, per_prompt=4, split="train")
    store.make_tasks(1, kind="rank", size=4)
    task = store.database.number("SELECT id FROM task WHERE kind = 'rank'")
    shown = sit(store, kind="rank").judge(Verdict("ordered", ranks=(2, 1, 3, 3)), task).shown
    rows = take(store).rows
    place = {completion.uid: k for k, completion in enumerate(shown)}
    assert {(place[row.better], place[row.worse], row.tie, row.better_first) for row in rows} == {
        (1, 0, False, False),
        (0, 2, False, True),
        (0, 3, False, True),
        (1, 2, False, True),
        (1, 3, False, True),
        (2, 3, True, None),
    }
    assert {row.weight for row in rows} == {1 / 3}
    assert len({row.judgement for row in rows}) == 1


def test_an_order_that_is_not_known_is_not_guessed(store: Store) -> None:
    rater = store.add_rater("file", kind="import")
    for number, layout in enumerate(("file", "unordered")):
        candidates = (ImportedCandidate("a"), ImportedCandidate("b"))
        asked = NewPrompt((Message("user", f"q{number}"),), "file", "train")
        label = ImportedLabel(asked, candidates, "pair", prefer(1), layout=layout)
        with store.transaction():
            store.import_judgement(label, rater_id=rater.id, heldout_fraction=0.0)
    alone = ImportedLabel(asked, (ImportedCandidate("c"),), "accept", Verdict("accepted", accepted=(True,)))
    with store.transaction():
        store.import_judgement(alone, rater_id=rater.id, heldout_fraction=0.0)
    found = take(store)
    assert [row.better_first for row in found.rows] == [False, None]
    assert {row.rater for row in found.rows} == {"file"}
    assert found.left_out == {snapshot.NO_PAIR: 1}


def test_an_edit_beats_what_it_was_made_from_on_no_side(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=4, split="train")
    me = sit(store)
    shown = me.show()
    store.edit(shown.shown[1].id, "by hand", rater_id=me.rater, session_id=me.session)
    (row,) = take(store).rows
    assert (row.worse, row.better_first) == (shown.shown[1].uid, None)


# Raters


def test_the_filter_is_by_handle_and_the_rows_are_by_public_name(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=10, split="train")
    me, you = judge_all(store, sit), judge_all(store, sit, "you")
    store.set_consent(you.rater, True)
    private = f"rater-{me.who.uid[:8]}"
    everybody, mine, yours = take(store), take(store, raters=("me",)), take(store, raters=["you"])
    assert Counter(row.rater for row in everybody.rows) == {private: 10, "you": 10}
    assert {row.rater for row in mine.rows} == {private}
    assert {row.rater for row in yours.rows} == {"you"}
    assert (everybody.raters, mine.raters, yours.raters) == ((), (private,), ("you",))
    assert mine.left_out == yours.left_out == {snapshot.OTHER_RATERS: 10}
    assert take(store, raters=("you", "me", "you")).rows == everybody.rows


def test_an_unknown_rater_names_the_nearest(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=4, split="train")
    judge_all(store, sit, "annabel")
    with pytest.raises(UsageError) as caught:
        take(store, raters=("annabel", "anabell"))
    assert caught.value.what == "There is no rater 'anabell'."
    assert caught.value.why == "Did you mean 'annabel'?"
    assert "reward.raters" in caught.value.todo
    with pytest.raises(UsageError, match="They are: annabel"):
        take(store, raters=("zzz",))


def test_a_rater_who_repeats_enough_is_smoothed_by_their_own_slips(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=60, split="train")
    me, you, they = (judge_all(store, sit, name) for name in ("me", "you", "they"))
    for task in range(1, 41):
        again(me, task, same=task > 6)  # 34 of 40
    for task in range(1, 30):
        again(you, task, same=task > 6)  # one too few to go by
    for task in range(1, 41):
        again(they, task, same=task % 2 == 0)  # a coin
    found = {row.rater: row.smoothing for row in take(store, smoothing=0.07).rows}
    assert found[me.who.public_name] == pytest.approx(1 - reliability(34 / 40))
    assert found[me.who.public_name] == pytest.approx(0.0817, abs=1e-4)  # (1 - √0.7) / 2
    assert found[you.who.public_name] == 0.07
    assert found[they.who.public_name] == MOST_SMOOTHING == 0.4
    assert len(found) == 3


# Splits and folds


def test_held_out_prompts_are_in_no_fold(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=40)
    judge_all(store, sit)
    splits = {prompt.uid: prompt.split for prompt in store.prompts()}
    rows = take(store).rows
    assert {row.split for row in rows} == {"train", "heldout"}
    for row in rows:
        assert row.split == splits[row.prompt]
        assert (row.fold == NO_FOLD) == (row.split == "heldout")
        assert row.fold in (NO_FOLD, 0, 1, 2, 3)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_of_prompts_and_hold_as_many_pairs_each(store: Store, sit: Sit, folds: int) -> None:
    """Prompts with one to five pairs: no fold is larger than another by more than the largest prompt."""
    add(store, [1 + number % 5 for number in range(31)])
    judge_all(store, sit)
    rows = take(store, folds=folds).rows
    assert len(rows) == sum(1 + number % 5 for number in range(31))
    of_prompt: dict[str, set[int]] = {}
    for row in rows:
        of_prompt.setdefault(row.prompt, set()).add(row.fold)
    assert {len(found) for found in of_prompt.values()} == {1}
    sizes = Counter(row.fold for row in rows)
    assert set(sizes) == set(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1  # single pairs are dealt last, and fill the gaps


def test_one_large_prompt_leaves_the_others_to_the_other_folds(store: Store, sit: Sit) -> None:
    add(store, [12, 1, 1, 1, 1, 1, 1])
    judge_all(store, sit)
    sizes = Counter(row.fold for row in take(store, folds=3).rows)
    assert sorted(sizes.values()) == [3, 3, 12]


def test_folds_follow_the_prompts_and_the_seed_and_nothing_else(tmp_path: Path, sit: Sit) -> None:
    def dealt(name: str, *, backwards: bool, seed: int = 7) -> dict[str, int]:
        with Store.create(tmp_path / name, name=name, seed=1) as store:
            add(store, [1] * 24, backwards=backwards)
            judge_all(store, sit)
            return {row.prompt: row.fold for row in take(store, seed=seed).rows}

    first = dealt("a", backwards=False)
    assert dealt("b", backwards=True) == first
    assert dealt("c", backwards=False, seed=8) != first


def test_there_are_no_more_folds_than_prompts(store: Store, sit: Sit) -> None:
    add(store, [4, 1])
    judge_all(store, sit)
    found = take(store, folds=5)
    assert found.folds == 2
    assert {row.fold for row in found.rows} == {0, 1}


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"folds": 0}, {"smoothing": 0.5}, {"smoothing": -0.1}])
def test_what_makes_no_sense_is_a_bug(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="folds"):
        take(store, **wrong)


def test_the_same_conversation_in_both_splits_is_refused(store: Store, sit: Sit) -> None:
    ask(store, ("Say  hello\n", "train"), (" Say hello", "heldout"), ("Say bye", "train"))
    me = judge_all(store, sit)
    with pytest.raises(UserError, match="both for training and held out: 'Say hello'") as caught:
        take(store)
    assert "Discard" in caught.value.todo
    # The cure that the message names: open it again, and discard it.
    entry = next(entry for entry in store.history(me.rater, 9) if entry.prompt == " Say hello")
    store.judge(store.reopen(entry.judgement_id).id, Verdict("discard"), latency_ms=1)
    assert len(take(store).rows) == 2


def test_prompts_that_differ_in_white_space_share_a_fold(store: Store, sit: Sit) -> None:
    ask(store, *((f"{gap}Question {number}?", "train") for number in range(6) for gap in ("", " ", "\n")))
    judge_all(store, sit)
    texts = {prompt.uid: prompt.text.strip() for prompt in store.prompts()}
    folds: dict[str, set[int]] = {}
    for row in take(store, folds=3).rows:
        folds.setdefault(texts[row.prompt], set()).add(row.fold)
    assert len(folds) == 6
    assert {len(found) for found in folds.values()} == {1}


def test_another_role_is_another_conversation(store: Store, sit: Sit) -> None:
    rows = [
        NewPrompt((Message("system", "Be brief."), Message("user", "Hi")), "test", "train"),
        NewPrompt((Message("user", "Be brief."), Message("user", "Hi")), "test", "heldout"),
    ]
    store.add_prompts(rows, heldout_fraction=0.0)
    answer_all(store)
    judge_all(store, sit)
    assert len(take(store).rows) == 2


def test_without_a_training_pair_it_says_what_there_is(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=6, split="heldout")
    with pytest.raises(UserError) as caught:
        take(store)
    assert caught.value.why == "Nothing has been judged yet."
    me = sit(store)
    for outcome in ("ordered", "ordered", "skip"):
        me.answer(outcome)
    with pytest.raises(UserError) as caught:
        take(store)
    assert caught.value.what == "There is no judged pair to learn from."
    assert caught.value.why == "There are only: 2 pairs of held-out prompts, 1 skipped."
    assert "reward.ties" not in caught.value.todo


def test_nothing_but_dropped_ties_says_how_to_keep_them(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=3, split="train")
    me = sit(store)
    for _ in range(3):
        me.answer("tie")
    assert len(take(store).rows) == 3
    with pytest.raises(UserError) as caught:
        take(store, ties="drop")
    assert "3 ties of training prompts" in caught.value.why
    assert "reward.ties" in caught.value.todo


# On disk

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
shares = st.floats(0, 1, allow_nan=False)
rows = st.builds(
    Row,
    judgement=names,
    judgement_id=st.integers(1, 2**53),
    prompt=names,
    better=names,
    worse=names,
    tie=st.booleans(),
    strength=st.integers(0, 2),
    weight=shares,
    rater=names,
    smoothing=shares,
    split=st.sampled_from(["train", "heldout"]),
    fold=st.integers(-1, 20),
    better_first=st.none() | st.booleans(),
)
snapshots = st.builds(
    Snapshot,
    labels=names,
    raters=st.lists(names, max_size=3).map(tuple),
    ties=st.sampled_from(["half", "drop"]),
    folds=st.integers(1, 20),
    rows=st.lists(rows, max_size=6).map(tuple),
    left_out=st.dictionaries(names, st.integers(0, 99), max_size=4),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=snapshots)
def test_what_is_written_is_read(tmp_path: Path, made: Snapshot) -> None:
    path = tmp_path / "snapshot.jsonl"
    snapshot.write(made, path)
    assert snapshot.read(path) == made
    assert snapshot.read(path).hash == made.hash
    assert len(path.read_bytes().split(b"\n")) == len(made.rows) + 2
    assert [file.name for file in tmp_path.iterdir()] == ["snapshot.jsonl"]


@settings(max_examples=80, deadline=None)
@given(one=snapshots, other=snapshots)
def test_different_snapshots_have_different_hashes(one: Snapshot, other: Snapshot) -> None:
    assert (one.hash == other.hash) == (one == other)
    backwards = dict(reversed(list(one.left_out.items())))
    assert replace(one, left_out=backwards).hash == one.hash


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: b"\xff\xfe" + data,
        lambda data: data[:-30],
        lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
        lambda data: b"".join(sorted(data.splitlines(keepends=True)[1:])),
        lambda data: data + data.splitlines(keepends=True)[-1],
        lambda data: data.replace(b'"better_first":true', b'"better_first":false', 1),
        lambda data: data.replace(b'"folds":4', b'"folds":5', 1),
        lambda data: data.replace(b'"half"', b'"none"', 1),
    ],
)
def test_a_damaged_file_is_told(fill: Filled, sit: Sit, tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    store = fill(prompts=12, split="train")
    judge_all(store, sit)
    path = tmp_path / "snapshot.jsonl"
    snapshot.write(take(store), path)
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    assert path.read_bytes() != whole
    with pytest.raises(UserError, match="is damaged") as caught:
        snapshot.read(path)
    assert "start a new run" in caught.value.todo


def test_a_missing_or_a_newer_file_is_told(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.jsonl"
    with pytest.raises(UserError, match="cannot be read"):
        snapshot.read(path)
    store = fill(prompts=4, split="train")
    judge_all(store, sit)
    snapshot.write(take(store), path)
    first, *rest = path.read_text().splitlines()
    newer = {"v": snapshot.VERSION + 1}
    for header in (json.loads(first) | newer, newer | {"all": "is called otherwise"}):
        path.write_text("\n".join([json.dumps(header), *rest]))
        with pytest.raises(UserError, match="newer") as caught:
            snapshot.read(path)
        assert caught.value.why
        assert "Update rlhf-tui" in caught.value.todo


def test_a_snapshot_that_cannot_be_written_leaves_nothing(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill(prompts=4, split="train")
    judge_all(store, sit)
    with pytest.raises(UserError, match="cannot be written") as caught:
        snapshot.write(take(store), tmp_path / "absent" / "snapshot.jsonl")
    assert "disk" in caught.value.todo
    there = tmp_path / "folder"
    (there / "snapshot.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"):
        snapshot.write(take(store), there / "snapshot.jsonl")
    assert [file.name for file in there.iterdir()] == ["snapshot.jsonl"]


# Filling a store


def ask(store: Store, *asked: tuple[str, str]) -> None:
    """Prompts by text and split, with two completions each."""
    store.add_prompts((NewPrompt((Message("user", text),), "test", split) for text, split in asked), heldout_fraction=0)
    answer_all(store)


def answer_all(store: Store) -> None:
    model = store.add_model("m", "base")
    for prompt in store.prompts():
        texts = ("This one is long and good.", "Another one, short.")
        store.add_completions(NewCompletion(prompt.id, model, None, text, seed=k) for k, text in enumerate(texts))
        store.make_tasks(prompt.id)


def add(store: Store, pairs: list[int], *, backwards: bool = False) -> None:
    """Training prompts with so many pairs each."""
    model = store.add_model("m", "base")
    for number, count in list(enumerate(pairs))[:: -1 if backwards else 1]:
        asked = NewPrompt((Message("user", f"Question {number}?"),), "test", "train")
        store.add_prompts([asked], heldout_fraction=0.0)
        prompt = store.prompts()[-1]
        texts = [f"{'abcdefghijklmnopqrstuvwxyz'[k]}{number}" for k in range(2 * count)]
        store.add_completions(NewCompletion(prompt.id, model, None, text, seed=k) for k, text in enumerate(texts))
        store.make_tasks(prompt.id)
