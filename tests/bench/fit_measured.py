"""The memory plan beside what is really taken: each case in a process of its own, on this machine's CPU or card.

    python tests/bench/fit_measured.py [--only WORD ...] [--json] [--list]

A case is a model (the starter, or one with random weights in another shape) with settings that differ from each
other in what decides memory. Prompts have exactly `model.max_prompt_tokens` tokens and completions go to the limit:
the plan takes them so. PPO does one whole update, phase after phase; `generate` samples; `reward` takes one optimiser
step; what is printed is the resident set's peak in each phase (VmHWM, set back between phases; on a card the
allocator's peak), the plan's, and the difference in percent of the measured one.

Measured so on two cores of an AMD EPYC without a GPU (torch 2.13.0 on one thread): GiB planned, GiB measured, and
their ratio. 'many words' is planned with logits for a pass that is all completion, which its long prompts are not.

    case                                 sampling           scoring            update
    as it comes                    1.73 1.64 1.05    1.28 1.20 1.07    1.82 1.74 1.05
    ten layers                     1.64 1.54 1.06    1.19 1.11 1.07    1.36 1.25 1.09
    micro-batches of 992           1.76 1.82 0.97    1.30 1.29 1.01    2.24 2.33 0.96
    micro-batches of 124           1.73 1.64 1.05    1.22 1.12 1.09    1.45 1.43 1.01
    recomputing                    1.73 1.64 1.05    1.28 1.20 1.07    1.44 1.45 0.99
    rank 64                        2.14 2.18 0.98    1.69 1.59 1.06    2.65 2.47 1.07
    long                           1.76 1.68 1.05    1.28 1.20 1.07    1.82 1.90 0.96
    nf4                            0.95 0.93 1.02    0.92 0.84 1.10    1.46 1.49 0.98
    nf4, recomputing               0.95 0.92 1.03    0.92 0.84 1.10    1.08 1.08 1.00
    wide                           1.96 2.08 0.94    1.35 1.24 1.09    1.72 1.70 1.01
    wide, four layers              1.89 1.79 1.06    1.29 1.21 1.07    1.40 1.33 1.05
    wide, nf4                      0.97 0.98 0.99    0.90 0.87 1.03    1.27 1.34 0.95
    many words                     1.17 1.11 1.05    1.05 0.91 1.15    1.19 1.06 1.12
    deep                           1.32 1.26 1.05    1.01 0.95 1.06    1.59 1.60 0.99
    generate, 32 rows              1.77 1.67 1.06
    generate, 128 rows             2.38 2.26 1.05
    generate, top-p                1.79 1.69 1.06
    generate, long                 2.38 2.25 1.06
    generate, wide                 1.98 1.87 1.06
    reward                                                             1.55 1.50 1.03
    reward, ten layers                                                 1.22 1.15 1.06
    reward, recomputing                                                1.18 1.18 1.00
    reward, wide                                                       1.56 1.49 1.05
    read in the middle             1.64 1.56 1.05    1.19 1.11 1.07    1.36 1.29 1.05
    reward, read in the middle                                         1.22 1.12 1.09
    read low                       1.67 1.75 0.95    1.22 1.15 1.06    1.72 1.67 1.03
    reward, read low                                                   1.19 1.11 1.07
    nf4, a copy                    1.37 1.46 0.94    0.92 0.86 1.07    1.46 1.51 0.97
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

GIB = 2**30
SMALL = (
    "model.max_prompt_tokens=92",
    "ppo.max_new_tokens=32",
    "generate.max_new_tokens=32",
    "ppo.rollout_size=4",
    "ppo.epochs=1",
    "ppo.minibatches=1",
    "ppo.micro_batch_tokens=496",
    "reward.micro_batch_tokens=496",
)
NF4 = ("model.quantisation=nf4", "ppo.sampling_weights=quantised")  # by 'auto' a clock would decide


@dataclass(frozen=True)
class Case:
    """What is run: a stage with a model and settings."""

    name: str
    stage: str
    model: str = "starter"
    settings: tuple[str, ...] = ()


# hidden, layers, heads, kv heads, feed-forward, vocabulary
SHAPES = {
    "wide": (1024, 12, 16, 4, 2816, 32000),
    "many-words": (512, 8, 8, 8, 1408, 100_000),
    "deep": (384, 48, 6, 2, 1024, 16000),
}

CASES = (
    Case("as it comes", "ppo"),
    Case("ten layers", "ppo", settings=("adapters.layers=10",)),
    Case("micro-batches of 992", "ppo", settings=("ppo.micro_batch_tokens=992", "ppo.rollout_size=8")),
    Case("micro-batches of 124", "ppo", settings=("ppo.micro_batch_tokens=124",)),
    Case("recomputing", "ppo", settings=("ppo.checkpointing=on",)),
    Case("rank 64", "ppo", settings=("adapters.rank=64",)),
    Case("long", "ppo", settings=("model.max_prompt_tokens=300", "ppo.max_new_tokens=200", "ppo.rollout_size=2")),
    Case("nf4", "ppo", settings=NF4),
    Case("nf4, a copy", "ppo", settings=("model.quantisation=nf4", "ppo.sampling_weights=copy")),
    Case("nf4, recomputing", "ppo", settings=(*NF4, "ppo.checkpointing=on")),
    Case("wide", "ppo", "wide"),
    Case("wide, four layers", "ppo", "wide", ("adapters.layers=4",)),
    Case("wide, nf4", "ppo", "wide", NF4),
    Case("many words", "ppo", "many-words"),
    Case("deep", "ppo", "deep"),
    Case("read in the middle", "ppo", settings=("adapters.layers=10", "reward.layer=20")),
    Case("read low", "ppo", settings=("reward.layer=8",)),
    Case("generate, 32 rows", "generate"),
    Case("generate, 128 rows", "generate", settings=("generate.batch_size=128",)),
    Case("generate, top-p", "generate", settings=("generate.top_p=0.9",)),
    Case("generate, long", "generate", settings=("model.max_prompt_tokens=900", "generate.max_new_tokens=4")),
    Case("generate, wide", "generate", "wide"),
    Case("reward", "reward"),
    Case("reward, ten layers", "reward", settings=("adapters.layers=10",)),
    Case("reward, read in the middle", "reward", settings=("adapters.layers=10", "reward.layer=20")),
    Case("reward, read low", "reward", settings=("reward.layer=8",)),
    Case("reward, recomputing", "reward", settings=("reward.checkpointing=on",)),
    Case("reward, wide", "reward", "wide"),
)


def main() -> None:
    """Every case asked for, one after the other, and a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name or stage has one of these words")
    parser.add_argument("--json", action="store_true", help="a JSON line for each phase instead of the table")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--make", default="", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help="a folder to keep the random models in; default: none are kept")
    given = parser.parse_args()
    if given.make:
        return make(given.make, given.models)
    if given.case is not None:
        print(json.dumps(carried_out(CASES[given.case], given.models)))
        return
    chosen = [n for n, case in enumerate(CASES) if _wanted(case, given.only)]
    if given.list:
        print("\n".join(f"{CASES[n].stage:<9} {CASES[n].name}" for n in chosen))
        return
    if not given.json:
        print(f"{'case':<22}{'phase':<12}{'planned':>9}{'measured':>10}{'error':>8}   GiB")
    with tempfile.TemporaryDirectory() as folder:
        worst = max([_shown(n, given.models or Path(folder), given.json) for n in chosen], default=0.0)
    print(f"largest error {worst:.1%}", file=sys.stderr)


