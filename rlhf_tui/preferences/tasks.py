"""Which completions are offered together: in pairs, as a ranking, to be rated or accepted one by one.

Near-identical candidates teach nothing and end as ties, so only one of them is offered; the others are
counted in `near_duplicate`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from rlhf_tui.preferences import texts
from rlhf_tui.preferences.database import Database, now
from rlhf_tui.preferences.identity import number, uid
from rlhf_tui.preferences.records import KINDS, Completion

#: Scripts that are written without spaces, and emoji, count by character, everything else by what stands
#: between spaces and punctuation ("yes 👍" is not "yes 👎").
_UNSPACED = r"\u0e00-\u0eff\u2600-\u27bf\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U0001f000-\U0001faff"
_PUNCTUATION = (
    r"\s!-/:-@\[-`{-~\u00a1\u00ab\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3000-\u303f\uff01-\uff0f\uff1a-\uff20"
)
_TOKEN = re.compile(f"[{_UNSPACED}]|[^{_UNSPACED}{_PUNCTUATION}]+")

#: Below 1 by less than one word in any text: what is more alike has the same words.
SAME = 1.0 - 1e-9
#: The position of a task that only its maker is asked about: a person's own better version of a completion.
OUT_OF_QUEUE = -1


def similarity(one: str, other: str) -> float:
    """How much of their words two texts share, 0 to 1: Jaccard similarity of the two bags of words.

    A word counts as often as it stands there, so that a text that repeats itself is not like one that does not.
    Texts without words are compared by their signs.
    """
    words, others = _words(one), _words(other)
    union = (words | others).total()
    return (words & others).total() / union if union else 1.0


def _words(text: str) -> Counter[str]:
    return Counter(_TOKEN.findall(text.lower())) or Counter("".join(text.split()))


def make_tasks(db: Database, prompt_id: int, *, kind: str, size: int, max_similarity: float) -> int:
    """Offer the completions of a prompt together; return how many tasks of this kind are new.

    Empty texts and near-identical ones are left out, and so are those that a task of this kind offers
    already and those a person wrote. Pairs are made without reuse (floor(K/2) pairs), so that judgements
    spread over many texts; other kinds take `size` at a time, and a last group of at least two. Who meets
    whom is a stable hash's choice, but pairs across models or settings come first: they differ most.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of task {kind!r}")
    with db.transaction():
        fresh = _fresh(db, prompt_id, kind, max_similarity)
        seed = texts.seed_of(db)
        fresh.sort(key=lambda c: (number("pair", seed, c.uid), c.uid))
        groups: Iterable[Sequence[Completion]] = pair_up(fresh) if kind == "pair" else group_up(fresh, size)
        made = [add_task(db, kind, group) for group in groups]
    return len(made)


def _fresh(db: Database, prompt_id: int, kind: str, max_similarity: float) -> list[Completion]:
    """The completions that may be offered and are not yet; records those that are too like another one."""
    offered = {
        row[0]
        for row in db.rows(
            """SELECT i.completion_id FROM task_item i JOIN task t ON t.id = i.task_id
            WHERE t.prompt_id = ? AND t.kind = ? AND t.position >= 0""",
            prompt_id,
            kind,
        )
    }
    # What a stricter setting rejected gets another chance.
    db.run(
        """DELETE FROM near_duplicate WHERE similarity <= ?
        AND completion_id IN(SELECT id FROM completion WHERE prompt_id = ?)""",
        min(max_similarity, SAME),
        prompt_id,
    )
    rejected = {
        row[0]
        for row in db.rows(
            """SELECT n.completion_id FROM near_duplicate n JOIN completion c ON c.id = n.completion_id
            WHERE c.prompt_id = ?""",
            prompt_id,
        )
    }
    # Texts of an offered pair may be alike (an import said so); they still keep new copies out.
    usable = [c for c in texts.completions(db, prompt_id) if c.text.strip() and c.id not in rejected]
    kept: list[Completion] = [c for c in usable if c.id in offered]
    fresh: list[Completion] = []
    for candidate in usable:
        if candidate.id in offered or candidate.edited_from is not None:
            continue
        alike = _most_alike(candidate, kept)
        if alike is not None and alike[1] > min(max_similarity, SAME):
            db.insert(
                "INSERT INTO near_duplicate(completion_id, like_id, similarity) VALUES(?, ?, ?)",
                candidate.id,
                alike[0].id,
                alike[1],
            )
            continue
        kept.append(candidate)
        fresh.append(candidate)
    return fresh


