"""The list of projects on this machine: what is noted, what is dropped, and what a broken file does."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from rlhf_tui import projects
from rlhf_tui.errors import UsageError
from rlhf_tui.project import create_project


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of their own."""
    folder = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


def roots() -> list[str]:
    return [one.path.name for one in projects.read().known]


def test_on_a_new_machine_there_is_nothing(state: Path) -> None:
    assert projects.read() == projects.Projects()
    assert not state.exists()


def test_the_last_opened_comes_first_and_each_once(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        projects.note(tmp_path / name)
    assert roots() == ["one", "two"]
    assert projects.read().begun


def test_a_project_that_was_only_made_has_not_begun_anything(tmp_path: Path) -> None:
    projects.note(tmp_path / "made", opened=False)
    assert not projects.read().begun
    assert projects.read().known[0].opened == 0
    projects.note(tmp_path / "made")
    before = projects.read().known[0].opened
    projects.note(tmp_path / "made", opened=False)
    assert projects.read().known[0].opened == before > 0


def test_dropping_leaves_the_folder(tmp_path: Path) -> None:
    project = create_project(tmp_path / "mine")
    projects.note(project.root)
    projects.drop(project.root)
    assert roots() == []
    assert projects.read().begun
    assert project.config.is_file()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"projects": 3}', '{"projects": [{}]}', '{"projects": [{"root": 1}, 2]}']
)
def test_a_broken_list_is_an_empty_one_and_is_written_anew(tmp_path: Path, text: str) -> None:
    projects.note(tmp_path / "one")
    projects.list_file().write_text(text)
    assert projects.read().known == ()
    projects.note(tmp_path / "two")
    assert roots() == ["two"]


def test_what_a_later_version_keeps_stays(tmp_path: Path) -> None:
    projects.note(tmp_path / "one")
    tree = json.loads(projects.list_file().read_text())
    projects.list_file().write_text(json.dumps({**tree, "colour": "blue"}))
    projects.note(tmp_path / "two")
    assert json.loads(projects.list_file().read_text())["colour"] == "blue"


def test_a_list_that_cannot_be_written_keeps_nobody_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    projects.note(tmp_path / "one")
    projects.drop(tmp_path / "one")
    assert roots() == []


def test_two_programs_at_a_time_lose_nothing(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(projects.note, [tmp_path / str(number) for number in range(24)])
    assert sorted(map(int, roots())) == list(range(24))


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "LONGEST", 3)
    for number in range(5):
        projects.note(tmp_path / str(number))
    assert roots() == ["4", "3", "2"]


def test_a_new_project_has_its_model_and_is_on_the_list(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    project = projects.new_project(tmp_path / "mine", str(folder), ["ppo.updates=3"])
    assert project.settings().model.name == str(folder)
    assert project.settings().ppo.updates == 3
    assert roots() == ["mine"]
    with pytest.raises(UsageError):
        projects.new_project(tmp_path / "other", "no such model")
    assert roots() == ["mine"]
    assert not (tmp_path / "other").exists()


def test_half_a_project_seems_one(tmp_path: Path) -> None:
    assert not projects.seems_project(tmp_path)
    (tmp_path / "rlhf.toml").write_text("")
    assert projects.seems_project(tmp_path)
