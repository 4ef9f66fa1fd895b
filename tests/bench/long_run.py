"""A day of events: what following a run of 24 hours costs the app in time, memory and processor.

    python tests/bench/long_run.py [--hours 24] [--rate 10] [--seconds 60]

Writes the journal of a PPO run as its worker would (metrics, samples, progress, memory, checkpoints), `rate` events a
second, and has three processes read it by the app's own code: one that reads 10,000 events; one that follows the
project without a screen; and the app itself on its PPO screen at 160x48, without a terminal behind it. The journal
grows to 1, 6 and 24 hours while they follow; after each they say how long they took to catch up and what they hold.
Then events come as they would from a worker, and the share of one core that the app takes is measured.

Prints a table; exits with 1 when an aim is missed: 10,000 events in 200 ms, no more than 10 MB between the first hour
and the last, less than 5 % of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.runs.events import Checkpoint, Event, Launch, Memory, Metric, Progress, Sample, Stage, encode
from rlhf_tui.runs.folder import RunFolder, create_run, latest
from rlhf_tui.runs.journal import JournalReader

SIZE = (160, 48)
HOUR = 3600
READING = 10_000  # events
AIM_READING = 0.2  # seconds
AIM_GROWTH = 10_000_000  # bytes
AIM_SHARE = 0.05  # of one core
UPDATES = 1_000_000
BEGAN = 1_700_000_000.0
MEASURED = (
    *("score", "score_std", "score_raw", "saturation", "kl", "kl_k3", "kl_coefficient", "objective", "tokens"),
    *("length", "length_max", "eos_rate", "repetition", "entropy", "explained_variance", "policy_loss", "ratio_mean"),
    *("ratio_min", "ratio_max", "clip_fraction", "approx_kl", "value_loss", "policy_grad_norm", "value_grad_norm"),
    *("policy_lr", "value_lr", "seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second"),
    "update_tokens_per_second",
    "first_deviation",
)
HELD_OUT = ("heldout_score", "heldout_kl", "heldout_root_kl", "heldout_length", "heldout_eos_rate")
WORDS = ("the", "leash", "holds", "a", "policy", "near", "what", "it", "was", "while", "scores", "rise", "and", "fall")


# -- the journal ----------------------------------------------------------------------------------


def events(chance: random.Random) -> Iterator[Event]:
    """What a PPO run says, without end: an update is seven events, every 25th is evaluated, every 100th saved."""

    def text(most: int) -> str:
        return " ".join(chance.choices(WORDS, k=chance.randrange(5, most)))

    yield Launch("ppo-0001", "ppo", 1, "box", "0.1")
    yield Stage("loading the model")
    for step in itertools.count(1):
        yield Stage("sampling")
        yield Stage("learning")
        yield Metric(step, {name: chance.gauss(step / UPDATES, 1) for name in MEASURED})
        yield Progress(step, UPDATES, "updates")
        yield Sample(step, text(30), text(120), {"score": chance.gauss(0, 1), "kl": chance.gauss(5, 1)}, "policy")
        yield Sample(step, text(30), text(120), {"score": chance.gauss(0, 1), "kl": chance.gauss(5, 1)}, "policy")
        yield Memory("update", 4 << 30, 5 << 30, 6 << 30, 7 << 30)
        if step % 25 == 0:
            yield Stage("evaluating")
            yield Metric(step, {name: chance.gauss(step / UPDATES, 1) for name in HELD_OUT})
            yield Sample(step, text(30), text(120), {"score": chance.gauss(0, 1)}, "heldout")
        if step % 100 == 0:
            yield Checkpoint(step, f"checkpoints/step-{step:06d}", best=step % 500 == 0)


class Day:
    """The journal and its writer: hours at once, or as time goes by."""

    def __init__(self, run: RunFolder, rate: float) -> None:
        self.path = run.events_path
        self.written = 0
        self._rate = rate
        self._events = events(random.Random(24))

    def _line(self) -> bytes:
        self.written += 1
        return encode(next(self._events), BEGAN + self.written / self._rate)

    def until(self, hour: float) -> None:
        """Write what is said until that hour."""
        with self.path.open("ab") as file:
            while self.written < hour * HOUR * self._rate:
                file.write(self._line())

    def live(self, stop: threading.Event) -> None:
        """Write as time goes by."""
        with self.path.open("ab", buffering=0) as file:
            while not stop.wait(1 / self._rate):
                file.write(self._line())


# -- the readers, each a process of its own -------------------------------------------------------


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """The most memory this process has held."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def say(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


def behind(watched: Watched) -> bool:
    """Whether the journal holds more than was folded; what is written afterwards does not count."""
    return not watched.reader.caught_up or watched.reader._offset < watched.folder.events_path.stat().st_size


def read_some(project: Project) -> None:
    """Read and fold the journal, which holds as many events as are to be measured."""
    run = latest(project, "ppo")
    assert run is not None
    walls, cpus = [], []
    for _ in range(9):
        watched = Watched(run, JournalReader(run.events_path))
        wall, cpu = time.monotonic(), time.process_time()
        watched.read(60)
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
        assert watched.state.revision == READING
    say(seconds=statistics.median(walls), cpu=statistics.median(cpus), least=min(cpus))


