"""A PPO step on a card under a cap, decode beside model.generate, and measured beside predicted memory. Run by hand.

    python tests/bench/gpu.py [--only 8B|3B] [--json OUT]        where there is no card it says so and exits 0
    python tests/bench/gpu.py --dry-run [--threads 1]            the same with a tiny model on the CPU, in half a minute

Models with the shapes of Llama 3.1 8B and Llama 3.2 3B are built from random weights, with no hub and no files: the
matrices of the decoder are quantised to NF4 with double quantisation one by one as they are made, embeddings and norms
stay in bf16 (just as model/base.py loads them), so that neither the host nor the card ever holds more than one of them
unquantised. Each case has a process of its own, in which torch's allocator may not pass the cap
(`torch.cuda.set_per_process_memory_fraction`; the CUDA context, about 0.5 GiB, lies outside of it).

A case is: decoding (16 prompts of 128 random ids, --decode-tokens each, nothing ends an answer) by transformers'
`model.generate` and by our sampler on the same 4-bit base, by ours with an unpacked copy of the weights where that fits
under the cap (`ppo.sampling_weights`), and by ours with the policy's adapter active, each a warm-up and then the median
of 3; then two whole PPO updates (16 completions of 256 tokens, one epoch, one minibatch,
micro-batches of 4 sequences, LoRA rank 16 on all linear layers for policy, value and reward) with gradient
checkpointing (--checkpointing auto shows what happens without being told). Which weights they sample with is chosen as
a run chooses: by timing, if a copy fits below the update's planned peak. The seconds are the second update's. The
table has the allocator's peak in each phase of an update beside that of the plan (`fit`, less the context).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GIB = 2**30
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """A model's shape, the cap on the allocator in GiB, and how much it is given to do."""

    name: str
    cap: float
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    prompt_tokens: int = 128
    new_tokens: int = 256
    rows: int = 16
    micro_rows: int = 4


CASES = {
    "8B": Case("8B", 12.0, 4096, 32, 32, 8, 14336, 128_256, tied=False),
    "3B": Case("3B", 6.0, 3072, 28, 24, 8, 8192, 128_256, tied=True),
    "tiny": Case("tiny", 1.0, 128, 3, 4, 2, 256, 512, True, prompt_tokens=16, new_tokens=10, rows=4, micro_rows=2),
}


# -- building the model ----------------------------------------------------------------------------


def random_base(case: Case, device: Any, dtype: Any) -> Any:
    """A Base in the case's shape: NF4 with double quantisation, made and quantised matrix by matrix."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rlhf_tui.model.base import Base

    config = LlamaConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=case.intermediate,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads,
        tie_word_embeddings=case.tied,
        max_position_embeddings=8192,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    chance = torch.Generator(device).manual_seed(0)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            model.set_submodule(name, quantised(module, device, dtype, chance))
        elif not (case.tied and name == "lm_head"):
            for own, one in list(module.named_parameters(recurse=False)):
                made = torch.empty(one.shape, dtype=dtype, device=device)
                made = made.fill_(1.0) if one.dim() == 1 else made.normal_(std=0.02, generator=chance)
                setattr(module, own, nn.Parameter(made, requires_grad=False))
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    model.is_loaded_in_4bit = True  # by which PEFT chooses its layers
    model.requires_grad_(False)
    model.eval()
    if any(one.is_meta for one in (*model.parameters(), *model.buffers())):
        raise SystemExit("a part of the model was not made")
    chat: Any = SimpleNamespace(end_ids=(case.vocabulary,), text=lambda ids: "")  # no token has this id
    location: Any = SimpleNamespace(published_name=f"random-{case.name}", kind="folder", path="")
    return Base(model, chat, device, dtype, "nf4", location)


def quantised(layer: Any, device: Any, dtype: Any, chance: Any) -> Any:
    """A 4-bit layer of the same size with random weights, std 0.02."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    whole = torch.empty((layer.out_features, layer.in_features), dtype=dtype, device=device)
    whole.normal_(std=0.02, generator=chance)
    weight = Params4bit(whole, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made)
    made.weight = weight.to(device)
    made.support_avx512bf16_for_cpu = False  # as in model/base.py
    return made


# -- one case, in a process of its own -------------------------------------------------------------


def carried_out(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """All that is measured of a case."""
    import torch

    card = torch.cuda.is_available() and not given.dry_run
    device = torch.device("cuda", 0) if card else torch.device("cpu")
    dtype = torch.bfloat16 if card else torch.float32
    if card:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, case.cap * GIB / whole), device)
    else:
        torch.set_num_threads(given.threads)
    began = time.perf_counter()
    base = random_base(case, device, dtype)
    result: dict[str, Any] = {"case": case.name, "device": device.type, "cap_gib": case.cap}
    result["built_s"] = time.perf_counter() - began
    result["decode"] = decoded(base, case, min(given.decode_tokens, case.new_tokens))
    return result | stepped(base, case, given)


