"""Reading a store takes work in proportion to what it holds: counted in steps of SQLite's machine, not in seconds.

A query planner picks its indexes by shape, and a change of a view can turn milliseconds into minutes for a
project of 20,000 judgements without any small test noticing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

SMALL, FACTOR = 150, 4
STEP = 100  # instructions between two calls of the counter


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two projects of one rater, the second FACTOR times the size of the first."""
    folder = tmp_path_factory.mktemp("scale")
    return filled(folder / "small.db", SMALL), filled(folder / "large.db", SMALL * FACTOR)


def filled(path: Path, size: int) -> Store:
    """So many prompts with two pairs each: one judged and then undone or repeated now and then, one waiting."""
    store = Store.create(path, name="scale", seed=1)
    with store.transaction():
        store.add_prompts((NewPrompt((Message("user", f"Q{n}?"),), "test") for n in range(size)), heldout_fraction=0.2)
        model = store.add_model("any", "base")
        for prompt in store.prompts():
            texts = [f"{word} {prompt.id}" for word in ("one", "two", "three", "four")]
            store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
            store.make_tasks(prompt.id)
        rater = store.add_rater("me")
        session = store.start_session(rater.id, columns=80, rows=24)
        first = [row[0] for row in store.database.rows("SELECT MIN(id) FROM task GROUP BY prompt_id")]
        for number, task in enumerate(first):
            for purpose in ("label", "repeat") if number % 10 == 0 else ("label",):
                shown = store.present(task, rater_id=rater.id, session_id=session, layout="stacked", purpose=purpose)
                store.judge(shown.id, prefer(number % 2), latency_ms=1000)
            if number % 15 == 0:
                store.undo(rater.id)
    return store


def steps(store: Store, call: Callable[[Store], object]) -> int:
    """How many instructions SQLite executes for a call."""
    count = [0]

    def counted() -> int:
        count[0] += STEP
        return 0

    connection = store.database._connection
    connection.set_progress_handler(counted, STEP)
    try:
        call(store)
    finally:
        connection.set_progress_handler(None, STEP)
    return count[0]


def me(store: Store) -> int:
    rater = store.rater("me")
    assert rater is not None
    return rater.id


@pytest.mark.parametrize(
    "call",
    [
        Store.counts,
        Store.facts,
        Store.judgements,
        Store.pairs,
        Store.snapshot_hash,
        Store.gold,
        lambda store: store.counts(me(store)),
        lambda store: store.facts(me(store)),
        lambda store: store.history(me(store), limit=10_000),
        lambda store: Queue(store, store.add_rater("me"), Rules()).next(),
        lambda store: Queue(store, store.add_rater("you"), Rules()).next(),
    ],
    ids=[
        "counts",
        "facts",
        "judgements",
        "pairs",
        "snapshot",
        "gold",
        "own counts",
        "own facts",
        "history",
        "queue",
        "another's queue",
    ],
)
def test_reading_everything_is_linear(stores: tuple[Store, Store], call: Callable[[Store], object]) -> None:
    small, large = (steps(store, call) for store in stores)
    assert large < 1.5 * FACTOR * max(small, 1000)  # quadratic work would be FACTOR times more


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.history(me(store), limit=5),
        lambda store: store.answer(me(store), 1, "label"),
        lambda store: (store.undo(me(store)), store.redo(me(store))),
    ],
    ids=["history", "answer", "undo and redo"],
)
def test_what_follows_every_key_does_not_read_all_answers(
    stores: tuple[Store, Store], call: Callable[[Store], object]
) -> None:
    """Some steps for each answer taken back (40 here) are allowed, and none for the other 600."""
    assert steps(stores[1], call) < 10_000
