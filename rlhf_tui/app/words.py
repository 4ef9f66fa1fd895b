"""Numbers, times and sizes as a person reads them, and small plain-text layouts."""

from __future__ import annotations

import math
import textwrap

from rlhf_tui.preferences.display import clean


def duration(seconds: float) -> str:
    """`42s`, `6m`, `2h49m`, `3d4h`; a dash when it is unknown."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m{whole % 60:02d}s" if minutes < 10 else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


def size(count: int) -> str:
    """Bytes as `812M` or `8.2G` (binary multiples)."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f}G"
    if count >= 1 << 20:
        return f"{count / (1 << 20):.0f}M"
    return f"{count / 1024:.0f}K"


def number(value: float, digits: int = 3) -> str:
    """A metric in few characters: `1.84`, `-0.021`, `8.1e-06`, `402`; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    magnitude = abs(value)
    if value == int(value) and magnitude < 10**digits:
        return f"{int(value)}"
    if magnitude >= 1000 or magnitude < 0.001:
        return f"{value:.1e}" if magnitude >= 100_000 or magnitude < 0.001 else f"{value:.0f}"
    before = math.floor(math.log10(magnitude)) + 1 if magnitude >= 1 else 0
    return f"{value:.{max(0, digits - before)}f}"


def signed(value: float) -> str:
    """A difference with its sign: `+0.97`."""
    if not math.isfinite(value):
        return "-"
    return f"{'+' if value >= 0 else '-'}{number(abs(value))}"


def percent(share: float) -> str:
    """A share between 0 and 1 as `71 %`."""
    return f"{share * 100:.0f} %" if math.isfinite(share) else "-"


def progress(done: int, total: int, unit: str) -> str:
    """How far something is: `182/400 updates`, `12M/93M`."""
    return f"{size(done)}/{size(total)}" if unit == "bytes" else f"{done}/{total} {unit}".rstrip()


def plural(count: int, noun: str) -> str:
    """`1 pair`, `3 pairs`, `2 judgements`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def one_line(text: str, width: int) -> str:
    """The text, safe to show, with its white space run together, cut with an ellipsis to `width` characters."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: max(width - 1, 0)] + "…"


def wrapped(text: str, width: int) -> list[str]:
    """The text broken into lines of at most `width` characters, its own line breaks kept."""
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        lines += textwrap.wrap(paragraph, max(width, 1), drop_whitespace=True) or [""]
    return lines


def bar(done: int, total: int, width: int, *, full: str = "█", empty: str = "░") -> str:
    """A progress bar of exactly `width` characters."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    filled = round(share * width)
    return full * filled + empty * (width - filled)
