"""What each kind of run does: gather what lies in the project, call the engine, put the result back.

Only the worker imports this module; with it come torch and the model.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.evaluation.compare import compare
from rlhf_tui.export.card import Facts
from rlhf_tui.export.write import export_adapter, export_merged
from rlhf_tui.locate import STARTER_LICENCE
from rlhf_tui.model.base import Base
from rlhf_tui.model.generation import Completion as Drawn
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.preferences.records import NewCompletion, Prompt
from rlhf_tui.runs.control import StopRequested
from rlhf_tui.runs.events import Progress, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, find, latest, list_runs
from rlhf_tui.runs.worker import StageContext, execute
from rlhf_tui.stages.bench import bench
from rlhf_tui.stages.gathering import add_reward_model, fitting_prompts, loaded_base, progress, seed_from, with_policy
from rlhf_tui.stages.ppo import ppo
from rlhf_tui.stages.reward import reward
from rlhf_tui.training.memory import measure

_CHECK_PROMPTS = 4


def generate(context: StageContext) -> dict[str, Any]:
    """Sample candidates and offer them as pairs; every batch is in the store before the next one begins."""
    settings = context.settings.generate
    base = loaded_base(context)
    chosen, left_out = _prompts_to_answer(context, base)
    systems = [
        settings.variant_system_prompt if number % 2 and settings.variant_system_prompt else None
        for number in range(settings.per_prompt)
    ]
    total = len(chosen) * settings.per_prompt
    pairs = near = done = 0
    each = max(1, settings.batch_size // settings.per_prompt)
    context.emit(Stage("sampling"))
    context.emit(Progress(0, total, "completions"))
    for start in range(0, len(chosen), each):
        prompts = chosen[start : start + each]
        jobs = [(prompt, system) for prompt in prompts for system in systems]
        seed = seed_from(context.run.name, context.settings.run.seed, start)
        drawn = sample(
            base.model,
            [base.chat.prompt_ids(prompt.messages, system_prompt=system) for prompt, system in jobs],
            Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
            end_ids=base.chat.end_ids,
            rows=settings.batch_size,
            seed=seed,
            progress=progress(context, done, total),
        )
        texts = [base.chat.text(one.ids) for one in drawn]
        made, alike = _keep(context, base, jobs, drawn, texts, seed)
        pairs, near = pairs + made, near + alike
        done += len(jobs)
        for (prompt, _), one, text in zip(jobs[:2], drawn[:2], texts[:2], strict=True):
            context.emit(Sample(done, prompt.text, text, {"length": float(len(one.ids))}, "generate"))
        context.control.boundary(lambda: None)
    context.emit(measure("generate", base.device))
    return {
        "prompts": len(chosen),
        "completions": done,
        "pairs": pairs,
        "near_duplicates": near,
        "prompts_too_long": left_out,
    }


def _keep(
    context: StageContext,
    base: Base,
    jobs: Sequence[tuple[Prompt, str | None]],
    drawn: Sequence[Drawn],
    texts: Sequence[str],
    seed: int,
) -> tuple[int, int]:
    """Store one batch and offer it as pairs: how many pairs are new, and how many texts are too alike to offer."""
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
                seed,
            )
            for (prompt, system), one, text in zip(jobs, drawn, texts, strict=True)
        ]
        ids = store.add_completions(rows)
        alike = context.settings.label.max_similarity
        prompts = dict.fromkeys(prompt.id for prompt, _ in jobs)
        pairs = sum(store.make_tasks(prompt_id, max_similarity=alike) for prompt_id in prompts)
        return pairs, store.near_duplicates(ids)


def compare_stage(context: StageContext) -> dict[str, Any]:
    """Measure base and policy on the held-out prompts."""
    roles, facts = with_policy(context)
    reward_facts, scoring = add_reward_model(context, roles)
    prompts, _ = fitting_prompts(context, roles.base, "heldout")
    wanted = context.settings.compare.prompts
    comparison = compare(
        roles,
        prompts[: wanted or None],
        context.settings.compare,
        context.settings.ppo,
        scoring,
        seed=context.settings.run.seed,
        emit=context.emit,
        boundary=lambda: context.control.boundary(lambda: None),
    )
    context.emit(measure("compare", roles.base.device))
    return comparison.as_dict() | {"policy_run": facts["run"], "reward_run": reward_facts["run"]}


def export(context: StageContext) -> dict[str, Any]:
    """Write the tuned model to where the run's options say: 'out' and 'format'."""
    roles, policy_facts = with_policy(context)
    options = context.run.record.options
    form = options.get("format", "merged")
    target = context.project.exports / str(options.get("out") or f"{form}-{context.run.number:04d}")
    facts = _card_facts(context, roles.base, form, policy_facts)
    record = {
        "tool": "rlhf_tui",
        "policy": policy_facts,
        "base": roles.base.location.published_name,
        "revision": context.settings.model.revision,
        "quantisation": roles.base.quantisation,
        "format": form,
        "versions": context.run.record.versions,
    }
    whence = {"policy_run": policy_facts["run"], "base": roles.base.location.path}
    if form == "adapter":
        return whence | export_adapter(roles, target, facts=facts, record=record)
    prompts, _ = fitting_prompts(context, roles.base, None)  # a check, not a measurement: any will do
    return whence | export_merged(
        roles,
        target,
        dtype=context.settings.export.dtype,
        facts=facts,
        record=record,
        prompts=prompts[:_CHECK_PROMPTS],
        report=lambda text: context.emit(Stage(text)),
    )


