"""Projects in four states, told with the real writers: empty, with a run going on, with failed runs, and finished."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt
from rlhf_tui.project import Project
from rlhf_tui.runs import mailbox
from rlhf_tui.runs.ending import EXIT, Exit
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

#: A question, a wordy answer, a brief one.
TALKS = (
    ("Why is the sky blue?", "The colour of the sky is a fascinating question that many have asked.", "Air scatters."),
    ("What is a KL penalty?", "There are several things to be said about penalties of this kind.", "A leash."),
    ("How do I boil an egg?", "Boiling an egg is an art, and opinions about it differ widely.", "Seven minutes."),
    ("Who was Ada Lovelace?", "Ada Lovelace, born in London, was a remarkable person.", "The first programmer."),
    ("What is a prime number?", "In mathematics, numbers come in many kinds.", "Only 1 and itself divide it."),
    ("Why do cats purr?", "Cats are among the most popular pets in the world.", "To calm themselves."),
    ("What is tmux for?", "Terminals have a long history that goes back decades.", "It keeps sessions alive."),
    ("How far is the moon?", "The moon has always inspired humankind.", "384 400 km."),
    ("What is LoRA?", "Large models have many parameters, as is well known.", "Small matrices beside frozen ones."),
    ("Is glass a liquid?", "This is a common question with an interesting background.", "No, a solid."),
)
WORDY = "It depends on many things, all of which deserve to be looked at with care and from several sides. " * 5
OUT_OF_MEMORY = {
    "what": "The card is full.",
    "why": "PPO needed 13.1 GiB and the card has 12.0 GiB.",
    "todo": "Lower ppo.minibatch, or set model.quantisation to nf4.",
}
LEASH = Alert(
    "warning",
    "kl_fast",
    "KL rises faster than the score",
    "The policy moves away from the reference without being any better for it.",
    "Raise ppo.kl_coefficient, or lower ppo.learning_rate.",
)


def give_prompts(project: Project, *, heldout: float = 0.2) -> None:
    """Ten prompts, each with two candidates that wait to be judged."""
    with project.store() as store:
        rows = [NewPrompt((Message("user", question),), "by hand") for question, _, _ in TALKS]
        store.add_prompts(rows, heldout_fraction=heldout)
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt="")
        for prompt, (_, wordy, brief) in zip(store.prompts(), TALKS, strict=True):
            store.add_completions(
                [
                    NewCompletion(prompt.id, model, sampling, f"{wordy} {WORDY}".strip(), 118, "stop", 1),
                    NewCompletion(prompt.id, model, sampling, brief, 4, "stop", 2),
                ]
            )
            store.make_tasks(prompt.id)


def judge(project: Project, pairs: int) -> None:
    """Let Ann judge some pairs, or all there are."""
    with project.store() as store:
        rater = store.add_rater("ann")
        session = store.start_session(rater.id, columns=80, rows=24)
        queue = Queue(store, rater, Rules())
        for _ in range(pairs):
            offer = queue.next()
            if offer is None:
                return
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
            store.judge(shown.id, prefer(1), latency_ms=4000)
            queue.refresh(offer.task_id, offer.purpose)


def give_more(project: Project) -> None:
    """Two more answers to every prompt, so that several can be ordered or marked."""
    with project.store() as store:
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=1.2, top_p=1.0, max_new_tokens=128, system_prompt="")
        for prompt in store.prompts():
            texts = (f"Nobody knows for sure. {prompt.text}", "That is a good question! Let me think about it aloud.")
            store.add_completions(
                [
                    NewCompletion(prompt.id, model, sampling, text, 11, "stop", seed)
                    for seed, text in enumerate(texts, start=3)
                ]
            )


def have_adapter(project: Project, role: str, run: str) -> None:
    """An adapter that a run has made, as far as the app looks at it."""
    project.adapter(role).mkdir(exist_ok=True)
    (project.adapter(role) / "manifest.json").write_text(f'{{"facts": {{"run": "{run}"}}}}')


def tell(run: RunFolder, events: Sequence[Event]) -> None:
    """Write events into a run's journal, and the checkpoints they tell of onto the disk, as far as they are listed."""
    run.log_path.write_text("-- worker 1 --\nloading the model\na library warns of something\n")
    with JournalWriter(run.events_path) as emit:
        for event in events:
            emit(event)
            if isinstance(event, Checkpoint):
                (run.path / event.path).mkdir(parents=True)
                (run.path / event.path / "state.json").write_text(f'{{"done": {event.step}}}')
    os.utime(run.events_path, (time.time(), time.time()))


