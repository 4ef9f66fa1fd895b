"""Importing a file of judgements whole or not at all, and looking at one first.

Rows flow one by one from the source through the reader of its format into the store, in one transaction: a
file that turns out to be damaged on its last line leaves nothing behind. What cannot be kept is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats.detect import LOOKED_AT, PROMPTS, Detected, detect
from rlhf_tui.preferences.formats.fields import EMPTY, HALF, IDENTICAL, NOTHING, Malformed, Unusable
from rlhf_tui.preferences.formats.lines import Row
from rlhf_tui.preferences.formats.readers import READERS
from rlhf_tui.preferences.formats.readers.building import Context, Dropped, Found
from rlhf_tui.preferences.formats.regrouping import gather, without_repeats
from rlhf_tui.preferences.formats.sources import TABLES, Source, open_source
from rlhf_tui.preferences.records import ImportedLabel
from rlhf_tui.preferences.store import Store
from rlhf_tui.preferences.texts import prompt_uid


@dataclass(frozen=True)
class ImportReport:
    """What an import did, and with how many rows.

    `pairs` (ordered), `ties` and `both_bad` of pairs, `rankings`, `ratings` and `acceptances` are new;
    `duplicates` were there already. `changed` of the new ones replace another answer of the same rater to
    the same task; the older answer is kept. `comparisons`: in how many twos of candidates the new ones say which
    is better. `split_conflicts`: judgements whose prompt the project has in the other split; they follow
    the project. `dropped`: rows, judgements and candidates that could not be kept, by reason; a row that gave
    nothing is always among them. `notes`: what was kept, but not as it stands, by what became of it.
    """

    pairs: int
    ties: int
    both_bad: int
    duplicates: int
    dropped: dict[str, int] = field(default_factory=dict)
    changed: int = 0
    rankings: int = 0
    ratings: int = 0
    acceptances: int = 0
    comparisons: int = 0
    split_conflicts: int = 0
    rows: int = 0
    format: str = ""
    why: str = ""
    notes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preview:
    """What a file holds: its format and why, the first judgements, and how many of each kind; nothing is imported."""

    source: str
    format: str
    why: str
    mapping: Mapping[str, str]
    labels: tuple[ImportedLabel, ...]
    rows: int
    kinds: dict[str, int]
    comparisons: int
    dropped: dict[str, int]
    notes: dict[str, int]


class Reading:
    """One pass over the judgements of a source, counting its rows and what is dropped on the way.

    Every row gives a judgement or is counted in `dropped`, whatever its reader does with it.
    """

    def __init__(self, source: Source, *, format: str | None, mapping: Mapping[str, str] | None) -> None:
        """Look at the first rows. Raises UsageError when there are none, or none that any format fits."""
        self.source = source
        self.rows = 0
        self.dropped: Counter[str] = Counter()
        rows = source.rows()
        first = list(islice(rows, LOOKED_AT))
        if not first:
            raise UsageError(f"{source.name} is empty.", todo="Name a file with at least one line.")
        self.detected: Detected = detect(source, first, format, mapping)
        if self.detected.format == PROMPTS:
            todo = f"Import them with 'rlhf-tui prompts import {source.name}'."
            raise UsageError(f"{source.name} holds prompts and no judgements.", why=self.detected.why, todo=todo)
        self._reader = READERS[self.detected.format]
        self._context = Context(source.origin, self.detected.mapping)
        try:
            self._reader.check([row.value for row in first if isinstance(row.value, dict)], self._context)
        except Malformed as error:
            raise source.broken(first[0].number, str(error)) from None
        self._rows = chain(first, rows)

    def labels(self) -> Iterator[ImportedLabel]:
        """The judgements, in the order of the file. Raises UsageError for a damaged row, naming it."""
        found = self._found()
        return gather(found) if self._reader.gathered else found

    @property
    def notes(self) -> dict[str, int]:
        """What was not taken as it stands, by what became of it."""
        return dict(self._context.notes)

    def _found(self) -> Iterator[ImportedLabel]:
        for row in self._reader.prepare(self._counted()):
            if isinstance(row.value, Dropped):
                self.dropped[row.value.reason] += row.rows
                continue
            if not isinstance(row.value, dict):
                raise self.source.broken(row.number, "It is not a JSON object.")
            for one in self._read(row, row.value):
                if isinstance(one, Dropped):
                    self.dropped[one.reason] += 1
                elif (kept := self._checked(one)) is not None:
                    yield kept

    def _read(self, row: Row, value: dict[str, Any]) -> list[Found]:
        """What a row holds; when that is nothing, it is counted. Raises UsageError for a damaged row."""
        try:
            found = self._reader.read(value, self._context)
        except Unusable as reason:
            self.dropped[str(reason)] += row.rows
            return []
        except Malformed as error:
            raise self.source.broken(row.number, str(error)) from None
        if not found:
            self.dropped[NOTHING] += row.rows
        return found

    def _counted(self) -> Iterator[Row]:
        for row in self._rows:
            self.rows += 1
            yield row

    def _checked(self, label: ImportedLabel) -> ImportedLabel | None:
        """The label as far as it can be kept, or None; what cannot is counted."""
        if not _whole_text(label):
            self.dropped[HALF] += 1
            return None
        if label.kind == "pair":
            sides = [one.text.strip() for one in label.candidates]
            reason = EMPTY if not all(sides) else IDENTICAL if sides[0] == sides[1] else None
            if reason is None:
                return label
            self.dropped[reason] += 1
            return None
        kept, reasons = without_repeats(label)
        self.dropped.update(reasons)
        return kept


def _whole_text(label: ImportedLabel) -> bool:
    """Whether every text can be stored: half of a surrogate pair has no place in UTF-8."""
    words = [message.content for message in label.prompt.messages]
    words += [*label.prompt.tags, label.note, label.rater or "", label.rater_uid or "", label.layout]
    for one in label.candidates:
        words += [one.text, one.model, one.finish_reason or "", one.generation[-1] if one.generation else ""]
    try:
        "".join(words).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def open_reading(source: Path | str, *, format: str | None, mapping: Mapping[str, str] | None) -> Reading:
    """A pass over a file or 'hub:…'. Raises UsageError and UserError as `import_labels` does."""
    kind = format if format in TABLES else None
    return Reading(open_source(source, kind), format=format, mapping=mapping)


def import_labels(
    store: Store,
    source: Path | str,
    *,
    format: str | None = None,
    mapping: Mapping[str, str] | None = None,
    rater: str | None = None,
    heldout_fraction: float,
) -> ImportReport:
    """Import a file of judgements in one transaction; importing it again adds nothing.

    `format` is one of READERS; None looks at the first rows. `mapping` {ours: theirs} names the columns of a
    table. `rater` is the handle for rows that name none ('imported' when None); an unknown rater is added with
    kind 'import'. Raises UsageError for a broken file, naming the line, and UserError when a package or the
    network is missing; then nothing has changed.
    """
    reading = open_reading(source, format=format, mapping=mapping)
    results: Counter[tuple[str, str]] = Counter()
    comparisons = conflicts = 0
    with store.transaction():
        raters, splits = Raters(store, rater or "imported"), Splits(store)
        for label in reading.labels():
            conflicts += splits.contradicts(label)
            done = store.import_judgement(label, rater_id=raters.id_of(label), heldout_fraction=heldout_fraction)
            results[done, kind_of(label)] += 1
            comparisons += 0 if done == "duplicate" else decided_twos(label)
        if not results:
            raise nothing_usable(reading)
    new = {kind: results["added", kind] + results["changed", kind] for kind in KINDS}
    return ImportReport(
        **new,
        duplicates=sum(count for (done, _), count in results.items() if done == "duplicate"),
        dropped=dict(reading.dropped),
        changed=sum(count for (done, _), count in results.items() if done == "changed"),
        comparisons=comparisons,
        split_conflicts=conflicts,
        rows=reading.rows,
        format=reading.detected.format,
        why=reading.detected.why,
        notes=reading.notes,
    )


def preview(
    source: Path | str, *, format: str | None = None, mapping: Mapping[str, str] | None = None, rows: int = 3
) -> Preview:
    """Read a whole file and say what it holds, with its first `rows` judgements. Raises as `import_labels` does."""
    reading = open_reading(source, format=format, mapping=mapping)
    shown: list[ImportedLabel] = []
    kinds: Counter[str] = Counter()
    comparisons = 0
    for label in reading.labels():
        kinds[kind_of(label)] += 1
        comparisons += decided_twos(label)
        if len(shown) < rows:
            shown.append(label)
    if not kinds:
        raise nothing_usable(reading)
    found = reading.detected
    return Preview(
        reading.source.name,
        found.format,
        found.why,
        found.mapping,
        tuple(shown),
        reading.rows,
        {kind: kinds[kind] for kind in KINDS if kinds[kind]},
        comparisons,
        dict(reading.dropped),
        reading.notes,
    )


def nothing_usable(reading: Reading) -> UsageError:
    """The error for a file that is whole and holds no judgement we can keep."""
    reasons = ", ".join(f"{reason} ({count})" for reason, count in reading.dropped.items())
    why = f"Read as {reading.detected.format} ({reading.detected.why}). Left out: {reasons}."
    todo = "If that is not its format, name another one or give a mapping. Nothing was imported."
    return UsageError(f"{reading.source.name} holds no usable judgement.", why=why, todo=todo)


#: How an import counts judgements, as the store's own counts do.
KINDS = ("pairs", "ties", "both_bad", "rankings", "ratings", "acceptances")
_KIND_NAMES = {"rank": "rankings", "rate": "ratings", "accept": "acceptances"}
_PAIR_NAMES = {"ordered": "pairs", "tie": "ties", "both_bad": "both_bad"}


def kind_of(label: ImportedLabel) -> str:
    """Which of KINDS a judgement is counted as."""
    return _PAIR_NAMES[label.verdict.outcome] if label.kind == "pair" else _KIND_NAMES[label.kind]


def decided_twos(label: ImportedLabel) -> int:
    """Of how many twos of its candidates a judgement says which is better."""
    verdict = label.verdict
    marks: tuple[int, ...] = verdict.ranks or verdict.ratings or verdict.accepted
    return sum(one != other for place, one in enumerate(marks) for other in marks[place + 1 :])


class Raters:
    """The raters of a file in the store, each looked up once and added when new."""

    def __init__(self, store: Store, unnamed: str) -> None:
        self._store = store
        self._unnamed = unnamed
        self._ids: dict[tuple[str, str | None], int] = {}

    def id_of(self, label: ImportedLabel) -> int:
        """The rater of a judgement: by uid where the file has it, else by name."""
        key = (label.rater or self._unnamed, label.rater_uid)
        if key not in self._ids:
            self._ids[key] = self._find(*key)
        return self._ids[key]

    def _find(self, handle: str, uid: str | None) -> int:
        same = None if uid is None else self._store.rater_by_uid(uid)
        if same is not None:
            return same.id
        known = self._store.rater(handle)
        if known is not None and uid is not None:
            # Another person of that name: two people are never taken for one.
            return self._store.add_rater(f"{handle} ({uid[:8]})", kind="import", uid=uid).id
        return (known or self._store.add_rater(handle, kind="import", uid=uid)).id


class Splits:
    """The splits of the prompts the store has, to notice when a file says otherwise."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, str] | None = None

    def contradicts(self, label: ImportedLabel) -> bool:
        """Whether the file puts the prompt in another split than the one it is in."""
        wanted = label.prompt.split
        if wanted is None:
            return False
        if self._known is None:  # most files say nothing of splits
            self._known = {prompt.uid: prompt.split for prompt in self._store.prompts()}
        return self._known.setdefault(prompt_uid(label.prompt.messages), wanted) != wanted
