"""Talking to base and tuned model: a run that answers from a mailbox, and ends when nobody looks."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_tui.app.talking import answer_facts
from rlhf_tui.model.base import load_base
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.model.streaming import stream
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs import mailbox
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Alert, Done, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import launch
from rlhf_tui.runs.worker import execute
from rlhf_tui.settings import AdapterSettings, ModelSettings
from rlhf_tui.stages.chat import converse

SETTINGS = (
    "adapters.layers=2",
    "adapters.rank=4",
    "generate.max_new_tokens=12",
    "chat.idle_minutes=2",
    "run.threads=1",
)


@pytest.fixture
def project(tiny_folder: Path, tmp_path: Path) -> Project:
    return create_project(tmp_path / "talk", overrides=(*SETTINGS, f"model.name={tiny_folder}"))


def put(project: Project, *roles: Role, moved: float = 0.0, template: str = "") -> None:
    """Adapters as training leaves them; those of the policy moved by so much."""
    settings = project.settings()
    base = load_base(ModelSettings(name=settings.model.name), lambda text: None)
    made = Roles(base, AdapterSettings(layers=2, rank=4), seed=1)
    for role in roles:
        made.add(role)
        if role == "policy" and moved:
            for parameter in made.parameters(role):
                parameter.data += moved
        facts = {"run": f"{role}-0001", "mean": 0.0, "deviation": 2.0, "template": template or base.chat.fingerprint}
        made.save(role, project.adapter(role), facts)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Carry out a chat whose clock goes on by a minute whenever it waits; then the next thing of a script is done."""

    def carry_out(project: Project, run: RunFolder, script: Iterable[Callable[[], object]] = ()) -> Done:
        steps, clock = iter(script), SimpleNamespace(now=0.0)

        def nap(seconds: float) -> None:
            assert 0.1 <= seconds <= 0.2
            step = next(steps, None)
            if step is None:
                clock.now += 60
            else:
                step()

        stages = {"chat": lambda context: converse(context, clock=lambda: clock.now, nap=nap)}
        monkeypatch.setitem(sys.modules, "chat_with_a_clock", SimpleNamespace(STAGES=stages))  # type: ignore[arg-type]
        return execute(project, run, stages="chat_with_a_clock")

    return carry_out


def events(run: RunFolder) -> Iterator[Any]:
    return (one.event for one in JournalReader(run.events_path).read())


def answers(run: RunFolder) -> dict[tuple[int, str], Sample]:
    return {(one.step, one.source): one for one in events(run) if isinstance(one, Sample)}


def test_an_untrained_policy_says_what_the_base_says(project: Project, talk: Callable[..., Done]) -> None:
    put(project, "policy")
    run = create_run(project, "chat")
    asked = ["hello, why is the sky blue?", "why?"]
    done = talk(project, run, [lambda text=text: mailbox.ask(run, text) for text in asked])
    assert done.status == "finished", done
    assert done.result == {"questions": 2, "policy_run": "policy-0001", "ended": "idle"}
    said = answers(run)
    assert set(said) == {(1, "base"), (1, "policy"), (2, "base"), (2, "policy")}
    for number in (1, 2):
        assert said[number, "base"].completion == said[number, "policy"].completion != ""
        assert "score" not in said[number, "base"].values
    assert said[1, "base"].completion != said[2, "base"].completion


def test_a_tuned_one_differs_and_a_reward_model_scores_both(project: Project, talk: Callable[..., Done]) -> None:
    put(project, "policy", "reward", moved=0.3)
    run = create_run(project, "chat")
    assert talk(project, run, [lambda: mailbox.ask(run, "hello")]).status == "finished"
    said = answers(run)
    assert said[1, "base"].completion != said[1, "policy"].completion
    assert all({"score", "length", "ended"} == set(one.values) for one in said.values())


def test_a_reward_model_of_other_texts_gives_no_score_and_says_so(project: Project, talk: Callable[..., Done]) -> None:
    put(project, "policy", "reward", template="another")
    run = create_run(project, "chat")
    assert talk(project, run, [lambda: mailbox.ask(run, "hello")]).status == "finished"
    assert "score" not in answers(run)[1, "policy"].values
    assert [one.code for one in events(run) if isinstance(one, Alert)] == ["no-score"]


def test_without_a_policy_the_base_answers_alone_and_says_so(project: Project, talk: Callable[..., Done]) -> None:
    run = create_run(project, "chat")
    done = talk(project, run, [lambda: mailbox.ask(run, "hello")])
    assert set(answers(run)) == {(1, "base")}
    assert [one.code for one in events(run) if isinstance(one, Alert)] == [mailbox.BASE_ALONE]
    assert done.result["policy_run"] == ""


