"""Bell, title and desktop notification: which bytes for which terminal, and when the app sends them."""

from __future__ import annotations

import time

import pytest
from textual.pilot import Pilot

from rlhf_tui.app import announcing
from rlhf_tui.app.announcing import KEEP_TITLE, for_run, sequences
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.newswatch import NewsWatch
from rlhf_tui.app.overview import Overview
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Alert, Done, Launch, Progress
from rlhf_tui.runs.folder import create_run
from rlhf_tui.runs.journal import JournalWriter
from rlhf_tui.runs.notify import News
from rlhf_tui.settings import NotifySettings

NEWS = News("ended", "mine", "ppo-0001", "ppo", "failed", "The disk; is full.")
TITLE = "\x1b]2;ppo-0001 failed\x1b\\"
KITTY = "\x1b]99;i=rlhf-tui:d=0;mine: ppo-0001 failed\x1b\\\x1b]99;i=rlhf-tui:d=1:p=body;The disk; is full.\x1b\\"
NOTIFY = "\x1b]777;notify;mine: ppo-0001 failed;The disk; is full.\x1b\\"
GROWL = "\x1b]9;mine: ppo-0001 failed. The disk; is full.\x1b\\"


@pytest.fixture(autouse=True)
def _a_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _, _ in announcing.KNOWN:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def told(environment: dict[str, str], **chosen: object) -> str:
    return sequences(NEWS, NotifySettings.model_validate(chosen), {"TERM": "xterm-256color"} | environment)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, KITTY),
        ({"KITTY_WINDOW_ID": "1"}, KITTY),
        ({"TERM_PROGRAM": "WezTerm"}, NOTIFY),
        ({"TERM": "foot-extra"}, NOTIFY),
        ({"TERM": "xterm-ghostty"}, NOTIFY),
        ({"TERM": "rxvt-unicode-256color"}, NOTIFY),
        ({"TERM_PROGRAM": "iTerm.app"}, GROWL),
        ({"LC_TERMINAL": "iTerm2"}, GROWL),
        ({}, ""),
        ({"TERM_PROGRAM": "Apple_Terminal"}, ""),
        ({"TERM": "screen", "STY": "1.pts", "KITTY_WINDOW_ID": "1"}, ""),
    ],
)
def test_a_terminal_gets_the_notification_that_it_understands(environment: dict[str, str], expected: str) -> None:
    assert told(environment) == TITLE + expected + "\a"


def test_in_tmux_only_the_notification_is_passed_through() -> None:
    inside = {"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0"}
    assert told(inside) == TITLE + "\a"
    doubled = NOTIFY.replace("\x1b", "\x1b\x1b")
    assert told(inside | {"WEZTERM_PANE": "0"}) == f"{TITLE}\x1bPtmux;{doubled}\x1b\\\a"
    assert told(inside, desktop="osc777") == f"{TITLE}\x1bPtmux;{doubled}\x1b\\\a"


def test_each_way_can_be_chosen_and_turned_off() -> None:
    assert told({}, desktop="osc9", bell=False, title=False) == GROWL
    assert told({"TERM": "xterm-kitty"}, desktop="off", title=False) == "\a"
    assert told({}, bell=False) == TITLE
    assert told({}, on="off") == told({}, on="alerts") == ""
    assert told({"TERM": "linux"}) == "\a", "the kernel's console would show the title as text"


def test_a_title_has_no_semicolon_to_end_it_and_a_beginning_makes_no_noise() -> None:
    news = News("ended", "a;b", "ppo-0001", "ppo", "finished")
    kitty = {"TERM": "xterm-kitty"}
    assert sequences(news, NotifySettings(desktop="osc777", title=False, bell=False), {}) == (
        "\x1b]777;notify;a,b: ppo-0001 finished;\x1b\\"
    )
    assert sequences(news, NotifySettings(title=False, bell=False), kitty) == (
        "\x1b]99;i=rlhf-tui:d=1;a;b: ppo-0001 finished\x1b\\"
    )
    assert sequences(News("began", "a", "ppo-0001", "ppo", "under way"), NotifySettings(), kitty) == (
        "\x1b]2;ppo-0001 under way\x1b\\"
    )