def follow(project: Project) -> None:
    """The app's reading without a screen: one look after the other."""
    view = Overview(project)
    view.poll()
    watched = view.runs["ppo"]
    for _ in sys.stdin:
        begin, longest = time.monotonic(), 0.0
        while behind(watched):
            look = time.monotonic()
            view.poll()
            longest = max(longest, time.monotonic() - look)
        say(seconds=time.monotonic() - begin, longest=longest, rss=rss(), peak=peak(), events=watched.state.revision)


async def show(project: Project) -> None:
    """The app on the PPO screen. A line asks it to catch up; one with a number, to run for so many seconds."""
    from rlhf_tui.app.app import RlhfApp

    app = RlhfApp(project, start="ppo")
    async with app.run_test(size=SIZE):
        while line := await asyncio.to_thread(sys.stdin.readline):
            watched = app.overview.runs["ppo"]
            begin, cpu = time.monotonic(), time.process_time()
            if float(line):
                await asyncio.sleep(float(line))
            else:
                while behind(watched):
                    await asyncio.sleep(0.02)
            wall, used = time.monotonic() - begin, time.process_time() - cpu
            say(seconds=wall, share=used / wall, rss=rss(), peak=peak(), events=watched.state.revision)


# -- the parent -----------------------------------------------------------------------------------


@dataclass
class Reader:
    """A reader's process: what is asked of it goes in as a line, what it found comes out as one."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, what: str, project: Project) -> Reader:
        command = [sys.executable, __file__, "--as", what, str(project.root)]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def ask(self, seconds: float = 0) -> dict[str, float]:
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        print(seconds, file=stdin, flush=True)
        return self.hear()

    def hear(self) -> dict[str, float]:
        assert self.process.stdout is not None
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        self.process.communicate()


def new_run(folder: Path, name: str) -> RunFolder:
    project = create_project(folder / name)
    return create_run(project, "ppo")


def project_of(run: RunFolder) -> Project:
    return open_project(run.path.parents[1])


def aim(what: str, found: float, limit: float, shown: Callable[[float], str]) -> bool:
    """Print one aim and whether it is met."""
    met = found < limit
    print(f"{'ok  ' if met else 'MISS'} {what:<46}{shown(found):>10}   aim: less than {shown(limit)}", flush=True)
    return met


def in_mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def reading(folder: Path, rate: float) -> bool:
    run = new_run(folder, "some")
    Day(run, rate).until(READING / rate / HOUR)
    reader = Reader.start("read", project_of(run))
    found = reader.hear()
    reader.end()
    print(f"     processor time {found['cpu'] * 1000:.0f} ms, at best {found['least'] * 1000:.0f} ms; medians of nine")
    return aim(f"reading {READING:,} events", found["seconds"], AIM_READING, lambda it: f"{1000 * it:.0f} ms")


def growing(folder: Path, what: str, hours: tuple[float, ...], rate: float, seconds: float = 0) -> list[bool]:
    """Let the journal grow under a reader; then, if asked, let time go by."""
    run = new_run(folder, what)
    day = Day(run, rate)
    day.until(1 / HOUR)
    held, met = [], []
    with run.lock():
        reader = Reader.start(what, project_of(run))
        for hour in hours:
            day.until(hour)
            found = reader.ask()
            held.append(found["rss"])
            longest = f", longest look {1000 * found['longest']:.0f} ms" if "longest" in found else ""
            size = run.events_path.stat().st_size
            print(
                f"     {what:<7}{hour:>3g} h {day.written:>9,} events {in_mb(size):>9}: holds {in_mb(found['rss'])}, "
                f"peak {in_mb(found['peak'])}; caught up in {found['seconds']:.1f} s{longest}",
                flush=True,
            )
            assert found["events"] == day.written
        met.append(aim(f"{what}: growth after the first hour", max(held) - held[0], AIM_GROWTH, in_mb))
        if seconds:
            met.append(steady(reader, day, seconds))
        reader.end()
    return met


def steady(reader: Reader, day: Day, seconds: float) -> bool:
    """The app while events come: its share of one core."""
    stop = threading.Event()
    writer = threading.Thread(target=day.live, args=(stop,))
    writer.start()
    try:
        found = reader.ask(seconds)
    finally:
        stop.set()
        writer.join()
    return aim(f"show: of one core, over {seconds:g} s", found["share"], AIM_SHARE, lambda it: f"{100 * it:.1f} %")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--rate", type=float, default=10, help="events a second")
    parser.add_argument("--seconds", type=float, default=60, help="for which the app is watched")
    parser.add_argument("--as", dest="what", choices=("read", "follow", "show"), help=argparse.SUPPRESS)
    parser.add_argument("project", type=Path, nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what:
        project = open_project(given.project)
        readers: dict[str, Callable[[Project], Any]] = {
            "read": read_some,
            "follow": follow,
            "show": lambda it: asyncio.run(show(it)),
        }
        readers[given.what](project)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="long-run-"))
    hours = (*(hour for hour in (1.0, 6.0, 24.0) if hour < given.hours), given.hours)
    try:
        met = [reading(folder, given.rate)]
        met += growing(folder, "follow", hours, given.rate)
        met += growing(folder, "show", hours, given.rate, given.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
