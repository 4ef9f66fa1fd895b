"""The screen of the doctor: every check with its reason, the lit one explained, looked at in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui.app import keys, machine
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.doctor import DoctorScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.doctor import Check, examine
from rlhf_tui.project import Project

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[Any]], str]
CHECKS = [
    Check("python", "ok", "3.12.1"),
    Check("memory", "note", "1.5 GiB \x1b]0;title\x07[bold]", "Close other programs."),
    *(Check(name, "ok", "1.0") for name in ("torch", "transformers", "peft", "bitsandbytes", "textual", "safetensors")),
    Check("card", "problem", "a card; torch is the CPU build", "Install the CUDA build."),
    Check("tmux", "ok", "installed"),
]


async def until(pilot: Pilot[Any], what: Callable[[], object]) -> None:
    for _ in range(500):
        if what():
            break
        await pilot.pause(0.02)
    assert what()


def flat(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("size", SIZES)
async def test_every_check_is_listed_and_the_first_problem_explained(
    project: Project, size: tuple[int, int], text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_tui.app.screens.doctor.examine", lambda folder: CHECKS)
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("D")
        await until(pilot, lambda: isinstance(app.screen, DoctorScreen) and "✗ 1 problem · 1 note" in text_of(app))
        assert "▶ ✗ problem  card" in text_of(app)
        assert "Install the CUDA build." in flat(text_of(app))
        await pilot.press("home")
        await pilot.pause()
        assert "▶ ✓ ok       python         3.12.1" in text_of(app)
        await pilot.press("j")
        await pilot.pause()
        assert "▶ · note     memory         1.5 GiB" in text_of(app)
        assert "\x1b" not in text_of(app)
        assert "[bold]" in text_of(app)
        await pilot.press("end", "pageup", "pagedown", "k", "enter")
        await pilot.pause()
        assert isinstance(app.screen, TextDialog)
        await pilot.press("end")
        await pilot.pause()
        assert "Install the CUDA build." in flat(text_of(app))
        await pilot.press("escape", "y")
        assert f"rlhf-tui doctor --project {project.root}" in [one.message.split("\n")[0] for one in app._notifications]
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, StageScreen)


async def test_the_screen_is_there_while_it_looks_and_looks_again_when_asked(
    project: Project, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [[CHECKS[0], CHECKS[1]], [CHECKS[1]]]
    go = threading.Semaphore(0)

    def slowly(folder: Path) -> list[Check]:
        go.acquire()
        return found.pop(0)

    monkeypatch.setattr("rlhf_tui.app.screens.doctor.examine", slowly)
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("D")
        await until(pilot, lambda: "● looking…" in text_of(app))
        assert "Looking at packages" in text_of(app)
        await pilot.press("down", "end", "enter", "r")  # nothing is lit, and it looks already
        go.release()
        await until(pilot, lambda: "✓ it can do this · 1 note" in text_of(app))
        assert "python" in text_of(app)
        await pilot.press("r")
        await until(pilot, lambda: "● looking…" in text_of(app))
        assert "python" in text_of(app)  # what was found stays meanwhile
        go.release()
        await until(pilot, lambda: "✓ it can do this" in text_of(app))
        assert "python" not in text_of(app)
        assert "▶ · note     memory" in text_of(app)
    assert not found


def test_every_check_says_why_it_matters(project: Project) -> None:
    assert [check.name for check in examine(project.root) if check.name not in machine.MATTERS] == []


def test_what_to_do_goes_first_where_not_all_fits() -> None:
    small = machine.brief_about(CHECKS[8])(40, 4)
    assert [part.plain.split("  ")[0] for part in small.split("\n")] == ["✗ problem", "to do", "why it matters"]
    assert machine.brief_about(CHECKS[8])(80, 10).plain == machine.about(CHECKS[8]).plain


def test_it_is_in_the_palette_and_in_the_help() -> None:
    assert any(action.id == "stage.doctor" for action in keys.actions("export"))
    assert ("D", "What this machine can do, check by check.") in keys.help_rows("ppo")
