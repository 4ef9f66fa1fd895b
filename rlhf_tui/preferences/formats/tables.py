"""Tables as rows of named cells: CSV, TSV and parquet."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator
from importlib import import_module
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats.lines import LONGEST, Row, broken, open_bytes, text_lines

_BATCH = 256  # rows of a parquet file in memory at once
_LARGEST = 8 * 2**30  # bytes a gzipped parquet file may unpack to


def separated_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """The rows of a CSV or TSV file as objects; the first row names the columns.

    Numbered by the line they begin on. A file whose header has ';' and no ',' is read with ';'.
    Raises UsageError for a row with too few or too many fields and for a quote that never ends.
    """
    csv.field_size_limit(LONGEST)
    lines = dropwhile(lambda line: not line[1].strip(), text_lines(path))
    begins, first = next(lines, (1, ""))
    if delimiter == "," and ";" in first and "," not in first:
        delimiter = ";"
    above = begins - 1
    reader = csv.reader(chain([first], (line for _, line in lines)), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, begins, header)
        begins = above + reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(header):
                    raise broken(path, begins, f"It has {len(cells)} fields, the first line has {len(header)}.")
                yield Row(begins, dict(zip(header, cells, strict=True)))
            begins = above + reader.line_num + 1
    except csv.Error as error:
        raise broken(path, begins, f"It is not a row of a table: {error}.") from None


def _check_header(path: Path, number: int, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise broken(path, number, f"Two columns are called {twice[0]!r}.")


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a parquet file as objects, numbered from 1. Raises UserError without pyarrow, UsageError."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            f"{path} cannot be read.",
            why="Reading parquet files needs the package pyarrow.",
            todo="Install it with: pip install 'rlhf-tui[parquet]'.",
        ) from None
    try:
        with open_bytes(path) as stream, _seekable(path, stream) as file:
            number = 0
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, value)
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read.", why=f"It is no parquet file, or damaged: {error}", todo="Nothing was imported."
        ) from None


def _seekable(path: Path, stream: Any) -> Any:
    """The stream, or a copy on disk of what it unpacks to: parquet is read from its end."""
    with path.open("rb") as raw:
        if raw.read(4) == b"PAR1":
            return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    left = _LARGEST
    while piece := stream.read(min(2**20, left)):
        copy.write(piece)
        left -= len(piece)
    if stream.read(1):
        copy.close()
        raise UsageError(f"{path} is too large.", why=f"It unpacks to more than {_LARGEST >> 30} GiB.")
    copy.seek(0)
    return copy
