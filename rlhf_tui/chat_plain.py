"""Talking to base and tuned model line by line, without the app: in any terminal, or from a script."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from rlhf_tui.app.talking import CAPTION
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.project import Project
from rlhf_tui.runs.control import request
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.events import Alert, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import await_exit, launch
from rlhf_tui.runs.mailbox import ANSWERING, POLICY, READY, Conversation, Exchange, ask, require_askable
from rlhf_tui.runs.preflight import require_ready

_POLL = 0.1
_NAMES = {"base": "base ", "policy": "tuned"}


class Talk:
    """A chat run as a line mode has it: the one that lives, or a new one, which it stops when it leaves."""

    def __init__(self, project: Project, overrides: Sequence[str], said: TextIO) -> None:
        """`said` hears what the run does meanwhile. Raises UserError when no run can be started."""
        live = living(project)
        self.own = live is None
        if live is None:
            require_ready(project, "chat", project.settings(overrides))
            live = create_run(project, "chat", overrides=overrides)
            launch(project, live)
        self.run: RunFolder = live
        self._said = said
        self._talk = Conversation(live)
        self._reader = JournalReader(live.events_path)
        self._told = 0

    def answer(self, text: str) -> Exchange:
        """Ask, and wait for every side. Raises UserError when the run ends before."""
        self.wait_until(lambda talk: talk.doing.name in (READY, ANSWERING))
        number = ask(self.run, text)

        def answered(talk: Conversation) -> bool:
            talk.notice(number)
            return all(side in talk.exchanges[number - 1].answers for side in talk.sides)

        self.wait_until(answered)
        return self._talk.exchanges[number - 1]

    @property
    def alone(self) -> bool:
        """Whether the base answers alone."""
        return self._talk.alone

    def wait_until(self, what: Callable[[Conversation], bool]) -> None:
        """Read on in the journal until something holds. Raises UserError when the run ends before."""
        while True:
            alive = self.run.alive  # asked before reading: what has ended has written all it will ever write
            for stamped in self._reader.read():
                self._talk.take(stamped)
                self._tell(stamped.event)
            if what(self._talk):
                return
            if not alive and self._reader.caught_up:
                raise _ended(self.run)
            time.sleep(_POLL)

    def leave(self) -> None:
        """Stop a run that was started here; another one goes on."""
        if self.own:
            request(self.run, "stop")

    def _tell(self, event: object) -> None:
        match event:
            case Stage(name, detail) if name not in (READY, ANSWERING):
                self._line(f"  {name}: {detail}" if detail else f"  {name}")
            case Alert(level, _, message, why, remedy):
                self._line(f"  {level}: {' '.join(part for part in (message, why, remedy) if part)}")
            case _:
                pass

    def _line(self, text: str) -> None:
        print(clean(text), file=self._said, flush=True)


def living(project: Project) -> RunFolder | None:
    """The newest chat of the project that lives."""
    return next((run for run in reversed(list_runs(project)) if run.kind == "chat" and run.alive), None)


def chat_once(project: Project, overrides: Sequence[str], message: str, said: TextIO) -> tuple[dict[str, Any], str]:
    """Ask one question: the answers as a document, and as text."""
    require_askable(message)  # before anything is started
    talk = Talk(project, overrides, said)
    try:
        found = talk.answer(message)
    finally:
        talk.leave()
    document = {"run": talk.run.name, "question": message, "answers": {}}
    for side, sample in found.answers.items():
        values = {key: None if math.isnan(value) else value for key, value in sample.values.items()}
        document["answers"][side] = {"text": sample.completion, **values}  # type: ignore[index]
    return document, answers_text(found)


def chat_lines(project: Project, overrides: Sequence[str], source: TextIO, out: TextIO, said: TextIO) -> int:
    """Answer one question a line until the input ends; returns how many."""
    talk = Talk(project, overrides, said)
    count = 0
    try:
        talk.wait_until(lambda found: found.doing.name in (READY, ANSWERING))
        print(f"{CAPTION} One question a line; Ctrl-D ends.", file=said, flush=True)
        while True:
            if source.isatty():
                print("you   > ", end="", file=said, flush=True)
            line = source.readline()
            if not line:
                return count
            if line.strip():
                print(answers_text(talk.answer(line.rstrip("\n"))), file=out, flush=True)
                count += 1
    except KeyboardInterrupt:
        return count
    finally:
        talk.leave()


def answers_text(exchange: Exchange) -> str:
    """Every side's answer, one below the other, safe to print."""
    told = []
    for side, sample in exchange.answers.items():
        if "too_long" in sample.values:
            told.append(f"{_NAMES[side]} > (not answered: longer than model.max_prompt_tokens)")
            continue
        score = sample.values.get("score", math.nan)
        tail = "" if math.isnan(score) else f"  [score {score:+.2f}]"
        if forgotten := int(sample.values.get("forgotten", 0)):
            tail += f"  [the first {forgotten} of your questions no longer fit: model.max_prompt_tokens]"
        cut = "" if sample.values.get("ended", 1.0) else " …"
        body = clean(sample.completion).replace("\n", "\n        ")
        told.append(f"{_NAMES[side]} > {body}{cut}{tail}")
    if len(told) == 2 and exchange.answers["base"].completion == exchange.answers[POLICY].completion:
        told.append("(both said the same)")
    return "\n".join(told)


def _ended(run: RunFolder) -> UserError:
    await_exit(run)
    end = ending(run)
    if end is None or end.status == "finished":
        return UserError(f"{run.name} has ended: nobody had looked at it for a while.", todo="Start a new chat.")
    return UserError(end.what or f"{run.name} was stopped.", why=end.why, todo=end.todo or "Start a new chat.")
