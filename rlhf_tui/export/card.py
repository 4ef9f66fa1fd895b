"""The model card: what a stranger must know of an exported model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TRUTHS = (
    "The behaviour of this model is shaped by whoever did the rating.",
    "RLHF tunes behaviour, not facts: it knows no more than its base model.",
)


@dataclass(frozen=True)
class Facts:
    """What is known about a tuned model when it is exported."""

    project: str
    base: str
    licence: str
    quantisation: str
    form: str
    """'merged' or 'adapter'"""
    pairs: int
    raters: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """handle, kind and card of everybody who judged"""
    guideline: str = ""
    reward: Mapping[str, Any] = field(default_factory=dict)
    """the held-out agreement of the reward model"""
    comparison: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)


def model_card(facts: Facts) -> str:
    """The card as Markdown with a YAML head, without a single path of this machine."""
    relation = "finetune" if facts.form == "merged" else "adapter"
    library = "transformers" if facts.form == "merged" else "peft"
    head = [
        "---",
        f"base_model: {facts.base}",
        f"base_model_relation: {relation}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        *([f"license: {facts.licence}"] if facts.licence else []),
        "tags: [rlhf, ppo, lora]",
        "---",
    ]
    parts = [
        "\n".join(head),
        f"# {facts.project}",
        f"{facts.base}, tuned with reinforcement learning from {facts.pairs} judged pairs of answers.",
        "\n".join(f"- **{truth}**" for truth in TRUTHS),
        _raters(facts),
        _numbers(facts),
        _use(facts),
    ]
    if facts.guideline:
        parts.append("## The guideline the raters followed\n\n" + _quoted(facts.guideline))
    return "\n\n".join(part for part in parts if part) + "\n"


def _raters(facts: Facts) -> str:
    lines = ["## Who rated"]
    for rater in facts.raters:
        card = "; ".join(f"{key}: {value}" for key, value in dict(rater.get("card", {})).items())
        lines.append(f"- {rater['handle']} ({rater['kind']})" + (f": {card}" if card else ""))
    return "\n".join([lines[0], "", *(lines[1:] or ["Unknown."])])


def _numbers(facts: Facts) -> str:
    lines = []
    if facts.reward:
        r = facts.reward
        lines.append(
            f"- Reward model: {r['accuracy']:.0%} of {r['n']} held-out pairs right "
            f"[{r['low']:.0%}, {r['high']:.0%}]; always the shorter {r['shorter']:.0%}, the longer {r['longer']:.0%}."
        )
    if facts.comparison:
        c = facts.comparison
        before, after = c["before"], c["after"]
        lines += [
            f"- Held-out score (reward-model deviations): {before['score']:+.2f} → {after['score']:+.2f}, "
            f"difference {c['difference']:+.2f} [{c['low']:+.2f}, {c['high']:+.2f}] on {c['prompts']} prompts.",
            f"- KL to the base: {c['kl']:.1f} nats an answer. "
            f"Length: {before['length']:.0f} → {after['length']:.0f} tokens. "
            f"Answers that end by themselves: {before['eos_rate']:.0%} → {after['eos_rate']:.0%}.",
        ]
    if facts.check:
        lines.append(
            f"- Merged against tuned model: KL {facts.check['kl']:.1e} nats a token, "
            f"same first choice at {facts.check['top1']:.1%} of {facts.check['positions']} positions."
        )
    return "\n".join(["## What was measured", "", *lines]) if lines else ""


def _use(facts: Facts) -> str:
    if facts.form == "merged":
        how = (
            "The weights of the base as they were used in training (dequantised where they were quantised), plus the "
            "adapter, added in fp32 and rounded once.\n\n"
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("this folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("this folder")\n```'
        )
    else:
        storage = "unquantised" if facts.quantisation == "none" else f"quantised as {facts.quantisation}"
        how = (
            f"A LoRA adapter. It was trained on the base {storage}; on another storage it is a slightly different "
            "model.\n\n"
            "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'base = AutoModelForCausalLM.from_pretrained("{facts.base}")\n'
            'model = PeftModel.from_pretrained(base, "this folder")\n```'
        )
    return "## How to use it\n\n" + how


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())