def _wanted(case: Case, words: list[str]) -> bool:
    return not words or any(word in case.name or word == case.stage for word in words)


def _shown(number: int, models: Path, as_json: bool) -> float:
    """Run one case in a process of its own and print it; returns its largest error."""
    command = [sys.executable, __file__, "--case", str(number), "--models", str(models)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{CASES[number].name}: {done.stderr.strip().splitlines()[-1]}")
        return 0.0
    phases = json.loads(done.stdout.splitlines()[-1])
    worst = 0.0
    for phase, found in phases.items():
        error = found["planned"] / found["measured"] - 1
        worst = max(worst, abs(error))
        row = {"case": CASES[number].name, "stage": CASES[number].stage, "phase": phase, **found, "error": error}
        sizes = f"{found['planned'] / GIB:>9.2f}{found['measured'] / GIB:>10.2f}{error:>+8.1%}"
        print(json.dumps(row) if as_json else f"{CASES[number].name:<22}{phase:<12}{sizes}", flush=True)
    return worst


# -- one case, in its own process -----------------------------------------------------------------


def carried_out(case: Case, models: Path) -> dict[str, dict[str, Any]]:
    """Do what the case says; planned and measured bytes of each phase."""
    import torch
    import transformers

    from rlhf_tui import settings as settings_module
    from rlhf_tui.fit import plan, resolve
    from rlhf_tui.locate import locate
    from rlhf_tui.model.base import load_base
    from rlhf_tui.shape import shape_of

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name = case.model if case.model == "starter" else str(_made(case.model, models))
    settings = settings_module.load(Path("absent"), [*SMALL, f"model.name={name}", *case.settings])
    base = load_base(settings.model, lambda text: None)
    base = replace(base, chat=replace(base.chat, end_ids=()))
    measured = {"ppo": _ppo, "generate": _generate, "reward": _reward}[case.stage](base, settings)
    quantisation, device = resolve(settings.model, card=torch.cuda.is_available())
    planned = plan(shape_of(locate(name)), settings, quantisation=quantisation, device=device, candidates=4)
    stage = next(one for one in planned.stages if one.stage == case.stage)
    context = int(torch.cuda.is_available()) and 0.7 * GIB  # the allocator does not see CUDA's own
    return {
        phase: {
            "planned": stage.phases[phase].total,
            "measured": (found.peak_device + context) if context else found.peak_rss,
            "parts": asdict(stage.phases[phase]),
        }
        for phase, found in measured.items()
        if phase in stage.phases
    }


def _made(name: str, models: Path) -> Path:
    """A folder with a Llama of this shape and random weights, and with the starter's tokenizer."""
    folder = models / name
    if not folder.exists():  # in a process of its own: this one's memory is measured
        subprocess.run([sys.executable, __file__, "--make", name, "--models", str(models)], check=True)
    return folder


def make(name: str, models: Path) -> None:
    """Write the folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from rlhf_tui.model.starter import ensure_starter

    hidden, layers, heads, kv_heads, intermediate, vocabulary = SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(models / name)
    AutoTokenizer.from_pretrained(str(ensure_starter(lambda text: None))).save_pretrained(models / name)


def _ppo(base: Any, settings: Any) -> dict[str, Any]:
    import torch

    from rlhf_tui.model.heads import Reading
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.training.phases import PhasePeaks
    from rlhf_tui.training.ppo import Ppo, TrainPrompt
    from rlhf_tui.training.rollout import Scoring

    roles = Roles(base, settings.adapters, seed=0, reading=Reading(settings.reward.layer, "mean"))
    roles.add("policy")
    roles.add("reward")
    roles.head("reward").weight.data.normal_(0, 0.01)
    roles.copy("reward", "value")
    prompts = [TrainPrompt(str(n), ids) for n, ids in enumerate(_prompts(base, settings, settings.ppo.rollout_size))]
    peaks = PhasePeaks(base.device)
    learner = Ppo(roles, prompts, settings.ppo, Scoring(0.0, 1.0), seed=0, emit=peaks)
    for role, optimiser in learner.optimisers.items():  # their states are there from the second update on
        for parameter in roles.parameters(role):
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
        optimiser.zero_grad()
    learner.update()
    return peaks.close()


def _generate(base: Any, settings: Any) -> dict[str, Any]:
    from rlhf_tui.model.generation import Sampling, sample
    from rlhf_tui.runs.events import Stage
    from rlhf_tui.training.phases import PhasePeaks

    wanted = settings.generate
    peaks = PhasePeaks(base.device)
    peaks(Stage("sampling"))
    sample(
        base.model,
        _prompts(base, settings, wanted.batch_size),
        Sampling(wanted.max_new_tokens, wanted.temperature, wanted.top_p),
        end_ids=base.chat.end_ids,
        rows=wanted.batch_size,
        seed=0,
    )
    return peaks.close()


def _reward(base: Any, settings: Any) -> dict[str, Any]:
    from rlhf_tui.model.heads import Reading
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.runs.events import Stage
    from rlhf_tui.training.batching import Tokens
    from rlhf_tui.training.groups import Pair
    from rlhf_tui.training.phases import PhasePeaks
    from rlhf_tui.training.reward import RewardTrainer

    roles = Roles(base, settings.adapters, seed=0, reading=Reading(settings.reward.layer, "mean"))
    roles.add("reward")
    order = random.Random(1)
    top = base.model.config.get_text_config().vocab_size

    def answer() -> tuple[int, ...]:
        return tuple(order.choices(range(5, top), k=settings.generate.max_new_tokens))

    pairs = [Pair(Tokens(p, answer()), Tokens(p, answer()), False, 1, 1.0) for p in _prompts(base, settings, 2)]
    peaks = PhasePeaks(base.device)
    peaks(Stage("update"))
    wanted = settings.reward.model_copy(update={"epochs": 1, "head_start": "zero"})
    trainer = RewardTrainer(roles, pairs, [], wanted, seed=0, emit=lambda event: None)
    trainer.run(save=lambda trainer: None, boundary=lambda save: None)
    return peaks.close()


def _prompts(base: Any, settings: Any, count: int) -> list[tuple[int, ...]]:
    order = random.Random(0)
    top = base.model.config.get_text_config().vocab_size
    return [tuple(order.choices(range(5, top), k=settings.model.max_prompt_tokens)) for _ in range(count)]


if __name__ == "__main__":
    main()
