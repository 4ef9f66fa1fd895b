"""Active against random: what the reward model got wrong on either, and no more than that."""

from __future__ import annotations

from collections.abc import Callable

from rlhf_tui.preferences.records import Fact, Verdict, prefer, tied
from rlhf_tui.preferences.selection import selection_report

Make = Callable[..., Fact]


def picks(fact: Make, selection: str, right: int, wrong: int, ties: int = 0) -> list[Fact]:
    """Answers on either side, of which the model had predicted so many right."""
    found = []
    for k in range(right + wrong):
        place = k % 2
        likely_first = (place == 0) == (k < right)
        found.append(fact(prefer(place), selection=selection, predicted=0.8 if likely_first else 0.2))
    return found + [fact(tied(), selection=selection, predicted=0.5) for _ in range(ties)]


def test_nothing_to_compare(fact: Make) -> None:
    assert selection_report(picks(fact, "random", 5, 5)) is None


def test_shares_of_both(fact: Make) -> None:
    facts = picks(fact, "active", 22, 18, 10) + picks(fact, "random", 80, 20, 25)
    facts += [
        fact(prefer(0), selection="random"),  # before there was a reward model
        fact(prefer(0), selection="active", predicted=0.5),
        fact(Verdict("skip"), selection="active", predicted=0.9),
        fact(prefer(0), selection="active", predicted=0.1, purpose="repeat"),
        fact(prefer(0), selection="gold", predicted=0.1),
        fact(prefer(0), selection="import", predicted=0.1),
    ]
    found = selection_report(facts)
    assert found is not None
    assert (found.active.n, found.random.n) == (51, 126)
    assert (found.active.decisive.successes, found.active.decisive.n) == (41, 51)
    assert (found.active.wrong.successes, found.active.wrong.n) == (18.5, 41)
    assert (found.random.decisive.successes, found.random.decisive.n) == (101, 126)
    assert (found.random.wrong.successes, found.random.wrong.n) == (20, 100)
    assert found.sentence.startswith("The model errs more often on the pairs picked for being unsure")


def test_the_sentence_says_what_the_interval_allows(fact: Make) -> None:
    def sentence(active: tuple[int, int], random: tuple[int, int]) -> str:
        found = selection_report(picks(fact, "active", *active) + picks(fact, "random", *random))
        assert found is not None
        return found.sentence

    assert "errs more" in sentence((30, 30), (90, 10))
    assert "errs less" in sentence((90, 10), (30, 30))
    assert "cannot be said yet" in sentence((30, 15), (30, 14))
    assert sentence((10, 19), (90, 10)).startswith("Too few")
    assert sentence((10, 20), (29, 0)).startswith("Too few")
    for one in (sentence((30, 30), (90, 10)), sentence((90, 10), (30, 30)), sentence((30, 15), (30, 14))):
        assert one.endswith("is another question.")  # nothing is promised