def prompts_of(case: Case) -> list[tuple[int, ...]]:
    order = random.Random(0)
    return [tuple(order.randrange(3, case.vocabulary) for _ in range(case.prompt_tokens)) for _ in range(case.rows)]


def decoded(base: Any, case: Case, new_tokens: int) -> dict[str, float]:
    """Tokens/s of transformers and of our sampler, without adapters."""
    import torch

    prompts = prompts_of(case)
    ids = torch.tensor(prompts, device=base.device)

    def theirs() -> int:
        with torch.no_grad():
            made = base.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                do_sample=True,
                temperature=0.7,
                top_k=0,
                pad_token_id=0,
                eos_token_id=None,
            )
        return made[:, case.prompt_tokens :].numel()

    found = {"model.generate": rate(theirs), "ours": rate(lambda: ours(base, prompts, new_tokens))}
    if room_for_a_copy(base, case):
        found["ours, a copy"] = rate(lambda: ours(base, prompts, new_tokens, "copy"))
    return found


def room_for_a_copy(base: Any, case: Case) -> bool:
    """Whether an unpacked copy fits under the cap beside the model, with a tenth of the cap to spare."""
    import torch

    from rlhf_tui.model.unpacked import unpacked_bytes

    held = torch.cuda.memory_allocated() if base.device.type == "cuda" else 0
    return held + unpacked_bytes(base.model) <= 0.9 * case.cap * GIB


def ours(base: Any, prompts: list[tuple[int, ...]], new_tokens: int, weights: Any = "quantised") -> int:
    """Sample with our own sampler; returns how many tokens. A copy is made each time, as in a run."""
    from rlhf_tui.model.generation import Sampling, sample

    wanted = Sampling(new_tokens, 0.7)
    end_ids, rows = base.chat.end_ids, len(prompts)
    made = sample(base.model, prompts, wanted, end_ids=end_ids, rows=rows, seed=0, weights=weights)
    return sum(len(one.ids) for one in made)


def rate(work: Callable[[], int]) -> float:
    """Tokens/s, the median after a warm-up. `work` ends with its tokens on the host or is waited for."""
    import torch

    found = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        tokens = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(tokens / (time.perf_counter() - began))
    return statistics.median(found[1:])


