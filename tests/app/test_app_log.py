"""The log screen: which run, its log or what it did, followed and searched, however long it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui.app import logtext
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Alert, Done, Launch, Metric, Sample, Stage, encode
from rlhf_tui.runs.folder import RunFolder

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[Any]], str]
Hold = Callable[[RunFolder], AbstractContextManager[None]]
WriteRun = Callable[..., RunFolder]


async def settle(pilot: Pilot[Any]) -> None:
    for _ in range(4):
        await pilot.pause()


async def until(pilot: Pilot[Any], what: Callable[[], object]) -> None:
    for _ in range(500):
        if what():
            break
        await pilot.pause(0.02)
    assert what()


def log_screen(app: App[Any]) -> LogScreen:
    assert isinstance(app.screen, LogScreen)
    return app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_without_a_run_it_says_what_to_do(project: Project, size: tuple[int, int], text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("L")
        await settle(pilot)
        assert "No run has been started yet." in text_of(app)
        await pilot.press("tab", "end", "home", "v", "n", "escape", "y", "L", "escape")
        await settle(pilot)
        assert isinstance(app.screen, StageScreen)
        assert f"rlhf-tui runs list --project {project.root}" in [
            one.message.split("\n")[0] for one in app._notifications
        ]


@pytest.mark.parametrize("size", SIZES)
async def test_the_run_of_the_stage_is_lit_and_its_log_and_deeds_shown(
    finished: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=size) as pilot:
        await pilot.press("4", "L")
        await settle(pilot)
        assert "✓ finished ppo-0003" in text_of(app)
        assert "▶ ppo-0003" in text_of(app)
        assert "loading the model" in text_of(app)
        assert "bad titlea warning of a library" in text_of(app).replace("]0;", "")
        await pilot.press("v")
        await settle(pilot)
        assert "KL rises faster than the score" in log_screen(app).query_one("#log", TextPane).text
        assert "✓ finished" in text_of(app)
        assert "Why is the sky blue?" not in text_of(app)
        await pilot.press("tab")
        await settle(pilot)
        assert "▶ reward-0002" in text_of(app)
        await pilot.press("shift+tab", "shift+tab", "shift+tab", "shift+tab", "c", "y")
        await settle(pilot)
        assert "▶ export-0005" in text_of(app)
        told = [one.message.split("\n")[0] for one in app._notifications]
        assert any(one.endswith("export-0005/events.jsonl") for one in told)
        assert f"rlhf-tui runs show export-0005 --project {finished.root}" in told


async def test_a_stage_without_a_run_shows_the_newest_not_another_that_goes_on(
    labelled: Project, write_run: WriteRun, alive: Hold, text_of: TextOf
) -> None:
    first = write_run(labelled, "ppo", [Stage("update")])
    write_run(labelled, "generate", [Done("finished")])
    app = RlhfApp(labelled)
    with alive(first):
        async with app.run_test() as pilot:
            await pilot.press("6", "L")
            await settle(pilot)
            assert "▶ generate-0002" in text_of(app)
            assert "● RUNNING" in text_of(app)  # in the list
            await pilot.press("tab", "y")
            assert any("runs watch ppo-0001" in one.message.split("\n")[0] for one in app._notifications)


async def test_how_a_run_broke_off_stands_above_its_log(project: Project, write_run: WriteRun, text_of: TextOf) -> None:
    error = {"what": "The memory was \x1b[31mnot enough.", "why": "[bold]", "todo": "Lower ppo.rollout_size."}
    write_run(project, "ppo", [Done("failed", "out of memory", error)])
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("L")
        await settle(pilot)
        shown = text_of(app)
        assert "✗ The memory was [31mnot enough." in shown
        assert "[bold]" in shown
        assert shown.index("Lower ppo.rollout_size.") < shown.index("loading the model")


@pytest.mark.parametrize("size", SIZES)
async def test_the_end_of_a_log_stays_in_view_when_its_run_breaks_off(
    project: Project, write_run: WriteRun, alive: Hold, size: tuple[int, int], text_of: TextOf
) -> None:
    """How it broke off takes its room from the log, and does not show the end of it once more."""
    run = write_run(project, "reward", [Stage("training")])
    run.log_path.write_text("\n".join(f"line {n}" for n in range(100)) + "\nthe last one\n")
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        with alive(run):
            await pilot.press("L")
            await settle(pilot)
            assert "the last one" in text_of(app)
        screen = log_screen(app)
        await until(pilot, lambda: screen._lit is not None and screen._lit.status == "crashed")
        await until(pilot, lambda: "✗ reward-0001 crashed" in text_of(app))
        await settle(pilot)
        assert text_of(app).count("the last one") == 1
        assert not app.screen.query_one("#log", TextPane).lines_below
        assert "The end of its log" not in text_of(app)


async def test_it_follows_what_is_written_until_it_is_scrolled_up(
    project: Project, write_run: WriteRun, alive: Hold, text_of: TextOf
) -> None:
    run = write_run(project, "ppo", [Stage("update")])
    app = RlhfApp(project)
    with alive(run):
        async with app.run_test() as pilot:
            await pilot.press("L")
            await settle(pilot)
            screen = log_screen(app)
            assert "● follows" in text_of(app)
            with run.log_path.open("a") as log:
                log.writelines(f"step {number}\n" for number in range(100))
            screen._look()
            await settle(pilot)
            assert "step 99" in text_of(app)
            await pilot.press("pageup")
            await settle(pilot)
            assert "● follows" not in text_of(app)
            with run.log_path.open("a") as log:
                log.write("step 100\n")
            screen._look()
            await settle(pilot)
            assert "step 100" not in text_of(app)
            await pilot.press("end")
            await settle(pilot)
            assert "step 100" in text_of(app)
            assert "● follows" in text_of(app)


@pytest.mark.parametrize("size", SIZES[1:])
async def test_a_log_of_100_mb_is_paged_through_and_searched(
    project: Project, write_run: WriteRun, size: tuple[int, int], text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(project, "ppo", [Done("finished")])
    with run.log_path.open("wb") as log:
        log.write(b"the first line\n" + b"early trouble\n")
        log.writelines(b"%06d\n" % number for number in range(20_000))
        log.seek(100 << 20)  # a hole: as good as 100 MB of one line
        log.write(b"\n")
        log.writelines(b"%06d\n" % number for number in range(20_000, 40_000))
        log.write(b"late Trouble\nlast line\n")
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read.append(size) or pread(fd, size, at))
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("L")
        await settle(pilot)
        assert "last line" in text_of(app)
        top = int(log_screen(app).query_one("#log", TextPane).text.split("\n", 1)[0])
        pane = log_screen(app).query_one("#log", TextPane)
        pane.scroll_to_line(0)
        await pilot.press("pageup", *["up"] * 5)
        await settle(pilot)
        assert f"{top - 5:06d}" in text_of(app)  # another block was taken in, and nothing jumped
        assert sum(read) < 4 << 20
        await pilot.press("home")
        await settle(pilot)
        assert "the first line" in text_of(app)
        await pilot.press("end", "slash", *"trouble", "enter")
        await settle(pilot)
        await until(pilot, lambda: not log_screen(app)._searching)
        await settle(pilot)
        assert "late Trouble" in text_of(app)
        await pilot.press("n")
        await settle(pilot)
        await until(pilot, lambda: not log_screen(app)._searching)
        await settle(pilot)
        assert "early trouble" in text_of(app)
        await pilot.press("n")
        await until(
            pilot, lambda: any("not said further up" in one.message.split("\n")[0] for one in app._notifications)
        )
        await pilot.press("N")
        await settle(pilot)
        await until(pilot, lambda: not log_screen(app)._searching)
        await settle(pilot)
        assert "late Trouble" in text_of(app)
        await pilot.press("escape")
        await settle(pilot)
        assert isinstance(app.screen, LogScreen)
        await pilot.press("escape")
        await settle(pilot)
        assert isinstance(app.screen, StageScreen)


async def test_a_run_that_is_started_meanwhile_appears(project: Project, write_run: WriteRun, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("L")
        await settle(pilot)
        write_run(project, "generate", [Done("finished")])
        for _ in range(4):
            log_screen(app)._look()
        await settle(pilot)
        assert "▶ generate-0001" in text_of(app)
        assert "loading the model" in text_of(app)


def test_lines_of_the_journal_in_words() -> None:
    def line(event: Any) -> str | None:
        return logtext.event_line(encode(event, 1_700_000_000.0))

    assert line(Metric(1, {"loss": 1.0})) is None
    assert line(Sample(1, '"type":"stage"' * 9, "x")) is None
    assert "● launched  process 7 on box" in str(line(Launch("ppo-0001", "ppo", 7, "box", "0.1")))
    assert "⚠ warning  It grew. Why. Do." in str(line(Alert("warning", "x", "It grew.", "Why.", "Do.")))
    assert "✗ failed  It broke." in str(line(Done("failed", "m", {"what": "It broke."})))
    assert logtext.event_line(b'{"v":1,"t":1,"type":"stage","name":') is None


def test_a_line_written_over_shows_its_last_state() -> None:
    assert logtext.log_line(b"10 %\r50 %\r100 %\r") == "100 %"
    assert logtext.log_line(b"\x1b[31mred\xff") == "[31mred\ufffd"


def test_matches_are_found_whatever_the_capitals() -> None:
    assert logtext.matches("Error: no error", "error") == [(0, 5), (10, 15)]
    assert logtext.matches("a.b", ".") == [(1, 2)]
    assert logtext.matches("a", "") == []


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_found_is_on_screen_even_where_the_lines_before_it_fill_it(
    project: Project, write_run: WriteRun, size: tuple[int, int], text_of: TextOf
) -> None:
    run = write_run(project, "reward", [])
    long = "a warning of a library that never says anything in a few words when it can say it in many " * 2
    run.log_path.write_text(f"{long}\n" * 40 + "the needle\n" + f"{long}\n" * 40)
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("L", "slash", *"the needle", "enter")
        await settle(pilot)
        await until(pilot, lambda: not log_screen(app)._searching)
        await settle(pilot)
        assert "the needle" in "\n".join(text_of(app).splitlines()[3:])


def test_a_run_whose_last_word_lies_in_the_future_was_heard_of_just_now(project: Project, write_run: WriteRun) -> None:
    """A clock that was set back, or another machine's."""
    run = logtext.listed(write_run(project, "reward", []))
    assert "0s ago" in logtext.run_row(run, ("○", "x", ""), run.heard - 60, 60, lit=False).plain
