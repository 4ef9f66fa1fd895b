"""The report in words: within 80 columns, plain, complete, and safe whatever people and models wrote."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rlhf_tui.assessment.detectors import CATALOGUE
from rlhf_tui.assessment.figures import coefficient, estimated_share, percent, points, share_and_n
from rlhf_tui.assessment.records import Choice, Curve, CurvePoint, Ensemble, Preview, RaterAgreement, TrainingFacts
from rlhf_tui.assessment.report import build_report
from rlhf_tui.assessment.report_text import help_text, report_markdown, report_text
from rlhf_tui.assessment.thresholds import THRESHOLDS
from rlhf_tui.preferences.intervals import Estimate, rate


@pytest.fixture(scope="session")
def full(make):
    """A report with something in every part of it."""
    rng = np.random.default_rng(0)
    gaps = (np.abs(rng.normal(size=200)) * np.where(rng.random(200) < 0.7, 1, -1)).tolist()
    point = CurvePoint(0.25, 40, 0.58, 0.53, 0.62)
    return build_report(
        make.evidence(
            make.pairs([1.0] * 200, start=1000),
            make.pairs(gaps[:40], prompt_text="A | table\nand *stars* \x1b[31m", better_text="<b>x</b> " * 90),
            make.pairs(gaps, start=1000, rater=["anna_with_a_name_" * 5 if i % 2 else "ben" for i in range(200)]),
            labels=make.labels(200, 40, raters=tuple(f"rater {i}" for i in range(9)), too_long=3),
            ceiling=Estimate(0.9, 0.8, 0.95, 40, True),
            curve=Curve((point,) * 4, (0.012, -0.0001, 0.02), 0.6, 320),
            preview=(Preview("How do I boil an egg?", (Choice(1, "In water. " * 30, 0.1, 3),)),),
            ensemble=Ensemble(3, (0.74, 0.76, 0.72), 0.4),
            agreement=(RaterAgreement("anna", "ben", rate(10, 40)),),
        )
    )


def test_no_line_is_wider_than_80_columns(full, make) -> None:
    for report in (full, build_report(make.evidence())):
        assert max(map(len, report_text(report).splitlines())) <= 80
    assert max(map(len, help_text().splitlines())) <= 80


def test_a_percent_sign_stays_with_its_number(full) -> None:
    for text in (report_text(full), help_text()):
        assert not re.search(r"^\s*%", text, re.MULTILINE)


def test_the_text_of_a_small_report(make) -> None:
    pairs = make.pairs([2.0, 2.0, -1.0] * 50, prompt_text="Q", better_text="yes", worse_text="no")
    text = report_text(build_report(make.evidence((), pairs)))
    assert text.startswith(
        """\
Ready: right about 67 % (59 to 74 %) of new pairs.
  - Measured on 150 pairs of held-out prompts.
  - Always picking the longer one is right about 50 %; the model differs from
    that by +17 points (+6 to +27).
  What next: Look at what it would choose (best-of-n), then start PPO: 4 in the
  app, or 'rlhf-tui train ppo'. The behaviour will be shaped by whoever did the
  rating; RLHF tunes behaviour, not facts.

How often it is right
  the better one scores higher                            log-loss
  on held-out prompts           67 % (59 to 74 %) of 150  0.522
