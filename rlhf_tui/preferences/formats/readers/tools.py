"""What labelling tools write: Label Studio's JSON export and Potato's pairwise answers beside their items.

Both let people name their fields as they like: where the usual names do not fit, a mapping
{"prompt": …, "a": …, "b": …, "winner": …} says which is which. The winner is the name of the question that was
asked: Potato's scheme, Label Studio's control (`from_name`); it is needed where an item has several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rlhf_tui.errors import UsageError, nearest
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
    Turns,
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


def check_mapping(mapping: Mapping[str, str], fields: Collection[str], questions: Collection[str]) -> None:
    """Raises UsageError for a mapping of one side alone, or to a field or a question that is not there.

    Where there are no fields or no questions yet, nothing can be said of them.
    """
    for side, other in ("ab", "ba"):
        if side in mapping and other not in mapping:
            raise UsageError(
                f"{side!r} is mapped and {other!r} is not.",
                why="Which field is the other side would be a guess.",
                todo=f"Map both, as {side}={mapping[side]},{other}=THEIRS. Nothing was imported.",
            )
    for ours, theirs in mapping.items():
        known, kind = (questions, "question") if ours == "winner" else (fields, "field")
        if known and theirs not in known:
            raise UsageError(
                f"There is no {kind} {theirs!r} for {ours!r}.",
                why=f"There are {', '.join(known)}. {nearest(theirs, known)}".strip(),
                todo=f"Map {ours!r} to a {kind} that is there. Nothing was imported.",
            )


def _names(rows: Iterable[Iterable[str]]) -> list[str]:
    """The names in several rows, each once, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _several(questions: Collection[str]) -> UsageError:
    """The error for an item with answers to several questions, none of which was named."""
    return UsageError(
        "The file holds several answers to one item.",
        why=f"They are {', '.join(questions)}.",
        todo=f"Name one: a mapping winner={next(iter(questions))}. Nothing was imported.",
    )


# Label Studio


def check_task(rows: list[dict[str, Any]], context: Context) -> None:
    """Raises UsageError for a mapping that does not fit the first tasks."""
    data = [row["data"] for row in rows if isinstance(row.get("data"), dict)]
    annotations = [row["annotations"] for row in rows if isinstance(row.get("annotations"), list)]
    questions = [_selected(one.get("result")) for several in annotations for one in several if isinstance(one, dict)]
    check_mapping(context.mapping, _names(data), _names(questions))


def read_task(row: dict[str, Any], context: Context) -> list[Found]:
    """One judgement for each annotation of a task; cancelled ones were skipped by the rater."""
    data = row.get("data")
    if not isinstance(data, dict):
        raise Malformed("'data' must be an object with the texts.")
    prompt, candidates = _task(data, context)
    annotations = objects(row, "annotations")
    if not annotations:
        raise Unusable(UNDECIDED)
    wanted = context.mapping.get("winner")
    return [_annotation(annotation, prompt, candidates, wanted) for annotation in annotations]


def _task(data: dict[str, Any], context: Context) -> tuple[NewPrompt, list[ImportedCandidate]]:
    mapping = context.mapping
    sides = (mapping["a"], mapping["b"]) if "a" in mapping else usual_sides(data)
    prompt = mapping.get("prompt") or next((key for key in _PROMPTS if not is_missing(data.get(key))), None)
    if sides is None or prompt is None or not {*sides, prompt} <= set(data):
        raise unclear(data, ("prompt", "a", "b"))
    candidates = [candidate(words(data, key), data.get(f"model_{side}")) for key, side in zip(sides, "ab", strict=True)]
    return ask(_asked(data, prompt), context, data), candidates


def _asked(row: Mapping[str, Any], key: str | None) -> Turns | None:
    return None if key is None or is_missing(row.get(key)) else conversation(row[key], key)


def unclear(row: Any, wanted: tuple[str, ...]) -> UsageError:
    """The error when the fields of a row have no usual names."""
    example = ",".join(f"{name}=THEIRS" for name in wanted)
    return UsageError(
        "It is not clear which fields are which.",
        why=f"The fields are {', '.join(map(str, row))}; needed are {', '.join(wanted)}.",
        todo=f"Give a mapping, as {example}. Nothing was imported.",
    )


def _annotation(
    annotation: dict[str, Any], prompt: NewPrompt, candidates: list[ImportedCandidate], wanted: str | None
) -> Found:
    if annotation.get("was_cancelled"):
        return Dropped(SKIPPED)
    found = _selected(objects(annotation, "result"))
    if wanted is None and len(found) > 1:
        raise _several(found)
    chosen = next(iter(found.values()), None) if wanted is None else found.get(wanted)
    if chosen is None:
        return Dropped(UNDECIDED)
    if chosen not in ("left", "right"):
        raise Malformed(f"'selected' is {chosen!r}; it must be 'left' or 'right'.")
    seconds = number(annotation.get("lead_time"), "lead_time")
    latency = None if seconds is None or seconds < 0 else round(seconds * 1000)
    rater = _completed_by(annotation.get("completed_by"))
    return better(prompt, candidates, _SIGNS[chosen], rater=rater, layout="file", latency_ms=latency)


def _selected(results: Any) -> dict[str, Any]:
    """What was selected, by the name of the control it was asked with."""
    return {
        str(result.get("from_name", "")): value.get("selected")
        for result in (results if isinstance(results, list) else ())
        if isinstance(result, dict)
        and result.get("type") == "pairwise"
        and isinstance(value := result.get("value"), dict)
    }


def _completed_by(value: Any) -> str | None:
    """A number, or an object that also holds the person's e-mail address, which is left where it is."""
    name = handle(value.get("id") if isinstance(value, dict) else value)
    return f"label-studio {name}" if name else None


# Potato


def read_item(row: dict[str, Any], context: Context) -> list[Found]:
    """An item with its two texts and the answer: `selection` A, B or tie, or a `scale_value` below 0 for A."""
    sides = _items(row, context)
    key = context.mapping.get("prompt") or next((key for key in _PROMPTS if not is_missing(row.get(key))), None)
    prompt = ask(_asked(row, key), context, row)
    place, strength = _said(_answer(row, context))
    rater = handle(row.get("user_id", row.get("annotator", row.get("user"))))
    return [better(prompt, [ImportedCandidate(side) for side in sides], place, strength=strength, rater=rater)]


def _items(row: dict[str, Any], context: Context) -> list[str]:
    if "a" in context.mapping:
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
        raise _several(named)
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


def check_item(rows: list[dict[str, Any]], context: Context) -> None:
    """Raises UsageError for a mapping that does not fit the first items, and for a scale that does not lie around 0.

    Then nothing says where A ends and B begins.
    """
    check_mapping(context.mapping, _names(rows), _names(map(schemes, rows)))
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
