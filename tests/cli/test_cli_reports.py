"""Results in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rlhf_tui.assessment.records import Accuracy, LabelFacts, Normalisation, Report, TrainingFacts, Verdict
from rlhf_tui.assessment.report import save_report
from rlhf_tui.doctor import Check
from rlhf_tui.preferences.intervals import Estimate, rate
from rlhf_tui.project import Project
from rlhf_tui.reports import examination, report, run_summary
from rlhf_tui.runs.events import Done, Stage
from rlhf_tui.runs.folder import RunFolder, create_run

Results = dict[str, dict[str, Any]]


def test_generate(results: Results) -> None:
    assert report("generate", results["generate"]) == (
        "12 candidates sampled for 6 prompts: 5 new pairs wait for your judgement ('rlhf-tui label').\n"
        "Left out: 1 prompts longer than model.max_prompt_tokens."
    )


def test_candidates_that_are_too_alike_are_told() -> None:
    text = report("generate", {"completions": 8, "prompts": 2, "pairs": 2, "near_duplicates": 3})
    assert text.splitlines()[1:] == ["Left out: 3 candidates too like another one (label.max_similarity)."]


def test_reward_beside_its_baselines(results: Results) -> None:
    assert report("reward", results["reward"]).splitlines() == [
        "Learnt from 160 judged pairs (raters: demo, ann).",
        "Accuracy on 40 held-out pairs   80.0%   95 % interval [65.2%, 89.5%]",
        "  always pick the shorter      70.0%",
        "  always pick the longer       30.0%",
    ]


def test_reward_without_held_out_pairs(results: Results) -> None:
    assert "cannot be said" in report("reward", results["reward"] | {"heldout": None})


VERDICT = {
    "verdict": "narrow",
    "headline": "Usable for a narrow taste: right about 64 % (58 to 70 %) of new pairs.",
    "because": [
        "Right about 64 % (58 to 70 %) of 240 pairs in cross-validation (a quick head on the base's features)."
    ],
    "todo": "Label about 120 more pairs and train again. Or use it as it is: best-of-n shows what it would choose.",
    "report": "/somewhere/runs/reward-0002/report.md",
}


def test_reward_says_the_verdict_first_then_the_numbers_then_where_the_report_is(results: Results) -> None:
    text = report("reward", results["reward"] | VERDICT)
    assert text.splitlines() == [
        "~ Usable for a narrow taste: right about 64 % (58 to 70 %) of new pairs.",
        "  · Right about 64 % (58 to 70 %) of 240 pairs in cross-validation (a quick head",
        "    on the base's features).",
        "→ Label about 120 more pairs and train again. Or use it as it is: best-of-n",
        "  shows what it would choose.",
        "",
        *report("reward", results["reward"]).splitlines(),
        "The whole report: /somewhere/runs/reward-0002/report.md",
    ]


@pytest.mark.parametrize(("level", "mark"), [("ready", "✓"), ("narrow", "~"), ("not_yet", "…"), ("broken", "✗")])
def test_every_verdict_has_a_mark_that_needs_no_colour(level: str, mark: str, results: Results) -> None:
    assert report("reward", results["reward"] | VERDICT | {"verdict": level}).startswith(f"{mark} Usable")


def test_a_verdict_of_a_later_version_and_a_hostile_one_are_still_printed(results: Results) -> None:
    later = {"verdict": "splendid", "headline": "Splendid.\x1b[2J", "heldout": None}
    text = report("reward", results["reward"] | later)
    assert text.splitlines()[0] == "· Splendid.[2J"
    assert "cannot be said" not in text  # the verdict has said it


def a_report() -> Report:
    """A report with little in it."""
    return Report(
        run="reward-0001",
        labels=LabelFacts("abc", "snapshot.jsonl", (), "half", 5, 40, 40, 30, 10, 1, 20, ("ann",), 0),
        verdict=Verdict("not_yet", "Not yet — label about 40 more pairs.", ("Too few.",), "Judge them.", 40),
        measured_on="heldout",
        heldout=Accuracy(rate(6, 9), 0.66, 1),
        crossvalidated=None,
        crossvalidated_by="",
        train=None,
        ceiling=None,
        baselines=(),
        by_strength=(),
        by_rater=(),
        by_length=(),
        calibration=None,
        length_correlation=Estimate(None, None, None, 0, False),
        disagreements=(),
        curve=None,
        preview=(),
        findings=(),
        normalisation=Normalisation(0.0, 1.0, 40, "judged candidates"),
        ensemble=None,
        training=TrainingFacts(2, 2, False, 8, 0, False),
    )


def test_the_report_of_a_run_as_text_markdown_and_json(
    project: Project, fake_run: Callable[..., RunFolder], cli: Any
) -> None:
    run = fake_run(project, "reward", [Done("finished", result={})])
    save_report(a_report(), run.path)
    here = ("--project", project.root)
    text = cli("runs", "report", "1", *here)
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("Not yet — label about 40 more pairs.\n")
    assert max(map(len, text.out.splitlines())) <= 80
    markdown = cli("runs", "report", "reward-0001", "--markdown", *here).out
    assert markdown == (run.path / "report.md").read_text()
    document = json.loads(cli("runs", "report", "1", "--json", *here).out)
    assert document == json.loads((run.path / "report.json").read_text())


def test_a_run_without_a_report_says_why(project: Project, fake_run: Callable[..., RunFolder], cli: Any) -> None:
    fake_run(project, "reward", [Stage("loading the model")])
    fake_run(project, "ppo", [Done("finished")])
    broken = fake_run(project, "reward", [Done("finished")])
    (broken.path / "report.json").write_text("{")
    said = cli("runs", "report", "1", "--project", project.root)
    assert said.code == 2
    assert "reward-0001 has no report.\nIt is crashed" in said.err
    said = cli("runs", "report", "2", "--project", project.root)
    assert (said.code, said.out) == (2, "")
    assert "ppo-0002 trained no reward model." in said.err
    said = cli("runs", "report", "3", "--project", project.root)
    assert said.code == 1
    assert "is damaged" in said.err


def test_ppo(results: Results) -> None:
    assert report("ppo", results["ppo"]) == "10 updates on 320 completions."
    early = report("ppo", results["ppo"] | {"ended": "the KL passed guard.max_kl"})
    assert early.endswith("It was ended early: the KL passed guard.max_kl.")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.6, 1.1, "above 0"), (-1.1, -0.2, "below 0"), (-0.1, 0.4, "0 is inside: not shown to differ")],
)
def test_compare_says_which_side_of_zero(low: float, high: float, verdict: str, results: Results) -> None:
    text = report("compare", results["compare"] | {"low": low, "high": high})
    assert f"[{low:+.2f}, {high:+.2f}] ({verdict})" in text
    assert "-0.21 → +0.64" in text
    assert "51 → 23 tokens" in text
    assert "50% → 90%" in text
    assert "12.3 nats an answer [11.0, 13.6]" in text


def test_export(results: Results) -> None:
    assert report("export", results["export"]).splitlines() == [
        "Merged model: /somewhere/exports/merged-0005",
        "Checked against the tuned model: KL 2.5e-06 nats a token, same first choice at 99.5% of 400 positions.",
    ]
    assert report("export", {"format": "adapter", "path": "/x"}) == "Adapter model: /x"


def test_demo_is_all_of_them_and_who_shaped_it(results: Results) -> None:
    text = report("demo", results["demo"])
    for kind in ("generate", "reward", "ppo", "compare", "export"):
        assert f"{kind}\n  {report(kind, results[kind]).splitlines()[0]}" in text
    assert text.endswith("the answers are no more true than before.")


def test_a_run_in_words(project: Project, fake_run: Callable[..., RunFolder], results: Results) -> None:
    made = fake_run(
        project, "ppo", [Done("finished", result=results["ppo"])], overrides=["ppo.clip=0.1"], parents={"demo": "d-1"}
    )
    text = run_summary(made)
    assert text.startswith("ppo-0001  finished  (made ")
    assert "Settings of its own: ppo.clip=0.1" in text
    assert "Part of or built on: d-1" in text
    assert "10 updates on 320 completions." in text
    failed = fake_run(project, "ppo", [Done("failed", "No card.", {"what": "No card.", "why": "Why.", "todo": "Do."})])
    assert "No card.\nWhy.\nDo." in run_summary(failed)
    assert "'rlhf-tui runs resume ppo-0003' goes on." in run_summary(fake_run(project, "ppo", [Done("stopped")]))
    crashed = fake_run(project, "ppo", [Stage("loading the model")])
    crashed.log_path.write_text("Segmentation fault\n")
    assert "Segmentation fault" in run_summary(crashed)
    assert "It has not been started" in run_summary(create_run(project, "ppo"))


def test_the_examination_puts_advice_under_its_line() -> None:
    text = examination([Check("python", "ok", "3.11.9"), Check("disk", "problem", "full", "Free some.")])
    assert text.splitlines() == [
        "ok       python           3.11.9",
        "PROBLEM  disk             full",
        f"{'':26}Free some.",
    ]
