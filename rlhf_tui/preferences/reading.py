"""What the judgements amount to: the pairs training reads, the counts, and their hash."""

from __future__ import annotations

import hashlib

from rlhf_tui.preferences import texts
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.records import SPLITS, Completion, Counts, Judged, LabelledPair


def judgements(db: Database, rater_id: int | None = None, split: str | None = None) -> list[Judged]:
    """Active judgements, skips included, in the order they were given; of one rater or split if named."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split {split!r}")
    prompts = {prompt.id: prompt for prompt in texts.prompts(db, split)}
    candidates = {
        row["id"]: Completion(*row)
        for row in db.rows(
            f"""{texts.COMPLETIONS} JOIN prompt p ON p.id = c.prompt_id
            WHERE c.id IN(SELECT first_id FROM task UNION SELECT second_id FROM task)
            AND (?1 IS NULL OR p.split = ?1)""",
            split,
        )
    }
    rows = db.rows(
        """SELECT j.*, t.prompt_id, p.left_id, p.right_id, p.layout, r.handle FROM active_judgement j
        JOIN presentation p ON p.id = j.presentation_id JOIN task t ON t.id = j.task_id
        JOIN rater r ON r.id = j.rater_id WHERE ?1 IS NULL OR j.rater_id = ?1 ORDER BY j.id""",
        rater_id,
    )
    return [
        Judged(
            row["id"],
            row["uid"],
            row["task_id"],
            prompts[row["prompt_id"]],
            candidates[row["left_id"]],
            candidates[row["right_id"]],
            row["outcome"],
            row["winner_id"],
            row["strength"],
            row["note"],
            row["handle"],
            row["layout"],
            row["latency_ms"],
        )
        for row in rows
        if row["prompt_id"] in prompts
    ]


def pairs(db: Database, split: str | None = None) -> list[LabelledPair]:
    """What training reads: ordered pairs and ties, in the order they were judged."""
    return [as_pair(judged) for judged in judgements(db, split=split) if judged.outcome in ("ordered", "tie")]


def as_pair(judged: Judged) -> LabelledPair:
    """The better candidate first; in a tie the one that stood left."""
    left_wins = judged.winner_id in (None, judged.left.id)
    chosen, rejected = (judged.left, judged.right) if left_wins else (judged.right, judged.left)
    return LabelledPair(
        judged.prompt, chosen, rejected, judged.outcome == "tie", judged.strength, 1.0, judged.rater, judged.id
    )


def counts(db: Database, rater_id: int | None = None) -> Counts:
    """How much there is of everything; judgements of one rater if named."""
    splits = {row["split"]: row["n"] for row in db.rows("SELECT split, COUNT(*) AS n FROM prompt GROUP BY split")}
    outcomes = {
        row["outcome"]: row["n"]
        for row in db.rows(
            """SELECT outcome, COUNT(*) AS n FROM active_judgement WHERE ?1 IS NULL OR rater_id = ?1
            GROUP BY outcome""",
            rater_id,
        )
    }
    ordered, ties, bad = (outcomes.get(outcome, 0) for outcome in ("ordered", "tie", "both_bad"))
    return Counts(
        prompts=sum(splits.values()),
        train=splits.get("train", 0),
        heldout=splits.get("heldout", 0),
        completions=db.number("SELECT COUNT(*) FROM completion"),
        pairs_waiting=db.number(
            """SELECT COUNT(*) FROM task t WHERE NOT EXISTS(SELECT 1 FROM active_judgement j
            WHERE j.task_id = t.id AND j.outcome <> 'skip' AND (?1 IS NULL OR j.rater_id = ?1))""",
            rater_id,
        ),
        judgements=ordered + ties + bad,
        pairs=ordered,
        ties=ties,
        both_bad=bad,
        skipped=outcomes.get("skip", 0),
        raters=db.number(
            """SELECT COUNT(DISTINCT rater_id) FROM active_judgement
            WHERE outcome <> 'skip' AND (?1 IS NULL OR rater_id = ?1)""",
            rater_id,
        ),
    )


def snapshot_hash(db: Database) -> str:
    """SHA-256 over the active judgements that say something: what a run records as its labels."""
    digest = hashlib.sha256()
    for row in db.rows(
        """SELECT j.uid, j.outcome, COALESCE(c.uid, '') AS winner, j.strength, p.split FROM active_judgement j
        JOIN task t ON t.id = j.task_id JOIN prompt p ON p.id = t.prompt_id
        LEFT JOIN completion c ON c.id = j.winner_id WHERE j.outcome <> 'skip' ORDER BY j.uid"""
    ):
        digest.update(f"{row['uid']} {row['outcome']} {row['winner']} {row['strength']} {row['split']}\n".encode())
    return digest.hexdigest()
