"""Which answers decline."""

from __future__ import annotations

import pytest

from rlhf_tui.preferences.refusals import OPENING, reads_as_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot provide this.",
        "Sorry, but that is not something I talk about.",
        "I am unable to answer this question.",
        "I'm not able to give legal advice.",
        "I'm afraid I can't do that, Dave.",
        "As an AI language model, I do not have opinions and cannot take sides.",
        "I must respectfully decline.",
        "Unfortunately I can't help with this.",
        "I won't write that.",
        "I apologize, but I will not share personal data.",
        "I am sorry for the inconvenience, but no.",
    ],
)
def test_it_declines(text: str) -> None:
    assert reads_as_refusal(text)
    assert reads_as_refusal(text.upper())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris.",
        "I'm sorry to hear that. Have you tried a warm bath?",
        "I can't help but smile when I think of it.",
        "You cannot divide by zero, so x must not be 0.",
        "The party's decline began in 1974.",
        "He refused to help me.",
        "I can help you with that: first, whisk the eggs.",
        "x" * OPENING + " I'm sorry, but I can't help with that.",
    ],
)
def test_it_does_not(text: str) -> None:
    assert not reads_as_refusal(text)
