"""A soak: workers killed at random and disks that fill up, and what is left of each run when it has ended after all.

    python tests/bench/faults.py [--kills 200] [--fills 50] [--pauses 6] [--seed 1] [--only KIND] [--keep]

On a tiny model made here, for each kind of run: one run that nothing happens to, and then copies of it that are killed
(kill -9) at random moments, taken up again and killed again; while they work, a rater judges. Every copy must end with
the metrics, the result, the weights and the completions of the undisturbed run, hold every judgement that was
acknowledged, and leave no file that cannot be read and nothing half-written. The moments are random in time and in the
number of events, so that they spread over loading, sampling, learning, saving and the end.

With --fills the copies lie on a small tmpfs (root only; without the right to mount it says so and leaves this out),
whose free space shrinks to a random few KiB at a random moment; the run must end with a reason that names the disk,
and come to the same when there is room again. With --pauses they are paused and resumed as ordinary workers.

Workers are forked from a process that has imported torch, which saves ten seconds for each kill; what they do after
that is what the ordinary worker does. Prints a table; exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import faults_projects as projects
import psutil
from faults_projects import KINDS, Soaked

from rlhf_tui.errors import UsageError
from rlhf_tui.runs.control import request
from rlhf_tui.runs.launcher import launch
from rlhf_tui.runs.worker import main as worker_main

HERE = Path(__file__).parent
PATIENCE = 300  # seconds that an execution may take
ROOM = "64m"

Trouble = list[str]


# -- one execution --------------------------------------------------------------------------------


def forked(soaked: Soaked) -> int:
    """Start a worker for the run in a process of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os._exit(worker_main([str(soaked.project.root), soaked.run.name]))
    finally:
        os._exit(70)


def ended(child: int) -> int | None:
    """The wait status of a worker that has ended."""
    found, status = os.waitpid(child, os.WNOHANG)
    return status if found else None


def until(child: int, moment: Callable[[], bool]) -> bool:
    """Wait for the moment; False when the worker ended before it."""
    deadline = time.monotonic() + PATIENCE
    while not moment():
        if ended(child) is not None:
            return False
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)
            raise SystemExit("a worker has hung; its log has the stack")
        time.sleep(0.001)
    return True


