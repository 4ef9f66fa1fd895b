"""What the judgements amount to: with their texts, without them, as the pairs training reads, counted, hashed."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rlhf_tui.preferences import people, tasks, texts
from rlhf_tui.preferences.database import Database, Row
from rlhf_tui.preferences.records import (
    DECIDED,
    SPLITS,
    Completion,
    Counts,
    Fact,
    HistoryEntry,
    Judged,
    LabelledPair,
    Prompt,
    Rater,
    Verdict,
)

_ITEMS = """SELECT i.judgement_id, i.place, i.completion_id, i.rank, i.rating, i.accepted, c.characters
  FROM judgement_item i JOIN completion c ON c.id = i.completion_id"""
_FACTS = """SELECT j.id, j.task_id, j.purpose, j.outcome, j.strength, j.latency_ms, j.created_at,
  t.kind, t.prompt_id, r.handle, p.selection, p.layout, p.predicted
  FROM active_judgement j JOIN presentation p ON p.id = j.presentation_id
  JOIN task t ON t.id = j.task_id JOIN rater r ON r.id = j.rater_id"""
_IN_TIME = "ORDER BY j.created_at, j.uid"


def verdict_of(outcome: str, strength: int, items: Sequence[Row]) -> Verdict:
    """The verdict that a judgement's row and its items (by place) hold."""
    return Verdict(
        outcome,
        ranks=tuple(item["rank"] for item in items if item["rank"] is not None),
        ratings=tuple(item["rating"] for item in items if item["rating"] is not None),
        accepted=tuple(bool(item["accepted"]) for item in items) if outcome == "accepted" else (),
        strength=strength,
    )


def facts(db: Database, rater_id: int | None = None) -> list[Fact]:
    """Active judgements without their texts, skips and repeats included, in the order they were given."""
    items = _grouped(db, rater_id)
    return [
        _as_fact(row, items.get(row["id"], []))
        for row in db.rows(f"{_FACTS} WHERE ?1 IS NULL OR j.rater_id = ?1 {_IN_TIME}", rater_id)
    ]


def answer(db: Database, rater_id: int, task_id: int, purpose: str) -> Fact | None:
    """The active answer of a rater to a task, or None."""
    row = db.row(f"{_FACTS} WHERE j.rater_id = ? AND j.task_id = ? AND j.purpose = ?", rater_id, task_id, purpose)
    return None if row is None else _as_fact(row, _items(db, row["id"]))


def _items(db: Database, judgement_id: int) -> list[Row]:
    return db.rows(f"{_ITEMS} WHERE i.judgement_id = ? ORDER BY i.place", judgement_id)


def _grouped(db: Database, rater_id: int | None) -> Mapping[int, list[Row]]:
    """The items of all judgements (of one rater), by judgement."""
    of_rater = "WHERE i.judgement_id IN(SELECT id FROM judgement WHERE rater_id = ?)" if rater_id is not None else ""
    values = () if rater_id is None else (rater_id,)
    found = db.rows(f"{_ITEMS} {of_rater} ORDER BY i.judgement_id, i.place", *values)
    return {key: list(group) for key, group in itertools.groupby(found, key=lambda row: int(row["judgement_id"]))}


def _as_fact(row: Row, items: Sequence[Row]) -> Fact:
    return Fact(
        row["id"],
        row["task_id"],
        row["prompt_id"],
        row["handle"],
        row["kind"],
        row["purpose"],
        row["selection"],
        verdict_of(row["outcome"], row["strength"], items),
        tuple(item["completion_id"] for item in items),
        tuple(item["characters"] for item in items),
        row["layout"],
        row["latency_ms"],
        row["predicted"],
        row["created_at"],
    )


def history(db: Database, rater_id: int, limit: int) -> list[HistoryEntry]:
    """The rater's last active answers given on screen, newest first."""
    rows = db.rows(
        """SELECT j.*, t.kind, t.prompt_id, p.selection,
        EXISTS(SELECT 1 FROM gold_answer g WHERE g.judgement_id = j.id) AS gold
        FROM active_judgement j JOIN presentation p ON p.id = j.presentation_id JOIN task t ON t.id = j.task_id
        WHERE j.rater_id = ? AND p.session_id IS NOT NULL ORDER BY j.created_at DESC, j.uid DESC LIMIT ?""",
        rater_id,
        limit,
    )
    return [
        HistoryEntry(
            row["id"],
            row["task_id"],
            row["kind"],
            row["purpose"],
            verdict_of(row["outcome"], row["strength"], _items(db, row["id"])),
            texts.prompt(db, row["prompt_id"]).text,
            row["note"],
            tuple(json.loads(row["flags_json"])),
            bool(row["gold"]),
            row["selection"],
            row["created_at"],
        )
        for row in rows
    ]


