"""A monkey at the keyboard finds nothing; and it would find what it is there for, when that is planted."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from textual.screen import Screen

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import WritingDialog
from rlhf_tui.project import create_project
from rlhf_tui.runs.control import request
from tests.app.monkey import Seen, play, play_scene, screen_classes
from tests.app.monkey_acts import RULES, Act, Press, explained, inventory, watching
from tests.app.monkey_cage import SCENES
from tests.app.project_states import add_pairs, judge_all

KEYS, EACH = 840, 60


@pytest.mark.timeout(600)
async def test_random_keys_over_every_kind_of_project_find_nothing() -> None:
    seen = await play(seed=1, keys=KEYS, each=EACH)
    assert seen.findings == []
    assert seen.keys >= KEYS - 2 * len(SCENES)
    missed = screen_classes() - seen.screens
    # So few keys come to two screens of three, a few more or less with the pace of the machine: it gets around. All of
    # them are on top in tests/bench/monkey.py.
    assert len(missed) <= len(screen_classes()) // 2, missed


def test_every_screen_of_the_app_is_known_to_the_monkey() -> None:
    assert {
        "PpoScreen",
        "LabelScreen",
        "RejudgeScreen",
        "HomeScreen",
        "ConfirmDialog",
        "TypedValue",
    } <= screen_classes()


# What is planted is found


async def planted(scene: str, keys: int = 60) -> str:
    """What the monkey finds in a few keys on one project, most of which are those of the stages."""
    seen = Seen()
    await play_scene(next(one for one in SCENES if one.name == scene), 1, keys, seen)
    return "\n".join(seen.findings)


async def test_a_key_that_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RlhfApp, name: str) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(RlhfApp, "action_stage", broken)
    found = await planted("empty")
    assert "a bug: Traceback" in found
    assert "ZeroDivisionError: planted" in found


async def test_a_thread_that_fails_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(
        RlhfApp, "action_stage", lambda self, name: self.run_worker(fails, thread=True, exit_on_error=False)
    )
    assert "a worker failed: ZeroDivisionError('planted')" in await planted("empty")


async def test_an_app_that_falls_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_key(self: Screen[None]) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("rlhf_tui.app.screens.model.ModelScreen.on_key", on_key, raising=False)
    assert "it fell over: ZeroDivisionError('planted')" in await planted("empty", keys=12)


async def test_a_run_that_is_stopped_without_a_question_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(self: RlhfApp, name: str) -> None:
        run = self.overview.steered(self.current_mode)
        if run is not None:
            request(run.folder, "stop")

    monkeypatch.setattr(RlhfApp, "action_stage", stops)
    assert "nobody asked to stop here/my-assistant/runs/ppo-0006" in await planted("running ppo")


async def test_a_checkpoint_that_is_removed_without_a_question_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def removes(self: RlhfApp, name: str) -> None:
        for path in self.overview.project.root.glob("runs/*/checkpoints/*"):
            shutil.rmtree(path)

    monkeypatch.setattr(RlhfApp, "action_stage", removes)
    found = await planted("finished, ppo")
    assert "nobody asked to delete here/my-assistant/runs/ppo-0003/checkpoints/step-000010" in found
    assert "delete of what was there: my-assistant/runs/ppo-0003/checkpoints/step-000010/manifest.json" in found


async def test_a_text_that_is_given_up_without_a_question_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WritingDialog, "action_close", lambda self: self.dismiss(None))
    monkeypatch.setattr(
        RlhfApp, "action_stage", lambda self, name: self.push_screen(WritingDialog("A planted text", ""))
    )
    assert "nobody asked to discard A planted text" in await planted("empty", keys=120)


# What the table of acts says


def told(act: Act, *presses: tuple[str, str]) -> bool:
    return explained(act, [Press(*press) for press in presses])


def test_a_run_is_stopped_only_by_the_answer_to_the_question() -> None:
    stop = Act("stop", "here/my-assistant/runs/ppo-0006")
    assert told(stop, ("ConfirmDialog: Stop the run", "y"))
    assert not told(stop, ("ConfirmDialog: Stop the run", "n"))
    assert not told(stop, ("PpoScreen", "full_stop"))
    assert not told(stop, ("ChatScreen", "ctrl+t"))
    assert not told(stop, ("ConfirmDialog: Off the list", "y"))


def test_a_run_is_started_only_on_its_own_stage() -> None:
    assert told(Act("start", "ppo"), ("PpoScreen", "enter"))
    assert not told(Act("start", "ppo"), ("RewardScreen", "enter"))
    assert not told(Act("start", "ppo"), ("PpoScreen", "click"))


@pytest.mark.parametrize("act", [Act("delete", "here/my-assistant/preferences.db"), Act("outside", "os.system")])
def test_what_no_rule_knows_is_never_explained(act: Act) -> None:
    presses = [Press(screen, key) for rule in RULES for screen, keys in rule.by for key in keys]
    assert not explained(act, presses)


# What is heard and what is seen


def test_what_is_done_to_files_is_heard(tmp_path: Path) -> None:
    for name in ("kept", "old", "gone", "moved"):
        (tmp_path / name).write_text("something")
    (tmp_path / "folder").mkdir()
    with watching(tmp_path) as watch:
        (tmp_path / "kept").read_text()
        with open(tmp_path / "kept", "a") as more:
            more.write("more")
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").unlink()
        (tmp_path / "beside").write_text("x")
        os.replace(tmp_path / "beside", tmp_path / "old")
        (tmp_path / "gone").unlink()
        (tmp_path / "moved").rename(tmp_path / "elsewhere")
        shutil.rmtree(tmp_path / "folder")
    assert watch.taken() == [
        Act("overwrite", "old"),
        Act("delete", "gone"),
        Act("delete", "moved"),
        Act("delete", "folder"),
    ]


def test_what_was_made_before_is_old_once_all_is_calm(tmp_path: Path) -> None:
    with watching(tmp_path) as watch:
        (tmp_path / "new").write_text("x")
        watch.calm()
        (tmp_path / "new").write_text("")
    assert watch.taken() == [Act("overwrite", "new")]


def test_programs_and_connections_are_heard_and_refused(tmp_path: Path) -> None:
    with watching(tmp_path) as watch:
        with pytest.raises(PermissionError):
            subprocess.run(["true"], check=False)
        with socket.socket() as line, pytest.raises(PermissionError):
            line.connect(("192.0.2.1", 80))
    assert [act.kind for act in watch.taken()] == ["outside", "outside"]
    subprocess.run(["true"], check=True)  # deaf again


def test_a_judgement_that_is_gone_is_seen(tmp_path: Path) -> None:
    project = create_project(tmp_path / "my-assistant")
    add_pairs(project)
    judge_all(project, "ann", kind="human")
    before = inventory(tmp_path)
    assert before.missing(inventory(tmp_path)) == []
    with closing(sqlite3.connect(project.root / "preferences.db")) as database:
        database.execute("DROP TRIGGER judgement_item_no_delete")
        database.execute("DELETE FROM judgement_item WHERE judgement_id = 1")
        database.commit()
    (project.root / "rlhf.toml").write_text("")
    assert [act.what for act in before.missing(inventory(tmp_path))] == [
        "my-assistant/rlhf.toml",
        "my-assistant/preferences.db: judgement_item",
    ]
