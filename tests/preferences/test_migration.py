"""A store of version 1 is brought up to date: nothing said is lost, and nothing happens by halves."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.preferences import migration
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewPrompt, Store

Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`

#: Written by version 1: its schema, and what two people, a file, undo and redo left in it.
OLD = Path(__file__).with_name("version_1.sql").read_text("utf-8")

#: What version 1 said of its own file: prompt, better, worse, tie, strength, rater.
PAIRS = [
    ("Question 1?", "Answer one 🤖 to Question 1?", "Answer two 🤖 to Question 1?", False, 2, "me"),
    ("Question 2?", "Answer one 🤖 to Question 2?", "Answer two 🤖 to Question 2?", True, 0, "me"),
    ("Question 5?", "Answer two 🤖 to Question 5?", "Answer one 🤖 to Question 5?", False, 1, "me"),
    ("Question 0?", "Answer two 🤖 to Question 0?", "Answer one 🤖 to Question 0?", False, 1, "me"),
    ("Question 0?", "Answer one 🤖 to Question 0?", "Answer two 🤖 to Question 0?", False, 1, "you"),
    ("Question 6?", "Answer two 🤖 to Question 6?", "Answer one 🤖 to Question 6?", True, 0, "you"),
    ("From a file?", "better", "worse", False, 1, "imported"),
]
#: Its history of the rater 'me', newest first: task, verdict, note. Tasks 7 and 8 are taken back.
HISTORY = [
    (1, prefer(1), ""),
    (6, prefer(0), ""),
    (5, Verdict("skip"), ""),
    (4, Verdict("both_bad"), ""),
    (3, tied(), ""),
    (2, prefer(1, 2), "quicker “by far”"),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "preferences.db")


def write(path: Path) -> Path:
    """A file of version 1, in the journal mode that version 1 worked in."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(OLD)
    connection.close()
    return path


def contents(path: Path) -> list[str]:
    """Everything in the file, as SQL."""
    connection = sqlite3.connect(path)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return [f"version {version}", *connection.iterdump()]
    finally:
        connection.close()


def uids(store: Store) -> dict[str, list[str]]:
    named = ("rater", "session", "prompt", "model", "completion", "task", "presentation", "judgement", "revision")
    found = {table: [row[0] for row in store.database.rows(f"SELECT uid FROM {table} ORDER BY id")] for table in named}
    assert all(len(set(rows)) == len(rows) and all(rows) for rows in found.values())
    return found


# What is in it afterwards


def test_every_pair_tie_and_answer_is_there(old: Path) -> None:
    with Store.open(old) as store:
        pairs = [
            (pair.prompt.text, pair.chosen.text, pair.rejected.text, pair.tie, pair.strength, pair.rater)
            for pair in store.pairs()
        ]
        assert pairs == PAIRS
        counts = store.counts()
        assert (counts.prompts, counts.train, counts.heldout, counts.completions) == (10, 6, 4, 22)
        assert (counts.judgements, counts.pairs, counts.ties, counts.both_bad, counts.skipped) == (8, 5, 2, 1, 1)
        assert (counts.pairs_waiting, counts.raters, counts.discarded, counts.repeats) == (4, 3, 0, 0)
        assert store.name == "old"
        assert store.seed == 7


def test_the_history_is_the_one_that_was_there(old: Path) -> None:
    with Store.open(old) as store:
        me = store.rater("me")
        assert me is not None
        assert (me.card, me.consent) == ({"languages": "en"}, False)
        assert [(entry.task_id, entry.verdict, entry.note) for entry in store.history(me.id, 99)] == HISTORY
        facts = {fact.task_id: fact for fact in store.facts(me.id)}
        assert facts[2].latency_ms == 1002
        assert {fact.selection for fact in facts.values()} == {"random"}
        assert facts[4].shown  # both bad is said of both
        assert (
            store.database.rows(
                "SELECT accepted FROM judgement_item JOIN judgement j ON j.id = judgement_id"
                " WHERE j.outcome = 'both_bad'"
            )[0][0]
            == 0
        )


