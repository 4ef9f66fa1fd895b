"""A newcomer's whole way, by keys alone, in a terminal of 80x24: from an empty folder to an exported model.

Every key that is pressed stood on the screen just before; `press` asserts it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui.project import open_project
from rlhf_tui.runs.folder import list_runs
from tests.terminal import Terminal, ended

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
#: How a key is written on screen and how tmux calls it.
NAMES = {"⏎": "Enter", "esc": "Escape", "space": "Space", "^s": "C-s"}
#: What differs from the defaults: minutes become seconds. The newcomer finds and changes each in the editor.
SMALLER = {
    "ppo.updates": "2",
    "ppo.rollout_size": "8",
    "ppo.max_new_tokens": "8",
    "generate.max_new_tokens": "12",
    "compare.samples_per_prompt": "1",
}


class Newcomer:
    """Somebody who presses only what the screen says."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def sees(self, what: str | Callable[[str], object], seconds: float = 30) -> str:
        return self._terminal.wait_for(what, seconds=seconds)

    def press(self, key: str, then: str | Callable[[str], object], seconds: float = 30) -> str:
        """Press a key that the screen names, and wait for what comes of it."""
        pattern = re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
        self.sees(lambda screen: pattern.search(screen))
        self._terminal.press(NAMES.get(key, key))
        return self.sees(then, seconds)

    def types(self, text: str, then: str) -> str:
        """Type a text into a line that is empty."""
        self._terminal.write_keys(text)
        return self.sees(then)

    def replaces(self, empty: str, text: str, then: str) -> str:
        """Empty a line, wait until it says what it says when it is `empty`, and type another text.

        Textual empties a line after it has taken the signs that came at the same moment; nobody types as fast.
        """
        self._terminal.press("C-u")
        self.sees(empty)
        return self.types(text, then)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, but for a file of prompts."""
    made = tmp_path / "at-home"
    made.mkdir()
    (made / "mine.txt").write_text("".join(f"say something about number {number}\n" for number in range(20)))
    return made


@pytest.fixture
def newcomer(folder: Path, tmp_path: Path) -> Iterator[tuple[Newcomer, Terminal]]:
    """The app, as it is opened for the first time on this machine."""
    own = {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config", "HF_HOME": "hub"}
    given = " ".join(f"{name}={shlex.quote(str(tmp_path / place))}" for name, place in own.items())
    inner = f"cd {shlex.quote(str(folder))} && exec {shlex.quote(sys.executable)} -m rlhf_tui"
    with Terminal(80, 24, f"env {given} sh -c {shlex.quote(inner)}") as terminal:
        yield Newcomer(terminal), terminal


def begin(user: Newcomer, model: Path) -> None:
    """From the first start to a project of one's own."""
    user.press("n", "▸ Folder")
    user.replaces("A name is needed", "mine", "Folder   mine ")
    user.press("⏎", "▸ Model")
    user.replaces("A model is needed", str(model), "a model folder")
    user.press("⏎", "▸ Prompts")
    user.replaces("or nothing for now", "mine.txt", "20 prompts")
    user.press("⏎", "[2 · Pairs]")


def make_small(user: Newcomer) -> None:
    """Change settings in the editor, found by name."""
    user.press("e", "Find")
    for key, value in SMALLER.items():
        user.press("/", "To the list")
        user.types(key, f"Find  {key}")
        user.press("⏎", "⏎ Change")
        user.press("⏎", "⏎ store")
        user.replaces("Nothing is typed yet", value, f"{value}  ")
        user.press("⏎", f"stored: {key} is {value}")
        user.press("esc", re.compile(r" of \d\d+ ─╯").search)  # all settings are listed again
    user.press("esc", "[2 · Pairs]")


def judge_ten(user: Newcomer) -> None:
    """Ten judgements, by the two keys in the middle."""
    user.press("l", "A better")
    for number in range(1, 11):
        before = user.sees(f"pair {number} of")
        time.sleep(0.4)  # answers are ignored for 300 ms after a pair appears
        user.press("f" if number % 2 else "j", lambda screen, before=before: screen != before)
    user.press("esc", "Prompts and labels")


def done(sign: str) -> Callable[[str], bool]:
    """Whether nothing runs any more and the screen says `sign`."""
    return lambda screen: sign in screen and "○ idle" in screen


def test_from_an_empty_folder_to_an_exported_model(
    newcomer: tuple[Newcomer, Terminal], folder: Path, tiny_folder: Path
) -> None:
    user, terminal = newcomer
    begin(user, tiny_folder)
    make_small(user)
    user.press("⏎", "✓ finished  generate-0001", seconds=120)
    judge_ten(user)
    for number, title, sign in (
        ("3", "Reward", "reward-0002"),
        ("4", "PPO", "✓ finished, update 2"),
        ("5", "Compare", "compare-0004 finished"),
        ("6", "Export", "KL to the tuned model"),
    ):
        user.press(number, f"{number} · {title}]")
        user.press("⏎", done(sign), seconds=120)
    app = terminal.process
    user.press("q", lambda _: ended(app))
    made = open_project(folder / "mine")
    assert {run.kind: run.status() for run in list_runs(made)} == dict.fromkeys(
        ("generate", "reward", "ppo", "compare", "export"), "finished"
    )
    with made.store() as store:
        assert store.counts().judgements == 10
    assert list(made.exports.glob("*/model.safetensors"))
