"""The whole report on a reward model as one text to scroll through, with its curves drawn."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.appraisal import LEVELS
from rlhf_tui.app.screens.reward_panels import wrapped
from rlhf_tui.app.screens.reward_pictures import PICTURES
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.assessment.records import Report
from rlhf_tui.assessment.report_sections import Paragraph, Part, Point, Quote, Section, Table, sections
from rlhf_tui.preferences.display import clean

#: A picture is at most so wide, and so high with its scale.
WIDEST, HEIGHT = 64, 11
#: The name of a quoted text is at most so wide, so that something of the text is seen.
NAME = 20
#: Characters of a quoted text that are looked at: a line holds no more.
MOST = 400
#: A table whose first column would be narrower is no table.
LEAST = 12


def page(report: Report, width: int) -> Content:
    """Every section of the report in lines of at most `width` characters."""
    mark, tone = LEVELS[report.verdict.level]
    found: list[Content] = []
    for at, section in enumerate(sections(report)):
        title = f"{mark} {section.title}" if at == 0 else section.title
        found += [tinted(line, tone if at == 0 else "accent").stylize("bold") for line in wrapped(title, width)]
        if section.title in PICTURES:
            found += [PICTURES[section.title](report, min(width, WIDEST), HEIGHT), Content("")]
        found += [*_body(section, width), Content("")]
    return lines(*found[:-1])


def _body(section: Section, width: int) -> Iterator[Content]:
    for part in section.parts:
        yield from _part(part, width)


def _part(part: Part, width: int) -> Iterator[Content]:
    match part:
        case Paragraph(text):
            yield from (Content(f"  {line}") for line in wrapped(text, width - 2))
        case Point(text, under):
            for at, line in enumerate(wrapped(text, width - 4)):
                yield Content(f"{'    ' if at else '  · '}{line}")
            for more in under:
                yield from (tinted(f"    {line}", "quiet") for line in wrapped(more, width - 4))
        case Table(head, rows):
            yield from _table(head, rows, width)
        case Quote(texts):
            for at, (name, text) in enumerate(texts):
                label = words.one_line(clean(name), NAME).ljust(NAME)
                begin = tinted(f"{'    ' if at else '  '}{label} "[: NAME + 3], "quiet")
                said = words.one_line(clean(text), MOST)
                yield Content.assemble(begin, said).truncate(width, ellipsis=True)


def _table(head: tuple[str, ...], rows: tuple[tuple[str, ...], ...], width: int) -> Iterator[Content]:
    """Columns as wide as they need, the first at most what the others leave; row after row where that is too little."""
    cells = [tuple(clean(cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    widths[0] = min(widths[0], width - 2 - sum(widths[1:]) - 2 * (len(head) - 1))
    for at, row in enumerate(cells):
        tone = "" if at else "quiet"
        if widths[0] < LEAST:
            yield from (tinted(f"  {line}", tone) for line in wrapped("  ".join(filter(None, row)), width - 2))
        elif any(row):
            line = "  ".join(words.one_line(cell, room).ljust(room) for cell, room in zip(row, widths, strict=True))
            yield tinted(f"  {line}".rstrip(), tone)
