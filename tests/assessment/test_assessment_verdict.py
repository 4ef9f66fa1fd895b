"""The verdict: what each rater and each model should be told, and that luck is never called ready."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rlhf_tui.assessment.detectors import CATALOGUE, finding
from rlhf_tui.assessment.grounds import measured_on
from rlhf_tui.assessment.measures import accuracy
from rlhf_tui.assessment.records import Curve, CurvePoint, RaterAgreement, Report
from rlhf_tui.assessment.report import build_report
from rlhf_tui.assessment.thresholds import READY_WAY
from rlhf_tui.assessment.verdict import THRESHOLDS
from rlhf_tui.preferences.consistency import reliability
from rlhf_tui.preferences.intervals import Estimate, rate


def gaps(n: int, right: float, seed: int = 0) -> list[float]:
    """Gaps of which exactly this share is right."""
    rng = np.random.default_rng(seed)
    found = 0.1 + np.abs(rng.normal(size=n))
    found[: n - round(right * n)] *= -1
    return rng.permutation(found).tolist()


@pytest.fixture
def report(make):
    def of(*args, **named) -> Report:
        return build_report(make.evidence(*args, **named))

    return of


@pytest.fixture
def judged(make, report):
    """The verdict on a model that is right about this share of `n` held-out pairs."""

    def of(right: float, n: int, **named):
        return report((), make.pairs(gaps(n, right)), **named).verdict

    return of


# -- what must never be called ready ------------------------------------------------------------------


def test_a_random_rater_is_never_ready(make, report) -> None:
    """Random gaps and lengths, 20 to 400 held-out pairs: what a coin gives is 'not yet', or by bad luck 'broken'."""
    levels: Counter[str] = Counter()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(20, 401))
        lengths = rng.integers(5, 200, size=(n, 2))
        named = {"better_length": lengths[:, 0].tolist(), "worse_length": lengths[:, 1].tolist()}
        heldout = make.pairs(rng.normal(size=n).tolist(), better_text="", worse_text="", **named)
        levels[report((), heldout).verdict.level] += 1
    assert set(levels) <= {"not_yet", "broken"}
    assert levels["not_yet"] > 140


def test_a_random_rater_is_never_ready_however_it_is_measured(make, report) -> None:
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        n = int(rng.integers(30, 400))
        cross = make.pairs(rng.normal(size=n).tolist(), better_text="", worse_text="")
        heldout = make.pairs(rng.normal(size=n // 8).tolist(), start=5000, better_text="", worse_text="")
        by = "lora" if seed % 2 else "probe"
        assert report((), heldout, cross, cross_by=by).verdict.level in ("not_yet", "broken")


def test_luck_that_the_usual_interval_would_believe_is_not_believed(judged) -> None:
    """61 of 100: the 95 % interval is above one half, and a coin still gets there once in 70 looks."""
    found = judged(0.61, 100)
    assert found.level == "not_yet"
    assert found.because[1] == "That may be luck: a coin gets as far once in 70 times."
    assert judged(0.67, 100).level != "not_yet"


@pytest.mark.parametrize("side", ["longer", "shorter"])
def test_a_rater_of_length_alone_is_named_and_never_ready(make, report, side: str) -> None:
    """The model has learnt it perfectly: it is right about every pair, and so is the rule."""
    lengths = (
        {"better_length": 80, "worse_length": 20} if side == "longer" else {"better_length": 20, "worse_length": 80}
    )
    found = report(make.pairs([1.0] * 200, start=1000, **lengths), make.pairs([1.0] * 120, **lengths))
    assert found.verdict.level == "narrow"
    assert f"picks the {side} one" in found.verdict.headline
    assert any(one.name == "length" for one in found.findings)
    assert found.verdict.more_labels is None


def test_a_rater_of_length_whom_the_model_has_hardly_learnt_is_named_too(make, report) -> None:
    lengths = {"better_length": 80, "worse_length": 20}
    found = report(make.pairs(gaps(100, 0.9), start=1000, **lengths), make.pairs(gaps(40, 0.6), **lengths))
    assert found.verdict.level == "not_yet"
    assert any("longer one was called better in 100 %" in reason for reason in found.verdict.because)


def test_equal_scores_are_broken_and_not_right(make, report) -> None:
    found = report((), make.pairs([0.0] * 100))
    assert found.verdict.level == "broken"
    assert found.verdict.headline.startswith("Broken — because all completions score about the same")
    assert found.heldout.rate.share == 0.5


def test_ties_do_not_make_a_model_ready(make, report) -> None:
    """300 ties that it scores apart the one way, 20 decided pairs that it gets right."""
    pairs = (*make.pairs([2.0] * 300, tie=True, strength=0), *make.pairs([2.0] * 20, start=400))
    found = report((), pairs)
    assert found.verdict.level == "not_yet"
    assert (found.heldout.rate.n, found.heldout.ties) == (20, 300)


# -- the levels in turn -------------------------------------------------------------------------------


def test_ready(judged) -> None:
    found = judged(0.78, 150)
    assert found.level == "ready"
    assert found.headline == "Ready: right about 78 % (71 to 84 %) of new pairs."
    assert "shaped by whoever did the rating" in found.todo
    assert "RLHF tunes behaviour, not facts" in found.todo
    assert found.more_labels is None


@pytest.mark.parametrize(
    ("right", "n", "level"),
    [
        (0.9, 29, "not_yet"),
        (0.83, 30, "ready"),
        (0.5, 400, "not_yet"),
        (0.58, 400, "not_yet"),
        (0.6, 400, "narrow"),
        (0.64, 600, "narrow"),
        (0.66, 600, "ready"),
        (0.3, 150, "broken"),
        (0.43, 400, "not_yet"),  # by luck: once in 200 looks
    ],
)
def test_the_thresholds(judged, right: float, n: int, level: str) -> None:
    assert judged(right, n).level == level


def test_below_the_way_to_the_ceiling_it_is_narrow(judged) -> None:
    """70 % is half way from a coin to a rater who is right 90 % of the time; 'ready' asks for 60 % of it: 74 %."""
    steady = Estimate(0.9, 0.85, 0.95, 60, True)
    found = judged(0.7, 300, ceiling=steady)
    assert found.level == "narrow"
    assert any("60 % of the way there from a coin: 74 %" in reason for reason in found.because)
    assert judged(0.75, 300, ceiling=steady).level == "ready"
    assert judged(0.7, 300, ceiling=Estimate(0.9, 0.6, 1.0, 8, False)).level == "ready"  # too few repeats to ask that


def test_no_better_than_length_is_narrow(make, report) -> None:
    """Right about 70 %, as the longer one is, though not about the same pairs."""
    longer = np.array([1] * 140 + [0] * 60)
    lengths = {"better_length": np.where(longer, 80, 20).tolist(), "worse_length": np.where(longer, 20, 80).tolist()}
    found = report((), make.pairs(gaps(200, 0.7), **lengths)).verdict
    assert found.level == "narrow"
    assert any("Always picking the longer one is right about 70 %" in reason for reason in found.because)


def test_a_warning_that_narrows_is_the_headline(make, judged) -> None:
    agreement = (RaterAgreement("anna", "ben", rate(4, 30)),)
    found = judged(0.8, 200, agreement=agreement)
    assert found.level == "narrow"
    assert found.headline.startswith("Usable for a narrow taste: two raters contradict each other: anna and ben")
    assert "reward.raters" in found.todo


@pytest.mark.parametrize("detector", CATALOGUE, ids=lambda detector: detector.name)
def test_some_warnings_narrow_and_others_are_only_told(judged, detector) -> None:
    narrow = detector.name in ("length", "contradiction", "unsteady", "worse than its start", "ending")
    found = judged(0.8, 200, findings=(finding(detector.name, "warning", "Something was seen. And more."),))
    assert found.level == ("narrow" if narrow else "ready")
    if narrow:
        assert found.headline == "Usable for a narrow taste: something was seen."
        assert found.because[1] == "And more."
        assert found.todo == detector.remedy


def test_what_is_broken_comes_before_everything(judged) -> None:
    found = judged(0.9, 200, invariance=0.5)
    assert found.level == "broken"
    assert "differently alone and in a batch" in found.headline


def test_a_model_that_prefers_the_worse_is_broken_even_when_another_number_decides(make, report) -> None:
    found = report((), make.pairs(gaps(60, 0.2)), make.pairs(gaps(300, 0.75), start=1000)).verdict
    assert found.level == "broken"
    assert found.headline == "Broken — because it prefers the worse ones."


def test_without_anything_to_measure_it_is_not_yet(report) -> None:
    found = report()
    assert (found.verdict.level, found.verdict.more_labels, found.measured_on) == ("not_yet", 30, "")


# -- which pairs decide -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heldout", "cross", "by", "expected"),
    [
        (120, 400, "probe", "heldout"),
        (99, 400, "probe", "crossvalidated"),
        (99, 60, "probe", "heldout"),
        (120, 400, "lora", "crossvalidated"),
        (120, 20, "lora", "heldout"),
        (0, 5, "probe", "crossvalidated"),
        (5, 0, "", "heldout"),
        (0, 0, "", ""),
    ],
)
def test_which_pairs_decide(make, heldout: int, cross: int, by: str, expected: str) -> None:
    found = [accuracy(make.pairs(gaps(n, 0.7))) if n else None for n in (heldout, cross)]
    assert measured_on(*found, by) == expected


def test_pairs_of_enough_prompts_decide_over_more_pairs_of_too_few(make) -> None:
    many, few = accuracy(make.pairs(gaps(60, 0.7))), accuracy(of_prompts(make, 19, 0.8, each=100))
    for by in ("probe", "lora"):
        assert measured_on(few, many, by) == "crossvalidated"
        assert measured_on(many, few, by) == "heldout"
    one = accuracy(of_prompts(make, 1, 0.8))
    assert measured_on(one, None, "") == "heldout"
    assert measured_on(None, one, "probe") == "crossvalidated"


def test_a_quick_head_is_not_ready_for_the_model(make, report) -> None:
    """Cross-validation decides; the model that PPO will use must have been measured, and must agree."""
    cross = make.pairs(gaps(400, 0.75), start=1000)
    assert report((), make.pairs(gaps(30, 0.7)), cross).verdict.level == "ready"
    unmeasured = report((), (), cross).verdict
    assert unmeasured.level == "narrow"
    assert "Judge about 20 more pairs of held-out prompts" in unmeasured.todo
    few = report((), make.pairs(gaps(15, 0.8)), cross).verdict
    assert (few.level, few.more_labels) == ("narrow", 140)  # of 28 judged pairs one is held out
    worse = report((), make.pairs(gaps(30, 0.54)), make.pairs(gaps(400, 0.7), start=1000)).verdict
    assert worse.level == "narrow"
    assert any("The trained model itself is right about 53 %" in reason for reason in worse.because)
    assert report((), (), cross, cross_by="lora").verdict.level == "ready"


# -- how many more ------------------------------------------------------------------------------------


def curve(to_ready: int | None, gain: tuple[float, float, float] = (0.01, 0.002, 0.02)) -> Curve:
    return Curve((CurvePoint(1.0, 100, 0.6, 0.5, 0.7),), gain, 0.8, to_ready)


def test_too_few_are_told_how_many_make_enough(make, judged) -> None:
    """9 of 12 held out of 60: 30 take 90 more; at 75 % luck is ruled out before that."""
    found = judged(0.75, 12, labels=make.labels(48, 12))
    assert (found.level, found.more_labels) == ("not_yet", 160)
    assert found.headline == "Not yet — label about 160 more pairs."


def test_where_hardly_a_held_out_prompt_is_judged_those_are_asked_for(make, judged) -> None:
    found = judged(1.0, 3, labels=make.labels(500, 3))
    assert (found.level, found.more_labels) == ("not_yet", 30)
    assert "All of them should be of held-out prompts" in found.todo


def test_where_all_are_of_a_few_prompts_others_are_asked_for(make, report) -> None:
    """90 pairs, 30 of a prompt: it is not pairs that are missing."""
    lumps = make.pairs([1.0] * 60 + [-1.0] * 30, prompt=[f"p{place // 30}" for place in range(90)])
    found = report((), (), lumps, labels=make.labels(90, 0, prompts=3)).verdict
    assert (found.level, found.more_labels) == ("not_yet", 17)
    assert found.headline == "Not yet — label pairs of 17 more prompts."
    assert found.because[1].startswith("These are pairs of only 3 prompts, and it takes 20 to say anything")
    assert "More pairs of the same prompts will not do" in found.todo


def test_where_one_prompt_has_nearly_all_of_the_pairs_others_are_asked_for(make, report) -> None:
    """There are prompts enough, and by all but one of them nothing can be told."""
    names = ["p0"] * 200 + [f"p{place}" for place in range(1, 26)]
    found = report((), (), make.pairs(gaps(225, 0.8), prompt=names), labels=make.labels(225, 0, prompts=26)).verdict
    assert found.level == "not_yet"
    assert found.because[1].startswith("That is worth fewer than 30 pairs")
    assert "Each should be of another prompt" in found.todo


def of_prompts(make, prompts: int, right: float, each: int = 10):
    """So many pairs of each prompt, of which this share is right, with a little scatter between prompts."""
    found = []
    for place in range(prompts):
        count = round(right * each) + (place % 3 - 1)
        found += [1.0] * count + [-1.0] * (each - count)
    return make.pairs(found, prompt=[f"p{place // each}" for place in range(len(found))])


@pytest.mark.parametrize(("right", "level"), [(0.8, "ready"), (0.2, "broken")])
def test_no_number_of_pairs_makes_up_for_prompts(make, report, right: float, level: str) -> None:
    def judged(prompts: int, each: int):
        heldout = of_prompts(make, prompts, right, each)
        return report((), heldout, labels=make.labels(0, len(heldout), prompts=prompts)).verdict

    assert judged(20, 10).level == level
    few = judged(19, 100)
    assert (few.level, few.more_labels) == ("not_yet", 1)
    assert few.headline == "Not yet — label pairs of 1 more held-out prompt."
    one = judged(1, 100)
    assert (one.level, one.more_labels) == ("not_yet", 19)
    assert one.headline == "Not yet — label pairs of 19 more held-out prompts."
    assert one.because[0] == f"Right about {79 if right > 0.5 else 19} % (0 to 100 %) of 100 pairs of held-out prompts."
    assert one.because[1].startswith("These are pairs of one prompt, and it takes 20")


def test_of_new_prompts_some_are_of_no_use_to_cross_validation(make, report) -> None:
    """10 of 15 judged prompts are measured: the 10 that are missing take 15."""
    found = report((), (), of_prompts(make, 10, 0.8), labels=make.labels(100, 50, prompts=15)).verdict
    assert found.headline == "Not yet — label pairs of 15 more prompts."


def test_few_pairs_of_few_prompts_are_told_how_many_pairs(make, judged) -> None:
    """12 pairs, one of a prompt: 8 prompts are missing, 18 pairs, and to rule out luck at 75 %, 31."""
    assert judged(0.75, 12, labels=make.labels(0, 12)).headline == "Not yet — label about 40 more pairs."


def test_what_it_takes_to_rule_out_luck(make, judged) -> None:
    """58 % of 200: the 99.9 % interval is above one half from 3.29² / 4 / 0.08² = 423 pairs on."""
    found = judged(0.58, 200, labels=make.labels(0, 200))
    assert (found.level, found.more_labels) == ("not_yet", 230)
    assert "luck is ruled out" in found.todo


def test_the_curve_may_be_quicker_than_luck(make, judged) -> None:
    found = judged(0.54, 100, labels=make.labels(300, 100), curve=curve(480))
    assert found.more_labels == 240  # 180 more to train on are 240 judged pairs
    assert "The curve is where 'ready' asks by then." in found.todo


def test_with_few_labels_nobody_says_that_labels_do_not_help(make, judged) -> None:
    found = judged(0.5, 60, labels=make.labels(60, 60))
    assert (found.level, found.more_labels) == ("not_yet", 80)
    assert "From about 200 on" in found.todo


def test_with_many_it_is_said_plainly(make, judged) -> None:
    found = judged(0.5, 120, labels=make.labels(400, 120))
    assert found.headline == "Not yet — more labels alone will not do it."
    assert found.more_labels is None
    for help_ in ("ask for one thing", "largest disagreements", "bigger base"):
        assert help_ in found.todo


def test_more_labels_to_ready_come_from_the_curve(make, judged) -> None:
    found = judged(0.62, 400, labels=make.labels(400, 400), curve=curve(550))
    assert (found.level, found.more_labels) == ("narrow", 300)
    assert found.todo.startswith("Label about 300 more pairs and train again.")


def test_a_slow_curve_is_told_as_slow(make, judged) -> None:
    found = judged(0.62, 400, labels=make.labels(400, 400), curve=curve(4000))
    assert found.more_labels is None
    assert "50 more labels are expected to add +1.0 points (+0.2 to +2.0)" in found.todo


def test_without_a_curve_nobody_knows_that_labels_do_not_help(make, judged) -> None:
    assert "Nothing shows that more labels alone would lift it." in judged(0.5, 120, labels=make.labels(400, 120)).todo


def test_the_way_to_the_ceiling_is_as_far_as_a_second_careful_person_gets() -> None:
    """66 % agreement is two people who are each right about 78 %, and is 57 % of the way from a coin to that."""
    right = reliability(0.66)
    assert right == pytest.approx(0.78, abs=0.005)
    assert (0.66 - 0.5) / (right - 0.5) == pytest.approx(0.57, abs=0.005)
    assert pytest.approx(0.57, abs=0.05) == READY_WAY


def test_every_threshold_has_a_value_and_a_reason() -> None:
    assert len(THRESHOLDS) >= 6
    assert all(name and value and reason.endswith(".") for name, value, reason in THRESHOLDS)
