"""Votes between two models: arena battles (FastChat), AlpacaEval annotations and PandaLM's test set."""

from __future__ import annotations

import json
from typing import Any

from rlhf_tui.preferences.formats.conventions import BOTH_BAD_WORDS
from rlhf_tui.preferences.formats.fields import UNDECIDED, Malformed, Unusable, number, text, turns, words
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Dropped,
    Found,
    Turns,
    answer_after,
    ask,
    better,
    candidate,
    common_prompt,
    handle,
    instruction,
    prompt_of,
    said,
)
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Message, NewPrompt, Verdict

_PLACES = {"model_a": 0, "model_b": 1}
_TIES = ("tie",)


# Arena


def read_battle(row: dict[str, Any], context: Context) -> list[Found]:
    """FastChat: `conversation_a`, `conversation_b` and `winner`; of turn n only the first n answers were judged.

    The arena's flat tables have `prompt`, `response_a`, `response_b` (lists of turns, maybe as JSON text) and
    `winner_model_a`, `winner_model_b`, `winner_tie`, of which one is 1.
    """
    if "winner_model_a" in row:
        return _flat_battle(row, context)
    turn = number(row.get("turn"), "turn")
    sides = [_until(turns(row.get(key), key), turn) for key in ("conversation_a", "conversation_b")]
    return [_vote(row, context, sides[0], sides[1], text(row, "winner", "").strip().lower())]


def _flat_battle(row: dict[str, Any], context: Context) -> list[Found]:
    asked = _several(row, "prompt")
    sides = [_interleaved(asked, _several(row, key)) for key in ("response_a", "response_b")]
    said_of = {key: number(row.get(f"winner_{key}"), f"winner_{key}") for key in (*_PLACES, "tie")}
    winner = next((key for key, value in said_of.items() if value), "")
    return [_vote(row, context, sides[0], sides[1], winner)]


def _vote(row: dict[str, Any], context: Context, one: Turns, other: Turns, winner: str) -> ImportedLabel:
    if not winner:
        raise Unusable(UNDECIDED)
    if winner not in (*_PLACES, *_TIES, *BOTH_BAD_WORDS):
        raise Malformed(f"'winner' is {winner!r}; known are model_a, model_b, tie and tie (bothbad).")
    prompt = common_prompt(one, other)
    candidates = (
        candidate(answer_after(prompt, one), row.get("model_a")),
        candidate(answer_after(prompt, other), row.get("model_b")),
    )
    asked, judge = ask(prompt, context, row), handle(row.get("judge"))
    if winner in BOTH_BAD_WORDS:
        return ImportedLabel(asked, candidates, "pair", Verdict("both_bad"), rater=judge)
    return better(asked, candidates, _PLACES.get(winner), rater=judge, layout="file")


def _until(found: Turns, turn: float | None) -> Turns:
    answers = [place for place, message in enumerate(found) if message.role == "assistant"]
    return found[: answers[int(turn) - 1] + 1] if turn and 1 <= turn <= len(answers) else found


def _several(row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key)
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]  # an answer may begin with a bracket
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(part is None or isinstance(part, str) for part in value):
        raise Malformed(f"{key!r} must be a text or a list of texts.")
    return [part or "" for part in value]


def _interleaved(asked: list[str], answers: list[str]) -> Turns:
    found: list[Message] = []
    for question, answer in zip(asked, answers, strict=False):
        found += [Message("user", question), Message("assistant", answer)]
    return tuple(found)


# Others


def read_annotation(row: dict[str, Any], context: Context) -> list[Found]:
    """AlpacaEval: `preference` 1 is output_1, 2 is output_2, 1.5 (once 0) a draw; weighted ones lie between."""
    preference = number(row.get("preference"), "preference")
    if preference is None:
        raise Unusable(UNDECIDED)
    if preference != 0 and not 1 <= preference <= 2:
        raise Malformed(f"'preference' is {preference:g}; it must be 1, 2, or 1.5 (or 0) for a draw.")
    place = None if preference in (0, 1.5) else int(preference > 1.5)
    candidates = [candidate(words(row, f"output_{n}"), row.get(f"generator_{n}")) for n in (1, 2)]
    prompt = prompt_of(row, ("instruction", "prompt"))
    return [better(ask(prompt, context, row), candidates, place, rater=handle(row.get("annotator")))]


def read_annotators(row: dict[str, Any], context: Context) -> list[Found]:
    """PandaLM: one judgement for each of `annotator1`, `annotator2`, …: 0 is a tie, 1 and 2 name the response."""
    prompt = ask(instruction(row), context, row)
    candidates = [candidate(words(row, f"response{n}")) for n in (1, 2)]
    names = sorted(key for key in row if key.startswith("annotator") and key[9:].isdigit())
    if not names:
        raise Unusable(UNDECIDED)
    return [_of_annotator(row, name, prompt, candidates) for name in names]


def _of_annotator(row: dict[str, Any], name: str, prompt: NewPrompt, candidates: list[ImportedCandidate]) -> Found:
    choice = number(row[name], name)
    if choice is None:
        return Dropped(UNDECIDED)
    if choice not in (0, 1, 2):
        raise Malformed(f"{name!r} is {choice:g}; it must be 0 (tie), 1 or 2.")
    return better(prompt, candidates, None if choice == 0 else int(choice) - 1, rater=name)


def read_comments(row: dict[str, Any], context: Context) -> list[Found]:
    """SHP: of two comments on a post, `labels` 1 says that A is better, 0 that B is."""
    label = number(row.get("labels"), "labels")
    if label is None:
        raise Unusable(UNDECIDED)
    if label not in (0, 1):
        raise Malformed(f"'labels' is {label:g}; it must be 1 (A is better) or 0.")
    candidates = [candidate(words(row, f"human_ref_{side}")) for side in "AB"]
    return [better(ask(said(text(row, "history", "")), context, row), candidates, int(label == 0))]
