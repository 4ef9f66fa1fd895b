"""What judgements amount to: pairs out of rankings, ratings and acceptances, facts, counts and the hash of a run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.judging import check_verdict
from rlhf_tui.preferences.reading import preferences
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`
Implied = set[tuple[int, int, int]]


def all_of(verdict: Verdict) -> Implied:
    """The pairs, each once: a tie has no direction, and counts in the order shown."""
    found = list(preferences(verdict))
    assert len(set(found)) == len(found)
    assert all(better != worse for better, worse, _ in found)
    return set(found)


# Verdicts to pairs, against a second, slower way


def dense(values: list[int]) -> tuple[int, ...]:
    """Ranks from 1 without gaps."""
    levels = sorted(set(values))
    return tuple(levels.index(value) + 1 for value in values)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6).map(dense))
def test_a_ranking_implies_a_pair_of_every_two(ranks: tuple[int, ...]) -> None:
    verdict = Verdict("tie" if max(ranks) == 1 else "ordered", ranks=ranks)
    check_verdict(verdict, "rank", len(ranks))
    expected: Implied = set()
    for one in range(len(ranks)):
        for other in range(len(ranks)):
            if ranks[one] < ranks[other]:
                expected.add((one, other, 1))
            elif ranks[one] == ranks[other] and one < other:
                expected.add((one, other, 0))
    assert all_of(verdict) == expected
    assert len(expected) == len(ranks) * (len(ranks) - 1) // 2


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple))
def test_ratings_imply_a_pair_of_every_two_stronger_when_far_apart(ratings: tuple[int, ...]) -> None:
    expected: Implied = set()
    for one in range(len(ratings)):
        for other in range(len(ratings)):
            if ratings[one] > ratings[other]:
                expected.add((one, other, 1 if ratings[one] == ratings[other] + 1 else 2))
            elif ratings[one] == ratings[other] and one < other:
                expected.add((one, other, 0))
    assert all_of(Verdict("rated", ratings=ratings)) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=6).map(tuple))
def test_acceptances_imply_that_every_accepted_one_beats_every_rejected_one(accepted: tuple[bool, ...]) -> None:
    good = [place for place, yes in enumerate(accepted) if yes]
    bad = [place for place, yes in enumerate(accepted) if not yes]
    expected = {(one, other, 1) for one in good for other in bad}
    assert all_of(Verdict("accepted", accepted=accepted)) == expected


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (prefer(0), {(0, 1, 1)}),
        (prefer(1), {(1, 0, 1)}),
        (prefer(1, 2), {(1, 0, 2)}),
        (tied(), {(0, 1, 0)}),
        (Verdict("both_bad"), set()),
        (Verdict("skip"), set()),
        (Verdict("discard"), set()),
    ],
)
def test_a_pair_implies_itself(verdict: Verdict, expected: Implied) -> None:
    assert all_of(verdict) == expected


# Judgements to pairs


@pytest.mark.parametrize(
    ("kind", "verdict", "pairs"),
    [
        ("rank", Verdict("ordered", ranks=(2, 1, 3, 4)), 6),
        ("rank", Verdict("ordered", ranks=(1, 1, 2, 2)), 6),
        ("rank", tied(4), 6),
        ("rank", Verdict("both_bad"), 0),
        ("rate", Verdict("rated", ratings=(1, 1, 5, 4)), 6),
        ("accept", Verdict("accepted", accepted=(True, False, False, False)), 3),
        ("accept", Verdict("accepted", accepted=(True,) * 4), 0),
    ],
)
def test_candidates_that_were_judged_together_share_the_weight(
    fill: Filled, sit: Sit, kind: str, verdict: Verdict, pairs: int
) -> None:
    store = fill(prompts=1, per_prompt=4)
    store.make_tasks(1, kind=kind, size=4)
    shown = sit(store).judge(verdict, store.database.number("SELECT id FROM task WHERE kind = ?", kind))
    found = store.pairs()
    assert len(found) == pairs
    assert {pair.weight for pair in found} <= {1 / 3}
    implied = {
        (shown.shown[better].id, shown.shown[worse].id, strength) for better, worse, strength in preferences(verdict)
    }
    assert {(pair.chosen.id, pair.rejected.id, pair.strength) for pair in found} == implied
    assert all(pair.tie == (pair.strength == 0) for pair in found)


@pytest.mark.parametrize("verdict", [Verdict("accepted", accepted=(True,)), Verdict("accepted", accepted=(False,))])
def test_one_candidate_alone_is_a_judgement_without_pairs(store: Store, verdict: Verdict) -> None:
    """From a file (unpaired data): thumbs up or down for a single answer."""
    rater = store.add_rater("file", kind="import")
    label = ImportedLabel(NewPrompt((Message("user", "q"),), "file"), (ImportedCandidate("a"),), "accept", verdict)
    with store.transaction():
        assert store.import_judgement(label, rater_id=rater.id, heldout_fraction=0.2) == "added"
        assert store.import_judgement(label, rater_id=rater.id, heldout_fraction=0.2) == "duplicate"
    assert store.pairs() == []
    assert (store.counts().judgements, store.counts().acceptances, store.counts().pairs_waiting) == (1, 1, 0)
    (judged,) = store.judgements()
    assert judged.verdict == verdict
    assert [one.text for one in judged.shown] == ["a"]


def test_one_candidate_alone_can_be_judged_on_screen_and_again(store: Store, sit: Sit) -> None:
    rater = store.add_rater("file", kind="import")
    label = ImportedLabel(
        NewPrompt((Message("user", "q"),), "file"),
        (ImportedCandidate("a"),),
        "accept",
        Verdict("accepted", accepted=(True,)),
    )
    with store.transaction():
        store.import_judgement(label, rater_id=rater.id, heldout_fraction=0.2)
    me = sit(store, kind="accept", size=4)
    assert me.queue.remaining == 1
    me.judge(Verdict("accepted", accepted=(False,)))
    again = store.present(1, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat", selection="repeat")
    store.judge(again.id, Verdict("accepted", accepted=(True,)), latency_ms=1)
    assert len(store.facts()) == 3
    assert store.pairs() == []


def test_only_ordered_and_ties_are_pairs(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=6)
    me = sit(store)
    for outcome in ("tie", "both_bad", "skip", "discard", "ordered"):
        me.answer(outcome)
    assert [(pair.tie, pair.strength) for pair in store.pairs()] == [(True, 0), (False, 1)]
    counts = store.counts()
    assert (counts.judgements, counts.pairs, counts.ties, counts.both_bad) == (3, 1, 1, 1)
    assert (counts.skipped, counts.discarded, counts.raters) == (1, 1, 1)
    assert counts.pairs_waiting == 3  # skipped, discarded (by one rater), never seen
    assert store.counts(me.rater).pairs_waiting == 2


def test_repeats_are_counted_and_trained_on_by_nobody(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer(task_id=1)
    before = store.pairs(), store.snapshot_hash()
    again = store.present(1, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat", selection="repeat")
    store.judge(again.id, tied(), latency_ms=1)
    assert (store.pairs(), store.snapshot_hash()) == before
    counts = store.counts()
    assert (counts.repeats, counts.judgements, counts.ties) == (1, 1, 0)
    assert [fact.purpose for fact in store.facts()] == ["label", "repeat"]
    assert [judged.purpose for judged in store.judgements()] == ["label", "repeat"]


def test_a_repeat_that_was_skipped_or_discarded_is_none(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    for task, verdict in enumerate((tied(), Verdict("both_bad"), Verdict("skip"), Verdict("discard")), start=1):
        me.answer(task_id=task)
        again = store.present(task, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat")
        store.judge(again.id, verdict, latency_ms=1)
    counts = store.counts()
    assert (counts.repeats, counts.judgements, counts.skipped, counts.discarded) == (2, 4, 0, 0)
    assert store.counts(me.rater).repeats == 2


def test_waiting_pairs_are_the_first_of_every_prompt_then_the_second_ones(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=5, per_prompt=6)
    me = sit(store)
    done = me.answer()
    waiting = store.waiting_pairs(100)
    assert len(waiting) == store.counts().pairs_waiting == 14
    assert {one.id for one in done.shown} not in [{one.id for one in sides} for _, sides in waiting]
    prompts = [prompt.id for prompt, _ in waiting]
    assert len(set(prompts[:4])) == 4
    assert done.prompt.id not in prompts[:4]
    assert set(prompts[4:9]) == set(prompts[9:]) == {1, 2, 3, 4, 5}
    assert store.waiting_pairs(3) == waiting[:3]


def test_heldout_prompts_never_reach_the_training_pairs(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=40)
    me = sit(store, repeat_share=0.0)
    while me.queue.next() is not None:
        me.answer()
    shown = store.reopen(store.history(me.rater)[0].judgement_id)
    store.edit(shown.shown[0].id, "by hand", rater_id=me.rater, session_id=me.session)
    heldout = {prompt.id for prompt in store.prompts("heldout")}
    assert heldout
    assert {pair.prompt.id for pair in store.pairs("heldout")} == heldout
    assert not heldout & {pair.prompt.id for pair in store.pairs("train")}
    assert len(store.pairs("train")) + len(store.pairs("heldout")) == len(store.pairs()) == 41
    for read in (store.pairs, lambda split: store.judgements(split=split)):
        with pytest.raises(ValueError, match="split"):
            read("test")


def test_facts_and_judgements_of_one_rater_are_that_raters(fill: Filled, sit: Sit) -> None:
    store = fill()
    me, you = sit(store), sit(store, "you")
    me.answer(task_id=1)
    you.answer("tie", task_id=1)
    you.answer("skip", task_id=2)
    assert [(fact.rater, fact.task_id) for fact in store.facts()] == [("me", 1), ("you", 1), ("you", 2)]
    assert [fact.task_id for fact in store.facts(you.rater)] == [1, 2]
    assert [judged.rater.handle for judged in store.judgements(you.rater)] == ["you", "you"]
    assert [judged.id for judged in store.judgements()] == [fact.judgement_id for fact in store.facts()]
    assert (store.counts().judgements, store.counts(me.rater).judgements, store.counts().raters) == (2, 1, 2)


def test_counts_tell_the_kinds_apart(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=2, per_prompt=4)
    for prompt in store.prompts():
        for kind in ("rank", "rate", "accept"):
            store.make_tasks(prompt.id, kind=kind, size=4)
    me = sit(store)
    said = {
        "rank": Verdict("ordered", ranks=(1, 2, 3, 4)),
        "rate": Verdict("rated", ratings=(1, 2, 3, 4)),
        "accept": Verdict("accepted", accepted=(True,) * 4),
    }
    for kind, verdict in said.items():
        for row in store.database.rows("SELECT id FROM task WHERE kind = ? ORDER BY id", kind):
            me.judge(verdict if row["id"] % 2 else Verdict("skip"), row["id"])
    me.answer("tie", task_id=1)
    counts = store.counts()
    assert (counts.rankings, counts.ratings, counts.acceptances, counts.ties, counts.pairs) == (1, 1, 1, 1, 0)
    assert (counts.judgements, counts.skipped, counts.pairs_waiting) == (4, 3, 3)


# The hash a run records


def test_the_snapshot_hash_follows_what_holds(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=6)
    me = sit(store)
    empty = store.snapshot_hash()
    me.answer()
    one = store.snapshot_hash()
    me.answer("skip")
    me.answer("discard")
    assert store.snapshot_hash() == one != empty
    me.answer("tie")
    two = store.snapshot_hash()
    assert two != one
    store.undo(me.rater)
    assert store.snapshot_hash() == one
    store.redo(me.rater)
    assert store.snapshot_hash() == two


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("pair", prefer(0), prefer(1)),
        ("pair", prefer(0), prefer(0, 2)),
        ("pair", tied(), Verdict("both_bad")),
        ("rank", Verdict("ordered", ranks=(1, 2, 3)), Verdict("ordered", ranks=(1, 3, 2))),
        ("rate", Verdict("rated", ratings=(1, 2, 3)), Verdict("rated", ratings=(1, 2, 4))),
        ("accept", Verdict("accepted", accepted=(True, False, True)), Verdict("accepted", accepted=(True, True, True))),
    ],
)
def test_the_snapshot_hash_knows_every_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, one: Verdict, other: Verdict
) -> None:
    """Two projects that differ in nothing but one mark of one judgement."""

    def snapshot(name: str, verdict: Verdict) -> str:
        monkeypatch.setattr(uuid, "uuid4", Counted(range(100)))  # the same uids in both
        with Store.create(tmp_path / name, name="x", seed=1) as store:
            store.add_prompts([NewPrompt((Message("user", "q"),), "x")], heldout_fraction=0.2)
            model = store.add_model("m", "base")
            store.add_completions(NewCompletion(1, model, None, text) for text in ("abc" if kind != "pair" else "ab"))
            store.make_tasks(1, kind=kind, size=3)
            rater = store.add_rater("me")
            session = store.start_session(rater.id, columns=80, rows=24)
            shown = store.present(1, rater_id=rater.id, session_id=session, layout="x")
            store.judge(shown.id, verdict, latency_ms=1)
            return store.snapshot_hash()

    assert snapshot("one", one) == snapshot("same", one) != snapshot("other", other)


class Counted:
    """Random uids that are not random."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = iter(numbers)

    def __call__(self) -> uuid.UUID:
        return uuid.UUID(int=next(self._numbers))
