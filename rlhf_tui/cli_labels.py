"""The verbs about judgements and who gave them: import, export, statistics, merging copies, raters. No model runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf_tui.cli_options import HERE, Folder, Json, Set, group
from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.verbs import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhf_tui.preferences.formats import ExportReport, ImportReport, Preview
    from rlhf_tui.preferences.records import ImportedLabel, Merged, Rater
    from rlhf_tui.preferences.store import Store

labels = group("Import, export, count and merge judgements; who gave them.")

_PREVIEWED = 3  # judgements
_WIDTH = 70
#: How the counts of an import are called.
_KINDS = {
    "pairs": "pairs",
    "ties": "ties",
    "both_bad": "'both bad'",
    "rankings": "rankings",
    "ratings": "ratings",
    "acceptances": "accepted or rejected",
}


# -- files ----------------------------------------------------------------------------------------


@labels.command("import")
def labels_import(
    source: Annotated[str, typer.Argument(metavar="FILE|hub:OWNER/NAME")],
    format: Annotated[str, typer.Option(metavar="F", help="Empty looks at the rows.")] = "",
    map: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Which column holds what, for tables.")
    ] = None,
    rater: Annotated[str, typer.Option(metavar="NAME", help="Whose judgements, where the file does not say.")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="Say what would come; import nothing.")] = False,
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Add judgements from a file or a hub data set: all of them or none.

    Formats: rlhf-tui, trl, trl-implicit, trl-text, trl-unpaired, hh, llamafactory-alpaca, llamafactory-sharegpt,
    llamafactory-kto, llamafactory-v1, axolotl, axolotl-intel, axolotl-nectar, axolotl-rm, ms-swift, openrlhf,
    rewardbench, arena, alpacaeval, oasst, rankings, summarize, ziegler, shp, helpsteer, pandalm, label-studio,
    potato, csv, tsv, parquet, table (JSON by columns); '.gz' of any.

    Columns of a table: prompt, chosen, rejected; or prompt, a, b, winner; or prompt, completion, label or rating.

    A row's split is kept for prompts that are new: train, or heldout (also test, validation and their like).
    """
    from rlhf_tui.preferences.formats import import_labels
    from rlhf_tui.preferences.formats import preview as look_at
    from rlhf_tui.project import open_project

    opened = open_project(project)
    mapping = assignments(map or (), "--map", "OURS=THEIRS")
    fraction = opened.settings(settings or ()).prompts.heldout_fraction
    if preview:
        seen = look_at(source, format=format or None, mapping=mapping or None, rows=_PREVIEWED)
        say(_preview_document(seen), _previewed(seen), as_json)
        return
    with opened.store() as store:
        found = import_labels(
            store,
            source,
            format=format or None,
            mapping=mapping or None,
            rater=rater or None,
            heldout_fraction=fraction,
        )
    say(asdict(found), _imported(found), as_json)


def _imported(report: ImportReport) -> str:
    new = _counted(asdict(report))
    if report.comparisons > report.pairs:
        new += f" ({report.comparisons} decided comparisons of two)"
    lines = [f"{report.rows} rows, read as {report.format}: {report.why}", f"New: {new}." if new else "Nothing new."]
    lines += [f"  {report.duplicates} were there already"] if report.duplicates else []
    lines += [f"  {report.changed} of them replace an earlier answer, which is kept"] if report.changed else []
    if report.split_conflicts:
        lines.append(f"  {report.split_conflicts} are about prompts that are in the other split here, and stay there")
    return "\n".join(lines) + _left_out(report.dropped) + _noted(report.notes)


def _preview_document(seen: Preview) -> dict[str, Any]:
    return {
        "source": seen.source,
        "format": seen.format,
        "why": seen.why,
        "mapping": dict(seen.mapping),
        "rows": seen.rows,
        "counts": seen.kinds,
        "comparisons": seen.comparisons,
        "dropped": seen.dropped,
        "notes": seen.notes,
        "first": [_label_document(one) for one in seen.labels],
    }


def _label_document(label: ImportedLabel) -> dict[str, Any]:
    from rlhf_tui.app.labelling import described

    return {
        "prompt": [asdict(message) for message in label.prompt.messages],
        "kind": label.kind,
        "candidates": [candidate.text for candidate in label.candidates],
        "verdict": described(label.verdict, label.kind),
        "rater": label.rater,
    }


