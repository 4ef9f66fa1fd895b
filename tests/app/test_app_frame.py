"""What every screen leans on: clicks on what has gone, and the ways out of a text that was begun."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.app import App
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot
from textual.widgets import OptionList, TextArea
from textual.widgets._toast import Toast

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import ConfirmDialog, WritingDialog
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.preferences.store import NewCompletion
from rlhf_tui.project import Project


def click(app: RlhfApp, x: int, y: int) -> None:
    for kind in (events.MouseDown, events.MouseUp):
        app.post_message(kind(None, x, y, 0, 0, 1, False, False, False, x, y, None))


async def test_a_second_click_on_a_notice_that_the_first_one_closed_is_none(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test(notifications=True) as pilot:
        app.notify("Something was said.", timeout=60)
        await pilot.pause()
        toast = app.screen.query_one(Toast)
        x, y = toast.region.x + 2, toast.region.y + 1
        toast.parent.remove()  # type: ignore[union-attr]
        while toast.is_attached:
            await asyncio.sleep(0)
        assert app.get_widget_at(x, y)[0] is toast, "it is still drawn"
        click(app, x, y)
        await pilot.pause()
        assert app._exception is None
        assert isinstance(app.screen, StageScreen)


async def test_a_notice_that_is_about_to_go_is_not_shown_on_another_screen(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, left = RlhfApp(project), list[float]()
    monkeypatch.setattr(Toast, "_on_mount", lambda self, _: left.append(self._timeout))  # its timer would never end
    async with app.run_test(notifications=True) as pilot:
        app.notify("Something was said.", timeout=60)
        await pilot.pause()
        assert len(left) == 1
        (notice,) = app._notifications
        late = itertools.count(notice.raised_at + 59.95, 0.02)
        monkeypatch.setattr("textual.notifications.time", lambda: next(late))
        await pilot.press("2")
        await pilot.pause()
        assert all(seconds > 0 for seconds in left), left


async def test_a_page_in_a_list_without_room_is_not_turned(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("ctrl+p", "down")
        commands = app.screen.query_one(OptionList)
        assert commands.highlighted is not None
        commands.styles.height = 0
        await pilot.pause()
        commands.clear_options().add_options(["one", "two"])
        commands.highlighted = 0
        await pilot.press("pagedown", "pageup")
        assert app.bugs.file is None
        assert isinstance(app.screen, CommandPalette)


async def writing(pilot: Pilot[Any], *typed: str) -> None:
    await pilot.pause()
    await pilot.press("2", "w", *typed)
    await pilot.pause()


@pytest.mark.parametrize("leave", ["escape", "ctrl+q"])
async def test_a_text_that_was_begun_is_given_up_only_after_a_question(leave: str, project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await writing(pilot, *"Why?")
        await pilot.press(leave, "n")
        assert isinstance(app.screen, WritingDialog)
        assert app.screen.query_one(TextArea).text == "Why?"
        await pilot.press(leave)
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("ctrl+q")  # no way round the question
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("y")
        await pilot.pause()
        assert app._exit == (leave == "ctrl+q")
        if leave == "escape":
            assert isinstance(app.screen, StageScreen)


@pytest.mark.parametrize("typed", ["", " ", "x\b"])
async def test_where_nothing_would_be_lost_nothing_is_asked(typed: str, project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await writing(pilot, *("backspace" if sign == "\b" else "space" if sign == " " else sign for sign in typed))
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, StageScreen)
        await writing(pilot)
        await pilot.press("ctrl+q")
        assert app._exit


def three_candidates(project: Project) -> None:
    """Prompts whose completions can be ranked."""
    with project.store() as store:
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt="")
        for prompt in store.prompts():
            store.add_completions([NewCompletion(prompt.id, model, sampling, "A third one.", 4, "stop", 3)])


@pytest.mark.parametrize("leave", ["escape", "q", "ctrl+q"])
@pytest.mark.parametrize("mode", [(), ("M", "r", "3", "1")], ids=["a note", "an order"])
async def test_what_was_begun_of_an_answer_is_given_up_only_after_a_question(
    leave: str, mode: tuple[str, ...], prompted: Project
) -> None:
    three_candidates(prompted)
    app = RlhfApp(prompted, start="label", clock=itertools.count().__next__)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press(*(mode or ("n", *"Too long.", "enter")))
        assert isinstance(app.screen, LabelScreen)
        await pilot.press(leave)
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("n")
        assert isinstance(app.screen, LabelScreen)
        assert app.screen.unstored
        await pilot.press(leave, "y")
        await pilot.pause()
        assert app._exit == (leave != "escape")
        assert leave != "escape" or isinstance(app.screen, StageScreen)


@pytest.mark.parametrize("other", [("M", "p"), ("R", "n", *"eve", "enter")], ids=["mode", "rater"])
async def test_another_sitting_begins_only_after_a_question_where_a_note_was_begun(
    other: tuple[str, ...], prompted: Project
) -> None:
    app = RlhfApp(prompted, start="label", clock=itertools.count().__next__)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("f", "n", *"Too long.", "enter", "u")  # the note waits behind the answer taken back
        assert isinstance(app.screen, LabelScreen)
        assert (app.screen.sitting.note, app.screen.sitting.begun) == ("", True)
        await pilot.press(*other)
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("n", "f")
        assert isinstance(app.screen, LabelScreen)
        assert app.screen.sitting.note == "Too long."
        before = app.screen.sitting
        await pilot.press(*other)
        await pilot.press("y")
        assert app.screen.sitting is not before


async def test_labelling_is_left_at_once_where_nothing_was_begun(prompted: Project) -> None:
    app = RlhfApp(prompted, start="label", clock=itertools.count().__next__)
    async with app.run_test() as pilot:
        await pilot.pause()
        await pilot.press("n", *"Too long.", "enter", "f", "escape")  # answered: the note is stored
        assert isinstance(app.screen, StageScreen)


async def test_the_palette_is_opened_again_only_when_the_one_before_has_gone(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+p")
        assert isinstance(app.screen, CommandPalette)
        app.pop_screen()  # no longer on top, and not yet taken away
        app.action_command_palette()
        await pilot.pause()
        assert isinstance(app.screen, StageScreen)
        await pilot.press("ctrl+p")
        assert isinstance(app.screen, CommandPalette)


async def test_the_palette_may_look_for_its_list_when_it_has_just_been_closed(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        palette = CommandPalette()
        app.push_screen(palette)
        await pilot.pause()
        await palette.query_one(CommandList).remove()
        palette._gather_commands("log")
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, StageScreen)
        assert app.is_running


async def test_a_bug_in_a_worker_is_told_and_the_app_lives_on(
    project: Project, tmp_path: Path, text_of: Callable[[App[None]], str]
) -> None:
    async def divide() -> None:
        raise ZeroDivisionError("planted")

    app = RlhfApp(project)
    async with app.run_test() as pilot:
        app.run_worker(divide())
        await pilot.pause()
        await pilot.pause()
        assert "ZeroDivisionError: planted" in text_of(app)
        await pilot.press("escape", "2")
        await pilot.pause()
        assert app.current_mode == "pairs"
    (kept,) = tmp_path.rglob("crash-*.txt")
    assert "planted" in kept.read_text()
    kept.unlink()
