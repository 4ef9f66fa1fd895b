"""What to judge next.

Random within strata: every prompt gets its first task before any gets its second, kinds of prompts (their
first tag, else their source) take turns in proportion to their size, and within that a stable hash decides.
What another rater has decided comes after what nobody has; what was skipped rests for this sitting and
comes back last in the next one. Into that order come, at places a hash chooses, swapped repeats of the
rater's own answers (they show how far the rater agrees with themselves), answers declared gold (for raters
who have not seen them), and, if wanted, pairs where the reward model is least sure. The random share never
vanishes: without it nobody could say whether choosing helps.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_tui.preferences import tasks
from rlhf_tui.preferences.database import Row
from rlhf_tui.preferences.identity import fraction, number
from rlhf_tui.preferences.records import DECIDED, Fact, Rater
from rlhf_tui.preferences.store import Store

BLOCK = 10  # answers: in each block of so many, one place is for gold
MOST_ACTIVE = 0.7  # of the draws; the rest stays random whatever the rules say
MAKE_AT_ONCE = 100  # prompts whose completions are offered when the queue runs low
LOW = 20

#: Whether another rater has decided a task.
_DECIDED = """EXISTS(SELECT 1 FROM active_judgement o WHERE o.task_id = t.id AND o.rater_id <> ?1
    AND o.purpose = 'label' AND o.outcome NOT IN('skip', 'discard')) AS decided"""
_OPEN = f"""
SELECT t.id, t.prompt_id, t.round, t.position, COALESCE(json_extract(p.tags_json, '$[0]'), p.source) AS stratum,
  {_DECIDED}
FROM task t JOIN prompt p ON p.id = t.prompt_id
WHERE t.kind = ?2 AND t.position >= 0 AND t.id > ?3
"""
#: What was answered, replaced or taken back after a judgement and a revision, in the order it happened.
_TOUCHED = """
SELECT task_id, purpose, rater_id, MAX(at) FROM (
  SELECT task_id, purpose, rater_id, created_at AS at FROM judgement WHERE id > ?1
  UNION ALL SELECT j.task_id, j.purpose, j.rater_id, r.created_at FROM revision r
  JOIN judgement j ON j.id = r.judgement_id WHERE r.id > ?2)
GROUP BY task_id, purpose, rater_id ORDER BY MAX(at)
"""
_UNOFFERED = """
SELECT c.prompt_id FROM completion c WHERE c.edited_from IS NULL
  AND c.prompt_id IN(SELECT prompt_id FROM completion WHERE id > ?2)
  AND NOT EXISTS(SELECT 1 FROM near_duplicate n WHERE n.completion_id = c.id AND n.similarity > ?3)
  AND NOT EXISTS(SELECT 1 FROM task_item i JOIN task t ON t.id = i.task_id
    WHERE i.completion_id = c.id AND t.kind = ?1 AND t.position >= 0)
