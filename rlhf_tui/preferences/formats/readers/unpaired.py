"""Single answers with a thumb up or down: TRL unpaired, and KTO rows of LLaMA-Factory, ms-swift and axolotl."""

from __future__ import annotations

from typing import Any

from rlhf_tui.preferences.formats.fields import Malformed, is_missing, turns, words
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Found,
    Turns,
    accepted,
    answer_after,
    answered,
    ask,
    candidate,
    prompt_of,
    with_system,
)

_YES, _NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def read(row: dict[str, Any], context: Context) -> list[Found]:
    """One answer, accepted or rejected. Raises Malformed or Unusable."""
    key = "kto_tag" if "kto_tag" in row else "label"
    good = yes_or_no(row.get(key), key)
    prompt, answer = _parts(row)
    return [accepted(ask(prompt, context, row), candidate(answer), good)]


def yes_or_no(value: Any, key: str) -> bool:
    """True or false, also in the words and numbers that tables use for it. Raises Malformed."""
    word = str(value).strip().lower()
    if not isinstance(value, bool | int | float | str) or word not in _YES + _NO:
        raise Malformed(f"{key!r} must be true or false.")
    return word in _YES


def _parts(row: dict[str, Any]) -> tuple[Turns | None, str]:
    if "completion" in row:
        prompt = prompt_of(row, ("prompt", "instruction", "question"))
        completion = row["completion"]
        if is_missing(completion) or isinstance(completion, str):
            return prompt, completion if isinstance(completion, str) else ""
        found = turns(completion, "completion")
        return answered(with_system(row, found)) if prompt is None else (prompt, answer_after(prompt, found))
    if "output" in row:
        return prompt_of(row, ("instruction", "prompt")), words(row, "output")
    return answered(prompt_of(row, ("messages", "conversations")) or ())
