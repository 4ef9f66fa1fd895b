"""How labelling behaves in a large project: 50,000 completions, 20,000 judgements. Run by hand, minutes long.

    python tests/bench/bench_labelling.py [--folder DIR] [--completions N] [--judgements N]

Makes a project with a fixed seed (kept in --folder, where a second run finds it), then prints: the next pair
in ms (store and queue alone, and the whole sitting), `labels stats`, `labels export` and `labels import` in
seconds with their peak memory, and the time from a key to the next pair painted on a terminal, for texts of
usual length and for texts of 50 kB. Every measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import random
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf_tui.app.labelling import GUARD, Sitting
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store
from rlhf_tui.project import Project, create_project, open_project

SEED = 20260
PER_PROMPT = 4
DRAWS = 200  # answers measured
FORMATS = ("rlhf-tui", "trl")
VERDICTS = (prefer(0, 2), prefer(0), tied(), prefer(1), prefer(1, 2), Verdict("both_bad"), Verdict("skip"))
WEIGHTS = (10, 32, 10, 32, 10, 4, 2)
#: What a pair begins with, so that its paint can be recognised: its prompt and both its candidates.
MARKS = re.compile(r"<Q\d{5}>.*<C\d{5}>.*<C\d{5}>", re.DOTALL)


# -- the project -----------------------------------------------------------------------------------


def vocabulary(chance: random.Random) -> tuple[list[str], list[float]]:
    """Four thousand words of usual lengths, and how often each occurs (Zipf's law)."""
    letters = "etaoinshrdlcumwfgypbvk"
    words = ["".join(chance.choices(letters, k=max(1, round(chance.gauss(5, 2.5))))) for _ in range(4000)]
    return words, [1 / (rank + 3) for rank in range(len(words))]


def answer_text(chance: random.Random, words: Sequence[str], weights: Sequence[float]) -> str:
    """A chat model's answer: some paragraphs, 5 to 600 words, the median 110."""
    count = min(max(round(chance.lognormvariate(4.7, 0.8)), 5), 600)
    picked = chance.choices(words, weights, k=count)
    return "\n\n".join(" ".join(picked[start : start + 60]) for start in range(0, count, 60))


def mark(number: int) -> str:
    return f"<C{number:05}> "


def make_project(folder: Path, completions: int, judgements: int) -> Project:
    """A project of that size; three quarters of the judgements by 'ada', the rest by 'grace', a tenth are repeats."""
    chance = random.Random(SEED)
    words, weights = vocabulary(chance)
    project = create_project(folder)
    prompts = completions // PER_PROMPT
    with project.store() as store:
        said = (" ".join(chance.choices(words, weights, k=chance.randrange(6, 60))) for _ in range(prompts))
        rows = (
            NewPrompt((Message("user", f"<Q{n:05}> {text}?"),), "bench", tags=(f"kind{n % 5}",))
            for n, text in enumerate(said)
        )
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("policy", "policy", sha="abc")
        how = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=512, system_prompt="")
        with store.transaction():
            for prompt in store.prompts():
                store.add_completions(
                    NewCompletion(
                        prompt.id, model, how, mark(prompt.id) + answer_text(chance, words, weights), 150, "stop", k
                    )
                    for k in range(PER_PROMPT)
                )
                store.make_tasks(prompt.id)
        judge_many(store, "ada", judgements * 3 // 4, chance)
        judge_many(store, "grace", judgements - judgements * 3 // 4, chance)
    return project


def judge_many(store: Store, handle: str, count: int, chance: random.Random) -> None:
    """So many answers of one rater, the last tenth of them repeats."""
    rater = store.add_rater(handle)
    session = store.start_session(rater.id, columns=120, rows=40)
    first = count - count // 10
    tasks = [row[0] for row in store.database.rows("SELECT id FROM task ORDER BY position LIMIT ?", first)]
    asked = [(task, "label") for task in tasks] + [(task, "repeat") for task in tasks[: count - first]]
    with store.transaction():
        for task, purpose in asked:
            shown = store.present(
                task, rater_id=rater.id, session_id=session, layout="side-by-side", purpose=purpose, selection="random"
            )
            verdict = chance.choices(VERDICTS, WEIGHTS)[0]
            store.judge(shown.id, verdict, latency_ms=round(chance.lognormvariate(9.6, 0.6)))


def make_long(folder: Path) -> Project:
    """Pairs of texts of 50 kB: one line of words, one word, Chinese, emoji, marks and control bytes."""
    project = create_project(folder)
    shapes = (
        "word " * 10_000,
        "x" * 50_000,
        "日本語。" * 4_200,
        "👩\u200d💻 " * 4_000,
        "a\u0301\x1b[31m\u200b" * 8_000,
    )
    with project.store() as store, store.transaction():
        rows = (NewPrompt((Message("user", f"<Q{n:05}> Why?"),), "bench") for n in range(40))
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("policy", "policy")
        for n, prompt in enumerate(store.prompts()):
            pair = (shapes[n % 5], shapes[(n + 1) % 5])
            store.add_completions(NewCompletion(prompt.id, model, None, mark(n) + text) for text in pair)
            store.make_tasks(prompt.id)
    return project


# -- measuring -------------------------------------------------------------------------------------


def spread(seconds: Sequence[float]) -> str:
    ordered = sorted(second * 1000 for second in seconds)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    return f"p50 {statistics.median(ordered):6.1f}  p95 {p95:6.1f}  max {ordered[-1]:6.1f} ms  (n = {len(ordered)})"


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_store(folder: Path) -> None:
    """Queue.next, then present, then judge: what the store does for one answer."""
    with open_project(folder).store() as store:
        rater = store.add_rater("ada")
        session = store.start_session(rater.id, columns=80, rows=24)
        started = time.perf_counter()
        queue = Queue(store, rater, Rules())
        print(f"  opening the queue            {time.perf_counter() - started:6.2f} s")

        def one() -> None:
            offer = queue.next()
            assert offer is not None
            shown = store.present(
                offer.task_id,
                rater_id=rater.id,
                session_id=session,
                layout="stacked",
                purpose=offer.purpose,
                selection=offer.selection,
            )
            store.judge(shown.id, prefer(0), latency_ms=4000)
            queue.refresh(offer.task_id, offer.purpose)

        print("  next pair, store and queue   ", spread([timed(one) for _ in range(DRAWS)]))


def measure_sitting(folder: Path) -> None:
    """Sitting.answer: the answer stored and the next pair there, statistics included."""
    moment = [0.0]
    with open_project(folder).store() as store:
        sitting = Sitting(store, store.add_rater("ada"), rules=Rules(), columns=80, rows=24, clock=lambda: moment[0])

        def one() -> None:
            moment[0] += 5
            assert sitting.answer(prefer(1))
            assert sitting.shown is not None

        print("  next pair, whole sitting     ", spread([timed(one) for _ in range(DRAWS)]))


def run_verb(*words: str) -> tuple[float, float]:
    """Seconds and peak megabytes of one command of the program, start included."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "rlhf_tui", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"rlhf-tui {' '.join(words)} failed:\n{said.decode()}")
    return time.perf_counter() - started, used.ru_maxrss / 1024


def measure_verbs(folder: Path, scratch: Path) -> None:
    """Statistics, exports, and an import into a new project."""
    report("labels stats", *run_verb("labels", "stats", "--project", str(folder)))
    for name in FORMATS:
        target = scratch / f"{name}.jsonl"
        report(
            f"labels export, {name}",
            *run_verb("labels", "export", str(target), "--format", name, "--project", str(folder)),
        )
        fresh = create_project(scratch / f"from-{name}")
        report(f"labels import, {name}", *run_verb("labels", "import", str(target), "--project", str(fresh.root)))


def report(what: str, seconds: float, megabytes: float) -> None:
    print(f"  {what:<28} {seconds:6.2f} s   peak {megabytes:4.0f} MB", flush=True)


# -- key to paint ----------------------------------------------------------------------------------


class App:
    """The labelling screen on a pseudo-terminal of 120 x 40."""

    def __init__(self, folder: Path) -> None:
        words = ["-m", "rlhf_tui", "label", "--rater", "ada", "--project", str(folder)]
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
            os.execv(sys.executable, [sys.executable, *words])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._until_painted()

    def press(self, key: str) -> tuple[float, float]:
        """Seconds from the key until the next pair is painted, and until nothing more is painted for 0.15 s."""
        time.sleep(GUARD)
        os.write(self._fd, key.encode())
        started = time.perf_counter()
        pair, everything = self._until_painted()
        return pair - started, everything - started

    def close(self) -> float:
        """Leave; the peak memory in megabytes."""
        os.write(self._fd, b"\x11")
        while self._read(2.0):
            pass
        os.close(self._fd)
        _, _, used = os.wait4(self._pid, 0)
        return used.ru_maxrss / 1024

    def _until_painted(self) -> tuple[float, float]:
        painted, pair, last = "", 0.0, 0.0
        while piece := self._read(0.15 if pair else 30.0):
            last = time.perf_counter()
            painted += piece
            if not pair and MARKS.search(painted):
                pair = last
        if not pair:
            raise SystemExit(f"no new pair came; the last output was:\n{painted[-2000:]}")
        return pair, last

    def _read(self, patience: float) -> str:
        """What comes within so many seconds; empty when nothing does, or the app is gone."""
        if not select.select([self._fd], [], [], patience)[0]:
            return ""
        try:
            return os.read(self._fd, 1 << 16).decode("utf-8", "replace")
        except OSError:
            return ""


def measure_paint(folder: Path, keys: int, what: str) -> None:
    """From a key to the paint of the next pair, in the real app."""
    app = App(folder)
    times = [app.press("f") for _ in range(keys)]
    peak = app.close()
    print(f"  key to pair, {what:<16}", spread([pair for pair, _ in times]))
    print(f"  key to last touch, {what:<10}", spread([everything for _, everything in times]))
    print(f"  {'the app, ' + what:<28} {'':>9} peak {peak:4.0f} MB", flush=True)


# -- all together ----------------------------------------------------------------------------------


def in_a_process(name: str, *words: str) -> None:
    """One measurement in a process of its own, with its peak memory."""
    child = subprocess.Popen([sys.executable, __file__, "--only", name, *words])
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{name} failed")
    print(f"  {'':<28} {'':>9} peak {used.ru_maxrss / 1024:4.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the project is kept, or was")
    parser.add_argument("--completions", type=int, default=50_000)
    parser.add_argument("--judgements", type=int, default=20_000)
    parser.add_argument("--only", choices=("store", "sitting"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        return {"store": measure_store, "sitting": measure_sitting}[given.only](given.folder)
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        folder = given.folder or scratch / "large"
        if not folder.exists():
            seconds = timed(lambda: make_project(folder, given.completions, given.judgements))
            print(f"made in {seconds:.0f} s")
        size = sum(path.stat().st_size for path in folder.glob("preferences.db*")) / 1e6
        with open_project(folder).store() as store:
            counts = store.counts()
        print(f"{counts.completions:,} completions, {counts.judgements + counts.repeats:,} judgements, {size:.0f} MB")
        measure_verbs(folder, scratch)
        in_a_process("store", "--folder", str(folder))
        in_a_process("sitting", "--folder", str(folder))
        measure_paint(folder, 60, "usual texts")
        measure_paint(make_long(scratch / "long").root, 30, "50 kB texts")


if __name__ == "__main__":
    main()
