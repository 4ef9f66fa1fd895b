"""The settings editor in terminals of several sizes: every key, every kind of setting, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import OptionList, TextArea

from rlhf_tui import settings
from rlhf_tui.app import keys, keytable
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.settings import SettingsScreen
from rlhf_tui.app.screens.settings_dialogs import ChoiceOfFew, TypedValue
from rlhf_tui.app.settings_form import SECTION_OF_STAGE, entries
from rlhf_tui.app.widgets.listing import Listing
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Metric, Progress
from rlhf_tui.runs.folder import RunFolder

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[None]], str]
Hold = Callable[[RunFolder], AbstractContextManager[None]]
COMMENTED = "# mine\n[ppo]\n# short runs\nupdates = 12  # because\n"


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()


async def press(pilot: Pilot[None], *pressed: str) -> None:
    for key in pressed:
        await pilot.press(key)
    await settle(pilot)


async def opened(pilot: Pilot[None], key: str) -> SettingsScreen:
    """The editor with a setting lit."""
    await press(pilot, "e")
    screen = pilot.app.screen
    assert isinstance(screen, SettingsScreen)
    screen.browsing.light(key)
    screen.show()
    await settle(pilot)
    return screen


async def retype(pilot: Pilot[None], text: str) -> None:
    """Another text in place of what stands in the window."""
    dialog = pilot.app.screen
    assert isinstance(dialog, TypedValue)
    dialog.query_one(TextArea).text = text
    await settle(pilot)


@pytest.fixture
def commented(project: Project) -> Project:
    project.config.write_text(COMMENTED)
    return project


@pytest.mark.parametrize("size", SIZES)
async def test_it_opens_at_the_stage_and_says_all_about_the_lit_setting(
    commented: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    app = RlhfApp(commented)
    async with app.run_test(size=size) as pilot:
        await press(pilot, "4", "e")
        shown = text_of(app)
        assert "ppo.updates" in shown
        assert "▶ updates" in shown
        assert "● changed" in shown
        assert "a whole number, at least 1 and at most 100000" in shown
        assert "How many rounds of sampling and learning." in shown
        assert "rlhf-tui config set ppo.updates 12" in shown
        assert "● 1 of 104 changed" in shown or f"● 1 of {len(entries())} changed" in shown
        for line in ("now      12", "default"):
            assert line in shown
        await press(pilot, "down")
        assert "ppo.rollout_size" in text_of(app)
        assert "the default" in text_of(app)


@pytest.mark.parametrize(("number", "stage"), [(str(n), name) for n, (name, _) in enumerate(keytable.STAGES, 1)])
async def test_every_stage_opens_its_own_section(project: Project, number: str, stage: str) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await press(pilot, number, "e")
        assert isinstance(app.screen, SettingsScreen)
        lit = app.screen.browsing.lit
        assert lit is not None
        assert lit.section == SECTION_OF_STAGE.get(stage, stage)
        await press(pilot, "escape")
        assert app.current_mode == stage
        assert not isinstance(app.screen, SettingsScreen)


@pytest.mark.parametrize("size", [*SIZES, (40, 12), (20, 6)])
async def test_every_setting_can_be_shown_and_opened(project: Project, size: tuple[int, int], text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, entries()[0].key)
        for at, one in enumerate(entries()):
            assert screen.browsing.lit == one
            text_of(app)  # draws it
            if at % 26 == 0 and not one.is_switch:
                await press(pilot, "enter")
                assert isinstance(app.screen, ChoiceOfFew if one.options else TypedValue)
                await press(pilot, "escape")
            screen.action_move(1)
        await settle(pilot)
        if size in SIZES:
            assert entries()[-1].name in text_of(app)
    assert settings.changed(project.settings()) == {}


@pytest.mark.parametrize("size", SIZES)
async def test_every_key(commented: Project, size: tuple[int, int]) -> None:
    """No key raises; what a key opens is left with esc."""
    pressed = [key for action in keytable.REGISTRY["settings"] for key in action.keys.split(",")]
    pressed += [
        key for action in keytable.REGISTRY["app"] if action.id != "app.leave" for key in action.keys.split(",")
    ]
    app = RlhfApp(commented)
    async with app.run_test(size=size) as pilot:
        for key in pressed:
            if not isinstance(app.screen, SettingsScreen):
                await press(pilot, "e")
            await press(pilot, key)
            while not isinstance(app.screen, SettingsScreen) and len(app.screen_stack) > 1:
                await press(pilot, "escape")
            if app.focused is not None:
                await press(pilot, "escape")
                await press(pilot, "escape")
        assert app.is_running


async def test_the_cursor_moves_and_sections_are_jumped(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        screen = await opened(pilot, "model.name")
        for key, name in [
            ("j", "model.revision"),
            ("k", "model.name"),
            ("tab", "adapters.rank"),
            ("right_square_bracket", "prompts.heldout_fraction"),
            ("left_square_bracket", "adapters.rank"),
            ("shift+tab", "model.name"),
            ("end", entries()[-1].key),
            ("home", "model.name"),
        ]:
            await press(pilot, key)
            assert screen.browsing.lit is not None
            assert screen.browsing.lit.key == name
        await press(pilot, "pagedown", "pageup")
        assert screen.browsing.lit.key == "model.name"
        await press(pilot, "tab")
        assert "─ adapters The LoRA adapters" in text_of(app)


# Each kind


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("key", "text", "new"),
    [
        ("ppo.updates", "20", 20),
        ("ppo.clip", "0.1", 0.1),
        ("ppo.critic_warmup_updates", "0", 0),
        ("model.system_prompt", "Be brief.", "Be brief."),
        ("model.system_prompt", "[bold]two[/bold]\nlines", "[bold]two[/bold]\nlines"),
    ],
)
async def test_numbers_and_texts(
    commented: Project, size: tuple[int, int], key: str, text: str, new: Any, text_of: TextOf
) -> None:
    app = RlhfApp(commented)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, key)
        await press(pilot, "enter")
        await retype(pilot, text)
        assert "⏎ stores it" in text_of(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, SettingsScreen)
        assert f"✓ stored: {key} is" in text_of(app)
    assert settings.value(commented.settings(), key) == new
    assert commented.config.read_text().startswith("# mine\n")
    assert "# short runs" in commented.config.read_text()


async def test_a_text_of_several_lines_is_typed(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await opened(pilot, "model.system_prompt")
        await press(pilot, "enter", "a", "ctrl+n", "b", "enter")
        await opened_again(pilot, "ppo.updates")
        await press(pilot, "enter", "ctrl+n", "0", "enter")
    assert project.settings().model.system_prompt == "a\nb"
    assert project.settings().ppo.updates == 500


async def opened_again(pilot: Pilot[None], key: str) -> None:
    screen = pilot.app.screen
    assert isinstance(screen, SettingsScreen)
    screen.browsing.light(key)


@pytest.mark.parametrize("size", SIZES)
async def test_one_of_a_few_is_chosen(project: Project, size: tuple[int, int], text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, "ppo.checkpointing")
        await press(pilot, "enter")
        assert isinstance(app.screen, ChoiceOfFew)
        assert app.screen.query_one(OptionList).highlighted == 0
        assert "as it is now, which is the default" in text_of(app)
        await press(pilot, "down", "j", "k")
        assert "ppo.checkpointing on" in text_of(app)
        await press(pilot, "enter")
        assert project.settings().ppo.checkpointing == "on"
        await press(pilot, "space", "up", "space")
        assert project.settings().ppo.checkpointing == "auto"
        await press(pilot, "enter", "down", "escape")
    assert project.settings().ppo.checkpointing == "auto"


async def test_a_switch_is_turned_at_once(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await opened(pilot, "notify.bell")
        await press(pilot, "enter")
        assert project.settings().notify.bell is False
        assert "notify.bell is false (was true)" in text_of(app)
        await press(pilot, "space")
    assert project.settings().notify.bell is True


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_wrong_is_said_while_typing_and_is_not_stored(
    commented: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    app = RlhfApp(commented)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, "ppo.updates")
        await press(pilot, "enter", "minus")
        assert "✗ ppo.updates cannot be '12-'" in text_of(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, TypedValue)
        await press(pilot, "backspace")
        assert "as it is now; the default is 50" in text_of(app)
        await retype(pilot, "50")
        assert "back to its default" in text_of(app)
        await press(pilot, "escape")
    assert commented.config.read_text() == COMMENTED


# Filters, reset, undo


async def test_words_narrow_the_list_and_esc_widens_it(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        screen = await opened(pilot, "model.name")
        await press(pilot, "slash", "k", "l", "underscore")
        shown = text_of(app)
        assert "▶ kl_" in shown
        assert "rollout_size" not in shown
        assert "with “kl_” (esc: all)" in shown
        await press(pilot, "down", "enter", "down")
        assert app.focused is None
        lit = screen.browsing.lit
        await press(pilot, "escape")
        assert isinstance(app.screen, SettingsScreen)
        assert not screen.browsing.narrowed
        assert screen.browsing.lit == lit
        await press(pilot, "slash", *"qqq")
        assert "No setting says “qqq”" in text_of(app)
        await press(pilot, "tab", "down", "enter", "enter", "r", "y", "o", "escape", "escape")
        assert not isinstance(app.screen, SettingsScreen)


async def test_only_what_differs_is_shown(commented: Project, text_of: TextOf) -> None:
    app = RlhfApp(commented)
    async with app.run_test() as pilot:
        await opened(pilot, "model.name")
        await press(pilot, "d")
        assert "1 of 1 · only what differs" in text_of(app)
        await press(pilot, "r")
        assert "Every setting has its default" in text_of(app)
        await press(pilot, "u")
        assert "▶ updates" in text_of(app)
        await press(pilot, "d")
        assert "rollout_size" in text_of(app)
    assert commented.config.read_text() == COMMENTED


@pytest.mark.parametrize("size", SIZES)
async def test_reset_and_undo(commented: Project, size: tuple[int, int], text_of: TextOf) -> None:
    app = RlhfApp(commented)
    async with app.run_test(size=size) as pilot:
        await opened(pilot, "ppo.updates")
        await press(pilot, "u")
        assert "Nothing has been changed here yet" in text_of(app)
        await press(pilot, "r")
        assert commented.settings().ppo.updates == 50
        assert "is 50, its default (was 12)" in text_of(app)
        await press(pilot, "r")
        assert "has its default already" in text_of(app)
        await press(pilot, "home", "u")
        assert "taken back: ppo.updates is 12 again" in text_of(app)
        assert "▶ updates" in text_of(app)
    assert commented.config.read_text() == COMMENTED


# What is in the way


async def test_a_folder_that_is_read_only(commented: Project, text_of: TextOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "writable", property(lambda self: False))
    app = RlhfApp(commented)
    async with app.run_test(notifications=True) as pilot:
        await opened(pilot, "ppo.updates")
        assert "read-only: this folder can be looked at" in text_of(app)
        for key in ("enter", "r"):
            await press(pilot, key)
            assert isinstance(app.screen, TextDialog)
            assert "is read-only" in text_of(app)
            await press(pilot, "escape")
    assert commented.config.read_text() == COMMENTED


async def test_a_broken_file(commented: Project, text_of: TextOf) -> None:
    commented.config.write_text("[ppo\n")
    app = RlhfApp(commented)
    async with app.run_test() as pilot:
        screen = await opened(pilot, "ppo.updates")
        assert "rlhf.toml is not valid TOML" in text_of(app)
        assert "?" in text_of(app)
        for key in ("enter", "r"):
            await press(pilot, key)
            assert isinstance(app.screen, TextDialog)
            await press(pilot, "escape")
        await press(pilot, "o", "escape", "y", "u", "d", "d")
        assert app.clipboard == f"rlhf-tui config show --project {commented.root}"
        assert commented.config.read_text() == "[ppo\n"
        commented.config.write_text(COMMENTED)
        screen._look()
        await settle(pilot)
        assert "● changed from 50" in text_of(app)


async def test_another_program_changes_the_file_meanwhile(commented: Project, text_of: TextOf) -> None:
    app = RlhfApp(commented)
    async with app.run_test() as pilot:
        screen = await opened(pilot, "ppo.updates")
        settings.write(commented.config, "ppo.updates", 33)
        screen._look()
        await settle(pilot)
        assert "Another program has changed rlhf.toml" in text_of(app)
        await press(pilot, "enter")
        await retype(pilot, "44")
        settings.write(commented.config, "ppo.updates", 77)
        await press(pilot, "enter")
        assert isinstance(app.screen, TypedValue)
        assert "ppo.updates is 77 by now" in text_of(app)
        assert commented.settings().ppo.updates == 77
        assert app.screen.query_one(TextArea).text == "44"
        await press(pilot, "enter")
        assert commented.settings().ppo.updates == 44
        settings.write(commented.config, "ppo.updates", 99)
        await press(pilot, "u")
        assert isinstance(app.screen, TextDialog)
    assert commented.settings().ppo.updates == 99


async def test_a_run_keeps_what_it_has(
    project: Project, write_run: Callable[..., RunFolder], alive: Hold, text_of: TextOf
) -> None:
    run = write_run(project, "ppo", [Metric(1, {"score": 0.1}), Progress(1, 10, "updates")])
    app = RlhfApp(project)
    with alive(run):
        async with app.run_test() as pilot:
            await opened(pilot, "ppo.updates")
            assert f"● {run.name} keeps the settings it began with" in text_of(app)


# Around it


async def test_y_copies_the_command_and_help_lists_the_keys(commented: Project, text_of: TextOf) -> None:
    app = RlhfApp(commented)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, "ppo.updates")
        await press(pilot, "y")
        assert app.clipboard == f"rlhf-tui config set --project {commented.root} ppo.updates 12"
        await press(pilot, "question_mark")
        assert "Keys: Settings" in text_of(app)
        assert "Give the lit setting its default again." in text_of(app)
        await press(pilot, "escape", "o")
        assert "How many rounds of sampling and learning." in text_of(app)


async def test_other_keys_work_and_are_shown(commented: Project, text_of: TextOf) -> None:
    app = RlhfApp(commented, keymap=keys.keymap({"settings.reset": "x"}))
    async with app.run_test() as pilot:
        await opened(pilot, "ppo.updates")
        assert "x Reset" in text_of(app)
        await press(pilot, "x")
    assert commented.settings().ppo.updates == 50


async def test_a_click_lights_a_line_and_another_one_opens_it(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        screen = await opened(pilot, "model.name")
        await pilot.click(Listing, offset=(10, 1))  # a heading
        await pilot.click(Listing, offset=(10, 3))
        await settle(pilot)
        assert screen.browsing.lit is not None
        assert screen.browsing.lit.key == "model.revision"
        await pilot.click(Listing, offset=(10, 3))
        await settle(pilot)
        assert isinstance(app.screen, TypedValue)


async def test_hostile_values_do_nothing_to_the_terminal(project: Project, text_of: TextOf) -> None:
    project.config.write_text('[model]\nsystem_prompt = "\\u001b]0;title\\u0007[red]x[/red] \\u202eback"\n')
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await opened(pilot, "model.system_prompt")
        for key in ("o", "escape", "enter"):
            await press(pilot, key)
            assert not {"\x1b", "\x07", "\u202e"} & set(text_of(app))
        await press(pilot, "escape")
        assert "[red]x[/red]" in text_of(app)
