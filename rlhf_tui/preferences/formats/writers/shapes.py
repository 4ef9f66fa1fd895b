"""What the writers share: the shapes a prompt can have, and the refusal of what a format cannot hold.

Nothing is ever bent to fit: a text is written as it is, or its row is left out with a reason that is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_tui.preferences.formats.conventions import TEMPLATES, TRANSCRIPT
from rlhf_tui.preferences.records import Message, Prompt

Row = dict[str, Any]

SEVERAL_TURNS = "prompts of several turns"
SYSTEM = "prompts with a system message"
EMPTY_SYSTEM = "prompts with an empty system message"
UNEVEN = "prompts whose turns do not alternate"
AMBIGUOUS = "prompts that begin like a transcript or a chat template"


class Unfit(Exception):
    """A format cannot hold this; the text is the reason that is counted."""


def conversation(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as most trainers read them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def answer(text: str) -> dict[str, str]:
    """An answer as a message."""
    return {"role": "assistant", "content": text}


def plain(prompt: Prompt) -> str:
    """The text of a prompt that is one user message and nothing else. Raises Unfit."""
    system, text = single(prompt)
    if system:
        raise Unfit(SYSTEM)
    return text


def unmistakable(text: str) -> str:
    """The text of a prompt, where a string may as well be a whole conversation. Raises Unfit when it looks like one."""
    if looks_like_more(text):
        raise Unfit(AMBIGUOUS)
    return text


def looks_like_more(text: str) -> bool:
    """Whether readers that accept whole conversations as strings would take this text for one."""
    return text.lstrip().startswith((TRANSCRIPT, *TEMPLATES))


def single(prompt: Prompt) -> tuple[str, str]:
    """The system message (empty: none) and the one user message of a prompt. Raises Unfit."""
    system, turns = alternating(prompt)
    if len(turns) > 1:
        raise Unfit(SEVERAL_TURNS)
    return system, turns[0].content


def alternating(prompt: Prompt) -> tuple[str, tuple[Message, ...]]:
    """The system message (empty: none) and the turns of a prompt: user, assistant, …, user. Raises Unfit."""
    first, *rest = prompt.messages
    system, turns = ("", prompt.messages) if first.role != "system" else (first.content, tuple(rest))
    if first.role == "system" and not system.strip():
        raise Unfit(EMPTY_SYSTEM)
    if any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(turns)):
        raise Unfit(UNEVEN)
    return system, turns
