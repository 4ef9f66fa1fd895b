"""TRL's rows, as its guide to dataset formats describes them (docs/source/dataset_formats.md, TRL 1.10).

A `margin` column is read by RewardTrainer, which subtracts it inside its loss when it is there.
"""

from __future__ import annotations

from rlhf_tui.preferences.formats.conventions import MARGIN
from rlhf_tui.preferences.formats.writers.shapes import Row, answer, conversation, plain, unmistakable
from rlhf_tui.preferences.records import Completion, Judged, LabelledPair, Prompt

_LOAD = 'dataset = load_dataset("json", data_files="{file}", split="train")'
_MARGIN = (
    "RewardTrainer subtracts the 'margin' column inside its loss (much better 1, better 2/3, half a tie 0); "
    'dataset.remove_columns("margin") trains without. Other trainers ignore it.'
)
USE = {
    "trl": f"{_LOAD}  # DPOTrainer, KTOTrainer, CPOTrainer, ORPOTrainer, RewardTrainer. {_MARGIN}",
    "trl-implicit": f"{_LOAD}  # RewardTrainer; the others find the prompt as the common beginning. {_MARGIN}",
    "trl-text": (
        f"{_LOAD}  # For models without a chat template: prompt and answer are joined as they are, "
        "with nothing between them. Chat models want the format 'trl'."
    ),
    "trl-unpaired": f"{_LOAD}  # KTOTrainer, BCOTrainer",
    "trl-prompts": f"{_LOAD}  # GRPOTrainer, RLOOTrainer, PPO: prompts only, also those nobody has judged",
}


def explicit(pair: LabelledPair, judged: Judged) -> Row:
    """Preference, conversational, the prompt beside the answers."""
    return {
        "prompt": conversation(pair.prompt.messages),
        "chosen": [answer(pair.chosen.text)],
        "rejected": [answer(pair.rejected.text)],
        "margin": MARGIN[pair.strength],
    }


def implicit(pair: LabelledPair, judged: Judged) -> Row:
    """Preference, conversational, the whole conversation on both sides."""
    prompt = conversation(pair.prompt.messages)
    return {
        "chosen": [*prompt, answer(pair.chosen.text)],
        "rejected": [*prompt, answer(pair.rejected.text)],
        "margin": MARGIN[pair.strength],
    }


def text(pair: LabelledPair, judged: Judged) -> Row:
    """Preference, strings. Raises Unfit for a prompt that is more than one user message."""
    return {
        "prompt": unmistakable(plain(pair.prompt)),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "margin": MARGIN[pair.strength],
    }


def unpaired(prompt: Prompt, completion: Completion, good: bool) -> Row:
    """One answer and whether it is good."""
    return {"prompt": conversation(prompt.messages), "completion": [answer(completion.text)], "label": good}


def prompt_only(prompt: Prompt) -> Row:
    """A prompt to generate from."""
    return {"prompt": conversation(prompt.messages)}
