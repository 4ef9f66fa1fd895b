"""A real terminal for tests: a tmux server of its own that is typed into, looked at, and may be killed."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable

import psutil


class Terminal:
    """A tmux server with one pane, in which one program runs. Leaving it as a context kills the server."""

    def __init__(self, columns: int, rows: int, command: str = "sh") -> None:
        self._server = f"rlhf-test-{uuid.uuid4().hex[:8]}"
        command = f"exec env -u COLUMNS -u LINES {command}"  # the size is the pane's, whatever the tests run in
        begin = ["new-session", "-d", "-x", str(columns), "-y", str(rows), command]
        stay = ["set-option", "-g", "remain-on-exit", "on"]  # so that the last words of a crash can be read
        self._tmux("-f", "/dev/null", "start-server", ";", *stay, ";", *begin)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(int(self._tmux("display-message", "-p", "#{pane_pid}")))

    @property
    def server(self) -> psutil.Process:
        return psutil.Process(int(self._tmux("display-message", "-p", "#{pid}")))

    @property
    def title(self) -> str:
        return self._tmux("display-message", "-p", "#{pane_title}")

    @property
    def column(self) -> int:
        """Where the cursor stands."""
        return int(self._tmux("display-message", "-p", "#{cursor_x}"))

    def write(self, text: str) -> None:
        """Have the terminal show a text as if its program had written it."""
        with open(self._tmux("display-message", "-p", "#{pane_tty}").strip(), "w", encoding="utf-8") as tty:
            tty.write(text)

    def type(self, text: str) -> None:
        """A line for a shell."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def write_keys(self, text: str) -> None:
        """Type a text, without enter."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, what: str | Callable[[str], object], why: str = "", seconds: float = 60) -> str:
        """The screen as soon as it holds a text, or as a function of it says yes; `why` names what that waits for."""
        deadline, pause = time.monotonic() + seconds, 0.01
        while time.monotonic() < deadline:
            screen = self.screen()
            if what in screen if isinstance(what, str) else what(screen):
                return screen
            time.sleep(pause)
            pause = min(pause * 1.2, 0.2)
        raise AssertionError(f"waited in vain for {why or what!r}; the screen is:\n{self.screen()}")

    def close(self) -> None:
        """Kill the server and what runs in it; harmless when it is gone."""
        subprocess.run(["tmux", "-L", self._server, "kill-server"], capture_output=True)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-L", self._server, *words], capture_output=True, text=True, check=True)
        return done.stdout


def ended(process: psutil.Process) -> bool:
    """Whether the process is over; tmux does not always collect it."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
