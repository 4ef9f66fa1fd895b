"""A flat row for two answers and who won: what spreadsheets and data frames can use.

A prompt that is more than one user message stands in its cell as JSON, and so does any text that would be
taken for a whole conversation. Other texts stay exactly as they are, also where a spreadsheet would take
one for a formula.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlhf_tui.preferences.formats.conventions import BOTH_BAD
from rlhf_tui.preferences.formats.writers.leaderboards import as_shown
from rlhf_tui.preferences.formats.writers.shapes import Row, conversation, looks_like_more
from rlhf_tui.preferences.records import Completion, Judged, LabelledPair, Message

#: Every column and the type of its values.
COLUMNS: dict[str, type] = {
    "prompt": str,
    "answer_a": str,
    "answer_b": str,
    "winner": str,
    "strength": int,
    "weight": float,
    "model_a": str,
    "model_b": str,
    "rater": str,
    "note": str,
    "kind": str,
    "split": str,
    "judged_at": str,
}

USE = (
    "One row for two answers; a was shown first. winner: a, b, tie or both_bad; strength: 2 much better, 1 better, "
    "else 0; weight: 1/(K-1) for two out of K answers that were judged together. A prompt that is more than one user "
    "message is JSON: a list of messages with role and content. A cell that begins with =, +, - or @ is a text: "
    "open the file in a spreadsheet as text only."
)


def row(pair: LabelledPair, judged: Judged) -> Row:
    """One pair with who judged it, and how."""
    first, second = as_shown(pair, judged)
    winner = "tie" if pair.tie else "a" if pair.chosen.id == first.id else "b"
    return _row(judged, first, second, winner, pair.strength, pair.weight)


def both_bad(judged: Judged) -> list[Row]:
    """That all answers are bad, one row for each two of them; nothing to train on, so the weight is 0."""
    shown = judged.shown
    return [
        _row(judged, one, other, BOTH_BAD, 0, 0.0) for place, one in enumerate(shown) for other in shown[place + 1 :]
    ]


def _row(judged: Judged, first: Completion, second: Completion, winner: str, strength: int, weight: float) -> Row:
    return {
        "prompt": _prompt(judged.prompt.messages),
        "answer_a": _answer(first.text),
        "answer_b": _answer(second.text),
        "winner": winner,
        "strength": strength,
        "weight": weight,
        "model_a": first.model,
        "model_b": second.model,
        "rater": judged.rater.public_name,
        "note": judged.note,
        "kind": judged.kind,
        "split": judged.prompt.split,
        "judged_at": judged.created_at,
    }


def _prompt(turns: Sequence[Message]) -> str:
    text = turns[0].content
    if len(turns) > 1 or turns[0].role != "user" or looks_like_more(text) or _is_like_messages(text):
        return json.dumps(conversation(turns), ensure_ascii=False)
    return text


def _answer(text: str) -> str:
    if not _is_like_messages(text):
        return text
    return json.dumps(conversation([Message("assistant", text)]), ensure_ascii=False)


def _is_like_messages(text: str) -> bool:
    return text.lstrip().startswith(("{", "[")) and '"role"' in text
