"""Judgements into files that others read as they are, each with a manifest beside it.

`rlhf-tui` holds every judgement with all that is known of it; the other formats hold what they can, and what they
cannot is counted by reason, in the report and in the manifest. Formats are listed in `writers.registry`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, UserError, nearest
from rlhf_tui.preferences import records
from rlhf_tui.preferences.formats.manifest import manifest
from rlhf_tui.preferences.formats.writers import files
from rlhf_tui.preferences.formats.writers.llamafactory import ENTRIES
from rlhf_tui.preferences.formats.writers.registry import FORMATS, PROMPTS, TIES, Format, find, settle_ties
from rlhf_tui.preferences.formats.writers.sources import Material, Tally
from rlhf_tui.preferences.records import DECIDED, Judged
from rlhf_tui.preferences.store import Store

REPEATS = "repeats, asked to see how consistent a rater is"
#: What is left out when only one split is asked for, by which.
NOT_ASKED_FOR = {
    "train": "about held-out prompts, which were not asked for",
    "heldout": "about training prompts, which were not asked for",
}
ALL = "all"
SPLITS = (*records.SPLITS, ALL)
INDEX = "dataset_info.json"


@dataclass(frozen=True)
class ExportReport:
    """What was written where. `left_out`: how many rows are not there, by reason.

    `skipped` says why nothing was written; then there are no rows and no manifest. `split` is what was asked for,
    and `heldout` how many of the prompts in the file are held out.
    """

    path: Path
    format: str
    rows: int
    left_out: Mapping[str, int]
    manifest: Path | None
    skipped: str = ""
    split: str = ALL
    heldout: int = 0


def export_labels(
    store: Store, target: Path, *, format: str = "rlhf-tui", ties: str | None = None, split: str = ALL
) -> ExportReport:
    """Write the judgements to `target` and its manifest to `target`.manifest.json; existing files are replaced.

    `ties`: 'drop', 'half' (both directions, one row each) or 'keep'; None keeps them where the format can and
    drops them where it cannot. `split`: what is about the prompts in 'train', in 'heldout', or in 'all'; the
    manifest says which, and warns of those held out that are in it, since the rows do not.

    A name that ends in '.gz' is compressed; '.json' is one JSON list and '.jsonl' one object a line, whatever the
    format does by itself. LLaMA-Factory's formats also write their entry into the dataset_info.json beside. Raises
    UsageError when there is nothing to write or something is impossible, UserError when a file cannot be written;
    then no file has changed.
    """
    known = find(format)
    settled = settle_ties(known, ties)
    _check_name(known, target)
    _check_split(split)
    material, snapshot = _read(store, split)
    return _write(known, target, settled, material, snapshot)


def export_all(store: Store, folder: Path, *, ties: str | None = None, split: str = ALL) -> list[ExportReport]:
    """Write every format that can hold something of what there is into a folder, made when it is not there.

    Where a format cannot do with ties what was asked, it does what it does by itself; its manifest says what.
    `split` as in `export_labels`. A format that has room for nothing of it is reported with `skipped`. Raises
    UserError when a file cannot be written; those before it are there.
    """
    _check_split(split)
    if ties is not None and ties not in TIES:
        raise UsageError(f"Ties cannot be {ties!r}.", todo=f"Choose one of {', '.join(TIES)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be made.", why=error.strerror or str(error), todo="Choose another place."
        ) from None
    material, snapshot = _read(store, split)
    reports = []
    for known in FORMATS.values():
        target = folder / known.file
        settled = ties if ties in known.ties else known.ties[0]
        try:
            reports.append(_write(known, target, settled, material, snapshot))
        except UsageError as error:
            reports.append(ExportReport(target, known.name, 0, {}, None, skipped=str(error), split=split))
    return reports


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UsageError(
            f"The split cannot be {split!r}.", why=nearest(split, SPLITS), todo=f"Choose one of {', '.join(SPLITS)}."
        )


def _check_name(format: Format, target: Path) -> None:
    if not target.name:
        raise UsageError(f"{target} is no name for a file.", todo="Name the file to write.")
    if target.name == INDEX and format.name in ENTRIES:
        raise UsageError(f"{INDEX} is LLaMA-Factory's list of files.", todo="Choose another name.")
    if _packed(target) and format.plain:
        raise UsageError(
            f"The format {format.name!r} is not written compressed.",
            why="What reads it does not unpack '.gz'.",
            todo=f"Name the file {target.name.removesuffix('.gz')}.",
        )


def _packed(target: Path) -> bool:
    return target.suffix == ".gz"


def _read(store: Store, split: str) -> tuple[Material, str]:
    """Everything there is of a split, and the hash that names all there is, from one moment."""
    with store.database.reading():
        everything = [judged for judged in store.judgements() if judged.verdict.outcome in DECIDED]
        decided = [judged for judged in everything if split in (ALL, judged.prompt.split)]
        judged = tuple(one for one in decided if one.purpose == "label")
        used = {one.generation_id for each in judged for one in each.shown if one.generation_id is not None}
        prompts = store.prompts()
        wanted = tuple(prompt for prompt in prompts if split in (ALL, prompt.split))
        material = Material(
            judged,
            wanted,
            {number: store.generation(number) for number in used},
            _guidelines(store, judged),
            repeats=len(decided) - len(judged),
            split=split,
            other_judgements=sum(one.purpose == "label" for one in everything) - len(judged),
            other_prompts=len(prompts) - len(wanted),
        )
        return material, store.snapshot_hash()


def _guidelines(store: Store, judged: tuple[Judged, ...]) -> dict[int, tuple[int, str]]:
    """The (version, sha256) of the guideline that was on screen, by judgement; an imported one was on no screen."""
    wanted = {one.id for one in judged}
    return {
        row["id"]: (row["version"], row["sha256"])
        for row in store.database.rows(
            """SELECT j.id, g.version, g.sha256 FROM judgement j
            JOIN presentation p ON p.id = j.presentation_id JOIN guideline g ON g.id = p.guideline_id
            WHERE p.session_id IS NOT NULL"""
        )
        if row["id"] in wanted
    }


def _write(format: Format, target: Path, ties: str, material: Material, snapshot: str) -> ExportReport:
    beside = target.with_name(f"{target.name}.manifest.json")
    tally = Tally(ties)
    _leave_out(format, material, tally)
    name = _entry_name(target)
    index = _index(format, target, name)
    places = [target, beside, *([target.with_name(INDEX)] if index else [])]
    with files.replacing(*places) as streams:
        rows = files.write(streams[0], format.rows(material, tally), _body(format, target), packed=_packed(target))
        if not rows:
            raise _nothing(format, material, tally)
        streams[0].seek(0)
        streams[1].write(
            manifest(
                format,
                material,
                tally,
                file=target.name,
                sha256=hashlib.file_digest(streams[0], "sha256").hexdigest(),
                snapshot=snapshot,
                rows=rows,
                use=format.use.replace("{file}", target.name).replace("{name}", name),
            )
        )
        if index:
            streams[2].write((json.dumps(index, ensure_ascii=False, indent=2) + "\n").encode())
    left_out = dict(tally.left_out.most_common())
    return ExportReport(target, format.name, rows, left_out, beside, split=material.split, heldout=len(tally.heldout))


def _leave_out(format: Format, material: Material, tally: Tally) -> None:
    """Count what is not even offered to the format."""
    only_prompts = format.name == PROMPTS
    if material.repeats and not only_prompts:
        tally.left_out[REPEATS] = material.repeats
    others = material.other_prompts if only_prompts else material.other_judgements
    if others:
        tally.left_out[NOT_ASKED_FOR[material.split]] = others


def _body(format: Format, target: Path) -> str:
    if format.body in ("lines", "array"):
        return {".json": "array", ".jsonl": "lines"}.get(Path(target.name.removesuffix(".gz")).suffix, format.body)
    return format.body


def _entry_name(target: Path) -> str:
    return target.stem.replace(".", "_").replace(",", "_")


def _index(format: Format, target: Path, name: str) -> dict[str, Any] | None:
    """LLaMA-Factory's list of files with ours in it, or None where it needs none. Raises UsageError."""
    if format.name not in ENTRIES:
        return None
    path = target.with_name(INDEX)
    try:
        known = json.loads(path.read_bytes())
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read.", why=str(error), todo="Mend it, or choose another folder.") from None
    if not isinstance(known, dict):
        raise UsageError(f"{path} is not LLaMA-Factory's.", why="It is no JSON object.", todo="Choose another folder.")
    taken = known.get(name)
    if isinstance(taken, dict) and taken.get("file_name") != target.name:
        raise UsageError(f"{path} has an entry {name!r} for another file.", todo="Choose another name.")
    return {**known, name: {"file_name": target.name, **ENTRIES[format.name]}}


def _nothing(format: Format, material: Material, tally: Tally) -> UsageError:
    if format.name == PROMPTS:
        return _none("prompt", material.other_prompts, material.split, "Add some first: 'rlhf-tui prompts import'.")
    if not material.judged:
        todo = "Judge some pairs first: 'rlhf-tui label'."
        return _none("judgement", material.other_judgements, material.split, todo)
    reasons = ", ".join(f"{count} {reason}" for reason, count in tally.left_out.most_common())
    return UsageError(
        f"Nothing of what was judged has a place in the format {format.name!r}.",
        why=f"Left out: {reasons}." if reasons else "",
        todo="Choose another format; 'rlhf-tui' holds every judgement.",
    )


def _none(what: str, others: int, split: str, todo: str) -> UsageError:
    """The error when there is nothing of the split that was asked for, or nothing at all."""
    if not others:
        return UsageError(f"There is no {what} to export.", todo=todo)
    return UsageError(
        f"There is no {what} to export of the split {split!r}.",
        why=f"The other split has {others}.",
        todo=f"Choose another one of {', '.join(SPLITS)}.",
    )
