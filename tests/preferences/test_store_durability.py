"""Real faults: a locked file, a file that cannot be written, a damaged one, and kill -9 in the middle of a write."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.formats import import_labels
from rlhf_tui.preferences.store import Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]


def test_a_locked_database_is_said_in_plain_words_and_nothing_is_lost(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    path = fill().database.path
    other = sqlite3.connect(path, isolation_level=None)
    with Store.open(path, patience=0.01) as store:
        me = sit(store)
        shown = me.show()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="is locked") as caught:
            store.judge(shown.id, outcome="tie", latency_ms=1)
        assert "try again" in caught.value.todo
        assert store.counts().judgements == 0  # reading goes on
        other.execute("ROLLBACK")
        store.judge(shown.id, outcome="tie", latency_ms=1)
        assert store.counts().judgements == 1
    other.close()


def test_two_programs_can_write_in_turn(fill: Filled, sit: Sit) -> None:
    store = fill()
    with Store.open(store.database.path) as other:
        sit(other, "you").answer()
        sit(store, "me").answer()
        assert other.counts() == store.counts()
        assert other.counts().raters == 2


def test_a_read_only_database_is_said_in_plain_words(fill: Filled) -> None:
    store = fill()
    store.database.run("PRAGMA query_only = ON")  # the same SQLite error as a read-only file; also works as root
    with pytest.raises(UserError, match="cannot be written"):
        store.add_rater("me")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_file_is_said_in_plain_words(fill: Filled) -> None:
    store = fill()
    store.close()
    store.database.path.chmod(0o444)
    with pytest.raises(UserError, match="cannot be written"), Store.open(store.database.path) as again:
        again.add_rater("me")


def test_a_full_disk_is_said_in_plain_words_and_nothing_is_half_written(fill: Filled, tmp_path: Path) -> None:
    store = fill()
    before = list_everything(store.database.path)
    pages = store.database.number("PRAGMA page_count")
    store.database.rows(f"PRAGMA max_page_count = {pages}")  # SQLite reports the same as for a full disk
    with pytest.raises(UserError, match="cannot grow"):
        store.set_guideline("long " * 100_000)
    assert list_everything(store.database.path) == before


def test_a_truncated_file_is_an_error_to_act_on(fill: Filled) -> None:
    store = fill(prompts=200)
    store.close()
    path = store.database.path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged") as caught, Store.open(path) as again:
        again.prompts()
    assert "backup" in caught.value.todo


def list_everything(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


_WRITER = """
import sys
from pathlib import Path
from rlhf_tui.preferences.store import Message, NewPrompt, Store

def rows(batch):
    for number in range(50):
        if number == 25:
            print(batch, flush=True)   # from here to the end of the batch the write is half done
        yield NewPrompt((Message("user", f"{batch} {number} " + "x" * 2000),), "killed")

with Store.open(Path(sys.argv[1])) as store:
    batch = 0
    while True:
        store.add_prompts(rows(batch), heldout_fraction=0.2)
        batch += 1
"""


@pytest.mark.parametrize("batches", [1, 4])
def test_kill_9_in_the_middle_of_a_write_leaves_whole_batches(store: Store, batches: int) -> None:
    path = store.database.path
    store.close()
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(batches):
        assert writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    with Store.open(path) as again:
        assert again.database.rows("PRAGMA integrity_check")[0][0] == "ok"
        written = len(again.prompts())
        assert written % 50 == 0
        assert written >= (batches - 1) * 50  # what was finished is there
        again.add_rater("me")


_IMPORTER = """
import os, signal, sys
from pathlib import Path
from rlhf_tui.preferences import judging
from rlhf_tui.preferences.formats import import_labels
from rlhf_tui.preferences.store import Store

calls = 0
real = judging.judge
def judge(*args, **named):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **named)
judging.judge = judge
with Store.open(Path(sys.argv[1])) as store:
    import_labels(store, Path(sys.argv[2]), heldout_fraction=0.2)
"""


def test_an_import_killed_half_way_leaves_nothing_and_can_be_repeated(fill: Filled, tmp_path: Path) -> None:
    store = fill()
    path = store.database.path
    store.close()
    before = list_everything(path)
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(f'{{"prompt": "q{k}", "chosen": "a", "rejected": "b"}}\n' for k in range(5)))
    killed = subprocess.run([sys.executable, "-c", _IMPORTER, str(path), str(labels)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list_everything(path) == before
    with Store.open(path) as again:
        assert import_labels(again, labels, heldout_fraction=0.2).pairs == 5
