"""From screen to screen through the app, keeping the text of each: what a user sees, without any style."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual._context import visible_screen_stack
from textual.app import App
from textual.message_pump import MessagePump
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
    visible_screen_stack.set(app._background_screens)  # what lies behind a window is drawn along with it
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


class Tour:
    """A walk through one app; `shots` is what was seen, by name."""

    def __init__(self, pilot: Pilot[Any]) -> None:
        self.pilot = pilot
        self.app = pilot.app
        self.shots: dict[str, str] = {}

    async def settle(self) -> str:
        """Until every thread has ended, every journal is read, and what is drawn stays as it is; what that is."""
        await self._rest()
        if isinstance(self.app, RlhfApp):
            self.app.look()
            while any(not run.reader.caught_up for run in self.app.overview._watched()):
                self.app.look()
            self.app.renew()
        seen: list[str] = []
        while len(seen) < 3 or len(set(seen[-3:])) > 1:
            self.app.screen.refresh(layout=True)
            await self._rest()
            seen.append(screen_text(self.app))
        return seen[-1]

    async def _rest(self) -> None:
        """Until nothing is left to do. Pilot.pause watches the processor for 20 ms and more instead.

        A text that is laid out anew may change the room of another, which is told, and laid out anew: hence the rounds.
        """
        while any(timer._repeat == 0 and timer._task and not timer._task.done() for timer in self.app.screen._timers):
            await asyncio.sleep(0.001)  # what waits until nothing has been typed for a moment
        while self.app._batch_count:
            await asyncio.sleep(0.001)  # nothing is drawn meanwhile: for 50 ms after another stage was gone to
        for _ in range(4):
            await self._all_here()
            self.app.screen._on_timer_update()
            await self.app.workers.wait_for_complete()
        await self._all_here()

    async def _all_here(self) -> None:
        """Until the screen and all on it are mounted, and have done what they were told until then.

        A widget that is laid out before it runs is never told its size: Textual drops the message.
        """
        told: list[MessagePump] = []
        while told != (there := [self.app, *self.app.screen.walk_children(with_self=True)]):
            for one in there:
                await one._mounted_event.wait()
            await self.pilot._wait_for_screen()
            told = there

    async def shoot(self, name: str, *names: str) -> str:
        """Press keys, each once what the one before it does is done, and keep what is then on screen."""
        for key in names:
            await self.press(key)
        self.shots[name] = await self.settle()
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
async def touring(
    project: Project, size: tuple[int, int], *, busy: bool = False, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[Tour]:
    """A tour of a project's app; answers are stored only where its `clock` goes on after the candidates appear."""
    app = RlhfApp(project, rater="ann", machine=BusyMachine() if busy else None, clock=clock)  # type: ignore[arg-type]
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
