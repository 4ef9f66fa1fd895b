"""The screens in a terminal of two sizes: on empty, labelled, finished, failed and running projects."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui import settings
from rlhf_tui.app import keytable
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog, WritingDialog
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.app.screens.settings import SettingsScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.app.widgets.candidate import Candidate
from rlhf_tui.app.widgets.chart import Chart
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.project import Project
from rlhf_tui.runs.control import Control
from rlhf_tui.runs.events import Done, Event, Metric, Progress, Stage
from rlhf_tui.runs.folder import WAITING, RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalWriter
from rlhf_tui.runs.turn import WAITS

SIZES = [(80, 24), (160, 48)]
SMALL = [(60, 16), (40, 12), (20, 6)]
NAMES = [name for name, _ in keytable.STAGES]
Hold = Callable[[RunFolder], AbstractContextManager[None]]
TextOf = Callable[[App[None]], str]


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()


async def tour(project: Project, size: tuple[int, int], text_of: TextOf) -> dict[str, str]:
    """The text of every screen, the labelling screen included."""
    app, found = RlhfApp(project), {}
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for number, name in enumerate(NAMES, start=1):
            await pilot.press(str(number))
            await settle(pilot)
            assert app.current_mode == name
            found[name] = text_of(app)
        await pilot.press("2", "l")
        await settle(pilot)
        assert isinstance(app.screen, LabelScreen)
        found["label"] = text_of(app)
    return found


@pytest.mark.parametrize("size", SIZES)
async def test_every_empty_screen_says_what_to_press(project: Project, size: tuple[int, int], text_of: TextOf) -> None:
    shown = await tour(project, size, text_of)
    assert "○ idle" in shown["model"]
    assert "[1 · Model]" in shown["model"]
    assert "i to import prompts" in shown["model"]
    assert "Press i to import prompts" in shown["pairs"]
    assert "No pair has been judged" in shown["reward"]
    assert "no reward model yet" in shown["ppo"]
    assert "no tuned model yet" in shown["compare"]
    assert "no tuned model yet" in shown["export"]
    assert "no pair to judge yet" in shown["label"]


@pytest.mark.parametrize("size", SIZES)
async def test_a_finished_project_shows_its_results(finished: Project, size: tuple[int, int], text_of: TextOf) -> None:
    shown = await tour(finished, size, text_of)
    assert "20/20 completions" in shown["pairs"]
    assert re.search(r"accuracy\s+78 %\s+63 to 88 %", shown["reward"])
    assert re.search(r"'shorter'\s+55 %", shown["reward"])
    assert re.search(r"'longer'\s+45 %", shown["reward"])
    assert "The behaviour you see is shaped by whoever did the rating." in shown["reward"]
    assert "demo (model)" in shown["reward"]
    assert "n = 40" in shown["reward"]
    assert "KL to the reference  6" in shown["ppo"]
    assert "KL rises faster than the score" in shown["ppo"]
    assert "Why is the sky blue?" in shown["ppo"]
    assert re.search(r"score\s+0\.410\s+1\.38\s+\+0\.970\s+\+0\.710 to \+1\.22", shown["compare"])
    assert re.search(r"length \(tokens\)\s+96\s+41\s+-55\s+-60 to -50", shown["compare"])
    assert re.search(r"KL to the base \(nats\)\s+0\s+5.80\s+5.10 to 6.40", shown["compare"])
    assert "the whole interval lies above 0" in shown["compare"]
    assert "57 % shorter" in shown["compare"]
    assert "RLHF tunes behaviour, not facts." in shown["compare"]
    assert "Brief after 0." in shown["compare"]
    assert "/models/merged-0001" in shown["export"]
    assert "99.8 %" in shown["export"]


async def test_the_large_layout_shows_more(finished: Project, text_of: TextOf) -> None:
    small, large = await tour(finished, SIZES[0], text_of), await tour(finished, SIZES[1], text_of)
    for name, word in [("ppo", "explained variance"), ("ppo", "Alerts and checkpoints"), ("reward", "margin")]:
        assert word in large[name]
        assert word not in small[name]
    assert "saved update 10  best" in large["ppo"]
    assert "What the settings say" in large["model"]
    assert "Last answers" in large["label"]


@pytest.mark.parametrize("size", SIZES)
async def test_lines_fill_the_terminal_and_never_exceed_it(
    finished: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    for text in (await tour(finished, size, text_of)).values():
        rows = text.split("\n")
        assert len(rows) == size[1]
        assert {len(row) for row in rows} == {size[0]}


@pytest.mark.parametrize("size", SMALL)
async def test_small_terminals_do_not_break_it(finished: Project, size: tuple[int, int], text_of: TextOf) -> None:
    shown = await tour(finished, size, text_of)
    assert all(len(text.split("\n")) == size[1] for text in shown.values())


async def test_a_narrow_terminal_folds_the_stages(finished: Project, text_of: TextOf) -> None:
    assert "4/6 PPO" in (await tour(finished, (60, 16), text_of))["ppo"]


async def test_what_does_not_fit_can_be_scrolled_to(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(60, 16)) as pilot:
        await pilot.press("3")
        await settle(pilot)
        assert "Whose taste" not in text_of(app)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await settle(pilot)
        assert "Whose taste" in text_of(app)


async def test_resizing_keeps_up(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        for size in [(160, 48), (60, 16), (20, 6), (120, 30), (80, 24)]:
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert len(text_of(app).split("\n")) == size[1]
        assert "KL to the reference" in text_of(app)


async def test_text_of_models_is_neither_markup_nor_obeyed(finished: Project, text_of: TextOf) -> None:
    shown = await tour(finished, (160, 48), text_of)
    assert "\x1b" not in "".join(shown.values())
    assert "[red]x[/red]" in shown["ppo"]
    assert "[bold]Not markup[/bold]" in shown["compare"]


async def test_a_failed_run_is_marked_and_explained(
    labelled: Project, write_run: Callable[..., RunFolder], text_of: TextOf
) -> None:
    error = {"what": "The card is full.", "why": "", "todo": "Take a smaller batch."}
    write_run(labelled, "reward", [Progress(1, 9, "steps"), Done("failed", error=error)])
    shown = (await tour(labelled, (80, 24), text_of))["reward"]
    assert "✗ FAILED" in shown
    assert "The card is full; L says why, and what to do" in shown
    assert "[3 ⚠ Reward]" in shown


async def test_a_crashed_run_says_so(labelled: Project, write_run: Callable[..., RunFolder], text_of: TextOf) -> None:
    write_run(labelled, "ppo", [Progress(3, 9, "updates"), Metric(3, {"score": 1.0})])
    shown = (await tour(labelled, (80, 24), text_of))["ppo"]
    assert "✗ CRASHED" in shown
    assert "L shows its log" in shown


async def test_a_live_run_opens_first_and_its_charts_move(
    finished: Project, alive: Hold, text_of: TextOf, ppo_events: list[Event]
) -> None:
    run = create_run(finished, "ppo")
    with alive(run), JournalWriter(run.events_path) as emit:
        for event in ppo_events[:20]:
            emit(event)
        app = RlhfApp(finished)
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            assert app.current_mode == "ppo"
            assert "● RUNNING ppo" in text_of(app)
            chart = next(chart for chart in app.screen.query(Chart) if chart.metric == "kl")
            before = [strip.text for strip in (chart.render_line(y) for y in range(chart.size.height))]
            emit(Metric(30, {"kl": 55.0, "kl_coefficient": 0.05}))
            app.look()  # of a running run every second look is drawn; one may just have been
            app.look()
            await settle(pilot)
            after = [strip.text for strip in (chart.render_line(y) for y in range(chart.size.height))]
            assert before != after
            assert "KL to the reference  55" in text_of(app)


async def test_a_chart_is_not_drawn_again_for_nothing(finished: Project) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await settle(pilot)
        chart = app.screen.query(Chart).first()
        picture = chart._drawn
        app.renew()
        await settle(pilot)
        assert picture is not None
        assert chart._drawn is picture


async def test_pausing_saving_and_stopping_reach_the_run(finished: Project, alive: Hold) -> None:
    run = create_run(finished, "ppo")
    with alive(run), JournalWriter(run.events_path) as emit:
        emit(Progress(1, 9, "updates"))
        control = Control([run.control_dir])
        app = RlhfApp(finished)
        async with app.run_test() as pilot:
            await settle(pilot)
            await pilot.press("space")
            assert control.poll().pause
            (run.control_dir / "paused").touch()
            app.look()
            await pilot.press("space")
            assert not control.poll().pause
            await pilot.press("ctrl+s")
            assert control.poll().save
            await pilot.press("full_stop")
            assert isinstance(app.screen, ConfirmDialog)
            await pilot.press("n")
            assert not control.poll().stop
            await pilot.press("full_stop", "y")
            assert control.poll().stop


async def test_a_timer_that_fires_while_the_app_closes_does_no_harm(finished: Project) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await settle(pilot)
    assert app._on_top() is None
    app.look()
    app.renew()


async def test_leaving_leaves_the_run_alone(finished: Project, alive: Hold) -> None:
    run = create_run(finished, "ppo")
    with alive(run), JournalWriter(run.events_path) as emit:
        emit(Progress(1, 9, "updates"))
        app = RlhfApp(finished)
        async with app.run_test() as pilot:
            await pilot.press("q")
        assert not any(Control([run.control_dir]).poll())


async def test_a_followed_demo_moves_the_screens_until_the_user_leads(labelled: Project, alive: Hold) -> None:
    demo = create_run(labelled, "demo")
    with alive(demo), JournalWriter(demo.events_path) as emit:
        app = RlhfApp(labelled, follow=demo)
        async with app.run_test() as pilot:
            for name, stage in [("generate", "pairs"), ("reward", "reward"), ("ppo", "ppo")]:
                emit(Stage(name, f"{name}-0001"))
                app.look()
                await settle(pilot)
                assert app.current_mode == stage
            await pilot.press("1")
            emit(Stage("compare", "compare-0001"))
            app.look()
            await settle(pilot)
            assert app.current_mode == "model"


async def test_the_end_of_a_demo_is_told(labelled: Project, alive: Hold, text_of: TextOf) -> None:
    demo = create_run(labelled, "demo")
    with JournalWriter(demo.events_path) as emit:
        app = RlhfApp(labelled, follow=demo)
        with alive(demo):
            emit(Stage("reward", "reward-0001"))
            async with app.run_test() as pilot:
                await settle(pilot)
                emit(Done("failed", error={"what": "The disk is full.", "why": "", "todo": "Free some."}))
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(RunFolder, "alive", False)
                    app.look()
                await settle(pilot)
                assert isinstance(app.screen, TextDialog)
                assert "The disk is full." in text_of(app)


async def test_it_can_start_with_the_labelling_screen(prompted: Project) -> None:
    app = RlhfApp(prompted, start="label")
    async with app.run_test() as pilot:
        await settle(pilot)
        assert isinstance(app.screen, LabelScreen)
        await pilot.press("escape")
        assert app.current_mode == "pairs"


async def test_enter_starts_the_stage_in_the_background(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunFolder] = []
    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", lambda project, run: launched.append(run))
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        for number, kind in [("2", "generate"), ("3", "reward"), ("4", "ppo"), ("5", "compare")]:
            await pilot.press(number, "enter")
            await app.workers.wait_for_complete()
            await settle(pilot)
            assert launched[-1].kind == kind
        await pilot.press("6", "down", "enter")
        await app.workers.wait_for_complete()
    assert launched[-1].record.options == {"format": "adapter"}
    assert launched[2].record.parents == {"reward": "reward-0002"}


async def test_a_run_that_broke_off_is_taken_up_by_a_key_and_not_begun_anew(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    launched: list[RunFolder] = []
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", lambda project, run: launched.append(run))
    run = create_run(finished, "ppo")
    with JournalWriter(run.events_path) as emit:
        emit(Metric(3, {"score": 1.0}))
        emit(Done("stopped", "stopped after update 3"))
    before = sorted(finished.runs.iterdir())
    app = RlhfApp(finished)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3", "r")  # that one has finished
        await app.workers.wait_for_complete()
        assert launched == []
        assert "r Go on" not in text_of(app)
        await pilot.press("4")
        await settle(pilot)
        assert "r Go on" in text_of(app)
        assert app.command_line() == f"rlhf-tui runs resume {run.name} --project {finished.root}"
        await pilot.press("r")
        await app.workers.wait_for_complete()
        await settle(pilot)
        assert app.starting == ""
    assert launched == [run]
    assert sorted(finished.runs.iterdir()) == before


async def test_a_demo_that_is_taken_up_is_followed_from_stage_to_stage_again(
    finished: Project, alive: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = create_run(finished, "demo")
    part = create_run(finished, "ppo", parents={"demo": demo.name})
    with ExitStack() as worker, JournalWriter(demo.events_path) as emit:
        with JournalWriter(part.events_path) as told:
            told(Done("stopped"))
        emit(Stage("ppo"))
        emit(Done("stopped"))

        def launch(project: Project, run: RunFolder) -> None:
            assert run == demo
            worker.enter_context(alive(run))
            emit(Stage("compare"))

        monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", launch)
        app = RlhfApp(finished, start="ppo")
        async with app.run_test() as pilot:
            await settle(pilot)
            await pilot.press("r")
            await app.workers.wait_for_complete()
            await settle(pilot)
            app.look()
            await settle(pilot)
            assert app.current_mode == "compare"


async def test_what_is_missing_is_said_instead_of_started(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("4", "enter")
        await settle(pilot)
        assert isinstance(app.screen, TextDialog)
        assert "There is no reward model yet." in text_of(app)
        await pilot.press("escape")
        assert app.current_mode == "ppo"
    assert not list(project.runs.iterdir())


async def test_a_run_that_cannot_start_is_explained_and_the_app_lives_on(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    def refuse(project: Project, run: RunFolder) -> None:
        raise UserError("The worker died.", why="No module.", todo="Install it.")

    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", refuse)
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press("3", "enter")
        await app.workers.wait_for_complete()
        await settle(pilot)
        for part in ("The worker died.", "No module.", "Install it."):
            assert part in text_of(app)
        await pilot.press("escape", "4")
        assert app.current_mode == "ppo"
        assert app.starting == ""


async def test_only_one_run_at_a_time(finished: Project, alive: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write(finished.config, "run.when_busy", "refuse")
    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", lambda project, run: pytest.fail("launched"))
    run = create_run(finished, "reward")
    with alive(run), JournalWriter(run.events_path) as emit:
        emit(Progress(1, 9, "steps"))
        app = RlhfApp(finished)
        async with app.run_test() as pilot:
            await settle(pilot)
            await pilot.press("4", "enter")
            await app.workers.wait_for_complete()
    assert len([path for path in finished.runs.iterdir() if path.name.startswith("ppo")]) == 1


async def test_a_second_run_is_queued_shown_as_that_and_taken_out_of_the_queue(
    finished: Project, alive: Hold, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    launched: list[RunFolder] = []
    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", lambda project, run: launched.append(run))
    first = create_run(finished, "reward")
    with alive(first), JournalWriter(first.events_path) as emit:
        emit(Progress(1, 9, "steps"))
        app = RlhfApp(finished)
        async with app.run_test(size=(160, 48)) as pilot:
            await settle(pilot)
            await pilot.press("4", "enter")
            await app.workers.wait_for_complete()
            (second,) = launched
            with alive(second), JournalWriter(second.events_path) as emit_second:
                emit_second(Stage(WAITS, f"{first.name} has it"))
                (second.control_dir / WAITING).write_text("1")
                app.look()
                await settle(pilot)
                shown = text_of(app)
                assert "QUEUED" in shown
                assert f"waiting for the model · {first.name} has it" in shown
                assert app.overview.live is not None
                assert app.overview.live.name == first.name
                await pilot.press("enter")  # the same stage is not queued twice
                await app.workers.wait_for_complete()
                assert launched == [second]
                await pilot.press("full_stop")
                await settle(pilot)
                assert f"Stop {second.name}?" in text_of(app)
                await pilot.press("y")
                await settle(pilot)
                assert (second.control_dir / "stop").exists()
                assert not (first.control_dir / "stop").exists()


@pytest.mark.parametrize(
    ("number", "verb"),
    [
        ("1", "fit"),
        ("2", "generate"),
        ("3", "train reward"),
        ("4", "train ppo"),
        ("5", "compare"),
        ("6", "export merged"),
    ],
)
async def test_y_copies_the_command_line(finished: Project, number: str, verb: str) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press(number, "y")
        assert app.clipboard == f"rlhf-tui {verb} --project {finished.root}"


async def test_a_setting_is_changed_and_the_stage_shows_it(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("4", "e")
        await settle(pilot)
        assert isinstance(app.screen, SettingsScreen)
        await pilot.press("enter")
        await settle(pilot)
        await pilot.press("backspace", "backspace", "1", "2", "enter")
        await settle(pilot)
        assert project.settings().ppo.updates == 12
        await pilot.press("escape")
        await settle(pilot)
        assert re.search(r"updates\s+12", text_of(app))


async def test_samples_and_prompts_can_be_browsed(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press("4")
        await settle(pilot)
        assert "Sample, update 12" in text_of(app)
        await pilot.press("left", "left")
        await settle(pilot)
        assert "Sample, update 10  (2 back)" in text_of(app)
        await pilot.press("5", "right")
        await settle(pilot)
        assert "Prompt 2 of 3" in text_of(app)
        assert "Brief after 1." in text_of(app)


async def test_the_log_is_shown_without_control_characters(finished: Project, text_of: TextOf) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press("3", "L")
        await settle(pilot)
        await app.workers.wait_for_complete()
        await settle(pilot)
        assert isinstance(app.screen, LogScreen)
        assert "reward-0002" in text_of(app)
        assert "a warning of a library" in text_of(app)
        assert "\x07" not in text_of(app)


@pytest.mark.parametrize("screen", [*NAMES, "label"])
@pytest.mark.parametrize("kind", ["project", "finished"])
async def test_every_key_on_every_screen(
    screen: str, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key raises, whatever window it opens. The keys that lead to other stages are pressed from one stage only."""
    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    monkeypatch.setattr("rlhf_tui.app.app.launcher.launch", lambda project, run: None)
    project: Project = request.getfixturevalue(kind)
    groups = [group for group in keytable.SCOPES[screen] if group != "stage" or screen == "model"]
    listed = [action for group in groups for action in keytable.REGISTRY[group]]
    pressed = [key.strip() for action in listed for key in action.keys.split(",")]
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await settle(pilot)
        for key in pressed:
            if key == "q":
                continue
            own = StageScreen | LabelScreen if screen == "label" else StageScreen
            while not isinstance(app.screen, own):
                await pilot.press("escape")
                await pilot.pause()
            if app.screen_name(app.screen) != screen:
                app.action_stage("pairs" if screen == "label" else screen)
                await pilot.pause()
                if screen == "label":
                    app.open_label()
                await pilot.pause()
            assert app.screen_name(app.screen) == screen
            await pilot.press(key)
        await app.workers.wait_for_complete()
    assert app._exception is None


