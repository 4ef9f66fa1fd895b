"""Coefficients of agreement against published values and against second, plain implementations."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlhf_tui.preferences.agreement import Agreement, Sample, agreements, bootstrap, pairs_of_raters
from rlhf_tui.preferences.coefficients import (
    THREE_WAY,
    Level,
    Measure,
    cohen,
    count,
    decisive,
    exact,
    fleiss,
    gwet,
    joint,
    krippendorff,
    relaxed,
)
from rlhf_tui.preferences.records import Fact, Verdict, prefer, tied

Make = Callable[..., Fact]
Unit = list[int]

FIVE = (1, 2, 3, 4, 5)
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability: four raters, twelve units.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
# The worked example of Wikipedia's article on Fleiss' kappa: ten subjects, fourteen raters, five categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def value_of(measure: Measure, data: Any) -> float:
    """What a measure is of all the units together."""
    return float(measure.value(measure.parts(data).sum(axis=0)))


# -- published values -----------------------------------------------------------------------------


def test_krippendorffs_own_example() -> None:
    counts = count(zip(*KRIPPENDORFF, strict=True), FIVE)
    found = {level: value_of(krippendorff(level, FIVE), counts) for level in LEVELS}
    assert found == pytest.approx({"nominal": 0.743421, "ordinal": 0.815388, "interval": 0.849107}, abs=5e-7)


def test_gwet_and_fleiss_of_the_same_table() -> None:
    """AC1 and AC2 as another program (irrCAC 0.4.4) gives them for this table, to five digits."""
    counts = count(zip(*KRIPPENDORFF, strict=True), FIVE)
    assert value_of(gwet("identity", FIVE), counts) == pytest.approx(0.77544, abs=5e-6)
    assert value_of(gwet("quadratic", FIVE), counts) == pytest.approx(0.91400, abs=5e-6)
    assert value_of(gwet("ordinal", FIVE), counts) == pytest.approx(0.89894, abs=5e-6)
    assert value_of(fleiss(FIVE), counts) == pytest.approx(0.76117, abs=5e-6)
    assert value_of(fleiss(FIVE), np.array(FLEISS, dtype=float)) == pytest.approx(0.209931, abs=5e-7)


def test_the_reference_file(published: dict[str, Any]) -> None:
    rows = published["krippendorff_2011_data_rows_are_raters"]
    counts = count(zip(*rows, strict=True), FIVE)
    for level in LEVELS:
        assert value_of(krippendorff(level, FIVE), counts) == pytest.approx(
            published[f"krippendorff_2011_{level}"], abs=1e-12
        )
    assert value_of(gwet("identity", FIVE), counts) == pytest.approx(published["gwet_ac1_same_data"], abs=5e-6)
    assert value_of(fleiss(FIVE), counts) == pytest.approx(published["fleiss_generalised_same_data"], abs=5e-6)
    wikipedia = np.array(FLEISS, dtype=float)
    assert value_of(fleiss(FIVE), wikipedia) == pytest.approx(published["fleiss_wikipedia_kappa"], abs=1e-12)


def test_cohens_kappa_and_its_interval() -> None:
    """[[20, 5], [10, 15]]: kappa 0.4; its large-sample interval, [0.151, 0.649], is the bootstrap's to 0.02."""
    answers = [(0, 0)] * 20 + [(0, 1)] * 5 + [(1, 0)] * 10 + [(1, 1)] * 15
    sample = Sample(cohen(2), joint(answers, (0, 1)), range(50))
    found = bootstrap({"kappa": sample})["kappa"]
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.1511, 0.6489), abs=0.02)
    assert (found.n, found.enough) == (50, True)


def test_percent_agreement_three_ways_as_published() -> None:
    """open-instruct's human evaluation: of 169 pairs of answers 86 decisive, in 47 only one saw a tie."""
    units = [(1, 1)] * 61 + [(1, -1)] * 25 + [(0, 1)] * 47 + [(0, 0)] * 36
    counts = count(units, THREE_WAY)
    found = [value_of(measure, counts) for measure in (exact(), relaxed(), decisive())]
    assert found == pytest.approx([0.5740, 0.7130, 0.7093], abs=5e-5)


# -- second implementations -----------------------------------------------------------------------


def plain_alpha(units: Sequence[Unit], distance: Callable[[int, int, Sequence[int]], float]) -> float:
    """Alpha by going through pairs of answers: those within a unit against any two."""
    units = [unit for unit in units if len(unit) > 1]
    pool = [answer for unit in units for answer in unit]
    within = sum(
        distance(a, b, pool) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    ) / len(pool)
    any_two = sum(distance(a, b, pool) for a, b in itertools.permutations(pool, 2)) / (len(pool) * (len(pool) - 1))
    return 1 - within / any_two if any_two else float("nan")


