"""Showing candidates, taking the verdict, and taking it back: nothing said is ever changed or removed."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Sequence

from rlhf_tui.preferences import people, tasks, texts
from rlhf_tui.preferences.database import Database, Row, after, now
from rlhf_tui.preferences.identity import number
from rlhf_tui.preferences.records import DECIDED, FLAGS, Completion, NewCompletion, Presentation, Verdict, prefer

_OUTCOMES = {
    "pair": ("ordered", "tie", "both_bad", "skip", "discard"),
    "rank": ("ordered", "tie", "both_bad", "skip", "discard"),
    "rate": ("rated", "skip", "discard"),
    "accept": ("accepted", "skip", "discard"),
}
#: The rater's answers given on screen that stand, newest first.
_GIVEN = """judgement j JOIN presentation p ON p.id = j.presentation_id
  WHERE j.rater_id = ?1 AND p.session_id IS NOT NULL AND j.id NOT IN(SELECT judgement_id FROM undone)"""
_NEWEST_FIRST = "ORDER BY j.created_at DESC, j.uid DESC"


# Showing


def present(
    db: Database, task_id: int, *, rater_id: int, session_id: int, layout: str, purpose: str, selection: str
) -> Presentation:
    """Record that candidates are about to be shown, then return them: the row is on disk before the answer.

    The first time, the order is a stable hash's choice; after that this rater always sees the same one,
    and for a repeat its reverse. Raises ValueError when the task, the rater or the session does not exist.
    """
    rater = people.rater_by_id(db, rater_id)
    with db.transaction():
        task = db.row("SELECT * FROM task WHERE id = ?", task_id)
        session = db.row("SELECT rater_id FROM session WHERE id = ?", session_id)
        if task is None or session is None or session["rater_id"] != rater_id:
            raise ValueError(f"no task {task_id}, or session {session_id} is not of rater {rater_id}")
        members = {member.id: member for member in tasks.members(db, task_id)}
        order = _shown_before(db, task_id, rater_id)
        if order is None:
            seed = texts.seed_of(db)
            order = sorted(members, key=lambda i: number("order", seed, task["uid"], rater.uid, members[i].uid))
        if purpose == "repeat":
            order.reverse()
        presentation_id = add_presentation(
            db,
            task_id,
            rater_id=rater_id,
            session_id=session_id,
            purpose=purpose,
            order=order,
            layout=layout,
            selection=selection,
        )
    return presentation(db, presentation_id)


def _shown_before(db: Database, task_id: int, rater_id: int) -> list[int] | None:
    """The order in which this rater saw the candidates first, if ever."""
    row = db.row(
        """SELECT order_json FROM presentation WHERE task_id = ? AND rater_id = ? AND purpose = 'label'
        AND session_id IS NOT NULL ORDER BY shown_at, id LIMIT 1""",
        task_id,
        rater_id,
    )
    return None if row is None else list(json.loads(row["order_json"]))


def add_presentation(
    db: Database,
    task_id: int,
    *,
    rater_id: int,
    session_id: int | None,
    purpose: str,
    order: Sequence[int],
    layout: str,
    selection: str,
) -> int:
    """Write what was shown, with the guideline in force and what the reward model expects. In a transaction."""
    return db.insert(
        """INSERT INTO presentation(uid, task_id, rater_id, session_id, guideline_id, purpose, order_json, layout,
        selection, predicted, shown_at) SELECT ?, ?, ?, ?, guideline_id, ?, ?, ?, ?, ?, ? FROM project""",
        uuid.uuid4().hex,
        task_id,
        rater_id,
        session_id,
        purpose,
        json.dumps(list(order), separators=(",", ":")),
        layout,
        selection,
        _predicted(db, order),
        now(),
    )


def _predicted(db: Database, order: Sequence[int]) -> float | None:
    """The reward model's probability that the first of a pair is better (Bradley-Terry), if it has scored both."""
    if len(order) != 2:
        return None
    found = {
        row["completion_id"]: row["score"]
        for row in db.rows("SELECT completion_id, score FROM score WHERE completion_id IN(?, ?)", *order)
    }
    if len(found) < 2:
        return None
    gap = found[order[0]] - found[order[1]]
    return 0.5 * (1.0 + math.tanh(gap / 2))  # the logistic function, without overflow


