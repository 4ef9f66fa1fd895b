"""The demo in a real terminal: the app opens on it, follows the loop, labels by keys, and can be left."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui.project import open_project
from rlhf_tui.runs.folder import latest

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Terminal:
    """A tmux server of its own with one pane."""

    def __init__(self, columns: int, rows: int) -> None:
        self._server = f"rlhf-test-{uuid.uuid4().hex[:8]}"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "sh")

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, what: str | Callable[[], bool], seconds: float = 120) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            screen = self.screen()
            if what in screen if isinstance(what, str) else what():
                return screen
            time.sleep(0.2)
        raise AssertionError(f"waited in vain for {what!r}; the screen is:\n{self.screen()}")

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-L", self._server, *words], capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal(80, 24)
    yield opened
    opened.close()


def test_the_demo_runs_in_the_app_and_the_fresh_pairs_can_be_labelled(
    terminal: Terminal, tiny_folder: Path, small_demo: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    settings = " ".join(shlex.quote(f"--set={text}") for text in (*small_demo, f"model.name={tiny_folder}"))
    terminal.type(f"{shlex.quote(sys.executable)} -m rlhf_tui demo {shlex.quote(str(folder))} {settings}")
    terminal.wait_for("1 ✓ Model")

    def finished() -> bool:
        if not (folder / "rlhf.toml").exists():
            return False
        run = latest(open_project(folder), "demo")
        return run is not None and run.status() in ("finished", "failed", "crashed")

    terminal.wait_for(finished, seconds=240)
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

    def judged() -> bool:
        with open_project(folder).store() as store:
            return store.counts().judgements == before + 1

    terminal.wait_for(judged, seconds=20)
    terminal.press("Escape")
    terminal.wait_for("Prompts and labels")  # and not at once: Escape and a letter together are another key
    terminal.press("q")
    terminal.wait_for("opens it again", seconds=20)
