"""The demo in a real terminal: the app opens on it, follows the loop, labels by keys, and can be left."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_tui.project import open_project
from rlhf_tui.runs.folder import latest
from tests.terminal import Terminal

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal(80, 24) as opened:
        yield opened


def test_the_demo_runs_in_the_app_and_the_fresh_pairs_can_be_labelled(
    terminal: Terminal, tiny_folder: Path, small_demo: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    settings = " ".join(shlex.quote(f"--set={text}") for text in (*small_demo, f"model.name={tiny_folder}"))
    terminal.type(f"{shlex.quote(sys.executable)} -m rlhf_tui demo {shlex.quote(str(folder))} {settings}")
    terminal.wait_for("1 ✓ Model")

    def finished(_: str) -> bool:
        if not (folder / "rlhf.toml").exists():
            return False
        run = latest(open_project(folder), "demo")
        return run is not None and run.status() in ("finished", "failed", "crashed")

    terminal.wait_for(finished, "the demo to end", seconds=240)
    run = latest(open_project(folder), "demo")
    assert run is not None
    assert run.status() == "finished", run.log_tail(20)
    terminal.press("5")
    terminal.wait_for("RLHF tunes behaviour")
    with open_project(folder).store() as store:
        before = store.counts().judgements
    terminal.press("2")
    terminal.wait_for("Prompts and labels")
    terminal.press("l")
    terminal.wait_for("A better")
    time.sleep(0.5)  # answers are ignored for 300 ms after a pair appears
    terminal.press("f")

    def judged(_: str) -> bool:
        with open_project(folder).store() as store:
            return store.counts().judgements == before + 1

    terminal.wait_for(judged, "the judgement to be stored")
    terminal.press("Escape")
    terminal.wait_for("Prompts and labels")  # and not at once: Escape and a letter together are another key
    terminal.press("q")
    terminal.wait_for("opens it again")
