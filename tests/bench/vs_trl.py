"""A PPO step beside TRL 1.12's PPOTrainer: seconds by phase and peak memory on the same work. Run by hand.

    pip install -e '.[bench]'
    python tests/bench/vs_trl.py [--threads 2] [--steps 3] [--seeds 1] [--json OUT] [--quick for a smoke run]
    python tests/bench/vs_trl.py --workloads fixed --sides trl --json OUT --add      (in parts: OUT grows)

Method
------
The same work.  Starter model (SmolLM2-135M-Instruct) in fp32; LoRA rank 16, alpha 32, no dropout, on all linear
layers of all decoder layers, for the policy and for the value; the value's head learns, too. --batch (16) prompts a
step, one completion each; temperature 0.7, pure sampling; --epochs (4) passes, one optimiser step each (one
minibatch), gradients summed over micro-batches of --micro (4) rows; Adam with epsilon 1e-5, the same learning rate
everywhere, linear to 0; gamma 1, lambda 0.95, clips 0.2, KL price 0.05, penalty 1 for a missing end. The prompts are
our demo's, in the model's chat template with a system message that makes them about 60 tokens long, as token ids made
once for both. Every step has the same --batch prompts: so both sides do the same in each step, whatever their
shuffling. Another seed draws other prompts.

Two workloads.  *fixed*: prompts are cut to --prompt-tokens (60), nothing ends an answer, so every completion has
--fixed-limit (64) tokens: no padding and no early end anywhere, the least favourable case for ours. *realistic*:
prompts keep their lengths, an answer ends with its first line: --stop, a newline by default, is the end token for
both sides in TRL's own way (`stop_token_id`) and in ours (`end_ids`). With the limit at --realistic-limit (128, our
default) the mean is about 40 % of it and few answers are cut. What the mean was, on either side, is in the table. Its
micro-batches may hold as many tokens as --micro rows of the greatest length; TRL's hold --micro rows, padded.

TRL at its best on a CPU.  `use_cpu`; no bf16 (many times slower here), no gradient checkpointing (its default, about a
third slower), no samples for display, no logging, saving or reports. The whole batch is generated and scored at once
(`local_rollout_forward_batch_size` ≥ batch): fewer rows take less memory and longer; --trl-rollout-rows tries it.
The reference is the policy with its adapter disabled (`ref_model=None` with `peft_config`), not a copy. The value is
`AutoModelForSequenceClassification` with LoRA put into it in place (`peft.inject_adapter_in_model`), so that TRL's
wrapper finds its backbone directly (through a PeftModel it would run the classification forward as well), without a KV
cache. TRL clips no gradient. Answers are padded with a token that hardly ever occurs. Its data loader shuffles only
between the same prompts, so that it is replaced by one that does not, and it has one batch more than there are steps:
at the end of a loader accelerate would make every micro-batch an optimiser step.

The reward model is the bare base with a fixed head, the same numbers on both sides (ours: the reward role's adapter,
which still does nothing but costs its arithmetic; TRL's: no adapter. That is in TRL's favour). The value starts
with the same head. TRL's policy, value and reward each load their own copy of the base, as it is documented and as
its example does; the side `trl-tied` ties the three by hand to one set of weights (a few lines that TRL does not
bring), to show what memory would remain.

Measured, in the same way on both sides.  One process for each measurement, one after another, in turns, with the same
thread settings. A warm-up step is thrown away, then the median of --steps × --seeds steps. *step*: from the end of a
step to the end of the next, on TRL's side by its own callback, on ours by the return of `Ppo.update()`. *sampling*:
TRL's `batch_generation`, our sampler; what comes next until the first forward pass with a gradient is *scoring* (old
log-probabilities, reference, values, rewards, advantages; TRL reads its old log-probabilities off the sampling logits,
ours recomputes them in the training shape), the remainder *update*. *tokens/s*: sampled tokens up to the end token, by
the seconds of sampling. *peak*: the most that was resident in the process (VmHWM), everything that it imports and
loads included; with CUDA also max_memory_allocated. Our engine sets the kernel's mark back between phases: on both
sides the highest mark that ever was counts. *before*: the same when the first step begins. Held-out evaluation and
checkpoints are off on both sides.
Beside them: `model.generate` of transformers on the same prompts at --batch rows, without a LoRA adapter and with one
active, as the tokens/s that a sampler has to beat.

Checks, which end the bench when they fail: all LoRA layers of policy and value have moved on both sides, and there are
equally many LoRA weights; both sides took one optimiser step for each epoch and role; in *fixed* every completion has
full length; and ours gives, for the completions that TRL sampled in its first step, the log-probabilities, values and
scores that TRL had (so it is the same model, temperature, positions and head).

Where the seconds go
--------------------
Phases as measured in November 2026 on two cores of an AMD EPYC (the table in the README): a step of *fixed* takes
ours 80.8 s and TRL 95.1 s (1.18 times as long), one of *realistic* (limit 64) 61.8 s and 104.3 s (1.69 times). 1.4
and 3 were asked for. GFLOP are counted by training/arithmetic.py, for 26 tokens an answer in *realistic*; 'at best'
is at 178 GFLOP/s, torch's best product on those cores as update_speed.py found it in a run of its own, so it is a
bound for any fp32 code in torch only as far as the machine was as fast then.

    fixed                 GFLOP   at best      ours        TRL
    sampling                508     2.9 s     6.4 s     11.9 s    79 GFLOP/s, in products of 16 rows; TRL 43
    scoring                1893    10.6 s    13.4 s     10.3 s    141 GFLOP/s
    update                 7855    44.1 s    61.7 s     71.9 s    127 GFLOP/s; TRL 109
    realistic
    scoring                1272     7.1 s    10.5 s     11.8 s
    update                 5271    29.6 s    45.5 s     78.7 s

Three quarters of a step of *fixed* are the update, in which both sides have the same products to make: of each frozen
weight with the states, and with the gradient of the states. There ours reaches 71 % of the best product and TRL 61 %.
TRL scores less (about 1386 GFLOP): it reads its old log-probabilities off the logits of sampling, and its reward model
has no adapter; ours takes a pass of the policy (507 GFLOP, 2.9 s at best) in the update's own shape, so that the first
ratio is exactly 1. In *realistic* ours works on about as many tokens as there are, TRL on padded rows: its update takes
no less than in *fixed*. Ours does 116 GFLOP/s in that update, 65 % of the best product.

What 1.4 and 3 would need. 1.4 on *fixed* is a step of 67.9 s: with sampling as it is, scoring and update in 61.5 s,
which is 158 GFLOP/s or 89 % of the best product for everything together, norms, attention, adapters and optimiser
included. Without any loss a step would take 61.2 s, 1.55 times less than TRL's: this bound does not exclude 1.4, it
was not reached. Which operations take the rest, `update_speed.py --profile` shows. 3 on *realistic* is a step of
34.8 s, and its scoring and update alone take 36.8 s at the best rate: it cannot be had with this work on these cores in
fp32.

The same on two cores of an Intel Xeon with AVX-512 (257 GFLOP/s at best; November 2026), since micro-batches are cut
for the least work; `--realistic-limit 64 --stop ,`, answers of 45 % (ours) and 41 % (TRL) of the limit:

                  a step   range         sampling  scoring   update   peak
    fixed  ours   75.4 s   72.7 - 76.7      7.2 s   10.9 s   54.7 s   2172 MB
           TRL    80.4 s   72.0 - 85.5     10.3 s    9.2 s   61.4 s   6645 MB     1.07 times as long
    real.  ours   51.3 s   45.9 - 55.3      5.8 s    8.1 s   37.0 s   2274 MB
           TRL    76.6 s   76.2 - 77.2     10.2 s    8.3 s   57.7 s   6768 MB     1.49 times

On Intel's processors torch multiplies by MKL, which is as quick there as oneDNN: what ours gains by its kernel on AMD's
falls away. The profile of a pass is in update_speed.py.

Less work would do it (`adapters.layers` of 10: the layers below run once and learn nothing), but then it is not the
same on both sides; that, and a card, have not been measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

# no torch here: Linux counts what a parent holds at the fork in the peak of its child
CHILD = Path(__file__).with_name("vs_trl_sides.py")
SIDES = ("ours", "trl", "trl-tied", "generate")
WORKLOADS = ("fixed", "realistic")
PHASES = ("step", "sampling", "scoring", "update")
CHECK_LIMIT = 2e-3


def in_a_process(kind: str, plan: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What one measurement came to, made in a process of its own with the same threads for all libraries."""
    (folder / "plan.json").write_text(json.dumps(plan))
    threads = {name: str(plan["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if plan["device"] == "cpu":
        quiet["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(
        [sys.executable, str(CHILD), kind, str(folder)],
        env=os.environ | threads | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{kind} failed:\n{done.stdout[-6000:]}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


# -- all together ----------------------------------------------------------------------------------


def plans(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One plan for each workload and seed: what every side is told."""
    shared = {
        name: getattr(given, name)
        for name in ("threads", "device", "quick", "steps", "batch", "epochs", "micro", "rate", "trl_rollout_rows")
    }
    shared |= {"folder": str(folder), "temperature": 0.7, "rank": 16, "alpha": 32}
    limits = {
        "fixed": {"limit": given.fixed_limit, "stop": "", "prompt_tokens": given.prompt_tokens},
        "realistic": {"limit": given.realistic_limit, "stop": given.stop, "prompt_tokens": 0},
    }
    return [
        shared | limits[workload] | {"workload": workload, "seed": seed}
        for seed in range(given.seeds)
        for workload in given.workloads
    ]


def run_all(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """One result for each workload, seed and side."""
    results = []
    for number, plan in enumerate(plans(given, folder)):
        data = in_a_process("prepare", plan, folder)
        (folder / "data.json").write_text(json.dumps(data))
        (folder / "first.json").unlink(missing_ok=True)
        print(f"{plan['workload']}, seed {plan['seed']}: prompts of {data['lengths']} tokens", flush=True)
        for side in given.sides if number % 2 == 0 else given.sides[::-1]:
            began = time.perf_counter()
            kind = "trl" if side == "trl-tied" else side
            found = in_a_process(kind, plan | {"tied": side == "trl-tied"}, folder)
            result = {"side": side, "workload": plan["workload"], "seed": plan["seed"]} | found
            if side != "generate":
                require_fair(plan, result)
            results.append(result)
            print(f"  {side:<9} {line_of(result)} ({time.perf_counter() - began:.0f} s in all)", flush=True)
        if (folder / "first.json").exists():
            require_same_model(in_a_process("check", plan, folder))
    return results


def line_of(result: Mapping[str, Any]) -> str:
    if result["side"] == "generate":
        return ", ".join(f"{name} {rate:.1f} tokens/s" for name, rate in result["rates"].items())
    seconds = " ".join(f"{one['step']:.1f}" for one in result["steps"])
    return f"steps of {seconds} s, peak {result['peak_mb']:.0f} MB"


def require_fair(plan: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """End the bench when a side did less than it should."""
    side = result["side"]
    if result["lora_layers_moved"] != result["lora_layers"]:
        raise SystemExit(f"{side}: {result['lora_layers_moved']} of {result['lora_layers']} LoRA layers learnt")
    optimisers = 2 if side == "ours" else 1  # TRL has one optimiser for policy and value
    wanted = (plan["steps"] + 1) * plan["epochs"] * optimisers
    if result["optimiser_steps"] != wanted:
        raise SystemExit(f"{side}: {result['optimiser_steps']} optimiser steps instead of {wanted}")
    short = [one["tokens"] for one in result["steps"] if one["tokens"] != plan["batch"] * plan["limit"]]
    if plan["workload"] == "fixed" and len(short) > (0 if side == "ours" else 1):
        raise SystemExit(f"{side}: a step with {short[0]} tokens instead of {plan['batch'] * plan['limit']}")


def require_same_model(found: Mapping[str, float]) -> None:
    text = ", ".join(f"{name} {most:.1e}" for name, most in found.items())
    print(f"  TRL's first step, evaluated by ours, differs by at most: {text}", flush=True)
    if not max(found.values()) <= CHECK_LIMIT:
        raise SystemExit("the two sides do not evaluate the same completions in the same way")


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians of each workload and side, and TRL's by ours."""
    found: dict[str, Any] = {}
    for workload in dict.fromkeys(result["workload"] for result in results):
        sides: dict[str, Any] = {}
        for side in dict.fromkeys(result["side"] for result in results if result["workload"] == workload):
            own = [one for one in results if (one["workload"], one["side"]) == (workload, side)]
            sides[side] = rates_of(own) if side == "generate" else medians(own)
        found[workload] = {"sides": sides, "ours_against": against(sides)}
    if len({result["lora_weights"] for result in results if "lora_weights" in result}) > 1:
        raise SystemExit("the sides do not have equally many LoRA weights")
    return found


def rates_of(own: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(one["rates"][name] for one in own) for name in own[0]["rates"]}


def medians(own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One side's steps, of all seeds."""
    steps = [step for one in own for step in one["steps"]]
    middle: dict[str, Any] = {name: statistics.median(step[name] for step in steps) for name in PHASES}
    middle["range"] = [min(step["step"] for step in steps), max(step["step"] for step in steps)]
    middle["tokens"] = statistics.mean(step["tokens"] for step in steps)
    middle["share_of_limit"] = statistics.mean(step["share"] for step in steps)
    middle["cut"] = statistics.mean(step["cut"] for step in steps)
    middle["tokens_per_second"] = statistics.median(step["tokens"] / step["sampling"] for step in steps)
    middle |= {name: max(one[name] for one in own) for name in ("peak_mb", "before_mb", "peak_gpu_mb")}
    return middle | {"measured": len(steps)}


def against(sides: Mapping[str, Any]) -> dict[str, Any]:
    """How many times as fast, and with which part of the memory, ours is beside every other side."""
    if "ours" not in sides:
        return {}
    own = sides["ours"]
    found: dict[str, Any] = {}
    for side, other in sides.items():
        if side == "generate":
            found[side] = {name: own["tokens_per_second"] / rate for name, rate in other.items()}
        elif side != "ours":
            found[side] = {name: other[name] / own[name] for name in PHASES}
            found[side] |= {"peak": own["peak_mb"] / other["peak_mb"]}
    return found


def table(found: Mapping[str, Any]) -> str:
    """The summary for people."""
    lines = []
    for workload, both in found.items():
        lines.append(
            f"{workload:<10} {'step s':>7} {'range':>13} {'sampling':>9} {'scoring':>8} {'update':>7} {'tokens/s':>9} "
            f"{'of limit':>9} {'cut':>5} {'peak MB':>8} {'before':>7} {'steps':>6}"
        )
        for side, row in both["sides"].items():
            if side == "generate":
                continue
            low, high = row["range"]
            lines.append(
                f"  {side:<8} {row['step']:7.1f} {f'{low:.1f} – {high:.1f}':>13} {row['sampling']:9.1f} "
                f"{row['scoring']:8.1f} {row['update']:7.1f} {row['tokens_per_second']:9.1f} "
                f"{row['share_of_limit']:9.0%} {row['cut']:5.0%} {row['peak_mb']:8.0f} {row['before_mb']:7.0f} "
                f"{row['measured']:6}"
            )
        for name, rate in both["sides"].get("generate", {}).items():
            lines.append(f"  model.generate, {name}: {rate:.1f} tokens/s")
        for side, times in both["ours_against"].items():
            if side == "generate":
                text = ", ".join(f"× {value:.2f} ({name})" for name, value in times.items())
                lines.append(f"  our sampling in the step (adapter active) beside model.generate: {text}")
            else:
                text = ", ".join(f"{name} × {times[name]:.2f}" for name in PHASES)
                lines.append(f"  ours is faster than {side}: {text}; its peak is × {times['peak']:.2f}")
    return "\n".join(lines)


# -- the command line ------------------------------------------------------------------------------


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where everything measured is written")
    parser.add_argument("--add", action="store_true", help="add to what --json holds already, of the same machine")
    parser.add_argument("--quick", action="store_true", help="a tiny random model: tries the bench, measures nothing")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["ours", "trl", "generate"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one for warming up")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16, help="prompts a step")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--micro", type=int, default=4, help="rows of a micro-batch; divides --batch")
    parser.add_argument("--prompt-tokens", type=int, default=60, help="of each prompt, in the workload 'fixed'")
    parser.add_argument("--fixed-limit", type=int, default=64, help="new tokens of every completion in 'fixed'")
    parser.add_argument("--realistic-limit", type=int, default=128, help="most new tokens in 'realistic'")
    parser.add_argument("--stop", default="\n", help="the one token that ends an answer in 'realistic'")
    parser.add_argument("--rate", type=float, default=1e-5, help="peak learning rate of policy and value")
    parser.add_argument("--trl-rollout-rows", type=int, default=64, help="TRL's local_rollout_forward_batch_size")
    return parser


def facts(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked, and on what it ran."""
    asked = {name: value for name, value in vars(given).items() if name not in ("json", "add", "workloads", "sides")}
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "trl", "accelerate")}
    return {"asked": asked, "versions": versions, "machine": platform.processor() or platform.machine()}


def main() -> None:
    given = options().parse_args()
    if given.batch % given.micro or given.steps < 1:
        raise SystemExit("--micro must divide --batch, and --steps must be 1 or more")
    if given.quick:
        given.prompt_tokens, given.fixed_limit, given.realistic_limit = 24, 12, 16
    before: dict[str, Any] = {}
    if given.add and given.json and given.json.exists():
        before = json.loads(given.json.read_text())
        if {name: before[name] for name in facts(given)} != facts(given):
            raise SystemExit(f"{given.json} was measured with other options, versions or another machine")
    with tempfile.TemporaryDirectory() as made:
        results = before.get("results", []) + run_all(given, Path(made))
    if given.json:
        given.json.write_text(json.dumps(facts(given) | {"summary": summary(results), "results": results}, indent=1))
    print(table(summary(results)))


if __name__ == "__main__":
    main()
