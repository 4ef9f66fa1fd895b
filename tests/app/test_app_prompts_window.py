"""Importing prompts by keys: browsing, completing, what would be imported, errors in words, one written by hand."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui import settings
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.importing import count
from rlhf_tui.app.screens.dialogs import TextDialog, WritingDialog
from rlhf_tui.app.screens.prompts_window import PromptsWindow
from rlhf_tui.preferences.formats import read_prompts
from rlhf_tui.preferences.store import Message, NewPrompt
from rlhf_tui.preferences.texts import prompt_uid
from rlhf_tui.project import Project

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[None]], str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the app was started in, with files to import."""
    folder = tmp_path / "here"
    (folder / "data").mkdir(parents=True)
    (folder / "more.txt").write_text("Why is the sky blue?\nWhy is it dark at night?\nWhy is the sky blue?\n")
    (folder / "broken.jsonl").write_text('{"prompt": "fine"}\n{"promt": "misspelt"}\n')
    (folder / "empty.txt").write_text("\n\n")
    (folder / "picture.png").write_text("x")
    with gzip.open(folder / "data" / "packed.txt.gz", "wt") as file:
        file.write("\n".join(f"Question {number}?" for number in range(40)))
    monkeypatch.chdir(folder)
    return folder


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()


async def read(pilot: Pilot[None]) -> None:
    """Wait until a named file has been looked into."""
    for _ in range(200):
        window = pilot.app.screen
        done = not isinstance(window, PromptsWindow) or (window._is_shown() and not window._busy)
        if done:
            break
        await pilot.pause(0.02)
    await settle(pilot)


def said(app: App[None]) -> list[str]:
    return [one.title for one in app._notifications]


async def opened(pilot: Pilot[None], typed: str = "") -> None:
    await settle(pilot)
    await pilot.press("2", "i")
    await settle(pilot)
    assert isinstance(pilot.app.screen, PromptsWindow)
    if typed:
        pilot.app.screen._line.value = typed
        await settle(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_browsed_to_shown_and_imported(
    project: Project, here: Path, size: tuple[int, int], text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        assert "data/" in text_of(app)
        assert "picture.png" not in text_of(app)
        await pilot.press("down", "enter", "down", "enter")  # into the folder, and its only file
        await read(pilot)
        assert app.screen._line.value == "data/packed.txt.gz"  # type: ignore[attr-defined]
        shown = text_of(app)
        assert "40 new prompts" in shown
        assert "held out" in shown
        assert "Question 0?" in shown
        with project.store() as store:
            assert store.counts().prompts == 0
        await pilot.press("enter")
        for _ in range(100):
            if not isinstance(app.screen, PromptsWindow):
                break
            await pilot.pause(0.02)
        await settle(pilot)
        assert app.overview.counts.prompts == 40
        assert said(app) == ["40 prompts added."]


@pytest.mark.parametrize("size", SIZES)
async def test_tab_completes_and_doubles_are_counted(
    project: Project, here: Path, size: tuple[int, int], text_of: TextOf
) -> None:
    with project.store() as store:
        store.add_prompts([NewPrompt((Message("user", "Why is the sky blue?"),), "x")], heldout_fraction=0.2)
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("m", "tab")
        assert app.screen._line.value == "more.txt"  # type: ignore[attr-defined]
        await read(pilot)
        assert "1 new prompt:" in text_of(app)
        assert "left out: 1 here already, 1 twice in the file" in text_of(app)
        await pilot.press("escape")
        await settle(pilot)
        assert not isinstance(app.screen, PromptsWindow)
    with project.store() as store:
        assert store.counts().prompts == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("broken.jsonl", ["✗ broken.jsonl, line 2 cannot be read.", "promt."]),
        ("empty.txt", ["✗ empty.txt is empty."]),
        ("more.txt ", ["2 new prompts"]),
    ],
)
async def test_what_a_file_holds_is_said_before_enter(
    project: Project, here: Path, size: tuple[int, int], typed: str, told: list[str], text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, typed)
        await read(pilot)
        for part in told:
            assert part in text_of(app)


async def test_a_broken_file_imports_nothing_whatever_is_pressed(project: Project, here: Path) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "broken.jsonl")
        await read(pilot)
        await pilot.press("enter", "enter")
        await settle(pilot)
        assert isinstance(app.screen, PromptsWindow)
    with project.store() as store:
        assert store.counts().prompts == 0


async def test_enter_before_the_file_was_read_imports_it_when_it_is(project: Project, here: Path) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "more.txt")
        await pilot.press("enter")
        for _ in range(200):
            if not isinstance(app.screen, PromptsWindow):
                break
            await pilot.pause(0.02)
        assert app.overview.counts.prompts in (0, 2)
    with project.store() as store:
        assert store.counts().prompts == 2


async def test_other_files_are_refused_in_words_and_a_data_set_of_the_hub_is_not_fetched_unasked(
    project: Project, here: Path, text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "picture.png")
        assert "Not a kind of file that holds prompts." in text_of(app)
        app.screen._line.value = "hub:owner/name"  # type: ignore[attr-defined]
        await settle(pilot)
        assert "fetches it and shows what is in it" in text_of(app)


async def test_a_prompt_is_written_by_hand(project: Project, here: Path, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("2", "w")
        await settle(pilot)
        assert isinstance(app.screen, WritingDialog)
        await pilot.press("W", "h", "y", "?", "ctrl+s")
        await settle(pilot)
        await pilot.press("w", "W", "h", "y", "?", "ctrl+s")
        await settle(pilot)
        assert said(app) == ["1 prompt added.", "That prompt is here already."]
        await pilot.press("w", "space", "ctrl+s", "w", "x", "escape", "y")  # nothing, and given up
        await settle(pilot)
    with project.store() as store:
        assert [prompt.text for prompt in store.prompts()] == ["Why?"]


async def test_with_broken_settings_or_without_the_right_to_write_it_says_so(
    project: Project, here: Path, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("2", "w", "x")
        project.config.write_text("[prompts]\nheldout_fraction = 7\n")
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert isinstance(app.screen, TextDialog)
        await pilot.press("escape")
        project.config.write_text("")
        monkeypatch.setattr(Project, "writable", False)
        for key in ("i", "w"):
            await pilot.press(key)
            await settle(pilot)
            assert isinstance(app.screen, TextDialog)
            assert "is read-only" in text_of(app)
            await pilot.press("escape")


def test_what_is_foreseen_is_what_happens(project: Project, here: Path) -> None:
    settings.write(project.config, "prompts.heldout_fraction", 0.3)
    rows = [*read_prompts("data/packed.txt.gz"), *read_prompts("more.txt")]
    with project.store() as store:
        store.add_prompts(rows[:10], heldout_fraction=0.3)
        before = store.counts()
        known = {prompt.uid for prompt in store.prompts()}
        seen = count(rows, known, seed=store.seed, heldout_fraction=0.3)
        added = store.add_prompts(rows, heldout_fraction=0.3)
        after = store.counts()
    assert (seen.new, seen.here + seen.repeated) == (added.added, added.duplicates)
    assert seen.heldout == after.heldout - before.heldout
    assert seen.repeated == 1


def test_a_split_in_the_file_is_kept() -> None:
    rows: list[Any] = [NewPrompt((Message("user", str(n)),), "x", "heldout" if n < 3 else "train") for n in range(9)]
    assert count(rows, set(), seed=0, heldout_fraction=1.0).heldout == 3
    assert count(rows, {prompt_uid(row.messages) for row in rows}, seed=0, heldout_fraction=1.0).new == 0