def test_a_run_keeps_the_settings_it_was_started_with(project: Project) -> None:
    quiet = create_run(project, "ppo", overrides=["notify.bell=false", "notify.desktop=off"])
    assert for_run(quiet, NEWS) == TITLE
    loud = create_run(project, "ppo")
    assert "\a" in for_run(loud, NEWS)
    loud.record_path.write_text("broken")
    assert "\a" in for_run(type(loud)(loud.path), NEWS), "a record that cannot be read is no reason for silence"


def test_the_watch_tells_beginnings_alerts_and_ends_once(project: Project, alive) -> None:  # type: ignore[no-untyped-def]
    def look() -> list[tuple[str, str, str]]:
        overview.poll_runs(budget=5)
        return [(run.name, news.event, news.status) for run, news in watch.look(overview.runs.values())]

    over = create_run(project, "reward")
    with JournalWriter(over.events_path) as emit:
        emit(Alert("warning", "x", "long ago"))
        emit(Done("finished"))
    run = create_run(project, "ppo")
    with JournalWriter(run.events_path) as emit:
        emit(Alert("warning", "kl", "before the app was opened"))
        overview, watch = Overview(project), NewsWatch(project, time.time())
        assert look() == []
        with alive(run):
            emit(Launch("ppo-0002", "ppo", 1, "box", "0.1"))
            assert look() == [(run.name, "began", "under way")]
            assert look() == []
            emit(Alert("warning", "kl", "high"))
            emit(Alert("stop", "kl", "higher"))
            assert look() == [(run.name, "alert", "warning"), (run.name, "alert", "stop")]
            # A newer run of the same kind takes its place on screen; it is watched all the same.
            newer = create_run(project, "ppo")
            assert look() == []
            emit(Done("stopped"))
        assert overview.runs["ppo"].name == newer.name
        assert look() == [(run.name, "ended", "stopped")]
        assert look() == []


def test_the_end_of_a_part_is_left_to_the_demo(project: Project, alive) -> None:  # type: ignore[no-untyped-def]
    part = create_run(project, "ppo", parents={"demo": "demo-0009"})
    overview, watch = Overview(project), NewsWatch(project, time.time())
    with JournalWriter(part.events_path) as emit, alive(part):
        overview.poll_runs(budget=5)
        watch.look(overview.runs.values())
        emit(Alert("warning", "kl", "high"))
        emit(Done("finished"))
    overview.poll_runs(budget=5)
    assert [news.event for _, news in watch.look(overview.runs.values())] == ["alert"]


async def test_the_app_rings_when_a_run_ends_and_not_for_the_past(
    project: Project,
    alive,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(RlhfApp, "tell_terminal", lambda _, text: written.append(text))
    over = create_run(project, "reward")
    with JournalWriter(over.events_path) as emit:
        emit(Done("failed"))
    run = create_run(project, "ppo")
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        assert isinstance(pilot, Pilot)
        app.look()
        assert written == []
        with alive(run), JournalWriter(run.events_path) as emit:
            emit(Progress(1, 9, "updates"))
            app.look()
            assert written == [f"{KEEP_TITLE}\x1b]2;ppo-0002 under way\x1b\\"]
            emit(Done("finished"))
        app.look()
        assert written[1:] == ["\x1b]2;ppo-0002 finished\x1b\\\a"]
        app.look()
        assert len(written) == 2


async def test_without_a_terminal_the_app_writes_nothing(project: Project) -> None:
    app = RlhfApp(project)
    async with app.run_test():
        assert app.is_headless
        app.tell_terminal("\a")  # the headless driver would raise
