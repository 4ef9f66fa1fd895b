"""Runs of a newer version: looked at as far as they are understood, and otherwise left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.reports import run_document, run_summary
from rlhf_tui.runs.control import Verb, request
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.events import Launch, Progress
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.launcher import follow, launch
from rlhf_tui.runs.versions import NewerVersion, newer_version

VERBS: list[Verb] = ["pause", "resume", "save", "stop"]


def record_of(run: RunFolder, **changed: Any) -> RunFolder:
    tree = msgspec.json.decode(run.record_path.read_bytes())
    run.record_path.write_bytes(msgspec.json.encode({**tree, **changed}))
    return RunFolder(run.path)


@pytest.fixture(params=["record", "journal"])
def newer(request: pytest.FixtureRequest, project: Project) -> RunFolder:
    """A run with a file of version 2."""
    run = create_run(project, "ppo")
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, 1, "box", "9.1"))
        journal(Progress(3, 9, "updates"))
    if request.param == "record":
        return record_of(run, v=2, versions={"rlhf_tui": "9.1"}, mood="good")
    with run.events_path.open("ab") as file:
        file.write(b'{"v":2,"t":1e9,"type":"progress","done":4,"total":9,"mood":1}\n{"v":2,"t":1e9,"type":"dream"}\n')
    return run


def test_it_can_be_looked_at(newer: RunFolder, project: Project) -> None:
    assert [run.status() for run in list_runs(project)] == ["crashed"]
    assert ending(newer) is not None
    assert newer.name in run_summary(newer)
    assert run_document(newer)["status"] == "crashed"
    heard = [event for _, event in JournalReader(newer.events_path).read(60)]
    assert Progress(3, 9, "updates") in heard
    assert follow(newer, lambda stamped: None) is None


def test_it_is_not_taken_up(newer: RunFolder, project: Project, stages: str) -> None:
    before = newer.events_path.read_bytes()
    with pytest.raises(NewerVersion, match="belongs to a newer version") as caught:
        launch(project, newer, stages=stages)
    assert "is of version 2" in caught.value.why
    assert "knows version 1" in caught.value.why
    assert "Use that version" in caught.value.todo
    assert newer.events_path.read_bytes() == before
    assert newer.holder().pid == 0


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_not_steered(newer: RunFolder, verb: Verb) -> None:
    with newer.lock(), pytest.raises(NewerVersion):
        request(newer, verb)
    assert list(newer.control_dir.iterdir()) == []


def test_who_made_it_is_named(run: RunFolder) -> None:
    assert newer_version(run.record_path, run.events_path) == ""
    found = record_of(run, v=3, versions={"rlhf_tui": "9.1"})
    assert "version 3, written by rlhf-tui 9.1" in newer_version(found.record_path, found.events_path)


def test_a_record_that_means_something_else_is_not_called_broken(run: RunFolder) -> None:
    with pytest.raises(NewerVersion):
        _ = record_of(run, v=2, settings=[]).record
    with pytest.raises(UserError, match="cannot be read"):
        _ = record_of(run, v=1, settings=[]).record


def test_broken_files_are_not_newer(run: RunFolder) -> None:
    run.record_path.write_text("{")
    run.events_path.write_bytes(b"{\n")
    assert newer_version(run.record_path, run.events_path) == ""
