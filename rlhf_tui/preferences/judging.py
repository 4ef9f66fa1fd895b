"""Showing a pair, taking the answer, and taking it back: nothing said is ever changed or removed."""

from __future__ import annotations

import uuid

from rlhf_tui.preferences import people, texts
from rlhf_tui.preferences.database import Database, Row, now
from rlhf_tui.preferences.identity import number
from rlhf_tui.preferences.records import OUTCOMES, HistoryEntry, Presentation


def present(db: Database, task_id: int, *, rater_id: int, session_id: int, layout: str) -> Presentation:
    """Record that a pair is about to be shown, then return it: the row is on disk before the answer.

    Sides depend on (project seed, task, rater's handle) only, so the same rater sees the same
    sides again. Raises ValueError when the task, the rater or the session does not exist.
    """
    rater = people.rater_by_id(db, rater_id)
    with db.transaction():
        task = db.row("SELECT * FROM task WHERE id = ?", task_id)
        session = db.row("SELECT rater_id FROM session WHERE id = ?", session_id)
        if task is None or session is None or session["rater_id"] != rater_id:
            raise ValueError(f"no task {task_id}, or session {session_id} is not of rater {rater_id}")
        sides = [task["first_id"], task["second_id"]]
        if number("sides", texts.seed_of(db), task["uid"], rater.handle) % 2:
            sides.reverse()
        presentation_id = add_presentation(
            db, task_id, rater_id=rater_id, session_id=session_id, left_id=sides[0], right_id=sides[1], layout=layout
        )
    return presentation(db, presentation_id)


def add_presentation(
    db: Database, task_id: int, *, rater_id: int, session_id: int | None, left_id: int, right_id: int, layout: str
) -> int:
    """Write what was shown, with the guideline in force. Call it inside a transaction."""
    return db.insert(
        """INSERT INTO presentation(task_id, rater_id, session_id, guideline_id, left_id, right_id, layout, shown_at)
        SELECT ?, ?, ?, guideline_id, ?, ?, ?, ? FROM project""",
        task_id,
        rater_id,
        session_id,
        left_id,
        right_id,
        layout,
        now(),
    )


def presentation(db: Database, presentation_id: int) -> Presentation:
    """A presentation that is known to exist."""
    (row,) = db.rows(
        """SELECT p.id, p.task_id, p.left_id, p.right_id, t.prompt_id
        FROM presentation p JOIN task t ON t.id = p.task_id WHERE p.id = ?""",
        presentation_id,
    )
    return Presentation(
        row["id"],
        row["task_id"],
        texts.prompt(db, row["prompt_id"]),
        texts.completion(db, row["left_id"]),
        texts.completion(db, row["right_id"]),
    )


def judge(
    db: Database,
    presentation_id: int,
    *,
    outcome: str,
    winner_id: int | None,
    strength: int,
    note: str,
    latency_ms: int | None,
    uid: str | None = None,
) -> int:
    """Record an answer; return its id. A later answer of the same rater to the same task replaces it.

    `winner_id` is the better completion's id and given only for 'ordered'; `strength` (1 better,
    2 much better) counts only there. Raises ValueError for an answer that makes no sense.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"unknown outcome {outcome!r}")
    if (outcome == "ordered") != (winner_id is not None):
        raise ValueError("a winner is given for 'ordered' and for nothing else")
    if strength not in (1, 2):
        raise ValueError(f"strength is 1 or 2, not {strength!r}")
    texts.check_text(note)
    with db.transaction():
        shown = db.row("SELECT task_id, rater_id, left_id, right_id FROM presentation WHERE id = ?", presentation_id)
        if shown is None:
            raise ValueError(f"no presentation {presentation_id}")
        if winner_id is not None and winner_id not in (shown["left_id"], shown["right_id"]):
            raise ValueError(f"completion {winner_id} was not shown in presentation {presentation_id}")
        return db.insert(
            """INSERT INTO judgement(uid, presentation_id, task_id, rater_id, outcome, winner_id, strength, note,
            latency_ms, created_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            uid or uuid.uuid4().hex,
            presentation_id,
            shown["task_id"],
            shown["rater_id"],
            outcome,
            winner_id,
            strength if outcome == "ordered" else 0,
            note,
            latency_ms,
            now(),
        )


def undo(db: Database, rater_id: int) -> Presentation | None:
    """Take back the rater's newest active answer; return what to show again, or None.

    Goes back only over what was answered on screen, not over imported judgements. When the answer
    had replaced an older one to the same task, the older one holds again.
    """
    with db.transaction():
        newest = db.row(
            """SELECT j.id, j.presentation_id FROM active_judgement j JOIN presentation p ON p.id = j.presentation_id
            WHERE j.rater_id = ? AND p.session_id IS NOT NULL ORDER BY j.id DESC LIMIT 1""",
            rater_id,
        )
        return None if newest is None else _revise(db, newest, "undo", rater_id)


def redo(db: Database, rater_id: int) -> Presentation | None:
    """Let the answer that was taken back last hold again; return its presentation, or None.

    As in an editor, a new answer after an undo ends redo.
    """
    with db.transaction():
        undone = db.row(
            """SELECT j.id, j.presentation_id FROM revision r JOIN judgement j ON j.id = r.judgement_id
            WHERE j.rater_id = ?1 AND r.action = 'undo' AND r.newest_judgement_id = ?2
            AND NOT EXISTS(SELECT 1 FROM revision later WHERE later.judgement_id = j.id AND later.id > r.id)
            ORDER BY r.id DESC LIMIT 1""",
            rater_id,
            _newest(db, rater_id),
        )
        return None if undone is None else _revise(db, undone, "redo", rater_id)


def _revise(db: Database, judgement: Row, action: str, rater_id: int) -> Presentation:
    db.insert(
        "INSERT INTO revision(judgement_id, action, newest_judgement_id, created_at) VALUES(?, ?, ?, ?)",
        judgement["id"],
        action,
        _newest(db, rater_id),
        now(),
    )
    return presentation(db, judgement["presentation_id"])


def _newest(db: Database, rater_id: int) -> int:
    return db.number("SELECT COALESCE(MAX(id), 0) FROM judgement WHERE rater_id = ?", rater_id)


def history(db: Database, rater_id: int, limit: int) -> list[HistoryEntry]:
    """The rater's last active answers given on screen, newest first."""
    rows = db.rows(
        """SELECT j.*, p.left_id, t.prompt_id FROM active_judgement j JOIN presentation p ON p.id = j.presentation_id
        JOIN task t ON t.id = j.task_id WHERE j.rater_id = ? AND p.session_id IS NOT NULL
        ORDER BY j.id DESC LIMIT ?""",
        rater_id,
        limit,
    )
    return [
        HistoryEntry(
            row["id"],
            row["task_id"],
            row["outcome"],
            None if row["winner_id"] is None else "left" if row["winner_id"] == row["left_id"] else "right",
            row["strength"],
            texts.prompt(db, row["prompt_id"]).text,
            row["note"],
        )
        for row in rows
    ]