def demo(context: StageContext) -> dict[str, Any]:
    """The whole loop: every stage as a run of its own, one after the other, in this process.

    A demo that was stopped goes on with the first stage that has not finished.
    """
    results: dict[str, Any] = {}
    kinds: list[str] = list(context.run.record.options["stages"])
    for number, kind in enumerate(kinds):
        context.emit(Progress(number, len(kinds), "stages"))
        child = _child(context, kind)
        context.emit(Stage(kind, child.name))
        done = child.done()
        if done is None or done.status != "finished":
            done = execute(context.project, child, control_folders=[context.run.control_dir])
            gc.collect()  # the model of this stage hangs in cycles; the next one loads its own
        if done.status == "failed":
            error = done.error or {"what": done.message}
            raise UserError(error["what"], why=error.get("why", ""), todo=error.get("todo", ""))
        context.control.boundary(lambda: None)
        if done.status == "stopped":
            raise StopRequested
        results[kind] = {"run": child.name} | done.result
    context.emit(Progress(len(kinds), len(kinds), "stages"))
    return results


STAGES: Mapping[str, Callable[[StageContext], Mapping[str, Any]]] = {
    "generate": generate,
    "reward": reward,
    "ppo": ppo,
    "compare": compare_stage,
    "export": export,
    "bench": bench,
    "demo": demo,
}


# -- what the stages share ------------------------------------------------------------------------


def _prompts_to_answer(context: StageContext, base: Base) -> tuple[list[Prompt], int]:
    """Which prompts get candidates: those with fewest completions first, in a stable random order."""
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
        fresh = [item for item in fitting if item[0] == 0]
        fitting = fresh or fitting
    return [prompt for _, prompt in fitting[: wanted or None]], len(counted) - len(fitting)


def _child(context: StageContext, kind: str) -> RunFolder:
    """The run of the demo's stage `kind`: the one it made before it was interrupted, or a new one."""
    for run in reversed(list_runs(context.project)):
        if run.kind == kind and run.record.parents.get("demo") == context.run.name:
            return run
    return create_run(context.project, kind, overrides=context.run.record.overrides, parents={"demo": context.run.name})


def _card_facts(context: StageContext, base: Base, form: str, policy: Mapping[str, Any]) -> Facts:
    with context.project.store() as store:
        guideline = store.guideline()
        judging = {pair.rater for pair in store.pairs()}
        raters = [
            {"handle": rater.public_name, "kind": rater.kind, "card": rater.public_card}
            for rater in store.raters()
            if rater.handle in judging
        ]
        pairs = len(store.pairs("train"))
    compared = latest(context.project, "compare", "finished")
    comparison = compared.result() if compared is not None else {}
    rewarded = find(context.project, policy["reward_run"]).result()
    facts = Facts(
        project=context.project.name,
        base=base.location.published_name,
        licence=STARTER_LICENCE if base.location.kind == "starter" else "",
        quantisation=base.quantisation,
        form=form,
        pairs=rewarded.get("train_pairs", pairs),
        raters=raters,
        guideline=guideline.body_md if guideline is not None else "",
        reward=rewarded.get("heldout") or {},
    )
    fits = comparison.get("policy_run") == policy["run"]
    return replace(facts, comparison=comparison) if fits else facts
