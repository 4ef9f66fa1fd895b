"""The generate stage: sample candidates and offer them as pairs.

What it will sample is decided once, when the run begins, and every batch depends on that plan and its own place alone.
A batch that lies in the store is never sampled again, so that a run that was cut off ends with the completions of one
that was not. A plan knows how many completions there were before it: a run that took over the number of one whose
folder was deleted does not take the completions of that one for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base
from rlhf_tui.model.generation import Completion as Drawn
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.preferences.records import NewCompletion, Prompt
from rlhf_tui.runs.events import Progress, Sample, Stage
from rlhf_tui.runs.folder import write_whole
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.gathering import loaded_base, progress, seed_from
from rlhf_tui.training.memory import measure

_PLAN = "plan.json"
_SHOWN = 2  # completions of a batch that are told


class Plan(msgspec.Struct, frozen=True):
    """What the run samples: the uids of its prompts in their order, and how many others were too long.

    `before`: how many completions the store held.
    """

    prompts: list[str]
    too_long: int
    before: int


@dataclass(frozen=True)
class _Batch:
    """Completions that are sampled together: for every prompt one with each of the system messages."""

    jobs: Sequence[tuple[Prompt, str | None]]
    seed: int


def generate(context: StageContext) -> dict[str, Any]:
    """Sample candidates and offer them as pairs; every batch is in the store before the next one begins."""
    base = loaded_base(context)
    goes_on = (context.run.path / _PLAN).exists()
    plan = _plan(context, base)
    batches = _batches(context, plan)
    total = sum(len(batch.jobs) for batch in batches)
    made: list[int] = []
    done = 0
    context.emit(Stage("sampling"))
    context.emit(Progress(0, total, "completions"))
    for batch in batches:
        there = _stored(context, batch) if goes_on else []
        if there:
            made += there
            context.emit(Progress(done + len(batch.jobs), total, "completions"))
        else:
            drawn = _sampled(context, base, batch, done, total)
            texts = [base.chat.text(one.ids) for one in drawn]
            made += _keep(context, base, batch, drawn, texts)
            for (prompt, _), one, text in list(zip(batch.jobs, drawn, texts, strict=True))[:_SHOWN]:
                values = {"length": float(len(one.ids))}
                context.emit(Sample(done + len(batch.jobs), prompt.text, text, values, "generate"))
        done += len(batch.jobs)
        context.control.boundary(lambda: None)
    context.emit(measure("generate", base.device))
    with context.project.store() as store:
        pairs, near = store.pairs_with(made), store.near_duplicates(made)
    return {
        "prompts": len(plan.prompts),
        "completions": done,
        "pairs": pairs,
        "near_duplicates": near,
        "prompts_too_long": plan.too_long,
    }


def _plan(context: StageContext, base: Base) -> Plan:
    """What was planned when the run began, or else now: prompts with fewest completions first, in a stable order."""
    path = context.run.path / _PLAN
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Plan)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is damaged.", why=str(error), todo="Start a new run instead.") from None
    with context.project.store() as store:
        there = store.completions_by_prompt()
        counted = [(there.get(prompt.id, 0), prompt) for prompt in store.prompts()]
    fitting = [
        (count, prompt)
        for count, prompt in counted
        if len(base.chat.prompt_ids(prompt.messages)) <= context.settings.model.max_prompt_tokens
    ]
    fitting.sort(key=lambda item: (item[0], seed_from(context.settings.run.seed, item[1].uid)))
    wanted = context.settings.generate.prompts
    if not wanted:
        fitting = [item for item in fitting if item[0] == 0] or fitting
    chosen = [prompt.uid for _, prompt in fitting[: wanted or None]]
    plan = Plan(chosen, len(counted) - len(fitting), sum(there.values()))
    write_whole(path, msgspec.json.encode(plan))
    return plan


def _batches(context: StageContext, plan: Plan) -> list[_Batch]:
    settings = context.settings.generate
    systems = [
        settings.variant_system_prompt if number % 2 and settings.variant_system_prompt else None
        for number in range(settings.per_prompt)
    ]
    with context.project.store() as store:
        known = {prompt.uid: prompt for prompt in store.prompts()}
    prompts = [known[uid] for uid in plan.prompts]
    each = max(1, settings.batch_size // settings.per_prompt)
    return [
        _Batch(
            [(prompt, system) for prompt in prompts[start : start + each] for system in systems],
            seed_from(context.run.name, context.settings.run.seed, plan.before, start),
        )
        for start in range(0, len(prompts), each)
    ]


def _stored(context: StageContext, batch: _Batch) -> list[int]:
    """The ids of this batch's completions when it is in the store: all of it, since it got there in one transaction."""
    prompts = dict.fromkeys(prompt.id for prompt, _ in batch.jobs)
    with context.project.store() as store:
        return [one.id for prompt in prompts for one in store.completions(prompt) if one.seed == batch.seed]


def _sampled(context: StageContext, base: Base, batch: _Batch, done: int, total: int) -> list[Drawn]:
    settings = context.settings.generate
    return sample(
        base.model,
        [base.chat.prompt_ids(prompt.messages, system_prompt=system) for prompt, system in batch.jobs],
        Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
        end_ids=base.chat.end_ids,
        rows=settings.batch_size,
        seed=batch.seed,
        progress=progress(context, done, total),
    )


def _keep(context: StageContext, base: Base, batch: _Batch, drawn: Sequence[Drawn], texts: Sequence[str]) -> list[int]:
    """Store one batch and offer it as pairs, all or nothing; returns the ids of its completions."""
    settings = context.settings.generate
    with context.project.store() as store, store.transaction():
        model = store.add_model(base.location.published_name, "base", quantisation=base.quantisation)
        rows = [
            NewCompletion(
                prompt.id,
                model,
                store.add_generation(
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    max_new_tokens=settings.max_new_tokens,
                    system_prompt=context.settings.model.system_prompt if system is None else system,
                ),
                text,
                len(one.ids),
                "eos" if one.ended else "length",
                batch.seed,
            )
            for (prompt, system), one, text in zip(batch.jobs, drawn, texts, strict=True)
        ]
        ids = store.add_completions(rows)
        for prompt_id in dict.fromkeys(prompt.id for prompt, _ in batch.jobs):
            store.make_tasks(prompt_id, max_similarity=context.settings.label.max_similarity)
    return ids
