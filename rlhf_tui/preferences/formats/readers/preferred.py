"""Rows with a chosen and a rejected answer, in every arrangement that trainers read.

TRL (explicit, implicit, strings), OpenRLHF, RewardBench, hh-rlhf transcripts, axolotl, LLaMA-Factory (alpaca,
sharegpt, v1) and ms-swift. The chosen side stands first, since such files do not keep the order on screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rlhf_tui.preferences.formats.conventions import MUCH_BETTER
from rlhf_tui.preferences.formats.fields import (
    DIFFERENT,
    NO_ANSWER,
    NO_PROMPT,
    Malformed,
    Unusable,
    is_missing,
    number,
    turns,
)
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Found,
    Turns,
    answer_after,
    answered,
    ask,
    better,
    candidate,
    common_prompt,
    is_transcript,
    prompt_of,
    transcript,
    with_system,
)
from rlhf_tui.preferences.records import Message

#: The fields a prompt may be under, in the order they are tried.
PROMPT_KEYS = ("prompt", "messages", "conversations", "instruction", "question", "query", "input")


def read_with(keys: Iterable[str]) -> Callable[[dict[str, Any], Context], list[Found]]:
    """A reader of rows whose prompt is under the first of `keys`, or inside both sides when it is under none."""
    wanted = tuple(keys)

    def read(row: dict[str, Any], context: Context) -> list[Found]:
        chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
        prompt = prompt_of(row, wanted)
        if prompt is None:
            if isinstance(row.get("chosen"), str) or isinstance(row.get("rejected"), str):
                raise Unusable(NO_PROMPT)
            prompt = with_system(row, common_prompt(chosen, rejected))
        return _pair(row, context, prompt, answer_after(prompt, chosen), answer_after(prompt, rejected))

    return read


def read_transcripts(row: dict[str, Any], context: Context) -> list[Found]:
    """hh-rlhf: both sides are whole transcripts. Raises Unusable when they differ in more than the answer."""
    sides = [row.get(key) for key in ("chosen", "rejected")]
    if not all(is_transcript(side) for side in sides):
        raise Malformed("'chosen' and 'rejected' must be transcripts that begin with 'Human:'.")
    return _whole(row, context, *(transcript(str(side)) for side in sides))


def read_whole(row: dict[str, Any], context: Context) -> list[Found]:
    """LLaMA-Factory v1: `chosen_messages` and `rejected_messages` are whole conversations."""
    return _whole(row, context, *(turns(row.get(key), key) for key in ("chosen_messages", "rejected_messages")))


def read_beside(row: dict[str, Any], context: Context) -> list[Found]:
    """ms-swift: `messages` ends with the chosen answer; `rejected_response` or `rejected_messages` is beside it."""
    messages = turns(row.get("messages"), "messages")
    if not is_missing(row.get("rejected_messages")):
        return _whole(row, context, messages, turns(row["rejected_messages"], "rejected_messages"))
    prompt, chosen = answered(with_system(row, messages))
    if prompt and prompt[-1].role == "assistant":
        raise Unusable(DIFFERENT)
    return _pair(row, context, prompt, chosen, answer_after((), _turns(row, "rejected_response")))


def read_alpaca(row: dict[str, Any], context: Context) -> list[Found]:
    """LLaMA-Factory's alpaca ranking; in its older form `output` is [chosen, rejected]."""
    output = row.get("output")
    if "chosen" in row:
        return _read_alpaca_sides(row, context)
    if not isinstance(output, list) or len(output) != 2 or not all(isinstance(side, str) for side in output):
        raise Malformed("'output' must be a list of two texts, the better one first.")
    return _pair(row, context, prompt_of(row, ("instruction",)), output[0], output[1])


_read_alpaca_sides = read_with(("instruction", "prompt"))


def _whole(row: dict[str, Any], context: Context, chosen: Turns, rejected: Turns) -> list[Found]:
    if not chosen or not rejected:
        raise Unusable(NO_ANSWER)
    prompt = common_prompt(chosen, rejected)
    sides = answer_after(prompt, chosen), answer_after(prompt, rejected)
    return _pair(row, context, with_system(row, prompt), *sides)


def _pair(row: dict[str, Any], context: Context, prompt: Turns | None, chosen: str, rejected: str) -> list[Found]:
    margin = number(row.get("margin"), "margin")
    strength = 2 if margin is not None and margin >= MUCH_BETTER else 1
    sides = (candidate(chosen, row.get("chosen_model")), candidate(rejected, row.get("rejected_model")))
    return [better(ask(prompt, context, row), sides, 0, strength=strength)]


def _side(row: dict[str, Any], key: str) -> Turns:
    return _turns(row, key if key in row else f"{key}_response")


def _turns(row: dict[str, Any], key: str) -> Turns:
    value = row.get(key)
    if is_missing(value):
        value = ""  # counted as an empty candidate
    return (Message("assistant", value),) if isinstance(value, str) else turns(value, key)
