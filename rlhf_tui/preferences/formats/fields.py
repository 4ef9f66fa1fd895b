"""Fields of a row of somebody's file: what they must be, and the two ways in which they are not.

`Malformed`: the file is not what it says, and is refused whole. `Unusable`: the row is well-formed but
holds no judgement we can keep; it is left out and counted by its reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from rlhf_tui.preferences.records import ROLES, Message

# The reasons that several formats share; what is counted and shown is the text itself.
EMPTY = "an empty candidate"
IDENTICAL = "identical candidates"
NO_PROMPT = "no prompt"
NO_ANSWER = "no answer of the assistant"
DIFFERENT = "different prompts"
HALF = "half a character (a lone surrogate)"
UNDECIDED = "no answer given by the rater"
SKIPPED = "skipped by the rater"
DISCARDED = "discarded by the rater"
ROLE = "a role that is neither system, user nor assistant"
NOT_TEXT = "a part that is not text"
NOTHING = "a row that judges nothing"

_ROLE_NAMES = {
    **{role: role for role in ROLES},
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}

#: Anybody's words for a split; what others test and validate on is what a project holds out.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(
        ("heldout", "held_out", "holdout", "hold_out", "test", "testing", "valid", "validation", "val", "dev", "eval",
         "evaluation"),
        "heldout",
    ),
}  # fmt: skip


class Malformed(Exception):
    """A row does not say what it should. Always caught by the reader, which knows file and line."""


class Unusable(Exception):
    """A row is well-formed but holds nothing we can keep; the text is the reason that is counted."""


def text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """A string field; absent, null or not-a-number is the default. Raises Malformed."""
    value = row.get(key)
    if is_missing(value):
        value = default
    if not isinstance(value, str):
        raise Malformed(f"{key!r} must be a text.")
    return value


def words(row: Mapping[str, Any], key: str) -> str:
    """An answer, empty when absent; spreadsheets turn 'True' and '42' into values. Raises Malformed."""
    value = row.get(key)
    if isinstance(value, bool | int | float) and not is_missing(value):
        return str(value)
    return text(row, key, "")


def is_missing(value: Any) -> bool:
    """Whether a field holds nothing: null, or the NaN that pandas writes for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def choice(row: Mapping[str, Any], key: str, known: Collection[str]) -> str | None:
    """A field that is one of the known words, or absent. Raises Malformed."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or value not in known:
        raise Malformed(f"{key!r} is {value!r}; known are {', '.join(known)}.")
    return value


def split(value: Any) -> str | None:
    """The split of ours that anybody's word for one means, or None for a word that is not known.

    Of any case, with '-', '_' or ' ' between its parts, and numbered ('valid2') or not.
    """
    word = str(value).strip().lower().replace("-", "_").replace(" ", "_").rstrip("0123456789_")
    return _SPLIT_NAMES.get(word)


def whole(row: Mapping[str, Any], key: str) -> int | None:
    """An integer field, or None when it is absent. Raises Malformed."""
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise Malformed(f"{key!r} must be a whole number.")
    return value


def number(value: Any, key: str) -> float | None:
    """A number, also one written as text (tables know only text), or None when there is none. Raises Malformed."""
    if is_missing(value) or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Malformed(f"{key!r} must be a number.") from None
    if isinstance(value, bool) or math.isinf(found):
        raise Malformed(f"{key!r} must be a number.")
    return None if math.isnan(found) else found


def texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A field that is a list of strings, empty when absent. Raises Malformed."""
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{key!r} must be a list of texts.")
    return tuple(value)


def objects(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A field that is a list of objects. Raises Malformed."""
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Malformed(f"{key!r} must be a list of objects.")
    return value


def messages(value: Any, key: str) -> tuple[Message, ...]:
    """A conversation of ours: a list of {"role", "content"}. Raises Malformed."""
    if not isinstance(value, list):
        raise Malformed(f"{key!r} must be a list of messages.")
    found = []
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str) or item.get("role") not in ROLES:
            raise Malformed(f'{key!r} must hold messages like {{"role": "user", "content": "…"}}.')
        found.append(Message(item["role"], item["content"]))
    return tuple(found)


def turns(value: Any, key: str) -> tuple[Message, ...]:
    """A conversation of anybody: {"role", "content"} or {"from", "value"}, content a text or a list of parts.

    A single message is a conversation of one; {"role": [...], "content": [...]} is how the `datasets` library
    may give a list of messages. Raises Malformed for another shape, Unusable for what we have no place for.
    """
    if isinstance(value, dict):
        value = _side_by_side(value) if isinstance(value.get("role"), list) else [value]
    if not isinstance(value, list):
        raise Malformed(f"{key!r} must be a list of messages.")
    return tuple(_turn(item, key) for item in value)


def _side_by_side(columns: dict[str, Any]) -> list[dict[str, Any]]:
    roles, contents = columns["role"], columns.get("content")
    if not isinstance(contents, list) or len(contents) != len(roles):
        raise Malformed("The roles and contents of a conversation must be two lists of one length.")
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def _turn(item: Any, key: str) -> Message:
    if not isinstance(item, dict):
        raise Malformed(f"{key!r} must hold messages.")
    role = item.get("role", item.get("from"))
    if not isinstance(role, str):
        raise Malformed(f"A message in {key!r} has no role.")
    if role not in _ROLE_NAMES:
        raise Unusable(ROLE)
    return Message(_ROLE_NAMES[role], _content(item.get("content", item.get("value")), key))


def _content(value: Any, key: str) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Malformed(f"A message in {key!r} has a content that is not a text.")
    return "".join(_part(part, key) for part in value)


def _part(part: Any, key: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Malformed(f"A message in {key!r} has a part that is not an object.")
    if part.get("type", "text") != "text":
        raise Unusable(NOT_TEXT)
    words = part.get("text", part.get("value"))
    if not isinstance(words, str):
        raise Malformed(f"A message in {key!r} has a part without a text.")
    return words