GROUP BY c.prompt_id HAVING COUNT(*) >= 2
"""

Key = tuple[int, int, int, float, int]


@dataclass(frozen=True)
class Rules:
    """How a sitting chooses. `kind` is one of records.KINDS, `size` how many candidates (of a pair always two).

    `repeat_share` of the answers, from the `repeat_from`th on, repeat an own answer that is at least
    `repeat_gap` answers old. `active_share` of the pairs are those the reward model is least sure of.
    """

    kind: str = "pair"
    size: int = 2
    repeat_share: float = 0.1
    repeat_from: int = 30
    repeat_gap: int = 20
    active_share: float = 0.0
    max_similarity: float = 0.9


@dataclass(frozen=True)
class Offer:
    """What to show next. `purpose` 'label' or 'repeat'; `selection` says why (see records.Fact)."""

    task_id: int
    purpose: str
    selection: str


class Queue:
    """The order in which one rater gets the tasks of one kind, kept up to date as answers are given."""

    def __init__(self, store: Store, rater: Rater, rules: Rules) -> None:
        self._store = store
        self._rater = rater
        self._rules = rules
        self._seed = store.seed
        self._answers: dict[tuple[int, str], Fact] = {}
        self._skipped: set[tuple[int, str]] = set()  # in this sitting
        self._pending: dict[int, Key] = {}
        self._heap: list[tuple[Key, int]] = []
        self._unoffered: list[int] = []
        self._gaps: list[tuple[float, int]] = []
        self._repeat_skipped_at = -1
        self._unheard: set[tuple[int, str]] = set()
        self._behind = False  # whether what others have written is not wholly taken in
        self._newest_task = self._newest_completion = 0
        self._newest_judgement, self._newest_revision = self._newest()
        for fact in store.facts(rater.id):
            self._answers[fact.task_id, fact.purpose] = fact
        self._scores = store.scores() if rules.active_share else {}
        self._take_new_tasks()
        self._find_unoffered()

    @property
    def facts(self) -> list[Fact]:
        """This rater's active answers, of all kinds, oldest first."""
        return list(self._answers.values())

    @property
    def remaining(self) -> int:
        """Tasks of this kind that still wait for this rater; completions not yet grouped count by prompt."""
        return len(self._pending) + len(self._unoffered)

    def next(self) -> Offer | None:
        """What to show now; the same again until `refresh` hears of an answer. None: nothing is left."""
        for key in list(self._unheard):
            self.refresh(*key)
        self.catch_up()
        if len(self._pending) < LOW:
            self._make_tasks()
        given = self._given()
        return self._repeat(given) or self._golden(given) or self._active(given) or self._random()

    def refresh(self, task_id: int, purpose: str) -> None:
        """Hear that the answer to a task was given, changed or taken back."""
        key = (task_id, purpose)
        self._unheard.add(key)  # should the next line fail, `next` tries again before it offers anything
        fact = self._store.answer(self._rater.id, task_id, purpose)
        self._unheard.discard(key)
        before = self._answers.pop(key, None)
        if fact is None:
            if before and purpose == "label" and before.kind == self._rules.kind and before.selection != "edit":
                self._wait(task_id, (-1, 0, 0, 0.0, 0))  # taken back: asked again before anything else
            return
        if self._answers and next(reversed(self._answers.values())).created_at > fact.created_at:
            in_time = sorted([*self._answers.values(), fact], key=lambda one: one.created_at)
            self._answers = {(one.task_id, one.purpose): one for one in in_time}
        self._answers[key] = fact
        if fact.verdict.outcome == "skip":
            self._skipped.add(key)
        if fact.verdict.outcome == "skip" and purpose == "repeat":
            self._repeat_skipped_at = len(self._given())
        if purpose == "label":
            self._pending.pop(task_id, None)

    def catch_up(self) -> None:
        """Take notice of what other programs have written: new texts and tasks, scores, anybody's answers.

        Should it fail half way, the next call begins again where this one did: taking a thing in twice is harmless.
        """
        self._behind = self._store.changed() or self._behind  # `changed` says it only once
        if not self._behind:
            return
        newest = self._newest()
        for row in self._store.database.rows(_TOUCHED, self._newest_judgement, self._newest_revision):
            if row["rater_id"] == self._rater.id:
                self.refresh(row["task_id"], row["purpose"])
            elif row["task_id"] in self._pending:
                self._look_again(row["task_id"])
        if self._rules.active_share and (scores := self._store.scores()) != self._scores:
            self._scores, self._gaps = scores, self._closest(scores)
        self._take_new_tasks()
        self._find_unoffered()
        self._newest_judgement, self._newest_revision = newest
        self._behind = False

    # What comes next

    def _given(self) -> list[Fact]:
        """The decided answers of this kind given on screen, oldest first: what places in the sitting count."""
        return [
            fact
            for fact in self._answers.values()
            if fact.kind == self._rules.kind
            and fact.verdict.outcome in DECIDED
            and fact.selection not in ("import", "edit")
        ]

    def _repeat(self, given: Sequence[Fact]) -> Offer | None:
        """A swapped repeat, when this is the place for one and an old enough answer has none yet."""
        count, rules = len(given), self._rules
        if count < rules.repeat_from or count == self._repeat_skipped_at or not self._is_place(count):
            return None
        old = [
            fact
            for fact in given[: max(count - rules.repeat_gap + 1, 0)]
            if fact.purpose == "label" and (fact.task_id, "repeat") not in self._answers
        ]
        if not old:
            return None
        # Gold first: on those a disagreement is an error, not a matter of taste.
        gold = self._store.gold()
        old = [fact for fact in old if fact.task_id in gold] or old
        chosen = old[number("again", self._seed, self._rater.uid, count) % len(old)]
        return Offer(chosen.task_id, "repeat", "repeat")

    def _is_place(self, count: int) -> bool:
        """Whether the answer after `count` others is for a repeat: one at a random place in each 1/share answers."""
        share = self._rules.repeat_share
        if not share:
            return False
        near = int(count * share)
        return any(
            int((block + fraction("repeat", self._seed, self._rater.uid, self._rules.kind, block)) / share) == count
            for block in (near - 1, near, near + 1)
        )

    def _golden(self, given: Sequence[Fact]) -> Offer | None:
        count = len(given)
        if count % BLOCK != number("gold", self._seed, self._rater.uid, count // BLOCK) % BLOCK:
            return None
        waiting = sorted(task_id for task_id in self._store.gold() if task_id in self._pending)
        if not waiting:
            return None
        return Offer(min(waiting, key=lambda i: number("golden", self._seed, i)), "label", "gold")

    def _active(self, given: Sequence[Fact]) -> Offer | None:
        """The pair whose two scores are closest, in the share of draws that the rules give to it."""
        share = min(self._rules.active_share, MOST_ACTIVE)
        if not self._gaps or fraction("active", self._seed, self._rater.uid, len(given)) >= share:
            return None
        while self._gaps and self._gaps[0][1] not in self._pending:
            heapq.heappop(self._gaps)
        return Offer(self._gaps[0][1], "label", "active") if self._gaps else None

    def _random(self) -> Offer | None:
        while self._heap and self._pending.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return Offer(self._heap[0][1], "label", "random") if self._heap else None

    # What is waiting

    def _take_new_tasks(self) -> None:
        newest = self._store.database.number("SELECT COALESCE(MAX(id), 0) FROM task")
        if newest == self._newest_task:
            return
        rows = self._store.database.rows(_OPEN, self._rater.id, self._rules.kind, self._newest_task)
        open_rows = [row for row in rows if self._is_open(row["id"])]
        for row, place in _interleaved(open_rows):
            came_back = (row["id"], "label") in self._answers  # skipped in an earlier sitting
            self._wait(row["id"], (int(came_back), row["decided"], row["round"], place, row["position"]))
        if rows and self._scores:
            self._gaps = self._closest(self._scores)
        self._newest_task = newest

    def _look_again(self, task_id: int) -> None:
        """Put a waiting task before or behind, by whether anybody else has decided it now."""
        came_back, _, turn, place, position = self._pending[task_id]
        decided = self._store.database.number(f"SELECT {_DECIDED} FROM task t WHERE t.id = ?2", self._rater.id, task_id)
        key = (came_back, decided, turn, place, position)
        if key != self._pending[task_id]:
            self._wait(task_id, key)

    def _is_open(self, task_id: int) -> bool:
        fact = self._answers.get((task_id, "label"))
        skipped = fact is not None and fact.verdict.outcome == "skip" and (task_id, "label") not in self._skipped
        return fact is None or skipped

    def _wait(self, task_id: int, key: Key) -> None:
        self._pending[task_id] = key
        heapq.heappush(self._heap, (key, task_id))

    def _closest(self, scores: Mapping[int, float]) -> list[tuple[float, int]]:
        """(gap of the two scores, task) of every waiting pair that is scored, as a heap."""
        candidates: dict[int, list[int]] = defaultdict(list)
        for row in self._store.database.rows(
            "SELECT i.task_id, i.completion_id FROM task_item i JOIN task t ON t.id = i.task_id WHERE t.kind = 'pair'"
        ):
            candidates[row["task_id"]].append(row["completion_id"])
        gaps = [
            (abs(scores[one] - scores[other]), task_id)
            for task_id, (one, other) in candidates.items()
            if task_id in self._pending and one in scores and other in scores
        ]
        heapq.heapify(gaps)
        return gaps

    def _find_unoffered(self) -> None:
        """Prompts with completions that no task of this kind offers, among those with new completions."""
        newest = self._store.database.number("SELECT COALESCE(MAX(id), 0) FROM completion")
        if newest == self._newest_completion:
            return
        rows = self._store.database.rows(
            _UNOFFERED, self._rules.kind, self._newest_completion, min(self._rules.max_similarity, tasks.SAME)
        )
        self._newest_completion = newest
        found = {*self._unoffered, *(int(row[0]) for row in rows)}
        self._unoffered = sorted(found, key=lambda i: number("make", self._seed, i))

    def _make_tasks(self) -> None:
        """Group completions that no task of this kind offers yet, some prompts at a time."""
        made = 0
        while self._unoffered and not made:
            some = self._unoffered[:MAKE_AT_ONCE]
            with self._store.transaction():
                made = sum(
                    self._store.make_tasks(
                        prompt_id,
                        kind=self._rules.kind,
                        size=self._rules.size,
                        max_similarity=self._rules.max_similarity,
                    )
                    for prompt_id in some
                )
            self._unoffered = self._unoffered[MAKE_AT_ONCE:]
        self._take_new_tasks()  # even if none was made: an earlier call may have failed to

    def _newest(self) -> tuple[int, int]:
        database = self._store.database
        return (
            database.number("SELECT COALESCE(MAX(id), 0) FROM judgement"),
            database.number("SELECT COALESCE(MAX(id), 0) FROM revision"),
        )


def _interleaved(rows: Iterable[Row]) -> Iterable[tuple[Row, float]]:
    """Each row with its place in [0, 1) within its stratum and round: sorting by it lets strata take turns."""
    groups: dict[tuple[int, int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["decided"], row["round"], row["stratum"]].append(row)
    for group in groups.values():
        group.sort(key=lambda row: row["position"])
        for place, row in enumerate(group):
            yield row, (place + 0.5) / len(group)
