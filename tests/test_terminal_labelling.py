"""Labelling in a real terminal: a long sitting loses no key, no shortcut and no memory; odd texts stay in their panes.

`python tests/bench/label_500.py` does the same with 500 answers instead of the 60 of the test suite.
"""

from __future__ import annotations

import itertools
import os
import random
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from rich.cells import cell_len

from rlhf_tui.app.labelling import GUARD
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.records import HistoryEntry, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store
from rlhf_tui.project import Project, create_project
from tests.terminal import Terminal, ended

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")

ANSWERS = int(os.environ.get("RLHF_TUI_TEST_ANSWERS", "60"))
WARM = ANSWERS // 3  # answers after which everything that is loaded once has been loaded
GROWTH = 4 << 20  # bytes between the two measurements; 0.8 MB were seen over 333 answers
COLUMNS = 100
#: What a model may write. Wherever Textual and terminals disagree about a width, it must not be on screen.
ODD = (
    "\x1b]0;stolen\x07 title",
    "\x1b[2J\x1b[H\x9b31m cleared",
    "\x08\x08\x08\x07\x0e shifted",
    "\u202eright to left\u202c \u2066\u2069\u061c",
    "pass\u200b\u200d\ufeff\xad\u3164word",
    "[red]x[/red] [@click=app.quit]q[/]",
    "日本語 中文 한국어 ＡＢ",
    "\u2764\ufe0f 1\ufe0f\u20e3 \u26a0\ufe0f \U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f600",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0915\u094d\u200d\u0937 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "z" + "\u0301\u0489" * 40 + "algo",
    "\U000e0073\U000e0061\U000e0079 tags",
    "\ue0b0 \ufdd0 \u0378 unknown",
    "tab\there",
)
KEYS = {
    "d": prefer(0, 2),
    "f": prefer(0),
    "Space": tied(),
    "j": prefer(1),
    "k": prefer(1, 2),
    "x": Verdict("both_bad"),
    "s": Verdict("skip"),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Enough pairs for the sitting; every prompt can be told from all others on screen."""
    made = create_project(tmp_path / "long-sitting")
    chance = random.Random(500)
    words = [f"word{n}" for n in range(2000)]
    with made.store() as store, store.transaction():
        rows = [NewPrompt((Message("user", f"<Q{n:04}> Why is it so?"),), "test") for n in range(ANSWERS)]
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("any", "base")
        for prompt in store.prompts():
            texts = [" ".join(chance.choices(words, k=chance.randrange(5, 250))) for _ in range(4)]
            store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
            store.make_tasks(prompt.id)
    return made


@pytest.fixture
def odd_project(tmp_path: Path) -> Project:
    """One pair whose texts try to leave their panes, each in a line of its own."""
    made = create_project(tmp_path / "odd")
    lines = [f"{number:02} {odd} end" for number, odd in enumerate(ODD)]
    with made.store() as store:
        store.add_prompts(
            [NewPrompt((Message("user", "<Q0000> \x1b]0;stolen\x07[b]Why?[/b]"),), "odd")], heldout_fraction=0
        )
        model = store.add_model("any", "base")
        (prompt,) = store.prompts()
        half = len(lines) // 2
        texts = ("\n".join(lines[:half]), "\n".join([*lines[half:], "x" * 50_000]))
        store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
        store.make_tasks(prompt.id)
    return made


@pytest.fixture
def label_in() -> Iterator[Callable[[Project], Terminal]]:
    """Opens the labelling screen of a project in a terminal of 100 x 30."""
    with ExitStack() as opened:

        def label(project: Project) -> Terminal:
            words = [sys.executable, "-m", "rlhf_tui", "label", "--rater", "me", "--project", str(project.root)]
            return opened.enter_context(Terminal(COLUMNS, 30, shlex.join(words)))

        yield label


def on_show(store: Store) -> tuple[int, str]:
    """The newest presentation, and what of its prompt can be seen."""
    row = store.database.row(
        """SELECT p.id, t.prompt_id FROM presentation p JOIN task t ON t.id = p.task_id ORDER BY p.id DESC LIMIT 1"""
    )
    return (0, "") if row is None else (row["id"], store.prompt(row["prompt_id"]).text[:7])


def answer(terminal: Terminal, store: Store, before: int, key: str) -> int:
    """Wait until something new is on screen and may be answered, then press the key once; return what was shown."""

    def new(screen: str) -> bool:
        shown, mark = on_show(store)
        return shown > before and mark in screen

    terminal.wait_for(new, "the next pair", seconds=60)
    time.sleep(GUARD)  # counts from before the pair could be seen: from here on a key is an answer
    shown, _ = on_show(store)
    terminal.press(key)
    return shown


def test_every_key_of_a_long_sitting_is_an_answer_and_the_last_ones_still_work(
    label_in: Callable[[Project], Terminal], project: Project
) -> None:
    terminal = label_in(project)
    chance = random.Random(2026)
    pressed = chance.choices(list(KEYS), weights=[2, 6, 2, 6, 2, 1, 1], k=ANSWERS)
    with project.store() as store:
        app, memory, shown = terminal.process, 0, 0
        for number, key in enumerate(pressed):
            if number == WARM:
                memory = app.memory_info().rss
            shown = answer(terminal, store, shown, key)
        terminal.wait_for(lambda screen: on_show(store)[0] > shown and on_show(store)[1] in screen, "the pair after")
        grown = app.memory_info().rss - memory
        print(f"{memory >> 10} kB after {WARM} answers, {grown >> 10} kB more after {ANSWERS}")
        assert given(store) == [KEYS[key] for key in pressed]
        assert grown < GROWTH
        assert not [line for line in Path(f"/proc/{app.pid}/maps").read_text().splitlines() if "torch" in line]
        try_the_other_keys(terminal, store)
        leave(terminal, app)
        assert given(store) == [KEYS[key] for key in pressed]  # nothing of this was taken for an answer
        assert store.database.rows("PRAGMA integrity_check")[0][0] == "ok"


def test_odd_texts_are_readable_and_stay_in_their_panes(
    label_in: Callable[[Project], Terminal], odd_project: Project
) -> None:
    terminal = label_in(odd_project)
    terminal.wait_for(lambda screen: "00 " in screen and "<Q0000>" in screen, "the pair")
    screen = steady(terminal)
    for number, odd in enumerate(ODD):
        assert " ".join(f"{number:02} {clean(odd)} end".split()) in " ".join(screen.split())
    assert "stolen" not in terminal.title
    with odd_project.store() as store:
        terminal.press("f")
        terminal.wait_for(lambda _: len(entries(store)) == 1, "the answer to be stored")


def test_textual_and_the_terminal_agree_about_the_width_of_odd_texts() -> None:
    """Otherwise the right border of a pane would not stand where Textual thinks it does."""
    with Terminal(COLUMNS, 30, "sleep 1000") as terminal:

        def ends_at(column: int) -> Callable[[str], bool]:
            return lambda _: terminal.column == column

        for odd in ODD:
            terminal.write("\x1b[H\x1b[2J" + clean(odd))
            width = cell_len(clean(odd))
            terminal.wait_for(ends_at(width), f"{odd!a} to be {width} cells wide")


def given(store: Store) -> list[Verdict]:
    """The rater's active answers, the oldest first."""
    return [entry.verdict for entry in reversed(entries(store))]


def entries(store: Store) -> list[HistoryEntry]:
    rater = store.rater("me")
    return store.history(rater.id, limit=10_000) if rater else []


def try_the_other_keys(terminal: Terminal, store: Store) -> None:
    """Undo and redo change the store; windows and views change the screen and give it back."""
    count = len(entries(store))

    def stand(answers: int) -> Callable[[str], bool]:
        return lambda _: len(entries(store)) == answers

    for key, left in (("u", count - 1), ("u", count - 2), ("U", count - 1), ("U", count)):
        terminal.press(key)
        terminal.wait_for(stand(left), f"{key} to leave {left} answers")
    terminal.wait_for(lambda screen: on_show(store)[1] in screen, "the pair that waits")
    open_and_close(terminal, "z", "z", "z")
    open_and_close(terminal, "v", "v")
    for window in ("h", "g", "i", "?"):
        open_and_close(terminal, window, "Escape")


def open_and_close(terminal: Terminal, opening: str, *closing: str) -> None:
    """A key changes the screen, and other keys change it back."""
    plain = steady(terminal)
    terminal.press(opening)
    terminal.wait_for(lambda screen: differing(screen, plain) > 4, f"{opening} to open something")
    for key in closing:
        steady(terminal)
        terminal.press(key)
    terminal.wait_for(lambda screen: differing(screen, plain) <= 2, f"the pair again after {opening}")


def leave(terminal: Terminal, app: psutil.Process) -> None:
    labelling = steady(terminal)
    terminal.press("Escape")
    terminal.wait_for(lambda screen: differing(screen, labelling) > 4, "the screen behind")
    steady(terminal)  # Escape and a letter together are another key
    terminal.press("q")
    terminal.wait_for(lambda _: ended(app), "the app to end")


def steady(terminal: Terminal) -> str:
    """The screen, once it has stayed the same for a while."""
    last, since = [""], [0.0]

    def still(screen: str) -> bool:
        before, last[0] = last[0], screen
        since[0] = since[0] if before == screen else time.monotonic()
        return time.monotonic() - since[0] > 0.3

    return terminal.wait_for(still, "the screen to come to rest")


def differing(one: str, other: str) -> int:
    """How many lines differ: a window changes many, the clock in a corner one or two."""
    return sum(a != b for a, b in itertools.zip_longest(one.splitlines(), other.splitlines()))
