"""What comes next: fair, never twice, back after undo, with repeats, gold and a share chosen by the reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Offer
from rlhf_tui.preferences.records import DECIDED, ImportedCandidate, ImportedLabel, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Presentation, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`

ALONE = {"repeat_share": 0.0}  # labels only


def add(store: Store, strata: Mapping[str, int], *, per_prompt: int = 2, tasks: bool = True) -> None:
    """Prompts tagged by stratum, with their completions, and (if wanted) their pairs."""
    model = store.add_model("m", "base")
    with store.transaction():
        known = {prompt.id for prompt in store.prompts()}
        rows = [
            NewPrompt((Message("user", f"{tag} {number + len(known)}?"),), "test", None, (tag,))
            for tag, size in strata.items()
            for number in range(size)
        ]
        store.add_prompts(rows, heldout_fraction=0.2)
        for prompt in store.prompts():
            if prompt.id not in known:
                store.add_completions(
                    NewCompletion(prompt.id, model, None, f"{prompt.text} answer {k}", seed=k)
                    for k in range(per_prompt)
                )
                if tasks:
                    store.make_tasks(prompt.id)


def give(me: Any, verdict: Verdict | None = None) -> tuple[Offer, Presentation] | None:
    """Answer what the queue offers and say what it was; None when nothing is left."""
    offer = me.queue.next()
    if offer is None:
        return None
    assert offer == me.queue.next()  # the same again until an answer
    shown = me.store.present(
        offer.task_id,
        rater_id=me.rater,
        session_id=me.session,
        layout="x",
        purpose=offer.purpose,
        selection=offer.selection,
    )
    kind = {"pair": prefer(0), "rank": tied(len(shown.shown))}.get(shown.kind)
    if kind is None:
        kind = Verdict("rated", ratings=(3,) * len(shown.shown))
    me.store.judge(shown.id, verdict or kind, latency_ms=1)
    me.queue.refresh(offer.task_id, offer.purpose)
    return offer, shown


def drain(me: Any, most: int = 1000) -> list[tuple[Offer, Presentation]]:
    """Answer everything there is."""
    given: list[tuple[Offer, Presentation]] = []
    while len(given) < most and (one := give(me)) is not None:
        given.append(one)
    return given


# Random within strata


def test_every_pair_comes_once_in_a_stable_random_order(fill: Filled, sit: Sit) -> None:
    me = sit(fill(prompts=30), **ALONE)
    order = []
    for left in range(30, 0, -1):
        assert me.queue.remaining == left
        given = give(me)
        assert given is not None
        order.append(given[0].task_id)
    assert me.queue.next() is None
    assert me.queue.remaining == 0
    assert sorted(order) == list(range(1, 31)) != order


def test_every_prompt_comes_once_before_any_comes_twice(store: Store, sit: Sit) -> None:
    add(store, {"code": 6, "chat": 5}, per_prompt=6)
    prompts = [shown.prompt.id for _, shown in drain(sit(store, **ALONE))]
    assert len(prompts) == 33
    for start in (0, 11, 22):
        assert len(set(prompts[start : start + 11])) == 11


@pytest.mark.parametrize("sizes", [{"code": 30, "chat": 10}, {"a": 1, "b": 7, "c": 20}, {"a": 12, "b": 12}])
def test_strata_take_turns_in_proportion_to_their_size(store: Store, sit: Sit, sizes: dict[str, int]) -> None:
    add(store, sizes)
    tags = [shown.prompt.tags[0] for _, shown in drain(sit(store, **ALONE))]
    assert len(tags) == sum(sizes.values())
    for taken in range(len(tags) + 1):
        for tag, size in sizes.items():
            fair = taken * size / len(tags)
            assert abs(tags[:taken].count(tag) - fair) <= 1 + len(sizes) / 2


def test_prompts_without_a_tag_are_one_stratum_by_source(store: Store, sit: Sit) -> None:
    model = store.add_model("m", "base")
    for source, size in (("file", 12), ("hub", 4)):
        rows = [NewPrompt((Message("user", f"{source} {k}"),), source) for k in range(size)]
        store.add_prompts(rows, heldout_fraction=0.2)
    for prompt in store.prompts():
        store.add_completions(NewCompletion(prompt.id, model, None, text) for text in "ab")
        store.make_tasks(prompt.id)
    sources = [shown.prompt.source for _, shown in drain(sit(store, **ALONE))]
    assert 1 <= sources[:8].count("hub") <= 3


def test_held_out_prompts_are_judged_too(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=20)
    heldout = {prompt.id for prompt in store.prompts("heldout")}
    assert heldout
    assert heldout <= {shown.prompt.id for _, shown in drain(sit(store, **ALONE))}


def test_the_order_is_the_projects_own_and_any_machine_draws_it_again(tmp_path: Path, sit: Sit) -> None:
    def order(name: str, seed: int) -> list[tuple[str, str, str]]:
        with Store.create(tmp_path / name, name=name, seed=seed) as store:
            add(store, {"code": 25, "chat": 15})
            store.add_rater("me", uid="me")
            return [
                (offer.purpose, shown.prompt.text, shown.shown[0].text)
                for offer, shown in drain(sit(store, repeat_from=10))
            ]

    assert order("a", 1) == order("b", 1)
    assert [prompt for _, prompt, _ in order("c", 2)] != [prompt for _, prompt, _ in order("d", 1)]


def test_what_nobody_has_decided_comes_first(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=10)
    me = sit(store)
    taken = {me.answer().task_id for _ in range(5)}
    skipped = me.answer("skip").task_id
    you = sit(store, "you")
    order = [you.answer().task_id for _ in range(10)]
    assert set(order[5:]) == taken
    assert skipped in order[:5]  # a skip decides nothing
    assert store.counts().pairs_waiting == 0
    assert store.counts(me.rater).pairs_waiting == 5


def test_two_people_at_once_begin_with_different_pairs(fill: Filled, sit: Sit) -> None:
    """Each in a program of their own: what one decides moves back in the other's queue."""
    store = fill(prompts=20)
    with Store.open(store.database.path) as elsewhere:
        me, you = sit(store), sit(elsewhere, "you")
        mine, yours = [], []
        for _ in range(10):
            mine.append(me.answer().task_id)
            yours.append(you.answer().task_id)
    assert not set(mine) & set(yours)


