"""How much of this machine's matrix-product speed the PPO update reaches.

    python tests/bench/update_speed.py [--model starter] [--threads 2] [--rows 4] [--json FILE]

Two ceilings are measured first and again between the steps, because the speed of a shared or warm machine changes:
- 'best': the largest speed of any one shape in the list below (square ones, and the model's own);
- 'own': the model's own products at their own shapes, one layer's forward and input gradients and, for the policy, the
  unembedding, each weighted by how often it occurs. No implementation of this update can be faster than that.

Then one micro-batch of `rows` sequences of prompt + response tokens: forward and backward of the policy (log-
probabilities of the response tokens) and of the value, as the update of a PPO run does it (its own functions), without
the optimiser. Once with this package's adapters, norms and gated blocks, and once with those of PEFT and transformers.

FLOPs are counted as the mathematics needs them, two for each multiplication and addition:
- frozen linear layers: forward and the gradient of the input (4 per weight and token; no gradient of the weight); the
  first layer's q, k and v need no gradient of their input;
- adapters: forward, and gradients of input, A and B (6 · rank · (in + out) per token);
- attention: the causal half of the products, forward 2 and backward 4 of them (what is computed again is not counted);
- unembedding: forward and input gradient at response positions only.
Norms, activations, rotations, the softmax and the head count as nothing: they are the overhead.

Where the time goes
-------------------
`--profile --rounds 4` on two cores of an Intel Xeon with AVX-512 (November 2026, torch 2.13), 4 rows of 60 + 64 tokens.
The best product reached 257 GFLOP/s, the model's own 233; a policy pass took 1.75 s (148 GFLOP/s, 64 % of 'own'; PEFT's
layers 1.84 s), a value pass 1.52 s (152 GFLOP/s, 65 %; 1.76 s). Of the time of such a pass:

    60 %  products of the frozen weights, forward and towards the input, at 93 % of 'own'
     9 %  the adapters' narrow products
     9 %  attention, forward 3.5 and backward 5.5 (torch's kernel for the CPU; 124 tokens a row)
    14 %  element by element: activation, norms, rotation, sums
     8 %  around them: Python, autograd, views, allocation

70 % of 'own' would take a tenth off the whole pass. Tried there and not taken, because together they gave 3 to 8 %,
less than two runs differ by: torch's own products in place of oneDNN's (on AMD's processors these are the slower ones),
attention in plain products with the softmax computed again, huge pages, another malloc.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

SQUARES = ((1024, 1024, 1024), (2048, 2048, 2048))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=0, help="adapted layers from the top; 0: all")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=60)
    parser.add_argument("--response", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="also where the time goes, by operation")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# -- what the mathematics needs ------------------------------------------------------------------------------------


def linears(roles: Any) -> list[list[tuple[int, int]]]:
    """(in, out) of every adapted linear layer, by decoder layer."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, layer in roles.lora_layers():
        found.setdefault(name.split(".layers.")[1].split(".")[0], []).append((layer.in_features, layer.out_features))
    return list(found.values())


def work(roles: Any, plan: argparse.Namespace, config: Any) -> dict[str, float]:
    """FLOPs of one micro-batch, by kind."""
    width = plan.prompt + plan.response
    tokens, shapes = plan.rows * width, linears(roles)
    weights = sum(i * o for layer in shapes for i, o in layer)
    first = sum(i * o for i, o in shapes[0][:3])  # q, k, v: nothing below learns
    heads, size = config.num_attention_heads, getattr(config, "head_dim", None)
    size = size or config.hidden_size // heads
    pairs = plan.rows * heads * width * (width + 1) / 2
    return {
        "linear": tokens * (4.0 * weights - 2.0 * first),
        "adapters": tokens * 6.0 * plan.rank * sum(i + o for layer in shapes for i, o in layer),
        "attention": len(shapes) * pairs * size * 2.0 * 6,
        "unembedding": 4.0 * plan.rows * plan.response * config.hidden_size * config.vocab_size,
    }


