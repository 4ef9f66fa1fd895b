"""Metrics and samples leave a run as a table, as lines of JSON and as TensorBoard's event files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import exporting
from rlhf_tui.runs.events import Done, Event, Launch, Memory, Metric, Progress, Sample, Stage, encode
from rlhf_tui.runs.exporting import export_metrics
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

T0 = 1_760_000_000.25  # 2025-10-09 08:53:20.25 UTC
FORMS = ("csv", "jsonl", "tensorboard")


def written(project: Project, kind: str, *events: Event) -> RunFolder:
    """A run whose journal holds these events, ten seconds apart."""
    run = create_run(project, kind)
    run.events_path.write_bytes(b"".join(encode(event, T0 + 10 * at) for at, event in enumerate(events)))
    return run


def launch(run: str = "ppo-0001", kind: str = "ppo") -> Launch:
    return Launch(run, kind, 1, "box", "0.1")


@pytest.fixture
def resumed(project: Project) -> RunFolder:
    """Two updates, a look at held-out prompts, two more; killed, taken up again at update 3 with other numbers."""
    return written(
        project,
        "ppo",
        launch(),
        Memory("x", 1, 1),
        Sample(1, "Why?", "Because.", {"score": 0.5}, "policy"),
        Metric(1, {"score": 0.5, "kl": 0.125}),
        Progress(1, 9),
        Metric(2, {"score": 0.75, "kl": math.nan}),
        Metric(2, {"heldout_score": 1.5}),
        Sample(3, "lost", "lost", {}, "policy"),
        Metric(3, {"score": 99.0, "kl": 99.0}),
        Metric(4, {"score": 99.0, "kl": 99.0}),
        Metric(4, {"heldout_score": 99.0}),
        launch(),
        Sample(3, "Why?", "Just so,\n“so”.", {}, "policy"),
        Metric(3, {"score": 0.875, "kl": 0.25}),
        Done("stopped"),
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def points(folder: Path) -> dict[str, list[tuple[int, float, Any]]]:
    """What TensorBoard itself reads: by tag, the step, the time and the value of each point."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    board = EventAccumulator(str(folder))
    board.Reload()
    return {
        tag: [(e.step, e.wall_time, tensor_util.make_ndarray(e.tensor_proto).item()) for e in board.Tensors(tag)]
        for tag in board.Tags()["tensors"]
    }


def test_a_table_has_one_row_a_step_and_what_counts_is_what_was_said_last(project: Project, resumed: RunFolder) -> None:
    told = export_metrics(project, resumed, "csv", None)
    assert told.path == project.exports / "ppo-0001.csv"
    assert told.path.read_text() == (
        "run,step,time_utc,score,kl,heldout_score\n"
        "ppo-0001,1,2025-10-09 08:53:50.250,0.5,0.125,\n"
        "ppo-0001,2,2025-10-09 08:54:10.250,0.75,,1.5\n"
        "ppo-0001,3,2025-10-09 08:55:30.250,0.875,0.25,\n"
    )
    assert told.path.stat().st_mode & 0o777 == 0o600
    assert (told.steps, told.metrics, told.samples, told.skipped, told.going_on) == (3, 3, 0, 0, False)
    assert list(project.exports.iterdir()) == [told.path], "nothing is left beside"


def test_lines_of_json_keep_every_metric_event_and_every_sample_that_count(
    project: Project, resumed: RunFolder, tmp_path: Path
) -> None:
    told = export_metrics(project, resumed, "jsonl", tmp_path / "new" / "all.jsonl")
    found = lines(tmp_path / "new" / "all.jsonl")
    assert [(one["type"], one["step"]) for one in found] == [
        ("sample", 1),
        ("metric", 1),
        ("metric", 2),
        ("metric", 2),
        ("sample", 3),
        ("metric", 3),
    ]
    assert found[1] == {
        "type": "metric",
        "run": "ppo-0001",
        "time": T0 + 30,
        "step": 1,
        "values": {"score": 0.5, "kl": 0.125},
    }
    assert found[2]["values"] == {"score": 0.75, "kl": None}
    assert (found[4]["completion"], found[4]["source"]) == ("Just so,\n“so”.", "policy")
    assert told.samples == 2


def test_tensorboard_reads_the_event_file(project: Project, resumed: RunFolder) -> None:
    told = export_metrics(project, resumed, "tensorboard", None)
    assert told.path == project.exports / "ppo-0001-tensorboard"
    found = points(told.path / "ppo-0001")
    assert set(found) == {"score", "kl", "heldout_score", "policy/1"}
    assert found["score"] == [(1, T0 + 30, 0.5), (2, T0 + 50, 0.75), (3, T0 + 130, 0.875)]
    assert found["heldout_score"] == [(2, T0 + 60, 1.5)]
    assert math.isnan(found["kl"][1][2])
    (one, _, first), (three, _, second) = found["policy/1"]
    assert (one, three) == (1, 3)
    assert first.decode() == "**prompt**\n\n    Why?\n\n**completion**\n\n    Because.\n\nscore 0.5"
    assert second.decode().endswith("    Just so,\n    “so”.")