def test_imported_answers_keep_the_order_of_their_file(old: Path) -> None:
    with Store.open(old) as store:
        (judged,) = [judged for judged in store.judgements() if judged.rater.handle == "imported"]
        assert [one.text for one in judged.shown] == ["better", "worse"]
        assert (judged.layout, judged.latency_ms, judged.verdict) == ("file", None, prefer(0))
        fact = next(fact for fact in store.facts() if fact.rater == "imported")
        assert fact.selection == "import"


def test_undo_and_redo_go_on_where_they_were(old: Path) -> None:
    with Store.open(old) as store:
        me = store.rater("me")
        assert me is not None
        redone = [store.redo(me.id) for _ in range(3)]
        assert [shown.task_id if shown else None for shown in redone] == [7, 8, None]
        undone = [store.undo(me.id) for _ in range(10)]
        assert [shown.task_id if shown else None for shown in undone] == [8, 7, 1, 6, 5, 4, 3, 2, 1, None]
        assert store.counts(me.id).judgements == 0


def test_labelling_goes_on_with_what_is_left_in_the_same_order_on_screen(old: Path, sit: Sit) -> None:
    before = sqlite3.connect(old)
    sides = dict(before.execute("SELECT task_id, left_id FROM presentation WHERE rater_id = 1"))
    before.close()
    with Store.open(old) as store:
        for task, left in sides.items():
            assert sit(store).show(task).shown[0].id == left
        me = sit(store)
        offered = []
        while me.queue.next() is not None:
            offered.append(me.answer().task_id)
        # 1 to 4 and 6 are decided, 5 was skipped; of the file's pair (11) others have decided
        assert set(offered) == {5, 7, 8, 9, 10, 11}
        assert offered[-1] == 5
        assert offered.index(9) < offered.index(10)  # the second of a prompt comes after all first ones


def test_what_is_made_new_fits_to_what_was_there(old: Path) -> None:
    """The same texts are the same tasks, and the same answers of a file are the same answers."""
    with Store.open(old) as store:
        tasks = store.database.number("SELECT COUNT(*) FROM task")
        assert [store.make_tasks(prompt.id, max_similarity=1.0) for prompt in store.prompts()] == [0] * 10
        assert store.counts().near_duplicates == 0
        rater = store.rater("imported")
        assert rater is not None
        prompt = NewPrompt((Message("user", "From a file?"),), "file")
        label = ImportedLabel(prompt, (ImportedCandidate("worse"), ImportedCandidate("better")), "pair", prefer(1))
        with store.transaction():
            assert store.import_judgement(label, rater_id=rater.id, heldout_fraction=0.25) == "duplicate"
        assert store.database.number("SELECT COUNT(*) FROM task") == tasks
        assert store.add_prompts([prompt], heldout_fraction=0.25).duplicates == 1
        assert [one.characters for one in _completions(store)] == [len(one.text) for one in _completions(store)]


def _completions(store: Store) -> list[Any]:
    from types import SimpleNamespace

    return [SimpleNamespace(**dict(row)) for row in store.database.rows("SELECT characters, text FROM completion")]


def test_every_row_of_version_1_is_still_there(old: Path) -> None:
    tables = ["guideline", "rater", "session", "prompt", "model", "generation", "completion", "task"]
    tables += ["presentation", "judgement", "revision"]
    connection = sqlite3.connect(old)
    before = {table: connection.execute(f"SELECT id FROM {table} ORDER BY id").fetchall() for table in tables}
    texts = connection.execute("SELECT id, text FROM completion ORDER BY id").fetchall()
    connection.close()
    with Store.open(old) as store:
        for table, ids in before.items():
            assert [tuple(row) for row in store.database.rows(f"SELECT id FROM {table} ORDER BY id")] == ids, table
        assert [tuple(row) for row in store.database.rows("SELECT id, text FROM completion ORDER BY id")] == texts
        assert store.database.number("SELECT COUNT(*) FROM task_item") == 2 * len(before["task"])
        assert store.database.rows("PRAGMA integrity_check")[0][0] == "ok"
        assert store.database.row("PRAGMA foreign_key_check") is None
        assert store.database.number("PRAGMA foreign_keys") == 1


