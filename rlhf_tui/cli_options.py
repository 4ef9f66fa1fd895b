"""Options that several verbs of the command line share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HERE = Path(".")

Folder = Annotated[Path, typer.Option("--project", metavar="DIR", help="The project's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting for this call.")]
Detach = Annotated[bool, typer.Option("--detach", help="Start it and return at once.")]
Resume = Annotated[str, typer.Option("--resume", metavar="RUN", help="Go on with a run that was stopped.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="A new folder; default: in exports/.")]


def group(purpose: str) -> typer.Typer:
    """A verb that has verbs of its own; alone it shows its help."""
    return typer.Typer(help=purpose, no_args_is_help=True, rich_markup_mode=None)