def test_what_a_model_wrote_stays_text_in_tensorboard(project: Project) -> None:
    """No line of it can leave its block of code, where a picture would be fetched from anywhere."""
    evil = "```\n![](https://example.org/x.png)\r\n\n\u2028<script>\x1b[2J\x07"
    run = written(project, "generate", launch(), *[Sample(2, evil, evil, {}, "generate")] * 2)
    export_metrics(project, run, "tensorboard", None)
    found = points(project.exports / f"{run.name}-tensorboard" / run.name)
    assert set(found) == {"generate/1", "generate/2"}, "two samples of one step do not hide each other"
    text = found["generate/1"][0][2].decode()
    assert not set(text) & {"\x1b", "\x07", "\r"}
    assert {line[:4] for line in text.split("\n")} == {"**pr", "**co", "", "    "}


def test_a_demo_leaves_with_its_parts(project: Project) -> None:
    reward = written(project, "reward", launch("reward-0001", "reward"), Metric(5, {"loss": 0.5}))
    ppo = written(project, "ppo", launch("ppo-0002"), Metric(5, {"score": 1.0}))
    parts = [Stage("reward", reward.name), Stage("ppo", ppo.name), Stage("compare", "compare-0009")]
    demo = written(project, "demo", launch("demo-0003", "demo"), *parts)
    told = export_metrics(project, demo, "csv", None)
    assert [(row["run"], row["step"], row["loss"], row["score"]) for row in rows(told.path)] == [
        ("reward-0001", "5", "0.5", ""),
        ("ppo-0002", "5", "", "1.0"),
    ]
    assert told.runs == ("demo-0003", "reward-0001", "ppo-0002")
    assert told.missing == ("compare-0009",)
    board = export_metrics(project, demo, "tensorboard", None).path
    assert sorted(path.name for path in board.iterdir()) == ["ppo-0002", "reward-0001"]
    assert {one["run"] for one in lines(export_metrics(project, demo, "jsonl", None).path)} == {ppo.name, reward.name}


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_goes_on_leaves_as_far_as_it_has_come(project: Project, run: RunFolder, form: str) -> None:
    with run.lock(), JournalWriter(run.events_path) as journal:
        journal(Metric(1, {"loss": 1.0}))
        journal(Sample(1, "a", "b"))
        whole = run.events_path.read_bytes()
        torn = b'broken\n{"v":1,"t":3,"type":"metric","step":2,"val'
        run.events_path.write_bytes(whole + torn)
        told = export_metrics(project, run, form, None)
        assert (told.going_on, told.steps, told.skipped) == (True, 1, 1)
        assert run.events_path.read_bytes() == whole + torn, "nobody but its worker writes to a journal"


@pytest.mark.parametrize("form", FORMS)
def test_a_target_that_exists_is_refused_and_untouched(
    project: Project, resumed: RunFolder, tmp_path: Path, form: str
) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for target in (mine, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="exists already"):
            export_metrics(project, resumed, form, target)
    assert mine.read_text() == "mine"
    export_metrics(project, resumed, form, tmp_path / "new")
    with pytest.raises(UsageError, match="exists already"):
        export_metrics(project, resumed, form, tmp_path / "new")


@pytest.mark.parametrize("form", FORMS)
def test_a_write_that_breaks_off_leaves_nothing(
    project: Project, resumed: RunFolder, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = exporting._WRITERS[form]

    def half(histories: exporting.Histories, path: Path) -> None:
        write(histories, path)
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exporting._WRITERS, form, half)  # type: ignore[index]
    with pytest.raises(UserError, match="cannot be written") as told:
        export_metrics(project, resumed, form, tmp_path / "out" / "x")
    assert told.value.why == "No space left on device"
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_never_measured_is_refused_with_the_reason(project: Project, resumed: RunFolder) -> None:
    with pytest.raises(UsageError, match="'cvs'") as unknown:
        export_metrics(project, resumed, "cvs", None)
    assert unknown.value.why == "Did you mean 'csv'?"
    generate = written(project, "generate", launch("generate-0002", "generate"), Sample(2, "a", "b", {}, "generate"))
    with pytest.raises(UserError, match="no metrics for a table") as only_samples:
        export_metrics(project, generate, "csv", None)
    assert "--to jsonl" in only_samples.value.todo
    assert export_metrics(project, generate, "jsonl", None).samples == 1
    for form in FORMS:
        with pytest.raises(UserError, match="nothing to export"):
            export_metrics(project, create_run(project, "compare"), form, None)


def test_without_the_package_the_error_names_the_extra(
    project: Project, resumed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    for name in [name for name in __import__("sys").modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(__import__("sys").modules, name)
    with pytest.raises(UserError) as told:
        export_metrics(project, resumed, "tensorboard", None)
    assert "pip install 'rlhf-tui[tensorboard]'" in told.value.todo
    assert list(project.exports.iterdir()) == []


def test_part_of_what_a_step_measured_can_be_measured_again(project: Project) -> None:
    run = written(project, "reward", Metric(1, {"a": 1.0, "b": 2.0}), Metric(1, {"b": 3.0}), Metric(1, {"c": 4.0}))
    assert rows(export_metrics(project, run, "csv", None).path) == [
        {"run": run.name, "step": "1", "time_utc": "2025-10-09 08:53:20.250", "a": "1.0", "b": "3.0", "c": "4.0"}
    ]
