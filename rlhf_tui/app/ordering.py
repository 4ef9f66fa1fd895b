"""A ranking typed as an order: '2143' says that candidate 2 is best, then 1, 4 and 3; '2=143' ties 2 and 1.

Spaces, commas and '>' between candidates are read over, so that '2=1 > 4 > 3' means the same. The
labelling screen shows what a text means while it is being typed; line mode reads whole lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_tui.preferences.records import Verdict, tied

_BETWEEN = " \t,>"
_DIGITS = "0123456789"


def names(kind: str, k: int) -> tuple[str, ...]:
    """What the candidates are called: A and B of a pair, otherwise 1, 2, 3, …"""
    return ("A", "B") if kind == "pair" else tuple(str(number) for number in range(1, k + 1))


@dataclass(frozen=True)
class Typed:
    """What a text means so far: candidates (numbers from 1) from best to worst, equal ones in one group.

    `missing`: candidates not named yet, in their order on screen. `joined`: the text ends in '=', so the
    next candidate will be as good as the last group. `wrong`: what cannot stand in an order, in words, or
    ''; the groups are then those before it.
    """

    groups: tuple[tuple[int, ...], ...]
    missing: tuple[int, ...]
    joined: bool = False
    wrong: str = ""

    @property
    def complete(self) -> bool:
        """Whether it is an order of all candidates."""
        return not (self.missing or self.joined or self.wrong)

    @property
    def text(self) -> str:
        """The order as a person writes it: '2 = 1 > 4 > …'."""
        said = " > ".join(" = ".join(map(str, group)) for group in self.groups)
        if self.complete:
            return said
        if not said:
            return "…"
        return f"{said} = …" if self.joined else f"{said} > …" if self.missing else said


def typed(text: str, k: int) -> Typed:
    """What `text` means so far as an order of `k` candidates; never raises."""
    groups: list[list[int]] = []
    joined, wrong = False, ""
    for sign in text:
        wrong = _problem(sign, groups, joined, k)
        if wrong:
            break
        if sign in _BETWEEN:
            continue
        if sign == "=":
            joined = True
        elif joined:
            groups[-1].append(int(sign))
            joined = False
        else:
            groups.append([int(sign)])
    named = {number for group in groups for number in group}
    missing = tuple(number for number in range(1, k + 1) if number not in named)
    if joined and not missing and not wrong:
        wrong = "Nothing follows the last '='."
    return Typed(tuple(map(tuple, groups)), missing, joined, wrong)


def parse_order(text: str, k: int) -> tuple[int, ...]:
    """The ranks of `k` candidates in their order on screen: 1 is best, equal ranks are tied, none is left out.

    '2143' gives (2, 1, 4, 3), '2=143' gives (1, 1, 3, 2). Raises ValueError, in words for the rater, for a
    text that is not an order of all candidates.
    """
    found = typed(text, k)
    if found.wrong:
        raise ValueError(found.wrong)
    if found.missing:
        raise ValueError(f"Not in the order yet: {', '.join(map(str, found.missing))}.")
    ranks = {number: rank for rank, group in enumerate(found.groups, 1) for number in group}
    return tuple(ranks[number] for number in range(1, k + 1))


def ranking(text: str, k: int) -> Verdict:
    """What a typed order says of `k` candidates: all of them equal is a tie. Raises ValueError like `parse_order`."""
    ranks = parse_order(text, k)
    return Verdict("ordered", ranks=ranks) if len(set(ranks)) > 1 else tied(k)


def _problem(sign: str, groups: list[list[int]], joined: bool, k: int) -> str:
    """Why `sign` cannot come next, or ''."""
    if sign == "=":
        return "'=' stands between two candidates." if joined or not groups else ""
    if sign in _BETWEEN:
        return "'=>' says both equal and better." if sign == ">" and joined else ""
    if sign not in _DIGITS:
        return f"{sign!r} is no candidate: type the numbers 1 to {k}, best first, '=' for equal ones."
    number = int(sign)
    if not 1 <= number <= k:
        return f"There is no candidate {number}: they are 1 to {k}."
    if any(number in group for group in groups):
        return f"Candidate {number} is named twice."
    return ""