# -- ceilings ------------------------------------------------------------------------------------------------------


def products(roles: Any, plan: argparse.Namespace, config: Any) -> dict[tuple[int, int, int], int]:
    """(rows, inner, columns) of the model's own products → how often they occur in one micro-batch of the policy."""
    tokens = plan.rows * (plan.prompt + plan.response)
    times: dict[tuple[int, int, int], int] = {}
    for i, o in (shape for layer in linears(roles) for shape in layer):
        times[tokens, i, o] = times.get((tokens, i, o), 0) + 1
        times[tokens, o, i] = times.get((tokens, o, i), 0) + 1
    chosen = plan.rows * plan.response
    for shape in ((chosen, config.hidden_size, config.vocab_size), (chosen, config.vocab_size, config.hidden_size)):
        times[shape] = 1
    return times


class Ceiling:
    """Times matrix products again and again; keeps each shape's best and median."""

    def __init__(self, shapes: dict[tuple[int, int, int], int], dtype: Any, device: Any) -> None:
        self.times, self._dtype, self._device = shapes, dtype, device
        self.seen: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in (*SQUARES, *shapes)}

    def measure(self, repeats: int = 3) -> None:
        import torch

        for shape in self.seen:
            rows, inner, columns = shape
            x = torch.randn(rows, inner, dtype=self._dtype, device=self._device)
            w = torch.randn(columns, inner, dtype=self._dtype, device=self._device)
            out = torch.empty(rows, columns, dtype=self._dtype, device=self._device)
            torch.mm(x, w.T, out=out)
            for _ in range(repeats):
                self.seen[shape].append(seconds(lambda x=x, w=w, out=out: torch.mm(x, w.T, out=out)))

    def best(self) -> tuple[float, tuple[int, int, int]]:
        """Largest median speed of any shape, in FLOP/s, and the shape."""
        return max((2.0 * s[0] * s[1] * s[2] / statistics.median(seen), s) for s, seen in self.seen.items())

    def own(self, vocabulary: int) -> tuple[float, float]:
        """Speed of the model's own products as they are mixed: for the policy, and without the unembedding."""

        def mixed(shapes: list[tuple[int, int, int]]) -> float:
            flops = sum(2.0 * s[0] * s[1] * s[2] * self.times[s] for s in shapes)
            return flops / sum(statistics.median(self.seen[s]) * self.times[s] for s in shapes)

        return mixed(list(self.times)), mixed([s for s in self.times if vocabulary not in s])


def seconds(action: Callable[[], Any]) -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


# -- the micro-batch -----------------------------------------------------------------------------------------------


