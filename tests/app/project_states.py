"""Projects in the states that the app meets, made with the real store and the real writer of journals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rlhf_tui.assessment.records import Report
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store
from rlhf_tui.project import DATABASE, Project
from rlhf_tui.runs.events import (
    Alert,
    Checkpoint,
    Done,
    Event,
    Launch,
    Memory,
    Metric,
    Progress,
    Sample,
    Stage,
)
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter
from tests.app.stories import COMPARED

LONG = "A KL penalty is a leash: it keeps the new model close to the old one. [bold]Not markup[/bold]. " * 12


def add_pairs(project: Project) -> None:
    """Prompts with two candidates each: ten pairs wait to be judged."""
    with project.store() as store:
        rows = [NewPrompt((Message("user", f"Explain a KL penalty, take {i}."),), "test") for i in range(10)]
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt="")
        for prompt in store.prompts():
            store.add_completions(
                [
                    NewCompletion(prompt.id, model, sampling, LONG + str(prompt.id), 118, "stop", 1),
                    NewCompletion(prompt.id, model, sampling, f"A leash. \x1b]0;title\x07{prompt.id}", 40, "stop", 2),
                ]
            )
            store.make_tasks(prompt.id)


def judge_all(project: Project, name: str, *, kind: str) -> None:
    """Every pair that waits is judged by one rater."""
    with project.store() as store:
        rater = store.add_rater(name, kind=kind)
        session = store.start_session(rater.id, columns=80, rows=24)
        queue = Queue(store, rater, Rules())
        while (offer := queue.next()) is not None:
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
            store.judge(shown.id, prefer(0), latency_ms=4000)
            queue.refresh(offer.task_id, offer.purpose)


def write_run(project: Project, kind: str, events: Sequence[Event]) -> RunFolder:
    """Make a run folder and write a journal into it with the real writer."""
    run = create_run(project, kind)
    with JournalWriter(run.events_path) as emit:
        emit(Launch(run.name, kind, 1, "box", "0.1"))
        for event in events:
            emit(event)
    run.log_path.write_text("loading the model\n\x1b]0;bad title\x07a warning of a library\n")
    return run


def ppo_events() -> list[Event]:
    """A PPO run of twelve updates, with a score that is missing once."""
    events: list[Event] = [Stage("loading the model"), Memory("load", 1 << 30, 1 << 30)]
    for step in range(1, 13):
        share = step / 12
        values = {
            "score": math.nan if step == 5 else share - 0.3,
            "kl": 6 * share,
            "kl_coefficient": 0.05,
            "length": 90 - 50 * share,
            "entropy": 2 - share,
            "eos_rate": 0.8 + share / 6,
            "policy_loss": 0.01,
            "value_loss": 0.5 - share / 3,
            "explained_variance": share,
            "clip_fraction": 0.1,
        }
        events += [
            Stage("update", f"{step}: sampling"),
            Metric(step, values),
            Sample(step, "Why is the sky blue?", f"Light \x1b[31m{step}. [red]x[/red]", {"score": share}, "policy"),
            Progress(step, 12, "updates"),
        ]
    events.append(Checkpoint(10, "checkpoints/step-000010", best=True))
    events.append(Alert("warning", "kl_fast", "KL rises faster than the score", "The leash is long.", "Raise it."))
    return events


def go_through(project: Project) -> None:
    """Every stage has been through once."""
    for role in ("reward", "policy"):
        project.adapter(role).mkdir()
        made_by = {"reward": "reward-0002", "policy": "ppo-0003"}[role]
        (project.adapter(role) / "manifest.json").write_text(f'{{"facts": {{"run": "{made_by}"}}}}')
    write_run(
        project,
        "generate",
        [Progress(20, 20, "completions"), Sample(1, "Why?", "Because.", source="generate"), Done("finished")],
    )
    training: list[Event] = []
    for step in range(1, 11):
        training += [Metric(step, {"loss": 0.7 - step / 50, "accuracy": 0.5 + step / 50}), Progress(step, 10, "steps")]
    training.append(Metric(10, {"heldout_accuracy": 0.78, "heldout_loss": 0.5}))
    heldout = {"n": 40, "accuracy": 0.78, "low": 0.63, "high": 0.88, "shorter": 0.55, "longer": 0.45, "log_loss": 0.5}
    write_run(project, "reward", [*training, Done("finished", result={"heldout": heldout})])
    write_run(project, "ppo", [*ppo_events(), Done("finished")])
    samples: list[Event] = []
    for index in range(3):
        prompt = f"Held-out prompt {index}?"
        samples += [
            Sample(index, prompt, f"Long before {index}. {LONG}", {"score": 0.4}, "before"),
            Sample(index, prompt, f"Brief after {index}.", {"score": 1.9}, "after"),
        ]
    write_run(project, "compare", [*samples, Done("finished", result={**COMPARED, "prompts": 60})])
    written = {"path": "/models/merged-0001", "format": "merged", "check": {"kl": 0.0003, "top1": 0.998}}
    write_run(project, "export", [Progress(1, 1, "files"), Done("finished", result=written)])


def write_report(report: Report, run: RunFolder) -> None:
    """Put a report into a run's folder; it is of the labels as they are now, unless it names others."""
    if not report.labels.hash:
        with Store.open(run.path.parents[1] / DATABASE) as store:
            report = replace(report, labels=replace(report.labels, hash=store.snapshot_hash()))
    (run.path / "report.json").write_bytes(msgspec.json.encode(report))
