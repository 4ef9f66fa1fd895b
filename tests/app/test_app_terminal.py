"""What the app does to a terminal and a process: imports, signals, a terminal that hangs up, no terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhf_tui.app.terminal import hung_up, keep_crash
from rlhf_tui.project import Project

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
SHOW = """
import sys
from pathlib import Path
from rlhf_tui.app.session import run_app
from rlhf_tui.project import open_project
run_app(open_project(Path(sys.argv[1])))
"""


def test_importing_the_app_imports_nothing_heavy() -> None:
    code = f"import sys, rlhf_tui.app.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_terminal_it_says_so(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, str(project.root)], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "The app needs a terminal." in done.stderr


class Session:
    """The app in a pseudo-terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.master = master
        self.output = b""

    def read_until(self, wanted: bytes, patience: float = 60.0) -> None:
        """Read what the app draws until it has drawn `wanted`."""
        deadline = time.monotonic() + patience
        while wanted not in self.output:
            assert time.monotonic() < deadline, self.output[-2000:]
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.master, 1 << 16)
                except OSError:
                    break
        assert wanted in self.output, self.output[-2000:]


@contextmanager
def shown(project: Project, keyboard: int | None = None) -> Iterator[Session]:
    """The app on a terminal; what is typed comes from that, or from another terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, str(project.root)],
        stdin=slave if keyboard is None else keyboard,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        start_new_session=True,
    )
    os.close(slave)
    session = Session(process, master)
    try:
        session.read_until(b"Base model")
        yield session
    finally:
        process.kill()
        process.wait()
        if session.master >= 0:
            os.close(session.master)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_in_order(project: Project, number: signal.Signals) -> None:
    with shown(project) as session:
        session.process.send_signal(number)
        session.read_until(b"\x1b[?1049l")
        session.read_until(b"\x1b[?25h")
        assert session.process.wait(timeout=60) == 0


def test_a_terminal_that_hangs_up_ends_the_app(project: Project) -> None:
    with shown(project) as session:
        os.close(session.master)
        session.master = -1
        assert session.process.wait(timeout=60) is not None


def test_the_end_of_input_ends_the_app_and_leaves_the_terminal_in_order(project: Project) -> None:
    keys, keyboard = pty.openpty()
    try:
        with shown(project, keyboard) as session:
            os.close(keyboard)
            keyboard = -1
            os.close(keys)
            keys = -1
            session.read_until(b"\x1b[?1049l")
            session.read_until(b"\x1b[?25h")
            assert session.process.wait(timeout=60) == 0
    finally:
        for fd in (keys, keyboard):
            if fd >= 0:
                os.close(fd)


def test_hung_up_tells_a_terminal_from_none() -> None:
    master, slave = pty.openpty()
    assert not hung_up(slave)
    os.close(master)
    assert hung_up(slave)
    os.close(slave)
    assert hung_up(slave)
    reader, writer = os.pipe()
    assert hung_up(reader)
    os.close(reader)
    os.close(writer)


def test_a_crash_that_cannot_be_kept_is_not_another_crash(tmp_path: Path) -> None:
    assert keep_crash(tmp_path / "missing", ValueError("x")) is None
