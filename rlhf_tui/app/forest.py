"""Shares with their 95 % intervals on one common scale, a line each: a forest plot in characters. No Textual."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

#: What a guess gets.
COIN = 0.5


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1 and its interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """What the columns stand for: `low` at the first of `width` columns, 1 at the last."""

    low: float
    width: int

    def column(self, share: float) -> int:
        """Where a share lies; the nearest end for one that is off the scale."""
        at = round((share - self.low) / (1.0 - self.low) * (self.width - 1))
        return min(max(at, 0), self.width - 1)


def scale(bars: Iterable[Bar], width: int) -> Scale:
    """A scale that begins at a ten-per-cent step at or below all of the bars and a coin, and ends at 1."""
    lowest = min((bar.low for bar in bars), default=COIN)
    return Scale(max(min(math.floor(lowest * 10 + 1e-9) / 10, COIN - 0.1), 0.0), max(width, 2))


def drawn(bar: Bar, on: Scale) -> str:
    """The interval with its share in it, `├──●──┤`, and the coin's column where it is free."""
    low, share, high = (on.column(value) for value in (bar.low, bar.share, bar.high))
    cells = [" "] * on.width
    cells[on.column(COIN)] = "┊"
    for at in range(low, high + 1):
        cells[at] = "─"
    cells[low], cells[high] = "├", "┤"
    cells[share] = "●"
    return "".join(cells)


def axis(on: Scale) -> str:
    """The numbers under the bars: every tenth or every second one, 'coin' in the place of 50."""
    for step in (1, 2):
        cells = [" "] * on.width
        fits = [_put(cells, text, on.column(share)) for text, share in _ticks(on.low, step)]
        if all(fits):
            break
    return "".join(cells).rstrip()


def _put(cells: list[str], text: str, column: int) -> bool:
    """Write a text around a column; False when there is no room for it and a blank at each side."""
    at = min(max(column - len(text) // 2, 0), len(cells) - len(text))
    free = at >= 0 and not "".join(cells[max(at - 1, 0) : at + len(text) + 1]).strip()
    if free:
        cells[at : at + len(text)] = text
    return free


def _ticks(low: float, step: int) -> Iterator[tuple[str, float]]:
    yield "coin", COIN
    yield "100", 1.0
    for tenth in range(round(low * 10), 10):
        if tenth != 5 and (5 - tenth) % step == 0:
            yield str(10 * tenth), tenth / 10
