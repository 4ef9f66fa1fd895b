"""How soon the app is there, and what it costs while nobody touches it.

    python tests/bench/bench_app.py [--project DIR] [--seconds 20]

The app runs in a terminal of its own (160x48). `first_paint_s` is from the start of the process to the first screen
with its line of keys; the median of five starts, after one that is not counted (files come from the disk then).
`idle_percent` is its share of one core over the seconds after it has settled, `memory_mb` its resident memory then.
`torch` says whether the process has mapped a library of torch: it must not. Aims: under 1 s, 2 %, 120 MB. One document
of JSON; the exit status is 1 when an aim was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

SECONDS, PERCENT, MEGABYTES = 1.0, 2.0, 120.0
STARTS = 5
#: The last thing that is drawn of a stage.
KEYS = b"Leave"


class Opened:
    """The app on a pseudo terminal, from its start on."""

    def __init__(self, project: Path) -> None:
        self.began = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            own = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "160", "LINES": "48"}
            os.execve(sys.executable, [sys.executable, "-m", "rlhf_tui", str(project)], {**os.environ, **own})
        self.seen = b""

    def read(self, seconds: float) -> bytes:
        """What it draws in so many seconds; less when it draws at once."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        return os.read(self._fd, 1 << 16) if ready else b""

    def until_painted(self) -> float:
        """Seconds from the start to the first screen. Raises AssertionError when none comes."""
        while KEYS not in self.seen:
            assert time.monotonic() - self.began < 60, self.seen[-2000:]
            self.seen += self.read(1.0)
        return time.monotonic() - self.began

    def spend(self, seconds: float) -> None:
        """Let time pass; what is drawn is read, or the app would wait."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def close(self) -> None:
        os.write(self._fd, b"q")
        while psutil.pid_exists(self.pid) and os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            try:
                self.read(0.1)
            except OSError:
                time.sleep(0.05)
        os.close(self._fd)


def painted(project: Path) -> float:
    """Seconds to the first screen of one start."""
    app = Opened(project)
    took = app.until_painted()
    app.close()
    return took


def measured(project: Path, seconds: float) -> dict[str, object]:
    painted(project)
    starts = [painted(project) for _ in range(STARTS)]
    app = Opened(project)
    app.until_painted()
    app.spend(3.0)
    process = psutil.Process(app.pid)
    before = sum(process.cpu_times()[:2])
    app.spend(seconds)
    busy = sum(process.cpu_times()[:2]) - before
    found = {
        "first_paint_s": round(statistics.median(starts), 3),
        "idle_percent": round(100 * busy / seconds, 2),
        "memory_mb": round(process.memory_info().rss / 1e6, 1),
        "torch": any("libtorch" in one.path for one in process.memory_maps()),
    }
    app.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="an existing project; without it an empty one")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_STATE_HOME"] = scratch
        project = options.project
        if project is None:
            from rlhf_tui.project import create_project

            project = create_project(Path(scratch) / "empty").root
        found = measured(project, options.seconds)
    print(json.dumps(found))
    reached = (
        found["first_paint_s"] < SECONDS  # type: ignore[operator]
        and found["idle_percent"] < PERCENT  # type: ignore[operator]
        and found["memory_mb"] < MEGABYTES  # type: ignore[operator]
        and not found["torch"]
    )
    raise SystemExit(0 if reached else 1)


if __name__ == "__main__":
    main()
