"""The report of a reward run as the app holds it: read once, and again only when its file has changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from rlhf_tui.assessment.records import Report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.records import Rater
from rlhf_tui.runs.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

#: A verdict's level as a mark that reads without colour, and its tone. The headline says the same in words.
LEVELS = {"ready": ("✓", "good"), "narrow": ("~", "warn"), "not_yet": ("…", "warn"), "broken": ("✗", "bad")}
#: What a finding means, as a mark and a tone.
SEVERITIES = {"broken": ("✗", "bad"), "warning": ("⚠", "warn"), "note": ("·", "quiet")}

Stamp = tuple[str, int, int]


class Appraisal:
    """The report of one run at a time. `trouble` says why there is none although its file is there."""

    def __init__(self) -> None:
        self.trouble: UserError | None = None
        self._stamp: Stamp | None = None
        self._report: Report | None = None

    def of(self, run: RunFolder) -> Report | None:
        """The report of a run, None without one; costs one look at the file unless it is new."""
        stamp = _stamp(run.path / "report.json")
        if stamp != self._stamp:
            self._stamp, self._report, self.trouble = stamp, None, None
            if stamp is not None:
                self._read(run)
        return self._report

    def _read(self, run: RunFolder) -> None:
        from rlhf_tui.assessment.report import load_report  # with all that writes one: not before there is one

        try:
            self._report = load_report(run.path)
        except UserError as error:
            self.trouble = error


def with_handles(report: Report, raters: Iterable[Rater]) -> Report:
    """The report with the names that raters have in this project: the file calls some by a pseudonym."""
    known = {rater.public_name: rater.handle for rater in raters}
    return replace(
        report,
        labels=replace(report.labels, raters=tuple(known.get(name, name) for name in report.labels.raters)),
        by_rater=tuple(replace(one, name=known.get(one.name, one.name)) for one in report.by_rater),
        disagreements=tuple(replace(one, rater=known.get(one.rater, one.rater)) for one in report.disagreements),
    )


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size
