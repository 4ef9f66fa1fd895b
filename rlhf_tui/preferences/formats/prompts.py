"""Reading prompts: one a line, or as JSON, a table or a data set of the hub, in the shapes people publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats.fields import Malformed, choice, is_missing, messages, text, texts
from rlhf_tui.preferences.formats.hub import PREFIX
from rlhf_tui.preferences.formats.sources import KINDS, kind_of, open_source
from rlhf_tui.preferences.records import SPLITS, Message, NewPrompt

_SINGLE = ("prompt", "text", "question")


def read_prompts(source: Path | str, *, format: str | None = None) -> list[NewPrompt]:
    """The prompts of a file (maybe gzipped) or of 'hub:OWNER/NAME'; `format` None: by the file's name.

    A data set of the hub has no `format` to name.

    In a text file every line is a prompt. A JSON value is a string, or an object with one of: `messages` (or
    `prompt` as messages), `prompt`, `text`, `question`, `instruction` (+ `input`), `turns` (the first one);
    and maybe `split` ('train' or 'heldout'), `tags` (list) and `kind` (one more tag). A table has the same
    as columns. Raises UsageError for an empty or broken file, naming the line, and for a format that cannot be.
    """
    path = Path(source)
    if str(source).startswith(PREFIX):
        if format is not None:
            raise UsageError(
                f"The format {format!r} cannot be given for {source}.",
                why="What the files of a data set are is known to the hub, and its library reads them.",
                todo="Leave the format away; or download a file of the data set and name that.",
            )
    else:
        chosen = format or kind_of(path) or path.suffix.removeprefix(".")
        if chosen not in KINDS:
            raise UsageError(
                f"{source} is not a known kind of prompt file.",
                why=f"The format {chosen!r} is unknown. {nearest(chosen, KINDS)}".strip(),
                todo="Known are .txt (one prompt a line), .jsonl, .json, .csv, .tsv and .parquet, all also as .gz.",
            )
    found, opened = [], open_source(source, format)
    for row in opened.rows():
        try:
            found.append(_stored(as_prompt(row.value, source=opened.origin)))
        except Malformed as error:
            raise opened.broken(row.number, str(error)) from None
    if not found:
        raise UsageError(f"{opened.name} is empty.", todo="Name a file with at least one line.")
    return found


def _stored(prompt: NewPrompt) -> NewPrompt:
    try:
        "".join(message.content for message in prompt.messages).encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("It holds half a character (a lone surrogate).") from None
    return prompt


def as_prompt(value: Any, *, source: str) -> NewPrompt:
    """One value as a prompt. Raises Malformed."""
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
        if not is_missing(row.get(key)):
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