def test_an_answer_taken_back_is_no_decision_of_others(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=10)
    me = sit(store)
    tasks = [me.answer().task_id for _ in range(5)]
    store.undo(me.rater)
    store.undo(me.rater)
    you = sit(store, "you")
    order = [you.answer().task_id for _ in range(10)]
    assert set(order[7:]) == set(tasks[:3])


# Skip and discard


def test_what_was_skipped_rests_and_comes_back_last_in_the_next_sitting(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=6)
    me = sit(store)
    skipped = {me.answer("skip").task_id, me.answer("skip").task_id}
    me.answer()
    assert me.queue.remaining == 3
    drained = drain(me, 2)
    assert me.queue.remaining == 1
    assert not skipped & {offer.task_id for offer, _ in drained}
    later = sit(store)
    assert later.queue.remaining == 3
    order = [later.answer().task_id for _ in range(3)]
    assert set(order[1:]) == skipped
    assert store.counts(me.rater).skipped == 0
    assert sit(store).queue.next() is None


def test_what_was_skipped_again_comes_back_again(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=2)
    first = sit(store)
    for _ in range(2):
        first.answer("skip")
    for _ in range(3):
        me = sit(store)
        assert me.queue.remaining == 2
        for _ in range(2):
            me.answer("skip")
        assert me.queue.next() is None
        assert me.queue.remaining == 0


def test_what_was_discarded_never_comes_back(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=4)
    me = sit(store)
    discarded = me.answer("discard").task_id
    assert me.queue.remaining == 3
    for _ in range(2):
        later = sit(store)
        assert later.queue.remaining == 3
    offered = [offer.task_id for offer, _ in drain(later)]
    assert sorted([*offered, discarded]) == [1, 2, 3, 4]
    assert store.counts(me.rater).discarded == 1
    assert store.counts(me.rater).pairs_waiting == 0
    assert sit(store, "you").queue.remaining == 4  # it is one rater's word


# Undo


def test_undo_puts_a_task_back_first(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=12)
    me = sit(store, **ALONE)
    order = [offer.task_id for offer, _ in drain(me, 6)]
    for expected in (order[-1], order[-2]):
        taken = store.undo(me.rater)
        assert taken is not None
        assert taken.task_id == expected
        me.queue.refresh(taken.task_id, taken.purpose)
    assert me.queue.remaining == 8
    assert {give(me)[0].task_id, give(me)[0].task_id} == set(order[-2:])  # type: ignore[index]
    assert me.queue.remaining == 6
    assert len(drain(me)) == 6


