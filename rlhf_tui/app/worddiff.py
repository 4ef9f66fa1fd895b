"""Which words of two texts are not in the other, for the eye: a marker's view, not a patch.

The longest common runs are found by difflib on whole words. Its time grows with the pairs of equal words,
so where there are more than `EXACT` of them the comparison falls back to counting: a word is marked when the
other text has fewer of it. That ignores the order, but takes milliseconds for any length.
"""

from __future__ import annotations

import re
from collections import Counter
from difflib import SequenceMatcher

from rlhf_tui.app.wrapping import Span

#: Pairs of equal words up to which the order is compared: two answers of 800 words, some tens of milliseconds.
EXACT = 60_000

_WORD = re.compile(r"\w+|[^\w\s]")


def only_here(text: str, other: str) -> list[Span]:
    """The spans of `text` whose words `other` does not have, in order; words side by side are one span.

    A word is a run of letters and digits, or one other sign; case counts, white space does not.
    """
    places = [found.span() for found in _WORD.finditer(text)]
    words = [text[start:end] for start, end in places]
    others = _WORD.findall(other)
    counts = Counter(others)
    equal = sum(times * counts[word] for word, times in Counter(words).items())
    kept = _in_order(words, others) if equal <= EXACT else _by_count(words, counts)
    return _joined(text, [place for place, common in zip(places, kept, strict=True) if not common])


def _in_order(words: list[str], others: list[str]) -> list[bool]:
    """For each word whether it lies in a common run. `autojunk` would drop frequent words of long texts."""
    kept = [False] * len(words)
    for block in SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks():
        kept[block.a : block.a + block.size] = [True] * block.size
    return kept


def _by_count(words: list[str], counts: Counter[str]) -> list[bool]:
    left = counts.copy()
    kept = []
    for word in words:
        kept.append(left[word] > 0)
        left[word] -= 1
    return kept


def _joined(text: str, places: list[Span]) -> list[Span]:
    """Spans with nothing but blanks between them as one, so that the marking does not flicker."""
    joined: list[Span] = []
    for start, end in places:
        if joined and not text[joined[-1][1] : start].strip(" "):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
