"""Tables of anybody, by a mapping {ours: theirs} of their columns, or by the names columns usually have.

Ours are prompt, chosen, rejected; or prompt, a, b, winner; or prompt, completion, label (true or false); or
prompt, completion, rating (1 to 5). Beside them may be system, rater, note, strength (1 or 2), split,
model_a and model_b (chosen and rejected), model, input (what an instruction is about), messages (the prompt as
JSON, where it is more than one message) and, with chosen and rejected, tie (true: equally good).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats.conventions import BOTH_BAD_WORDS
from rlhf_tui.preferences.formats.fields import UNDECIDED, Malformed, Unusable, is_missing, number, text, turns, words
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Found,
    Turns,
    accepted,
    answer_after,
    ask,
    better,
    candidate,
    conversation,
    handle,
    is_transcript,
    rated,
    said,
    with_system,
)
from rlhf_tui.preferences.formats.readers.groups import NO_MARK
from rlhf_tui.preferences.formats.readers.tools import unclear, usual_sides
from rlhf_tui.preferences.formats.readers.unpaired import yes_or_no
from rlhf_tui.preferences.records import ImportedLabel, NewPrompt, Verdict

#: What a row needs, in the order in which names are guessed.
SHAPES = (
    ("prompt", "chosen", "rejected"),
    ("prompt", "a", "b", "winner"),
    ("prompt", "completion", "rating"),
    ("prompt", "completion", "label"),
)
_ALWAYS = ("input", "messages", "system", "rater", "note", "split")
_OF_TWO = ("strength", "model_a", "model_b")
#: What is read beside each shape; nothing else is.
BESIDE: dict[tuple[str, ...], tuple[str, ...]] = {
    SHAPES[0]: (*_ALWAYS, *_OF_TWO, "tie"),
    SHAPES[1]: (*_ALWAYS, *_OF_TWO),
    SHAPES[2]: (*_ALWAYS, "model"),
    SHAPES[3]: (*_ALWAYS, "model"),
}
OURS = tuple(dict.fromkeys(name for names in (*SHAPES, *BESIDE.values()) for name in names))
_USUAL = {
    "prompt": ("prompt", "question", "instruction", "query", "context", "input", "messages"),
    "chosen": ("chosen", "preferred", "chosen_response", "better", "good", "accepted"),
    "rejected": ("rejected", "dispreferred", "rejected_response", "worse", "bad"),
    "winner": ("winner", "preference", "choice", "vote", "label", "better"),
    "completion": ("completion", "response", "answer", "output", "text"),
    "rating": ("rating", "score", "stars"),
    "label": ("label", "kto_tag", "thumb", "accepted", "acceptable"),
    "rater": ("rater", "annotator", "judge", "worker", "labeller", "labeler", "user"),
    "note": ("note", "comment"),
    "system": ("system", "system_prompt"),
    "model": ("model",),
    "strength": ("strength",),
    "split": ("split",),
    "messages": ("messages",),
    "tie": ("tie",),
}
_MODELS = (("model_a", "model_b"), ("model_1", "model_2"), ("chosen_model", "rejected_model"))
_WINNERS: dict[str, int | None] = {
    "a": 0, "model_a": 0, "left": 0, "first": 0, "1": 0,
    "b": 1, "model_b": 1, "right": 1, "second": 1, "2": 1,
    "tie": None, "tied": None, "draw": None, "equal": None, "same": None, "0": None, "1.5": None,
}  # fmt: skip


# The mapping


def guess(columns: Collection[str]) -> dict[str, str] | None:
    """The mapping by usual names (of any case), or None when the columns fit no shape."""
    known = {column.strip().lower().replace(" ", "_"): column for column in columns}
    prompt = _usual(known, "prompt")
    sides = usual_sides(known)
    for shape in SHAPES:
        found = {name: _usual(known, name) for name in shape if name not in "ab"}
        if "a" in shape and sides is not None:
            found |= {side: known[name] for side, name in zip("ab", sides, strict=True)}
        mapping = {name: column for name, column in found.items() if column is not None}
        if prompt is not None and len(set(mapping.values())) == len(shape):
            return _beside(shape, mapping, known)
    return None


def _usual(known: Mapping[str, str], name: str) -> str | None:
    return next((known[column] for column in _USUAL[name] if column in known), None)


def _beside(shape: tuple[str, ...], mapping: dict[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """The mapping with what else is there and read beside that shape."""
    found = {name: _usual(known, name) for name in BESIDE[shape] if name in _USUAL}
    if mapping["prompt"].lower() == "instruction":
        found["input"] = known.get("input")
    models = next(((known[one], known[two]) for one, two in _MODELS if one in known and two in known), (None, None))
    found |= dict(zip(("model_a", "model_b"), models, strict=True))
    taken = set(mapping.values())
    return mapping | {
        name: column
        for name, column in found.items()
        if name in BESIDE[shape] and column is not None and column not in taken
    }


def check_mapping(mapping: Mapping[str, str], columns: Collection[str]) -> None:
    """Raises UsageError for a mapping that fits no shape or names what is not there."""
    for name in mapping:
        if name not in OURS:
            raise UsageError(
                f"{name!r} is no field of ours.",
                why=nearest(name, OURS),
                todo=f"Ours are {', '.join(OURS)}. Nothing was imported.",
            )
    for column in mapping.values():
        if column not in columns:
            why = f"There are {', '.join(columns)}. {nearest(column, columns)}".strip()
            todo = "Map to a column that is there. Nothing was imported."
            raise UsageError(f"There is no column {column!r}.", why=why, todo=todo)
    shape = shape_of(mapping)
    if shape is None:
        needed = "; or ".join(", ".join(shape) for shape in SHAPES)
        todo = "Add what is missing, each as OURS=THEIRS. Nothing was imported."
        raise UsageError("The mapping is not complete.", why=f"It needs {needed}.", todo=todo)
    for name in mapping:
        if name not in shape + BESIDE[shape]:
            raise UsageError(
                f"{name!r} is not read beside {', '.join(shape)}.",
                why=f"Read beside them are {', '.join(BESIDE[shape])}.",
                todo=f"Leave {name}={mapping[name]} away. Nothing was imported.",
            )


def shape_of(mapping: Mapping[str, str]) -> tuple[str, ...] | None:
    """The first shape all of whose fields are mapped, or None."""
    return next((shape for shape in SHAPES if set(shape) <= set(mapping)), None)


def check_winners(rows: list[dict[str, Any]], context: Context) -> None:
    """Raises UsageError for a column of winners that holds 0 and 1 only: either could be the first."""
    if "winner" not in context.mapping or "chosen" in context.mapping:
        return
    values = {_word(row.get(context.mapping["winner"])) for row in rows} - {""}
    if values == {"0", "1"}:
        raise UsageError(
            "It is not clear who won.",
            why=f"The column {context.mapping['winner']!r} holds 0 and 1 only; here 1 is a, 2 is b and 0 is a tie.",
            todo="Write a, b and tie instead. Nothing was imported.",
        )


# The rows


def read(row: dict[str, Any], context: Context) -> list[Found]:
    """One row by the mapping. Raises Malformed or Unusable."""
    mapping = context.mapping
    cells = {name: row.get(column) for name, column in mapping.items()}
    shape = shape_of(mapping)
    if shape is None:
        raise unclear(row, SHAPES[0])
    prompt = ask(_prompt(cells), context, cells)
    known = {"rater": handle(cells.get("rater")), "note": text(cells, "note", "")}
    if "completion" not in shape:
        return [_compared(cells, mapping, prompt, known)]
    one = candidate(words(cells, "completion"), cells.get("model"))
    if "label" in shape:
        if _word(cells["label"]) == "":
            raise Unusable(UNDECIDED)
        return [accepted(prompt, one, yes_or_no(cells["label"], mapping["label"]), **known)]
    rating = number(cells["rating"], mapping["rating"])
    if rating is None:
        raise Unusable(UNDECIDED)
    if rating not in range(1, 6):
        raise Unusable(NO_MARK)
    return [rated(prompt, one, int(rating), **known)]


def _compared(cells: dict[str, Any], mapping: Mapping[str, str], prompt: NewPrompt, known: dict[str, Any]) -> Found:
    names = ("chosen", "rejected") if "chosen" in cells and "rejected" in cells else ("a", "b")
    models = (cells.get("model_a"), cells.get("model_b"))
    sides = [candidate(_answer(cells[name], prompt), model) for name, model in zip(names, models, strict=True)]
    strength = number(cells.get("strength"), "strength")
    if strength not in (None, 0, 1, 2):
        raise Malformed(f"The strength is {strength:g}; it must be 1 (better) or 2 (much better).")
    strong = 2 if strength == 2 else 1
    if names[0] == "chosen":
        tie = bool(_word(cells.get("tie"))) and yes_or_no(cells["tie"], "tie")
        return better(prompt, sides, None if tie else 0, strength=strong, **known)
    word = _word(cells["winner"])
    if not word:
        raise Unusable(UNDECIDED)
    if word in BOTH_BAD_WORDS:
        return ImportedLabel(prompt, tuple(sides), "pair", Verdict("both_bad"), layout="unordered", **known)
    named = {mapping["a"].lower(): 0, mapping["b"].lower(): 1}
    if word not in named and word not in _WINNERS:
        raise Malformed(f"The winner is {word!r}; known are a, b, tie, both_bad and the names of the two columns.")
    return better(prompt, sides, named.get(word, _WINNERS.get(word)), strength=strong, **known)


def _word(value: Any) -> str:
    """A cell as a lower-case word; 1.0 and '1.0' are '1'."""
    if is_missing(value):
        return ""
    word = str(value).strip().lower()
    return word.removesuffix(".0")


def _prompt(cells: dict[str, Any]) -> Turns | None:
    value = _unpacked(cells["prompt"])
    if is_missing(value) or value == "":
        value = _unpacked(cells.get("messages"))
    if is_missing(value) or value == "":
        return None
    found = conversation(value, "prompt")
    about = text(cells, "input", "")
    if about and isinstance(value, str) and not is_transcript(value):
        found = said(f"{value}\n{about}")
    return with_system({"system": cells.get("system")}, found)


def _answer(value: Any, prompt: NewPrompt) -> str:
    value = _unpacked(value)
    if isinstance(value, list | dict):
        return answer_after(prompt.messages, turns(value, "an answer"))
    return words({"an answer": value}, "an answer")


def _unpacked(value: Any) -> Any:
    """A cell that holds messages as JSON text (a table has no other way) is those messages; any other is itself."""
    if isinstance(value, str) and value.startswith(("[{", "{")) and '"role"' in value:
        try:
            found = json.loads(value)
        except ValueError:
            return value
        if isinstance(found, dict):
            found = [found]
        if all(isinstance(one, dict) and {"role", "content"} <= set(one) for one in found):
            return found
    return value