def presentation(db: Database, presentation_id: int) -> Presentation:
    """A presentation that is known to exist."""
    (row,) = db.rows(
        """SELECT p.id, p.task_id, t.kind, p.purpose, p.selection, p.order_json, t.prompt_id
        FROM presentation p JOIN task t ON t.id = p.task_id WHERE p.id = ?""",
        presentation_id,
    )
    return Presentation(
        row["id"],
        row["task_id"],
        row["kind"],
        row["purpose"],
        row["selection"],
        texts.prompt(db, row["prompt_id"]),
        tuple(texts.completion(db, completion_id) for completion_id in json.loads(row["order_json"])),
    )


# Answering


def judge(
    db: Database,
    presentation_id: int,
    verdict: Verdict,
    *,
    note: str,
    flags: Sequence[str],
    latency_ms: int | None,
    uid: str | None = None,
) -> int:
    """Record a verdict, in the order of what was shown; return its id.

    A later answer of the same rater to the same task replaces it. Raises ValueError for a verdict that
    makes no sense, UsageError for a note that cannot be stored.
    """
    texts.check_text(note)
    unknown = [flag for flag in flags if flag not in FLAGS]
    if unknown:
        raise ValueError(f"unknown flags {unknown}")
    with db.transaction():
        shown = db.row(
            """SELECT p.task_id, p.rater_id, p.purpose, p.order_json, t.kind
            FROM presentation p JOIN task t ON t.id = p.task_id WHERE p.id = ?""",
            presentation_id,
        )
        if shown is None:
            raise ValueError(f"no presentation {presentation_id}")
        order = json.loads(shown["order_json"])
        check_verdict(verdict, shown["kind"], len(order))
        judgement_id = db.insert(
            """INSERT INTO judgement(uid, presentation_id, task_id, rater_id, purpose, outcome, strength, note,
            flags_json, latency_ms, created_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            uid or uuid.uuid4().hex,
            presentation_id,
            shown["task_id"],
            shown["rater_id"],
            shown["purpose"],
            verdict.outcome,
            verdict.strength,
            note,
            json.dumps(sorted(set(flags))),
            latency_ms,
            after(_last(db, "judgement WHERE rater_id = ?", shown["rater_id"]), now()),
        )
        _add_items(db, judgement_id, order, verdict)
    return judgement_id


def _last(db: Database, rows: str, *values: int) -> str | None:
    (row,) = db.rows(f"SELECT MAX(created_at) AS newest FROM {rows}", *values)
    return None if row["newest"] is None else str(row["newest"])


def _add_items(db: Database, judgement_id: int, order: Sequence[int], verdict: Verdict) -> None:
    if verdict.outcome in ("skip", "discard"):
        return
    accepted = (False,) * len(order) if verdict.outcome == "both_bad" else verdict.accepted
    for place, completion_id in enumerate(order):
        db.insert(
            """INSERT INTO judgement_item(judgement_id, place, completion_id, rank, rating, accepted)
            VALUES(?, ?, ?, ?, ?, ?)""",
            judgement_id,
            place,
            completion_id,
            verdict.ranks[place] if verdict.ranks else None,
            verdict.ratings[place] if verdict.ratings else None,
            int(accepted[place]) if accepted else None,
        )


def check_verdict(verdict: Verdict, kind: str, candidates: int) -> None:
    """Raises ValueError unless the verdict is one that can be given to so many candidates of that kind."""
    if verdict.outcome not in _OUTCOMES[kind]:
        raise ValueError(f"{verdict.outcome!r} is no answer to a task of kind {kind!r}")
    needed = {"ordered": "ranks", "tie": "ranks", "rated": "ratings", "accepted": "accepted"}.get(verdict.outcome)
    for name in ("ranks", "ratings", "accepted"):
        if len(getattr(verdict, name)) != (candidates if name == needed else 0):
            raise ValueError(f"{verdict.outcome!r} of {candidates} candidates has {name} {getattr(verdict, name)}")
    levels = sorted(set(verdict.ranks))
    if levels != list(range(1, len(levels) + 1)) or (levels == [1]) != (verdict.outcome == "tie"):
        raise ValueError(f"{verdict.outcome!r} has ranks {verdict.ranks}")
    if not all(1 <= rating <= 5 for rating in verdict.ratings):
        raise ValueError(f"ratings are 1 to 5, not {verdict.ratings}")
    strengths = (1, 2) if verdict.outcome == "ordered" and kind == "pair" else (0,)
    if verdict.strength not in strengths:
        raise ValueError(f"{verdict.outcome!r} of a {kind} has strength {verdict.strength}")


def edit(db: Database, completion_id: int, text: str, *, rater_id: int, session_id: int) -> int:
    """Store a person's better version of a completion and the judgement that it is better; return the task's id.

    Raises UsageError for a text that is empty, unchanged or cannot be stored.
    """
    original = texts.completion(db, completion_id)
    texts.check_edit(original, text)
    rater = people.rater_by_id(db, rater_id)
    with db.transaction():
        # Named by uid: an export shows the author of a text, and may not show the handle.
        writer = texts.add_model(db, f"person-{rater.uid[:8]}", "human", sha=rater.uid, facts={})
        new = NewCompletion(original.prompt_id, writer, None, text, finish_reason="human", edited_from=original.id)
        (edited_id,) = texts.add_completions(db, [new])
        pair: list[Completion] = [texts.completion(db, edited_id), original]
        task_id = tasks.add_task(db, "pair", pair, position=tasks.OUT_OF_QUEUE)
        presentation_id = add_presentation(
            db,
            task_id,
            rater_id=rater_id,
            session_id=session_id,
            purpose="label",
            order=[edited_id, original.id],
            layout="unordered",
            selection="edit",
        )
        judge(db, presentation_id, prefer(0), note="", flags=(), latency_ms=None)
    return task_id


def mark_gold(db: Database, judgement_id: int) -> bool:
    """Declare this answer the known right one for its task, or no longer; True when it is gold now.

    Raises ValueError when there is no such judgement, or it says nothing.
    """
    with db.transaction():
        row = db.row("SELECT task_id, outcome FROM judgement WHERE id = ?", judgement_id)
        if row is None:
            raise ValueError(f"no judgement {judgement_id}")
        if row["outcome"] not in DECIDED:
            raise ValueError(f"judgement {judgement_id} says nothing that could be right")
        is_gold = db.row("SELECT 1 FROM gold_answer WHERE judgement_id = ?", judgement_id) is not None
        db.insert(
            "INSERT INTO gold(uid, task_id, judgement_id, created_at) VALUES(?, ?, ?, ?)",
            uuid.uuid4().hex,
            row["task_id"],
            None if is_gold else judgement_id,
            after(_last(db, "gold"), now()),
        )
    return not is_gold


# Taking back


def undo(db: Database, rater_id: int) -> Presentation | None:
    """Take back the rater's newest active answer; return what to show again, or None.

    Goes back only over what was answered on screen, not over imported judgements. When the answer
    had replaced an older one to the same task, the older one holds again.
    """
    with db.transaction():
        newest = db.row(f"SELECT j.id, j.presentation_id FROM {_GIVEN} {_NEWEST_FIRST} LIMIT 1", rater_id)
        return None if newest is None else _revise(db, newest, "undo", rater_id)


def redo(db: Database, rater_id: int) -> Presentation | None:
    """Let the answer that was taken back last hold again; return its presentation, or None.

    As in an editor, a new answer after an undo ends redo.
    """
    with db.transaction():
        undone = db.row(
            """SELECT j.id, j.presentation_id FROM revision r JOIN judgement j ON j.id = r.judgement_id
            WHERE j.rater_id = ?1 AND r.action = 'undo' AND r.newest_uid = ?2
            AND NOT EXISTS(SELECT 1 FROM revision later WHERE later.judgement_id = j.id
              AND (later.created_at, later.uid) > (r.created_at, r.uid))
            ORDER BY r.created_at DESC, r.uid DESC LIMIT 1""",
            rater_id,
            _newest(db, rater_id),
        )
        return None if undone is None else _revise(db, undone, "redo", rater_id)


def _revise(db: Database, judgement: Row, action: str, rater_id: int) -> Presentation:
    db.insert(
        "INSERT INTO revision(uid, judgement_id, action, newest_uid, created_at) VALUES(?, ?, ?, ?, ?)",
        uuid.uuid4().hex,
        judgement["id"],
        action,
        _newest(db, rater_id),
        after(_last(db, "revision"), now()),
    )
    return presentation(db, judgement["presentation_id"])


def _newest(db: Database, rater_id: int) -> str:
    row = db.row(f"SELECT j.uid FROM judgement j WHERE j.rater_id = ? {_NEWEST_FIRST} LIMIT 1", rater_id)
    return "" if row is None else str(row["uid"])


def reopen(db: Database, judgement_id: int) -> Presentation:
    """What was shown for a judgement, to answer it anew. Raises ValueError when there is no such judgement."""
    row = db.row("SELECT presentation_id FROM judgement WHERE id = ?", judgement_id)
    if row is None:
        raise ValueError(f"no judgement {judgement_id}")
    return presentation(db, row["presentation_id"])
