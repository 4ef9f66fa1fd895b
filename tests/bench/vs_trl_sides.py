"""The two sides of vs_trl.py, each run in a process of its own; the method is told there.

python tests/bench/vs_trl_sides.py prepare|ours|trl|generate|check FOLDER
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vs_trl_steps import Data, Steps, lora, moved, patched, peak_mb
from vs_trl_theirs import PAD, trl

# torch and its kind are imported where they are needed, so that each side pays for its own imports alone
SYSTEM = (
    "You are a helpful assistant. Answer in plain words, as a friend would who knows about the matter. Say what "
    "matters first, leave out what the reader knows, and stay friendly."
)
DRAW_SEED = 20260
REPEATS = 3  # of model.generate, after one for warming up


# -- the same input for all ------------------------------------------------------------------------


def prepare(plan: Data) -> dict[str, Any]:
    """The model's folder, the prompts' ids, the end token (one that does not exist where nothing may end), the head."""
    import numpy as np
    from transformers import AutoConfig, AutoTokenizer

    from rlhf_tui.model.chat import chat_for
    from rlhf_tui.model.starter import ensure_starter
    from rlhf_tui.preferences.records import Message

    folder = ensure_starter(print)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = tiny_model(Path(plan["folder"]) / "tiny", tokenizer) if plan["quick"] else folder
    chat = chat_for(tokenizer, end_ids=[tokenizer.eos_token_id], system_prompt=SYSTEM)
    lines = (files("rlhf_tui.demo") / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [row["prompt"] for row in map(json.loads, lines)]
    drawn = random.Random(DRAW_SEED + plan["seed"]).sample(texts, plan["batch"])
    prompts = [chat.prompt_ids([Message("user", text)])[-plan["prompt_tokens"] :] for text in drawn]  # 0: all of it
    stop = tokenizer(plan["stop"], add_special_tokens=False)["input_ids"]
    if len(stop) > 1:
        raise SystemExit(f"--stop {plan['stop']!r} is {len(stop)} tokens; TRL takes one")
    width = AutoConfig.from_pretrained(model).hidden_size
    lengths = [len(prompt) for prompt in prompts]
    return {
        "model": str(model),
        "prompts": prompts,
        "texts": drawn,
        "stop": stop[0] if stop else None,
        "pad": tokenizer.convert_tokens_to_ids(PAD),
        "head": (np.random.default_rng(DRAW_SEED).standard_normal(width) / (width + 1) ** 0.5).tolist(),
        "lengths": f"{min(lengths)} – {max(lengths)}, mean {statistics.mean(lengths):.0f}",
    }


def tiny_model(folder: Path, tokenizer: Any) -> Path:
    """A model of the starter's family that is too small to be of use, for --quick."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    if folder.exists():
        return folder
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# -- ours ------------------------------------------------------------------------------------------


def our_roles(plan: Data, data: Data) -> Any:
    """Base and roles; the value and the reward begin with the given head."""
    from dataclasses import replace

    import torch

    from rlhf_tui.model.base import load_base
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.settings import AdapterSettings, ModelSettings

    base = load_base(ModelSettings(name=data["model"], device=plan["device"], quantisation="none"), print)
    nothing = base.model.config.vocab_size  # no token has this id
    ends = (nothing if data["stop"] is None else data["stop"],)
    base = replace(base, chat=replace(base.chat, end_ids=ends))
    roles = Roles(base, AdapterSettings(rank=plan["rank"], alpha=plan["alpha"], layers=0), seed=plan["seed"])
    for role in ("policy", "value", "reward"):
        roles.add(role)
    for role in ("value", "reward"):
        roles.head(role).weight.data.copy_(torch.tensor(data["head"]))
    return roles


def our_settings(plan: Data, data: Data) -> Any:
    from rlhf_tui.settings import PpoSettings

    longest = max(len(prompt) for prompt in data["prompts"]) + plan["limit"]
    return PpoSettings(
        updates=plan["steps"] + 1,
        rollout_size=plan["batch"],
        minibatches=1,
        epochs=plan["epochs"],
        micro_batch_tokens=max(64, plan["micro"] * longest),
        max_new_tokens=plan["limit"],
        temperature=plan["temperature"],
        policy_learning_rate=plan["rate"],
        value_learning_rate=plan["rate"],
        warmup_updates=0,
        critic_warmup_updates=0,
        target_kl=0.0,  # it would end an update early
        value_clip=0.2,
        missing_eos_penalty=1.0,
    )


