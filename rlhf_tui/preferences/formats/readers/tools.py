"""What labelling tools write: Label Studio's JSON export and Potato's pairwise answers beside their items.

Both let people name their fields as they like: where the usual names do not fit, a mapping
{"prompt": …, "a": …, "b": …} (and for Potato "winner": the name of the scheme) says which is which.
"""

from __future__ import annotations

from typing import Any

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats.fields import (
    SKIPPED,
    UNDECIDED,
    Malformed,
    Unusable,
    is_missing,
    number,
    objects,
    words,
)
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Dropped,
    Found,
    ask,
    better,
    candidate,
    conversation,
    handle,
)
from rlhf_tui.preferences.records import ImportedCandidate, NewPrompt

#: The usual names of the two sides; `{}` stands for 1 and 2 or for a and b.
SIDES = ("answer{}", "answer_{}", "response{}", "response_{}", "output{}", "output_{}", "text{}", "text_{}",
         "completion{}", "completion_{}", "option{}", "option_{}", "candidate{}", "candidate_{}", "{}")  # fmt: skip
_NUMBERED = (("1", "2"), ("a", "b"), ("A", "B"), ("left", "right"))
_PROMPTS = ("prompt", "question", "instruction", "query", "input", "context", "messages")
_ITEMS = ("responses", "items", "completions", "outputs", "answers", "text")
_ANSWERS = ("labels", "annotations", "label_annotations")
_SIGNS = {"left": 0, "right": 1, "A": 0, "B": 1}


def usual_sides(names: Any) -> tuple[str, str] | None:
    """The names of the two sides among the fields of a row, or None."""
    for pattern in SIDES:
        for one, other in _NUMBERED:
            pair = pattern.format(one), pattern.format(other)
            if pair[0] in names and pair[1] in names:
                return pair
    return None


# Label Studio


def read_task(row: dict[str, Any], context: Context) -> list[Found]:
    """One judgement for each annotation of a task; cancelled ones were skipped by the rater."""
    data = row.get("data")
    if not isinstance(data, dict):
        raise Malformed("'data' must be an object with the texts.")
    prompt, candidates = _task(data, context)
    annotations = objects(row, "annotations")
    if not annotations:
        raise Unusable(UNDECIDED)
    return [_annotation(annotation, prompt, candidates) for annotation in annotations]


def _task(data: dict[str, Any], context: Context) -> tuple[NewPrompt, list[ImportedCandidate]]:
    mapped = context.mapping.get("a"), context.mapping.get("b")
    sides = (mapped[0], mapped[1]) if mapped[0] and mapped[1] else usual_sides(data)
    prompt = context.mapping.get("prompt") or next((key for key in _PROMPTS if not is_missing(data.get(key))), None)
    if sides is None or prompt is None or not {*sides, prompt} <= set(data):
        raise unclear(data, ("prompt", "a", "b"))
    candidates = [candidate(words(data, key), data.get(f"model_{side}")) for key, side in zip(sides, "ab", strict=True)]
    return ask(conversation(data[prompt], prompt), context), candidates


def unclear(row: Any, wanted: tuple[str, ...]) -> UsageError:
    """The error when the fields of a row have no usual names."""
    example = ",".join(f"{name}=THEIRS" for name in wanted)
    return UsageError(
        "It is not clear which fields are which.",
        why=f"The fields are {', '.join(map(str, row))}; needed are {', '.join(wanted)}.",
        todo=f"Give a mapping, as {example}. Nothing was imported.",
    )


def _annotation(annotation: dict[str, Any], prompt: NewPrompt, candidates: list[ImportedCandidate]) -> Found:
    if annotation.get("was_cancelled"):
        return Dropped(SKIPPED)
    chosen = [
        value.get("selected")
        for result in objects(annotation, "result")
        if result.get("type") == "pairwise" and isinstance(value := result.get("value"), dict)
    ]
    if not chosen or chosen[-1] is None:
        return Dropped(UNDECIDED)
    if chosen[-1] not in ("left", "right"):
        raise Malformed(f"'selected' is {chosen[-1]!r}; it must be 'left' or 'right'.")
    seconds = number(annotation.get("lead_time"), "lead_time")
    latency = None if seconds is None or seconds < 0 else round(seconds * 1000)
    rater = _completed_by(annotation.get("completed_by"))
    return better(prompt, candidates, _SIGNS[chosen[-1]], rater=rater, layout="file", latency_ms=latency)


