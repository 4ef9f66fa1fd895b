"""The report: all of it from the evidence, the same every time, and on disk whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from rlhf_tui.assessment.records import (
    Choice,
    Curve,
    CurvePoint,
    Ensemble,
    Preview,
    RaterAgreement,
    Report,
)
from rlhf_tui.assessment.report import build_report, load_report, save_report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.intervals import Estimate, rate


@pytest.fixture(scope="session")
def evidence(make):
    """A run of which everything is known."""
    rng = np.random.default_rng(0)

    def gaps(n: int, right: float) -> list[float]:
        return (np.abs(rng.normal(size=n)) * np.where(rng.random(n) < right, 1, -1)).tolist()

    points = tuple(CurvePoint(share, 160 * share, 0.6 + 0.1 * share, 0.55, 0.75) for share in (0.25, 0.5, 0.75, 1.0))
    return make.evidence(
        make.pairs(gaps(200, 0.95), start=1000),
        make.pairs(gaps(48, 0.75)),
        make.pairs(
            gaps(200, 0.75),
            start=1000,
            rater=["anna" if i % 2 else "ben" for i in range(200)],
            strength=[1 + i % 2 for i in range(200)],
            tie=[i % 20 == 0 for i in range(200)],
        ),
        ceiling=Estimate(0.9, 0.8, 0.95, 40, True),
        curve=Curve(points, (0.012, 0.003, 0.02), 0.78, 320),
        preview=(Preview("How do I boil an egg?", (Choice(1, "In water.", 0.1, 3), Choice(4, "In a pan.", 1.2, 4))),),
        ensemble=Ensemble(3, (0.74, 0.76, 0.72), 0.4),
        agreement=(RaterAgreement("anna", "ben", rate(30, 40)),),
    )


@pytest.fixture(scope="session")
def report(evidence) -> Report:
    return build_report(evidence)


def test_everything_is_there(report: Report, evidence) -> None:
    assert report.measured_on == "crossvalidated"
    assert report.deciding == report.crossvalidated
    assert (report.heldout.rate.n, report.crossvalidated.rate.n, report.train.rate.n) == (48, 190, 200)
    assert report.crossvalidated.ties == 10
    assert [one.name for one in report.baselines] == ["longer", "shorter", "bag of words"]
    assert all(one.rate.n == 190 for one in report.baselines)
    assert {one.name for one in report.by_rater} == {"anna", "ben"}
    assert {one.name for one in report.by_strength} == {"better", "much better"}
    assert sum(one.rate.n for one in report.by_length) == 190
    assert report.length_correlation.n == 200
    assert len(report.calibration.bins) == 4
    assert len(report.disagreements) == 20
    assert (report.labels, report.curve, report.preview) == (evidence.labels, evidence.curve, evidence.preview)
    assert (report.ensemble, report.ceiling, report.v) == (evidence.ensemble, evidence.ceiling, 1)


def test_held_out_pairs_decide_when_there_are_enough(make) -> None:
    found = build_report(make.evidence(make.pairs([1.0] * 30, start=500), make.pairs([1.0, 1.0, -1.0] * 50)))
    assert found.measured_on == "heldout"
    assert found.deciding == found.heldout
    assert found.crossvalidated is None
    assert found.baselines[0].rate.n == 150


def test_the_same_evidence_gives_the_same_report(evidence, report: Report) -> None:
    assert build_report(evidence) == report


def test_an_empty_run_has_a_report_too(make) -> None:
    found = build_report(make.evidence())
    assert (found.measured_on, found.deciding, found.calibration, found.baselines) == ("", None, None, ())
    assert found.verdict.level == "not_yet"


# -- on disk ------------------------------------------------------------------------------------------


def test_it_comes_back_as_it_was(report: Report, tmp_path) -> None:
    save_report(report, tmp_path)
    assert load_report(tmp_path) == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Reward model reward-0003\n\n## ")
    plain = json.loads((tmp_path / "report.json").read_bytes())
    assert (plain["v"], plain["verdict"]["level"]) == (1, report.verdict.level)
    assert msgspec.convert(msgspec.to_builtins(report), Report) == report


def test_no_report_is_none(tmp_path) -> None:
    assert load_report(tmp_path) is None
    assert load_report(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["torn", "empty", "other", "binary", "type"])
def test_a_damaged_report_is_said_to_be(report: Report, tmp_path, damage: str) -> None:
    save_report(report, tmp_path)
    path = tmp_path / "report.json"
    data = path.read_bytes()
    path.write_bytes(
        {
            "torn": data[: len(data) // 2],
            "empty": b"",
            "other": b'{"v": 1}',
            "binary": b"\xff\xfe" + data,
            "type": data.replace(b'"measured_on": "crossvalidated"', b'"measured_on": "nonsense"'),
        }[damage]
    )
    with pytest.raises(UserError, match="damaged") as told:
        load_report(tmp_path)
    assert told.value.why
    assert "train the reward model again" in told.value.todo


def test_a_report_of_a_later_version_is_not_guessed_at(report: Report, tmp_path) -> None:
    save_report(report, tmp_path)
    path = tmp_path / "report.json"
    for later in (path.read_bytes().replace(b'"v": 1', b'"v": 2'), b'{"v": 2, "all": "is called otherwise"}'):
        path.write_bytes(later)
        with pytest.raises(UserError, match="version 2") as told:
            load_report(tmp_path)
        assert told.value.why
        assert "report.md" in told.value.todo


def test_what_cannot_be_written_leaves_what_was_there(report: Report, tmp_path) -> None:
    (tmp_path / "report.md").write_text("the old one")
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError):
        save_report(report, tmp_path)
    assert (tmp_path / "report.md").read_text() == "the old one"
    assert sorted(os.listdir(tmp_path)) == ["report.json", "report.md"]


def test_what_cannot_be_read_is_an_error_of_the_user(tmp_path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match="cannot be read") as told:
        load_report(tmp_path)
    assert told.value.why
    assert told.value.todo.startswith("Check the rights of the file")


def test_reading_and_showing_a_report_needs_no_numpy(report: Report, tmp_path) -> None:
    """The app and the command line start without it."""
    save_report(report, tmp_path)
    code = (
        "import sys, pathlib; from rlhf_tui.assessment.report import load_report; "
        "from rlhf_tui.assessment.report_text import help_text, report_text; "
        "print(len(report_text(load_report(pathlib.Path(sys.argv[1])))), len(help_text())); "
        "sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
