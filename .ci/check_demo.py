"""Is what `rlhf-tui demo --headless --json` printed what the README promises?

Knows nothing of rlhf_tui: it loads the merged model as any program would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = (
    "What do bees do all day?",
    "How do I keep bread fresh?",
    "Why is the sea salty?",
    "Write a line for a birthday card.",
)


def greedy(folder: str) -> list[str]:
    """Greedy answers of the model in `folder`, at most 48 tokens each."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = []
    for question in QUESTIONS:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=48, do_sample=False)
        answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return answers


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text())
    held, change = result["reward"]["heldout"], result["compare"]
    print(f"reward model: {held['accuracy']:.3f} [{held['low']:.3f}, {held['high']:.3f}] on {held['n']} pairs")
    print(f"  shorter {held['shorter']:.3f}, longer {held['longer']:.3f}")
    print(f"score: {change['before']['score']:+.3f} -> {change['after']['score']:+.3f}")
    interval = f"[{change['low']:+.3f}, {change['high']:+.3f}]"
    print(f"  difference {change['difference']:+.3f} {interval}, KL {change['kl']:.2f}")
    assert change["low"] > 0, "the held-out score did not rise beyond its interval"
    assert "rlhf_tui" not in sys.modules
    plain, tuned = greedy(result["export"]["base"]), greedy(result["export"]["path"])
    for question, before, after in zip(QUESTIONS, plain, tuned, strict=True):
        print(f"{question}\n  base:  {before}\n  tuned: {after}")
    assert tuned != plain, "the merged model answers exactly as the base does"


main()