def ours(plan: Data, data: Data) -> dict[str, Any]:
    """Steps of our PPO."""
    from rlhf_tui.training import rollout
    from rlhf_tui.training.ppo import Ppo, TrainPrompt

    roles = our_roles(plan, data)
    prompts = [TrainPrompt(text, tuple(ids)) for text, ids in zip(data["texts"], data["prompts"], strict=True)]
    ppo = Ppo(
        roles,
        prompts,
        our_settings(plan, data),
        rollout.Scoring(0.0, 1.0),
        seed=plan["seed"],
        emit=lambda _: None,
    )
    start = trained_by_us(roles)
    responses: list[Any] = []

    def watched(own: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*given: Any, **named: Any) -> Any:
            completions = own(*given, **named)
            responses[:] = [completion.ids for completion in completions]
            return completions

        return sample

    with patched(rollout, "sample", watched):
        steps = Steps(plan, data)
        for _ in range(plan["steps"] + 1):
            values = ppo.update()
            steps.sampled(values["seconds_sampling"], responses)
            steps.ended(values["seconds_update"])
        result = steps.stop()
    return result | moved(start, trained_by_us(roles))


def trained_by_us(roles: Any) -> dict[str, Any]:
    """Copies of the LoRA weights that learn."""
    own = roles.base.model.named_parameters()
    return {name: one.detach().clone() for name, one in own if ".policy." in name or ".value." in name}


# -- what transformers samples, and whether both sides are the same model --------------------------


def generate(plan: Data, data: Data) -> dict[str, Any]:
    """Tokens/s of model.generate at full batch and full length, the base alone and with an active adapter."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    dtype = torch.float32 if plan["device"] == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(data["model"], dtype=dtype, attn_implementation="sdpa")
    model.to(plan["device"]).eval()
    model.generation_config.eos_token_id = None
    width = max(len(prompt) for prompt in data["prompts"])
    ids = torch.tensor([[data["pad"]] * (width - len(prompt)) + prompt for prompt in data["prompts"]])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in data["prompts"]])
    wanted = {
        "input_ids": ids.to(plan["device"]),
        "attention_mask": mask.to(plan["device"]),
        "max_new_tokens": plan["limit"],
        "do_sample": True,
        "temperature": plan["temperature"],
        "top_k": 0,
        "pad_token_id": data["pad"],
    }
    rates: dict[str, float] = {}
    for name in ("base", "adapter"):
        if name == "adapter":
            model = get_peft_model(model, lora(plan)).eval()
        seconds = []
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            with torch.no_grad():
                made = model.generate(**wanted)[:, width:].tolist()
            seconds.append(time.perf_counter() - began)
        rates[name] = sum(map(len, made)) / statistics.median(seconds[1:])
    return {"rates": rates, "peak_mb": peak_mb()}


def check(plan: Data, data: Data) -> dict[str, float]:
    """TRL's first completions evaluated by ours: how far log-probabilities, values and scores are from TRL's."""
    import torch

    from rlhf_tui.training.batching import Tokens
    from rlhf_tui.training.rollout import Scoring, evaluate_rollout

    first = json.loads((Path(plan["folder"]) / "first.json").read_text())
    roles = our_roles(plan, data)
    pairs = zip(first["prompts"], first["responses"], strict=True)
    sequences = [Tokens(tuple(prompt), tuple(response)) for prompt, response in pairs]
    ended = [data["stop"] is not None and one.response[-1] == data["stop"] for one in sequences]
    settings = our_settings(plan, data)
    rollout = evaluate_rollout(roles, sequences, ended, settings, Scoring(0.0, 1.0), kl_coefficient=0.05)
    apart: dict[str, list[Any]] = {"log-probability": [], "value": [], "score": []}
    for one in rollout.experiences:
        for place, row in enumerate(one.members):
            inside = one.mask[place]
            for name, own, theirs in (
                ("log-probability", one.logprobs, first["logprobs"]),
                ("value", one.values, first["values"]),
            ):
                given = torch.tensor(theirs[row])[: int(inside.sum())]
                apart[name].append((own[place][inside].cpu() - given).abs())
            apart["score"].append((one.raw_scores[place].cpu() - first["scores"][row]).abs()[None])
    return {name: float(torch.cat(found).max()) for name, found in apart.items()}


CHILDREN: Mapping[str, Callable[[Data, Data], dict[str, Any]]] = {
    "prepare": lambda plan, _: prepare(plan),
    "ours": ours,
    "trl": trl,
    "generate": generate,
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