def test_undo_and_redo_any_number_of_times_offer_nothing_twice(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=5)
    me = sit(store, **ALONE)
    drain(me, 3)
    for _ in range(4):
        for step in (store.undo, store.undo, store.redo, store.redo):
            shown = step(me.rater)
            assert shown is not None
            me.queue.refresh(shown.task_id, shown.purpose)
    assert me.queue.remaining == 2
    assert len(drain(me)) == 2
    assert len({fact.task_id for fact in me.queue.facts}) == len(me.queue.facts) == 5


def test_an_edit_taken_back_is_not_asked_about(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=3)
    me = sit(store, **ALONE)
    shown = me.show()
    fact = store.edit(shown.shown[0].id, "better", rater_id=me.rater, session_id=me.session)
    me.queue.refresh(fact.task_id, fact.purpose)
    assert me.queue.remaining == 3
    taken = store.undo(me.rater)
    assert taken is not None
    me.queue.refresh(taken.task_id, taken.purpose)
    assert me.queue.remaining == 3
    assert fact.task_id not in {offer.task_id for offer, _ in drain(me)}
    assert sit(store).queue.next() is None


# Repeats


def test_repeats_come_from_the_thirtieth_on_swapped_apart_and_once(store: Store, sit: Sit) -> None:
    add(store, {"code": 80, "chat": 41})
    store.add_rater("me", uid="me")
    given = drain(sit(store))
    places = [place for place, (offer, _) in enumerate(given) if offer.purpose == "repeat"]
    assert len(given) - len(places) == 121
    assert min(places) >= 30
    assert len(places) in (9, 10, 11)  # of 130 answers 100 come after the thirtieth
    assert len({given[place][0].task_id for place in places}) == len(places)
    assert all(given[place][0].selection == "repeat" for place in places)
    first = {offer.task_id: (place, shown) for place, (offer, shown) in enumerate(given) if offer.purpose == "label"}
    for place in places:
        offer, shown = given[place]
        before, then = first[offer.task_id]
        assert place - before >= 20
        assert shown.shown == then.shown[::-1]
        assert shown.purpose == "repeat"
    assert store.counts().repeats == len(places)
    assert store.counts().judgements == len(store.pairs()) == 121


@pytest.mark.parametrize(
    ("rules", "fewest", "most"),
    [
        ({"repeat_share": 0.0}, 0, 0),
        ({"repeat_share": 0.2}, 6, 8),
        ({"repeat_share": 0.1, "repeat_from": 45}, 2, 4),
        ({"repeat_share": 0.1, "repeat_gap": 70}, 0, 1),
    ],
)
def test_the_rules_say_how_many_repeats(
    store: Store, sit: Sit, rules: dict[str, float], fewest: int, most: int
) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    repeats = [offer for offer, _ in drain(sit(store, **rules)) if offer.purpose == "repeat"]
    assert fewest <= len(repeats) <= most


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_the_share_of_repeats_is_the_one_that_was_asked_for(store: Store, sit: Sit, share: float) -> None:
    add(store, {"code": 90})
    store.add_rater("me", uid="me")
    given = [offer.purpose for offer, _ in drain(sit(store, repeat_share=share, repeat_from=5, repeat_gap=3))][5:]
    assert given.count("repeat") / len(given) == pytest.approx(share, abs=0.025)


