"""The chat stage: base and tuned model answer the same questions, each in a conversation of its own.

Both sample with the same settings and the same random numbers, so that what differs is the tuning. What was said is in
the journal; a chat that was killed or paused reads it there, and answers what is still open, with the same words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.evaluation.scoring import stepwise_scores
from rlhf_tui.model.base import Base
from rlhf_tui.model.draw import Sampling
from rlhf_tui.model.manifest import saved_reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.streaming import stream
from rlhf_tui.preferences.records import Message
from rlhf_tui.runs.events import Alert, Sample, Stage
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.mailbox import (
    ANSWERING,
    BASE,
    BASE_ALONE,
    READY,
    Conversation,
    Exchange,
    Patience,
    Speaking,
    speak,
)
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import add_reward_model, loaded_base, seed_from
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.memory import measure
from rlhf_tui.training.rollout import Scoring

_POLL = 0.15  # seconds between two looks for a question
_TELL = 0.2  # seconds between two tellings of what is being said


@dataclass(frozen=True)
class _Speakers:
    """The base, and what there is of adapters on it."""

    base: Base
    roles: Roles | None
    tuned: bool
    scoring: Scoring | None
    policy_run: str

    def acting(self, side: str) -> AbstractContextManager[None]:
        """Inside, the model answers as `side`."""
        if self.roles is None:
            return nullcontext()
        return self.roles.reference() if side == BASE else self.roles.acting("policy")


def chat(context: StageContext) -> dict[str, Any]:
    """Answer questions until nobody has looked for chat.idle_minutes, or somebody stops it."""
    return converse(context, clock=time.monotonic, nap=time.sleep)


def converse(context: StageContext, *, clock: Callable[[], float], nap: Callable[[float], object]) -> dict[str, Any]:
    """The same, with a clock and a way to wait."""
    speakers = _speakers(context)
    talk = Conversation(context.run)
    for stamped in _journal(context):
        talk.take(stamped)
    talk.alone = not speakers.tuned
    patience = Patience(context.run, context.settings.chat.idle_minutes, clock)
    ready = False
    while not patience.over:
        talk.notice()
        if talk.open:
            _answer(context, speakers, talk, talk.open[0], clock)
            patience.begin_again()
            ready = False
            continue
        if not ready:
            context.emit(Stage(READY))
            ready = True
        context.control.boundary(lambda: None)  # every answer is in the journal already
        nap(_POLL)
    return {"questions": len(talk.exchanges), "policy_run": speakers.policy_run, "ended": "idle"}


def _journal(context: StageContext) -> Iterator[Any]:
    reader = JournalReader(context.run.events_path)
    while True:
        yield from reader.read()
        if reader.caught_up:
            return


def _speakers(context: StageContext) -> _Speakers:
    """Load the base, and the policy and reward adapters where there are any."""
    base, adapter = loaded_base(context), context.project.adapter
    tuned, rewarded = ((adapter(role) / "manifest.json").is_file() for role in ("policy", "reward"))
    roles, scoring, policy_run = None, None, ""
    if tuned or rewarded:
        reading = saved_reading(adapter("reward"), "reward") if rewarded else None
        roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed, reading=reading)
    if roles is not None and tuned:
        policy_run = str(roles.load("policy", adapter("policy")).get("run", ""))
    if roles is not None and rewarded:
        scoring = _scoring(context, roles)
    if not tuned:
        remedy = "'rlhf-tui train ppo' makes one; the next chat has both."
        context.emit(Alert("note", BASE_ALONE, "The base answers alone: there is no tuned model yet.", remedy=remedy))
    context.emit(measure("chat", base.device))
    return _Speakers(base, roles, tuned, scoring, policy_run)


def _scoring(context: StageContext, roles: Roles) -> Scoring | None:
    """The unit of the scores; None for a reward model of other texts: a chat does without scores then."""
    try:
        return add_reward_model(roles, context.project.adapter("reward"))[1]
    except UserError as error:
        context.emit(Alert("note", "no-score", "Answers get no score.", why=error.what, remedy=error.todo))
        return None


def _answer(
    context: StageContext, speakers: _Speakers, talk: Conversation, asked: Exchange, clock: Callable[[], float]
) -> None:
    """Let every side that has not answered yet do so; the journal has each answer as soon as it is whole."""
    for side in talk.sides:
        if side in asked.answers:
            continue
        context.emit(Stage(ANSWERING, side))
        prompt, forgotten = _prompt(context, speakers.base, talk, asked, side)
        if prompt is None:
            sample = Sample(asked.number, asked.question.text, "", {"too_long": 1.0}, side)
        else:
            sample = _spoken(context, speakers, asked, side, prompt, clock)
            sample.values.update({"forgotten": float(forgotten)} if forgotten else {})
        context.emit(sample)
        asked.answers[side] = sample
        speak(context.run, Speaking())


def _spoken(
    context: StageContext,
    speakers: _Speakers,
    asked: Exchange,
    side: str,
    prompt: list[int],
    clock: Callable[[], float],
) -> Sample:
    """Let `side` answer, telling what it says while it says it; with the score, where there is a reward model."""
    base, settings = speakers.base, context.settings.generate
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p)
    seed = seed_from("chat", context.settings.run.seed, asked.number)
    ids: list[int] = []
    told = clock()
    with speakers.acting(side):
        for token in stream(base.model, prompt, sampling, end_ids=base.chat.end_ids, seed=seed):
            ids.append(token)
            if clock() - told >= _TELL:
                told = clock()
                speak(context.run, Speaking(asked.number, side, base.chat.text(ids)))
                context.control.boundary(lambda: None)  # what is half said is said again
    values = {"length": float(len(ids)), "ended": float(ids[-1] in base.chat.end_ids)}
    if speakers.roles is not None and speakers.scoring is not None:
        sizes = MicroBatching(base, context.settings.ppo.micro_batch_tokens, "off")
        raw = stepwise_scores(speakers.roles, [Tokens(tuple(prompt), tuple(ids))], sizes, lambda: None)
        values["score"] = float((raw[0] - speakers.scoring.mean) / speakers.scoring.deviation)
    return Sample(asked.number, asked.question.text, base.chat.text(ids), values, side)


def _prompt(
    context: StageContext, base: Base, talk: Conversation, asked: Exchange, side: str
) -> tuple[list[int] | None, int]:
    """What `side` is asked, after as much of its own conversation as fits, and how many exchanges do not.

    The oldest are left out first, question and answer together. None when not even the question fits.
    """
    before = _since_fresh(talk, asked)
    for forgotten in range(len(before) + 1):
        turns = [
            message
            for one in before[forgotten:]
            if side in one.answers and "too_long" not in one.answers[side].values
            for message in (Message("user", one.question.text), Message("assistant", one.answers[side].completion))
        ]
        ids = base.chat.prompt_ids([*turns, Message("user", asked.question.text)])
        if len(ids) <= context.settings.model.max_prompt_tokens:
            return ids, forgotten
    return None, len(before)


def _since_fresh(talk: Conversation, asked: Exchange) -> list[Exchange]:
    """The exchanges before this one that are still remembered."""
    earlier = talk.exchanges[: asked.number - 1]
    if asked.question.fresh:
        return []
    for place in range(len(earlier) - 1, -1, -1):
        if earlier[place].question.fresh:
            return earlier[place:]
    return earlier
