"""The report on a page: plain text of at most 80 columns, Markdown, and the help that explains the verdict."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from rlhf_tui.assessment.detectors import CATALOGUE
from rlhf_tui.assessment.records import Report
from rlhf_tui.assessment.report_sections import TRUTHS, Paragraph, Part, Point, Quote, Section, Table, sections
from rlhf_tui.assessment.thresholds import THRESHOLDS
from rlhf_tui.preferences.display import clean

WIDTH = 80
_NAME = 18  # columns for what a quoted text is
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
_KEPT = "\u00a0"  # keeps "71 %" on one line while wrapping


def report_text(report: Report) -> str:
    """At most 80 columns, for terminals, pipes and screen readers."""
    return "\n\n".join(_section_text(section) for section in sections(report)) + "\n"


def report_markdown(report: Report) -> str:
    """The same as Markdown; texts of people and models are escaped."""
    title = f"# Reward model {_escaped(report.run)}"
    return "\n\n".join([title, *(_section_markdown(section) for section in sections(report))]) + "\n"


def help_text() -> str:
    """What a verdict means, every threshold with its reason, every detector with its remedy; 80 columns."""
    parts = [
        _wrapped(_INTRODUCTION),
        "\n".join(_wrapped(f"{name}: {meaning}", "  ", "    ") for name, meaning in _VERDICTS),
        "The thresholds, and why they are where they are",
        *(_explained(f"{one.name}: {one.value}", one.reason) for one in THRESHOLDS),
        "What is looked for besides",
        *(_explained(f"{one.name}: {one.looks_for}.", one.why, f"Then: {one.remedy}") for one in CATALOGUE),
        _wrapped(TRUTHS),
    ]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = (
    "After every training the reward model is asked whether it is good enough. It is measured on pairs of prompts it "
    "was not trained on. Ties are left out and never count as right; where it scores both the same, that counts one "
    "half. Intervals are 95 % and take pairs of one prompt as hanging together."
)
_VERDICTS = (
    ("Ready", "go on to PPO. It agrees with you about as often as a second careful person would."),
    (
        "Usable for a narrow taste",
        "better than a coin, but not all that 'ready' asks for; the reasons are listed. Best-of-n with it helps a "
        "little, PPO will follow its narrow idea.",
    ),
    (
        "Not yet",
        "nothing is shown yet. It says how many labels more, or of how many more prompts, or that labels alone will "
        "not do it.",
    ),
    ("Broken", "something is wrong that no label cures; it says what."),
)


def _explained(head: str, *reasons: str) -> str:
    return "\n".join([_wrapped(head, "  ", "    "), *(_wrapped(reason, "    ", "    ") for reason in reasons)])


# -- plain text ---------------------------------------------------------------------------------------


def _section_text(section: Section) -> str:
    return "\n".join([_wrapped(section.title), *(_part_text(part) for part in section.parts)])


def _part_text(part: Part) -> str:
    match part:
        case Paragraph(text):
            return _wrapped(text, "  ", "  ")
        case Point(text, under):
            return "\n".join([_wrapped(text, "  - ", "    "), *(_wrapped(one, "    ", "    ") for one in under)])
        case Table(head, rows):
            return _table_text(head, rows)
        case Quote(texts):
            return "\n".join(f"  {_cut(name, _NAME):<{_NAME}} {_cut(text, WIDTH - _NAME - 3)}" for name, text in texts)


def _table_text(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Columns as wide as they need, the first at most what the others leave of the line."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    widths[0] = min(widths[0], WIDTH - 2 - sum(widths[1:]) - 2 * (len(head) - 1))
    return "\n".join(
        "  " + "  ".join(f"{_cut(cell, width):<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
        if any(row)
    )


def _cut(text: str, width: int) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    kept = text.replace(" %", f"{_KEPT}%")
    lines = textwrap.fill(kept, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return lines.replace(_KEPT, " ")


# -- Markdown -----------------------------------------------------------------------------------------


def _section_markdown(section: Section) -> str:
    body: list[str] = []
    previous: Part | None = None
    for part in section.parts:
        # The points of a list stand together; everything else is apart.
        between = "\n" if isinstance(part, Point) and isinstance(previous, Point) else "\n\n"
        body.append((between if body else "") + _part_markdown(part))
        previous = part
    return f"## {_escaped(section.title)}\n\n{''.join(body)}"


def _part_markdown(part: Part) -> str:
    match part:
        case Paragraph(text):
            return _escaped(text)
        case Point(text, under):
            return "\n".join([f"- {_escaped(text)}", *(f"  {_escaped(one)}" for one in under)])
        case Table(head, rows):
            lines = [head, tuple("---" for _ in head), *rows]
            return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in lines)
        case Quote(texts):
            return "\n".join(f"- {_escaped(name)}: {_escaped(_cut(text, 400))}" for name, text in texts)


def _cell(text: str) -> str:
    return text if text == "---" else _escaped(text)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))
