"""The screen to talk to base and tuned model: what was said, what is being said, and what the model does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from rlhf_tui.app import talking
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.chat import ChatScreen
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.project import Project
from rlhf_tui.runs import mailbox
from rlhf_tui.runs.control import Control
from rlhf_tui.runs.events import Alert, Done, Event, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[Any]], str]
Hold = Callable[[RunFolder], AbstractContextManager[None]]
WriteRun = Callable[..., RunFolder]
SAID: list[Event] = [
    Stage(mailbox.READY),
    Stage(mailbox.ANSWERING, "base"),
    Sample(1, "Why?", "A long story. \x1b]0;x\x07[bold]", {"score": -0.5, "length": 9.0, "ended": 0.0}, "base"),
    Sample(1, "Why?", "Because.", {"score": 1.25, "length": 2.0, "ended": 1.0}, "policy"),
]


async def settle(pilot: Pilot[Any]) -> None:
    for _ in range(4):
        await pilot.pause()


def chat(app: App[Any]) -> ChatScreen:
    assert isinstance(app.screen, ChatScreen)
    return app.screen


def pane(app: App[Any], side: str) -> TextPane:
    return app.screen.query_one(f"#talk-{side}", TextPane)


@pytest.mark.parametrize("size", SIZES)
async def test_before_the_first_question_nothing_is_loaded_and_the_first_one_starts_it(
    project: Project, size: tuple[int, int], text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[RunFolder] = []
    monkeypatch.setattr("rlhf_tui.runs.launcher.launch", lambda project, run: launched.append(run))
    monkeypatch.setattr("rlhf_tui.app.screens.chat.require_ready", lambda project, kind, settings: None)
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await pilot.press("4", "t")
        await settle(pilot)
        assert "○ not loaded" in text_of(app)
        assert "RLHF tunes behaviour, not facts. The first question" in text_of(app)
        await pilot.press(*"hi?", "enter")
        await app.workers.wait_for_complete()
        await settle(pilot)
        chat(app).look()
        await settle(pilot)
        assert [run.name for run in launched] == ["chat-0001"]
        assert mailbox.question(launched[0], 1) == mailbox.Question("hi?")
        assert "you: hi?" in text_of(app)
        assert chat(app).query_one("#question", Input).value == ""
        await pilot.press("escape")
        await settle(pilot)
        assert isinstance(app.screen, StageScreen)


@pytest.mark.parametrize("size", SIZES)
async def test_both_sides_are_shown_with_scores_and_what_is_being_said(
    project: Project, write_run: WriteRun, alive: Hold, size: tuple[int, int], text_of: TextOf
) -> None:
    run = write_run(project, "chat", [])
    mailbox.ask(run, "Why?")
    with JournalWriter(run.events_path) as emit:
        for event in SAID:
            emit(event)
        app = RlhfApp(project)
        with alive(run):
            async with app.run_test(size=size) as pilot:
                await pilot.press("t")
                await settle(pilot)
                shown = text_of(app)
                assert "\x1b" not in shown
                for part in ("─ base ─", "─ tuned ─", "[bold] …", "Because.", "score +1.25 · 2 tokens"):
                    assert part in shown
                top, below = (
                    next(n for n, row in enumerate(shown.split("\n")) if part in row) for part in ("base ─", "tuned ─")
                )
                assert (top == below) == (size[0] >= 76)
                await pilot.press(*"more", "enter")
                assert mailbox.question(run, 2) == mailbox.Question("more")
                emit(Stage(mailbox.ANSWERING, "policy"))
                mailbox.speak(run, mailbox.Speaking(2, "policy", "So far"))
                chat(app).look()
                await settle(pilot)
                assert "● the tuned model answers…" in text_of(app)
                assert "So far▌" in text_of(app)
                await pilot.press("ctrl+n", *"x", "enter", "ctrl+n", "ctrl+n", "pageup", "pagedown")
                assert mailbox.question(run, 3) == mailbox.Question("x", fresh=True)
                await pilot.press("ctrl+y", "f1")
                await settle(pilot)
                told = [one.message.split("\n")[0] for one in app._notifications]
                assert f"rlhf-tui chat --project {project.root}" in told
                assert "begins afresh" in text_of(app)
                await pilot.press("escape", "ctrl+t")
                assert Control((run.control_dir,)).poll().stop
                await pilot.press("escape", "t")  # coming back: it is all there
                await settle(pilot)
                assert "Because." in pane(app, "policy").text
                assert "── begun afresh ──" in pane(app, "base").text


async def test_typing_says_that_somebody_is_here(project: Project, write_run: WriteRun, alive: Hold) -> None:
    run, now = write_run(project, "chat", SAID), [0.0]
    app = RlhfApp(project)
    with alive(run):
        async with app.run_test() as pilot:
            screen = ChatScreen(project, clock=lambda: now[0])
            app.push_screen(screen)
            await settle(pilot)
            patience = mailbox.Patience(run, 1, lambda: now[0])
            now[0] = 59
            await pilot.press("a")
            await settle(pilot)
            now[0] = 100
            assert not patience.over
            now[0] = 161
            screen.look()  # an open screen alone does not hold the card
            assert patience.over


async def test_without_a_tuned_model_there_is_one_side(
    project: Project, write_run: WriteRun, alive: Hold, text_of: TextOf
) -> None:
    run = write_run(project, "chat", [Alert("note", mailbox.BASE_ALONE, "alone"), Stage(mailbox.READY)])
    app = RlhfApp(project)
    with alive(run):
        async with app.run_test() as pilot:
            await pilot.press("t")
            await settle(pilot)
            assert "tuned ─" not in text_of(app)
            assert "There is no tuned model yet." in text_of(app)
            assert "○ waits for a question" in text_of(app)


async def test_one_that_broke_off_says_why_and_the_next_question_begins_another(
    project: Project, write_run: WriteRun, text_of: TextOf
) -> None:
    write_run(project, "chat", [*SAID, Done("failed", "x", {"what": "The memory was not enough."})])
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("t")
        await settle(pilot)
        assert "✗ The memory was not enough." in text_of(app)
        assert "The next question begins a new chat." in text_of(app)
        await pilot.press("ctrl+t")
        assert "No chat is going on." in [one.message for one in app._notifications]


async def test_what_is_in_the_way_of_a_chat_is_said(
    project: Project, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.config.write_text('[model]\nname = "/nowhere"\n')
    app = RlhfApp(project)
    async with app.run_test() as pilot:
        await pilot.press("t", *"hi", "enter")
        await app.workers.wait_for_complete()
        await settle(pilot)
        assert isinstance(app.screen, TextDialog)
        assert "/nowhere" in text_of(app)
    assert not any(project.runs.glob("chat-*"))


@pytest.mark.parametrize("answer", ["y", "n"])
async def test_a_stage_asks_before_it_takes_the_model_from_a_chat(
    labelled: Project, write_run: WriteRun, alive: Hold, text_of: TextOf, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    launched: list[str] = []
    monkeypatch.setattr("rlhf_tui.runs.launcher.launch", lambda project, run: launched.append(run.name))
    monkeypatch.setattr("rlhf_tui.app.app.require_ready", lambda project, kind, settings: None)
    run = write_run(labelled, "chat", SAID)
    app = RlhfApp(labelled)
    hold = alive(run)
    hold.__enter__()
    async with app.run_test() as pilot:
        await pilot.press("3", "enter")
        await settle(pilot)
        assert isinstance(app.screen, ConfirmDialog)
        assert "chat-0001 has the model." in " ".join(text_of(app).split())
        await pilot.press(answer)
        await settle(pilot)
        assert Control((run.control_dir,)).poll().stop == (answer == "y")
        assert launched == []  # as long as it has not let go
        hold.__exit__(None, None, None)
        await app.workers.wait_for_complete()
    assert launched == (["reward-0002"] if answer == "y" else [])


def test_states_in_words(project: Project) -> None:
    talk = mailbox.Conversation(create_run(project, "chat"))
    talk.doing = Stage("waiting for the model", "ppo-0003 has it")

    def state(status: Any) -> str:
        return talking.state_words(status, talk, None, "").plain

    assert state("queued") == "○ QUEUED ppo-0003 has it"
    assert state("paused") == "‖ PAUSED"
    assert state("running") == "● waiting for the model…"
    assert state("finished") == "✓ ended: nobody looked for a while"
    assert state("stopped") == "■ stopped"
    assert state("crashed") == "✗ crashed"
    assert state(None) == "○ not loaded"
    assert talking.state_words(None, None, None, "starting").plain == "● starting…"
