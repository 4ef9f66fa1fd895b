"""Nudges come when there is a reason, and not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rlhf_tui.preferences.nudges import SAME_SIDE, nudges
from rlhf_tui.preferences.records import Fact, Verdict, prefer, tied
from rlhf_tui.preferences.statistics import label_report

Make = Callable[..., Fact]


def said(facts: Sequence[Fact], **more: Any) -> dict[str, str]:
    return {nudge.id: nudge.text for nudge in nudges(facts, label_report(facts, **more))}


def careful(fact: Make, n: int, **more: Any) -> list[Fact]:
    """Answers without any habit."""
    return [fact(prefer(k % 2), **more) for k in range(n)]


def test_a_careful_rater_hears_nothing(fact: Make) -> None:
    assert said([]) == {}
    lengths = [(900, 300), (300, 900), (900, 300), (300, 900)]
    facts = [fact(prefer((k // 2) % 2), characters=lengths[k % 4]) for k in range(200)]
    facts += [fact(tied()) for _ in range(15)]
    assert said(facts) == {}


def test_too_fast_for_long_texts(fact: Make) -> None:
    fast = careful(fact, 20, latency_ms=1200, characters=(300, 200))
    assert "1.2 s" in said(fast)["hasty"]
    assert "hasty" not in said(fast[1:])
    assert "hasty" not in said(careful(fact, 20, latency_ms=1200, characters=(100, 200)))  # short texts
    assert "hasty" not in said(careful(fact, 20, latency_ms=1500, characters=(300, 200)))
    later = careful(fact, 20, latency_ms=8000, characters=(300, 200))
    assert "hasty" not in said([*fast, *later])  # the newest count
    assert "hasty" not in said(careful(fact, 40, latency_ms=None, characters=(300, 200)))


@pytest.mark.parametrize(("place", "side"), [(0, "first"), (1, "second")])
def test_one_side_many_times_in_a_row(fact: Make, place: int, side: str) -> None:
    row = [fact(prefer(place, 1 + k % 2)) for k in range(SAME_SIDE)]
    assert said(row)["same-side"].startswith(f"The {side} answer won 12 times in a row")
    assert "same-side" not in said(row[1:])
    assert "same-side" not in said([*row, fact(prefer(1 - place))])
    assert "same-side" not in said([*row, fact(tied())])
    assert "same-side" in said([*row, fact(Verdict("skip"))])
    assert "same-side" not in said([fact(prefer(place), layout="unordered") for _ in range(SAME_SIDE)])
    assert "same-side" not in said([*row[:-1], fact(Verdict("rated", ratings=(1, 5)))])


def test_many_ties_and_many_bad_ones(fact: Make) -> None:
    ties = [fact(tied()) for _ in range(19)]
    assert "19 of your last 30" in said([*careful(fact, 50), *ties, *careful(fact, 11)])["ties"]
    assert "ties" not in said([*careful(fact, 50), *ties[:18], *careful(fact, 12)])
    assert "ties" not in said(ties)  # too few answers to say
    bad = [fact(Verdict("both_bad")) for _ in range(13)]
    assert "13 of the last 30" in said([*bad, *careful(fact, 17)])["both-bad"]
    assert "both-bad" not in said([*bad[1:], *careful(fact, 18)])
    assert "both-bad" not in said(bad)


def test_a_habit_of_side(fact: Make) -> None:
    first = [fact(prefer(int(k % 4 == 0))) for k in range(60)]
    assert "first answer in 75% of 60" in said(first)["first-side"]
    second = [fact(prefer(int(k % 4 != 0))) for k in range(60)]
    assert "second answer in 75% of 60" in said(second)["first-side"]
    assert "first-side" not in said(first[:28])


def test_length(fact: Make) -> None:
    longer = [fact(prefer(k % 2), characters=(500, 100) if k % 2 == 0 else (100, 500)) for k in range(40)]
    assert "The longer answer wins 100% of 40 times" in said(longer)["longer"]
    usual = longer + [fact(prefer(k % 2), characters=(100, 500) if k % 2 == 0 else (500, 100)) for k in range(15)]
    assert "longer" not in said(usual)  # 73 %, but 0.70 is inside the interval


def test_refusals(fact: Make) -> None:
    facts = [fact(prefer(k % 2), (1, 2) if k % 2 == 0 else (2, 1)) for k in range(40)]
    assert "declines wins 100% of 40 times" in said(facts, refusals={1})["refusals"]
    assert "refusals" not in said(facts, refusals={2})
    assert "refusals" not in said(facts)


def test_no_better_than_a_coin(fact: Make) -> None:
    facts = []
    for task in range(40):
        place = task % 2
        kept = task % 4 < 2
        facts.append(fact(prefer(place), (1, 2), task_id=task))
        facts.append(fact(prefer(1 - place if kept else place), (2, 1), task_id=task, purpose="repeat"))
    assert "50% of 40 times" in said(facts)["coin"]
    assert "coin" not in said(facts[:40])
    steady = [
        fact(
            f.verdict if f.purpose == "label" else prefer(1 - f.task_id % 2),
            f.shown,
            task_id=f.task_id,
            purpose=f.purpose,
        )
        for f in facts
    ]
    assert "coin" not in said(steady)
