"""The event file that grows while a run does: TensorBoard reads it, and its trouble is never the run's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.project import Project
from rlhf_tui.runs import tensorboard
from rlhf_tui.runs.events import Alert, Event, Metric, Sample, Stamped
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.tensorboard import LiveBoard, shown_live
from rlhf_tui.runs.worker import execute
from rlhf_tui.settings import RunSettings

Events = Callable[[RunFolder], list[Stamped]]


def board(folder: Path) -> Any:
    """TensorBoard's own reader, which can be asked again for what has been written since."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(folder))


def points(reader: Any) -> dict[str, list[tuple[int, Any]]]:
    from tensorboard.util import tensor_util

    reader.Reload()
    tags = reader.Tags()["tensors"]
    return {
        tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto).item()) for e in reader.Tensors(tag)] for tag in tags
    }


def test_every_event_can_be_read_at_once(tmp_path: Path) -> None:
    reader = board(tmp_path / "live")
    live = LiveBoard(tmp_path / "live")
    live(Sample(1, "Why?", "So.", {}, "policy"))
    live(Metric(1, {"score": 0.5}))
    assert set(points(reader)) == {"policy/1", "score"}
    live(Metric(2, {"score": 0.75}))
    assert points(reader)["score"] == [(1, 0.5), (2, 0.75)]
    live.close()
    live.close()
    (file,) = (tmp_path / "live").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "live").stat().st_mode & 0o777 == 0o700


def test_a_run_taken_up_again_takes_back_what_the_lost_execution_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the clock was set back in between, and although the second one's samples come before its metrics."""

    def update(live: LiveBoard, step: int, score: float) -> None:
        live(Sample(step, "Why?", f"{score}", {}, "policy"))
        live(Metric(step, {"score": score}))
        if step % 2 == 0:
            live(Metric(step, {"heldout": score}))

    lost = LiveBoard(tmp_path)
    for step in range(1, 6):
        update(lost, step, 99.0 if step > 3 else step)
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1_000_000.0)
    again = LiveBoard(tmp_path)  # the first was killed, and never closed
    update(again, 4, 4.0)
    found = points(board(tmp_path))
    assert found["score"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert found["heldout"] == [(2, 2.0), (4, 4.0)]
    assert [step for step, _ in found["policy/1"]] == [1, 2, 3, 4]
    assert b"4.0" in found["policy/1"][-1][1]
    update(again, 3, 3.5)  # the run itself went back to a better policy
    assert points(board(tmp_path))["score"] == [(1, 1.0), (2, 2.0), (3, 3.5)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_run_that_only_has_samples_shows_them_all(tmp_path: Path) -> None:
    live = LiveBoard(tmp_path)
    for step in range(40):
        live(Sample(step, "a", "b", {}, "before"))
        live(Sample(step, "a", "c", {}, "after"))
    live.close()
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    reader = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    found = points(reader)
    assert [step for step, _ in found["before/1"]] == [step for step, _ in found["after/1"]] == list(range(40))
    short = LiveBoard(tmp_path / "short")
    short(Sample(0, "a", "b"))
    short.close()
    assert set(points(board(tmp_path / "short"))) == {"sample/1"}


def test_the_worker_writes_it_when_asked(project: Project, stages: str, events: Events) -> None:
    run = create_run(project, "quick", overrides=["run.tensorboard=true"])
    assert execute(project, run, stages=stages).status == "finished"
    assert points(board(run.path / "tensorboard"))["loss"] == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert [event for _, event in events(run) if isinstance(event, Alert)] == []
    plain = create_run(project, "quick")
    execute(project, plain, stages=stages)
    assert not (plain.path / "tensorboard").exists()


@pytest.mark.parametrize("call", ["__init__", "__call__", "close"])
def test_its_trouble_is_one_alert_and_the_run_goes_on(
    project: Project, stages: str, events: Events, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LiveBoard, call, broken)
    run = create_run(project, "quick", overrides=["run.tensorboard=true"])
    assert execute(project, run, stages=stages).status == "finished"
    told = [event for _, event in events(run)]
    (alert,) = [event for event in told if isinstance(event, Alert)]
    assert (alert.level, alert.code) == ("warning", "tensorboard-off")
    assert "No space left" in alert.why
    assert len([event for event in told if isinstance(event, Metric)]) == 3


def test_without_the_package_the_alert_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    heard: list[Event] = []
    with shown_live(tmp_path / "live", RunSettings(tensorboard=True), heard.append) as emit:
        emit(Metric(1, {"a": 1.0}))
    alert, metric = heard
    assert isinstance(alert, Alert)
    assert "rlhf-tui[tensorboard]" in alert.why
    assert metric == Metric(1, {"a": 1.0})
    assert not (tmp_path / "live").exists()


def test_writing_imports_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rlhf_tui.runs.tensorboard import LiveBoard; "
        "LiveBoard(Path(sys.argv[1])).close(); print({'torch', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()", done.stderr
