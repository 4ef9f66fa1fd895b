"""The verbs about a project's settings and prompts. None of them runs the model."""

from __future__ import annotations

from typing import Annotated

import typer

from rlhf_tui.cli_options import HERE, Folder, Json, Set, group
from rlhf_tui.verbs import say

config = group("Show, explain and change settings.")
prompts = group("Import and list prompts.")


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
    from rlhf_tui.runs.trust import trust
    from rlhf_tui.settings import parse_value, write
    from rlhf_tui.settings import value as value_of

    opened = open_project(project)
    opened.settings()  # a file that cannot be read is not written to either
    new = value_of(write(opened.config, key, parse_value(key, value)), key)
    trust(opened.root, {key: new})
    say({key: new}, f"{key} = {new!r}", as_json)


@config.command("trust")
def config_trust(project: Folder = HERE, as_json: Json = False) -> None:
    """Let the runs of this project start its notify.command and write to its notify.webhook, on this machine."""
    from rlhf_tui.preferences.display import clean
    from rlhf_tui.project import open_project
    from rlhf_tui.runs.trust import trust, untrusted

    opened = open_project(project)
    wants = untrusted(opened.settings().notify, opened.root)
    trust(opened.root, wants)
    lines = [clean(f"{key} = {value!r} is allowed from now on, until it is changed.") for key, value in wants.items()]
    say({"trusted": wants}, "\n".join(lines) or "There is nothing that is not allowed already.", as_json)


@config.command("keys")
def config_keys(as_json: Json = False) -> None:
    """Every key of the app with the name of its action, and the file in which you can give it another."""
    from dataclasses import asdict

    from rlhf_tui.app.keyfile import key_file, listing, load_keymap

    path = key_file()
    listed = listing(load_keymap(path))
    lines = [f"{'*' if one.own else ' '} {one.id:<18} {one.keys:<12} {one.help}" for one in listed]
    lines += ["", f'For other keys, write lines like label.left = "a" into {path}.']
    say({"file": str(path), "keys": [asdict(one) for one in listed]}, "\n".join(lines), as_json)


# -- prompts --------------------------------------------------------------------------------------


@prompts.command("import")
def prompts_import(
    sources: Annotated[list[str], typer.Argument(metavar="FILE|hub:OWNER/NAME...")],
    format: Annotated[str, typer.Option(metavar="F", help="Empty looks at the file.")] = "",
    project: Folder = HERE,
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Add prompts from files (text, JSON, tables, preference data, .gz of any) or a hub data set: all or none."""
    from rlhf_tui.preferences.formats import read_prompts
    from rlhf_tui.project import open_project

    opened = open_project(project)
    fraction = opened.settings(settings or ()).prompts.heldout_fraction
    rows = [row for source in sources for row in read_prompts(source, format=format or None)]
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
