"""From the conversations and texts of a row to a judgement of ours.

A prompt is never guessed: it is what the row says, or the longest common beginning of two conversations,
and when that does not leave exactly one answer of the assistant on each side the row is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_tui.preferences.formats.conventions import MARKS, TEMPLATES, TRANSCRIPT
from rlhf_tui.preferences.formats.fields import (
    DIFFERENT,
    NO_ANSWER,
    NO_PROMPT,
    NOT_TEXT,
    Malformed,
    Unusable,
    is_missing,
    split,
    text,
    turns,
)
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Message, NewPrompt, Verdict, prefer, tied

Turns = tuple[Message, ...]

TEMPLATED = "a prompt inside a chat template"
OTHER_SPLIT = "prompts in a split of another name than train, test and their like: the project decides"
_MARK = re.compile(f"({'|'.join(MARKS.values())})")
_SPEAKERS = {mark: role for role, mark in MARKS.items()}
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")


@dataclass(frozen=True)
class Context:
    """What a reader knows besides the row: where prompts come from, and which field of theirs is which of ours.

    `notes`: what it could not take as it stands in rows that are kept, counted by what became of it.
    """

    origin: str
    mapping: Mapping[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Dropped:
    """One judgement of a row that cannot be kept, and why."""

    reason: str


Found = ImportedLabel | Dropped


# Conversations


def said(words: str) -> Turns:
    """One user message."""
    return (Message("user", words),)


def is_transcript(value: Any) -> bool:
    """Whether a text is a conversation as hh-rlhf writes it."""
    return isinstance(value, str) and value.lstrip().startswith(TRANSCRIPT)


def transcript(value: str) -> Turns:
    """The turns of a conversation as hh-rlhf writes it. Raises Unusable when it does not begin with one."""
    before, *rest = _MARK.split("\n\n" + value.lstrip())
    if before or not rest:
        raise Unusable(NO_PROMPT)
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return tuple(Message(_SPEAKERS[speaker], words.removeprefix(" ")) for speaker, words in pairs)


def conversation(value: Any, key: str) -> Turns:
    """A prompt: messages, a transcript (open for the answer), or the words of the user."""
    if not isinstance(value, str):
        return turns(value, key)
    if value.lstrip().startswith(TEMPLATES):
        raise Unusable(TEMPLATED)
    if not is_transcript(value):
        return said(value)
    found = transcript(value)
    return found[:-1] if found[-1].role == "assistant" and not found[-1].content.strip() else found


def prompt_of(row: Mapping[str, Any], keys: Iterable[str]) -> Turns | None:
    """The prompt under the first of `keys` that the row has, with its system message and earlier turns."""
    if any(row.get(key) for key in _MEDIA):
        raise Unusable(NOT_TEXT)
    for key in keys:
        if not is_missing(row.get(key)):
            found = instruction(row) if key == "instruction" else conversation(row[key], key)
            return with_system(row, earlier(row) + found)
    return None


def instruction(row: Mapping[str, Any]) -> Turns:
    """Alpaca's `instruction` and `input`, joined by a line break as LLaMA-Factory does."""
    words, about = text(row, "instruction"), text(row, "input", "")
    return said("\n".join(part for part in (words, about) if part))


def earlier(row: Mapping[str, Any]) -> Turns:
    """Alpaca's `history`: a list of [user, assistant]."""
    found: list[Message] = []
    history = row.get("history")
    if not history or is_missing(history):
        return ()
    for exchange in history if isinstance(history, list) else [history]:
        if not isinstance(exchange, list | tuple) or [type(part) for part in exchange] != [str, str]:
            raise Malformed("'history' must be a list of pairs of texts.")
        found += [Message("user", exchange[0]), Message("assistant", exchange[1])]
    return tuple(found)


def with_system(row: Mapping[str, Any], found: Turns) -> Turns:
    """The conversation behind the row's `system` message, unless it has one."""
    system = text(row, "system", text(row, "system_prompt", ""))
    if not system.strip() or (found and found[0].role == "system"):
        return found
    return (Message("system", system), *found)


