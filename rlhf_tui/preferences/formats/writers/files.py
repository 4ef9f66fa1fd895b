"""Rows into a file: JSON, CSV or parquet, compressed by name, and in its place only when it is whole."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats.writers.shapes import Row
from rlhf_tui.preferences.formats.writers.tables import COLUMNS

Stream = io.BufferedRandom | gzip.GzipFile

_BATCH = 1000  # rows that are turned into a piece of a parquet file together


@contextmanager
def replacing(*paths: Path) -> Iterator[list[io.BufferedRandom]]:
    """Files to write beside their places; when all is well they take them, in this order, else they vanish.

    A reader sees an old file or a new one, never a part. Raises UserError when they cannot be written.
    """
    drafts = [path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}") for path in paths]
    try:
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{os.strerror(errno.EISDIR)}: {path.name}")
        with ExitStack() as stack:
            streams = [stack.enter_context(draft.open("x+b")) for draft in drafts]
            yield streams
            for stream in streams:
                stream.flush()
                os.fsync(stream.fileno())
        for path, draft in zip(paths, drafts, strict=True):
            draft.replace(path)
        _sync_folder(paths[0].parent)
    except OSError as error:
        raise UserError(
            f"{paths[0]} cannot be written.", why=error.strerror or str(error), todo="Choose another place."
        ) from None
    finally:
        for draft in drafts:
            with suppress(OSError):  # never made, or in its place by now
                draft.unlink()


def _sync_folder(folder: Path) -> None:
    """Put the renaming itself on disk, where the system can do that for a folder."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write(stream: Stream, rows: Iterable[Row], body: str, *, packed: bool) -> int:
    """Write rows as 'lines', 'array', 'csv', 'tsv' or 'parquet'; return how many. The same rows, the same bytes."""
    if packed:
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as inner:
            return write(inner, rows, body, packed=False)
    if body == "parquet":
        return _parquet(stream, rows)
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        return _table(text, rows, "\t" if body == "tsv" else ",") if body in ("csv", "tsv") else _json(text, rows, body)
    finally:
        text.detach()  # flushes, and leaves the stream open for its owner


def _json(text: IO[str], rows: Iterable[Row], body: str) -> int:
    first, between, last = ("[\n", ",\n", "\n]\n") if body == "array" else ("", "\n", "\n")
    text.write(first)
    count = 0
    for row in rows:
        if count:
            text.write(between)
        text.write(json.dumps(row, ensure_ascii=False))
        count += 1
    text.write(last)
    return count


def _table(text: IO[str], rows: Iterable[Row], delimiter: str) -> int:
    out = csv.DictWriter(text, list(COLUMNS), delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    out.writeheader()
    count = 0
    for row in rows:
        out.writerow({key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()})
        count += 1
    return count


def _parquet(stream: Stream, rows: Iterable[Row]) -> int:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            "Parquet files need pyarrow, which is not installed.",
            todo="pip install 'rlhf-tui[parquet]', or choose the format csv.",
        ) from None
    types: dict[type, Any] = {
        str: pyarrow.large_string(),
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    count, source = 0, iter(rows)
    with parquet.ParquetWriter(stream, schema, compression="zstd") as out:
        while batch := list(islice(source, _BATCH)):
            out.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count
