"""The SQLite file: opening it safely, whole transactions, and errors in plain words."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Literal

from rlhf_tui.errors import DiskError, UsageError, UserError
from rlhf_tui.preferences import migration

APPLICATION_ID = 0x524C4846  # 'RLHF', as in schema.sql
VERSION = 2
ROOM = 2**18  # bytes: with less than that free, an I/O error means that the disk is full

_NO_LOCKS = (sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_SHMLOCK, sqlite3.SQLITE_IOERR_RDLOCK)

Value = str | int | float | None
Row = sqlite3.Row


def now() -> str:
    """The present moment in UTC, as it is stored: texts that sort as the moments do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def after(moment: str | None, present: str) -> str:
    """The present moment, or the microsecond after `moment` when the clock is not past it.

    What decides which of two rows is newer must not depend on a clock that was set back.
    """
    if moment is None or present > moment:
        return present
    return (datetime.fromisoformat(moment) + timedelta(microseconds=1)).isoformat(timespec="microseconds")


class Database:
    """One connection. Every error a user can act on leaves it as a `UserError`."""

    def __init__(self, path: Path, *, patience: float, mode: Literal["rw", "ro", "ro&immutable=1"] = "rw") -> None:
        """Open an existing file. `patience`: seconds to wait for another program's lock; mode 'ro' only reads.

        'ro&immutable=1' reads where nothing at all can be written, not even the index that readers share.
        """
        self.path = path
        with self._plain_errors():
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=patience, isolation_level=None
            )
        self._connection.row_factory = sqlite3.Row
        self._seen = -1

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            plain = in_plain_words(error, self.path)
            if plain is None:
                raise
            raise plain from error

    def prepare(self) -> None:
        """The settings every connection needs; WAL lets a run write while the app reads."""
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self.run(f"PRAGMA {pragma}")
        self.changed()

    def run(self, sql: str, *values: Value) -> int:
        """Execute one statement; return the number of rows it changed."""
        with self._plain_errors():
            return self._connection.execute(sql, values).rowcount

    def insert(self, sql: str, *values: Value) -> int:
        """Execute one INSERT; return the new row's id."""
        with self._plain_errors():
            row = self._connection.execute(sql, values).lastrowid
        assert row is not None
        return row

    def rows(self, sql: str, *values: Value) -> list[Row]:
        """Every row of a query."""
        with self._plain_errors():
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Value) -> Row | None:
        """The first row of a query, or None."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def number(self, sql: str, *values: Value) -> int:
        """The single integer a query yields."""
        return int(self.rows(sql, *values)[0][0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Inside another transaction it becomes part of that one."""
        if self._connection.in_transaction:
            yield
            return
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything read inside is of one moment, whatever is written meanwhile; no writer is kept waiting."""
        self.run("BEGIN DEFERRED")
        try:
            yield
        finally:
            self._connection.rollback()

    def script(self, sql: str) -> None:
        """Execute several statements as one transaction."""
        with self._plain_errors():
            self._connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nCOMMIT;")

    def changed(self) -> bool:
        """Whether another connection has written since this was asked last, or since the file was opened."""
        before, self._seen = self._seen, self.number("PRAGMA data_version")
        return before != self._seen

    def function(self, name: str, call: Callable[..., Value]) -> None:
        """Make a Python function known to this connection's SQL."""
        self._connection.create_function(name, -1, call, deterministic=True)

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the whole file to `path`, also while others are writing."""
        with self._plain_errors():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            target = sqlite3.connect(path)
            try:
                self._connection.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
            finally:
                target.close()

    def close(self) -> None:
        self._connection.close()


def schema() -> str:
    """The statements that make an empty store."""
    return resources.files(__package__).joinpath("schema.sql").read_text("utf-8")


def create(path: Path, *, patience: float) -> Database:
    """Make a new, empty store file. Raises UsageError when `path` exists, UserError when it cannot be made."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # -wal and -shm take this mode over
    except FileExistsError:
        raise UsageError(f"{path} exists already.", todo="Choose another place, or remove it first.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be made.", why=str(error), todo="Choose a folder you may write to.") from None
    try:
        database = Database(path, patience=patience)
        try:
            database.prepare()
            database.script(schema())
        except BaseException:
            database.close()
            raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return database


