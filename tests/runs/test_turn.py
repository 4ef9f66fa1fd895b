"""One project, one model in memory: who has it, who waits, in which order, and what a waiting run hears."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from rlhf_tui import settings
from rlhf_tui.project import Project
from rlhf_tui.reports import run_document, run_summary
from rlhf_tui.runs.control import Control, StopRequested, StopSignal, request
from rlhf_tui.runs.events import Alert, Done, Event, Launch, Progress, Stage, Stamped
from rlhf_tui.runs.folder import MODEL_LOCK, WAITING, RunFolder, create_run
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import follow, launch
from rlhf_tui.runs.preflight import require_ready
from rlhf_tui.runs.turn import HAS_TURN, WAITS, ModelBusy, Turn, model_holder, waits_for
from rlhf_tui.runs.worker import execute

Start = Callable[..., RunFolder]
Until = Callable[..., None]
Events = Callable[[RunFolder], list[Stamped]]


def stages_of(run: RunFolder) -> list[Stage]:
    return [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Stage)]


def pid_of(run: RunFolder) -> int:
    launches = [event for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Launch)]
    return launches[-1].pid


def works(run: RunFolder) -> bool:
    return any(isinstance(event, Progress) for _, event in JournalReader(run.events_path).read(60))


def test_a_second_run_waits_says_for_whom_and_begins_by_itself(start: Start, until: Until, project: Project) -> None:
    first = start("steady")
    until(lambda: works(first), "the first one works")
    second = start("quick")
    until(lambda: second.status() == "queued", "the second one is queued")
    until(lambda: stages_of(second) != [], "it says why")
    assert stages_of(second) == [Stage(WAITS, f"{first.name} has it")]
    assert model_holder(project) == first
    assert waits_for(second) == first.name
    assert run_document(second)["waits_for"] == first.name
    assert f"It begins when {first.name} has ended" in run_summary(second)
    assert first.status() == "running"
    request(first, "stop")
    done = follow(second, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == "finished"
    assert first.status() == "stopped"
    assert [stage.name for stage in stages_of(second)] == [WAITS, HAS_TURN]
    assert list(second.control_dir.iterdir()) == []


@pytest.mark.parametrize("way", ["request", "signal"])
def test_a_waiting_run_can_be_stopped_and_leaves_the_other_alone(way: str, start: Start, until: Until) -> None:
    first, second = start("steady"), start("quick")
    until(lambda: second.status() == "queued", "the second one is queued")
    if way == "request":
        request(second, "stop")
    else:
        os.kill(pid_of(second), signal.SIGTERM)
    done = follow(second, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == second.status() == "stopped"
    assert first.status() == "running"


def test_a_killed_holder_makes_way_and_a_killed_waiter_does_not_hold_the_queue_up(start: Start, until: Until) -> None:
    first, second, third = start("steady"), start("steady"), start("quick")
    for run in (second, third):
        until(lambda run=run: run.status() == "queued", f"{run.name} is queued")
    os.kill(pid_of(second), signal.SIGKILL)
    until(lambda: second.status() == "crashed", "the waiting one is gone")
    os.kill(pid_of(first), signal.SIGKILL)
    done = follow(third, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == "finished"


def test_a_paused_run_keeps_its_turn_and_whoever_waits_is_told(start: Start, until: Until, project: Project) -> None:
    first = start("steady")
    until(lambda: works(first), "the first one works")
    request(first, "pause")
    until(lambda: first.status() == "paused", "the first one is paused")
    assert model_holder(project) == first
    second = start("quick")
    told = Stage(WAITS, f"{first.name} has it, though it is paused")
    until(lambda: told in stages_of(second), "it says that the other one is paused")
    before = len(stages_of(first))
    request(first, "resume")
    until(lambda: len(stages_of(first)) > before and first.status() == "running", "the paused one goes on at once")
    assert second.status() == "queued"


def test_who_waits_longest_goes_first(project: Project) -> None:
    runs = [create_run(project, "quick") for _ in range(3)]
    holder = Turn(project, create_run(project, "steady"))
    holder.take_or_refuse()
    order: list[str] = []

    def wait(run: RunFolder) -> None:
        with run.lock():
            turn = Turn(project, run)
            turn.wait(Control([run.control_dir], signals=StopSignal()), lambda event: None)
            order.append(run.name)
            turn.release()

    threads = []
    queued = [runs[2], runs[0], runs[1]]  # not the order of their numbers: that of their coming
    for run in queued:
        thread = threading.Thread(target=wait, args=(run,))
        thread.start()
        threads.append(thread)
        while not (run.control_dir / WAITING).exists():
            thread.join(0.005)
    holder.release()
    for thread in threads:
        thread.join(30)
    assert order == [run.name for run in queued]


def test_a_save_asked_of_a_waiting_run_does_not_cost_its_place(start: Start, until: Until) -> None:
    start("steady")
    early, late = start("quick"), start("quick")
    for run in (early, late):
        until(lambda run=run: (run.control_dir / WAITING).exists(), f"{run.name} is queued")
    before = [(run.control_dir / WAITING).read_text() for run in (early, late)]
    request(early, "save")
    until(lambda: not (early.control_dir / "save").exists(), "the request is taken")
    request(early, "save")
    until(lambda: not (early.control_dir / "save").exists(), "it is heard again: it waits on")
    assert [(run.control_dir / WAITING).read_text() for run in (early, late)] == before
    assert early.status() == "queued"


def test_a_run_paused_while_it_waits_lets_the_others_pass(project: Project, until: Until) -> None:
    early, late = create_run(project, "quick"), create_run(project, "quick")
    holder = Turn(project, create_run(project, "steady"))
    holder.take_or_refuse()
    heard: list[Event] = []

    def wait() -> None:
        with early.lock():
            Turn(project, early).wait(
                Control([early.control_dir], emit=heard.append, signals=StopSignal()), heard.append
            )

    def stopped() -> None:
        with pytest.raises(StopRequested):
            wait()

    thread = threading.Thread(target=stopped)
    thread.start()
    until(lambda: early.status() == "queued", "it is queued")
    request(early, "pause")
    until(lambda: early.status() == "paused", "it is paused")
    holder.release()
    turn = Turn(project, late)
    turn.wait(Control([late.control_dir], signals=StopSignal()), lambda event: pytest.fail("it had to wait"))
    request(early, "resume")
    until(lambda: early.status() == "queued", "it is queued again")
    request(early, "stop")
    thread.join(30)
    turn.release()
    names = [event.name for event in heard if isinstance(event, Stage)]
    assert names == [WAITS, "paused", "resumed", WAITS]


def test_refused_when_the_user_chose_that_and_nothing_is_left_behind(
    project: Project, start: Start, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start("steady")
    settings.write(project.config, "run.when_busy", "refuse")
    monkeypatch.setattr("rlhf_tui.runs.preflight._NEEDS", {"generate": lambda project, settings: None})
    monkeypatch.setattr("rlhf_tui.runs.preflight.locate.require", lambda name, revision: None)
    with pytest.raises(ModelBusy, match=f"The generate run was not started: {first.name} has the model"):
        require_ready(project, "generate", project.settings())
    second = create_run(project, "quick")
    with pytest.raises(ModelBusy, match=f"runs stop {first.name}"):
        launch(project, second, stages=stages)
    monkeypatch.setattr("rlhf_tui.runs.launcher.require_free", lambda *given: None)  # it was free a moment ago
    with pytest.raises(ModelBusy, match=second.name):
        launch(project, second, stages=stages)
    with pytest.raises(ModelBusy):
        execute(project, second, stages=stages)
    assert second.status() == "new"
    assert not second.events_path.exists()


def test_a_part_needs_no_turn_of_its_own(project: Project, stages: str) -> None:
    whole = create_run(project, "nested", options={"child": "quick"}, overrides=["run.when_busy=refuse"])
    assert execute(project, whole, stages=stages).status == "finished"
    assert model_holder(project) is None
    assert (project.runs / MODEL_LOCK).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "../..", "nobody-0009", "\udcff", "a\0b"])
def test_a_strange_content_of_the_lock_names_nobody(project: Project, content: str) -> None:
    (project.runs / MODEL_LOCK).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert model_holder(project) is None


def test_a_run_of_a_version_without_the_setting_waits(project: Project, stages: str, run: RunFolder) -> None:
    run.record_path.write_text(run.record_path.read_text().replace('"when_busy": "wait"', '"seed": 7'))
    assert execute(project, RunFolder(run.path), stages=stages).status == "finished"


def test_it_says_when_it_builds_on_a_newer_adapter_than_it_was_made_for(
    project: Project, stages: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    def trained(name: str) -> None:
        project.adapter("reward").mkdir(parents=True, exist_ok=True)
        (project.adapter("reward") / "manifest.json").write_text(json.dumps({"facts": {"run": name}}))

    trained("reward-0001")
    run = create_run(project, "ppo")
    trained("reward-0005")
    assert isinstance(execute(project, run, stages=stages), Done)
    (alert,) = [event for _, event in events(run) if isinstance(event, Alert)]
    assert alert.code == "other-adapter"
    assert "reward-0005" in alert.message
    assert "reward-0001" in alert.why