def _ordinal(a: int, b: int, pool: Sequence[int]) -> float:
    low, high = min(a, b), max(a, b)
    between = sum(low <= other <= high for other in pool)
    return float((between - (pool.count(a) + pool.count(b)) / 2) ** 2)


DISTANCES: dict[str, Callable[[int, int, Sequence[int]], float]] = {
    "nominal": lambda a, b, _: float(a != b),
    "ordinal": lambda a, b, pool: _ordinal(a, b, pool) if a != b else 0.0,
    "interval": lambda a, b, _: float((a - b) ** 2),
}


def plain_gwet(units: Sequence[Unit], agree: Callable[[int, int], Fraction], q: int, *, kappa: bool) -> float:
    """AC1 and AC2, or Fleiss' kappa, by going through pairs of answers, in fractions."""
    shared = [unit for unit in units if len(unit) > 1]
    observed = sum(
        sum(agree(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) * (len(unit) - 1)) for unit in shared
    ) / Fraction(len(shared))
    judged = [unit for unit in units if unit]
    prevalence = [sum(Fraction(unit.count(k), len(unit)) for unit in judged) / len(judged) for k in range(1, q + 1)]
    if kappa:
        chance = sum(p * p for p in prevalence)
    else:
        weights = sum(agree(a, b) for a in range(1, q + 1) for b in range(1, q + 1))
        chance = weights * sum(p * (1 - p) for p in prevalence) / (q * (q - 1))
    return float((observed - chance) / (1 - chance)) if chance != 1 else float("nan")


AGREE: dict[str, Callable[[int, int], Fraction]] = {
    "identity": lambda a, b: Fraction(a == b),
    "quadratic": lambda a, b: 1 - Fraction((a - b) ** 2, 16),
    "ordinal": lambda a, b: 1 - Fraction(abs(a - b) * (abs(a - b) + 1) // 2, 10),
}
some_units = st.lists(st.lists(st.integers(1, 5), max_size=5), min_size=1, max_size=12)


@given(units=some_units, level=st.sampled_from(LEVELS))
@settings(deadline=None)
def test_alpha_is_what_pairs_of_answers_say(units: list[Unit], level: Level) -> None:
    assume(any(len(unit) > 1 for unit in units))
    found = value_of(krippendorff(level, FIVE), count(units, FIVE))
    assert found == pytest.approx(plain_alpha(units, DISTANCES[level]), abs=1e-9, nan_ok=True)


@given(units=some_units, weights=st.sampled_from(["identity", "quadratic", "ordinal"]))
def test_gwet_is_what_pairs_of_answers_say(units: list[Unit], weights: Any) -> None:
    assume(any(len(unit) > 1 for unit in units))
    found = value_of(gwet(weights, FIVE), count(units, FIVE))
    assert found == pytest.approx(plain_gwet(units, AGREE[weights], 5, kappa=False), abs=1e-9)


@given(units=some_units)
def test_fleiss_is_what_pairs_of_answers_say(units: list[Unit]) -> None:
    assume(any(len(unit) > 1 for unit in units))
    assume(len({answer for unit in units for answer in unit}) > 1)
    found = value_of(fleiss(FIVE), count(units, FIVE))
    assert found == pytest.approx(plain_gwet(units, AGREE["identity"], 5, kappa=True), abs=1e-9)


@given(answers=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=40))
def test_cohen_is_observed_against_independent_raters(answers: list[tuple[int, int]]) -> None:
    n = len(answers)
    observed = Fraction(sum(a == b for a, b in answers), n)
    chance = Fraction(sum(a == b for (a, _), (_, b) in itertools.product(answers, repeat=2)), n * n)
    assume(chance != 1)
    found = value_of(cohen(5), joint(answers, FIVE))
    assert found == pytest.approx(float((observed - chance) / (1 - chance)), abs=1e-9)


@given(units=st.lists(st.lists(st.sampled_from(THREE_WAY), max_size=5), min_size=1, max_size=12))
def test_percent_agreement_is_what_pairs_of_answers_say(units: list[Unit]) -> None:
    pairs = [pair for unit in units for pair in itertools.combinations(unit, 2)]
    named = [(a, b) for a, b in pairs if a and b]
    assume(named)
    counts = count(units, THREE_WAY)
    assert value_of(exact(), counts) == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    half = sum(1 if a == b else 0.5 if 0 in (a, b) else 0 for a, b in pairs) / len(pairs)
    assert value_of(relaxed(), counts) == pytest.approx(half)
    assert value_of(decisive(), counts) == pytest.approx(sum(a == b for a, b in named) / len(named))


