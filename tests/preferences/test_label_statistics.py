"""Intervals against published values, and the habits of raters who have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.preferences.formats import import_labels
from rlhf_tui.preferences.statistics import first_side_rate, label_report, longer_wins_rate, wilson
from rlhf_tui.preferences.store import Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high", "digits"),
    [(16, 20, 0.584, 0.919, 3), (40, 50, 0.67, 0.888, 3), (423, 774, 0.5113, 0.5813, 4)],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float, digits: int) -> None:
    found = wilson(successes, n)
    assert found == pytest.approx((low, high), abs=0.51 * 10**-digits)


@given(n=st.integers(1, 2000), data=st.data(), z=st.floats(0.1, 4))
def test_wilson_is_the_score_test_turned_round(n: int, data: st.DataObject, z: float) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n, z)
    share = successes / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):  # an end p solves |share - p| = z * sqrt(p (1 - p) / n)
        assert (share - end) ** 2 == pytest.approx(z * z * end * (1 - end) / n, rel=1e-6, abs=1e-12)
    mirrored = wilson(n - successes, n, z)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_wilson_without_data_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_a_rater_who_always_takes_the_left_is_seen(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=12)
    me, you = sit(store), sit(store, "you")
    for _ in range(10):
        me.answer(side="left")
    me.answer("tie")
    for side in ("left", "right"):
        you.answer(side=side)
    mine = first_side_rate(store, me.rater)
    assert (mine.successes, mine.n, mine.share) == (10, 10, 1.0)
    assert mine.low > 0.5
    assert first_side_rate(store, you.rater).share == 0.5
    assert first_side_rate(store).n == 12
    empty = first_side_rate(store, store.add_rater("nobody").id)
    assert (empty.n, empty.share, empty.low, empty.high) == (0, None, 0.0, 1.0)


def test_longer_wins_counts_clear_differences_only(store: Store, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{k}", "chosen": "c" * chosen, "rejected": "r" * rejected}
        for k, (chosen, rejected) in enumerate([(50, 10), (60, 10), (10, 50), (40, 10), (10, 40), (41, 10)])
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_labels(store, tmp_path / "t.jsonl", heldout_fraction=0.2)
    found = longer_wins_rate(store.pairs())
    assert (found.successes, found.n) == (3, 4)  # a difference of exactly 30 does not count
    assert longer_wins_rate(store.pairs(), min_chars=29).n == 6
    assert first_side_rate(store).n == 0  # a file of chosen and rejected says nothing about sides


def test_the_report_puts_it_together(fill: Filled, sit: Sit) -> None:
    store = fill(prompts=6)
    me = sit(store)
    for seconds, outcome in [(1, "ordered"), (2, "tie"), (9, "both_bad"), (60, "skip")]:
        shown = me.show()
        winner = shown.left.id if outcome == "ordered" else None
        store.judge(shown.id, outcome=outcome, winner_id=winner, latency_ms=seconds * 1000)
    report = label_report(store, me.rater)
    assert (report.n, report.ordered, report.ties, report.both_bad, report.skipped) == (3, 1, 1, 1, 1)
    assert report.median_seconds == 2.0
    assert (report.first_side.successes, report.first_side.n) == (1, 1)
    assert report.longer_wins.n == 0
    assert label_report(store).n == 3
    assert label_report(store, store.add_rater("nobody").id).median_seconds is None