def _previewed(seen: Preview) -> str:
    mapping = "".join(f"  {ours}={theirs}" for ours, theirs in seen.mapping.items())
    lines = [f"{seen.rows} rows, read as {seen.format}: {seen.why}{mapping}"]
    for label in seen.labels:
        lines += ["", *_label_lines(label)]
    lines += ["", f"It holds {_counted(seen.kinds)} ({seen.comparisons} decided comparisons of two)."]
    return "\n".join(lines) + _left_out(seen.dropped) + _noted(seen.notes) + "\nNothing was imported."


def _label_lines(label: ImportedLabel) -> list[str]:
    """One judgement of a file on a few short lines."""
    from rlhf_tui.app.ordering import names
    from rlhf_tui.app.words import one_line
    from rlhf_tui.preferences.display import clean

    document = _label_document(label)
    called = names(label.kind, len(label.candidates))
    texts = [("prompt", document["prompt"][-1]["content"]), *zip(called, document["candidates"], strict=True)]
    said = document["verdict"] + (f" ({label.rater})" if label.rater else "")
    return [f"{name:>7}  {one_line(clean(text), _WIDTH)}" for name, text in (*texts, ("said", said))]


def _counted(counts: Mapping[str, int]) -> str:
    """'3 pairs, 1 tie' from the counts of an import; '' when all are nought."""
    return ", ".join(f"{counts[key]} {name}" for key, name in _KINDS.items() if counts.get(key))