# -- the bootstrap --------------------------------------------------------------------------------

MEASURES: dict[str, Measure] = {
    "exact": exact(),
    "relaxed": relaxed(),
    "decisive": decisive(),
    **{level: krippendorff(level, (1, 2, 3)) for level in LEVELS},
    "ac1": gwet("identity", THREE_WAY),
    "ac2": gwet("ordinal", THREE_WAY),
    "fleiss": fleiss(THREE_WAY),
}


@given(
    units=st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=4), min_size=1, max_size=8),
    name=st.sampled_from(sorted(MEASURES)),
    data=st.data(),
)
@settings(deadline=None)
def test_a_resample_is_measured_as_if_its_units_stood_there(units: list[Unit], name: str, data: st.DataObject) -> None:
    """What the matrix product relies on: sums of parts are all that counts."""
    measure, counts = MEASURES[name], count(units, (0, 1, 2))
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(units), max_size=len(units)).filter(any))
    summed = float(measure.value(np.array(times) @ measure.parts(counts)))
    assert summed == pytest.approx(value_of(measure, np.repeat(counts, times, axis=0)), nan_ok=True, abs=1e-9)


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    """Prompts with two units each, so that drawing units instead of prompts would be too sure."""
    rng = random.Random(5)
    kinds = [[[-1, -1], [-1, -1]], [[-1, 1], [1, -1]], [[0, 0], [0, 0]]]
    prompts = [rng.choice(kinds) for _ in range(60)]
    units = [unit for prompt in prompts for unit in prompt]
    sample = Sample(exact(), count(units, THREE_WAY), [number for number in range(60) for _ in range(2)])
    found = bootstrap({"exact": sample})["exact"]
    shares = []
    for _ in range(4000):
        drawn = [unit for prompt in rng.choices(prompts, k=60) for unit in prompt]
        shares.append(sum(a == b for a, b in drawn) / len(drawn))
    shares.sort()
    assert found.low is not None
    assert found.high is not None
    assert (found.low, found.high) == pytest.approx((shares[100], shares[3900]), abs=0.02)
    single = bootstrap({"exact": Sample(exact(), count(units, THREE_WAY), range(120))})["exact"]
    assert single.low is not None
    assert single.high is not None
    assert found.high - found.low > 1.2 * (single.high - single.low)


def test_the_bootstrap_is_seeded_and_careful_with_little() -> None:
    units = [[0, 0], [0, 1], [1, 1], [-1, 1]] * 10
    sample = Sample(krippendorff("nominal", THREE_WAY), count(units, THREE_WAY), range(40))
    assert bootstrap({"a": sample}, seed=3) == bootstrap({"a": sample}, seed=3)
    assert bootstrap({"a": sample}, seed=3) != bootstrap({"a": sample}, seed=4)
    one = bootstrap({"a": Sample(exact(), count(units, THREE_WAY), [7] * 40)})["a"]
    assert (one.value, one.low, one.high, one.enough) == (0.5, None, None, False)
    same = bootstrap({"a": Sample(krippendorff("nominal", THREE_WAY), count([[1, 1]] * 40, THREE_WAY), range(40))})["a"]
    assert (same.value, same.low, same.high) == (None, None, None)
    assert bootstrap({}) == {}


# -- from judgements ------------------------------------------------------------------------------


def by_name(found: list[Agreement]) -> dict[str, Agreement]:
    return {one.about: one for one in found}


def test_raters_are_compared_on_completions_not_on_sides(fact: Make) -> None:
    """Two raters who always agree, shown everything in opposite order: by side they would never agree."""
    facts = []
    for k in range(40):
        left, right = 2 * k, 2 * k + 1
        winner = k % 2
        facts.append(fact(prefer(winner), (left, right), rater="anna", prompt_id=k))
        facts.append(fact(prefer(1 - winner), (right, left), rater="bob", prompt_id=k))
    (found,) = agreements(facts)
    assert (found.about, found.raters, found.units, found.prompts) == ("preferences", ("anna", "bob"), 40, 40)
    for name in ("exact", "relaxed", "decisive", "alpha", "ac1", "ac2", "fleiss"):
        estimate = found.estimates[name]
        assert estimate.value == pytest.approx(1.0), name
        assert (estimate.n, estimate.enough) == (40, True)


