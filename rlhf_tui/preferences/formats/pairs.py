"""Importing a file of judgements whole or not at all, and exporting the store's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats import labels, trl
from rlhf_tui.preferences.formats.lines import Malformed, broken, parse, read_lines, write_lines
from rlhf_tui.preferences.records import ImportedLabel
from rlhf_tui.preferences.store import Store

FORMATS = ("rlhf-tui", "trl")


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `pairs`, `ties` and `both_bad` are new; `duplicates` were there already.

    `changed` of the new ones replace another answer of the same rater to the same pair.
    `dropped`: rows without a usable pair, counted by reason.
    """

    pairs: int
    ties: int
    both_bad: int
    duplicates: int
    dropped: dict[str, int] = field(default_factory=dict)
    changed: int = 0


def import_labels(
    store: Store, path: Path, *, format: str | None = None, rater: str | None = None, heldout_fraction: float
) -> ImportReport:
    """Import a file of judgements in one transaction; importing it again adds nothing.

    `format` 'rlhf-tui' or 'trl'; None looks at the first line. `rater` is the handle for rows that
    name none ('imported' when None); an unknown rater is added with kind 'import'.
    Raises UsageError for a broken file, naming the line; then nothing has changed.
    """
    found, dropped = _read(path, format)
    if not found:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.items())
        raise UsageError(f"{path} holds no usable pair.", why=f"Left out: {reasons}.", todo="Nothing was imported.")
    results: Counter[tuple[str, str]] = Counter()
    with store.transaction():
        rater_ids: dict[str, int] = {}
        for label in found:
            handle = label.rater or rater or "imported"
            if handle not in rater_ids:
                known = store.rater(handle) or store.add_rater(handle, kind="import")
                rater_ids[handle] = known.id
            done = store.import_judgement(label, rater_id=rater_ids[handle], heldout_fraction=heldout_fraction)
            results[done, label.outcome] += 1
    new = {outcome: results["added", outcome] + results["changed", outcome] for outcome in labels.OUTCOMES}
    return ImportReport(
        new["ordered"],
        new["tie"],
        new["both_bad"],
        sum(count for (done, _), count in results.items() if done == "duplicate"),
        dict(dropped),
        sum(count for (done, _), count in results.items() if done == "changed"),
    )


def _read(path: Path, format: str | None) -> tuple[list[ImportedLabel], Counter[str]]:
    rows = [(number, parse(path, number, line)) for number, line in read_lines(path)]
    chosen = _known(format) if format is not None else _detect(path, *rows[0])
    found, dropped = [], Counter[str]()
    for number, row in rows:
        if not isinstance(row, dict):
            raise broken(path, number, "It is not a JSON object.")
        try:
            label = labels.read(row, source=path.name) if chosen == "rlhf-tui" else trl.read(row, source=path.name)
            _check_sides(label)
        except trl.Unusable as reason:
            dropped[str(reason)] += 1
        except Malformed as error:
            raise broken(path, number, str(error)) from None
        else:
            found.append(label)
    return found, dropped


def _check_sides(label: ImportedLabel) -> None:
    sides = [candidate.text.strip() for candidate in label.candidates]
    if not all(sides):
        raise trl.Unusable("an empty candidate")
    if sides[0] == sides[1]:
        raise trl.Unusable("identical candidates")


def _known(format: str) -> str:
    if format not in FORMATS:
        raise UsageError(
            f"The format {format!r} is unknown.", why=nearest(format, FORMATS), todo=f"Known are {', '.join(FORMATS)}."
        )
    return format


def _detect(path: Path, number: int, row: Any) -> str:
    if isinstance(row, dict) and "candidates" in row:
        return "rlhf-tui"
    if isinstance(row, dict) and "chosen" in row and "rejected" in row:
        return "trl"
    raise broken(
        path,
        number,
        "It has neither 'candidates' (format rlhf-tui) nor 'chosen' and 'rejected' (format trl).",
        todo="Convert the file, or name its format with --format. Nothing was imported.",
    )


def export_labels(store: Store, path: Path, *, format: str) -> int:
    """Write the active judgements to a file; return the number of lines.

    'rlhf-tui' keeps ordered pairs, ties and both-bad; 'trl' has room for ordered pairs only (the
    store's counts say how many ties and both-bad it leaves out). An existing file is replaced, whole.
    Raises UsageError when there is nothing to write, UserError when the file cannot be written.
    """
    kept = labels.OUTCOMES if _known(format) == "rlhf-tui" else ("ordered",)
    judgements = [judged for judged in store.judgements() if judged.outcome in kept]
    if not judgements:
        raise UsageError("There is no judgement to export.", todo="Judge some pairs first: 'rlhf-tui label'.")
    if format == "trl":
        return write_lines(path, map(trl.write, judgements))
    used = {side.generation_id for judged in judgements for side in (judged.left, judged.right)}
    generations = {number: store.generation(number) for number in used if number is not None}
    return write_lines(path, (labels.write(judged, generations) for judged in judgements))
