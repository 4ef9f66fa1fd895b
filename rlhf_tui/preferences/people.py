"""Who judges, when, and under which guideline."""

from __future__ import annotations

import json
import uuid
from typing import Any

import rlhf_tui
from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.database import Database, Row, now
from rlhf_tui.preferences.identity import uid
from rlhf_tui.preferences.records import Guideline, Rater

RATER_KINDS = ("human", "import", "rule", "model")
_GUIDELINE = "SELECT g.id, g.version, g.body_md, g.sha256 FROM guideline g"


def guideline(db: Database) -> Guideline | None:
    """The guideline in force, or None when none was ever set."""
    row = db.row(f"{_GUIDELINE} JOIN project p ON p.guideline_id = g.id")
    return None if row is None else Guideline(*row)


def set_guideline(db: Database, body_md: str) -> Guideline:
    """Put a guideline in force. A text that was in force before keeps its version."""
    sha = uid("guideline", body_md)
    with db.transaction():
        row = db.row(f"{_GUIDELINE} WHERE g.sha256 = ?", sha)
        if row is None:
            db.insert(
                """INSERT INTO guideline(version, body_md, sha256, created_at)
                SELECT COALESCE(MAX(version), 0) + 1, ?, ?, ? FROM guideline""",
                body_md,
                sha,
                now(),
            )
            (row,) = db.rows(f"{_GUIDELINE} WHERE g.sha256 = ?", sha)
        current = Guideline(*row)
        db.run("UPDATE project SET guideline_id = ?", current.id)
    return current


def add_rater(
    db: Database, handle: str, *, kind: str, card: dict[str, Any] | None, identity: str | None = None
) -> Rater:
    """The rater of that handle, made when new (with the uid `identity`, if given). A card replaces the one there.

    Raises UsageError for an empty handle and for a handle that is taken by another kind of rater.
    """
    _require_name(handle)
    if kind not in RATER_KINDS:
        raise ValueError(f"unknown kind of rater {kind!r}")
    with db.transaction():
        known = rater(db, handle)
        if known is not None and known.kind != kind:
            raise UsageError(
                f"The rater {handle!r} is of kind {known.kind!r}, not {kind!r}.", todo="Choose another name."
            )
        if known is None:
            db.insert(
                "INSERT INTO rater(uid, handle, kind, created_at) VALUES(?, ?, ?, ?)",
                identity or _new_uid(db, handle, kind),
                handle,
                kind,
                now(),
            )
        if card is not None:
            written = json.dumps(card, ensure_ascii=False, sort_keys=True)
            db.run("UPDATE rater SET card_json = ? WHERE handle = ?", written, handle)
        found = rater(db, handle)
    assert found is not None
    return found


def _require_name(handle: str) -> None:
    if not handle.strip():
        raise UsageError("A rater needs a name.", why="This one is empty.", todo="Any name will do: a nickname, too.")


def _new_uid(db: Database, handle: str, kind: str) -> str:
    """A person is one of a kind; a file, a rule or a model of the same name is the same in every project."""
    same = uid("rater", kind, handle)[:32]
    return uuid.uuid4().hex if kind == "human" or rater_by_uid(db, same) is not None else same


def rater(db: Database, handle: str) -> Rater | None:
    """The rater of that handle, or None."""
    row = db.row("SELECT * FROM rater WHERE handle = ?", handle)
    return None if row is None else _as_rater(row)


def raters(db: Database) -> list[Rater]:
    """Every rater, in the order they came."""
    return [_as_rater(row) for row in db.rows("SELECT * FROM rater ORDER BY id")]


def rater_by_id(db: Database, rater_id: int) -> Rater:
    """A rater that is known to exist. Raises ValueError otherwise."""
    row = db.row("SELECT * FROM rater WHERE id = ?", rater_id)
    if row is None:
        raise ValueError(f"no rater {rater_id}")
    return _as_rater(row)


def rater_by_uid(db: Database, identity: str) -> Rater | None:
    """The rater of that uid, or None."""
    row = db.row("SELECT * FROM rater WHERE uid = ?", identity)
    return None if row is None else _as_rater(row)


def set_consent(db: Database, rater_id: int, consent: bool) -> Rater:
    """Record whether the handle and the card of a rater may leave the project. Raises ValueError for no rater."""
    with db.transaction():
        db.run("UPDATE rater SET consent = ? WHERE id = ?", int(consent), rater_id)
        return rater_by_id(db, rater_id)


def rename_rater(db: Database, rater_id: int, handle: str) -> Rater:
    """Give a rater another handle; what they judged stays theirs.

    Raises UsageError for an empty handle or one that is taken, ValueError when there is no such rater.
    """
    _require_name(handle)
    with db.transaction():
        taken = rater(db, handle)
        if taken is not None and taken.id != rater_id:
            raise UsageError(f"There is a rater {handle!r} already.", todo="Choose another name.")
        db.run("UPDATE rater SET handle = ? WHERE id = ?", handle, rater_id)
        return rater_by_id(db, rater_id)


def _as_rater(row: Row) -> Rater:
    card = json.loads(row["card_json"])
    return Rater(row["id"], row["uid"], row["handle"], row["kind"], card, bool(row["consent"]))


def start_session(db: Database, rater_id: int, *, columns: int, rows: int) -> int:
    """Begin a sitting at a terminal of `columns` x `rows` characters; return its id."""
    with db.transaction():
        return db.insert(
            "INSERT INTO session(uid, rater_id, columns, rows, tool_version, started_at) VALUES(?, ?, ?, ?, ?, ?)",
            uuid.uuid4().hex,
            rater_by_id(db, rater_id).id,
            columns,
            rows,
            rlhf_tui.__version__,
            now(),
        )


def end_session(db: Database, session_id: int) -> None:
    """End a sitting; ending it twice changes nothing."""
    with db.transaction():
        db.run("UPDATE session SET ended_at = ? WHERE id = ? AND ended_at IS NULL", now(), session_id)