def common_prompt(one: Turns, other: Turns) -> Turns:
    """The longest common beginning; the last turn is the answer, even when both sides give the same one."""
    length = 0
    while length < min(len(one), len(other)) - 1 and one[length] == other[length]:
        length += 1
    return one[:length]


def answer_after(prompt: Turns, found: Turns) -> str:
    """The one answer of a side, which may or may not repeat the prompt in front. Raises Unusable."""
    bare = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    for front in (prompt, bare):
        if front and found[: len(front)] == front:
            found = found[len(front) :]
            break
    if not found:
        raise Unusable(NO_ANSWER)
    if len(found) > 1:
        raise Unusable(DIFFERENT)
    if found[0].role != "assistant":
        raise Unusable(NO_ANSWER)
    return found[0].content


def answered(found: Turns) -> tuple[Turns, str]:
    """A conversation that ends with an answer, as prompt and answer. Raises Unusable."""
    if not found or found[-1].role != "assistant":
        raise Unusable(NO_ANSWER)
    return found[:-1], found[-1].content


# Judgements


def ask(found: Turns | None, context: Context, row: Mapping[str, Any]) -> NewPrompt:
    """The prompt to add, in the split that the row names. Raises Unusable unless it ends with words of the user."""
    if not found or found[-1].role != "user" or not found[-1].content.strip():
        raise Unusable(NO_PROMPT)
    named = row.get("split")
    known = split(named)
    if known is None and not is_missing(named) and named != "":
        context.notes[OTHER_SPLIT] += 1
    return NewPrompt(found, context.origin, known)


def better(
    prompt: NewPrompt, candidates: Sequence[ImportedCandidate], place: int | None, *, strength: int = 1, **known: Any
) -> ImportedLabel:
    """The judgement that of two candidates the one at `place` is better; None: they are tied."""
    verdict = tied() if place is None else prefer(place, strength)
    return ImportedLabel(prompt, tuple(candidates), "pair", verdict, **{"layout": "unordered"} | known)


def ranked(
    prompt: NewPrompt, candidates: Sequence[ImportedCandidate], ranks: Sequence[float], **known: Any
) -> ImportedLabel:
    """The judgement that orders candidates by any numbers, the least is best and equal ones are tied."""
    verdict = order(ranks)
    return ImportedLabel(prompt, tuple(candidates), "rank", verdict, **{"layout": "unordered"} | known)


def order(ranks: Sequence[float]) -> Verdict:
    """The verdict of any ranks, the least is best."""
    levels = sorted(set(ranks))
    places = tuple(levels.index(rank) + 1 for rank in ranks)
    return tied(len(ranks)) if len(levels) == 1 else Verdict("ordered", ranks=places)


def rated(prompt: NewPrompt, candidate: ImportedCandidate, rating: int, **known: Any) -> ImportedLabel:
    """The judgement that gives one candidate a mark from 1 to 5."""
    verdict = Verdict("rated", ratings=(rating,))
    return ImportedLabel(prompt, (candidate,), "rate", verdict, **{"layout": "unordered"} | known)


def accepted(prompt: NewPrompt, candidate: ImportedCandidate, good: bool, **known: Any) -> ImportedLabel:
    """The judgement that accepts or rejects one candidate."""
    verdict = Verdict("accepted", accepted=(good,))
    return ImportedLabel(prompt, (candidate,), "accept", verdict, **{"layout": "unordered"} | known)


def candidate(words: str, model: Any = None) -> ImportedCandidate:
    """A candidate by a model that may be named."""
    return ImportedCandidate(words, model=model) if isinstance(model, str) and model else ImportedCandidate(words)


def handle(value: Any) -> str | None:
    """The name of a rater in a file, or None: a text, a number, or a list of either."""
    parts = value if isinstance(value, list) else [value]
    words = [str(part).strip() for part in parts if isinstance(part, str | int) and not isinstance(part, bool)]
    return "/".join(word for word in words if word) or None
