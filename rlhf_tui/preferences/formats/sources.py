"""Where rows come from: a file by its name or its beginning, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import hub, lines, tables
from rlhf_tui.preferences.formats.lines import Row

TABLES = ("csv", "tsv", "parquet")
KINDS = ("txt", "jsonl", "json", *TABLES)


@dataclass(frozen=True)
class Source:
    """Something to read. `kind`: one of KINDS or 'hub'; `origin` is what its prompts remember as their source."""

    name: str
    origin: str
    kind: str
    rows: Callable[[], Iterator[Row]]

    @property
    def unit(self) -> str:
        """What the numbers of its rows count."""
        return "row" if self.kind in ("parquet", "hub") else "line"

    def broken(self, number: int, why: str, *, todo: str = "") -> UsageError:
        """The error for a row that cannot be read."""
        return lines.broken(self.name, number, why, todo=todo, unit=self.unit)


def open_source(source: Path | str, kind: str | None = None) -> Source:
    """A file or 'hub:…' ready to be read; `kind` None: by the file's name, with JSON for anything unknown.

    Nothing is read yet. Raises UsageError for a malformed name of a data set.
    """
    if str(source).startswith(hub.PREFIX):
        hub.parse_name(str(source))
        return Source(str(source), str(source), "hub", partial(hub.hub_rows, str(source)))
    path = Path(source)
    chosen = kind or kind_of(path) or "jsonl"
    readers: dict[str, Callable[[], Iterator[Row]]] = {
        "txt": partial(_text_rows, path),
        "csv": partial(tables.separated_rows, path, ","),
        "tsv": partial(tables.separated_rows, path, "\t"),
        "parquet": partial(tables.parquet_rows, path),
    }
    return Source(str(path), path.name, chosen, readers.get(chosen, partial(lines.json_rows, path)))


def kind_of(path: Path) -> str | None:
    """What the name says the file is; '.gz' says nothing about it."""
    ending = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower().removeprefix(".")
    ending = {"ndjson": "jsonl", "text": "txt", "pq": "parquet"}.get(ending, ending)
    return ending if ending in KINDS else None


def _text_rows(path: Path) -> Iterator[Row]:
    return (Row(number, line) for number, line in lines.filled_lines(path))
