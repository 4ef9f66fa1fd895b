"""LLaMA-Factory's rows, and the entry of `dataset_info.json` without which it does not read a file.

As its data/README.md, src/llamafactory/data/converter.py and parser.py say (August 2026). An entry with
'columns' or 'tags' must name every one it needs: those left out lose their defaults. The format v1 is that
of its new engine, which needs no entry.
"""

from __future__ import annotations

from typing import Any

from rlhf_tui.preferences.formats.writers.shapes import Row, alternating, answer, conversation
from rlhf_tui.preferences.records import Completion, Judged, LabelledPair, Message, Prompt

_TAGS = {"system": "system", "user": "human", "assistant": "gpt"}

ENTRIES: dict[str, dict[str, Any]] = {
    "llamafactory-alpaca": {
        "ranking": True,
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "chosen": "chosen",
            "rejected": "rejected",
            "system": "system",
            "history": "history",
        },
    },
    "llamafactory-sharegpt": {
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "llamafactory-kto": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
}
_USE = "dataset: {name} and dataset_dir: FOLDER, where {file} and dataset_info.json lie; "
USE = {
    "llamafactory-alpaca": f"{_USE}stage: rm, or dpo.",
    "llamafactory-sharegpt": f"{_USE}stage: rm, or dpo.",
    "llamafactory-kto": f"{_USE}stage: kto. ms-swift reads it too: swift rlhf --rlhf_type kto --dataset {{file}}",
    "llamafactory-v1": "train_dataset: {file} (the v1 engine, USE_V1=1); no dataset_info.json is needed.",
}


def alpaca(pair: LabelledPair, judged: Judged) -> Row:
    """Preference in alpaca columns, earlier turns in 'history'. Raises Unfit for turns that do not alternate."""
    system, turns = alternating(pair.prompt)
    said = [turn.content for turn in turns]
    return {
        "instruction": said[-1],
        "input": "",
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "system": system,
        "history": [list(exchange) for exchange in zip(said[:-1:2], said[1::2], strict=True)],
    }


def sharegpt(pair: LabelledPair, judged: Judged) -> Row:
    """Preference in sharegpt turns. Raises Unfit for turns that do not alternate: it would skip the row."""
    alternating(pair.prompt)
    return {
        "conversations": [_said(message) for message in pair.prompt.messages],
        "chosen": {"from": _TAGS["assistant"], "value": pair.chosen.text},
        "rejected": {"from": _TAGS["assistant"], "value": pair.rejected.text},
    }


def _said(message: Message) -> dict[str, str]:
    return {"from": _TAGS[message.role], "value": message.content}


def kto(prompt: Prompt, completion: Completion, good: bool) -> Row:
    """One answer and whether it is good. Raises Unfit for turns that do not alternate."""
    alternating(prompt)
    return {"messages": [*conversation(prompt.messages), answer(completion.text)], "label": good}


def v1(pair: LabelledPair, judged: Judged) -> Row:
    """Both whole conversations in typed blocks; only the assistant's turns carry loss, as in its own converter."""
    prompt = [_blocks(message) for message in pair.prompt.messages]
    return {
        "chosen_messages": [*prompt, _blocks(Message("assistant", pair.chosen.text))],
        "rejected_messages": [*prompt, _blocks(Message("assistant", pair.rejected.text))],
    }


def _blocks(message: Message) -> Row:
    return {
        "role": message.role,
        "content": [{"type": "text", "value": message.content}],
        "loss_weight": float(message.role == "assistant"),
    }
