"""The report of one rater: what is counted, the habits, the pace, and counting as answers come and go."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_tui.preferences.intervals import wilson
from rlhf_tui.preferences.records import Fact, Verdict, prefer, tied
from rlhf_tui.preferences.statistics import Tally, gold_facts, label_report

Make = Callable[..., Fact]


def test_an_empty_report_knows_nothing() -> None:
    found = label_report([])
    assert (found.n, found.ordered, found.sitting) == (0, 0, 0)
    assert found.median_seconds is None
    assert found.per_hour is None
    rates = (found.first_side, found.longer_wins, found.refusal_wins, found.tie_share, found.too_fast, found.gold)
    assert all(one.share is None and not one.enough for one in rates)
    assert found.consistency.self_consistency.share is None


def test_what_is_counted(fact: Make) -> None:
    facts = [
        fact(prefer(0)),
        fact(prefer(1)),
        fact(tied()),
        fact(Verdict("both_bad")),
        fact(Verdict("ordered", ranks=(2, 1, 3)), (1, 2, 3)),
        fact(Verdict("rated", ratings=(4, 2))),
        fact(Verdict("accepted", accepted=(True, False))),
        fact(Verdict("skip")),
        fact(Verdict("skip")),
        fact(Verdict("discard")),
        fact(prefer(0), purpose="repeat"),
    ]
    found = label_report(facts)
    said = (found.ordered, found.ties, found.both_bad, found.rated, found.accepted)
    assert (found.n, said) == (7, (3, 1, 1, 1, 1))
    assert (found.skipped, found.discarded) == (2, 1)
    assert (found.tie_share.successes, found.tie_share.n) == (1, 5)
    assert (found.both_bad_share.successes, found.both_bad_share.n) == (1, 7)
    assert (found.skip_share.successes, found.skip_share.n) == (2, 10)
    assert (found.discard_share.successes, found.discard_share.n) == (1, 10)


def test_the_first_side_as_published(fact: Make) -> None:
    """423 first and 351 second among the decisive answers of open-instruct's raters: 0.5465 [0.511, 0.581]."""
    facts = [fact(prefer(int(k >= 423))) for k in range(774)] + [fact(tied()) for _ in range(376)]
    sides = label_report(facts).first_side
    assert (sides.successes, sides.n, sides.enough) == (423, 774, True)
    assert (sides.share, sides.low, sides.high) == pytest.approx((0.5465, 0.5113, 0.5813), abs=5.1e-5)


def test_sides_count_only_where_they_are_known_and_the_rater_was_blind(fact: Make) -> None:
    facts = [
        fact(prefer(0)),
        fact(prefer(0), layout="unordered"),
        fact(prefer(0), selection="edit"),
        fact(prefer(0), purpose="repeat"),
        fact(prefer(1), layout="file"),
        fact(Verdict("rated", ratings=(2, 5, 5)), (1, 2, 3)),
    ]
    sides = label_report(facts).first_side
    assert (sides.successes, sides.n) == (1, 4)  # of the rated, two comparisons lost by the first


def test_the_longer_one_counts_for_clear_differences_only(fact: Make) -> None:
    lengths = [(50, 10), (60, 10), (10, 50), (40, 10), (10, 40), (41, 10)]
    found = label_report([fact(prefer(0), characters=pair) for pair in lengths]).longer_wins
    assert (found.successes, found.n) == (3, 4)  # a difference of exactly 30 does not count
    edited = label_report([fact(prefer(0), characters=(90, 10), selection="edit")])
    assert edited.longer_wins.n == 0


def test_longer_wins_in_openassistants_rankings(fact: Make, shared_data: Path, published: dict[str, Any]) -> None:
    facts = []
    for line in (shared_data / "oasst_en_100_ranked" / "rankings.jsonl").read_text().splitlines():
        completions = json.loads(line)["completions"]
        facts.append(
            fact(
                Verdict("ordered", ranks=tuple(one["rank"] + 1 for one in completions)),
                tuple(range(1, len(completions) + 1)),
                characters=tuple(len(one["text"]) for one in completions),
                layout="unordered",
                latency_ms=None,
                selection="import",
            )
        )
    expected = published["oasst_en_100"]
    found = label_report(facts)
    assert found.n == expected["groups"]
    assert found.longer_wins.n == expected["n"]
    assert found.longer_wins.share == pytest.approx(expected["p_longer_ranked_higher_gt30chars"], abs=5e-5)
    plain = wilson(found.longer_wins.successes, found.longer_wins.n)
    assert (
        found.longer_wins.low < plain[0] < plain[1] < found.longer_wins.high
    )  # comparisons of a ranking hang together
    assert found.first_side.n == 0
    assert found.median_seconds is None


