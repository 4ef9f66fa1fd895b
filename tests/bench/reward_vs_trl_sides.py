"""The two sides of reward_vs_trl.py, each run in a process of its own; the method is told there.

python tests/bench/reward_vs_trl_sides.py prepare|ours|trl|check FOLDER
"""

from __future__ import annotations

import json
import math
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

# torch and its kind are imported where they are needed, so that each side pays for its own imports alone
RANK, ALPHA, CENTRE, CLIP = 16, 32, 0.01, 1.0
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PAD = "<|endoftext|>"
SPLIT_SEED = 20260  # folds and smoke subsets; the same whatever --seeds says
CHECKED = 24


# -- the pairs -------------------------------------------------------------------------------------


def prepare(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of all candidates; pairs as (chosen, rejected, tree, fold), candidates by number."""
    from transformers import AutoTokenizer

    from rlhf_tui.model.chat import chat_for
    from rlhf_tui.model.starter import ensure_starter
    from rlhf_tui.preferences.records import Message

    folder = ensure_starter(print)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = chat_for(tokenizer, end_ids=[tokenizer.eos_token_id])
    groups = [json.loads(line) for line in Path(plan["data"]).read_text(encoding="utf-8").splitlines()]
    folds = deal(groups, plan["folds"], plan["pairs"])
    candidates, pairs = [], []
    for group in (group for group in groups if group["tree_id"] in folds):
        prompt = chat.prompt_ids([Message(turn["role"], turn["content"]) for turn in group["prompt"]])
        first = len(candidates)
        ranked = sorted(group["completions"], key=lambda reply: reply["rank"])
        for reply in ranked:
            response = chat.completion_ids(reply["text"], ended=False)
            most = plan["response_tokens"]
            response = response[:most] if len(response) > most else [*response, chat.end_ids[0]]
            candidates.append((prompt[-plan["prompt_tokens"] :], response))
        for (one, better), (other, worse) in combinations(enumerate(ranked), 2):
            if better["rank"] < worse["rank"]:
                pairs.append((first + one, first + other, group["tree_id"], folds[group["tree_id"]]))
    pad = tokenizer.convert_tokens_to_ids(PAD)
    if any(pad in prompt or pad in response for prompt, response in candidates):
        raise SystemExit(f"{PAD} occurs in a sequence: TRL would pool at the wrong place")
    return {"model": str(folder), "pad": pad, "candidates": candidates, "pairs": pairs}


def deal(groups: Sequence[Mapping[str, Any]], folds: int, wanted: int) -> dict[str, int]:
    """The fold of each tree, each time to the fold with the fewest pairs; with `wanted`, only that many pairs."""
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group["tree_id"]] = sizes.get(group["tree_id"], 0) + math.comb(len(group["completions"]), 2)
    filled = [0] * folds
    dealt: dict[str, int] = {}
    for tree in random.Random(SPLIT_SEED).sample(sorted(sizes), len(sizes)):
        if wanted and sum(filled) >= wanted:
            break
        dealt[tree] = filled.index(min(filled))
        filled[dealt[tree]] += sizes[tree]
    return dealt


# -- both sides, each in a process of its own ------------------------------------------------------


class Watch:
    """Counts optimiser steps and forwarded tokens of either side, by hooks in torch."""

    def __init__(self, stack: Any) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.rates: list[float] = []
        self.with_gradient, self.without = 0, 0
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._cpu = time.process_time()
        self._started = self._last = time.perf_counter()
        self._hook = register_optimizer_step_post_hook(lambda optimiser, *_: self._stepped(optimiser))
        stack.register_forward_pre_hook(self._forward, with_kwargs=True)

    def _stepped(self, optimiser: Any) -> None:
        self.rates.append(optimiser.param_groups[0]["lr"])
        self._last = time.perf_counter()

    def _forward(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        import torch

        given = args[0] if args else kwargs.get("input_ids")
        rows, width = (given if given is not None else kwargs["inputs_embeds"]).shape[:2]
        if torch.is_grad_enabled():
            self.with_gradient += rows * width
        else:
            self.without += rows * width

    def stop(self) -> dict[str, Any]:
        ended = time.perf_counter()
        self._hook.remove()
        return {
            "train_s": self._last - self._started,
            "all_s": ended - self._started,
            "cpu_s": time.process_time() - self._cpu,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "before_mb": self.before,
            "steps": len(self.rates),
            "rates": self.rates,
            "tokens_gradient": self.with_gradient,
            "tokens_other": self.without,
        }


@contextmanager
def watched(stack: Any, result: dict[str, Any]) -> Iterator[None]:
    watch = Watch(stack)
    yield
    result |= watch.stop()


def factor(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate: a linear rise, never from 0, then a half cosine to 0."""
    rise = round(warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def split(plan: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Training and held-out pairs of this fold, as (chosen, rejected) numbers of candidates."""
    sides: tuple[list[Any], list[Any]] = ([], [])
    for chosen, rejected, _, fold in data["pairs"]:
        sides[fold == plan["fold"]].append((chosen, rejected))
    return sides


def ours(plan: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """One fold by rlhf_tui; 'plain' is without the started head, its own rate, and label smoothing."""
    from rlhf_tui.model.base import load_base
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.settings import AdapterSettings, ModelSettings, RewardSettings
    from rlhf_tui.training.batching import Tokens
    from rlhf_tui.training.reward import Pair, train_reward

    base = load_base(ModelSettings(name="starter", device="cpu", quantisation="none"), lambda _: None)
    roles = Roles(base, AdapterSettings(rank=RANK, alpha=ALPHA), seed=plan["seed"])
    roles.add("reward")
    candidates = [Tokens(tuple(prompt), tuple(response)) for prompt, response in data["candidates"]]
    train, heldout = (
        [Pair(candidates[i], candidates[j], False, 1, 1.0) for i, j in part] for part in split(plan, data)
    )
    plain = {"head_start": "zero", "head_learning_rate": plan["rate"], "label_smoothing": 0.0}
    settings = RewardSettings(
        epochs=plan["epochs"],
        learning_rate=plan["rate"],
        weight_decay=plan["weight_decay"],
        warmup=plan["warmup"],
        batch_pairs=plan["batch"],
        micro_batch_tokens=2 * plan["micro"] * (plan["prompt_tokens"] + plan["response_tokens"] + 1),
        max_grad_norm=CLIP,
        centre=CENTRE,
        patience=0,  # keeping the best epoch would choose by the very pairs that are measured
        **(plain if plan["side"] == "plain" else {}),
    )
    names = [name for name, _ in base.model.named_parameters() if ".reward." in name]
    start = [one.detach().clone() for one in roles.parameters("reward")]
    result: dict[str, Any] = {}
    with watched(base.model.get_decoder(), result):
        trained = train_reward(
            roles, train, heldout, settings, seed=plan["seed"], emit=lambda _: None, boundary=lambda: None
        )
    result["gaps"] = trained.heldout.gaps.tolist()
    result |= moved([*names, "head", "bias"], start, roles.parameters("reward"))
    roles.save("reward", Path(plan["keep"]), {})
    return result


def trl(plan: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """One fold by TRL's RewardTrainer."""
    import torch
    from datasets import Dataset
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(data["model"])
    tokenizer.pad_token = PAD
    whole = [prompt + response for prompt, response in data["candidates"]]
    train, heldout = split(plan, data)
    shared = (
        {} if plan["own_defaults"] else {"weight_decay": plan["weight_decay"], "center_rewards_coefficient": CENTRE}
    )
    config = RewardConfig(
        output_dir=str(Path(plan["keep"])),
        model_init_kwargs={"dtype": torch.float32, "attn_implementation": "sdpa"},
        num_train_epochs=plan["epochs"],
        per_device_train_batch_size=plan["micro"],
        gradient_accumulation_steps=plan["batch"] // plan["micro"],
        learning_rate=plan["rate"],
        max_grad_norm=CLIP,
        seed=plan["seed"],
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **shared,
    )
    trainer = RewardTrainer(
        model=data["model"],
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict(
            {"chosen_ids": [whole[i] for i, _ in train], "rejected_ids": [whole[j] for _, j in train]}
        ),
        peft_config=lora(),
    )
    if not plan["own_defaults"]:
        steps = math.ceil(len(train) / plan["batch"]) * plan["epochs"]
        trainer.lr_scheduler = LambdaLR(trainer.create_optimizer(), lambda step: factor(step, steps, plan["warmup"]))
    model = trainer.model
    if {model.get_base_model().config.pad_token_id, trainer.data_collator.pad_token_id} != {data["pad"]}:
        raise SystemExit("TRL pads or pools with another token than the one that occurs in no sequence")
    learnt = {name: one for name, one in model.named_parameters() if one.requires_grad}
    start = [one.detach().clone() for one in learnt.values()]
    result: dict[str, Any] = {}
    with watched(model.get_base_model().model, result):
        trainer.train()
        scores = score(model, trainer.data_collator, whole, {i for pair in heldout for i in pair}, 2 * plan["micro"])
    result["gaps"] = [scores[i] - scores[j] for i, j in heldout]
    return result | moved(["head" if "score" in name else name for name in learnt], start, list(learnt.values()))


def lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=LINEAR,
        modules_to_save=["score"],
    )


def score(model: Any, collator: Any, whole: Sequence[list[int]], wanted: set[int], rows: int) -> dict[int, float]:
    """Scores by transformers' sequence classification: each candidate once, similar lengths together."""
    import torch

    model.eval()
    order = sorted(wanted, key=lambda i: -len(whole[i]))
    order += order[-1:] * (len(order) % 2)  # the collator takes candidates by twos
    scores: dict[int, float] = {}
    with torch.no_grad():
        for start in range(0, len(order), rows):
            first, second = order[start : start + rows : 2], order[start + 1 : start + rows : 2]
            batch = collator(
                [{"chosen_ids": whole[i], "rejected_ids": whole[j]} for i, j in zip(first, second, strict=True)]
            )
            logits = model(**batch, use_cache=False).logits
            scores |= dict(zip(first + second, logits[:, 0].tolist(), strict=True))
    return scores


def moved(names: Sequence[str], start: Sequence[Any], now: Sequence[Any]) -> dict[str, Any]:
    """How far the head went, in how many LoRA matrices B something is, and how many LoRA weights there are."""
    far = {name: float((b.detach() - a).norm()) for name, a, b in zip(names, start, now, strict=True)}
    second = [name for name in names if ".lora_B." in name]
    return {
        "head_moved": far["head"],
        "lora_layers": len(second),
        "lora_layers_moved": sum(far[name] > 0 for name in second),
        "lora_weights": sum(one.numel() for name, one in zip(names, now, strict=True) if ".lora_" in name),
    }


def check(plan: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Our saved reward model in TRL's model class: gaps of some held-out pairs."""
    import torch
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification
    from trl.trainer.reward_trainer import DataCollatorForPreference

    folder = Path(plan["keep"])
    bare = AutoModelForSequenceClassification.from_pretrained(data["model"], num_labels=1, dtype=torch.float32)
    bare.config.pad_token_id = data["pad"]
    model = get_peft_model(bare, lora())
    head = load_file(folder / "head.safetensors")["weight"][None]
    state = load_file(folder / "adapter_model.safetensors") | {"base_model.model.score.weight": head}
    outcome = set_peft_model_state_dict(model, state)
    assert not outcome.unexpected_keys, outcome.unexpected_keys[:3]
    whole = [prompt + response for prompt, response in data["candidates"]]
    heldout = split(plan, data)[1]
    places = list(range(0, len(heldout), math.ceil(len(heldout) / CHECKED)))
    some = [heldout[place] for place in places]
    collator = DataCollatorForPreference(pad_token_id=data["pad"])
    scores = score(model, collator, whole, {i for pair in some for i in pair}, CHECKED)
    return {"places": places, "gaps": [scores[i] - scores[j] for i, j in some]}


CHILDREN: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "prepare": lambda plan, _: prepare(plan),
    "ours": ours,
    "trl": trl,
    "check": check,
}


def main(kind: str, folder: Path) -> None:
    """Read plan.json (and data.json) in `folder`, do what is asked, write result.json."""
    plan = json.loads((folder / "plan.json").read_text())
    if kind != "prepare":
        import torch

        torch.set_num_threads(plan["threads"])
    data = json.loads((folder / "data.json").read_text()) if kind != "prepare" else {}
    warnings.filterwarnings("ignore")
    (folder / "result.json").write_text(json.dumps(CHILDREN[kind](plan, data)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
