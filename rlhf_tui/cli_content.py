"""The verbs about what a project holds: its settings, prompts and labels. None of them runs the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlhf_tui.cli_options import HERE, Folder, Json, Set, group
from rlhf_tui.verbs import say

config = group("Show, explain and change settings.")
prompts = group("Import and list prompts.")
labels = group("Import, export and count judgements.")


# -- settings -------------------------------------------------------------------------------------


@config.command("show")
def config_show(project: Folder = HERE, settings: Set = None, as_json: Json = False) -> None:
    """Every setting with its value; * marks what differs from the default."""
    from rlhf_tui.project import open_project
    from rlhf_tui.settings import catalogue, changed, value

    current = open_project(project).settings(settings or ())
    different = changed(current)
    lines = [f"{'*' if i.key in different else ' '} {i.key:<30} {value(current, i.key)!r}" for i in catalogue()]
    say(current.model_dump(mode="json"), "\n".join(lines), as_json)


@config.command("explain")
def config_explain(key: Annotated[str, typer.Argument(metavar="KEY")], as_json: Json = False) -> None:
    """What a setting means, its bounds and its default."""
    from dataclasses import asdict

    from rlhf_tui.settings import info

    item = info(key)
    bounds = f", {item.bounds}" if item.bounds else ""
    say(asdict(item), f"{item.key}: {item.kind}{bounds}. Default: {item.default!r}.\n{item.explanation}", as_json)


@config.command("set")
def config_set(
    key: Annotated[str, typer.Argument(metavar="KEY")],
    value: Annotated[str, typer.Argument(metavar="VALUE")],
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Write a setting to the project's rlhf.toml, keeping your comments."""
    from rlhf_tui.project import open_project
    from rlhf_tui.settings import parse_value, write
    from rlhf_tui.settings import value as value_of

    opened = open_project(project)
    opened.settings()  # a file that cannot be read is not written to either
    new = value_of(write(opened.config, key, parse_value(key, value)), key)
    say({key: new}, f"{key} = {new!r}", as_json)


# -- prompts --------------------------------------------------------------------------------------


@prompts.command("import")
def prompts_import(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Add prompts from .txt (one a line) or .jsonl files."""
    from rlhf_tui.preferences.formats import read_prompts
    from rlhf_tui.project import open_project

    opened = open_project(project)
    fraction = opened.settings(settings or ()).prompts.heldout_fraction
    rows = [row for file in files for row in read_prompts(file)]
    with opened.store() as store:
        outcome = store.add_prompts(rows, heldout_fraction=fraction)
        counts = store.counts()
    say(
        {"added": outcome.added, "duplicates": outcome.duplicates, "train": counts.train, "heldout": counts.heldout},
        f"{outcome.added} prompts added, {outcome.duplicates} were there already. "
        f"Now {counts.train} for training and {counts.heldout} held out.\nNext: 'rlhf-tui generate'.",
        as_json,
    )


@prompts.command("list")
def prompts_list(project: Folder = HERE, as_json: Json = False) -> None:
    """All prompts with their split."""
    from rlhf_tui.preferences.display import clean
    from rlhf_tui.project import open_project

    with open_project(project).store() as store:
        rows = store.prompts()
    document = [{"uid": row.uid, "split": row.split, "text": row.text, "tags": list(row.tags)} for row in rows]
    lines = [f"{row.split:<8} {' '.join(clean(row.text).split())}" for row in rows]
    say(document, "\n".join(lines) or "No prompts yet: 'rlhf-tui prompts import FILE'.", as_json)


# -- labels ---------------------------------------------------------------------------------------


@labels.command("import")
def labels_import(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    format: Annotated[str, typer.Option(help="rlhf-tui or trl; empty looks at the file.")] = "",
    rater: Annotated[str, typer.Option(metavar="NAME", help="Whose judgements, where the file does not say.")] = "",
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Add judged pairs from a file: all of them or none."""
    from dataclasses import asdict

    from rlhf_tui.preferences.formats import import_labels
    from rlhf_tui.project import open_project

    opened = open_project(project)
    fraction = opened.settings(settings or ()).prompts.heldout_fraction
    with opened.store() as store:
        found = import_labels(store, file, format=format or None, rater=rater or None, heldout_fraction=fraction)
    changed = f" {found.changed} of them replace an earlier answer." if found.changed else ""
    dropped = "".join(f"\nLeft out: {count} ({reason})." for reason, count in found.dropped.items())
    say(
        asdict(found),
        f"{found.pairs} pairs, {found.ties} ties and {found.both_bad} 'both bad' added; "
        f"{found.duplicates} were there already.{changed}{dropped}",
        as_json,
    )


@labels.command("export")
def labels_export(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    format: Annotated[str, typer.Option(help="rlhf-tui or trl.")] = "rlhf-tui",
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Write the judgements to a file."""
    from rlhf_tui.preferences.formats import export_labels
    from rlhf_tui.project import open_project

    with open_project(project).store() as store:
        written = export_labels(store, file, format=format)
        left_out = store.counts().judgements - written
    rest = f" {left_out} ties and 'both bad' have no place in that format." if left_out else ""
    say(
        {"file": str(file), "rows": written, "left_out": left_out},
        f"{written} judgements written to {file}.{rest}",
        as_json,
    )


@labels.command("stats")
def labels_stats(project: Folder = HERE, as_json: Json = False) -> None:
    """What the judgements look like: counts, first-side rate, longer-wins rate, pace."""
    from dataclasses import asdict

    from rlhf_tui.preferences.statistics import label_report
    from rlhf_tui.project import open_project
    from rlhf_tui.reports import label_stats

    with open_project(project).store() as store:
        counts, found = store.counts(), label_report(store, None)
    say({"counts": asdict(counts), "report": asdict(found)}, label_stats(counts, found), as_json)