def test_it_remembers_what_was_said_until_it_is_told_to_begin_afresh(
    project: Project, talk: Callable[..., Done]
) -> None:
    asked = ["hello", "please tell me more", "please tell me more"]
    first, second = create_run(project, "chat"), create_run(project, "chat")
    talk(project, first, [lambda text=text: mailbox.ask(first, text) for text in asked])
    talk(project, second, [lambda text=text: mailbox.ask(second, text, fresh=True) for text in asked])
    assert answers(first)[1, "base"] == answers(second)[1, "base"]
    assert answers(first)[2, "base"] != answers(second)[2, "base"]


def test_the_oldest_is_forgotten_where_not_all_fits_and_what_never_fits_is_not_answered(
    project: Project, talk: Callable[..., Done]
) -> None:
    run = create_run(project, "chat", overrides=("model.max_prompt_tokens=40",))
    asked = ["hello " * 3, "yes " * 3, "no " * 3, "the moon " * 90, "thank you"]
    assert talk(project, run, [lambda text=text: mailbox.ask(run, text) for text in asked]).status == "finished"
    said = answers(run)
    assert len(said) == 5
    assert said[4, "base"].values == {"too_long": 1.0}
    assert "forgotten" not in said[1, "base"].values
    assert said[3, "base"].values["forgotten"] >= 1  # and whoever reads it is told
    assert "without the first" in answer_facts(said[3, "base"])
    assert said[5, "base"].completion


def test_it_ends_when_nobody_looks_and_not_while_somebody_does(project: Project, talk: Callable[..., Done]) -> None:
    run, looked = create_run(project, "chat"), []

    def look() -> None:
        mailbox.look(run)
        looked.append(run.status())

    assert talk(project, run, [look] * 5).status == "finished"
    assert looked == ["running"] * 5


def test_patience_goes_by_its_own_clock(project: Project) -> None:
    run, now = create_run(project, "chat"), [0.0]
    patience = mailbox.Patience(run, 2, lambda: now[0])
    now[0] = 119
    assert not patience.over
    mailbox.look(run)
    assert not patience.over
    now[0] = 200
    os.utime(run.path / "seen", (1, 1))  # whose clock was set back: it was looked at all the same
    assert not patience.over
    now[0] = 320
    assert patience.over
    patience.begin_again()
    assert not patience.over


def test_stop_and_pause_are_heard_between_questions(project: Project, talk: Callable[..., Done]) -> None:
    run = create_run(project, "chat")
    done = talk(
        project, run, [lambda: mailbox.ask(run, "hello"), lambda: request(run, "save"), lambda: request(run, "stop")]
    )
    assert done.status == "stopped"
    assert set(answers(run)) == {(1, "base")}
    again = talk(project, run, [lambda: mailbox.ask(run, "hello")])  # taken up again, it knows what was said
    assert again.result["questions"] == 2
    assert answers(run)[2, "base"].completion != answers(run)[1, "base"].completion


def test_killed_in_the_middle_it_answers_what_is_open_with_the_same_words(
    project: Project, talk: Callable[..., Done]
) -> None:
    put(project, "policy", moved=0.3)
    whole, cut = create_run(project, "chat"), create_run(project, "chat")
    asked = ["hello", "please tell me more"]
    talk(project, whole, [lambda text=text: mailbox.ask(whole, text) for text in asked])
    launch(project, cut)
    mailbox.ask(cut, asked[0])
    until(lambda: len(answers(cut)) == 2)
    os.kill(cut.holder().pid, signal.SIGKILL)
    until(lambda: cut.status() == "crashed")
    mailbox.ask(cut, asked[1])
    talk(project, cut)
    assert answers(cut) == answers(whole)


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stream_gives_the_tokens_of_the_sampler(tiny_base: Any) -> None:
    prompt, sampling = [5, 9, 11, 30], Sampling(20, 0.8, 0.9)
    (wanted,) = sample(tiny_base.model, [prompt], sampling, end_ids=tiny_base.chat.end_ids, rows=1, seed=3)
    assert tuple(stream(tiny_base.model, prompt, sampling, end_ids=tiny_base.chat.end_ids, seed=3)) == wanted.ids
    first = next(iter(wanted.ids))
    assert list(stream(tiny_base.model, prompt, sampling, end_ids=[first], seed=3)) == [first]


def test_what_is_being_said_can_be_read_while_it_is_said(project: Project, talk: Callable[..., Done]) -> None:
    """The journal gets an answer once; the small file beside it, whatever there is."""
    run = create_run(project, "chat")
    talk(project, run, [lambda: mailbox.ask(run, "hello")])
    assert mailbox.heard(run) == mailbox.Speaking()
    mailbox.speak(run, mailbox.Speaking(1, "base", "so far"))
    assert mailbox.heard(run).text == "so far"
    assert [one.name for one in events(run) if isinstance(one, Stage)].count(mailbox.ANSWERING) == 1
