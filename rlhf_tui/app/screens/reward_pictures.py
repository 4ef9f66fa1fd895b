"""The two curves of a report on a reward model, drawn in characters: calibration and learning curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from textual.content import Content

from rlhf_tui.app import scatter, words
from rlhf_tui.app.glyphs import ascii_wanted
from rlhf_tui.app.plot import LINE
from rlhf_tui.app.scatter import POINT, WHISKER, Frame, Point
from rlhf_tui.app.screens.reward_panels import wrapped
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.assessment.records import Report

GUTTER = 6
_TONES = {LINE: "quiet", WHISKER: "quiet", POINT: "accent"}

#: The sections of the report that have a picture, by title (`assessment.report_sections`).
CALIBRATION, CURVE = "Is it as sure as it should be", "Would more labels help"


def calibration(report: Report, width: int, height: int) -> Content:
    """How sure the model is against how often it is right; on the line, both are the same."""
    found = report.calibration
    if found is None or not found.bins:
        return tinted("It could not be measured.", "quiet")
    points = [Point(one.predicted, one.observed, one.under, one.over) for one in found.bins]
    bottom = min(_floor(min(point.low for point in points)), 0.5)
    frame = Frame(0.5, 1.0, bottom, 1.0)
    return _picture(points, [(0.5, 0.5), (1.0, 1.0)], frame, width, height, ("50 %", "how sure it is", "100 %"))


def curve(report: Report, width: int, height: int) -> Content:
    """Accuracy against how many pairs were learnt from."""
    found = report.curve
    if found is None or not found.points:
        return tinted("It could not be measured.", "quiet")
    points = [Point(one.pairs, one.accuracy, one.low, one.high) for one in found.points]
    most = max(point.x for point in points)
    top = max(_ceiling(max(point.high for point in points)), 0.1)
    bottom = min(_floor(min(point.low for point in points)), top - 0.1)
    line = [(point.x, point.y) for point in points]
    return _picture(points, line, Frame(0, most, bottom, top), width, height, ("0", "pairs learnt from", f"{most:.0f}"))


#: What stands for a section's table where there is room to draw.
PICTURES: dict[str, Callable[[Report, int, int], Content]] = {CALIBRATION: calibration, CURVE: curve}


def captioned(report: Report, title: str, width: int, height: int) -> Content:
    """A picture with what the report says about it below, in so many lines."""
    caption = [tinted(line, "quiet") for line in wrapped(said_of(report, title), width)]
    room = height - len(caption)
    if room < 4:
        return lines(*caption[: max(height, 1)])
    return lines(PICTURES[title](report, width, room), *caption)


def said_of(report: Report, title: str) -> str:
    """The running text of a section of the report; empty when it has none."""
    from rlhf_tui.assessment.report_sections import Paragraph, sections

    for section in sections(report):
        if section.title == title:
            return " ".join(part.text for part in section.parts if isinstance(part, Paragraph))
    return ""


def _picture(
    points: Sequence[Point],
    line: Sequence[tuple[float, float]],
    frame: Frame,
    width: int,
    height: int,
    below: tuple[str, str, str],
) -> Content:
    """The scene with its scale: the top and the bottom value at the left, `below` at both ends and in the middle."""
    across, down = max(width - GUTTER, 8), max(height - 1, 2)
    draw = scatter.draw_ascii if ascii_wanted() else scatter.draw
    scene = draw(points, line, frame, across, down)
    found = []
    for at, (row, kinds) in enumerate(zip(scene.rows, scene.kinds, strict=True)):
        value = frame.top if at == 0 else frame.bottom if at == down - 1 else None
        label = "" if value is None else words.percent(value)
        found.append(Content.assemble(tinted(f"{label:>{GUTTER - 1}} ", "quiet"), *_toned(row, kinds)))
    left, middle, right = below
    gap = max(across - len(left) - len(right), 0)
    axis = f"{'':{GUTTER}}{left}{words.one_line(middle, max(gap - 2, 0)).center(gap)}{right}"
    return lines(*found, tinted(axis, "quiet"))


def _toned(row: str, kinds: Sequence[int]) -> list[Content]:
    return [tinted(text, _TONES.get(kind, "")) for text, kind in zip(row, kinds, strict=True)]


def _floor(share: float) -> float:
    return max(math.floor(share * 10 + 1e-9) / 10, 0.0)


def _ceiling(share: float) -> float:
    return min(math.ceil(share * 10 - 1e-9) / 10, 1.0)