def _completed_by(value: Any) -> str | None:
    """A number, or an object that also holds the person's e-mail address, which is left where it is."""
    name = handle(value.get("id") if isinstance(value, dict) else value)
    return f"label-studio {name}" if name else None


# Potato


def read_item(row: dict[str, Any], context: Context) -> list[Found]:
    """An item with its two texts and the answer: `selection` A, B or tie, or a `scale_value` below 0 for A."""
    sides = _items(row, context)
    key = context.mapping.get("prompt") or next((key for key in _PROMPTS if not is_missing(row.get(key))), None)
    prompt = ask(None if key is None else conversation(row.get(key), key), context)
    place, strength = _said(_answer(row, context))
    rater = handle(row.get("user_id", row.get("annotator", row.get("user"))))
    return [better(prompt, [ImportedCandidate(side) for side in sides], place, strength=strength, rater=rater)]


def _items(row: dict[str, Any], context: Context) -> list[str]:
    if {"a", "b"} <= set(context.mapping):
        return [words(row, context.mapping[side]) for side in "ab"]
    for key in _ITEMS:
        value = row.get(key)
        if isinstance(value, list) and len(value) == 2 and all(isinstance(side, str) for side in value):
            return value
    raise UsageError(
        "The texts of the two items are not in the file.",
        why="Potato keeps them in its data file, and the answers by id.",
        todo="Join the two by id, so that every line holds 'responses' (a list of two texts). Nothing was imported.",
    )


def _answer(row: dict[str, Any], context: Context) -> dict[str, Any]:
    found = schemes(row)
    wanted = context.mapping.get("winner")
    named = [wanted] if wanted else [name for name in found if "preference" in name] or list(found)
    if len(named) > 1:
        raise UsageError(
            "The file holds several answers to one item.",
            why=f"They are {', '.join(found)}.",
            todo=f"Name one: a mapping winner={named[0]}. Nothing was imported.",
        )
    if not named or named[0] not in found:
        raise Unusable(UNDECIDED)
    return found[named[0]]


def schemes(row: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pairwise answers of an item by the name of their scheme, at the top or under `labels` and its like."""
    places = [row, *(row[key] for key in _ANSWERS if isinstance(row.get(key), dict))]
    return {
        str(name): value
        for place in places
        for name, value in place.items()
        if isinstance(value, dict) and ({"selection", "scale_value"} & set(value))
    }


def _said(answer: dict[str, Any]) -> tuple[int | None, int]:
    """The better place (None: tied) and the strength. Two steps of the scale or more are 'much better'."""
    if "selection" in answer:
        if answer["selection"] not in ("A", "B", "tie"):
            raise Malformed(f"'selection' is {answer['selection']!r}; it must be A, B or tie.")
        return _SIGNS.get(answer["selection"]), 1
    value = number(answer.get("scale_value"), "scale_value")
    if value is None:
        raise Unusable(UNDECIDED)
    return (None if value == 0 else int(value > 0)), 2 if abs(value) >= 2 else 1


def check_scale(rows: list[dict[str, Any]], context: Context) -> None:
    """Raises UsageError when the scale does not lie around 0: then nothing says where A ends and B begins."""
    values = [
        number(one["scale_value"], "scale_value")
        for row in rows
        for one in schemes(row).values()
        if "scale_value" in one
    ]
    known = [value for value in values if value is not None]
    if len(known) >= 5 and min(known) > 0:
        raise UsageError(
            "The middle of the scale is not known.",
            why=f"All values are above 0 ({min(known):g} to {max(known):g}); below 0 means A, above 0 means B.",
            todo="Subtract the middle of the scale from every 'scale_value'. Nothing was imported.",
        )
