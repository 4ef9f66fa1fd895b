"""What is saved of a run that broke off: a true sentence for every kind, as each kind saves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import worker
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.events import Done, Launch
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter
from rlhf_tui.runs.saved import saved, way_on


def leave(run: RunFolder, *files: str) -> RunFolder:
    """Put files into the run's folder; a checkpoint's state says the step that its folder is named after."""
    for name in files:
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digits = path.parent.name.removeprefix("step-")
        path.write_text(json.dumps({"done": int(digits)}) if digits.isdecimal() else "{}")
    return run


REWARD_BETWEEN = ("fits/member-1/fit.json", "fits/fold-0/fit.json", "checkpoints/fold-0/step-000090/state.json")
CASES = [
    ("ppo", (), "No checkpoint was saved: {resume} begins anew."),
    ("ppo", ("checkpoints/best/policy/adapter",), "No checkpoint was saved: {resume} begins anew."),
    ("ppo", ("checkpoints/step-000040/state.json",), "Step 40 is saved: {resume} goes on from there."),
    ("reward", (), "No checkpoint was saved: {resume} begins anew."),
    (
        "reward",
        ("checkpoints/member-1/step-000020/state.json", "checkpoints/member-1/step-000040/state.json"),
        "Step 40 is saved: {resume} goes on from there.",
    ),
    ("reward", ("fits/member-1/fit.json",), "1 of its models is trained: {resume} goes on from there."),
    ("reward", REWARD_BETWEEN, "2 of its models are trained: {resume} goes on from there."),
    (
        "reward",
        (*REWARD_BETWEEN, "checkpoints/fold-1/step-000010/state.json", "fits/fold-1/adapter/weights"),
        "2 of its models are trained and step 10 of the next one is saved: {resume} goes on from there.",
    ),
    ("generate", (), "Nothing was sampled yet: {resume} begins anew."),
    ("generate", ("plan.json",), "The candidates sampled so far are in the project: {resume} goes on from there."),
    ("compare", ("answers/before-000000.json.partial",), "No answer was kept: {resume} begins anew."),
    (
        "compare",
        ("answers/before-000000.json",),
        "The answers sampled so far are kept: {resume} goes on from there.",
    ),
    ("export", (), "An export is in its place whole or not at all: {resume} writes it if it is not there."),
    ("bench", (), "A bench saves nothing on its way: {resume} measures again."),
    ("demo", (), "No stage was finished: {resume} begins anew."),
]


@pytest.mark.parametrize(("kind", "files", "sentence"), CASES)
def test_what_each_kind_has_saved(kind: str, files: Sequence[str], sentence: str, project: Project) -> None:
    run = leave(create_run(project, kind), *files)
    assert way_on(run) == sentence.format(resume=f"'rlhf-tui runs resume {run.name}'")


def test_a_killed_reward_run_does_not_begin_anew(project: Project) -> None:
    run = leave(create_run(project, "reward"), "checkpoints/member-1/step-000040/state.json")
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, 1, "box", "0"))
    end = ending(run)
    assert end is not None
    assert end.todo.startswith("Step 40 is saved")


def part_of(demo: RunFolder, project: Project, kind: str, *files: str, finished: bool = False) -> RunFolder:
    part = leave(create_run(project, kind, parents={"demo": demo.name}), *files)
    with JournalWriter(part.events_path) as journal:
        if finished:
            journal(Done("finished"))
    return part


def test_a_demo_keeps_its_finished_stages_and_what_is_saved_of_the_one_it_was_at(project: Project) -> None:
    demo = create_run(project, "demo")
    resume = f"'rlhf-tui runs resume {demo.name}'"
    create_run(project, "generate").record_path.write_text("broken")
    part_of(demo, project, "generate", finished=True)
    assert way_on(demo) == f"Generate is finished: {resume} goes on from there."
    part_of(demo, project, "reward", finished=True)
    part = part_of(demo, project, "ppo")
    assert way_on(demo) == f"Generate and reward are finished: {resume} goes on from there."
    assert way_on(part) == f"No checkpoint was saved: {resume} begins this stage anew."
    leave(part, "checkpoints/step-000007/state.json")
    said = f"Generate and reward are finished, and in {part.name} step 7 is saved: {resume} goes on from there."
    assert way_on(demo) == said
    assert way_on(part) == f"Step 7 is saved: {resume} goes on from there."


def test_what_is_saved_goes_with_every_failure_but_is_said_once(project: Project) -> None:
    demo = create_run(project, "demo")
    part = part_of(demo, project, "reward", "fits/member-1/fit.json")
    failed = worker._failure(part, UserError("No.", todo="Do this."))
    assert failed.error is not None
    assert failed.error["todo"].startswith("Do this. 1 of its models is trained: ")
    of_whole = worker._failure(demo, UserError(failed.error["what"], todo=failed.error["todo"]))
    assert of_whole.error is not None
    assert of_whole.error["todo"] == failed.error["todo"]


def test_what_was_wrong_from_the_start_broke_nothing_off(project: Project) -> None:
    done = worker._failure(create_run(project, "compare"), UserError("No.", todo="Do this."))
    assert done.error is not None
    assert done.error["todo"] == "Do this."


def test_a_checkpoint_that_was_being_written_does_not_count(project: Project, tmp_path: Path) -> None:
    run = create_run(project, "ppo")
    (run.checkpoints / "step-000009").mkdir(parents=True)
    leave(run, "checkpoints/step-000008.old/state.json")
    (run.checkpoints / "step-000010").mkdir()
    (run.checkpoints / "step-000010" / "state.json").write_text("{")
    assert saved(run) == ""


def test_a_folder_that_is_gone_promises_nothing(tmp_path: Path) -> None:
    assert "no longer there" in way_on(RunFolder(tmp_path / "ppo-0001"))
