"""Questions to a chat run: each with a number of its own, whole or not there; the conversation from the journal."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import create_project
from rlhf_tui.runs import mailbox
from rlhf_tui.runs.events import Alert, Launch, Sample, Stage, Stamped
from rlhf_tui.runs.folder import RunFolder, create_run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return create_run(create_project(tmp_path / "p"), "chat")


def test_everybody_who_asks_gets_a_number(run: RunFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda at: mailbox.ask(run, f"question {at}"), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    asked = [mailbox.question(run, number) for number in numbers]
    assert [one.text for one in asked if one] == [f"question {at}" for at in range(40)]
    assert sorted(path.name for path in (run.path / "questions").iterdir()) == [f"{n:06d}.json" for n in range(1, 41)]
    assert mailbox.question(run, 41) is None


def test_what_cannot_be_asked_is_refused_in_words(run: RunFolder) -> None:
    with pytest.raises(UsageError):
        mailbox.ask(run, " \n")
    with pytest.raises(UsageError, match="characters"):
        mailbox.ask(run, "x" * 100_001)
    (run.path / "questions").write_text("a file")
    with pytest.raises(UserError, match="could not be asked"):
        mailbox.ask(run, "hello")


def test_a_damaged_question_is_an_error_not_a_guess(run: RunFolder) -> None:
    mailbox.ask(run, "hello")
    (run.path / "questions" / "000001.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        mailbox.question(run, 1)


def test_the_conversation_follows_the_journal(run: RunFolder) -> None:
    talk = mailbox.Conversation(run)
    mailbox.ask(run, "one")
    mailbox.ask(run, "two", fresh=True)
    talk.notice()
    assert [one.question.text for one in talk.exchanges] == ["one", "two"]
    assert len(talk.open) == 2

    def take(event: object) -> None:
        talk.take(Stamped(1.0, event))  # type: ignore[arg-type]

    take(Launch(run.name, "chat", 1, "box", "0.1"))
    take(Stage(mailbox.ANSWERING, "base"))
    take(Sample(1, "one", "yes", source="base"))
    take(Sample(1, "one", "elsewhere", source="heldout"))
    assert len(talk.open) == 2
    take(Sample(1, "one", "no", source="policy"))
    assert [one.number for one in talk.open] == [2]
    take(Alert("note", mailbox.BASE_ALONE, "alone"))
    take(Sample(2, "two", "yes", source="base"))
    assert talk.open == []
    assert talk.sides == ("base",)
    assert talk.doing == Stage(mailbox.ANSWERING, "base")
    take(Sample(5, "lost", "an answer whose question is gone", source="base"))
    assert len(talk.exchanges) == 5
