"""Bringing a store of an older version up to date, whole or not at all, with a copy of the old file kept."""

from __future__ import annotations

import itertools
import os
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.identity import uid

if TYPE_CHECKING:
    from rlhf_tui.preferences.database import Database

#: Version 1 knew pairs only: their two candidates were columns of the task, and the winner one of the judgement.
#: Rows that had no uid get one made of what they say, so that two copies of a project migrate to the same uids.
_FROM_1 = """
INSERT INTO guideline SELECT * FROM old.guideline;
INSERT INTO project SELECT * FROM old.project;
INSERT INTO rater(id, uid, handle, kind, card_json, created_at)
  SELECT id, uid, handle, kind, card_json, created_at FROM old.rater;
INSERT INTO session SELECT s.id, uid_of('session', r.uid, s.id, s.started_at), s.rater_id, s.columns, s.rows,
  s.tool_version, s.started_at, s.ended_at FROM old.session s JOIN old.rater r ON r.id = s.rater_id;
INSERT INTO prompt SELECT * FROM old.prompt;
INSERT INTO model SELECT * FROM old.model;
INSERT INTO generation SELECT * FROM old.generation;
INSERT INTO completion(id, uid, prompt_id, model_id, generation_id, seed, characters, n_tokens, finish_reason,
  created_at, text)
  SELECT id, uid, prompt_id, model_id, generation_id, seed, length_of(text), n_tokens, finish_reason, created_at, text
  FROM old.completion;
INSERT INTO task SELECT t.id, t.uid, 'pair', t.prompt_id,
  (SELECT COUNT(*) FROM old.task e WHERE e.prompt_id = t.prompt_id AND e.id < t.id), t.position, t.created_at
  FROM old.task t;
INSERT INTO task_item SELECT id, 0, first_id FROM old.task UNION ALL SELECT id, 1, second_id FROM old.task;
INSERT INTO presentation(id, uid, task_id, rater_id, session_id, guideline_id, purpose, order_json, layout, selection,
  shown_at)
  SELECT p.id, uid_of('presentation', t.uid, r.uid, p.id, p.shown_at), p.task_id, p.rater_id, p.session_id,
    p.guideline_id, 'label', '[' || p.left_id || ',' || p.right_id || ']', p.layout,
    CASE WHEN p.session_id IS NULL THEN 'import' ELSE 'random' END, p.shown_at
  FROM old.presentation p JOIN old.task t ON t.id = p.task_id JOIN old.rater r ON r.id = p.rater_id;
INSERT INTO judgement(id, uid, presentation_id, task_id, rater_id, purpose, outcome, strength, note, latency_ms,
  created_at)
  SELECT j.id, j.uid, j.presentation_id, j.task_id, j.rater_id, 'label', j.outcome, j.strength, j.note, j.latency_ms,
    apart(j.moment, ROW_NUMBER() OVER (PARTITION BY j.rater_id, j.moment ORDER BY j.id))
  FROM (SELECT *, MAX(created_at) OVER (PARTITION BY rater_id ORDER BY id) AS moment FROM old.judgement) j
  ORDER BY j.id;
INSERT INTO judgement_item(judgement_id, place, completion_id, rank, accepted)
  SELECT j.id, place, CASE place WHEN 0 THEN p.left_id ELSE p.right_id END,
    CASE j.outcome WHEN 'tie' THEN 1
      WHEN 'ordered' THEN CASE WHEN (j.winner_id = p.left_id) = (place = 0) THEN 1 ELSE 2 END END,
    CASE j.outcome WHEN 'both_bad' THEN 0 END
  FROM old.judgement j JOIN old.presentation p ON p.id = j.presentation_id
  JOIN (SELECT 0 AS place UNION ALL SELECT 1) WHERE j.outcome <> 'skip';
INSERT INTO revision(id, uid, judgement_id, action, newest_uid, created_at)
  SELECT v.id, uid_of('revision', j.uid, v.action, v.id, v.created_at), v.judgement_id, v.action,
    COALESCE((SELECT n.uid FROM old.judgement n WHERE n.id = v.newest_judgement_id), ''),
    apart(v.moment, ROW_NUMBER() OVER (PARTITION BY v.moment ORDER BY v.id))
  FROM (SELECT *, MAX(created_at) OVER (ORDER BY id) AS moment FROM old.revision) v
  JOIN old.judgement j ON j.id = v.judgement_id;
"""
_STEPS = {1: _FROM_1}


def upgrade(db: Database, version: int, schema: str) -> None:
    """Turn a store of `version` into one of this program's, which `schema` makes; a copy of it stays beside.

    Raises UserError when another program keeps writing to it, or there is no room for the copy.
    """
    if version not in _STEPS:
        raise UsageError(
            f"{db.path} cannot be brought up to date.",
            why=f"Its version {version} is none that rlhf-tui ever wrote.",
            todo="Restore the file from a backup.",
        )
    copy = db.path.with_name(f"{db.path.name}.{os.getpid()}")
    db.changed()
    try:
        db.copy_to(copy)
        db.function("uid_of", lambda *parts: uid(*parts))
        db.function("length_of", len)
        db.function("apart", _apart)
        db.run("PRAGMA foreign_keys = OFF")  # tables are dropped in any order; the copied rows are checked at the end
        db.run("ATTACH DATABASE ? AS old", str(copy))
        try:
            with db.transaction():
                if db.number("PRAGMA main.user_version") != version:
                    return  # another program was faster
                _rebuild(db, version, schema)
                os.replace(copy, _free(db.path.with_name(f"{db.path.name}.version-{version}")))
        finally:
            db.run("DETACH DATABASE old")
            db.run("PRAGMA foreign_keys = ON")
    except OSError as error:
        raise UserError(
            f"{db.path} cannot be brought up to date.",
            why=f"Its copy cannot be kept: {error.strerror or error}.",
            todo="See that there is room and that you may write to the folder. Nothing was changed.",
        ) from None
    finally:
        copy.unlink(missing_ok=True)


def _rebuild(db: Database, version: int, schema: str) -> None:
    if db.changed():
        raise UserError(
            f"{db.path} is being written to.",
            why="It has to be brought up to date, which no other program may disturb.",
            todo="Close other rlhf-tui programs of this project and wait for its runs, then try again.",
        )
    _empty(db)
    for statement in (*_statements(schema), *_statements(_STEPS[version])):
        db.run(statement)
    if db.row("PRAGMA main.foreign_key_check") is not None:
        raise UserError(
            f"{db.path} cannot be brought up to date.",
            why="Some of its rows name others that do not exist.",
            todo="Try 'sqlite3 preferences.db .recover'. Nothing was changed.",
        )


def _apart(moment: str, number: int) -> str:
    """Moments in milliseconds that are equal, told apart by microseconds in their order."""
    if number == 1:
        return moment
    return (datetime.fromisoformat(moment) + timedelta(microseconds=number - 1)).isoformat(timespec="microseconds")


def _free(path: Path) -> Path:
    """The path, or one with a number behind it when there is a file already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not one.exists())


def _empty(db: Database) -> None:
    for kind in ("trigger", "view", "table"):
        for row in db.rows("SELECT name FROM main.sqlite_master WHERE type = ?", kind):
            db.run(f"DROP {kind.upper()} main.{row[0]}")


def _statements(script: str) -> list[str]:
    """The statements of a script. Not `executescript`, which would commit the transaction they belong to."""
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return [statement for statement in found if statement]