def test_refusals_are_held_against_what_does_not_decline(fact: Make) -> None:
    facts = [
        fact(prefer(0), (1, 2)),
        fact(prefer(1), (1, 2)),
        fact(prefer(1), (2, 1)),
        fact(prefer(0), (3, 4)),
        fact(prefer(0), (1, 5)),  # both decline
        fact(tied(), (1, 2)),
    ]
    found = label_report(facts, refusals={1, 5}).refusal_wins
    assert (found.successes, found.n) == (2, 3)
    assert label_report(facts).refusal_wins.n == 0


def test_answers_that_are_too_fast_to_be_read(fact: Make) -> None:
    latencies = [1999, 2000, 500, 60_000, None]
    facts = [fact(prefer(0), latency_ms=latency) for latency in latencies]
    facts += [fact(Verdict("skip"), latency_ms=100), fact(prefer(0), latency_ms=900, purpose="repeat")]
    found = label_report(facts)
    assert (found.too_fast.successes, found.too_fast.n) == (3, 5)
    assert found.median_seconds == pytest.approx(1.999)


def test_the_pace_is_that_of_the_latest_sitting(fact: Make) -> None:
    yesterday = [fact(prefer(0), at=timedelta(seconds=5 * k), latency_ms=5000) for k in range(100)]
    today = [fact(prefer(0), at=timedelta(days=1, seconds=30 * k), latency_ms=30_000) for k in range(20)]
    found = label_report([*yesterday, *today])
    assert found.sitting == 20
    assert found.per_hour == pytest.approx(120)
    assert found.median_seconds == 5.0
    slow = fact(prefer(0), at=timedelta(days=1, seconds=30 * 19 + 1000), latency_ms=1_000_000)
    assert label_report([*yesterday, *today, slow]).sitting == 21  # thought long over; that is no pause


def test_gold_is_what_still_stands(fact: Make) -> None:
    right, other = fact(prefer(0), (1, 2), task_id=5, rater="teacher"), fact(prefer(1), (2, 1), task_id=5)
    gold = gold_facts([right, other], {5: right.judgement_id, 6: 999})
    assert gold == {5: right}
    found = label_report([other], gold).gold
    assert (found.successes, found.n) == (1, 1)


verdicts = st.sampled_from(
    [
        prefer(0),
        prefer(1, 2),
        tied(),
        Verdict("both_bad"),
        Verdict("skip"),
        Verdict("discard"),
        Verdict("ordered", ranks=(2, 1, 1)),
        Verdict("rated", ratings=(1, 5)),
        Verdict("accepted", accepted=(True, False)),
    ]
)


@given(steps=st.lists(st.tuples(verdicts, st.integers(0, 5), st.booleans(), st.integers(500, 9000)), max_size=25))
@settings(deadline=None)
def test_following_equals_counting_anew(fact: Make, steps: list[tuple[Verdict, int, bool, int]]) -> None:
    """Answers come in, replace older ones, are taken back: the report is always that of what stands."""
    tally = Tally()
    standing: dict[tuple[int, str], Fact] = {}
    for verdict, task, again, latency in steps:
        key = (task, "repeat" if again else "label")
        if latency % 4 == 0:
            standing.pop(key, None)
        else:
            size = max(len(verdict.ranks), 2)
            shown = tuple(range(10 * task, 10 * task + size))
            standing.pop(key, None)
            standing[key] = fact(
                verdict,
                shown[::-1] if again else shown,
                kind="pair",
                task_id=task,
                purpose=key[1],
                latency_ms=latency,
                characters=() if verdict.outcome in ("skip", "discard") else tuple(40 * k for k in range(size)),
            )
        tally.follow(standing.values())
        assert tally.report() == label_report(standing.values())