def test_a_repeat_asks_only_for_what_was_decided_on_screen(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    me = sit(store, repeat_share=0.5, repeat_from=5, repeat_gap=3)
    imported = set()
    for task in range(1, 21):
        prompt = store.prompts()[task - 1]
        texts = [one.text for one in store.completions(prompt.id)]
        label = ImportedLabel(
            NewPrompt(prompt.messages, "file"), tuple(map(ImportedCandidate, texts)), "pair", prefer(0)
        )
        with store.transaction():
            assert store.import_judgement(label, rater_id=me.rater, heldout_fraction=0.2) == "added"
        imported.add(task)
    me = sit(store, repeat_share=0.5, repeat_from=5, repeat_gap=3)
    assert me.queue.remaining == 40
    undecided = set()
    for number, verdict in enumerate([Verdict("skip"), Verdict("discard"), None] * 5):
        given = give(me, verdict)
        assert given is not None
        if number % 3 < 2 and given[0].purpose == "label":
            undecided.add(given[0].task_id)
    edited = store.edit(1, "better", rater_id=me.rater, session_id=me.session)
    me.queue.refresh(edited.task_id, edited.purpose)
    rest = drain(me)
    repeated = {offer.task_id for offer, _ in rest if offer.purpose == "repeat"}
    assert len(repeated) > 10
    assert not repeated & (imported | undecided | {edited.task_id})


def test_a_skipped_repeat_is_not_offered_again_in_this_sitting(store: Store, sit: Sit) -> None:
    add(store, {"code": 40})
    store.add_rater("me", uid="me")
    me = sit(store)
    skipped: set[int] = set()
    while (offer := me.queue.next()) is not None:
        assert offer.purpose == "label" or offer.task_id not in skipped
        give(me, Verdict("skip") if offer.purpose == "repeat" else None)
        if offer.purpose == "repeat":
            skipped.add(offer.task_id)
    assert skipped
    assert len([fact for fact in me.queue.facts if fact.verdict.outcome in DECIDED]) == 40


def test_who_skips_a_repeat_is_not_asked_for_another_at_once(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    me = sit(store)
    purposes = []
    while (offer := me.queue.next()) is not None:
        give(me, Verdict("skip") if offer.purpose == "repeat" else None)
        purposes.append(offer.purpose)
    assert "repeat" in purposes
    assert purposes.count("repeat") <= 5  # a tenth of what comes after the thirtieth, and a little


# Gold


def test_known_answers_are_repeated_first(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    me = sit(store)
    drain(me, 30)
    chosen = me.queue.facts[7]
    store.mark_gold(chosen.judgement_id)
    later = sit(store)
    repeats = [offer for offer, _ in drain(later) if offer.purpose == "repeat"]
    assert repeats[0].task_id == chosen.task_id


def test_an_answer_marked_in_this_sitting_counts_at_once(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    me = sit(store)
    drain(me, 30)
    for place in (3, 5, 7):
        chosen = me.queue.facts[place]
        store.mark_gold(chosen.judgement_id)
    marked = set(store.gold())
    repeats = [offer.task_id for offer, _ in drain(me) if offer.purpose == "repeat"]
    assert set(repeats[:3]) == marked


def test_gold_is_for_raters_who_have_not_seen_it_one_in_ten(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    for handle in ("me", "you"):
        store.add_rater(handle, uid=handle)
    me = sit(store)
    drain(me, 20)
    for fact in me.queue.facts:
        store.mark_gold(fact.judgement_id)
    assert not [offer for offer, _ in drain(sit(store), 10) if offer.selection == "gold"]
    you = sit(store, "you", **ALONE)
    given = [offer for offer, _ in drain(you, 40)]
    gold = [offer for offer in given if offer.selection == "gold"]
    assert len(gold) == 4
    assert {offer.purpose for offer in gold} == {"label"}
    assert {offer.task_id for offer in gold} <= set(store.gold())
    for start in range(0, 40, 10):
        assert [offer.selection for offer in given[start : start + 10]].count("gold") == 1
    recorded = [fact.selection for fact in store.facts(you.rater)]
    assert recorded == [offer.selection for offer in given]


# The reward model's choice


def scored(store: Store) -> dict[int, float]:
    """Scores with a different gap for every task: task t has the gap t, the completion with the larger id better."""
    scores: dict[int, float] = {}
    for row in store.database.rows("SELECT task_id, MIN(completion_id), MAX(completion_id) FROM task_item GROUP BY 1"):
        task, low, high = row
        scores |= {low: 0.0, high: float(task)}
    store.set_scores("reward-1", scores)
    return scores


def test_the_least_sure_pairs_come_in_their_share_and_the_random_share_stays(store: Store, sit: Sit) -> None:
    add(store, {"code": 80})
    store.add_rater("me", uid="me")
    scored(store)
    given = [offer for offer, _ in drain(sit(store, active_share=0.5, **ALONE), 60)]
    kinds = [offer.selection for offer in given]
    assert set(kinds) == {"active", "random"}
    assert 15 <= kinds.count("active") <= 45  # 30 ± 4 standard deviations
    left = set(range(1, 81))
    for offer in given:
        if offer.selection == "active":
            assert offer.task_id == min(left)
        left.remove(offer.task_id)


def test_without_scores_or_without_a_share_everything_is_random(store: Store, sit: Sit) -> None:
    add(store, {"code": 12})
    unscored = [offer.selection for offer, _ in drain(sit(store, active_share=0.7, **ALONE))]
    scored(store)
    unasked = [offer.selection for offer, _ in drain(sit(store, "you", **ALONE))]
    assert set(unscored) == set(unasked) == {"random"}


def test_the_random_share_never_vanishes(store: Store, sit: Sit) -> None:
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    scored(store)
    kinds = [offer.selection for offer, _ in drain(sit(store, active_share=1.0, **ALONE))]
    assert 6 <= kinds.count("random") < 60


def test_scores_that_come_during_a_sitting_are_used(store: Store, sit: Sit) -> None:
    """The reward model is trained by another program while people label."""
    add(store, {"code": 60})
    store.add_rater("me", uid="me")
    me = sit(store, active_share=0.7, **ALONE)
    drain(me, 5)
    with Store.open(store.database.path) as elsewhere:
        scored(elsewhere)
    assert "active" in [offer.selection for offer, _ in drain(me, 30)]


def test_a_presentation_says_why_it_was_chosen_and_what_was_expected(store: Store, sit: Sit) -> None:
    add(store, {"code": 40})
    store.add_rater("me", uid="me")
    scores = scored(store)
    me = sit(store, active_share=0.5, repeat_from=5, repeat_gap=3, repeat_share=0.25)
    given = drain(me, 40)
    facts = store.facts(me.rater)
    assert [fact.selection for fact in facts] == [offer.selection for offer, _ in given]
    assert {fact.selection for fact in facts} == {"random", "active", "repeat"}
    for fact, (_, shown) in zip(facts, given, strict=True):
        first, second = (scores[one.id] for one in shown.shown)
        assert fact.predicted == pytest.approx(1 / (1 + math.exp(second - first)))
        assert fact.shown == tuple(one.id for one in shown.shown)


def test_expectations_of_extreme_scores_stay_probabilities(store: Store, sit: Sit) -> None:
    add(store, {"code": 2})
    store.set_scores("r", {1: 1e6, 2: -1e6, 3: 0.25})
    me = sit(store)
    for task in (1, 2):
        me.answer(task_id=task)
    facts = {fact.task_id: fact for fact in store.facts()}
    assert facts[1].predicted in (0.0, 1.0)
    assert (facts[1].predicted == 1.0) == (facts[1].shown[0] == 1)
    assert facts[2].predicted is None  # one of the two has no score


# Other kinds, and grouping while labelling


@pytest.mark.parametrize(("kind", "size"), [("pair", 2), ("rank", 3), ("rate", 2), ("accept", 6)])
def test_completions_that_nothing_offers_yet_are_grouped(store: Store, sit: Sit, kind: str, size: int) -> None:
    add(store, {"code": 5}, per_prompt=6, tasks=False)
    me = sit(store, kind=kind, size=size, **ALONE)
    offered = []
    while (offer := me.queue.next()) is not None:
        shown = me.show()
        assert (shown.kind, len(shown.shown)) == (kind, size)
        offered.append(offer.task_id)
        me.judge(Verdict("skip"))
    assert len(offered) == len(set(offered)) == 5 * (6 // size)


def test_kinds_have_queues_of_their_own(store: Store, sit: Sit) -> None:
    add(store, {"code": 8}, per_prompt=4)
    pairs, ranks = sit(store, **ALONE), sit(store, kind="rank", size=4, **ALONE)
    assert {shown.kind for _, shown in drain(ranks)} == {"rank"}
    assert pairs.queue.remaining == 16
    assert {shown.kind for _, shown in drain(pairs)} == {"pair"}


def test_a_group_that_could_not_be_stored_is_made_later(
    store: Store, sit: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, {"code": 5}, tasks=False)
    me = sit(store, **ALONE)

    def full(*_: object, **__: object) -> int:
        raise UserError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "make_tasks", full)
        with pytest.raises(UserError, match="full"):
            me.queue.next()
    assert me.queue.next() is not None
    assert me.queue.remaining == 5


def test_remaining_counts_what_is_not_grouped_yet(store: Store, sit: Sit) -> None:
    add(store, {"code": 25})
    add(store, {"chat": 40}, tasks=False)
    me = sit(store, **ALONE)
    me.queue.next()
    assert me.queue.remaining == 65
    assert len(drain(me)) == 65
    assert me.queue.remaining == 0


def test_remaining_does_not_promise_what_is_too_alike_or_empty(store: Store, sit: Sit) -> None:
    add(store, {"code": 2}, per_prompt=0)
    model = store.add_model("m", "base")
    for prompt, texts in zip(store.prompts(), (["same", "same "], ["", " "]), strict=True):
        store.add_completions(NewCompletion(prompt.id, model, None, text, seed=k) for k, text in enumerate(texts))
    me = sit(store, **ALONE)
    assert me.queue.next() is None
    assert me.queue.remaining == 0
    assert store.counts().near_duplicates == 1


# Two programs


def test_what_another_program_adds_is_offered(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=2)
    me = sit(store, **ALONE)
    assert len(drain(me)) == 2
    with Store.open(store.database.path) as elsewhere:
        add(elsewhere, {"new": 3})
        assert len(drain(me)) == 3
        add(elsewhere, {"newer": 2}, tasks=False)
        assert len(drain(me)) == 2
    assert me.queue.remaining == 0


def test_what_another_program_adds_to_an_open_queue_is_offered_once(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=30)
    me = sit(store, **ALONE)
    given = drain(me, 3)
    with Store.open(store.database.path) as elsewhere:
        add(elsewhere, {"new": 10})
        me.queue.next()
        assert me.queue.remaining == 37
        given += drain(me)
    assert len({offer.task_id for offer, _ in given}) == len(given) == 40


def test_answers_of_the_same_rater_elsewhere_are_noticed(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=8)
    me = sit(store, **ALONE)
    order = [offer.task_id for offer, _ in drain(me, 2)]
    with Store.open(store.database.path) as elsewhere:
        also_me = sit(elsewhere, **ALONE)
        there = [offer.task_id for offer, _ in drain(also_me, 3)]
        rest = [offer.task_id for offer, _ in drain(me)]
        assert sorted([*order, *there, *rest]) == list(range(1, 9))
        assert len(me.queue.facts) == 8
        assert also_me.queue.next() is None
        taken = elsewhere.undo(also_me.rater)
        assert taken is not None
        offer = me.queue.next()
        assert offer is not None
        assert offer.task_id == taken.task_id == rest[-1]
        elsewhere.redo(also_me.rater)
        assert me.queue.next() is None
        assert me.queue.remaining == 0


@pytest.mark.parametrize("outcome", ["skip", "discard"])
def test_what_others_skip_or_discard_elsewhere_is_not_decided(fill: Filled, sit: Sit, outcome: str) -> None:
    """`expected` is the order of somebody who was not disturbed and has taken everything back."""
    store = fill(prompts=10)
    expected = [offer.task_id for offer, _ in drain(sit(store, "them", **ALONE))]
    assert all(store.undo(store.add_rater("them").id) for _ in expected)
    me = sit(store, **ALONE)
    with Store.open(store.database.path) as elsewhere:
        you = sit(elsewhere, "you", **ALONE)
        for task in expected[:3]:
            you.answer(outcome, task_id=task)
        assert [offer.task_id for offer, _ in drain(me)] == expected


def test_what_others_take_back_or_discard_after_all_elsewhere_comes_first_again(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=10)
    expected = [offer.task_id for offer, _ in drain(sit(store, "them", **ALONE))]
    assert all(store.undo(store.add_rater("them").id) for _ in expected)
    me = sit(store, **ALONE)
    with Store.open(store.database.path) as elsewhere:
        you = sit(elsewhere, "you", **ALONE)
        for task in expected[:3]:
            you.answer(task_id=task)
        me.queue.catch_up()
        offer = me.queue.next()
        assert offer is not None
        assert offer.task_id == expected[3]
        elsewhere.undo(you.rater)
        you.answer("discard", task_id=expected[1])
        assert [offer.task_id for offer, _ in drain(me)] == [*expected[1:], expected[0]]


@pytest.mark.parametrize("fails", range(1, 39))
def test_an_error_while_catching_up_loses_nothing(
    fill: Filled, sit: Sit, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Another program answers, takes back, adds texts and scores; the `fails`th look at the file is refused."""
    store = fill(prompts=8)
    store.set_scores("reward-1", {1: 0.0, 2: 1.0})
    me = sit(store, active_share=0.5, **ALONE)
    drain(me, 4)
    with Store.open(store.database.path) as elsewhere:
        there, you = sit(elsewhere, **ALONE), sit(elsewhere, "you", **ALONE)
        elsewhere.undo(there.rater)
        elsewhere.undo(there.rater)
        drain(there, 3)
        drain(you, 2)
        add(elsewhere, {"new": 2})
        add(elsewhere, {"newer": 2}, tasks=False)
        scored(elsewhere)
    looked, rows = [0], store.database.rows

    def refused(*args: Any) -> Any:
        looked[0] += 1
        if looked[0] == fails:
            raise UserError("The file is locked.")
        return rows(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "rows", refused)
        with suppress(UserError):
            me.queue.next()
    assert looked[0] >= min(fails, 30)  # it is 38 now; of the last ones there may be fewer one day
    me.queue.next()
    fresh = sit(store, active_share=0.5, **ALONE)
    fresh.queue.next()
    assert me.queue.remaining == fresh.queue.remaining
    assert sorted(me.queue.facts, key=lambda fact: fact.created_at) == store.facts(me.rater)
    taken_back = {task for task, key in me.queue._pending.items() if key[0] == -1}
    assert {task: key[1] for task, key in me.queue._pending.items() if task not in taken_back} == {
        task: key[1] for task, key in fresh.queue._pending.items() if task not in taken_back
    }
    assert me.queue._scores == fresh.queue._scores == store.scores()
    assert len(me.queue._gaps) == len(fresh.queue._gaps)


def test_scores_that_are_cleared_during_a_sitting_are_forgotten(store: Store, sit: Sit) -> None:
    add(store, {"code": 40})
    scored(store)
    me = sit(store, active_share=0.7, **ALONE)
    assert "active" in [offer.selection for offer, _ in drain(me, 15)]
    with Store.open(store.database.path) as elsewhere:
        elsewhere.set_scores("reward-2", {})
    assert {offer.selection for offer, _ in drain(me)} == {"random"}


def test_facts_stay_in_the_order_of_time_when_they_come_from_elsewhere(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=12)
    me = sit(store, **ALONE)
    with Store.open(store.database.path) as elsewhere:
        drain(sit(elsewhere, **ALONE), 8)
        me.queue.next()
        assert me.queue.facts == store.facts(me.rater)


# Everything at once

STEPS = ["ordered", "tie", "skip", "discard", "undo", "redo", "sit down again", "elsewhere", "add", "somebody else"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(STEPS), max_size=25))
def test_remaining_is_always_what_can_still_be_asked(
    tmp_path_factory: pytest.TempPathFactory, sit: Sit, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("queue") / "p.db"
    with Store.create(path, name="x", seed=1) as store, Store.open(path) as there:
        add(store, {"code": 4, "chat": 2})
        me = sit(store, **ALONE)
        rests: set[int] = set()  # skipped in this sitting
        for step in steps:
            if step in ("ordered", "tie", "skip", "discard"):
                verdict = {"ordered": prefer(1), "tie": tied()}.get(step, Verdict(step))
                given = give(me, verdict)
                rests |= {given[0].task_id} if given and step == "skip" else set()
            elif step in ("undo", "redo"):
                shown = getattr(store, step)(me.rater)
                if shown is not None:
                    me.queue.refresh(shown.task_id, shown.purpose)
                    fact = store.answer(me.rater, shown.task_id, "label")
                    rests |= {shown.task_id} if fact and fact.verdict.outcome == "skip" else set()
            elif step == "sit down again":
                me, rests = sit(store, **ALONE), set()
            elif step == "elsewhere":
                give(sit(there, **ALONE))
            elif step == "somebody else":
                give(sit(there, "you", **ALONE))
            else:
                add(there, {"new": 1})
            me.queue.catch_up()
            answers = {fact.task_id: fact.verdict.outcome for fact in store.facts(me.rater)}
            assert {fact.task_id: fact.verdict.outcome for fact in me.queue.facts} == answers
            tasks = {row["id"] for row in store.database.rows("SELECT id FROM task")}
            back = {task for task, outcome in answers.items() if outcome == "skip"} - rests
            assert me.queue.remaining == len(tasks - set(answers)) + len(back)
        promised = me.queue.remaining
        asked = [offer.task_id for offer, _ in drain(me)]
        assert len(asked) == len(set(asked)) == promised
