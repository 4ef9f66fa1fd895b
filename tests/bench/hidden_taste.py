"""Does the whole loop teach a taste? A hidden rater judges the starter's own answers, PPO learns, the rater judges.

    python tests/bench/hidden_taste.py [--seeds 1 2 3] [--threads 2] [--keep DIR] [--set KEY=VALUE ...]

For each seed a project of its own, and the ordinary runs one after the other, in this process:

1. `generate`: three answers of the base to each of the demo's 252 prompts.
2. A made-up rater puts the three in order: 756 pairs, about a third of them ties. What it likes is hidden from every
   part of the program: an answer that speaks to the reader and offers a next step. Its measure is the share of the
   words in `WORDS` among all words of the answer; an answer of fewer than 20 words is measured as if it had 20, so that
   nothing is gained by being short, and nothing by being long. In one ordering of ten, two answers change places.
3. `train reward`, `train ppo`.
4. `compare`, three times with other seeds: base and policy answer every held-out prompt (none of them was trained on:
   not by the reward model, not by PPO), and the rater, now without slips, says whose answer is better.

`win_rate` is the share of the pairs (same prompt, one answer each) in which the policy's answer is better, ties counted
as half; its 95 % interval is bootstrapped over prompts, since the answers to one prompt are not independent. `kl` is in
nats for each completion, policy to base, on the policy's own answers to the held-out prompts. The held-out
prompts also decide which update is kept (`ppo.keep`), and held-out pairs which epoch of the reward model: the win rate
is a little flattered by that. The aim is a win rate of
at least 75 % at 15 nats or less, within 60 minutes on two cores. One line of JSON for each seed; the exit status is 1
when a seed missed the aim.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_tui.preferences.records import Verdict
    from rlhf_tui.project import Project
    from rlhf_tui.runs.folder import RunFolder

#: Who is spoken to, what they may do, and words with which a next step is offered.
WORDS = frozenset(("you", "your", "yours", "yourself", "can", "could", "should", "need", "want")) | frozenset(
    ("try", "let", "start", "next", "first", "help", "make", "take", "use", "if")
)
FEWEST_WORDS = 20
SLIPS = 0.1
ANSWERS = 3
COMPARISONS = 3
WIN_RATE, NATS = 0.75, 15.0

#: What differs from the defaults, and why.
SETTINGS = (
    # short: the starter's own template puts a long system prompt before each question, and two cores are slow
    "model.chat_template=chatml",
    "adapters.layers=10",
    "generate.prompts=0",
    f"generate.per_prompt={ANSWERS}",
    "generate.max_new_tokens=40",
    "generate.batch_size=48",
    "reward.epochs=4",
    "reward.learning_rate=2e-4",
    "reward.ensemble=1",  # the judge is known: it is asked itself, and the hour is for the policy
    "reward.reference_completions=32",
    "reward.preview_prompts=0",
    "ppo.max_new_tokens=40",
    # Many completions and one pass over them. With 32 and two passes the policy had moved by 0.028 nats a token on the
    # sampled tokens after the first update, and hardly on new ones, which fits a second pass that learns tokens by
    # heart; rate and minibatches were others, too.
    # twenty went on to 34 nats, and what was kept is the policy of the fourth
    "ppo.updates=8",
    "ppo.rollout_size=64",
    "ppo.epochs=1",
    "ppo.minibatches=2",
    "ppo.policy_learning_rate=2e-3",
    "ppo.value_learning_rate=2e-3",
    # The KL of 32 answers is known to about 2 nats: on all held-out prompts, and well below what is aimed at.
    "ppo.evaluate_prompts=60",
    "ppo.evaluate_every=2",
    "guard.kl_budget=12",
    # nearly every answer is cut at 40 tokens: a price on that would teach short answers, which is not the taste
    "ppo.missing_eos_penalty=0",
    "compare.samples_per_prompt=1",
)


def taste(text: str) -> float:
    """The share of the rater's words in `text`."""
    words = re.findall(r"[a-z]+", text.lower())
    return sum(word in WORDS for word in words) / max(len(words), FEWEST_WORDS)


def ranked(texts: Sequence[str], order: random.Random) -> Verdict:
    """The rater's order of some answers, equal ones tied; with a slip, two of them change places."""
    from rlhf_tui.preferences.records import Verdict, tied

    tastes = [taste(text) for text in texts]
    if order.random() < SLIPS:
        one, other = order.sample(range(len(tastes)), 2)
        tastes[one], tastes[other] = tastes[other], tastes[one]
    places = sorted(set(tastes), reverse=True)
    if len(places) == 1:
        return tied(len(tastes))
    return Verdict("ordered", ranks=tuple(1 + places.index(value) for value in tastes), strength=0)


def judge_all(project: Project, seed: int) -> tuple[int, int]:
    """The rater orders the answers to every prompt: how many pairs that gives, and how many of them are ties."""
    from rlhf_tui.preferences.queue import Queue, Rules

    order = random.Random(seed)
    with project.store() as store:
        for prompt in store.prompts():
            store.make_tasks(prompt.id, kind="rank", size=ANSWERS)
        rater = store.add_rater("hidden taste", kind="rule", card={})
        session = store.start_session(rater.id, columns=80, rows=24)
        queue = Queue(store, rater, Rules(kind="rank", size=ANSWERS, repeat_share=0.0))
        while (offer := queue.next()) is not None:
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="stacked")
            verdict = ranked([candidate.text for candidate in shown.shown], order)
            store.judge(shown.id, verdict, latency_ms=1000)
            queue.refresh(offer.task_id, offer.purpose)
        pairs = store.pairs()
    return len(pairs), sum(pair.tie for pair in pairs)


