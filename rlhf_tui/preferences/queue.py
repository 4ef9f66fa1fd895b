"""What to judge next.

The order is random but stable (a hash of the project's seed and the pair), so that no rater sees
the pairs in the order they were made. Pairs nobody has decided come before those that another
rater has; what was skipped rests for this session and comes back last in the next one.
"""

from __future__ import annotations

from rlhf_tui.preferences.store import Store

# The answer (if any) of this rater to each task, and whether the skip happened in the rater's newest session.
_OPEN = """
WITH mine AS (
  SELECT j.task_id, j.id, j.outcome, p.session_id FROM active_judgement j
  JOIN presentation p ON p.id = j.presentation_id WHERE j.rater_id = ?1)
SELECT {columns} FROM task t LEFT JOIN mine ON mine.task_id = t.id
WHERE mine.id IS NULL OR (mine.outcome = 'skip'
  AND mine.session_id <> (SELECT MAX(s.id) FROM session s WHERE s.rater_id = ?1))
"""
_ORDER = """
ORDER BY mine.id IS NOT NULL, mine.id,
  EXISTS(SELECT 1 FROM active_judgement o WHERE o.task_id = t.id AND o.outcome <> 'skip'), t.position, t.uid LIMIT 1
"""


def next_task(store: Store, rater_id: int) -> int | None:
    """The id of the pair to show next, or None when there is nothing left in this session."""
    row = store.database.row(_OPEN.format(columns="t.id") + _ORDER, rater_id)
    return None if row is None else int(row[0])


def remaining(store: Store, rater_id: int) -> int:
    """How many pairs `next_task` will still offer in this session if each is answered or skipped."""
    return store.database.number(_OPEN.format(columns="COUNT(*)"), rater_id)