def open_existing(path: Path, *, patience: float) -> Database:
    """Open a store file; one of an older version is brought up to date, with a copy of it kept beside.

    Raises UsageError when it is missing, not ours, or of a newer version.
    """
    require_file(path)
    database = Database(path, patience=patience, mode=_mode(path))
    try:
        version = version_of(database)
        if version < VERSION:
            migration.upgrade(database, version, schema())
        database.prepare()
    except BaseException:
        database.close()
        raise
    return database


def _mode(path: Path) -> Literal["rw", "ro", "ro&immutable=1"]:
    """How the file can be opened: on a read-only disk, or in a folder of somebody else, it can still be read."""
    if os.access(path.parent, os.W_OK):
        return "rw"
    left = path.with_name(path.name + "-wal")  # changes that are not in the file itself yet
    return "ro" if left.exists() and left.stat().st_size else "ro&immutable=1"


def version_of(database: Database) -> int:
    """The version of an open store. Raises UsageError when it is no store, or of a newer program."""
    if database.number("PRAGMA application_id") != APPLICATION_ID:
        raise UsageError(
            f"{database.path} does not hold rlhf-tui preferences.",
            why="It is a database of another program.",
            todo="Name a project folder made with 'rlhf-tui init'.",
        )
    version = database.number("PRAGMA user_version")
    if version > VERSION:
        raise UsageError(
            f"{database.path} was written by a newer rlhf-tui.",
            why=f"Its version is {version}; this program knows up to {VERSION}.",
            todo="Update rlhf-tui ('pip install --upgrade rlhf-tui').",
        )
    return version


def require_file(path: Path) -> None:
    """Raises UsageError when there is no file at `path`."""
    if not path.is_file():
        raise UsageError(
            f"There are no preferences at {path}.",
            why="The file does not exist.",
            todo="Make a project with 'rlhf-tui init DIR', or name another folder with --project DIR.",
        )


def in_plain_words(error: sqlite3.Error, path: Path) -> UserError | None:
    """What the user can do about a database error; None when it is our bug."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF  # extended codes keep the kind in the low byte
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UserError(
            f"{path} is locked.",
            why="Another program has been writing to it for too long.",
            todo="Close the other program, or try again when it is done. Nothing was changed.",
        )
    if primary == sqlite3.SQLITE_PROTOCOL or code in _NO_LOCKS:
        return UserError(
            f"{path} cannot be locked.",
            why=f"{error}. Some network file systems have no file locks.",
            todo="Keep the project on a local disk.",
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return UserError(
            f"{path} cannot be written.",
            why="The file or its folder is read-only.",
            todo="Give yourself write permission, or copy the project to a place of yours. Nothing was changed.",
        )
    if primary == sqlite3.SQLITE_NOTADB:
        return UsageError(
            f"{path} is not a database.",
            why="It does not begin like an SQLite file.",
            todo="Name a project folder made with 'rlhf-tui init', or restore the file from a backup.",
        )
    if primary == sqlite3.SQLITE_CORRUPT:
        return UserError(
            f"{path} is damaged.",
            why=str(error),
            todo="Restore it from a backup, or try 'sqlite3 preferences.db .recover'.",
        )
    # In WAL mode a full disk may also come as an I/O error (the shared index cannot grow).
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _no_room(path)):
        return DiskError(
            f"{path} cannot grow.", why="The disk is full.", todo="Free some space and try again. Nothing was changed."
        )
    if primary == sqlite3.SQLITE_CANTOPEN and not os.access(path.parent, os.W_OK):
        return UserError(
            f"{path} cannot be read where it is.",
            why=f"The folder is read-only, and the last changes are still in {path.name}-wal beside it.",
            todo="Copy the whole project to a folder you may write to.",
        )
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return UserError(
            f"{path} cannot be read or written.",
            why=str(error),
            todo="Check that the disk is there and that you may read and write the folder.",
        )
    return None


def _no_room(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < ROOM
    except OSError:
        return False
