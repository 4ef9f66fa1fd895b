"""Contrast as the Web Content Accessibility Guidelines 2 define it, of every cell that an app has drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.color_triplet import ColorTriplet
from rich.style import Style
from textual.app import App

RGB = tuple[int, int, int]


def linear_part(part: int) -> float:
    """One of red, green and blue (0 to 255) without the gamma of sRGB: 0 to 1."""
    share = part / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)


def luminance(colour: RGB) -> float:
    """Relative luminance (WCAG 2.2): 0 for black, 1 for white."""
    red, green, blue = map(linear_part, colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: RGB, other: RGB) -> float:
    """The contrast ratio of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def wanted(character: str) -> float:
    """The least ratio for a character: 4.5 for text, 3 for pictures (bars, braille), none for blanks and frames."""
    code = ord(character)
    if character.isspace() or code == 0x2800 or 0x2500 <= code <= 0x257F:
        return 1.0
    return 3.0 if 0x2580 <= code <= 0x259F or 0x2800 < code <= 0x28FF else 4.5


@dataclass(frozen=True)
class Faint:
    """Text that is too faint."""

    text: str
    ratio: float
    front: str
    behind: str


def faint(app: App[None]) -> Iterator[Faint]:
    """Everything on screen whose contrast is too low. Colours are those sent to the terminal, dim ones included.

    What lies behind a window is veiled, and not looked at.
    """
    screen = app.screen
    parts = [child.region for child in screen.children] if screen.is_modal else [screen.region]
    for y, strip in enumerate(screen._compositor.render_strips()):
        x = 0
        for text, style, _ in strip:
            start, x = x, x + cell_len(text)
            needed = max(map(wanted, text), default=1.0)
            if needed == 1.0 or not any(part.contains(start, y) for part in parts):
                continue
            front, behind = _colours(text, style)
            ratio = contrast(front, behind)
            if ratio < needed:
                yield Faint(text.strip(), round(ratio, 2), front.hex, behind.hex)


def _colours(text: str, style: Style | None) -> tuple[ColorTriplet, ColorTriplet]:
    """Both colours of a segment as they are sent, which must be true ones: nothing is left to the terminal."""
    front, behind = (style.color, style.bgcolor) if style and not style.dim else (None, None)
    if front is None or behind is None or front.triplet is None or behind.triplet is None:
        raise AssertionError(f"{text!r} is left to the terminal: {style}")
    return (behind.triplet, front.triplet) if style and style.reverse else (front.triplet, behind.triplet)
