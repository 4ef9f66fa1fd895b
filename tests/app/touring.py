"""From screen to screen through the app, keeping the text of each: what a user sees, without any style."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.home import HomeApp
from rlhf_tui.app.screens.home import HomeScreen
from rlhf_tui.app.screens.stage import StageScreen
from rlhf_tui.project import Project
from tests.app.still import BusyMachine

#: The six stages, and the screens that every project has in front of them, by the keys that open each.
SCREENS: Mapping[str, Sequence[str]] = {
    "1-model": ("1",),
    "2-pairs": ("2",),
    "3-reward": ("3",),
    "4-ppo": ("4",),
    "5-compare": ("5",),
    "6-export": ("6",),
    "label": ("2", "l"),
    "settings": ("4", "e"),
    "log": ("4", "L"),
    "doctor": ("1", "D"),
    "chat": ("4", "t"),
    "help": ("4", "question_mark"),
}


def screen_text(app: App[Any]) -> str:
    """What is on screen, line by line, without colours and without blanks at the ends of lines."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


class Tour:
    """A walk through one app; `shots` is what was seen, by name."""

    def __init__(self, pilot: Pilot[Any]) -> None:
        self.pilot = pilot
        self.app = pilot.app
        self.shots: dict[str, str] = {}

    async def settle(self) -> None:
        """Until every thread has ended, every journal is read, and what is drawn stays as it is."""
        seen = ""
        while seen != (seen := screen_text(self.app)) or not seen:
            await self._rest()
            self._renew()
            await self._rest()

    def _renew(self) -> None:
        """Read and draw all there is, whether or not it is new."""
        if isinstance(self.app, RlhfApp):
            self.app.look()
            while any(not run.reader.caught_up for run in self.app.overview._watched()):
                self.app.look()
            self.app.renew()
        for screen in self.app.screen_stack:
            screen.refresh(layout=True)

    async def _rest(self) -> None:
        """Until nothing is left to do. Pilot.pause watches the processor for 20 ms and more instead."""
        while any(timer._repeat == 0 and timer._task and not timer._task.done() for timer in self.app.screen._timers):
            await asyncio.sleep(0.001)  # what waits until nothing has been typed for a moment
        for _ in range(2):
            await self.pilot._wait_for_screen()
            self.app.screen._on_timer_update()
            await self.app.workers.wait_for_complete()
        await self.pilot._wait_for_screen()

    async def shoot(self, name: str, *names: str) -> str:
        """Press keys, each once what the one before it does is done, and keep what is then on screen."""
        for key in names:
            await self.press(key)
        await self.settle()
        self.shots[name] = screen_text(self.app)
        return self.shots[name]

    async def press(self, key: str) -> None:
        """Press a key, and wait until what it does is done."""
        await self.pilot.press(key)
        await self._rest()

    async def visit(self, name: str, *names: str) -> None:
        """The same, and then back to a stage, or Home."""
        await self.shoot(name, *names)
        await self.back()

    async def back(self) -> None:
        """Out of every window."""
        for _ in range(5):
            if isinstance(self.app.screen, StageScreen | HomeScreen):
                break
            await self.press("escape")
        assert isinstance(self.app.screen, StageScreen | HomeScreen), self.app.screen


@asynccontextmanager
async def touring(project: Project, size: tuple[int, int], *, busy: bool = False) -> AsyncIterator[Tour]:
    """A tour of a project's app."""
    app = RlhfApp(project, rater="ann", machine=BusyMachine() if busy else None, clock=lambda: 0.0)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        tour = Tour(pilot)
        await tour.settle()
        yield tour


@asynccontextmanager
async def touring_home(base: Path, size: tuple[int, int]) -> AsyncIterator[Tour]:
    """A tour of Home."""
    async with HomeApp(base).run_test(size=size) as pilot:
        tour = Tour(pilot)
        await tour.settle()
        yield tour