"""
    )


def test_every_part_is_told_in_both_forms(full) -> None:
    for text in (report_text(full), report_markdown(full)):
        for told in (
            "Usable for a narrow taste: two raters contradict each other",
            "prefer the same one in 25 % (14 to 40 %) of the 40 pairs",
            "cross-validated: a quick head",
            "the longer one",
            "by the words alone",
            "by rater",
            "the longer one is better",
            "Is it as sure as it should be",
            "Brier score",
            "+1.2 points (0.0 to +2.0)",
            "seems to level off at about 60 %",
            "320 training pairs",
            "Where you and the model part ways most",
            "best of 1 (+0.10)",
            "rater 0, rater 1, rater 2, rater 3, rater 4 and 4 more",
            "3 were too long and left out",
            "(score - 0.25) / 1.5",
            "3 models that differ in seed and in the fold left out are right about 74 %, 76 %, 72 %",
            "Of a quick head in cross-validation. Off by",
            "This is of a quick head in cross-validation.",
            "1.0x is the usual gap",
            "shaped by whoever did the rating",
        ):
            assert told in re.sub(r"\s+", " ", text), told


def test_what_people_wrote_cannot_paint_the_terminal_or_the_page(full) -> None:
    assert "\x1b" not in report_text(full) + report_markdown(full)
    assert "A | table and *stars*" in report_text(full)
    assert r"A \| table and \*stars\*" in report_markdown(full)
    assert "<b>" not in report_markdown(full).replace(r"\<b\>", "")


def test_rows_of_a_markdown_table_have_equally_many_cells(full) -> None:
    width = None
    for line in report_markdown(full).splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert width in (None, cells)
            width = cells
        else:
            width = None


def test_the_epoch_that_was_kept_is_said_whether_or_not_training_stopped_there(make) -> None:
    for stopped in (False, True):
        training = TrainingFacts(3, 1, stopped, 60, 2, False)
        text = " ".join(report_text(build_report(make.evidence(training=training))).split())
        assert "60 steps in 3 epochs; kept epoch 1, the best on the held-out pairs." in text
        assert "Memory ran out 2 times; it went on in smaller batches." in text
    assert "kept epoch" not in report_text(build_report(make.evidence()))


def test_an_ensemble_without_held_out_pairs_is_no_broken_sentence(make) -> None:
    text = report_text(build_report(make.evidence(ensemble=Ensemble(2, (), 0.0))))
    assert "without held-out pairs there is nothing to hold them against" in " ".join(text.split())


def test_few_pairs_say_nothing_of_how_wide_gaps_should_be(make) -> None:
    found = (report_text(build_report(make.evidence((), make.pairs([4.0, -4.0] * n)))) for n in (6, 60))
    few, many = (" ".join(text.split()) for text in found)
    assert "So few pairs do not show" in few
    assert "too sure of itself" not in few
    assert "too sure of itself" in many
    assert "Of a quick head" not in many  # the trained model on held-out pairs


def test_an_empty_report_says_what_to_do(make) -> None:
    text = report_text(build_report(make.evidence()))
    assert text.startswith("Not yet — label about 30 more pairs.")
    assert "rlhf-tui label" in text


def test_help_explains_every_threshold_and_every_detector() -> None:
    text = " ".join(help_text().split())
    for threshold in THRESHOLDS:
        assert f"{threshold.name}: {threshold.value}" in text
        assert threshold.reason in text
    for detector in CATALOGUE:
        assert f"{detector.name}: {detector.looks_for}." in text
        assert detector.why in text
        assert detector.remedy in text
    for word in ("Ready:", "Usable for a narrow taste:", "Not yet:", "Broken:", "RLHF tunes behaviour, not facts"):
        assert word in text


def test_figures() -> None:
    assert percent(0.714) == "71 %"
    assert share_and_n(rate(71, 100)) == "71 % (61 to 79 %) of 100"
    assert share_and_n(rate(0, 0)) == "none"
    assert points((0.08, -0.004, 0.151)) == "+8 points (0 to +15)"
    assert points((0.0123, 0.001, 0.02), 1) == "+1.2 points (+0.1 to +2.0)"
    assert estimated_share(Estimate(0.9, 0.84, 0.95, 30, True)) == "90 % (84 to 95 %)"
    assert estimated_share(Estimate(None, None, None, 0, False)) == "unknown"
    assert coefficient(Estimate(-0.312, -0.5, 0.1, 9, False)) == "-0.31 (-0.50 to +0.10)"
    assert coefficient(Estimate(0.3, None, None, 9, False)) == "+0.30"
