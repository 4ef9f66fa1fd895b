"""The memory plan beside what is really taken: each case in a process of its own, on this machine's CPU or card.

    python tests/bench/fit_measured.py [--only WORD ...] [--json | --list | --recorded | --record MACHINE]

A case is a model (the starter, or one with random weights in another shape) with settings that differ from each
other in what decides memory. Prompts have exactly `model.max_prompt_tokens` tokens and completions go to the limit:
the plan takes them so. PPO does one whole update, phase after phase; `generate` samples; `reward` takes one optimiser
step; what is printed is the resident set's peak in each phase (VmHWM, set back between phases; on a card the
allocator's peak), the plan's, and the difference in percent of the measured one.

A phase whose plan is off by more than 15 % (or than what LARGER says of the case), and a case that crashes, end it with
exit status 1.

What was measured lies in fit_measured.json, with the machine that it was measured on; tests/test_fit.py holds the plan
of today to it, `--recorded` prints both, `--record` puts what is measured now in its place.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_tui import settings as settings_module
from rlhf_tui.fit import GIB, Device, Quantisation, StagePlan, plan, resolve
from rlhf_tui.settings import Settings
from rlhf_tui.shape import STARTER_SHAPE, ModelShape

RECORD = Path(__file__).with_name("fit_measured.json")
ALLOWED = 0.15
# Cases whose plan is allowed to be further off. 'many words' is planned with logits for a pass that is all completion,
# which its long prompts are not: a sixth too much in scoring.
LARGER = {"many words": 0.17}
SMALL = (
    "model.max_prompt_tokens=92",
    "ppo.max_new_tokens=32",
    "generate.max_new_tokens=32",
    "ppo.rollout_size=4",
    "ppo.epochs=1",
    "ppo.minibatches=1",
    "ppo.micro_batch_tokens=496",
    "reward.micro_batch_tokens=496",
    "reward.ensemble=1",  # no second reward model is on the base that is measured
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


@dataclass(frozen=True)
class Row:
    """One phase of a case, in bytes."""

    case: Case
    phase: str
    planned: float
    measured: float

    @property
    def error(self) -> float:
        return self.planned / self.measured - 1

    @property
    def allowed(self) -> float:
        return LARGER.get(self.case.name, ALLOWED)

    @property
    def is_off(self) -> bool:
        return abs(self.error) > self.allowed

    def __str__(self) -> str:
        sizes = f"{self.planned / GIB:>9.2f}{self.measured / GIB:>10.2f}{self.error:>+8.1%}"
        return f"{self.case.name:<28}{self.phase:<12}{sizes}" + (f"   OFF by over {self.allowed:.0%}" * self.is_off)


def main() -> int:
    """Every case asked for, one after the other, and a table; returns the exit status."""
    parser = options()
    given = parser.parse_args()
    if given.record and given.only:
        parser.error("--record is for all cases, or the record would be of two machines")
    if given.make:
        return make(given.make, given.models)
    if given.case is not None:
        print(json.dumps(carried_out(CASES[given.case], given.models)))
        return 0
    chosen = [n for n, case in enumerate(CASES) if _wanted(case, given.only)]
    if given.list:
        print("\n".join(f"{CASES[n].stage:<9} {CASES[n].name}" for n in chosen))
        return 0
    if not given.json:
        print(f"{'case':<28}{'phase':<12}{'planned':>9}{'measured':>10}{'error':>8}   GiB")
    if given.recorded:
        return _judged([row for n in chosen for row in _printed(recorded(CASES[n]))], 0)
    rows: list[Row] = []
    crashed = 0
    with tempfile.TemporaryDirectory() as folder:
        for n in chosen:
            try:
                rows += _shown(n, given.models or Path(folder), given.json)
            except Crashed as error:
                crashed += 1
                told = {"case": CASES[n].name, "stage": CASES[n].stage, "crashed": str(error)}
                print(json.dumps(told) if given.json else f"{CASES[n].name:<28}CRASHED: {error}", flush=True)
    if given.record and not crashed:
        write_record(given.record, rows)
    return _judged(rows, crashed)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name or stage has one of these words")
    parser.add_argument("--json", action="store_true", help="a JSON line for each phase instead of the table")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--recorded", action="store_true", help="measure nothing: what was measured, and today's plan")
    parser.add_argument("--record", metavar="MACHINE", default="", help="keep what is measured; say on what machine")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--make", default="", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help="a folder to keep the random models in; default: none are kept")
    return parser


def _wanted(case: Case, words: list[str]) -> bool:
    return not words or any(word in case.name or word == case.stage for word in words)


def _judged(rows: Sequence[Row], crashed: int) -> int:
    """Say how far off the plan is; 1 if a phase is further off than it may be, or a case crashed."""
    off = sum(row.is_off for row in rows)
    largest = max((abs(row.error) for row in rows), default=0.0)
    print(f"largest error {largest:.1%}; {off} of {len(rows)} phases off, {crashed} cases crashed", file=sys.stderr)
    return 1 if off or crashed else 0


def _printed(rows: list[Row]) -> list[Row]:
    print(*rows, sep="\n", flush=True)
    return rows


class Crashed(Exception):
    """A case did not come to its end; what it said last."""


def _shown(number: int, models: Path, as_json: bool) -> list[Row]:
    """Run one case in a process of its own and print it. Raises Crashed."""
    command = [sys.executable, __file__, "--case", str(number), "--models", str(models)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Crashed(said[-1] if said else f"exit status {done.returncode}")
    case, phases = CASES[number], json.loads(done.stdout.splitlines()[-1])
    rows = [Row(case, phase, found["planned"], found["measured"]) for phase, found in phases.items()]
    if not as_json:
        return _printed(rows)
    for row in rows:
        told = {"case": case.name, "stage": case.stage, "phase": row.phase, **phases[row.phase], "error": row.error}
        print(json.dumps(told | {"off": row.is_off}), flush=True)
    return rows


# -- what was measured, and the plan of it --------------------------------------------------------


def recorded(case: Case) -> list[Row]:
    """What was measured of a case, and what is planned for it today."""
    found: Mapping[str, float] = json.loads(RECORD.read_text(encoding="utf-8"))["cases"][case.name]
    hidden, layers, heads, kv_heads, inner, words = SHAPES.get(case.model, (0,) * 6)
    made = ModelShape(case.model, layers, hidden, heads, kv_heads, hidden // max(heads, 1), inner, words, True)
    wanted = wishes(case, "starter")
    quantisation, device = resolve(wanted.model, card=False)
    phases = planned(case, made if hidden else STARTER_SHAPE, wanted, quantisation, device).phases
    return [Row(case, phase, phases[phase].total, gib * GIB) for phase, gib in found.items()]


def write_record(machine: str, rows: Sequence[Row]) -> None:
    """Put these figures in the place of the record."""
    cases: dict[str, dict[str, float]] = {}
    for row in rows:
        cases.setdefault(row.case.name, {})[row.phase] = round(row.measured / GIB, 2)
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(found)}" for name, found in cases.items())
    head = f'{{\n  "machine": {json.dumps(machine)},\n  "unit": "GiB",\n  "cases": {{\n'
    RECORD.write_text(f"{head}{lines}\n  }}\n}}\n", encoding="utf-8")


def wishes(case: Case, model: str) -> Settings:
    return settings_module.load(Path("absent"), [*SMALL, f"model.name={model}", *case.settings])


def planned(case: Case, shape: ModelShape, settings: Settings, quantisation: Quantisation, device: Device) -> StagePlan:
    found = plan(shape, settings, quantisation=quantisation, device=device, candidates=4)
    return next(one for one in found.stages if one.stage == case.stage)


# -- one case, in its own process -----------------------------------------------------------------


def carried_out(case: Case, models: Path) -> dict[str, dict[str, Any]]:
    """Do what the case says; planned and measured bytes of each phase."""
    import torch
    import transformers

    from rlhf_tui.locate import locate
    from rlhf_tui.model.base import load_base
    from rlhf_tui.shape import shape_of

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name = case.model if case.model == "starter" else str(_made(case.model, models))
    settings = wishes(case, name)
    base = load_base(settings.model, lambda text: None)
    base = replace(base, chat=replace(base.chat, end_ids=()))
    measured = {"ppo": _ppo, "generate": _generate, "reward": _reward}[case.stage](base, settings)
    quantisation, device = resolve(settings.model, card=torch.cuda.is_available())
    stage = planned(case, shape_of(locate(name)), settings, quantisation, device)
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


def make(name: str, models: Path) -> int:
    """Write the folder; returns the exit status."""
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
    return 0


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
    sys.exit(main())
