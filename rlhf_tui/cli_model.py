"""The verbs about the base model: which there are, choose one, download it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_tui import verbs
from rlhf_tui.cli_options import HERE, Detach, Folder, Json, Set, group
from rlhf_tui.errors import UsageError

if TYPE_CHECKING:
    from rlhf_tui.models import FoundModel

model = group("The base model: which there are, choose one, download it.")


@model.command("list")
def model_list(project: Folder = HERE, as_json: Json = False) -> None:
    """The models on this machine, and the project's own. Asks no hub."""
    from dataclasses import asdict

    from rlhf_tui.models import listed
    from rlhf_tui.project import open_project

    settings = open_project(project).settings().model
    found = listed(settings)
    document = [asdict(one) | {"here": one.here, "in_use": one.name == settings.name} for one in found]
    verbs.say(document, _listing(found, settings.name), as_json)


@model.command("choose")
def model_choose(
    name: Annotated[str, typer.Argument(metavar="ID|PATH|starter", help="The base model.")],
    yes: Annotated[bool, typer.Option("--yes", help="Even where adapters belong to another model.")] = False,
    project: Folder = HERE,
    as_json: Json = False,
) -> None:
    """Make a model the project's. Nothing is downloaded by this."""
    from rlhf_tui import models
    from rlhf_tui.project import open_project

    opened = open_project(project)
    elsewhere = models.trained_elsewhere(opened, name)
    if elsewhere and not yes:
        told = models.belongings(elsewhere, name)
        if as_json or not verbs.is_terminal():
            raise UsageError(f"{name} was not chosen.", why=told, todo="Choose it all the same with --yes.")
        typer.echo(told)
        typer.confirm("Choose it all the same?", abort=True)
    settings = models.choose(opened, name).model
    found = models.find(settings)
    tail = " 'rlhf-tui model download' fetches it, or the first run does." if found.fetchable else ""
    document = {"model": settings.name, "state": found.state, "adapters_of_another": dict(elsewhere)}
    verbs.say(document, f"{found.title} is this project's model.{tail}", as_json)


@model.command("download")
def model_download(project: Folder = HERE, settings: Set = None, detach: Detach = False, as_json: Json = False) -> None:
    """Download the project's model: the starter, or one of the hub. What arrived whole stays when it is stopped."""
    verbs.run_stage(project, "download", settings or [], {}, detach, as_json)


def _listing(found: Sequence[FoundModel], current: str) -> str:
    from rlhf_tui.app import model_rows, words
    from rlhf_tui.preferences.display import clean

    rows = [
        (
            clean(one.name),
            model_rows.parameters(one.parameters),
            words.size(one.size) if one.size is not None else "size ?",
            model_rows.licence(one),
            one.state + (" · in use" if one.name == current else ""),
        )
        for one in found
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3])])
        + f"  {row[4]}"
        for row in rows
    )
