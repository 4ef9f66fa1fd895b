"""Taking over what another copy of a project holds: by uid, without loss and without doubles.

The other file is copied first and only the copy is touched, so that it may be of an older version and may
belong to somebody who is labelling right now. Scores are left behind: a reward model can make them again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.preferences import database
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.records import Merged

#: Copying a table: what tells its rows apart, the columns taken as they are, and those that name another table.
_TABLES: tuple[tuple[str, str, tuple[str, ...], dict[str, str]], ...] = (
    ("session", "uid", ("columns", "rows", "tool_version", "started_at", "ended_at"), {"rater_id": "rater"}),
    ("prompt", "uid", ("messages_json", "split", "source", "tags_json", "created_at"), {}),
    ("model", "uid", ("name", "kind", "sha", "facts_json", "created_at"), {}),
    ("generation", "sha256", ("temperature", "top_p", "max_new_tokens", "system_prompt"), {}),
    (
        "completion",
        "uid",
        ("seed", "characters", "n_tokens", "finish_reason", "created_at", "text"),
        {"prompt_id": "prompt", "model_id": "model", "generation_id": "generation"},
    ),
    ("task", "uid", ("kind", "round", "position", "created_at"), {"prompt_id": "prompt"}),
)


def merge(db: Database, other: Path) -> Merged:
    """Add every row of the store at `other` that this one does not hold. Raises UsageError when it is no store.

    The same rater (uid) stays one rater; another person of the same name gets a number behind it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = _copied(other, Path(folder))
        db.run("ATTACH DATABASE ? AS other", str(copy))
        try:
            with db.transaction():
                return _Merge(db).everything()
        finally:
            db.run("DETACH DATABASE other")


def _copied(other: Path, folder: Path) -> Path:
    """A copy of the file, of this program's version, without a journal beside it."""
    copy = folder / "other.db"
    database.require_file(other)
    beside = {ending: other.with_name(other.name + ending) for ending in ("-wal", "-shm")}
    if beside["-shm"].exists():
        # Somebody may have it open: SQLite knows how to read it meanwhile.
        source = Database(other, patience=5.0, mode="ro")
        try:
            source.copy_to(copy)
        finally:
            source.close()
    else:
        # Nobody has. Opening it would leave files of SQLite beside it, where perhaps nothing may be written.
        try:
            shutil.copyfile(other, copy)
            if beside["-wal"].exists():
                shutil.copyfile(beside["-wal"], copy.with_name(copy.name + "-wal"))
        except OSError as error:
            raise UserError(
                f"{other} cannot be copied.",
                why=str(error),
                todo="Check that you may read it and that there is room for a temporary copy. Nothing was changed.",
            ) from None
    try:
        database.open_existing(copy, patience=5.0).close()  # brings an older version up to date
    except UserError as error:
        raise type(error)(error.what.replace(str(copy), str(other)), why=error.why, todo=error.todo) from None
    return copy


