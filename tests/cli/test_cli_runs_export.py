"""`rlhf-tui runs export`: what it says, as text and as JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_tui.project import Project
from rlhf_tui.runs.events import Done, Metric, Sample
from rlhf_tui.runs.folder import RunFolder


@pytest.fixture
def ppo(project: Project, fake_run) -> RunFolder:  # type: ignore[no-untyped-def]
    events = [Metric(1, {"score": 0.5}), Metric(2, {"score": 1.5}), Sample(2, "Why?", "So."), Done("stopped")]
    return fake_run(project, "ppo", events)


def test_a_table_lands_in_exports(project: Project, ppo: RunFolder, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("runs", "export", "1", "--project", project.root)
    target = project.exports / "ppo-0001.csv"
    assert (said.code, said.err) == (0, "")
    assert said.out == f"{target}: 1 metric over 2 steps of ppo-0001.\n"
    assert [line.split(",")[1::2] for line in target.read_text().splitlines()] == [
        ["step", "score"],
        ["1", "0.5"],
        ["2", "1.5"],
    ]


def test_json_says_the_same(project: Project, ppo: RunFolder, tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    with ppo.events_path.open("ab") as journal:
        journal.write(b"broken\n")
    words = ("runs", "export", ppo.name, "--to", "jsonl", "--project", project.root, "--out", tmp_path / "x.jsonl")
    said = cli(*words, "--json")
    assert json.loads(said.out) == {
        "path": str(tmp_path / "x.jsonl"),
        "format": "jsonl",
        "runs": ["ppo-0001"],
        "steps": 2,
        "metrics": 1,
        "samples": 1,
        "skipped": 1,
        "missing": [],
        "going_on": False,
    }
    (tmp_path / "x.jsonl").unlink()
    with ppo.lock():
        told = cli(*words).out.splitlines()
    assert told[0].endswith("1 metric over 2 steps and 1 sample of ppo-0001.")
    assert told[1:] == [
        "The run goes on: this is what it had told by now.",
        "Left out: 1 broken line of the journal.",
    ]


def test_what_cannot_be_done_is_refused(project: Project, ppo: RunFolder, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("runs", "export", "ppo-0001", "--to", "cvs", "--project", project.root)
    assert (said.code, said.out) == (2, "")
    assert "Did you mean 'csv'?" in said.err
    assert cli("runs", "export", "ppo-0001", "--project", project.root).code == 0
    again = cli("runs", "export", "ppo-0001", "--project", project.root, "--json")
    assert again.code == 2
    assert "exists already" in json.loads(again.out)["error"]["what"]
    assert cli("runs", "export", "9", "--project", project.root).code == 2


def test_settings_that_name_no_program_stop_a_run_before_it_begins(prompted: Project, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("generate", "--project", prompted.root, "--set", "notify.command=no-such-program-here")
    assert said.code == 2
    assert "no-such-program-here" in said.err
    assert list(prompted.runs.iterdir()) == []