def carry_out(project: Project, kind: str, overrides: Sequence[str] = ()) -> tuple[RunFolder, Mapping[str, Any]]:
    """One run from beginning to end, and its result."""
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.worker import execute

    run = create_run(project, kind, overrides=overrides)
    done = execute(project, run)
    if done.status != "finished":
        raise SystemExit(f"{run.path}: {done}")
    return run, done.result


def answers(run: RunFolder) -> dict[str, dict[str, str]]:
    """What base ('before') and policy ('after') answered in a comparison, by prompt."""
    from rlhf_tui.runs.events import Sample
    from rlhf_tui.runs.journal import JournalReader

    found: dict[str, dict[str, str]] = {"before": {}, "after": {}}
    reader = JournalReader(run.events_path)
    while not reader.caught_up:
        for stamped in reader.read():
            if isinstance(stamped.event, Sample):
                found[stamped.event.source][stamped.event.prompt] = stamped.event.completion
    return found


def verdict(before: str, after: str) -> float:
    """1: the policy's answer is better, 0: the base's, ½: equal."""
    gap = taste(after) - taste(before)
    return 0.5 if gap == 0 else float(gap > 0)


def compare(project: Project, seed: int) -> dict[str, Any]:
    """Base and policy on the held-out prompts, judged by the rater."""
    from rlhf_tui.evaluation.intervals import mean_interval

    won: dict[str, list[float]] = {}
    tastes: dict[str, list[float]] = {"before": [], "after": []}
    results = []
    for number in range(COMPARISONS):
        run, result = carry_out(project, "compare", [f"run.seed={1000 * seed + number}"])
        results.append(result)
        sides = answers(run)
        for prompt, text in sides["before"].items():
            won.setdefault(prompt, []).append(verdict(text, sides["after"][prompt]))
        for side, texts in sides.items():
            tastes[side] += [taste(text) for text in texts.values()]
    rate = mean_interval([sum(each) / len(each) for each in won.values()], resamples=5000, seed=seed)

    def mean(pick: str, side: str = "") -> float:
        return float(sum((one[side] if side else one)[pick] for one in results) / len(results))

    example = next(iter(won))
    return {
        "win_rate": round(rate.value, 4),
        "win_rate_low": round(rate.low, 4),
        "win_rate_high": round(rate.high, 4),
        "prompts": len(won),
        "answers_each": COMPARISONS * len(won),
        "taste_before": round(sum(tastes["before"]) / len(tastes["before"]), 4),
        "taste_after": round(sum(tastes["after"]) / len(tastes["after"]), 4),
        "score_difference": round(mean("difference"), 3),
        "kl": round(mean("kl"), 2),
        "length_before": round(mean("length", "before"), 1),
        "length_after": round(mean("length", "after"), 1),
        "eos_before": round(mean("eos_rate", "before"), 3),
        "eos_after": round(mean("eos_rate", "after"), 3),
        "example": {"prompt": example} | {side: texts[example] for side, texts in sides.items()},
    }


def measure(folder: Path, seed: int, options: argparse.Namespace) -> bool:
    """The whole loop with one seed; prints what came of it and says whether the aim was reached."""
    from rlhf_tui.assessment.report import load_report
    from rlhf_tui.preferences.formats import read_prompts
    from rlhf_tui.project import create_project

    began = time.monotonic()
    settings = (*SETTINGS, f"run.threads={options.threads}", f"run.seed={seed}", *options.set)
    project = create_project(folder, overrides=settings)
    with as_file(files("rlhf_tui.demo") / "prompts.jsonl") as path, project.store() as store:
        store.add_prompts(read_prompts(path), heldout_fraction=0.2)
    minutes: dict[str, float] = {}

    def lap(name: str) -> None:
        minutes[name] = round((time.monotonic() - began) / 60 - sum(minutes.values()), 1)

    carry_out(project, "generate")
    lap("generate")
    pairs, ties = judge_all(project, seed)
    reward, _ = carry_out(project, "reward")
    lap("reward")
    _, learnt = carry_out(project, "ppo")
    lap("ppo")
    compared = compare(project, seed)
    lap("compare")
    report = load_report(reward.path)
    assert report is not None
    right = report.heldout.rate.share if report.heldout is not None else None
    reached = bool(compared["win_rate"] >= WIN_RATE and compared["kl"] <= NATS)
    facts = {"seed": seed, "reached": reached, "pairs": pairs, "ties": ties, "reward_right": right}
    run = {"updates": learnt["updates"], "ended": learnt["ended"], "minutes": minutes}
    print(json.dumps(facts | compared | run | {"minutes_in_all": round(sum(minutes.values()), 1)}), flush=True)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep the projects in this folder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        reached = [measure(folder / f"seed-{seed}", seed, options) for seed in options.seeds]
    raise SystemExit(0 if all(reached) else 1)


if __name__ == "__main__":
    main()
