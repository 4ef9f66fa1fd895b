"""What a simple rule makes of the same pairs: the longer one, the shorter one, the words alone.

A reward model that is no better than these has learnt nothing they do not know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np

from rlhf_tui.assessment.bradley_terry import Floats, Integers, choose_ridge, fit_dual
from rlhf_tui.assessment.counting import Points, decided, half_step, longer_is_better, right, share, shorter_is_better
from rlhf_tui.assessment.measures import paired_difference
from rlhf_tui.assessment.records import Baseline, Scored

LONGER, SHORTER, WORDS = "longer", "shorter", "bag of words"

#: The words of a taste are those of several prompts; beyond so many the rarest add nothing but time.
MIN_PROMPTS = 2
MOST_WORDS = 3000
FOLDS = 5

_WORD = re.compile(r"\w+|[^\w\s]")


def heldout_baselines(train: Sequence[Scored], heldout: Sequence[Scored], *, seed: int) -> tuple[Baseline, ...]:
    """The rules on held-out pairs, the words learnt from the training pairs."""
    return _baselines(heldout, bag_of_words_gaps(train, heldout, seed=seed), seed)


def crossvalidated_baselines(pairs: Sequence[Scored], *, seed: int) -> tuple[Baseline, ...]:
    """The rules on training pairs, the words learnt from the other folds of prompts."""
    return _baselines(pairs, out_of_fold_words(pairs, seed=seed), seed)


def _baselines(pairs: Sequence[Scored], gaps: Floats, seed: int) -> tuple[Baseline, ...]:
    said = decided(pairs)
    if not said:
        return ()
    by_words = {pair: half_step(float(gap)) for pair, gap in zip(pairs, gaps, strict=True)}
    rules: dict[str, Points] = {LONGER: longer_is_better, SHORTER: shorter_is_better, WORDS: by_words.__getitem__}
    return tuple(
        Baseline(name, share(said, rule), paired_difference(said, right, rule, seed=seed))
        for name, rule in rules.items()
    )


# -- bag of words -------------------------------------------------------------------------------------


def bag_of_words_gaps(train: Sequence[Scored], test: Sequence[Scored], *, seed: int) -> Floats:
    """What a ridge Bradley–Terry fit on the words of the training pairs makes of the others: (test pairs,) gaps.

    Ties are learnt from as ½. The ridge is chosen on folds of the training prompts. Zeros with nothing to learn from.
    """
    if not train or not test:
        return np.zeros(len(test))
    known = _vocabulary(train)
    learn, new = _word_gaps(train, known), _word_gaps(test, known)
    unit = np.mean((learn**2).sum(axis=1))
    if unit == 0:
        return np.zeros(len(test))
    kernel = learn @ learn.T / unit
    targets = np.array([0.5 if pair.tie else 1.0 for pair in train])
    weights = np.array([pair.weight for pair in train])
    ridge, _ = choose_ridge(kernel, targets, weights, _folds(train, FOLDS, seed))
    gaps: Floats = new @ (learn.T @ fit_dual(kernel, targets, weights, ridge, np.zeros(len(train)))) / unit
    return gaps


def out_of_fold_words(pairs: Sequence[Scored], *, seed: int) -> Floats:
    """The same for every one of these pairs, learnt from the other folds of prompts: (pairs,)"""
    folds = _folds(pairs, FOLDS, seed)
    gaps = np.zeros(len(pairs))
    for fold in np.unique(folds):
        train = [pair for pair, own in zip(pairs, folds, strict=True) if own != fold]
        test = [pair for pair, own in zip(pairs, folds, strict=True) if own == fold]
        gaps[folds == fold] = bag_of_words_gaps(train, test, seed=seed)
    return gaps


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(text.lower()))


def _vocabulary(pairs: Sequence[Scored]) -> dict[str, int]:
    """A column for each word that completions to several prompts use, the most widespread first."""
    prompts: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for word in _words(pair.better_text).keys() | _words(pair.worse_text).keys():
            prompts[word].add(pair.prompt)
    usual = sorted((-len(found), word) for word, found in prompts.items() if len(found) >= MIN_PROMPTS)
    return {word: column for column, (_, word) in enumerate(usual[:MOST_WORDS])}


def _word_gaps(pairs: Sequence[Scored], known: dict[str, int]) -> Floats:
    """Better minus worse in the root of how often each word occurs, so that one word said often is not everything."""
    found = np.zeros((len(pairs), len(known)))
    for row, pair in enumerate(pairs):
        for sign, text in ((1.0, pair.better_text), (-1.0, pair.worse_text)):
            for word, times in _words(text).items():
                if word in known:
                    found[row, known[word]] += sign * times**0.5
    return found


def _folds(pairs: Sequence[Scored], folds: int, seed: int) -> Integers:
    """A fold for each pair, the same for the pairs of a prompt: prompts are dealt out in a shuffled order."""
    prompts = sorted({pair.prompt for pair in pairs})
    Random(seed).shuffle(prompts)
    fold = {prompt: place % folds for place, prompt in enumerate(prompts)}
    return np.array([fold[pair.prompt] for pair in pairs], dtype=np.int64)