def test_it_is_a_store_like_a_new_one(old: Path, tmp_path: Path) -> None:
    Store.create(tmp_path / "new.db", name="new", seed=0).close()
    with Store.open(old) as store, Store.open(tmp_path / "new.db") as new:
        find = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
        described = [[tuple(row) for row in one.database.rows(find)] for one in (store, new)]
        assert described[0] == described[1]
        pragmas = [
            [one.database.number(f"PRAGMA {name}") for name in ("user_version", "application_id")]
            for one in (store, new)
        ]
        assert pragmas[0] == pragmas[1]
        assert store.database.rows("PRAGMA journal_mode")[0][0] == "wal"


def test_two_copies_become_the_same_rows(old: Path, tmp_path: Path) -> None:
    shutil.copy(old, tmp_path / "copy.db")
    with Store.open(old) as one, Store.open(tmp_path / "copy.db") as other:
        assert uids(one) == uids(other)
        assert one.snapshot_hash() == other.snapshot_hash()
        assert one.merge(tmp_path / "copy.db").judgements == 0
        assert one.counts() == other.counts()


def test_a_clock_that_was_set_back_in_version_1_does_not_change_what_counts(tmp_path: Path) -> None:
    """Version 1 went by the order of ids: the re-answered pair must not fall back to the first answer."""
    path = write(tmp_path / "p.db")
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER judgement_no_update")
    connection.execute("UPDATE judgement SET created_at = '1999-01-01T00:00:00.000+00:00' WHERE id > 6")
    connection.commit()
    connection.close()
    with Store.open(path) as store:
        assert [
            pair.chosen.text for pair in store.pairs() if pair.rater == "me" and pair.prompt.text == "Question 0?"
        ] == ["Answer two 🤖 to Question 0?"]
        me = store.rater("me")
        assert me is not None
        assert [entry.task_id for entry in store.history(me.id, 99)] == [task for task, *_ in HISTORY]


# Whole or not at all


def test_a_copy_of_the_old_file_stays_beside_it(old: Path) -> None:
    before = contents(old)
    Store.open(old).close()
    copy = old.with_name("preferences.db.version-1")
    assert contents(copy) == before
    Store.open(old).close()
    assert contents(copy) == before
    assert sorted(file.name for file in old.parent.iterdir()) == ["preferences.db", "preferences.db.version-1"]


def test_a_program_that_holds_the_lock_is_said_and_nothing_changes(old: Path) -> None:
    before = contents(old)
    writer = sqlite3.connect(old, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="is locked"):
        Store.open(old, patience=0.01)
    writer.execute("ROLLBACK")
    writer.close()
    assert contents(old) == before
    with Store.open(old) as store:
        assert len(store.pairs()) == len(PAIRS)


