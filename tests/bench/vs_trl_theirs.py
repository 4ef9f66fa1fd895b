"""TRL's side of vs_trl.py: its PPOTrainer as its documentation builds it; the method is told there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vs_trl_steps import Data, Steps, lora, moved, patched

PAD = "<|endoftext|>"


def trl(plan: Data, data: Data) -> dict[str, Any]:
    """Steps of TRL's PPO."""
    from transformers import TrainerCallback
    from trl.experimental.ppo import ppo_trainer

    trainer = trl_trainer(plan, data)
    start = trained_by_trl(trainer)
    steps = Steps(plan, data)
    first = FirstStep(data)

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.ended()

    def watched(own: Callable[..., Any]) -> Callable[..., Any]:
        def batch_generation(model: Any, queries: Any, *given: Any) -> Any:
            began = time.perf_counter()
            whole, logits = own(model, queries, *given)
            seconds = time.perf_counter() - began
            steps.sampled(seconds, whole[:, queries.shape[1] :].tolist())
            if not steps.done:
                first.sampled(queries, whole, logits)
            return whole, logits

        return batch_generation

    trainer.add_callback(Ends())
    trainer.model.register_forward_pre_hook(lambda *_: steps.learning())
    with patched(ppo_trainer, "batch_generation", watched), patched(ppo_trainer, "get_reward", first.watched):
        trainer.train()
    result = steps.stop()
    first.save(Path(plan["folder"]) / "first.json")
    return result | moved(start, trained_by_trl(trainer))


class FirstStep:
    """What TRL had of its first step: log-probabilities, values and scores, to be compared with ours."""

    def __init__(self, data: Data) -> None:
        self._pad, self._stop = data["pad"], data["stop"]
        self._context = 0
        self._found: dict[str, Any] = {}

    def sampled(self, queries: Any, whole: Any, logits: Any) -> None:
        self._context = queries.shape[1]
        responses = whole[:, self._context :]
        # generate hands out logits after the temperature; row by row, so that it takes no memory worth speaking of
        chosen = [
            row.gather(-1, taken[:, None])[:, 0] - row.logsumexp(-1)
            for row, taken in zip(logits, responses, strict=True)
        ]
        self._found["prompts"] = [[token for token in row if token != self._pad] for row in queries.tolist()]
        self._found["responses"] = [self._cut(row) for row in responses.tolist()]
        self._found["logprobs"] = [row.tolist() for row in chosen]

    def _cut(self, row: list[int]) -> list[int]:
        return row[: row.index(self._stop) + 1] if self._stop in row else row

    def watched(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def get_reward(*given: Any) -> Any:
            every, score, lengths = own(*given)
            if "values" not in self._found:  # TRL asks for the values, and then for the scores
                self._found["values"] = every[:, self._context - 1 : -1, 0].tolist()
            elif "scores" not in self._found:
                self._found["scores"] = score.tolist()
            return every, score, lengths

        return get_reward

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self._found))


def trl_trainer(plan: Data, data: Data) -> Any:
    """TRL's trainer as its documentation builds it, at its best settings on this machine."""
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer
    from trl.experimental.ppo import PPOTrainer

    policy, value, reward = trl_models(plan, data)
    tokenizer = AutoTokenizer.from_pretrained(data["model"], padding_side="left")
    tokenizer.pad_token = PAD
    if data["stop"] is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(data["stop"])
    rows = data["prompts"] * (plan["steps"] + 2)  # one more than is used: the last batch of a loader is special
    dataset = Dataset.from_dict({"input_ids": rows})
    trainer = PPOTrainer(
        args=trl_config(plan, data),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=dataset,
        eval_dataset=dataset.select(range(1)),
        peft_config=lora(plan),
    )
    loader = DataLoader(dataset, batch_size=plan["batch"], collate_fn=trainer.data_collator, drop_last=True)
    trainer.dataloader = trainer.accelerator.prepare(loader)
    return trainer


def trl_config(plan: Data, data: Data) -> Any:
    from trl.experimental.ppo import PPOConfig

    return PPOConfig(
        output_dir=plan["folder"],
        use_cpu=plan["device"] == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=plan["micro"],
        gradient_accumulation_steps=plan["batch"] // plan["micro"],
        num_mini_batches=1,
        num_ppo_epochs=plan["epochs"],
        total_episodes=plan["batch"] * (plan["steps"] + 1),
        local_rollout_forward_batch_size=plan["trl_rollout_rows"],
        response_length=plan["limit"],
        stop_token_id=data["stop"],
        missing_eos_penalty=None if data["stop"] is None else 1.0,
        temperature=plan["temperature"],
        learning_rate=plan["rate"],
        adam_epsilon=1e-5,
        kl_coef=0.05,
        gamma=1.0,
        lam=0.95,
        seed=plan["seed"],
        num_sample_generations=0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def trl_models(plan: Data, data: Data) -> tuple[Any, Any, Any]:
    """Policy (TRL adds its adapter), value (with adapter and head) and reward (frozen)."""
    import torch
    from peft import inject_adapter_in_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    wanted = {"dtype": torch.float32 if plan["device"] == "cpu" else torch.bfloat16, "attn_implementation": "sdpa"}
    policy = AutoModelForCausalLM.from_pretrained(data["model"], **wanted)
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(data["model"], num_labels=1, **wanted) for _ in range(2)
    )
    for model in (value, reward):
        model.requires_grad_(False)
        model.config.use_cache = False
        model.score.weight.data.copy_(torch.tensor(data["head"])[None])
        if plan["tied"]:
            for name, one in model.model.named_parameters():
                one.data = policy.model.get_parameter(name).data
    for model in (policy, value, reward):
        model.config.pad_token_id = data["pad"]
        model.to(plan["device"])
    policy.generation_config.pad_token_id = data["pad"]
    inject_adapter_in_model(lora(plan), value)
    value.score.requires_grad_(True)
    return policy, value, reward.eval()


def trained_by_trl(trainer: Any) -> dict[str, Any]:
    """Copies of the LoRA weights that learn, and a check that nothing else does but the value's head."""
    learnt = {name: one.detach().clone() for name, one in trainer.model.named_parameters() if one.requires_grad}
    other = [name for name in learnt if ".lora_" not in name]
    if len(other) != 1 or ".score." not in other[0]:
        raise SystemExit(f"TRL would train {other}")
    return {name: one for name, one in learnt.items() if ".lora_" in name}
