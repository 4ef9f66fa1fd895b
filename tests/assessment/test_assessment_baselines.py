"""Rules to beat: length, and the words alone, learnt without looking at what they are tried on."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_tui.assessment.baselines import (
    LONGER,
    SHORTER,
    WORDS,
    bag_of_words_gaps,
    crossvalidated_baselines,
    heldout_baselines,
    out_of_fold_words,
)
from rlhf_tui.assessment.bradley_terry import RIDGES, ridge_bradley_terry

NOISE = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def texts(n: int, seed: int, good: str = "thanks", bad: str = "whatever") -> dict[str, list[str]]:
    rng = np.random.default_rng(seed)
    sides = [[" ".join(rng.choice(NOISE, size=6)) for _ in range(n)] for _ in range(2)]
    return {"better_text": [f"{one} {good}" for one in sides[0]], "worse_text": [f"{one} {bad}" for one in sides[1]]}


def test_a_lexical_taste_is_read_off_the_words(make) -> None:
    train, heldout = make.pairs([0.0] * 80, **texts(80, 0)), make.pairs([1.0] * 40, start=200, **texts(40, 1))
    rules = {one.name: one for one in heldout_baselines(train, heldout, seed=0)}
    assert list(rules) == [LONGER, SHORTER, WORDS]
    assert rules[WORDS].rate.share == 1.0
    assert rules[WORDS].difference == (0.0, 0.0, 0.0)
    assert (rules[LONGER].rate.share, rules[SHORTER].rate.share) == (0.5, 0.5)
    assert rules[LONGER].difference[0] == 0.5
    assert rules[LONGER].difference[1] > 0.3


def test_words_that_mean_nothing_are_a_coin(make) -> None:
    pairs = make.pairs([1.0] * 200, **texts(200, 2, good="", bad=""))
    shares = [one.rate.share for one in crossvalidated_baselines(pairs, seed=0) if one.name == WORDS]
    assert 0.4 < shares[0] < 0.6


def test_of_what_is_learnt_by_heart_nothing_comes_back(make) -> None:
    """Texts of a hundred words tell every training pair apart; out of fold they are a coin."""
    rng = np.random.default_rng(8)
    sides = [[" ".join(rng.choice([f"w{i}" for i in range(200)], size=40)) for _ in range(100)] for _ in range(2)]
    pairs = make.pairs([0.0] * 100, better_text=sides[0], worse_text=sides[1])
    assert (bag_of_words_gaps(pairs, pairs, seed=0) > 0).mean() > 0.9
    assert 0.35 < (out_of_fold_words(pairs, seed=0) > 0).mean() < 0.65


def test_what_is_tried_has_no_say_in_what_is_learnt(make) -> None:
    """Out of fold a word that only one prompt uses says nothing, and of a taste turned round all is wrong."""
    train, turned = make.pairs([0.0] * 60, **texts(60, 3)), make.pairs([0.0] * 30, start=90, **texts(30, 4))
    lied = [make.pair(0.0, 90 + i, better_text=p.worse_text, worse_text=p.better_text) for i, p in enumerate(turned)]
    assert (bag_of_words_gaps(train, turned, seed=0) > 0).all()
    assert (bag_of_words_gaps(train, lied, seed=0) < 0).all()
    own = [f"word{place}" for place in range(40)]
    alone = make.pairs([0.0] * 40, better_text=own, worse_text="plain")
    assert not out_of_fold_words(alone[:1], seed=0).any()
    unseen = out_of_fold_words(alone, seed=0)
    assert np.allclose(unseen, unseen[0], atol=1e-6)  # 'plain' is all there is to go by


def test_it_is_the_same_ridge_fit_spelt_out(make) -> None:
    train = make.pairs([0.0] * 30, **texts(30, 5, good="yes", bad="no"), weight=[1.0 + (i % 2) for i in range(30)])
    test = make.pairs([0.0] * 10, start=50, **texts(10, 6, good="no", bad="yes no"))
    found = bag_of_words_gaps(train, test, seed=0)
    words = sorted({word for pair in train for word in f"{pair.better_text} {pair.worse_text}".split()})

    def features(pairs) -> np.ndarray:
        return np.array(
            [
                [pair.better_text.split().count(w) ** 0.5 - pair.worse_text.split().count(w) ** 0.5 for w in words]
                for pair in pairs
            ]
        )

    learn = features(train)
    unit = np.mean((learn**2).sum(axis=1)) ** 0.5
    weights = np.array([pair.weight for pair in train])
    fits = [features(test) / unit @ ridge_bradley_terry(learn / unit, np.ones(30), weights, ridge=r) for r in RIDGES]
    assert min(np.abs(found - fit).max() for fit in fits) < 1e-3


def test_ties_are_learnt_as_half_and_not_counted(make) -> None:
    pairs = make.pairs([1.0, -1.0, 3.0, 3.0], tie=[False, False, True, True], **texts(4, 7))
    assert [one.rate.n for one in crossvalidated_baselines(pairs, seed=0)] == [2, 2, 2]


@pytest.mark.parametrize("text", ["", "  ", "🙂", "a" * 10_000])
def test_texts_without_words_are_no_trouble(make, text: str) -> None:
    pairs = make.pairs([1.0] * 12, better_text=text, worse_text=text)
    assert not bag_of_words_gaps(pairs, pairs, seed=0).any()


def test_nothing_to_learn_from_or_to_try_on(make) -> None:
    assert bag_of_words_gaps((), make.pairs([1.0]), seed=0).tolist() == [0.0]
    assert heldout_baselines(make.pairs([1.0]), (), seed=0) == ()
    assert crossvalidated_baselines((), seed=0) == ()