def write(project: Project, kind: str, events: Sequence[Event]) -> RunFolder:
    """A run that has written these events and whose worker is gone."""
    run = create_run(project, kind)
    tell(run, [Launch(run.name, kind, 1, "box", "0.1"), *events])
    return run


@contextmanager
def at_work(project: Project, kind: str, events: Sequence[Event]) -> Iterator[RunFolder]:
    """A run whose worker lives, and has written these events."""
    run = create_run(project, kind)
    with run.lock():
        tell(run, [Launch(run.name, kind, 1, "box", "0.1"), *events])
        yield run


# What runs of each kind say


def downloading() -> list[Event]:
    return [Stage("downloading the starter model"), *(Progress(n << 20, 93 << 20, "bytes") for n in (1, 12, 41))]


def generating(done: int = 12) -> list[Event]:
    events: list[Event] = [Stage("loading the model"), Memory("load", 3 << 30, 3 << 30), Stage("sampling")]
    for number in range(1, done + 1):
        question, wordy, brief = TALKS[(number - 1) // 2]
        events += [
            Sample(number, question, brief if number % 2 else wordy, source="generate"),
            Progress(number, 20, "completions"),
        ]
    return events


def learning(steps: int = 6) -> list[Event]:
    events: list[Event] = [Stage("reading the candidates"), Stage("training", "epoch 1 of 2")]
    for step in range(1, steps + 1):
        events += [
            Metric(step, {"loss": 0.7 - step / 50, "accuracy": 0.5 + step / 50, "margin": step / 20}),
            Progress(step, 10, "steps"),
        ]
    return events


def tuning(updates: int = 18) -> list[Event]:
    """A PPO run with held-out scores, a best checkpoint and an alert; one score is missing."""
    events: list[Event] = [Stage("loading the model"), Memory("load", 5 << 30, 5 << 30)]
    for step in range(1, updates + 1):
        share = step / 40
        question, _, brief = TALKS[step % len(TALKS)]
        events += [
            Stage("sampling", f"update {step} of 40"),
            Metric(
                step,
                {
                    "score": math.nan if step == 5 else 2 * share - 0.3,
                    "kl": 9 * share,
                    "kl_coefficient": 0.05,
                    "length": 90 - 70 * share,
                    "entropy": 2 - share,
                    "eos_rate": 0.8 + share / 6,
                    "policy_loss": 0.01,
                    "value_loss": 0.5 - share / 3,
                    "explained_variance": share,
                    "clip_fraction": 0.1,
                },
            ),
            Sample(step, question, brief, {"score": share}, "policy"),
        ]
        if step % 5 == 0:
            events += [
                Metric(
                    step,
                    {
                        "heldout_root_kl": math.sqrt(9 * share),
                        "heldout_score": 1.5 * share,
                        "heldout_length": 80 - 60 * share,
                        "heldout_eos_rate": 0.9,
                    },
                ),
                Sample(step, "Is glass a liquid?", f"No, a solid. ({step})", {"score": share}, "heldout"),
                Checkpoint(step, f"checkpoints/step-{step:06}", best=step == 15),
            ]
        events.append(Progress(step, 40, "updates"))
    return [*events, LEASH]


def comparing(prompts: int = 2) -> list[Event]:
    events: list[Event] = [Stage("sampling before")]
    for number, (question, wordy, brief) in enumerate(TALKS[:prompts]):
        events += [
            Sample(number, question, f"{wordy} {WORDY}".strip(), {"score": 0.4}, "before"),
            Sample(number, question, brief, {"score": 1.9}, "after"),
            Progress(2 * number + 2, 20, "completions"),
        ]
    return events


def exporting(layers: int = 11) -> list[Event]:
    return [Stage("merging", f"layer {layers} of 30"), Progress(layers, 30, "layers")]


#: What a comparison comes to.
COMPARED = {
    "before": {"score": 0.41, "length": 96.0, "eos_rate": 0.81},
    "after": {"score": 1.38, "length": 41.0, "eos_rate": 0.99},
    "difference": 0.97,
    "low": 0.71,
    "high": 1.22,
    "kl": 5.8,
    "length_low": -60.0,
    "length_high": -50.0,
    "kl_low": 5.1,
    "kl_high": 6.4,
    "prompts": 10,
}


def exported() -> Done:
    return Done(
        "finished",
        result={"path": "exports/merged-0001", "format": "merged", "check": {"kl": 0.0003, "top1": 0.998}},
    )


HELDOUT = {"n": 40, "accuracy": 0.78, "low": 0.63, "high": 0.88, "shorter": 0.55, "longer": 0.45, "log_loss": 0.5}
#: Every stage: its kind of run in the middle of it, at its end, and how it ends.
LIFE: tuple[tuple[str, str, list[Event], list[Event], Done], ...] = (
    ("model", "download", downloading(), downloading(), Done("finished")),
    ("pairs", "generate", generating(12), generating(20), Done("finished")),
    ("reward", "reward", learning(6), learning(10), Done("finished", result={"heldout": HELDOUT})),
    ("ppo", "ppo", tuning(18), tuning(40), Done("finished", result={"kept": 15, "updates": 40})),
    ("compare", "compare", comparing(2), comparing(10), Done("finished", result=COMPARED)),
    ("export", "export", exporting(11), exporting(30), exported()),
)


def said(run: RunFolder, *, whole: bool) -> list[Event]:
    """A chat: one question answered by both, and a second one that is being answered unless it is `whole`."""
    for question in ("Why is the sky blue?", "And at dusk?"):
        mailbox.ask(run, question)
    answers: list[Event] = [
        Stage(mailbox.READY),
        Sample(1, "Why is the sky blue?", TALKS[0][1], {"score": -0.5, "length": 15.0, "ended": 0.0}, "base"),
        Sample(1, "Why is the sky blue?", TALKS[0][2], {"score": 1.25, "length": 3.0, "ended": 1.0}, "policy"),
    ]
    if whole:
        return answers
    mailbox.speak(run, mailbox.Speaking(2, "base", "At dusk the light takes"))
    return [*answers, Stage(mailbox.ANSWERING, "base")]


# Whole projects


def finish(project: Project) -> None:
    """Take a project through every stage."""
    give_prompts(project)
    judge(project, 20)
    for _, kind, _, events, done in LIFE[1:]:
        run = write(project, kind, [*events, done])
        if kind in ("reward", "ppo"):
            have_adapter(project, {"reward": "reward", "ppo": "policy"}[kind], run.name)


def fail(project: Project) -> None:
    """Let the run of every stage fail, each in its own way; PPO is killed in the middle of it."""
    give_prompts(project)
    judge(project, 4)
    for role, run in (("reward", "reward-0003"), ("policy", "ppo-0004")):
        have_adapter(project, role, run)
    no_room = {"what": "The disk is full.", "why": "No space left on device.", "todo": "Free 2 GiB and resume."}
    write(project, "download", [*downloading(), Done("failed", error={**no_room, "todo": "Free some."})])
    write(project, "generate", [*generating(), Done("failed", error=OUT_OF_MEMORY, cause="out_of_memory")])
    bug = {"what": "KeyError: 'scores'", "why": "A bug.", "todo": "The traceback is in worker.log."}
    write(project, "reward", [*learning(), Done("failed", error=bug, cause="bug")])
    with at_work(project, "ppo", tuning()) as run:
        pass
    (run.path / EXIT).write_bytes(msgspec.json.encode(Exit(os.getpid(), 0, signal.SIGKILL)))
    write(project, "compare", [*comparing(), Done("failed", error=no_room, cause="disk_full")])
    write(project, "export", [*exporting(), Done("failed", error=no_room, cause="disk_full")])


@contextmanager
def chatting(project: Project, *, whole: bool) -> Iterator[RunFolder]:
    """A chat that goes on."""
    with at_work(project, "chat", []) as run:
        tell(run, said(run, whole=whole))
        yield run