@labels.command("export")
def labels_export(
    target: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A folder for --format all.")],
    format: Annotated[str, typer.Option(metavar="F|all", help="'all': every format that can hold them.")] = "rlhf-tui",
    ties: Annotated[str, typer.Option(metavar="drop|half|keep", help="Empty: keep them where the format can.")] = "",
    split: Annotated[
        str, typer.Option(metavar="train|heldout|all", help="Which prompts; never train on those held out.")
    ] = "all",
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Write the judgements to a file for a trainer, with a manifest beside it.

    Formats: rlhf-tui (every judgement whole), trl, trl-implicit, trl-text, trl-unpaired, trl-prompts, hh,
    llamafactory-alpaca, llamafactory-sharegpt, llamafactory-kto, llamafactory-v1, axolotl, axolotl-intel,
    axolotl-nectar, axolotl-rm, ms-swift, openrlhf, rewardbench, arena, alpacaeval, oasst, csv, tsv, parquet.
    """
    from rlhf_tui.preferences.formats import export_all, export_labels
    from rlhf_tui.project import open_project

    with open_project(project).store() as store:
        if format == "all":
            written = export_all(store, target, ties=ties or None, split=split)
        else:
            written = [export_labels(store, target, format=format, ties=ties or None, split=split)]
    documents = [_export_document(one) for one in written]
    text = "\n".join(map(_exported, written))
    say(documents if format == "all" else documents[0], text, as_json)


def _export_document(report: ExportReport) -> dict[str, Any]:
    return {
        "file": str(report.path),
        "format": report.format,
        "rows": report.rows,
        "left_out": dict(report.left_out),
        "manifest": None if report.manifest is None else str(report.manifest),
        "skipped": report.skipped,
        "split": report.split,
        "heldout_prompts": report.heldout,
    }


def _exported(report: ExportReport) -> str:
    if report.skipped:
        return f"{report.format}: not written. {' '.join(report.skipped.split())}"
    said = f"{report.format}: {report.rows} rows in {report.path}, and its manifest.{_left_out(report.left_out)}"
    if report.heldout and report.split == "all":
        said += f"\n  held-out prompts in it: {report.heldout}; for training leave them out with '--split train'"
    return said


def _left_out(reasons: Mapping[str, int]) -> str:
    return "".join(f"\n  left out: {count} ({reason})" for reason, count in reasons.items())


def _noted(notes: Mapping[str, int]) -> str:
    return "".join(f"\n  {count} {note}" for note, count in notes.items())


@labels.command("merge")
def labels_merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Its folder, or its preferences.db.")],
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Take over what another copy of this project holds; the copy stays as it is."""
    from rlhf_tui.project import DATABASE, open_project

    opened = open_project(project)
    path = other / DATABASE if other.is_dir() else other
    if not path.exists():
        why = f"It holds no {DATABASE}." if other.is_dir() else "The file does not exist."
        raise UsageError(f"{other} is no copy of a project.", why=why, todo="Name its folder, or its preferences.db.")
    if path.samefile(opened.database):
        raise UsageError(f"{other} is this project itself.", todo="Name the folder of another copy.")
    with opened.store() as store:
        merged = store.merge(path)
    say(asdict(merged), _merged(merged), as_json)


def _merged(merged: Merged) -> str:
    renamed = "".join(
        f"\nAnother {old!r} was here already: theirs is {new!r} now." for old, new in merged.renamed.items()
    )
    return (
        f"Came over: {merged.judgements} judgements, {merged.prompts} prompts, {merged.completions} candidates, "
        f"{merged.raters} raters. What both had is there once.{renamed}"
    )


# -- statistics -----------------------------------------------------------------------------------


@labels.command("stats")
def labels_stats(
    rater: Annotated[str, typer.Option(metavar="NAME", help="Only this rater.")] = "",
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """What the judgements look like: consistency, habits of side and length, pace, agreement."""
    from rlhf_tui.preferences.project_report import project_report
    from rlhf_tui.project import open_project
    from rlhf_tui.reports import label_stats

    with open_project(project).store() as store:
        known = _require(store, rater) if rater else None
        found = project_report(store)
        if known is not None:
            found = replace(found, counts=store.counts(known.id))
    document = asdict(found)
    if known is not None:
        document = {
            "counts": document["counts"],
            "raters": [one for one in document["raters"] if one["rater"] == known.handle],
        }
    say(document, label_stats(found, rater), as_json)


# -- raters ---------------------------------------------------------------------------------------


@labels.command("raters")
def labels_raters(project: Folder = HERE, as_json: Json = False) -> None:
    """Everybody who has judged, or may, with their cards."""
    from rlhf_tui.project import open_project

    with open_project(project).store() as store:
        found = [_document(store, rater) for rater in store.raters()]
    say(found, "\n".join(map(_line, found)) or "No raters yet: 'rlhf-tui label' makes you one.", as_json)


@labels.command("rater")
def labels_rater(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    card: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Something about them; KEY= takes it off.")
    ] = None,
    consent: Annotated[
        bool | None, typer.Option("--consent/--no-consent", help="May name and card leave the project?")
    ] = None,
    rename: Annotated[str, typer.Option(metavar="NEW", help="Another name; the judgements stay theirs.")] = "",
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Show one rater, or change their card, consent or name."""
    from rlhf_tui.project import open_project

    told = assignments(card or (), "--card", "KEY=VALUE")
    with open_project(project).store() as store, store.transaction():
        rater = _require(store, name)
        if told:
            kept = {key: value for key, value in {**rater.card, **told}.items() if value != ""}
            rater = store.add_rater(rater.handle, kind=rater.kind, card=kept)
        if consent is not None:
            rater = store.set_consent(rater.id, consent)
        if rename:
            rater = store.rename_rater(rater.id, rename)
        document = _document(store, rater)
    say(document, _line(document), as_json)


def _require(store: Store, name: str) -> Rater:
    found = store.rater(name)
    if found is None:
        known = [rater.handle for rater in store.raters()]
        raise UsageError(
            f"There is no rater {name!r}.",
            why=nearest(name, known) or ("They are: " + ", ".join(known) if known else "Nobody has judged yet."),
            todo="'rlhf-tui label --rater NAME' begins a new one.",
        )
    return found


def _document(store: Store, rater: Rater) -> dict[str, Any]:
    return {
        "rater": rater.handle,
        "uid": rater.uid,
        "kind": rater.kind,
        "judgements": store.counts(rater.id).judgements,
        "consent": rater.consent,
        "exported_as": rater.public_name,
        "card": dict(rater.card),
    }


def _line(document: dict[str, Any]) -> str:
    from rlhf_tui.preferences.display import clean

    name = document["rater"]
    as_whom = "" if document["exported_as"] == name else f"  exported as {document['exported_as']}"
    card = "".join(f"  {key}={value}" for key, value in document["card"].items())
    return clean(f"{name:<16} {document['kind']:<6} {document['judgements']:>6} judgements{as_whom}{card}")


def assignments(words: list[str] | tuple[()], option: str, form: str) -> dict[str, str]:
    """'key=value' words as a mapping. Raises UsageError for one without '=' or key, and for a key given twice."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"{option} cannot be {word!r}.", todo=f"Write it as {option} {form}.")
        if key in found:
            raise UsageError(f"{option} is given twice for {key!r}.", todo="Leave one of them out.")
        found[key] = value.strip()
    return found