class _Merge:
    """One merge, inside a transaction; `ids` maps the other store's ids of each table to ours."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._ids: dict[str, dict[int, int]] = {}
        self._added: dict[str, int] = {}
        self._renamed: dict[str, str] = {}

    def everything(self) -> Merged:
        self._guidelines()
        self._raters()
        for table, key, columns, references in _TABLES:
            self._table(table, key, columns, references)
        self._edits()
        self._task_items()
        self._near_duplicates()
        self._presentations()
        self._judgements()
        self._table("gold", "uid", ("created_at",), {"task_id": "task", "judgement_id": "judgement"})
        self._table("revision", "uid", ("action", "newest_uid", "created_at"), {"judgement_id": "judgement"})
        return Merged(
            self._added["prompt"],
            self._added["completion"],
            self._added["judgement"],
            self._added["rater"],
            self._renamed,
        )

    def _guidelines(self) -> None:
        """Texts are told apart by their hash; a text that is new here gets the next free version."""
        known = {row["sha256"]: row["id"] for row in self._db.rows("SELECT id, sha256 FROM main.guideline")}
        ids = {}
        for row in self._db.rows("SELECT * FROM other.guideline ORDER BY version"):
            if row["sha256"] not in known:
                known[row["sha256"]] = self._db.insert(
                    """INSERT INTO main.guideline(version, body_md, sha256, created_at)
                    SELECT COALESCE(MAX(version), 0) + 1, ?, ?, ? FROM main.guideline""",
                    row["body_md"],
                    row["sha256"],
                    row["created_at"],
                )
            ids[row["id"]] = known[row["sha256"]]
        self._ids["guideline"] = ids
        (theirs,) = self._db.rows("SELECT guideline_id FROM other.project")
        if theirs["guideline_id"] is not None:  # a project without a guideline takes over the other's
            mine = ids[theirs["guideline_id"]]
            self._db.run("UPDATE main.project SET guideline_id = ? WHERE guideline_id IS NULL", mine)

    def _raters(self) -> None:
        known = {row["uid"]: row["id"] for row in self._db.rows("SELECT id, uid FROM main.rater")}
        handles = {row["handle"] for row in self._db.rows("SELECT handle FROM main.rater")}
        ids, added = {}, 0
        for row in self._db.rows("SELECT * FROM other.rater ORDER BY id"):
            if row["uid"] not in known:
                handle = _free(row["handle"], handles)
                if handle != row["handle"]:
                    self._renamed[row["handle"]] = handle
                handles.add(handle)
                known[row["uid"]] = self._db.insert(
                    """INSERT INTO main.rater(uid, handle, kind, card_json, consent, created_at)
                    VALUES(?, ?, ?, ?, ?, ?)""",
                    row["uid"],
                    handle,
                    row["kind"],
                    row["card_json"],
                    row["consent"],
                    row["created_at"],
                )
                added += 1
            elif not row["consent"]:  # withdrawn in one copy, it must not live on in the other
                self._db.run("UPDATE main.rater SET consent = 0 WHERE uid = ?", row["uid"])
            ids[row["id"]] = known[row["uid"]]
        self._ids["rater"], self._added["rater"] = ids, added

    def _table(self, table: str, key: str, columns: tuple[str, ...], references: dict[str, str]) -> None:
        """Insert the rows whose key is new here, with what they refer to translated into our ids."""
        known = {row[key]: row["id"] for row in self._db.rows(f"SELECT id, {key} FROM main.{table}")}
        names = (key, *columns, *references)
        places = ", ".join("?" * len(names))
        insert = f"INSERT INTO main.{table}({', '.join(names)}) VALUES({places})"
        ids, added = {}, 0
        for row in self._db.rows(f"SELECT id, {', '.join(names)} FROM other.{table} ORDER BY id"):
            if row[key] not in known:
                translated = (
                    None if row[name] is None else self._ids[of][row[name]] for name, of in references.items()
                )
                known[row[key]] = self._db.insert(insert, *(row[name] for name in (key, *columns)), *translated)
                added += 1
            ids[row["id"]] = known[row[key]]
        self._ids[table], self._added[table] = ids, added

    def _edits(self) -> None:
        completion = self._ids["completion"]
        for row in self._db.rows("SELECT id, edited_from FROM other.completion WHERE edited_from IS NOT NULL"):
            self._db.run(
                "UPDATE main.completion SET edited_from = ? WHERE id = ? AND edited_from IS NULL",
                completion[row["edited_from"]],
                completion[row["id"]],
            )

    def _task_items(self) -> None:
        for row in self._db.rows("SELECT * FROM other.task_item"):
            self._db.run(
                "INSERT OR IGNORE INTO main.task_item(task_id, slot, completion_id) VALUES(?, ?, ?)",
                self._ids["task"][row["task_id"]],
                row["slot"],
                self._ids["completion"][row["completion_id"]],
            )

    def _near_duplicates(self) -> None:
        completion = self._ids["completion"]
        for row in self._db.rows("SELECT * FROM other.near_duplicate"):
            self._db.run(
                "INSERT OR IGNORE INTO main.near_duplicate(completion_id, like_id, similarity) VALUES(?, ?, ?)",
                completion[row["completion_id"]],
                completion[row["like_id"]],
                row["similarity"],
            )

    def _presentations(self) -> None:
        known = {row["uid"]: row["id"] for row in self._db.rows("SELECT id, uid FROM main.presentation")}
        ids = {}
        for row in self._db.rows("SELECT * FROM other.presentation ORDER BY id"):
            if row["uid"] not in known:
                order = [self._ids["completion"][completion_id] for completion_id in json.loads(row["order_json"])]
                session, guideline = row["session_id"], row["guideline_id"]
                known[row["uid"]] = self._db.insert(
                    """INSERT INTO main.presentation(uid, task_id, rater_id, session_id, guideline_id, purpose,
                    order_json, layout, selection, predicted, shown_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                    row["uid"],
                    self._ids["task"][row["task_id"]],
                    self._ids["rater"][row["rater_id"]],
                    None if session is None else self._ids["session"][session],
                    None if guideline is None else self._ids["guideline"][guideline],
                    row["purpose"],
                    json.dumps(order, separators=(",", ":")),
                    row["layout"],
                    row["selection"],
                    row["predicted"],
                    row["shown_at"],
                )
            ids[row["id"]] = known[row["uid"]]
        self._ids["presentation"] = ids

    def _judgements(self) -> None:
        known = {row["uid"] for row in self._db.rows("SELECT uid FROM main.judgement")}
        new = [row["id"] for row in self._db.rows("SELECT id, uid FROM other.judgement") if row["uid"] not in known]
        self._table(
            "judgement",
            "uid",
            ("purpose", "outcome", "strength", "note", "flags_json", "latency_ms", "created_at"),
            {"presentation_id": "presentation", "task_id": "task", "rater_id": "rater"},
        )
        for row in self._db.rows(
            """SELECT * FROM other.judgement_item WHERE judgement_id IN(SELECT value FROM json_each(?))
            ORDER BY judgement_id, place""",
            json.dumps(new),
        ):
            self._db.insert(
                """INSERT INTO main.judgement_item(judgement_id, place, completion_id, rank, rating, accepted)
                VALUES(?, ?, ?, ?, ?, ?)""",
                self._ids["judgement"][row["judgement_id"]],
                row["place"],
                self._ids["completion"][row["completion_id"]],
                row["rank"],
                row["rating"],
                row["accepted"],
            )


def _free(handle: str, taken: set[str]) -> str:
    candidate, number = handle, 2
    while candidate in taken:
        candidate, number = f"{handle}-{number}", number + 1
    return candidate
