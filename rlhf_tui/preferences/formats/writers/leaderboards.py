"""Votes for leaderboards: FastChat's battles, and AlpacaEval's annotations.

Battles are the rows that fastchat/serve/monitor/clean_battle_data.py writes and elo_analysis.py reads;
annotations those of AlpacaEval's README ('preference' 1: the first output, 2: the second, 1.5: a draw).
The two sides stand as they stood on screen.
"""

from __future__ import annotations

from datetime import datetime

from rlhf_tui.preferences.formats.conventions import BATTLE_BOTH_BAD
from rlhf_tui.preferences.formats.writers.shapes import Row, answer, conversation, plain
from rlhf_tui.preferences.records import Completion, Judged, LabelledPair

USE = {
    "arena": (
        "FastChat: python3 -m fastchat.serve.monitor.elo_analysis --clean-battle-file FILE, where FILE is {file} as "
        "one JSON list. Votes between two answers of one model say nothing about models; the language is not known."
    ),
    "alpacaeval": "alpaca_eval's annotations: read {file} with pandas.read_json, or alpaca_eval.metrics.get_winrate.",
}


def battle(pair: LabelledPair, judged: Judged) -> Row:
    """One vote between two answers."""
    first, second = as_shown(pair, judged)
    winner = "tie" if pair.tie else "model_a" if pair.chosen.id == first.id else "model_b"
    return _vote(judged, first, second, winner)


def both_bad(judged: Judged) -> list[Row]:
    """The votes that all answers are bad, one for each two of them."""
    shown = judged.shown
    return [
        _vote(judged, one, other, BATTLE_BOTH_BAD) for place, one in enumerate(shown) for other in shown[place + 1 :]
    ]


def _vote(judged: Judged, first: Completion, second: Completion, winner: str) -> Row:
    prompt = conversation(judged.prompt.messages)
    return {
        "question_id": judged.prompt.uid,
        "model_a": first.model,
        "model_b": second.model,
        "winner": winner,
        "judge": judged.rater.public_name,
        "conversation_a": [*prompt, answer(first.text)],
        "conversation_b": [*prompt, answer(second.text)],
        "turn": 1 + sum(message.role == "assistant" for message in judged.prompt.messages),
        "anony": True,
        "language": "unknown",
        "tstamp": datetime.fromisoformat(judged.created_at).timestamp(),
    }


def annotation(pair: LabelledPair, judged: Judged) -> Row:
    """One annotation. Raises Unfit for a prompt that is more than one user message."""
    first, second = as_shown(pair, judged)
    return {
        "instruction": plain(pair.prompt),
        "output_1": first.text,
        "output_2": second.text,
        "generator_1": first.model,
        "generator_2": second.model,
        "annotator": judged.rater.public_name,
        "preference": 1.5 if pair.tie else 1.0 if pair.chosen.id == first.id else 2.0,
        "dataset": pair.prompt.source,
    }


def as_shown(pair: LabelledPair, judged: Judged) -> tuple[Completion, Completion]:
    """The two answers of a pair in the order they stood on screen."""
    first, second = (one for one in judged.shown if one.id in (pair.chosen.id, pair.rejected.id))
    return first, second