def stepped(base: Any, case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Two updates: seconds of the second, peaks of each phase, and the plan's."""
    import torch

    from rlhf_tui import settings as settings_module
    from rlhf_tui.fit import copy_room
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.runs.events import Alert
    from rlhf_tui.training.phases import PhasePeaks
    from rlhf_tui.training.ppo import Ppo, TrainPrompt
    from rlhf_tui.training.rollout import Scoring
    from rlhf_tui.training.sampling_weights import SamplingWeights

    settings = settings_module.load(Path("absent"), overrides(case, given.checkpointing, base.device.type))
    roles = Roles(base, settings.adapters, seed=0)
    for role in ("policy", "value", "reward"):
        roles.add(role)
    for role in ("value", "reward"):
        roles.head(role).weight.data.normal_(std=case.hidden**-0.5)
    alerts: list[str] = []
    peaks = PhasePeaks(base.device, lambda event: alerts.append(event.message) if isinstance(event, Alert) else None)
    prompts = [TrainPrompt("", ids) for ids in prompts_of(case)]
    weights = SamplingWeights(base, "auto", copy_room(planned(case, settings, base)))
    ppo = Ppo(roles, prompts, settings.ppo, Scoring(0.0, 1.0), seed=0, emit=peaks, weights=weights)
    values = [ppo.update() for _ in range(2)]
    found = peaks.close()
    with roles.acting("policy"):
        adapted = rate(lambda: ours(base, prompts_of(case), min(given.decode_tokens, case.new_tokens)))
    return {
        "seconds": {name: values[1][f"seconds_{name}"] for name in ("sampling", "scoring", "update")},
        "first_deviation": max(one["first_deviation"] for one in values),
        "alerts": alerts,
        "sampling_weights": weights.state(),
        "phases": beside_plan(case, settings, base, found, weights.chosen),
        "adapted_decode": adapted,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB if base.device.type == "cuda" else None,
    }


def overrides(case: Case, checkpointing: str, device: str) -> list[str]:
    """The case as settings: what the engine is told, and what the plan is made for."""
    return [
        f"model.device={device}",
        "model.quantisation=nf4",
        f"model.max_prompt_tokens={case.prompt_tokens}",
        "adapters.rank=16",
        "ppo.updates=2",
        f"ppo.rollout_size={case.rows}",
        f"ppo.sampling_rows={case.rows}",
        "ppo.minibatches=1",
        "ppo.epochs=1",
        "ppo.warmup_updates=0",
        "ppo.critic_warmup_updates=0",
        "ppo.evaluate_every=0",
        f"ppo.max_new_tokens={case.new_tokens}",
        f"ppo.micro_batch_tokens={max(64, case.micro_rows * (case.prompt_tokens + case.new_tokens))}",
        f"ppo.checkpointing={checkpointing}",
    ]


def beside_plan(
    case: Case, settings: Any, base: Any, found: dict[str, Any], weights: str | None
) -> dict[str, dict[str, float]]:
    """Measured and planned bytes of each phase; on a card those of the allocator. `weights`: what was sampled with."""
    from rlhf_tui.fit import CONTEXT_BYTES

    chosen = settings.ppo.model_copy(update={"sampling_weights": weights})
    phases = planned(case, settings.model_copy(update={"ppo": chosen}), base).phases
    card = base.device.type == "cuda"
    return {
        phase: {
            "measured": one.peak_device if card else one.peak_rss,
            "planned": phases[phase].total - (CONTEXT_BYTES if card else 0),
        }
        for phase, one in found.items()
        if phase in phases
    }


def planned(case: Case, settings: Any, base: Any) -> Any:
    """The plan of PPO."""
    from rlhf_tui.fit import plan
    from rlhf_tui.shape import ModelShape

    shape = ModelShape(
        name=case.name,
        layers=case.layers,
        hidden=case.hidden,
        heads=case.heads,
        kv_heads=case.kv_heads,
        head_dim=case.hidden // case.heads,
        intermediate=case.intermediate,
        vocabulary=case.vocabulary,
        tied=case.tied,
    )
    device: Any = base.device.type
    return plan(shape, settings, quantisation="nf4", device=device).ppo


# -- all cases, and the table ----------------------------------------------------------------------


def in_a_process(case: Case, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """The case's result, or what went wrong."""
    command = [sys.executable, __file__, "--case", case.name, "--json", str(out)]
    command += ["--checkpointing", given.checkpointing, "--decode-tokens", str(given.decode_tokens)]
    command += ["--threads", str(given.threads), *(["--dry-run"] if given.dry_run else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        return {"case": case.name, "cap_gib": case.cap, "failed": done.stdout[-3000:]}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def table(one: dict[str, Any]) -> str:
    """A case for people."""
    if "failed" in one:
        return f"{one['case']} under {one['cap_gib']:g} GiB: FAILED\n{one['failed']}"
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in one["seconds"].items())
    peak = max(phase["measured"] for phase in one["phases"].values()) / GIB
    lines = [
        f"{one['case']} on {one['device']}, allocator capped at {one['cap_gib']:g} GiB: a PPO step took {seconds}; "
        f"peak {peak:.2f} GiB",
        f"  built in {one['built_s']:.0f} s; first log-ratio off by at most {one['first_deviation']:.1e}",
        f"  {'phase':<12}{'planned':>9}{'measured':>10}{'error':>8}   GiB",
    ]
    for phase, sizes in one["phases"].items():
        error = sizes["planned"] / sizes["measured"] - 1
        lines.append(f"  {phase:<12}{sizes['planned'] / GIB:>9.2f}{sizes['measured'] / GIB:>10.2f}{error:>+8.1%}")
    theirs, own = one["decode"]["model.generate"], one["decode"]["ours"]
    lines.append(
        f"  decode, 4-bit base: model.generate {theirs:.0f} tokens/s, ours {own:.0f} (× {own / theirs:.2f}), "
        f"with the policy's adapter {one['adapted_decode']:.0f}"
    )
    copied, seconds = one["decode"].get("ours, a copy"), one["sampling_weights"]["seconds"]
    if copied:
        lines.append(f"  with an unpacked copy, its making included: ours {copied:.0f} (× {copied / theirs:.2f})")
    if seconds:
        lines.append(
            f"  an update's sampling: {seconds['quantised']:.1f} s in 4 bits, {seconds['copy']:.1f} s with a copy: "
            f"{one['sampling_weights']['chosen']}"
        )
    return "\n".join([*lines, *(f"  alert: {text}" for text in one["alerts"])])


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=("8B", "3B"), default=["8B", "3B"])
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on the CPU: tries the script out")
    parser.add_argument("--checkpointing", choices=("auto", "on", "off"), default="on")
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="torch threads of a dry run")
    parser.add_argument("--json", type=Path, help="where everything measured is written")
    parser.add_argument("--case", choices=tuple(CASES), help=argparse.SUPPRESS)
    return parser


def main() -> None:
    given = options().parse_args()
    if given.case:
        given.json.write_text(json.dumps(carried_out(CASES[given.case], given)))
        return
    import torch

    if not given.dry_run and not torch.cuda.is_available():
        print("There is no CUDA card that this PyTorch can use: nothing to measure here.")
        return
    with tempfile.TemporaryDirectory() as folder:
        names = ["tiny"] if given.dry_run else given.only
        results = [in_a_process(CASES[name], given, Path(folder) / f"{name}.json") for name in names]
    print("\n\n".join(map(table, results)))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if any("failed" in one for one in results):
        raise SystemExit(1)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