def moment_of(soaked: Soaked, size: int, seconds: float, chance: random.Random) -> Callable[[], bool]:
    """A random moment of an execution: after some bytes of its journal, or after some time."""
    begin, written = time.monotonic(), soaked.journal_size()
    if chance.random() < 0.5:
        more = chance.randrange(1, max(2, size // 2))
        return lambda: soaked.journal_size() >= written + more
    pause = chance.uniform(0, seconds * 0.7)
    return lambda: time.monotonic() >= begin + pause


# -- the faults -----------------------------------------------------------------------------------


def killed(soaked: Soaked, whole: projects.Whole, chance: random.Random, most: int, told: Counter[str]) -> None:
    """Kill the run's worker again and again, at most `most` times, and let it end."""
    for _ in range(most):
        child = forked(soaked)
        moment = moment_of(soaked, whole.size, whole.seconds, chance)
        soaked.judge(chance)
        if not until(child, moment):
            return
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told[f"killed while {soaked.doing()}"] += 1
        told["hits"] += 1
    finish(soaked, chance)


def finish(soaked: Soaked, chance: random.Random) -> None:
    """Let the run go on to its end."""
    child = forked(soaked)
    soaked.judge(chance)
    until(child, lambda: False)


def filled(soaked: Soaked, whole: projects.Whole, chance: random.Random, most: int, told: Counter[str]) -> Trouble:
    """Fill the run's disk again and again, at most `most` times, make room, and let it end."""
    trouble: Trouble = []
    for _ in range(most):
        child = forked(soaked)
        left = chance.choice((0, 4, 16, 64, 256)) * 1024 + chance.randrange(4096)
        if not until(child, moment_of(soaked, whole.size, whole.seconds, chance)):
            break
        ballast(soaked.project.root.parent / "ballast", left)
        soaked.judge(chance)
        until(child, lambda: False)
        (soaked.project.root.parent / "ballast").unlink()  # SQLite needs some room even to look
        trouble += soaked.unreadable(complete=False)
        if soaked.run.status() == "finished":
            break  # what was left was enough
        told["hits"] += 1
        told[f"full while {soaked.doing()}"] += 1
        trouble += soaked.not_blamed_on_the_disk()
    if soaked.run.status() != "finished":
        finish(soaked, chance)
    return trouble


def ballast(path: Path, left: int) -> None:
    """Fill the disk of `path` until only `left` bytes are free."""
    facts = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file:
        try:
            for _ in range(max(0, facts.f_bavail * facts.f_frsize - left) // 4096):
                file.write(b"\0" * 4096)
        except OSError:
            return  # the worker was quicker


def paused(soaked: Soaked, whole: projects.Whole, chance: random.Random, most: int, told: Counter[str]) -> Trouble:
    """Pause and resume an ordinary worker, at most `most` times, and measure what a pause gives back."""
    bare = projects.bare_bytes()
    trouble: Trouble = []
    launch(soaked.project, soaked.run)
    for _ in range(most):
        try:
            held, left = one_pause(soaked, moment_of(soaked, whole.size, whole.seconds + 10, chance))
        except Over:
            break
        freed = (held - left) / max(1, held - bare)
        told["hits"] += 1
        told[f"gave back {100 * freed:.0f} % of {held >> 20} MiB"] += 1
        if held > 2 * bare and freed < 0.95:
            trouble.append(f"only {freed:.1%} given back")
        soaked.judge(chance)
        request(soaked.run, "resume")
    wait_while(lambda: soaked.run.alive)
    return trouble


class Over(Exception):
    """The run ended before it could be paused: it may at any moment."""


def one_pause(soaked: Soaked, moment: Callable[[], bool]) -> tuple[int, int]:
    """Pause the run at that moment; the most memory its worker held, and what it holds now. Raises Over."""
    run = soaked.run
    try:
        worker = psutil.Process(soaked.pid())
        wait_while(lambda: run.alive and not moment())
        held = [worker.memory_info().rss]
        request(run, "pause")

        def works_on() -> bool:
            if not run.alive:
                raise Over
            held.append(worker.memory_info().rss)
            return run.status() != "paused"

        wait_while(works_on)
        return max(held[:-1]), worker.memory_info().rss
    except (UsageError, psutil.NoSuchProcess):
        raise Over from None


def wait_while(so: Callable[[], bool]) -> None:
    """Return when it is no longer so; give up on a worker that has hung."""
    deadline = time.monotonic() + PATIENCE
    while so():
        if time.monotonic() > deadline:
            raise SystemExit("a worker has hung; its log has the stack")
        time.sleep(0.002)


# -- the soak -------------------------------------------------------------------------------------


def soak(what: str, count: int, kinds: list[str], folder: Path, wholes: dict[str, projects.Whole], seed: int) -> int:
    """Run copies until the fault has struck `count` times; print a line for each kind; returns the discrepancies."""
    wrong = 0
    for place, kind in enumerate(kinds):
        wanted = count // len(kinds) + (place < count % len(kinds))
        chance, told, trouble, copies = random.Random(f"{seed}/{what}/{kind}"), Counter[str](), Trouble(), 0
        started = time.monotonic()
        while told["hits"] < wanted and copies < 4 * wanted:
            most = min(chance.randrange(1, 7), wanted - told["hits"])
            soaked = projects.copy_of(wholes[kind], folder / f"{what}-{kind}-{copies}")
            found = FAULTS[what](soaked, wholes[kind], chance, most, told) or []
            found += soaked.differences(wholes[kind])
            trouble += [f"{what} {kind} copy {copies}: {text}" for text in found]
            told["judged"] += len(soaked.acknowledged)
            if not found:
                shutil.rmtree(soaked.project.root)
            copies += 1
        hits = told.pop("hits", 0)
        print(
            f"{what:<8}{kind:<10}{hits:>6} faults in {copies:>3} runs  {told.pop('judged', 0):>5} judgements  "
            f"{len(trouble):>3} discrepancies  {time.monotonic() - started:>6.0f} s",
            flush=True,
        )
        print("".join(f"{'':<18}{number:>6} × {text}\n" for text, number in sorted(told.items())), end="")
        print("".join(f"{'':<10}!! {text}\n" for text in trouble), end="", flush=True)
        wrong += len(trouble) + (hits < wanted)
    return wrong


FAULTS: dict[str, Callable[..., Trouble | None]] = {"kill": killed, "fill": filled, "pause": paused}


def small_disk(folder: Path) -> bool:
    """Put a small file system at `folder`; False where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--fills", type=int, default=50)
    parser.add_argument("--pauses", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    given = parser.parse_args()
    kinds = given.only or list(KINDS)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"{folder}", flush=True)
    wholes = {kind: projects.undisturbed(kind, folder / "whole", forked, until) for kind in kinds}
    for kind, whole in wholes.items():
        print(f"whole   {kind:<10}{whole.size:>8} bytes of events in {whole.seconds:.1f} s", flush=True)
    wrong = 0
    if given.kills:
        wrong += soak("kill", given.kills, kinds, folder, wholes, given.seed)
    if given.pauses:
        wrong += soak("pause", given.pauses, kinds, folder, wholes, given.seed)
    if given.fills and not small_disk(folder / "small"):
        print("fill    left out: a small file system cannot be mounted here (needs root)")
    elif given.fills:
        try:
            wrong += soak("fill", given.fills, kinds, folder / "small", wholes, given.seed)
        finally:
            if not (given.keep and wrong):
                subprocess.run(["umount", str(folder / "small")], check=False)
    if wrong:
        print(f"{wrong} discrepancies; what is left of them: {folder}")
    elif not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