def _most_alike(candidate: Completion, others: Sequence[Completion]) -> tuple[Completion, float] | None:
    scored = [(other, similarity(candidate.text, other.text)) for other in others]
    return max(scored, key=lambda one: one[1], default=None)


def near_duplicates(db: Database, completion_ids: Sequence[int]) -> int:
    """How many of these completions are offered to nobody, because they are too like another one."""
    return db.number(
        "SELECT COUNT(*) FROM near_duplicate WHERE completion_id IN(SELECT value FROM json_each(?))",
        json.dumps(list(completion_ids)),
    )


def pairs_with(db: Database, completion_ids: Sequence[int]) -> int:
    """How many pairs in the queue offer one of these completions, or two."""
    return db.number(
        """SELECT COUNT(DISTINCT t.id) FROM task t JOIN task_item i ON i.task_id = t.id
        WHERE t.kind = 'pair' AND t.position >= 0 AND i.completion_id IN(SELECT value FROM json_each(?))""",
        json.dumps(list(completion_ids)),
    )


def pair_up(candidates: Sequence[Completion]) -> list[tuple[Completion, Completion]]:
    """Disjoint pairs in the given order, across model and settings as long as two kinds are left."""
    kinds: dict[tuple[str, int | None], list[Completion]] = {}
    for candidate in candidates:
        kinds.setdefault((candidate.model, candidate.generation_id), []).append(candidate)
    couples = []
    for _ in range(len(candidates) // 2):
        # Taking from the two largest heaps leaves the fewest pairs within one kind; sorted() is stable.
        largest, *others = sorted((heap for heap in kinds.values() if heap), key=len, reverse=True)
        couples.append((largest.pop(0), (others[0] if others else largest).pop(0)))
    return couples


def group_up(candidates: Sequence[Completion], size: int) -> list[Sequence[Completion]]:
    """Groups of `size` in the given order; the rest is a group too when it has at least two."""
    groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    return [group for group in groups if len(group) >= 2]


def add_task(db: Database, kind: str, candidates: Sequence[Completion], *, position: int | None = None) -> int:
    """The id of the task to judge completions of one prompt together. Call it inside a transaction.

    `position` None: a stable hash's place in the queue.
    """
    members = sorted(candidates, key=lambda c: c.uid)
    identity = task_uid(kind, [member.uid for member in members])
    found = db.row("SELECT id FROM task WHERE uid = ?", identity)
    if found is not None:
        return int(found["id"])
    prompt_id = members[0].prompt_id
    task_id = db.insert(
        """INSERT INTO task(uid, kind, prompt_id, round, position, created_at)
        SELECT ?1, ?2, ?3, COUNT(*), ?4, ?5 FROM task WHERE prompt_id = ?3 AND kind = ?2""",
        identity,
        kind,
        prompt_id,
        number("position", texts.seed_of(db), identity) if position is None else position,
        now(),
    )
    for slot, member in enumerate(members):
        db.insert("INSERT INTO task_item(task_id, slot, completion_id) VALUES(?, ?, ?)", task_id, slot, member.id)
    return task_id


def task_uid(kind: str, completion_uids: Sequence[str]) -> str:
    """The same completions asked about in the same way are the same task in every project."""
    members = sorted(completion_uids)
    return uid("task", *members) if kind == "pair" else uid("task", kind, *members)


def members(db: Database, task_id: int) -> list[Completion]:
    """The completions of a task, by slot."""
    return [
        Completion(*row)
        for row in db.rows(
            f"{texts.COMPLETIONS} JOIN task_item i ON i.completion_id = c.id WHERE i.task_id = ? ORDER BY i.slot",
            task_id,
        )
    ]
