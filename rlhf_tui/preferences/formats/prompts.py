"""Reading prompts: a text file with one a line, or JSON lines in the shapes people publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats.lines import Malformed, broken, choice, messages, parse, read_lines, text, texts
from rlhf_tui.preferences.records import SPLITS, Message, NewPrompt

FORMATS = ("txt", "jsonl")
_SINGLE = ("prompt", "text", "question")


def read_prompts(path: Path, *, format: str | None = None) -> list[NewPrompt]:
    """The prompts of a file; `format` is 'txt' or 'jsonl', taken from the file's name when None.

    A JSON line is a string, or an object with one of: `messages` (or `prompt` as messages),
    `prompt`, `text`, `question`, `instruction` (+ `input`), `turns` (the first one); and maybe
    `split` ('train' or 'heldout'), `tags` (list) and `kind` (one more tag).
    Raises UsageError for an empty or broken file, naming the line.
    """
    chosen = format or path.suffix.removeprefix(".").replace("ndjson", "jsonl")
    if chosen not in FORMATS:
        raise UsageError(
            f"{path} is not a known kind of prompt file.",
            why=f"The format {chosen!r} is unknown. {nearest(chosen, FORMATS)}".strip(),
            todo="Known are .txt (one prompt a line) and .jsonl (one JSON object a line).",
        )
    lines = read_lines(path)
    if chosen == "txt":
        return [NewPrompt((Message("user", line),), path.name) for _, line in lines]
    found = []
    for number, line in lines:
        value = parse(path, number, line)
        try:
            found.append(as_prompt(value, source=path.name))
        except Malformed as error:
            raise broken(path, number, str(error)) from None
    return found


def as_prompt(value: Any, *, source: str) -> NewPrompt:
    """One JSON value as a prompt. Raises Malformed."""
    row = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(row, dict):
        raise Malformed("A line must be an object or a text.")
    turns = _messages(row)
    if not turns or turns[-1].role != "user" or not turns[-1].content.strip():
        raise Malformed("The prompt must end with a user's text that is not empty.")
    kind = (text(row, "kind"),) if row.get("kind") is not None else ()
    tags = tuple(dict.fromkeys((*texts(row, "tags"), *kind)))
    return NewPrompt(turns, source, choice(row, "split", SPLITS), tags)


def _messages(row: dict[str, Any]) -> tuple[Message, ...]:
    for key in ("messages", "prompt"):
        if isinstance(row.get(key), list):
            return messages(row[key], key)
    if row.get("messages") is not None:
        raise Malformed("'messages' must be a list of messages.")
    for key in _SINGLE:
        if row.get(key) is not None:
            return (Message("user", text(row, key)),)
    if row.get("instruction") is not None:
        added = _instruction_input(row)
        instruction = text(row, "instruction")
        return (Message("user", f"{instruction}\n{added}" if added.strip() else instruction),)
    if row.get("turns") is not None:
        turns = texts(row, "turns")
        return tuple(Message("user", turn) for turn in turns[:1])  # later turns need an answer in between
    raise Malformed(
        f"It has none of the fields messages, prompt, text, question, instruction, turns; it has {', '.join(row)}."
    )


def _instruction_input(row: dict[str, Any]) -> str:
    """What the instruction is about: `input`, or that of the first of self-instruct's `instances`."""
    instances = row.get("instances")
    if "input" not in row and isinstance(instances, list) and instances and isinstance(instances[0], dict):
        return text(instances[0], "input", "")
    return text(row, "input", "")
