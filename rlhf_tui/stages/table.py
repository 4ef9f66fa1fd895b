"""What each kind of run does: gather what lies in the project, call the engine, put the result back.

Only the worker imports this module; with it come torch and the model.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.evaluation.compare import compare
from rlhf_tui.export.card import Facts
from rlhf_tui.export.write import export_adapter, export_merged, finished_export
from rlhf_tui.locate import STARTER_LICENCE, locate
from rlhf_tui.model.base import Base
from rlhf_tui.model.manifest import saved_reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.control import StopRequested
from rlhf_tui.runs.events import Progress, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, find, latest, list_runs
from rlhf_tui.runs.worker import StageContext, execute
from rlhf_tui.stages.bench import bench
from rlhf_tui.stages.chat import chat
from rlhf_tui.stages.gathering import (
    add_reward_model,
    fitting_prompts,
    loaded_base,
    with_policy,
)
from rlhf_tui.stages.generate import generate
from rlhf_tui.stages.ppo import ppo
from rlhf_tui.stages.reward import reward
from rlhf_tui.training.memory import measure

_CHECK_PROMPTS = 4


def compare_stage(context: StageContext) -> dict[str, Any]:
    """Measure base and policy on the held-out prompts.

    Nothing has to be held still for a run that is taken up again, unlike in PPO: no number outlives an execution but
    the kept answers, which know the weights, prompts and settings that gave them. All that is measured is of the
    adapters and prompts that are there then, and the result names their runs.
    """
    base, adapter = loaded_base(context), context.project.adapter
    reading = saved_reading(adapter("reward"), "reward")
    roles = Roles(base, context.settings.adapters, seed=context.settings.run.seed, reading=reading)
    facts = roles.load("policy", adapter("policy"))
    reward_facts, scoring = add_reward_model(roles, adapter("reward"))
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
        kept=context.run.path / "answers",
    )
    context.emit(measure("compare", roles.base.device))
    return comparison.as_dict() | {"policy_run": facts["run"], "reward_run": reward_facts["run"]}


def export(context: StageContext) -> dict[str, Any]:
    """Write the tuned model to where the run's options say: 'out' and 'format'.

    A run that died when the export was in place, and nobody had been told yet, finds it there.
    """
    options = context.run.record.options
    form = options.get("format", "merged")
    target = context.project.exports / str(options.get("out") or f"{form}-{context.run.number:04d}")
    written = finished_export(target, context.run.name)
    if written is not None:
        return written | {"base": locate(context.settings.model.name).path}
    roles, policy_facts = with_policy(context)
    context.control.boundary(lambda: None)
    facts = _card_facts(context, roles.base, form, policy_facts)
    record = {
        "tool": "rlhf_tui",
        "run": context.run.name,
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
        boundary=lambda: context.control.boundary(lambda: None),
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
    "chat": chat,
    "bench": bench,
    "demo": demo,
}


# -- what the stages share ------------------------------------------------------------------------


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
