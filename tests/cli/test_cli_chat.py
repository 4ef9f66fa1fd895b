"""The verb `chat`: a line at a time, or one question; its own run ends with it, another one goes on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.chat_plain import answers_text
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs import mailbox
from rlhf_tui.runs.control import Control
from rlhf_tui.runs.events import Done, Launch, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalWriter

Cli = Callable[..., Any]


@pytest.fixture
def answering(project: Project) -> Iterator[RunFolder]:
    """A chat that lives, as long as the test does, and answers everything at once."""
    run, over = create_run(project, "chat"), threading.Event()

    def work() -> None:
        with run.lock(), JournalWriter(run.events_path) as emit:
            emit(Launch(run.name, "chat", os.getpid(), "box", "0.1"))
            emit(Stage("loading the model"))
            emit(Stage(mailbox.READY))
            ready.set()
            number = 1
            while not over.wait(0.01):
                asked = mailbox.question(run, number)
                if asked is not None:
                    emit(Sample(number, asked.text, "Long\n\x1b[31m story", {"score": -1.0, "ended": 0.0}, "base"))
                    emit(Sample(number, asked.text, "Short", {"score": 2.0, "ended": 1.0}, "policy"))
                    number += 1
                if asked is not None and asked.text == "break":
                    emit(Done("failed", "x", {"what": "The memory was not enough.", "why": "", "todo": "Do."}))
                    return

    ready = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    yield run
    over.set()
    thread.join(30)


def test_one_question_as_json(cli: Cli, project: Project, answering: RunFolder) -> None:
    answer = cli("chat", "--message", "hello", "--json", "--project", project.root)
    assert answer.code == 0
    assert json.loads(answer.out) == {
        "run": "chat-0001",
        "question": "hello",
        "answers": {
            "base": {"text": "Long\n\x1b[31m story", "score": -1.0, "ended": 0.0},
            "policy": {"text": "Short", "score": 2.0, "ended": 1.0},
        },
    }
    assert not Control((answering.control_dir,)).poll().stop  # it was there before, and goes on


def test_a_question_a_line(cli: Cli, project: Project, answering: RunFolder) -> None:
    answer = cli("chat", "--project", project.root, stdin="one\n\ntwo\n")
    assert (answer.code, answer.out.count("tuned > Short  [score +2.00]")) == (0, 2)
    assert "base  > Long\n        [31m story …  [score -1.00]" in answer.out
    assert "\x1b" not in answer.out
    assert "RLHF tunes behaviour, not facts." in answer.err
    assert mailbox.question(answering, 2) == mailbox.Question("two")
    assert mailbox.question(answering, 3) is None


def test_a_chat_that_breaks_off_is_an_error(cli: Cli, project: Project, answering: RunFolder) -> None:
    assert cli("chat", "--project", project.root, stdin="break\nmore\n").code == 1


def test_wrong_use(cli: Cli, project: Project) -> None:
    answer = cli("chat", "--json", "--project", project.root)
    assert answer.code == 2
    assert "--message" in answer.out
    assert cli("chat", "--message", " ", "--project", project.root).code == 2
    assert cli("chat", "--message", "hi", "--project", project.root, "--set", "model.name=/nowhere").code != 0
    assert list_runs(project) == []


def test_answers_as_text(project: Project) -> None:
    one = mailbox.Exchange(1, mailbox.Question("x"))
    one.answers["base"] = Sample(1, "x", "", {"too_long": 1.0}, "base")
    assert "longer than model.max_prompt_tokens" in answers_text(one)
    one.answers = {side: Sample(1, "x", "same", {"ended": 1.0}, side) for side in mailbox.SIDES}
    assert answers_text(one) == "base  > same\ntuned > same\n(both said the same)"


def test_it_starts_a_chat_of_its_own_and_ends_it(
    cli: Cli, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = create_project(
        tmp_path / "real", overrides=(f"model.name={tiny_folder}", "generate.max_new_tokens=6", "run.threads=1")
    )
    answer = cli("chat", "--message", "hello", "--json", "--project", project.root)
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert set(document["answers"]) == {"base"}
    assert "The base answers alone" in answer.err
    (run,) = list_runs(project)
    for _ in range(600):
        if not run.alive:
            break
        threading.Event().wait(0.05)
    done = run.done()
    assert done is not None
    assert done.status == "stopped"
