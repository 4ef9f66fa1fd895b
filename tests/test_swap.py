"""A folder is there whole or not at all, wherever its writer dies and whoever reads meanwhile."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from rlhf_tui.project import create_project, open_project
from rlhf_tui.swap import heal, heal_all, replacing, sweep


class Killed(BaseException):
    """What ends the writer in the middle."""


def write(folder: Path, text: str) -> None:
    with replacing(folder) as beside:
        (beside / "deep").mkdir()
        (beside / "deep" / "file").write_text(text)


def fail(folder: Path, error: BaseException) -> None:
    with replacing(folder) as beside:
        (beside / "half").write_text("x")
        raise error


def read(folder: Path) -> str:
    return (folder / "deep" / "file").read_text()


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write(tmp_path / "a" / "it", text)
        assert read(tmp_path / "a" / "it") == text
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["it"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "it", "one")
    with pytest.raises(OSError, match="full"):
        fail(tmp_path / "it", OSError("full"))
    assert read(tmp_path / "it") == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("calls", [1, 2])
def test_killed_at_either_renaming_it_is_whole_after_healing(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill runs no cleaning up: neither does this one."""
    folder = tmp_path / "it"
    write(folder, "one")
    real, made = Path.rename, list[Path]()

    def dying(path: Path, target: Path) -> Path:
        made.append(path)
        if len(made) == calls:
            raise Killed
        return real(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", dying)
        broken.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        broken.setattr("rlhf_tui.swap.heal", lambda folder: None)
        with pytest.raises(Killed):
            write(folder, "two")
    assert folder.exists() == (calls == 1)
    sweep(tmp_path)
    assert read(folder) == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_the_only_good_copy_survives_a_second_kill(tmp_path: Path) -> None:
    """Only `.old` is left; the next writer must not clear it away before its own content is in place."""
    folder = tmp_path / "it"
    write(folder, "one")
    folder.rename(tmp_path / "it.old")
    with pytest.raises(Killed):
        fail(folder, Killed())
    assert read(folder) == "one"


def test_an_interrupt_between_the_renamings_brings_the_old_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "it"
    write(folder, "one")
    real = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "it.partial":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "two")
    assert read(folder) == "one"


def test_readers_that_heal_get_in_no_writers_way(tmp_path: Path) -> None:
    folder = tmp_path / "it"
    write(folder, "0")
    over, seen = threading.Event(), set[str]()

    def reader() -> None:
        while not over.is_set():
            heal(folder)
            try:
                seen.add(read(folder))
            except FileNotFoundError:
                continue  # between two renamings

    thread = threading.Thread(target=reader)
    thread.start()
    for turn in range(1, 200):
        write(folder, str(turn))
    over.set()
    thread.join()
    assert read(folder) == "199"
    assert seen <= {str(turn) for turn in range(200)}
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_healing_what_needs_none_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "it", "new")
    shutil.copytree(tmp_path / "it", tmp_path / "it.old")
    (tmp_path / "it.old" / "deep" / "file").write_text("old")
    (tmp_path / "it.partial").mkdir()
    heal_all(tmp_path)
    heal(tmp_path / "nothing")
    assert read(tmp_path / "it") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it", "it.old", "it.partial"]
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["it"]


def test_opening_a_project_brings_back_an_adapter_that_was_being_replaced(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project")
    write(project.adapters / "reward.old", "the only one")
    assert read(open_project(project.root).adapter("reward")) == "the only one"
