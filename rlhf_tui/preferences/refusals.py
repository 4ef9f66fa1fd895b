"""Recognising answers that decline: labels that keep preferring them teach a model to refuse everything."""

from __future__ import annotations

import re

from rlhf_tui.preferences.store import Store

#: How many characters from the beginning of an answer are looked at.
OPENING = 120

_CANNOT = r"(?:can['’]t|can\s?not|won['’]t|will\snot|could\snot|couldn['’]t)"
_UNABLE = r"(?:\sam|['’]m)\s(?:unable|not\s(?:able|allowed|permitted|comfortable|equipped|going))\b"
_DOING = (
    r"(?:assist|help(?!\s(?:but|it))|provide|answer|tell\syou|do\sthat|comply|fulfil|support|engage|give|offer|"
    r"write|create|generate|discuss|share|recommend|participate|in\sgood\sconscience)"
)
_REFUSAL = re.compile(
    "|".join(
        [
            rf"\bi\s{_CANNOT}\s{_DOING}",
            rf"\bi{_UNABLE}",
            rf"\b(?:sorry|afraid|apologies|apologi[sz]e),?\s(?:but\s|that\s)?i(?:\s{_CANNOT}|{_UNABLE})",
            r"\b(?:sorry|apologies|apologi[sz]e)\b[^.!?\n]{0,40}\sbut\b",
            r"\bi\s(?:must|have\sto|need\sto)\s(?:politely\s|respectfully\s)?(?:decline|refuse)\b",
            rf"\bas\san?\s(?:ai|artificial|large|language)\b[^.!?\n]*(?:{_CANNOT}|unable|not\s(?:able|capable))",
        ]
    )
)
#: Every refusal holds one of these: looking for them first is quicker.
_HINTS = ("n't", "n’t", "not", "unable", "sorry", "apolog", "decline", "refuse")


def reads_as_refusal(text: str) -> bool:
    """Whether an answer opens by declining, going by the usual English phrases; other languages are not seen."""
    opening = text[:OPENING].lower()
    return any(hint in opening for hint in _HINTS) and _REFUSAL.search(opening) is not None


def refusals(store: Store) -> frozenset[int]:
    """The ids of the judged completions that read as refusals."""
    rows = store.database.rows(
        "SELECT id, substr(text, 1, ?) FROM completion WHERE id IN(SELECT completion_id FROM judgement_item)", OPENING
    )
    return frozenset(completion for completion, opening in rows if reads_as_refusal(opening))
