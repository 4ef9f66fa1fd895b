"""Programs that label, for the durability tests: what the store has acknowledged they tell on a pipe, at once.

python labellers.py killed DB SEED     for each line on standard input, a process that labels until kill -9
python labellers.py sitting DB RATER N after a line on standard input, one rater gives N answers
python labellers.py full DB            a sitting on a disk that fills up again and again; needs a small disk to itself

An acknowledged answer is the line `judgement-id task-id outcome`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Store

VERDICTS = (prefer(0), prefer(0, 2), tied(), prefer(1), prefer(1, 2), Verdict("both_bad"))
#: Without repeats every task is asked once, so that an answer given twice stands out.
ONCE = Rules(repeat_share=0.0)
LINE = 40  # bytes, far less than a pipe takes in one piece


def label(store: Store, handle: str, chance: random.Random, say: Callable[[str], object]) -> Iterator[None]:
    """Give one answer after the other and acknowledge each; ends when nothing is left."""
    rater = store.add_rater(handle)
    session = store.start_session(rater.id, columns=80, rows=24)
    queue = Queue(store, rater, ONCE)
    while (offer := queue.next()) is not None:
        shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="stacked")
        verdict = chance.choice(VERDICTS)
        judgement = store.judge(shown.id, verdict, latency_ms=chance.randrange(2000, 20_000))
        say(f"{judgement} {offer.task_id} {verdict.outcome}")
        queue.refresh(offer.task_id, offer.purpose)
        yield


def killed(path: Path, seed: int) -> None:
    """Let one labeller after the other live until a random moment; tell what each had acknowledged."""
    chance = random.Random(seed)
    for _ in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _live(path, chance, writing)
        os.close(writing)
        said = [os.read(reading, LINE) for _ in range(chance.randrange(4))]  # some die before their first answer
        time.sleep(chance.uniform(0, 0.015))  # opening, showing, answering, committing: the moment is random
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while chunk := os.read(reading, LINE):
            said.append(chunk)
        os.close(reading)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"killed": died, "said": b"".join(said).decode().splitlines()}), flush=True)


def _live(path: Path, chance: random.Random, writing: int) -> None:
    def say(said: str) -> None:
        os.write(writing, said.encode() + b"\n")

    with Store.open(path) as store:
        for number in itertools.count():  # where one rater has nothing left the next one goes on
            for _ in label(store, f"rater {number}", chance, say):
                pass


def sitting(path: Path, handle: str, answers: int) -> None:
    """Label at the same time as another program."""
    with Store.open(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in itertools.islice(label(store, handle, random.Random(handle), _say), answers):
            pass


def _say(said: str) -> None:
    print(said, flush=True)


def full(path: Path) -> None:
    """Answer with 0, 1, 2, … pages of the disk free; when it fails, free the disk and give the same answer again.

    The first line says what becomes of opening the store when nothing is free.
    """
    from rlhf_tui.app.labelling import Sitting

    ballast = _fill(path.parent, 0)
    try:
        Store.open(path).close()
        print(json.dumps("opened"), flush=True)
    except UserError as caught:
        print(json.dumps(str(caught)), flush=True)
    ballast.unlink()
    now = [0.0]
    with Store.open(path, patience=0.1) as store:
        rater = store.add_rater("me")
        at_work = Sitting(store, rater, rules=ONCE, columns=80, rows=24, clock=lambda: now[0])
        for pages in range(24):
            now[0] += 5
            before, at_work.note = at_work.shown, f"note {pages}"
            assert before is not None
            store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")  # so that every answer needs new room
            ballast = _fill(path.parent, pages)
            error = None
            try:
                at_work.answer(prefer(0))
            except UserError as caught:
                error = str(caught)
            told = {
                "pages": pages,
                "error": error,
                "kept": at_work.shown == before and at_work.note == f"note {pages}",
                "stored": _notes(store, before.task_id),
            }
            ballast.unlink()
            now[0] += 5
            if error and at_work.shown == before:
                at_work.answer(prefer(0))
            elif error:
                at_work.look()  # the answer was stored, only the next pair could not be
            went_on = at_work.shown is not None and at_work.shown != before
            print(json.dumps({**told, "stored_at_last": _notes(store, before.task_id), "went_on": went_on}), flush=True)
        at_work.close()


def _notes(store: Store, task_id: int) -> list[str]:
    return [row[0] for row in store.database.rows("SELECT note FROM judgement WHERE task_id = ?", task_id)]


def _fill(folder: Path, pages: int) -> Path:
    """A file that leaves only so many pages of 4 kB of the disk free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() // 4096 - pages, 0) * 4096)
    return ballast


if __name__ == "__main__":
    verb, place, *rest = sys.argv[1:]
    match verb:
        case "killed":
            killed(Path(place), int(rest[0]))
        case "sitting":
            sitting(Path(place), rest[0], int(rest[1]))
        case "full":
            full(Path(place))