def test_what_was_written_after_the_copy_is_not_lost(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program answers between the copy and the lock: the store says so and leaves everything."""
    real = Database.copy_to

    def copy_and_let_others_write(self: Database, path: Path) -> None:
        real(self, path)
        other = sqlite3.connect(old)
        other.execute("INSERT INTO rater VALUES(9, 'u', 'late', 'human', '{}', 'now')")
        other.commit()
        other.close()

    with monkeypatch.context() as patch:
        patch.setattr(Database, "copy_to", copy_and_let_others_write)
        with pytest.raises(UserError, match="is being written to"):
            Store.open(old)
    with Store.open(old) as store:
        assert store.rater("late") is not None


def test_a_change_to_a_row_after_the_copy_is_not_lost(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Database.copy_to

    def copy_and_let_others_write(self: Database, path: Path) -> None:
        real(self, path)
        other = sqlite3.connect(old)
        other.execute("UPDATE rater SET card_json = '{\"languages\": \"fr\"}' WHERE handle = 'me'")
        other.commit()
        other.close()

    with monkeypatch.context() as patch:
        patch.setattr(Database, "copy_to", copy_and_let_others_write)
        with contextlib.suppress(UserError):  # saying so is as good
            Store.open(old).close()
    with Store.open(old) as store:
        me = store.rater("me")
        assert me is not None
        assert me.card == {"languages": "fr"}


def test_the_copy_survives_a_second_program_that_comes_at_the_same_time(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see version 1; the slower one must not overwrite the kept copy with what the faster one made."""
    before = contents(old)
    real = migration.upgrade

    def after_another(database: Database, version: int, schema: str) -> None:
        monkeypatch.setattr(migration, "upgrade", real)
        Store.open(old).close()
        real(database, version, schema)

    monkeypatch.setattr(migration, "upgrade", after_another)
    with Store.open(old) as store:
        assert len(store.pairs()) == len(PAIRS)
    assert contents(old.with_name("preferences.db.version-1")) == before


@pytest.mark.parametrize("table", ["guideline", "task_item", "judgement_item", "revision"])
def test_an_error_in_the_middle_leaves_version_1(old: Path, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    before = contents(old)
    real = Database.run

    def run(self: Database, sql: str, *values: Any) -> int:
        if sql.lstrip().startswith(f"INSERT INTO {table}"):
            raise KeyboardInterrupt
        return real(self, sql, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "run", run)
        with pytest.raises(KeyboardInterrupt):
            Store.open(old)
    assert contents(old) == before
    with Store.open(old) as store:
        assert len(store.pairs()) == len(PAIRS)


_KILLED = """
import os, signal, sys
from pathlib import Path
from rlhf_tui.preferences.database import Database
from rlhf_tui.preferences.store import Store

real = Database.run
def run(self, sql, *values):
    done = real(self, sql, *values)
    if sql.lstrip().startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return done
Database.run = run
Store.open(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("after", "version"),
    [("ATTACH", 1), ("DROP TABLE", 1), ("INSERT INTO judgement(", 1), ("INSERT INTO revision", 1), ("COMMIT", 2)],
)
def test_kill_9_in_the_middle_leaves_one_version_whole(old: Path, after: str, version: int) -> None:
    before = contents(old)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(old), after], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    now = contents(old)
    assert now[0] == f"version {version}"
    assert version == 2 or now == before
    with Store.open(old) as store:
        assert len(store.pairs()) == len(PAIRS)
    assert contents(old.with_name("preferences.db.version-1")) == before


def test_a_file_whose_rows_do_not_fit_together_is_left_alone(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("INSERT INTO completion VALUES(99, 'u', 999, 1, NULL, NULL, 'text', 1, 'eos', 'now')")
    connection.commit()
    connection.close()
    before = contents(old)
    with pytest.raises(UserError, match="cannot be brought up to date"):
        Store.open(old)
    assert contents(old) == before


def test_every_judgement_says_what_its_row_of_version_1_said(old: Path) -> None:
    """Row by row, those that no longer count too."""
    connection = sqlite3.connect(old)
    connection.row_factory = sqlite3.Row
    rows = connection.execute(
        """SELECT j.*, p.left_id, p.right_id, p.layout, p.shown_at FROM judgement j
        JOIN presentation p ON p.id = j.presentation_id ORDER BY j.id"""
    ).fetchall()
    connection.close()
    with Store.open(old) as store:
        for was in rows:
            row = store.database.row(
                """SELECT j.*, p.order_json, p.layout, p.shown_at, p.session_id FROM judgement j
                JOIN presentation p ON p.id = j.presentation_id WHERE j.uid = ?""",
                was["uid"],
            )
            assert row is not None
            for column in ("id", "task_id", "rater_id", "outcome", "strength", "note", "latency_ms", "created_at"):
                assert row[column] == was[column]
            assert (row["layout"], row["shown_at"]) == (was["layout"], was["shown_at"])
            assert json.loads(row["order_json"]) == [was["left_id"], was["right_id"]]
            items = store.database.rows(
                "SELECT completion_id, rank FROM judgement_item WHERE judgement_id = ? ORDER BY place", was["id"]
            )
            if was["outcome"] == "ordered":
                assert [item["completion_id"] for item in items if item["rank"] == 1] == [was["winner_id"]]
            assert [item["completion_id"] for item in items] == (
                [] if was["outcome"] == "skip" else [was["left_id"], was["right_id"]]
            )