async def test_the_command_palette_opens(finished: Project) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+p")
        await settle(pilot)
        assert app.screen.__class__.__name__ == "CommandPalette"
        titles = [command.title for command in app.get_system_commands(app.screen_stack[0])]
        assert "Theme (T)" in titles
        await pilot.press("escape")


async def test_ascii_drawing_leaves_nothing_beyond_ascii(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    monkeypatch.setenv("RLHF_TUI_ASCII", "1")
    for name, text in (await tour(finished, (80, 24), text_of)).items():
        assert text.isascii(), (name, {letter for letter in text if not letter.isascii()})


async def test_without_colour_the_state_is_still_in_words(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = await tour(finished, (80, 24), text_of)
    assert "✓ finished" in shown["reward"]
    assert "[3 ✓ Reward]" in shown["reward"]


# The labelling screen


async def labelling(project: Project, clock: Any, pilot: Pilot[None]) -> LabelScreen:
    await settle(pilot)
    await pilot.press("2", "l")
    await settle(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, LabelScreen)
    clock.now += 3
    return screen


async def test_undo_redo_and_note(prompted: Project, clock: Any, text_of: TextOf) -> None:
    app = RlhfApp(prompted, clock=clock)
    async with app.run_test() as pilot:
        screen = await labelling(prompted, clock, pilot)
        first = screen.sitting.shown
        await pilot.press("n", *"too long", "enter")
        await settle(pilot)
        assert "note: too long" in text_of(app)
        await pilot.press("f")
        await settle(pilot)
        assert "last: A better  with a note" in text_of(app)
        assert "pair 2 of 10" in text_of(app)
        await pilot.press("u")
        await settle(pilot)
        assert first is not None
        assert screen.sitting.shown is not None
        assert screen.sitting.shown.task_id == first.task_id
        await pilot.press("U")
    with prompted.store() as store:
        assert [(one.verdict.outcome, one.note) for one in store.judgements()] == [("ordered", "too long")]


async def test_the_screen_is_blind(prompted: Project, clock: Any, text_of: TextOf) -> None:
    app = RlhfApp(prompted, clock=clock)
    async with app.run_test(size=(160, 48)) as pilot:
        await labelling(prompted, clock, pilot)
        text = text_of(app)
    assert "blind" in text
    assert "starter" not in text
    assert "\x1b" not in text


async def test_long_candidates_say_how_much_is_below_and_scroll_together(prompted: Project, clock: Any) -> None:
    app = RlhfApp(prompted, clock=clock)
    async with app.run_test() as pilot:
        await labelling(prompted, clock, pilot)
        panes = [pane for pane in app.screen.query(Candidate) if pane.display]
        long = max(panes, key=lambda pane: pane.lines_below)
        below = long.lines_below
        assert below > 5
        assert f"▼ {below} more lines" in str(long.border_subtitle)
        await pilot.press("down", "down")
        await settle(pilot)
        assert long.lines_below == below - 2
        assert f"▼ {below - 2} more lines" in str(long.border_subtitle)
        await pilot.press("pagedown", "pagedown", "pagedown", "pagedown", "pagedown")
        await settle(pilot)
        assert long.lines_below == 0
        assert "more" not in str(long.border_subtitle)


async def test_a_guideline_is_written_and_shown(prompted: Project, clock: Any, text_of: TextOf) -> None:
    app = RlhfApp(prompted, clock=clock)
    async with app.run_test() as pilot:
        await labelling(prompted, clock, pilot)
        assert "no guideline yet" in text_of(app)
        await pilot.press("g")
        assert isinstance(app.screen, WritingDialog)
        await pilot.press(*"Be brief.", "ctrl+s")
        await settle(pilot)
        assert "Be brief." in text_of(app)
        await pilot.press("g", *"x", "escape", "y")
        await settle(pilot)
        assert isinstance(app.screen, LabelScreen)
    with prompted.store() as store:
        guideline = store.guideline()
    assert guideline is not None
    assert guideline.body_md == "Be brief."


async def test_judging_all_pairs_ends_with_what_to_do_next(prompted: Project, clock: Any, text_of: TextOf) -> None:
    app = RlhfApp(prompted, clock=clock)
    async with app.run_test() as pilot:
        await labelling(prompted, clock, pilot)
        for _ in range(10):
            await pilot.press("f")
            clock.now += 3
        await settle(pilot)
        assert "No pair is left: 10 judgements by you." in text_of(app)
        await pilot.press("escape")
        app.look()
        await settle(pilot)
        assert "All pairs are judged (10)." in text_of(app)


def keep(app: RlhfApp) -> str:
    """The text of the crash file, which is taken away: it was expected."""
    kept = app.bugs.file
    assert kept is not None
    assert kept.stat().st_mode & 0o777 == 0o600
    text = kept.read_text()
    kept.unlink()
    return text


def broken(self: RlhfApp) -> None:
    secret = "hunter2"
    raise RuntimeError(f"a bug of length {len(secret)}")


async def test_a_bug_in_what_a_key_does_is_told_and_kept_and_the_app_lives_on(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    monkeypatch.setattr(RlhfApp, "action_edit_setting", broken)
    app = RlhfApp(finished)
    async with app.run_test(size=(160, 48)) as pilot:
        await settle(pilot)
        await pilot.press("e")
        await settle(pilot)
        shown = text_of(app)
        assert "rlhf_tui met a bug: RuntimeError: a bug of length 7" in shown
        assert "crash-" in shown
        await pilot.press("y", "escape", "5")  # the report can be copied, and the app goes on
        await settle(pilot)
        assert "met a bug" in app.clipboard
        assert app.current_mode == "compare"
        await pilot.press("e")  # the same bug again is not worth a second window
        await settle(pilot)
        assert not isinstance(app.screen, TextDialog)
    text = keep(app)
    assert "RuntimeError: a bug of length 7" in text
    assert "in broken" in text
    assert "hunter2" not in text


async def test_a_bug_in_the_look_at_the_project_is_told_once(
    finished: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await settle(pilot)
        monkeypatch.setattr(app, "_announce", lambda: broken(app))
        app.look()
        await settle(pilot)
        assert "met a bug" in text_of(app)
        await pilot.press("escape")
        app.look()
        await settle(pilot)
        assert "met a bug" not in text_of(app)
    keep(app)


async def test_a_bug_that_ends_the_app_leaves_a_crash_file(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    app = RlhfApp(finished)

    async def meet_the_bug() -> None:
        async with app.run_test() as pilot:
            await settle(pilot)
            app.call_later(broken, app)
            await settle(pilot)

    with pytest.raises(RuntimeError, match="a bug"):
        await meet_the_bug()
    assert "in broken" in keep(app)


async def test_the_command_is_that_of_the_stage_on_screen_whatever_runs(finished: Project, alive: Hold) -> None:
    ppo = next(run for run in list_runs(finished) if run.kind == "ppo")
    ppo.events_path.write_bytes(b"".join(line + b"\n" for line in ppo.events_path.read_bytes().splitlines()[:-1]))
    app = RlhfApp(finished)
    with alive(ppo):
        async with app.run_test() as pilot:
            await settle(pilot)
            await pilot.press("6", "y")
            assert app.clipboard == f"rlhf-tui export merged --project {finished.root}"
            await pilot.press("4", "y")
            assert app.clipboard == f"rlhf-tui runs watch {ppo.name} --project {finished.root}"


@pytest.mark.parametrize(
    ("key", "title", "verb"),
    [("D", "This machine", "doctor"), ("L", "Log", "runs show ppo-0003"), ("e", "Settings", "config set")],
)
async def test_the_command_is_that_of_the_screen_in_front_by_key_and_by_palette(
    finished: Project, key: str, title: str, verb: str
) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("4", key)
        await settle(pilot)
        assert keytable.TITLES[app.screen_name(app.screen)] == title
        await pilot.press("y")
        await settle(pilot)
        copied = app.clipboard
        assert copied.startswith(f"rlhf-tui {verb}")
        app._clipboard = ""
        command = next(one for one in app.get_system_commands(app.screen) if one.title.startswith("Copy CLI"))
        command.callback()
        await settle(pilot)
        assert app.clipboard == copied
        await app.workers.wait_for_complete()


async def test_a_stage_starts_on_what_is_true_now(prompted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on what was seen half a second ago: somebody quick judges a pair and presses ⏎ at once."""
    monkeypatch.setattr(RlhfApp, "set_interval", lambda *_, **__: None)  # nobody looks by themselves
    begun: list[str] = []
    monkeypatch.setattr(RlhfApp, "_begin", lambda _, kind, *__: begun.append(kind))
    app = RlhfApp(prompted)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await settle(pilot)
        with prompted.store() as store:
            rater = store.add_rater("ann")
            session = store.start_session(rater.id, columns=80, rows=24)
            offer = Queue(store, rater, Rules()).next()
            assert offer is not None
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
            store.judge(shown.id, prefer(0), latency_ms=4000)
        await pilot.press("enter")
        await settle(pilot)
    assert begun == ["reward"]
