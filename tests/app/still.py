"""A world that stands still: one clock, one machine, one home folder, for screens that are compared letter by letter.

Whatever differs from one machine or one moment to the next is given at its source, so that the screens themselves need
no masking: the texts are the same on a machine with and without a card, in any time zone, folder or Python.
"""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlhf_tui.app.screens.log import LogScreen
from rlhf_tui.doctor import Check
from rlhf_tui.fit import GIB
from rlhf_tui.project import Project, create_project
from rlhf_tui.room import Room
from rlhf_tui.runs import journal

NOON = datetime.datetime(2026, 3, 14, 12, 0, tzinfo=datetime.UTC).timestamp()
#: Seconds between two events of a run.
PACE = 6.0
#: What the doctor finds: every name it looks for, and each of its three verdicts.
CHECKS = [
    Check("python", "ok", "3.12.1"),
    Check("memory", "ok", "31.2 GiB, 24.0 GiB free"),
    Check("cpu cores", "ok", "16"),
    Check("disk", "note", "9.1 GiB free", "Checkpoints and exports need more; free some space or use another disk."),
    Check("torch", "ok", "2.8.0+cu128"),
    Check("transformers", "ok", "4.57.0"),
    Check("peft", "ok", "0.17.1"),
    Check("bitsandbytes", "problem", "not installed", "Install it: 'pip install bitsandbytes'."),
    Check("textual", "ok", "6.2.0"),
    Check("safetensors", "ok", "0.6.2"),
    Check("card", "ok", "NVIDIA GeForce RTX 3060, 12.0 GiB"),
    Check("terminal", "ok", "80x24"),
    Check("colours", "ok", "16 million"),
    Check("glyphs", "ok", "UTF-8: ▁▂▃▄▅▆▇█ ⣀⣤⣶⣿"),
    Check("tmux", "note", "not installed", "With it the app is still open when you come back."),
    Check("starter model", "ok", "cached"),
    Check("project", "ok", "my-assistant: locks work"),
]
ROOM = Room("NVIDIA GeForce RTX 3060 with 12.0 GiB", 12 * GIB, True)


class StillClock:
    """The time of day, which passes only when it is told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float = PACE) -> float:
        """Let some time pass; the time then."""
        self.now += seconds
        return self.now


class BusyMachine:
    """A machine at work, always equally hard."""

    words = "card 93 % 8.2 GiB/12.0 GiB 71 °C 158 W"

    def look(self) -> None:
        """It has been looked at already."""


@contextmanager
def standing_still(home: Path) -> Iterator[StillClock]:
    """The world as described above, with `home` for a home folder; every event of a run takes `PACE` seconds."""
    clock, localtime, encode = StillClock(), time.localtime, journal.encode

    class Day(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(clock(), tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        patch.setattr(time, "time", clock)
        patch.setattr(time, "localtime", lambda at=None: localtime(clock() if at is None else at))
        patch.setattr(journal, "encode", lambda event, _: encode(event, clock.tick()))
        patch.setitem(LogScreen.__init__.__kwdefaults__, "now", clock)
        for module in ("preferences.database", "app.screens.label_panels", "app.screens.label_aside"):
            patch.setattr(f"rlhf_tui.{module}.datetime", Day)
        for screen in ("home", "doctor", "model"):
            patch.setattr(f"rlhf_tui.app.screens.{screen}.examine", lambda _: CHECKS)
        patch.setattr("rlhf_tui.app.model_plan.room_for", lambda _: ROOM)
        drawn = itertools.count(1)
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(drawn) << 64))
        for rest in ("new_project._REST", "prompts_window._REST", "label.PAUSE"):
            patch.setattr(f"rlhf_tui.app.screens.{rest}", 0.001)
        patch.setattr("textual.app.wait_for_idle", _at_once)  # see Tour
        home.mkdir(exist_ok=True)
        patch.setenv("HOME", str(home))
        patch.chdir(home)
        shutil.copytree(os.environ["RLHF_TUI_CACHE"], "models")
        with open(next(Path("models").iterdir()) / "model.safetensors", "wb") as weights:
            weights.truncate(269 << 20)  # a hole on the disk, which takes no room
        patch.setenv("RLHF_TUI_CACHE", "models")
        yield clock
    time.tzset()


async def _at_once(_: float = 0) -> None:
    """In place of a wait for an idle processor."""


def project_here(name: str) -> Project:
    """A new project in the folder we are in, called as such: its path is the same wherever that folder lies."""
    create_project(Path(name))
    return Project(Path(name))