def test_only_first_blind_answers_count_and_the_newest_holds(fact: Make) -> None:
    facts = [
        fact(prefer(0), (1, 2), rater="anna", prompt_id=1),
        fact(prefer(1), (1, 2), rater="anna", prompt_id=1, task_id=99),  # the same two again, in another task
        fact(prefer(1), (1, 2), rater="bob", prompt_id=1),
        fact(prefer(0), (1, 2), rater="bob", prompt_id=1, purpose="repeat"),
        fact(prefer(0), (1, 2), rater="cleo", prompt_id=1, selection="edit"),
        fact(Verdict("both_bad"), (1, 2), rater="dora", prompt_id=1),
        fact(Verdict("skip"), rater="emil", prompt_id=1),
        fact(prefer(0), (3, 4), rater="anna", prompt_id=2),
    ]
    (found,) = agreements(facts)
    assert (found.raters, found.units) == (("anna", "bob"), 1)
    assert found.estimates["exact"].value == 1.0
    assert not found.estimates["exact"].enough


def test_rankings_and_strength(fact: Make) -> None:
    ranked = Verdict("ordered", ranks=(1, 2, 3))
    facts = [
        fact(ranked, (1, 2, 3), rater="anna", prompt_id=1),
        fact(Verdict("ordered", ranks=(1, 2, 2)), (1, 2, 3), rater="bob", prompt_id=1),
        fact(prefer(0, 2), (4, 5), rater="anna", prompt_id=2),
        fact(prefer(0, 1), (4, 5), rater="bob", prompt_id=2),
        fact(prefer(1, 1), (6, 7), rater="anna", prompt_id=3),
        fact(prefer(0, 1), (6, 7), rater="bob", prompt_id=3),
    ]
    (found,) = agreements(facts)
    assert (found.units, found.prompts) == (5, 3)  # three of the ranking, two pairs
    assert found.estimates["exact"].value == pytest.approx(3 / 5)
    assert found.estimates["relaxed"].value == pytest.approx(3.5 / 5)
    assert found.estimates["decisive"].value == pytest.approx(3 / 4)
    assert found.estimates["decisive"].n == 4
    pairs = [[1, 1], [1, 1], [1, 0], [2, 1], [-1, 1]]
    scale = (-2, -1, 0, 1, 2)
    assert found.estimates["alpha_ordinal"].value == pytest.approx(
        value_of(krippendorff("ordinal", scale), count(pairs, scale))
    )


def test_ratings_and_acceptances_agree_by_completion(fact: Make) -> None:
    facts = [
        fact(Verdict("rated", ratings=(5, 1)), (1, 2), rater="anna", prompt_id=1),
        fact(Verdict("rated", ratings=(1, 4)), (2, 1), rater="bob", prompt_id=1),
        fact(Verdict("accepted", accepted=(True, False)), (3, 4), rater="anna", prompt_id=2),
        fact(Verdict("accepted", accepted=(True, True)), (4, 3), rater="bob", prompt_id=2),
    ]
    found = by_name(agreements(facts))
    assert set(found) == {"preferences", "ratings", "acceptances"}
    assert found["ratings"].estimates["exact"].value == 0.5
    assert found["ratings"].estimates["alpha_interval"].value == pytest.approx(
        value_of(krippendorff("interval", FIVE), count([[5, 4], [1, 1]], FIVE))
    )
    assert found["acceptances"].estimates["exact"].value == 0.5
    assert found["preferences"].units == 1  # who accepts both prefers none: that says nothing here
    assert agreements(facts[:1]) == []


def test_two_by_two(fact: Make) -> None:
    facts = []
    for k in range(30):
        facts.append(fact(prefer(0), (2 * k, 2 * k + 1), rater="anna", prompt_id=k))
        facts.append(fact(prefer(k % 2), (2 * k, 2 * k + 1), rater="bob", prompt_id=k))
        if k < 10:
            facts.append(fact(tied(), (2 * k, 2 * k + 1), rater="cleo", prompt_id=k))
    found = pairs_of_raters(facts)
    assert [(one.one, one.other) for one in found] == [("anna", "bob"), ("anna", "cleo"), ("bob", "cleo")]
    assert (found[0].exact.value, found[0].exact.n) == (0.5, 30)
    assert found[0].kappa.value == pytest.approx(0.0)
    assert (found[1].exact.value, found[1].exact.enough) == (0.0, False)
    assert len(pairs_of_raters(facts, most=1)) == 1
    assert pairs_of_raters(facts[:1]) == []


def test_numpy_is_not_loaded_for_the_labelling_screen() -> None:
    program = (
        "import sys, json\n"
        "import rlhf_tui.preferences.statistics, rlhf_tui.preferences.nudges, rlhf_tui.preferences.project_report\n"
        "import rlhf_tui.preferences.report_text\n"
        "print(json.dumps([name for name in ('numpy', 'torch', 'pyarrow') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
