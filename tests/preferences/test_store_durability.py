"""Real faults: a locked file, a read-only one, a full disk, a damaged file, kill -9, two programs at once."""

from __future__ import annotations

import json
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
from rlhf_tui.preferences.records import tied
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
            store.judge(shown.id, tied(), latency_ms=1)
        assert "try again" in caught.value.todo
        assert store.counts().judgements == 0  # reading goes on
        other.execute("ROLLBACK")
        store.judge(shown.id, tied(), latency_ms=1)
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
from rlhf_tui.preferences.records import tied
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


LABELLERS = Path(__file__).with_name("labellers.py")
LIVES = 200


def labeller(*words: object) -> subprocess.Popen[str]:
    """One of the programs of labellers.py, with pipes."""
    command = [sys.executable, str(LABELLERS), *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(program: subprocess.Popen[str], line: str) -> None:
    assert program.stdin is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()


def heard(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline()


def written(store: Store) -> list[str]:
    """Every judgement in the file, as the labellers tell it."""
    rows = store.database.rows("SELECT id, task_id, outcome FROM judgement ORDER BY id")
    return [f"{row['id']} {row['task_id']} {row['outcome']}" for row in rows]


def given_twice(store: Store) -> list[tuple[int, int]]:
    """(rater, task) with more than one judgement."""
    rows = store.database.rows("SELECT rater_id, task_id FROM judgement GROUP BY 1, 2 HAVING COUNT(*) > 1")
    return [(row[0], row[1]) for row in rows]


def test_kill_9_at_200_random_moments_loses_no_answer_and_doubles_none(fill: Filled) -> None:
    store = fill(prompts=60, per_prompt=4)
    path = store.database.path
    store.close()  # nobody else keeps the file open: every life has to recover what the one before left
    said: list[str] = []
    unsaid = 0  # answers that were on disk when their labeller died before it could say so
    with labeller("killed", path, 2026) as labelling:
        for life in range(LIVES):
            tell(labelling, f"life {life}")
            told = json.loads(heard(labelling))
            assert told["killed"], told
            said += told["said"]
            with Store.open(path) as again:
                assert again.database.rows("PRAGMA integrity_check")[0][0] == "ok"
                on_disk = written(again)
                assert given_twice(again) == []
            acknowledged = set(said)
            assert [line for line in on_disk if line in acknowledged] == said, "an acknowledged answer is lost"
            assert len(on_disk) - len(said) - unsaid in (0, 1), "one life left more than one answer unsaid"
            unsaid = len(on_disk) - len(said)
        assert labelling.stdin is not None
        labelling.stdin.close()
    assert labelling.returncode == 0
    assert len(said) > LIVES  # they did not all die before their first answer
    with Store.open(path) as again:
        assert len(again.facts()) == len(on_disk)  # every answer is an active one


@pytest.mark.parametrize("raters", [("ada", "grace"), ("ada", "ada")])
def test_two_labelling_programs_at_once_lose_nothing(fill: Filled, raters: tuple[str, str]) -> None:
    store = fill(prompts=60, per_prompt=4)
    programs = [labeller("sitting", store.database.path, rater, 40) for rater in raters]
    for program in programs:
        assert heard(program) == "ready\n"
    for program in programs:
        tell(program, "go")
    said = [program.communicate()[0].split("\n")[:-1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    assert [len(lines) for lines in said] == [40, 40]
    assert sorted(written(store)) == sorted(said[0] + said[1])
    assert store.database.rows("PRAGMA integrity_check")[0][0] == "ok"
    active = {(fact.rater, fact.task_id) for fact in store.facts()}
    answered = {(rater, int(line.split()[1])) for rater, lines in zip(raters, said, strict=True) for line in lines}
    assert active == answered
    assert len(store.facts()) == len(active)  # where both answered the same task, one answer counts
    if raters[0] != raters[1]:
        assert given_twice(store) == []


def small_disk() -> list[str]:
    """The words that run a command with 2 MB of disk of its own at the folder named next, for root and others."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", _ON_A_SMALL_DISK, "sh"]


_ON_A_SMALL_DISK = """
mount -t tmpfs -o size=2m tmpfs "$1"
cp "$2" "$1/preferences.db"
shift 2
exec "$@"
"""


def no_small_disk() -> bool:
    try:
        command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True).returncode != 0
    except FileNotFoundError:
        return True


@pytest.mark.skipif(no_small_disk(), reason="needs unshare and user namespaces, for a small disk of its own")
def test_a_disk_that_fills_up_is_said_and_the_same_answer_can_be_given_again(fill: Filled, tmp_path: Path) -> None:
    store = fill(prompts=40)
    path = store.database.path
    store.close()
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, str(LABELLERS), "full", str(disk / "preferences.db")]
    done = subprocess.run([*small_disk(), str(disk), str(path), *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    opening, *rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert "disk is full" in opening
    failed = [told for told in rounds if told["error"]]
    unstored = [told for told in failed if not told["stored"]]
    assert unstored, "the disk was never full"
    assert len(failed) < len(rounds), "the disk was always full"
    for told in failed:
        assert "disk is full" in told["error"]
    for told in unstored:
        assert told["kept"], "the answer, or what it is about, is gone from the screen"
    for told in rounds:
        assert told["stored_at_last"] == [f"note {told['pages']}"], "each answer is there once"
        assert told["went_on"]
