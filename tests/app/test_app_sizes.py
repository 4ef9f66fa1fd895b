"""Terminals of every size: a text summary where panels have no room, and resizing at any time."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.content import Content
from textual.pilot import Pilot

from rlhf_tui.app import keytable
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.widgets.board import Board
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Event, Progress, Stage
from rlhf_tui.runs.folder import RunFolder

TextOf = Callable[[App[None]], str]
TINY = [(50, 12), (59, 24), (80, 15), (30, 8)]


async def settle(pilot: Pilot[Any]) -> None:
    for _ in range(3):
        await pilot.pause()


@pytest.mark.parametrize("size", TINY)
async def test_a_small_terminal_tells_each_stage_in_words(
    finished: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    wanted = {
        "model": "Base model: starter",
        "pairs": "10 judgements",
        "reward": "accuracy 78 %",
        "ppo": "score 0.700  KL 6",
        "compare": "score 0.410 → 1.38",
        "export": "/models/merged-0001",
    }
    app = RlhfApp(finished)
    async with app.run_test(size=size) as pilot:
        for number, (name, title) in enumerate(keytable.STAGES, start=1):
            await pilot.press(str(number))
            await settle(pilot)
            text = text_of(app)
            assert f"{number}/6 {title}" in text or f"[{number} " in text
            assert " ".join(wanted[name].split()) in " ".join(text.split()), text
            assert "╭" not in text
            assert size[1] < 12 or "60 columns and 16 lines" in " ".join(text.split())


async def test_a_small_terminal_tells_how_a_run_goes(
    labelled: Project,
    write_run: Callable[..., RunFolder],
    ppo_events: list[Event],
    alive: Callable[[RunFolder], AbstractContextManager[None]],
    text_of: TextOf,
) -> None:
    run = write_run(labelled, "ppo", [*ppo_events, Stage("update", "13: sampling"), Progress(13, 52, "updates")])
    with alive(run):
        app = RlhfApp(labelled)
        async with app.run_test(size=(50, 12)) as pilot:
            await settle(pilot)
            text = text_of(app)
    assert "● RUNNING" in text
    assert "13/52 updates" in text
    assert "⚠ KL rises faster than the score" in text


async def test_the_smallest_terminal_with_panels_has_panels(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(60, 16)) as pilot:
        await settle(pilot)
        assert "╭" in text_of(app)
        await pilot.resize_terminal(59, 16)
        await settle(pilot)
        assert "╭" not in text_of(app)
        await pilot.resize_terminal(60, 16)
        await settle(pilot)
        assert "╭" in text_of(app)


async def test_the_table_of_the_comparison_fits_the_smallest_terminal(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(60, 16)) as pilot:
        await pilot.press("5")
        await settle(pilot)
        text = text_of(app)
        assert re.search(r"score +0\.410 +1\.38 +\+0\.970 +\+0\.710 to \+1\.22 +│", text)
        assert re.search(r"KL +0 +5\.80 +5\.10 to 6\.40 +│", text)


async def test_labelling_goes_on_in_a_small_terminal(prompted: Project, text_of: TextOf) -> None:
    app = RlhfApp(prompted)
    async with app.run_test(size=(50, 12)) as pilot:
        await pilot.press("2", "l")
        await settle(pilot)
        assert isinstance(app.screen, LabelScreen)
        text = text_of(app)
        assert "d A much  f A  space tie  j B  k B much  x bad" in text
        assert "tok" in text
        await pilot.press("f")
        await settle(pilot)
        assert "last: A better" in text_of(app)


def ageless(text: str) -> str:
    return re.sub(r"\d+s ago *", "", text)


# Each screen as the keys that open it
SCREENS = [
    *((str(number),) for number in range(1, 7)),
    ("2", "l"),
    ("2", "l", "h"),
    ("2", "l", "m"),
    ("2", "w"),
    ("2", "i"),
    ("1", "e"),
    ("1", "e", "enter"),
    ("1", "question_mark"),
    ("1", "ctrl+p"),
    ("1", "L"),
    ("1", "D"),
    ("4", "s"),
    ("4", "slash"),
    ("4", "tab"),
]


@pytest.mark.parametrize("opened", SCREENS, ids=" ".join)
async def test_resizing_at_any_time_breaks_nothing(finished: Project, opened: tuple[str, ...], text_of: TextOf) -> None:
    drawn = random.Random(" ".join(opened))
    sizes = [(drawn.randint(20, 250), drawn.randint(5, 70)) for _ in range(6)]
    app = RlhfApp(finished)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*opened)
        await settle(pilot)
        before, top = text_of(app), app.screen
        for columns, rows in [(20, 5), (250, 70), (50, 12), *sizes]:
            await pilot.resize_terminal(columns, rows)
            await settle(pilot)
            lines = text_of(app).split("\n")
            assert (len(lines), {cell_len(line) for line in lines}) == (rows, {columns})
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert app.screen is top
        if not app.screen.is_modal:  # what lies behind a window is drawn anew when that closes
            assert ageless(text_of(app)) == ageless(before)


class _OneBoard(App[None]):
    CSS = "Board { height: 1fr; border: round; }"

    def compose(self) -> ComposeResult:
        yield Board("A title")


async def test_a_note_that_depends_on_the_room_follows_it_by_itself() -> None:
    """A screen fills its panels before they have a size."""
    app = _OneBoard()
    async with app.run_test(size=(40, 10)) as pilot:
        board = app.query_one(Board)
        board.show(Content("A text"), note=lambda width, height: Content(f"{width}x{height}"))
        await pilot.resize_terminal(60, 20)
        await settle(pilot)
        assert str(board.border_subtitle) == "58x18"
