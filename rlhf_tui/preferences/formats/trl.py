"""TRL's preference rows: `chosen` and `rejected`, with the prompt beside them or inside both.

Strings or messages. Without `prompt`, it is the longest common beginning of the two
conversations; when that does not leave one answer on each side, the row is left out, not guessed.
"""

from __future__ import annotations

from typing import Any

from rlhf_tui.preferences.formats.labels import conversation
from rlhf_tui.preferences.formats.lines import messages
from rlhf_tui.preferences.reading import as_pair
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Judged, Message, NewPrompt

Turns = tuple[Message, ...]


class Unusable(Exception):
    """The row is well-formed but holds no pair; the text is the reason that is counted."""


def read(row: dict[str, Any], *, source: str) -> ImportedLabel:
    """One line as a judgement, the chosen side first. Raises lines.Malformed or Unusable."""
    chosen, rejected = (
        _turns(row.get("chosen"), "chosen", "assistant"),
        _turns(row.get("rejected"), "rejected", "assistant"),
    )
    if row.get("prompt") is None:
        if isinstance(row["chosen"], str) or isinstance(row["rejected"], str):
            raise Unusable("no prompt")
        prompt = _common(chosen, rejected)
    else:
        prompt = _turns(row["prompt"], "prompt", "user")
    better, worse = _answer(chosen, prompt), _answer(rejected, prompt)
    if not prompt or prompt[-1].role != "user" or not prompt[-1].content.strip():
        raise Unusable("no prompt")
    sides = (ImportedCandidate(better), ImportedCandidate(worse))
    return ImportedLabel(NewPrompt(prompt, source), sides, "ordered", 0, layout="unordered")


def _turns(value: Any, key: str, role: str) -> Turns:
    return (Message(role, value),) if isinstance(value, str) else messages(value, key)


def _common(one: Turns, other: Turns) -> Turns:
    length = 0
    # The last turn is the answer, even when both sides give the same one.
    while length < min(len(one), len(other)) - 1 and one[length] == other[length]:
        length += 1
    return one[:length]


def _answer(turns: Turns, prompt: Turns) -> str:
    """What comes after the prompt, which may or may not be repeated in front."""
    rest = turns[len(prompt) :] if turns[: len(prompt)] == prompt else turns
    if not rest:
        raise Unusable("no answer")
    if len(rest) > 1:
        raise Unusable("different prompts")
    if rest[0].role != "assistant":
        raise Unusable("no answer")
    return rest[0].content


def write(judged: Judged) -> dict[str, Any]:
    """One ordered judgement as an explicit conversational row."""
    pair = as_pair(judged)
    if pair.tie:
        raise ValueError("a tie has no chosen side")
    return {
        "prompt": conversation(judged),
        "chosen": [{"role": "assistant", "content": pair.chosen.text}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
    }
