"""The reward model beside TRL's RewardTrainer: accuracy, seconds and peak memory at one budget. Run by hand.

    pip install -e '.[bench]'
    python tests/bench/reward_vs_trl.py --data rankings.jsonl [--threads N] [--json OUT] [--pairs N for a smoke run]

Method
------
Task.  Every line of --data is a conversation and its ranked replies; k replies give k(k-1)/2 pairs, the better
rank is chosen. Conversation trees (not prompts: those of one tree share their opening turns) are dealt into
--folds folds of about as many pairs; each fold is held out once, the model learns from the others. No pair is a
tie, all weigh 1, and no strength is known.

The same input.  Token ids are computed once, before anything is trained, and handed to both sides: the
conversation in the model's own chat template, of which the last --prompt-tokens stay; then the first
--response-tokens of the reply, and the end-of-turn token where nothing was cut off. TRL gets them in the columns
`chosen_ids` and `rejected_ids`, which it takes as tokenised.

The same budget.  Starter model (SmolLM2-135M-Instruct) in fp32 on the CPU with --threads torch threads; LoRA
rank 16, alpha 32, no dropout, on all linear layers of the decoder; --epochs passes; --batch pairs an optimiser
step; AdamW; the same peak learning rate for the adapter, weight decay, linear rise and cosine to 0 (the factor
of every step is the same to the last digit), gradients clipped at 1, centring 0.01 (TRL's advice, our default);
the same seeds and folds; the score is read at the last token; the weights after the last step count, not the best
epoch's. A forward pass is meant to hold as many tokens on both sides, --micro pairs of the greatest length, since
memory follows from that. Ours runs each candidate of a prompt once for all its pairs, a prompt with too many in
parts; an optimiser step takes --batch pairs or a few more, so that there are fewer steps. One process at a time; the
sides take turns at going first.

TRL at its best on a CPU.  RewardTrainer 1.12 loads the model itself (AutoModelForSequenceClassification, one
label) and trains the score head as its documentation asks (`modules_to_save=["score"]`). Of its defaults these
are off, because they only cost time here: gradient checkpointing, bf16 autocast, logging, saving, progress bar,
reports. Its own collator pads to the longest row of a forward pass. Pairs come in random order: its
`group_by_length` would sort so small a set from long to short, and its `batch_rebalance` makes forward passes of
unequal size, whose means it then weighs equally. Transformers pools at the last token that is not the pad token,
and the starter's tokenizer pads with the end-of-turn token, which would move that place one to the left in every
uncut reply: the bench pads with another token, and ends if that occurs in any sequence. TRL's documentation
recommends about 1e-3 for adapters; so --trl-rates lists the peak rates to try, a TRL side for each, and reading
the best of them as TRL's result is in TRL's favour. --own-defaults gives TRL RewardConfig's own schedule, weight
decay and centring in place of the shared ones.

Ours.  `train_reward`, with RewardSettings' defaults for everything that is no budget: the head starts at the ridge
solution on the base's features and has a rate of its own, labels are smoothed. That is part of the method which
is compared, and its time counts. The side 'plain' (--plain) is ours without these three: what remains of the
difference is the engine. Keeping the epoch that is best on held-out pairs is off, because they are the measure.

Measured, in the same way on both sides.  *train*: seconds from the call, with a loaded model and ready ids, to
the end of the last optimiser step (seen by a hook in torch), collation, warm-ups of any kind and measurements in
between included. *all*: the same until
held-out scores are there; for TRL every held-out candidate is scored once, by length, where its own evaluation
loop would score it for each pair; ours also scores its training pairs, for its report. Both are summed over folds
and seeds. *peak*: ru_maxrss of the process, everything that it imports and loads included, the highest of all
folds; *before*: the same when training begins. *tokens*: what the decoder was given, padding included, with a
gradient and without. A pair with equal scores counts one half. Accuracy and log-loss are pooled over folds and
seeds; intervals are 95 % percentile bootstraps that resample conversation trees, the same trees on both sides for
a difference.

Checks, which end the bench when they fail: the head and all LoRA layers have moved, on both sides, and there are
equally many LoRA weights; and our adapter and head from the first fold, loaded into the model class that TRL
trains and scored with its collator, give the held-out gaps that we reported (so ids, pooling and padding agree).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

# no torch here: Linux counts what a parent holds at the fork in the peak of its child
SIDES = Path(__file__).with_name("reward_vs_trl_sides.py")
CHECK_LIMIT = 2e-3
RESAMPLES, SEED = 4000, 20260
LIMIT_MINUTES = 90


def in_a_process(kind: str, plan: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What one measurement came to, made in a process of its own with the same threads for all libraries."""
    (folder / "plan.json").write_text(json.dumps(plan))
    threads = {name: str(plan["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(SIDES), kind, str(folder)],
        env=os.environ | threads | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stdout[-4000:]}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


# -- all together ----------------------------------------------------------------------------------


def run_all(given: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data, and one result for each fold, seed and side, checked."""
    base = {name: value for name, value in vars(given).items() if name not in ("json", "trl_rates")}
    base |= {"data": str(given.data.resolve()), "keep": str(folder / "kept"), "rate": given.rate}
    data = in_a_process("prepare", base, folder)
    (folder / "data.json").write_text(json.dumps(data))
    trees = {tree for _, _, tree, _ in data["pairs"]}
    print(f"{len(data['pairs'])} pairs of {len(data['candidates'])} replies, {len(trees)} trees, {given.folds} folds")
    sides = [("ours", "ours", given.rate), *([("plain", "ours", given.rate)] if given.plain else [])]
    sides += [(f"TRL {rate:g}", "trl", rate) for rate in given.trl_rates]
    rounds = [(fold, seed) for seed in range(given.seeds) for fold in range(given.folds)]
    results = []
    started = time.perf_counter()
    for number, (fold, seed) in enumerate(rounds):
        for side, kind, rate in sides if number % 2 == 0 else sides[::-1]:
            plan = base | {"side": side, "fold": fold, "seed": seed, "rate": rate}
            result = {"side": side, "fold": fold, "seed": seed, "rate": rate} | in_a_process(kind, plan, folder)
            require_moved(result)
            results.append(result)
            took = f"train {result['train_s']:6.1f} s, all {result['all_s']:6.1f} s, peak {result['peak_mb']:5.0f} MB"
            print(f"  fold {fold}, seed {seed}, {side:<10} {took}", flush=True)
            if number == 0 and side == "ours":
                require_same_gaps(result["gaps"], in_a_process("check", plan, folder))
        if number == 0:
            each = (time.perf_counter() - started) / 60
            print(f"  about {each * (len(rounds) - 1):.0f} minutes more, {each * len(rounds):.0f} in all", flush=True)
            if each * len(rounds) > LIMIT_MINUTES:
                print(f"  longer than {LIMIT_MINUTES} minutes: take fewer seeds, TRL rates or tokens")
    if len({result["lora_weights"] for result in results}) != 1:
        raise SystemExit("the sides do not have equally many LoRA weights")
    return data, results


def require_moved(result: Mapping[str, Any]) -> None:
    if not result["head_moved"] > 0 or result["lora_layers_moved"] != result["lora_layers"]:
        raise SystemExit(f"{result['side']}: the head or a LoRA layer did not learn")


def require_same_gaps(reported: Sequence[float], found: Mapping[str, Any]) -> None:
    pairs = zip(found["places"], found["gaps"], strict=True)
    most = max(abs(reported[place] - gap) for place, gap in pairs)
    print(f"  our model in TRL's class: {len(found['gaps'])} gaps differ by at most {most:.1e}", flush=True)
    if most > CHECK_LIMIT:
        raise SystemExit("the two sides do not score the same sequences in the same way")


def summary(data: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Measures of each side, and ours minus each other side, with intervals."""
    folds = np.array([fold for *_, fold in data["pairs"]])
    names, trees = np.unique([tree for _, _, tree, _ in data["pairs"]], return_inverse=True)
    chance = np.random.default_rng(SEED)
    draws = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)

    def estimate(values: np.ndarray) -> list[float]:
        """Mean over pairs and its interval. values: (pairs,)"""
        sums, counts = np.bincount(trees, values), np.bincount(trees)
        low, high = np.quantile(draws @ sums / (draws @ counts), [0.025, 0.975])
        return [float(values.mean()), float(low), float(high)]

    sides: dict[str, Any] = {}
    right, loss = {}, {}
    for side in dict.fromkeys(result["side"] for result in results):
        own = [result for result in results if result["side"] == side]
        gaps = np.zeros((len({result["seed"] for result in own}), len(folds)))
        for result in own:
            gaps[result["seed"], folds == result["fold"]] = result["gaps"]
        right[side] = ((gaps > 0) + 0.5 * (gaps == 0)).mean(axis=0)
        loss[side] = np.logaddexp(0, -gaps).mean(axis=0)
        sides[side] = {"accuracy": estimate(right[side]), "log_loss": estimate(loss[side])}
        sides[side] |= {name: sum(one[name] for one in own) for name in ("train_s", "all_s")}
        sides[side] |= {name: max(one[name] for one in own) for name in ("peak_mb", "before_mb")}
        sides[side] |= {name: sum(one[name] for one in own) for name in ("steps", "tokens_gradient", "tokens_other")}
    differences = {
        side: {"accuracy": estimate(right["ours"] - right[side]), "log_loss": estimate(loss["ours"] - loss[side])}
        for side in sides
        if side != "ours"
    }
    return {"sides": sides, "ours_minus": differences}


def table(found: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = [
        f"{'':<10} {'accuracy (95 %)':<22} {'log-loss (95 %)':<20} {'train s':>8} {'all s':>7} {'peak MB':>8} "
        f"{'before':>7} {'steps':>6} {'tokens with, without gradient':>31}"
    ]
    for side, row in found["sides"].items():
        accuracy, loss = (f"{v:.3f} ({a:.3f} – {b:.3f})" for v, a, b in (row["accuracy"], row["log_loss"]))
        lines.append(
            f"{side:<10} {accuracy:<22} {loss:<20} {row['train_s']:8.1f} {row['all_s']:7.1f} {row['peak_mb']:8.0f} "
            f"{row['before_mb']:7.0f} {row['steps']:6} {row['tokens_gradient']:15,} {row['tokens_other']:15,}"
        )
    own = found["sides"]["ours"]
    for side, difference in found["ours_minus"].items():
        other = found["sides"][side]
        accuracy, loss = (
            f"{v:+.3f} ({a:+.3f} – {b:+.3f})" for v, a, b in (difference["accuracy"], difference["log_loss"])
        )
        ratios = {name: own[name] / other[name] for name in ("train_s", "all_s", "peak_mb")}
        lines.append(
            f"ours − {side}: accuracy {accuracy}, log-loss {loss}; "
            f"train time × {ratios['train_s']:.2f}, all × {ratios['all_s']:.2f}, peak × {ratios['peak_mb']:.2f}"
        )
    return "\n".join(lines)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="JSON Lines of tree_id, prompt (messages), completions (text, rank)")
    parser.add_argument("--json", type=Path, help="where everything measured is written")
    parser.add_argument("--pairs", type=int, default=0, help="take whole trees until so many pairs, for a smoke run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--response-tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16, help="pairs an optimiser step")
    parser.add_argument("--micro", type=int, default=4, help="pairs a forward pass; divides --batch")
    parser.add_argument("--rate", type=float, default=1e-4, help="our peak learning rate")
    parser.add_argument("--trl-rates", type=float, nargs="+", default=[1e-4, 1e-3], help="TRL's, a side for each")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--own-defaults", action="store_true", help="TRL's own schedule, weight decay and centring")
    parser.add_argument("--plain", action="store_true", help="also ours without its own head start and smoothing")
    return parser


def main() -> None:
    given = options().parse_args()
    if given.data is None or not given.data.is_file():
        raise SystemExit("--data names no file: the ranked replies to learn from")
    if given.batch % given.micro or given.folds < 2:
        raise SystemExit("--micro must divide --batch, and --folds must be 2 or more")
    with tempfile.TemporaryDirectory() as made:
        data, results = run_all(given, Path(made))
    found = summary(data, results)
    print(table(found))
    if given.json:
        asked = {name: str(v) if isinstance(v, Path) else v for name, v in vars(given).items()}
        versions = {name: version(name) for name in ("rlhf-tui", "trl", "torch", "transformers", "peft")}
        about = {"settings": asked, "versions": versions, "python": platform.python_version(), "cores": os.cpu_count()}
        given.json.write_text(json.dumps(about | found | {"runs": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