def micro_batch(roles: Any, plan: argparse.Namespace, vocabulary: int) -> Any:
    import random

    from rlhf_tui.training.batching import Tokens
    from rlhf_tui.training.rollout import bare_experiences

    order = random.Random(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(order.choices(range(3, vocabulary), k=count))

    sequences = [Tokens(draw(plan.prompt), draw(plan.response)) for _ in range(plan.rows)]
    (one,) = bare_experiences(roles, sequences, [True] * plan.rows, 10**9)
    return one


def forwards(roles: Any, one: Any) -> dict[str, Callable[[], Any]]:
    """The forward pass of one micro-batch for each role, to a number."""
    from rlhf_tui.training.rollout import response_logprobs, response_values

    return {
        "policy": lambda: response_logprobs(roles, one, 1.0)[0].sum(),
        "value": lambda: response_values(roles, one).sum(),
    }


def step(roles: Any, role: str, forward: Callable[[], Any]) -> None:
    """Forward and backward of one micro-batch."""
    import torch

    with roles.learning(role):
        torch.autograd.backward(forward())


@contextmanager
def original(model: Any) -> Iterator[None]:
    """Inside, every module computes as transformers and PEFT wrote it."""
    ours = [(module, vars(module).pop("forward")) for module in model.modules() if "forward" in vars(module)]
    try:
        yield
    finally:
        for module, forward in ours:
            module.forward = forward


def kept_mib(roles: Any, role: str, forward: Callable[[], Any]) -> float:
    """MiB of all tensors that one forward pass keeps for the backward pass, parameters not counted."""
    import torch

    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            held[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    with roles.learning(role), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return round(sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / 2**20, 1)


def main() -> None:
    plan = arguments()
    os.environ["OMP_NUM_THREADS"] = str(plan.threads)
    import torch

    from rlhf_tui.model.base import load_base
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.settings import AdapterSettings, ModelSettings

    torch.set_num_threads(plan.threads)
    base = load_base(ModelSettings(name=plan.model), print)
    roles = Roles(base, AdapterSettings(rank=plan.rank, alpha=2 * plan.rank, layers=plan.layers), seed=0)
    roles.add("policy")
    roles.add("value")
    config = base.model.config.get_text_config()
    run = forwards(roles, micro_batch(roles, plan, config.vocab_size))
    ceiling = Ceiling(products(roles, plan, config), base.dtype, base.device)
    taken: dict[str, list[float]] = {f"{whose}_{role}": [] for whose in ("ours", "peft") for role in run}
    kept: dict[str, float] = {}
    for number in range(plan.rounds + 1):
        ceiling.measure()
        for role, forward in run.items():
            for whose, context in (("ours", nullcontext()), ("peft", original(base.model))):
                with context:
                    if not number:  # the first round warms up
                        kept[f"{whose}_{role}"] = kept_mib(roles, role, forward)
                    taken[f"{whose}_{role}"].append(seconds(partial(step, roles, role, forward)))
    report = told(roles, plan, config, ceiling, {name: times[1:] for name, times in taken.items()}, kept)
    print(json.dumps(report, indent=2))
    if plan.json:
        plan.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if plan.profile:
        profile(roles, run)


def told(
    roles: Any,
    plan: argparse.Namespace,
    config: Any,
    ceiling: Ceiling,
    taken: dict[str, list[float]],
    kept: dict[str, float],
) -> dict[str, Any]:
    """Everything measured, as one document: speeds in GFLOP/s, times in seconds."""
    flops = work(roles, plan, config)
    best, shape = ceiling.best()
    own = dict(zip(("policy", "value"), ceiling.own(config.vocab_size), strict=True))
    report: dict[str, Any] = {
        "model": plan.model,
        "threads": plan.threads,
        "tokens": plan.rows * (plan.prompt + plan.response),
        "rank": plan.rank,
        "gflop": {kind: round(count / 1e9, 2) for kind, count in flops.items()},
        "ceiling_best": {"gflops": round(best / 1e9, 1), "shape": shape},
        "ceiling_shapes": {
            "x".join(map(str, s)): round(2 * s[0] * s[1] * s[2] / statistics.median(seen) / 1e9, 1)
            for s, seen in ceiling.seen.items()
        },
    }
    for name, times in taken.items():
        role = name.partition("_")[2]
        needed = sum(count for kind, count in flops.items() if role == "policy" or kind != "unembedding")
        median = statistics.median(times)
        report[name] = {
            "seconds": round(median, 4),
            "spread": [round(min(times), 4), round(max(times), 4)],
            "tokens_per_second": round(report["tokens"] / median, 1),
            "gflops": round(needed / median / 1e9, 1),
            "share_of_best_ceiling": round(needed / median / best, 3),
            "own_ceiling_gflops": round(own[role] / 1e9, 1),
            "share_of_own_ceiling": round(needed / median / own[role], 3),
            "kept_for_backward_mib": kept[name],
        }
    return report


def profile(roles: Any, run: dict[str, Callable[[], Any]]) -> None:
    """Where the time goes, by operation."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    for role, forward in run.items():
        with profiling(activities=[ProfilerActivity.CPU]) as found:
            step(roles, role, forward)
        print(role)
        print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=60))


if __name__ == "__main__":
    main()