def judgements(db: Database, rater_id: int | None = None, split: str | None = None) -> list[Judged]:
    """Active judgements with their texts, skips and repeats included, in the order they were given."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split {split!r}")
    prompts = {prompt.id: prompt for prompt in texts.prompts(db, split)}
    raters = {rater.id: rater for rater in people.raters(db)}
    rows = db.rows(
        f"""SELECT j.*, t.kind, t.prompt_id, p.order_json, p.layout FROM active_judgement j
        JOIN presentation p ON p.id = j.presentation_id JOIN task t ON t.id = j.task_id
        WHERE ?1 IS NULL OR j.rater_id = ?1 {_IN_TIME}""",
        rater_id,
    )
    rows = [row for row in rows if row["prompt_id"] in prompts]
    orders = [json.loads(row["order_json"]) for row in rows]
    candidates = _completions(db, {completion_id for order in orders for completion_id in order})
    items = _grouped(db, rater_id)
    return [
        Judged(
            row["id"],
            row["uid"],
            row["task_id"],
            row["kind"],
            row["purpose"],
            prompts[row["prompt_id"]],
            tuple(candidates[completion_id] for completion_id in order),
            verdict_of(row["outcome"], row["strength"], items.get(row["id"], [])),
            row["note"],
            tuple(json.loads(row["flags_json"])),
            raters[row["rater_id"]],
            row["layout"],
            row["latency_ms"],
            row["created_at"],
        )
        for row, order in zip(rows, orders, strict=True)
    ]


def _completions(db: Database, wanted: set[int]) -> dict[int, Completion]:
    """The completions of these ids; ids go in as JSON, because SQLite bounds the number of parameters."""
    ids = json.dumps(sorted(wanted))
    return {
        row["id"]: Completion(*row)
        for row in db.rows(f"{texts.COMPLETIONS} WHERE c.id IN(SELECT value FROM json_each(?))", ids)
    }


def pairs(db: Database, split: str | None = None) -> list[LabelledPair]:
    """What training reads: every pair that the active judgements imply, ties included, repeats left out."""
    return list(as_pairs(judgements(db, split=split)))


def as_pairs(judged: Iterable[Judged]) -> Iterator[LabelledPair]:
    """The pairs of each judgement that is no repeat, the better candidate first; in a tie the one shown first."""
    for one in judged:
        if one.purpose == "label":
            weight = 1.0 / max(len(one.shown) - 1, 1)
            for better, worse, strength in preferences(one.verdict):
                yield LabelledPair(
                    one.prompt,
                    one.shown[better],
                    one.shown[worse],
                    strength == 0,
                    strength,
                    weight,
                    one.rater.handle,
                    one.id,
                )


def preferences(verdict: Verdict) -> Iterator[tuple[int, int, int]]:
    """(better, worse, strength) by place for every pair a verdict implies; strength 0 is a tie.

    Ratings two or more apart are strength 2. Of accepted and rejected candidates only those of different
    kind make a pair: two accepted ones need not be equally good.
    """
    values = verdict.ranks or tuple(-rating for rating in verdict.ratings) or tuple(not yes for yes in verdict.accepted)
    for one, other in itertools.combinations(range(len(values)), 2):
        gap = values[other] - values[one]
        better, worse = (one, other) if gap >= 0 else (other, one)
        if gap:
            yield better, worse, verdict.strength or (2 if verdict.ratings and abs(gap) >= 2 else 1)
        elif not verdict.accepted:
            yield better, worse, 0


def counts(db: Database, rater_id: int | None = None) -> Counts:
    """How much there is of everything; judgements of one rater if named."""
    splits = {row["split"]: row["n"] for row in db.rows("SELECT split, COUNT(*) AS n FROM prompt GROUP BY split")}
    said = {
        (row["purpose"], row["kind"], row["outcome"]): int(row["n"])
        for row in db.rows(
            """SELECT j.purpose, t.kind, j.outcome, COUNT(*) AS n
            FROM active_judgement j JOIN task t ON t.id = j.task_id
            WHERE ?1 IS NULL OR j.rater_id = ?1 GROUP BY j.purpose, t.kind, j.outcome""",
            rater_id,
        )
    }

    def total(*kinds: str, outcomes: Sequence[str] = ("ordered", "tie", "both_bad")) -> int:
        return sum(said.get(("label", kind, outcome), 0) for kind in kinds for outcome in outcomes)

    rankings, ratings = total("rank"), total("rate", outcomes=["rated"])
    acceptances = total("accept", outcomes=["accepted"])
    everything = ("pair", "rank", "rate", "accept")
    return Counts(
        prompts=sum(splits.values()),
        train=splits.get("train", 0),
        heldout=splits.get("heldout", 0),
        completions=db.number("SELECT COUNT(*) FROM completion"),
        near_duplicates=db.number("SELECT COUNT(*) FROM near_duplicate"),
        pairs_waiting=db.number(f"SELECT COUNT(*) {_WAITING}", rater_id),
        judgements=total("pair") + rankings + ratings + acceptances,
        pairs=total("pair", outcomes=["ordered"]),
        ties=total("pair", outcomes=["tie"]),
        both_bad=total("pair", outcomes=["both_bad"]),
        rankings=rankings,
        ratings=ratings,
        acceptances=acceptances,
        repeats=sum(n for (purpose, _, outcome), n in said.items() if purpose == "repeat" and outcome in DECIDED),
        skipped=total(*everything, outcomes=["skip"]),
        discarded=total(*everything, outcomes=["discard"]),
        raters=_raters(db, rater_id),
    )


_WAITING = """FROM task t WHERE t.kind = 'pair' AND t.position >= 0 AND t.id NOT IN(
  SELECT j.task_id FROM active_judgement j WHERE j.outcome <> 'skip' AND j.purpose = 'label'
  AND (j.rater_id = ?1 OR (?1 IS NULL AND j.outcome <> 'discard')))"""


def waiting_pairs(db: Database, limit: int) -> list[tuple[Prompt, tuple[Completion, ...]]]:
    """At most `limit` pairs nobody has decided: the first of every prompt, then the second ones, and so on.

    Within that a stable hash decides. A queue's order is another one: it goes by rater and by kind of prompt too.
    """
    return [
        (texts.prompt(db, row["prompt_id"]), tuple(tasks.members(db, row["id"])))
        for row in db.rows(f"SELECT t.id, t.prompt_id {_WAITING} ORDER BY t.round, t.position LIMIT ?2", None, limit)
    ]


def _raters(db: Database, rater_id: int | None) -> int:
    return db.number(
        """SELECT COUNT(DISTINCT rater_id) FROM active_judgement
        WHERE outcome NOT IN('skip', 'discard') AND (?1 IS NULL OR rater_id = ?1)""",
        rater_id,
    )


def gold(db: Database) -> dict[int, int]:
    """The tasks whose answer is known: task id to the id of the judgement that says it."""
    return {row["task_id"]: row["judgement_id"] for row in db.rows("SELECT task_id, judgement_id FROM gold_answer")}


def snapshot_hash(db: Database) -> str:
    """SHA-256 over the active judgements that training can read: what a run records as its labels."""
    digest = hashlib.sha256()
    for row in db.rows(
        """SELECT j.uid, j.outcome, j.strength, p.split, COALESCE((
            SELECT group_concat(said, ' ') FROM (
              SELECT c.uid || ':' || COALESCE(i.rank, '') || ':' || COALESCE(i.rating, '') || ':'
                || COALESCE(i.accepted, '') AS said
              FROM judgement_item i JOIN completion c ON c.id = i.completion_id
              WHERE i.judgement_id = j.id ORDER BY i.place)), '') AS items
        FROM active_judgement j JOIN task t ON t.id = j.task_id JOIN prompt p ON p.id = t.prompt_id
        WHERE j.purpose = 'label' AND j.outcome NOT IN('skip', 'discard') ORDER BY j.uid"""
    ):
        digest.update(f"{row['uid']} {row['outcome']} {row['strength']} {row['split']} {row['items']}\n".encode())
    return digest.hexdigest()


def judging_raters(db: Database) -> list[Rater]:
    """The raters who have said something, in the order they came."""
    said = {
        row[0] for row in db.rows("SELECT DISTINCT rater_id FROM judgement WHERE outcome NOT IN('skip', 'discard')")
    }
    return [rater for rater in people.raters(db) if rater.id in said]
