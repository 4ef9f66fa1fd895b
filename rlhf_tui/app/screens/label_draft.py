"""An answer in the making: the order typed so far, or the marks given so far. Pure; a pair needs no draft."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlhf_tui.app.ordering import Typed, ranking, typed
from rlhf_tui.preferences.records import Verdict

ORDINALS = ("best", "2nd", "3rd", "4th", "5th", "6th")
FULL, EMPTY = "●", "○"


@dataclass(frozen=True)
class Draft:
    """What has been said of `size` candidates so far.

    `order` is the text of a ranking; `marks` hold 1 to 5 for a rating, True or False for accept and
    reject, and None where nothing has been said.
    """

    kind: str
    size: int
    order: str = ""
    marks: tuple[int | None, ...] = ()

    @property
    def typed(self) -> Typed:
        """What the order means so far."""
        return typed(self.order, self.size)

    @property
    def touched(self) -> bool:
        """Whether anything has been said: an untouched draft is not an answer."""
        return bool(self.order) or any(mark is not None for mark in self.marks)


def draft(kind: str, size: int) -> Draft:
    """An empty draft."""
    return Draft(kind, size, marks=(None,) * size if kind in ("rate", "accept") else ())


def with_sign(before: Draft, sign: str) -> Draft:
    """The order with one more sign, a digit or '='. Raises ValueError in words when it cannot come next."""
    after = replace(before, order=before.order + sign)
    if after.typed.wrong:
        raise ValueError(after.typed.wrong)
    return after


def with_mark(before: Draft, place: int, mark: int) -> Draft:
    """The candidate at `place` marked."""
    return replace(before, marks=(*before.marks[:place], mark, *before.marks[place + 1 :]))


def erased(before: Draft, place: int) -> tuple[Draft, int]:
    """One step less, and the place to go back to: the last sign of the order, or the mark at `place` or before it."""
    if not before.marks:
        return replace(before, order=before.order[:-1]), place
    while place > 0 and before.marks[place] is None:
        place -= 1
    return replace(before, marks=(*before.marks[:place], None, *before.marks[place + 1 :])), place


def next_open(now: Draft, place: int) -> int:
    """The next candidate without a mark after `place`, round the end; `place` when all have one."""
    for step in range(1, now.size):
        at = (place + step) % now.size
        if now.marks[at] is None:
            return at
    return place


def verdict(now: Draft) -> Verdict:
    """The answer. Raises ValueError in words while something is missing."""
    if now.kind == "rank":
        return ranking(now.order, now.size)
    missing = [str(place + 1) for place, mark in enumerate(now.marks) if mark is None]
    if missing:
        raise ValueError(f"Nothing said yet of {', '.join(missing)}.")
    marks = [mark for mark in now.marks if mark is not None]
    if now.kind == "rate":
        return Verdict("rated", ratings=tuple(marks))
    return Verdict("accepted", accepted=tuple(map(bool, marks)))


def standing(now: Draft, place: int) -> str:
    """What has been said of one candidate, for its border: 'best', '●●●○○ 3', '✓ accepted'."""
    if now.kind == "rank":
        groups = now.typed.groups
        found = [level for level, group in enumerate(groups) if place + 1 in group]
        if not found:
            return ""
        shared = "=" if len(groups[found[0]]) > 1 else ""
        return f"{shared}{ORDINALS[found[0]]}"
    mark = now.marks[place] if now.marks else None
    if mark is None:
        return ""
    if now.kind == "rate":
        return f"{FULL * mark}{EMPTY * (5 - mark)} {mark}"
    return "✓ accepted" if mark else "✗ rejected"
