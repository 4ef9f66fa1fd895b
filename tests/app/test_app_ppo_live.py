"""The live PPO screen by its keys, in three sizes: charts, samples, alerts, checkpoints, explanations."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui.app import keys, keytable
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.ppo_charts import ChooseDialog
from rlhf_tui.app.screens.ppo_live import levels
from rlhf_tui.app.screens.ppo_samples import SamplesDialog
from rlhf_tui.app.screens.ppo_windows import NewsDialog, memory, phases
from rlhf_tui.app.state import RunState
from rlhf_tui.app.widgets.chart import Chart
from rlhf_tui.app.widgets.chartgrid import ChartGrid
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Alert, Checkpoint, Event, Memory, Metric, Sample, Stamped
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[None]], str]
Hold = Callable[[RunFolder], AbstractContextManager[None]]
HOSTILE = "\x1b]0;title\x07\x1b[31mred \u202eback"


def more_events() -> list[Event]:
    """What a longer run has beyond the twelve updates of `ppo_events`."""
    found: list[Event] = []
    for step, score in ((4, 0.1), (8, 0.4), (12, 0.3)):
        found.append(Metric(step, {"heldout_score": score, "heldout_root_kl": step / 6, "heldout_kl": step / 3}))
        found.append(Sample(step, f"Held out? {HOSTILE}", f"Answer {step}. {HOSTILE}", {"score": score}, "heldout"))
    found.append(
        Metric(
            12, {"seconds_sampling": 30.0, "seconds_scoring": 5.0, "seconds_update": 15.0, "tokens_per_second": 400.0}
        )
    )
    found += [Checkpoint(8, "checkpoints/best", best=True), Checkpoint(12, "checkpoints/step-000012")]
    found.append(Alert("stop", "heldout-falls", "The held-out score has fallen", "It learnt the prompts.", "Stop."))
    return found


@asynccontextmanager
async def on_ppo(project: Project, size: tuple[int, int]) -> AsyncIterator[tuple[RlhfApp, Pilot[None]]]:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("4")
        await pilot.pause()
        await pilot.pause()
        yield app, pilot


async def press(pilot: Pilot[None], *names: str) -> None:
    for name in names:
        await pilot.press(name)
        await pilot.pause()
    await pilot.pause()


def told(app: RlhfApp) -> str:
    return "\n".join(one.message for one in app._notifications)


def grid(app: RlhfApp) -> ChartGrid:
    return app.screen.query_one(ChartGrid)


@pytest.fixture
def tuned(finished: Project, ppo_events: list[Event]) -> Project:
    """A project whose newest PPO run has held-out scores, two alerts and three checkpoints."""
    run = create_run(finished, "ppo")
    with JournalWriter(run.events_path) as emit:
        for event in [*ppo_events, *more_events()]:
            emit(event)
    return finished


# Charts


@pytest.mark.parametrize("size", SIZES)
async def test_the_heldout_score_has_a_chart_when_the_run_has_one(
    tuned: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    async with on_ppo(tuned, size) as (app, _):
        shown = text_of(app)
        assert "held-out score  0.300" in shown
        assert "1 not a number" in shown
        assert "best" in shown
        assert grid(app).lit is None


async def test_tab_lights_charts_in_turn_and_esc_puts_them_out(tuned: Project, text_of: TextOf) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "tab")
        assert "▶ score" in text_of(app)
        await press(pilot, "c")
        assert "▶ held-out score" in text_of(app)
        await press(pilot, "shift+tab", "shift+tab")
        lit = grid(app).lit
        assert lit is grid(app).charts[-1]
        await press(pilot, "escape")
        assert grid(app).lit is None
        assert "▶" not in text_of(app)


@pytest.mark.parametrize("size", SIZES)
async def test_the_cursor_reads_all_charts_in_one_line(tuned: Project, size: tuple[int, int], text_of: TextOf) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        await press(pilot, "tab", *["left"] * 7)
        assert grid(app).readout().startswith("Update 5: score not a number, held-out 0.100 at 4, KL 2.50")
        if size != (60, 16):  # there the line lies below the lower edge
            assert "Update 5: score not a number, held-out 0.100 at 4, KL 2.50" in text_of(app)
            assert "score  not a number at 5" in text_of(app)
        await press(pilot, "end")
        assert grid(app).view.cursor is None
        await press(pilot, "home")
        assert grid(app).view.cursor == 1


async def test_the_arrows_browse_samples_while_no_chart_is_lit(tuned: Project, text_of: TextOf) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        before = text_of(app)
        await press(pilot, "left")
        assert "(1 back)" in text_of(app)
        await press(pilot, "right")
        assert "(1 back)" not in text_of(app)
        assert grid(app).view.cursor is None
        assert before.count("▶") == text_of(app).count("▶")


async def test_zoom_is_of_all_charts_and_says_what_it_shows(tuned: Project, text_of: TextOf) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "plus")
        assert text_of(app).count("7 to 12") == 5  # all charts, and the panel
        assert "updates 7 to 12 of 12, every value" in text_of(app)
        await press(pilot, "equals_sign")
        assert "8 to 12" in text_of(app)
        await press(pilot, "minus", "minus")
        assert " to 12" not in text_of(app)
        await press(pilot, "plus", "0")
        assert " to 12" not in text_of(app)


async def test_a_log_scale_is_drawn_or_refused_in_words(tuned: Project, text_of: TextOf) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "o")
        assert "Light up a chart first" in told(app)
        await press(pilot, "tab", "o")
        assert "No log scale: it goes down to -0.217" in told(app)
        await press(pilot, "tab", "tab", "tab", "o")
        assert "length: logarithmic scale" in told(app)
        assert "log · ended 97 %" in text_of(app)


@pytest.mark.parametrize("size", SIZES)
async def test_any_number_of_the_run_can_have_a_chart(tuned: Project, size: tuple[int, int], text_of: TextOf) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        usual = grid(app).shown
        await press(pilot, "slash")
        window = app.screen
        assert isinstance(window, ChooseDialog)
        await press(pilot, "space", "j", "k", "down", "enter", "escape")  # the first two lose theirs
        assert grid(app).shown == usual[2:]
        await press(pilot, "1", "4", "slash")
        known = grid_names(app)
        await press(pilot, *["down"] * known.index("kl_coefficient"), "space", "escape")
        assert grid(app).shown == (*usual[2:], "kl_coefficient")
        assert any(chart.metric == "kl_coefficient" and chart.series.buckets for chart in grid(app).charts)
        await press(pilot, "slash", "r")
        assert grid(app).shown == usual


def grid_names(app: RlhfApp) -> tuple[str, ...]:
    assert isinstance(app.screen, ChooseDialog)
    return app.screen._known


async def test_charts_are_plain_where_ascii_is_wanted(
    tuned: Project, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_TUI_ASCII", "1")
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "tab", "left", "left")
        chart = grid(app).charts[0]
        drawn = "".join(chart.render_line(y).text for y in range(chart.size.height))
        assert {"*", "!", "|"} <= set(drawn)
        assert drawn.isascii()
        assert "> score" in text_of(app)


async def test_charts_move_on_with_a_live_run_and_the_cursor_stays(
    finished: Project, alive: Hold, ppo_events: list[Event]
) -> None:
    run = create_run(finished, "ppo")
    with alive(run), JournalWriter(run.events_path) as emit:
        for event in ppo_events:
            emit(event)
        async with on_ppo(finished, (80, 24)) as (app, pilot):
            await press(pilot, "tab", "left")
            assert grid(app).view.cursor == 11
            emit(Metric(13, {"score": 5.0, "kl": 7.0}))
            app.look()  # of a running run every second look is drawn; one may just have been
            app.look()
            await press(pilot)
            assert grid(app).view.cursor == 11
            await press(pilot, "escape")
            assert grid(app).readout().startswith("Update 13: score 5")


async def test_charts_of_a_reward_training_have_the_same_keys(
    labelled: Project, write_run: Callable[..., RunFolder], text_of: TextOf
) -> None:
    write_run(labelled, "reward", [Metric(n, {"loss": 0.7 - n / 50, "accuracy": 0.5 + n / 50}) for n in range(1, 11)])
    app = RlhfApp(labelled)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "3", "left")
        assert "lights up a chart first" in told(app)
        await press(pilot, "tab", "left", "left")
        assert "Step 8: loss 0.540, accuracy 0.660" in text_of(app)
        await press(pilot, "plus", "o", "slash", "escape", "question_mark")
        assert "How surprised the reward model is" in text_of(app)


# Windows


@pytest.mark.parametrize("size", SIZES)
async def test_samples_are_read_beside_the_first_for_the_prompt(
    tuned: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        await press(pilot, "s")
        assert isinstance(app.screen, SamplesDialog)
        shown = text_of(app)
        assert "Held-out sample · 1 of 15" in shown
        assert "Now, update 12" in shown
        assert "At the start, update 4" in shown
        assert "Answer 12." in shown
        assert "Answer 4." in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "hidden sign" in shown
        now, start = app.screen.query_one("#now"), app.screen.query_one("#start")
        assert (now.region.y == start.region.y) == (size[0] >= 76)
        await press(pilot, "end", "down")
        assert "15 of 15" in text_of(app)
        assert "drawn once" in " ".join(text_of(app).split())
        await press(pilot, "up", "k", "j", "pagedown", "space", "pageup", "b", "home")
        assert "1 of 15" in text_of(app)
        await press(pilot, "s")
        assert not isinstance(app.screen, SamplesDialog)


async def test_a_new_sample_does_not_push_the_one_being_read_away(tuned: Project) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        run = app.overview.run("ppo")
        assert run is not None
        await press(pilot, "s", "down")
        window = app.screen
        assert isinstance(window, SamplesDialog)
        read = window._sample
        run.state.apply(Stamped(1e9, Sample(13, "New?", "New.", {}, "policy")))
        window._count()
        assert window._sample is read
        assert "3 of 16" in str(window.query_one("#samples").border_title)


@pytest.mark.parametrize("size", SIZES)
async def test_all_alerts_are_told_newest_first(tuned: Project, size: tuple[int, int], text_of: TextOf) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        await press(pilot, "w")
        assert isinstance(app.screen, NewsDialog)
        said = " ".join(str(app.screen.query_one("#dialog-text").visual).split())
        first, second = said.index("serious"), said.index("warning")
        assert first < said.index("The held-out score has fallen") < said.index("What to do: Stop.") < second
        assert "after update 12" in said
        assert "Why: The leash is long. What to do: Raise it." in said
        await press(pilot, "j", "k", "space", "w")
        assert not isinstance(app.screen, NewsDialog)


@pytest.mark.parametrize("size", SIZES)
async def test_checkpoints_and_times_are_reached_by_a_key(
    tuned: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        await press(pilot, "k")
        shown = text_of(app)
        assert "saved  held-out 0.300" in shown
        assert "✓ the best so far  held-out 0.400" in shown
        said = str(app.screen.query_one("#dialog-text").visual)
        assert "was the best then" in said
        assert "60 %" in said
        assert "50s" in said
        await press(pilot, "q")


def test_times_that_were_not_measured_are_not_invented() -> None:
    state = RunState()
    assert "Not measured yet." in str(phases(state, 80)[0])
    state.apply(Stamped(1.0, Metric(1, {"seconds_sampling": 0.5, "seconds_scoring": 0.0, "seconds_update": 1.5})))
    lines = [str(line) for line in phases(state, 60)]
    assert "0.5s" in lines[0]
    assert "25 %" in lines[0]
    assert "75 %" in lines[2]
    assert all(len(line) <= 60 for line in lines)


def test_the_memory_of_each_phase_stands_beside_its_plan() -> None:
    state = RunState()
    assert "Not measured yet." in str(memory(state)[0])
    for phase, peak, planned in (("load", 9, 0), ("sampling", 2, 2), ("update", 1, 2), ("update", 3, 2)):
        state.apply(Stamped(1.0, Memory(phase, 1, peak << 30, planned=planned << 30)))
    first, second = (one.plain for one in memory(state))
    assert first == "sampling    2.00 of 2.00 GiB planned"
    assert second == "update      3.00 of 2.00 GiB planned, 50% more"


async def test_help_explains_the_lit_chart_before_the_keys(tuned: Project, text_of: TextOf) -> None:
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "question_mark")
        assert "What it is" not in text_of(app)
        await press(pilot, "escape", "tab", "question_mark")
        assert isinstance(app.screen, TextDialog)
        assert "What it is: How much the reward model likes" in text_of(app)
        said = str(app.screen.query_one("#dialog-text").visual)
        assert all(help in said for _, help in keys.help_rows("ppo"))


async def test_without_a_run_every_key_says_so(labelled: Project) -> None:
    for key in ("tab", "plus", "o", "slash", "left", "s", "w", "k", "h"):
        async with on_ppo(labelled, (80, 24)) as (app, pilot):
            await press(pilot, key)
            assert "no charts on screen" in told(app) or "No PPO run has been started" in told(app), key


@pytest.mark.parametrize("size", [*SIZES, (20, 6)])
async def test_every_key_of_the_screen_can_be_pressed(tuned: Project, size: tuple[int, int]) -> None:
    async with on_ppo(tuned, size) as (app, pilot):
        for action in (*keytable.REGISTRY["charts"], *keytable.REGISTRY["ppo"]):
            if action.id == "ppo.start":
                continue
            for key in action.keys.split(","):
                await press(pilot, key)
                if len(app.screen_stack) > 1:
                    await press(pilot, "escape")
        assert app.screen.query(Chart)


# Levels


def test_the_limits_of_the_run_are_levels_of_its_charts() -> None:
    state = RunState()
    state.apply(Stamped(1.0, Metric(1, {"length": 100.0, "eos_rate": 0.8})))
    guard: dict[str, Any] = {"kl_budget": 16.0, "max_kl": 50.0, "min_entropy": 0.0}
    guard |= {"length_drift": 2.0, "min_eos_rate": 0.5}
    settings = {"guard": guard, "ppo": {"kl_target": 0.0, "target_kl": 0.1}}

    def found(name: str) -> dict[str, float]:
        return {level.label: round(level.value, 6) for level in levels(name, settings, state)}

    assert found("kl") == {"budget 16": 16.0, "limit 50": 50.0}
    assert found("heldout_root_kl") == {"budget 4": 4.0}
    assert found("length") == {"warns 200": 200.0, "warns 50": 50.0}
    assert found("eos_rate") == {"warns 0.400": 0.4}
    assert found("approx_kl") == {"skips 0.150": 0.15}
    assert found("entropy") == {}
    assert found("nothing") == {}
    guard["act_on"] = "warnings"
    assert found("length") == {"limit 200": 200.0, "limit 50": 50.0}
    assert levels("kl", {}, state) == ()
    assert all(math.isnan(level.value) for level in levels("length", settings, RunState()))


@pytest.mark.parametrize("key", ["s", "w", "k", "slash", "plus"])
async def test_nothing_beyond_ascii_is_drawn_where_that_is_asked_for(
    tuned: Project, key: str, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_TUI_ASCII", "1")
    async with on_ppo(tuned, (80, 24)) as (app, pilot):
        await press(pilot, "tab", key)
        assert text_of(app).isascii()
