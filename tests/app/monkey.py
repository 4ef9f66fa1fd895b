"""A monkey at the keyboard: random keys, pastes, clicks and sizes over every screen, by a seed.

It finds what a person would hardly try: an app that falls over, a bug that it lived on after, and a destructive act
(see `monkey_acts`) that nothing the monkey did had asked for.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import random
import re
import string
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.cells import cell_len
from textual import events
from textual.command import CommandPalette
from textual.geometry import Size
from textual.message import Message
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import TextArea
from textual.worker import Worker, WorkerState

from rlhf_tui.app import keys, keytable, screens
from rlhf_tui.app.frame import Frame
from rlhf_tui.app.screens.dialogs import ConfirmDialog, WritingDialog
from rlhf_tui.app.screens.home import HomeScreen
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.stage import StageScreen
from tests.app.monkey_acts import Act, Press, explained, inventory
from tests.app.monkey_cage import HOSTILE, SCENES, Cage, Scene, caged, on_stage

#: What is bound anywhere, and what an editor or a list listens to.
ALL_KEYS = sorted(
    {key.strip() for group in keytable.REGISTRY.values() for action in group for key in action.keys.split(",")}
    | {"tab", "shift+tab", "up", "down", "left", "right", "enter", "escape", "pageup", "pagedown", "home", "end"}
    | {"backspace", "delete", "space", "ctrl+s", "ctrl+c", "f1", "ctrl+p", "insert", "ctrl+u", "ctrl+k", "ctrl+w"}
)
PRINTABLE = [*string.ascii_letters, *string.digits, *"!?.,;:/\\[]{}()<>@#$%^&*-_=+'\"`~|", "é", "漢", "😀", "\u202e"]
PASTES = [
    HOSTILE,
    "starter",
    "prompts.txt",
    "an-owner/a-model",
    "/",
    "~",
    "~nobody/a-model",
    "",
    "0.5",
    "-1",
    "1e999",
    "A better answer.\nWith two lines.",
    "x" * 3000,
    "\x00\x01",
    "ann; DROP TABLE judgement",
]
SIZES = [(80, 24), (80, 24), (80, 24), (60, 16), (100, 30), (40, 12), (20, 6), (160, 48), (200, 60)]
#: A terminal would obey these.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TEXT_GIVEN_UP = "Give up what you wrote"
#: How often what is done. Windows are for most part answered or closed, or nobody would get to the next one.
_ON_A_STAGE = {"bound": 75, "any": 8, "printable": 3, "escape": 1, "paste": 1, "click": 7, "wheel": 2, "size": 3}
_IN_FRONT = {
    "bound": 50,
    "any": 6,
    "printable": 6,
    "escape": 9,
    "answer": 15,
    "paste": 3,
    "click": 7,
    "wheel": 2,
    "size": 2,
}
_ANSWERS = ("enter", "down", "up", "ctrl+s", "y", "tab")
_LEAVING = ("leave", "quit", "home")
_SIGNS = {" ": "space"}


def screen_classes() -> set[str]:
    """Every screen and window of the app that can be on top: those that no other one is a kind of."""
    for module in pkgutil.iter_modules(screens.__path__):
        importlib.import_module(f"{screens.__name__}.{module.name}")
    found, todo = set[type[Any]](), [Screen]
    while todo:
        below: list[type[Any]] = todo.pop().__subclasses__()
        found |= set(below)
        todo += below
    ours = {one for one in found if one.__module__.startswith(screens.__name__)}
    return {one.__name__ for one in ours if one.__name__ not in ("StageScreen", "Looking", "SettingDialog")}


@dataclass
class Seen:
    """What a run of the monkey came by."""

    presses: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def keys(self) -> int:
        """How many keys, pastes, clicks and sizes there were."""
        return self.presses.total()

    @property
    def screens(self) -> set[str]:
        """The classes of the screens and windows that were on top."""
        return {name.partition(":")[0] for name in self.presses}


class Threads(ThreadPoolExecutor):
    """The threads of the app's workers: one goes on when its screen has gone and no worker is known any more."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: set[Future[Any]] = set()

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        """Begin something."""
        begun = super().submit(work, *args, **named)
        self._begun.add(begun)
        return begun

    @property
    def busy(self) -> bool:
        """Whether anything goes on."""
        self._begun = {one for one in self._begun if not one.done()}
        return bool(self._begun)


class Monkey:
    """Plays in a cage for so many keys. What it finds is in `seen.findings`, with the keys before."""

    def __init__(self, seed: int, cage: Cage, seen: Seen, scene: str) -> None:
        self.random = random.Random(f"{seed} {scene}")
        self.cage, self.seen, self._scene = cage, seen, f"seed {seed}, {scene}"
        self._last: deque[Press] = deque(maxlen=24)
        self._recent: list[Press] = []
        self._crash: Path | None = None
        self._threads = Threads()

    def find(self, what: str) -> None:
        """Remember a finding, once."""
        if all(what not in found for found in self.seen.findings):
            told = " ".join(f"{press.screen}:{press.key}" for press in self._last)
            self.seen.findings.append(f"{self._scene}: {what}\n  after {told}")

    def hear(self, message: Message) -> None:
        """A message anywhere in the app: a worker may have failed; that of a palette just closed may."""
        if not isinstance(message, Worker.StateChanged) or message.state is not WorkerState.ERROR:
            return
        if not isinstance(message.worker.node, CommandPalette):
            self.find(f"a worker failed: {message.worker.error!r}")

    # One key

    async def step(self, pilot: Pilot[Any]) -> None:
        """Do something, and look at what came of it."""
        app = pilot.app
        if not (self._threads.busy or [worker for worker in app.workers if worker.is_running]):
            del self._recent[:-1]  # a command of the palette is carried out a moment after it was chosen
            self.cage.watch.calm()
        on_top = self._named(app.screen)
        drafts = _drafts(app)
        await self._do_something(app)
        self.seen.presses[on_top] += 1
        self.cage.clock.now += self.random.choice((0.05, 0.4, 2.0))
        await settle(pilot)
        if self.random.random() < 0.02:
            await asyncio.sleep(0.1)
        self._look(app, drafts)

    async def _do_something(self, app: Frame[Any]) -> None:
        in_front = not isinstance(app.screen, StageScreen | HomeScreen | LabelScreen)
        weights = _IN_FRONT if in_front else _ON_A_STAGE
        kind = self.random.choices(list(weights), list(weights.values()))[0]
        width, height = app.size
        at = self.random.randrange(max(width, 1)), self.random.randrange(max(height, 1))
        if kind == "paste":
            self._note(app, "paste")
            app.post_message(events.Paste(self.random.choice(PASTES)))
        elif kind == "click":
            self._note(app, "click")
            app.post_message(_mouse(events.MouseDown, at))
            app.post_message(_mouse(events.MouseUp, at))
        elif kind == "wheel":
            self._note(app, "wheel")
            app.post_message(_mouse(self.random.choice((events.MouseScrollUp, events.MouseScrollDown)), at))
        elif kind == "size":
            self._note(app, "size")
            size = Size(*self._size())
            app._driver._size = size  # type: ignore[union-attr]
            app.post_message(events.Resize(size, size))
        else:
            self._press(app, self._key(app, kind))

    def _size(self) -> tuple[int, int]:
        some = (self.random.randint(20, 200), self.random.randint(6, 60))
        return self.random.choice([*SIZES, some])

    def _key(self, app: Frame[Any], kind: str) -> str:
        """A key of this kind; one that leaves the app only now and then."""
        if kind == "printable":
            return self.random.choice(PRINTABLE)
        if kind == "answer":
            return self.random.choice(_ANSWERS)
        bound = app.screen.active_bindings
        for _ in range(9):
            key = "escape" if kind == "escape" else self.random.choice(list(bound) if kind == "bound" else ALL_KEYS)
            leaves = key in bound and bound[key].binding.action.rpartition(".")[2] in _LEAVING
            if not leaves or self.random.random() < 0.1:
                break
        return key

    def _press(self, app: Frame[Any], key: str) -> None:
        bound = app.screen.active_bindings.get(key)
        if bound is not None and bound.enabled:
            self.seen.actions[bound.binding.id or bound.binding.action] += 1
        self._note(app, _SIGNS.get(key, key))
        sign = keys.key_to_character(key) if len(key) > 1 else key
        app.post_message(events.Key(keys._character_to_key(key) if len(key) == 1 else key, sign))

    def _note(self, app: Frame[Any], key: str) -> None:
        press = Press(self._named(app.screen), key)
        self._last.append(press)
        self._recent.append(press)

    @staticmethod
    def _named(screen: Screen[Any]) -> str:
        name = type(screen).__name__
        return f"{name}: {screen._title}" if isinstance(screen, ConfirmDialog) else name

    # What came of it

    def _look(self, app: Frame[Any], drafts: dict[Screen[Any], str]) -> None:
        gone = {dialog: title for dialog, title in drafts.items() if _over(app) or dialog not in app.screen_stack}
        acts = self.cage.watch.taken()
        if self._last[-1].key != "ctrl+s":  # which stores, as an answer does
            acts += [Act("discard", title) for one, title in gone.items() if not getattr(one, "answered", False)]
        self._judge(acts)
        crash = app.bugs.file
        if crash is not None and crash != self._crash:
            self._crash = crash
            self.find(f"a bug: {crash.read_text()[-1500:]}")
        if not _over(app) and self.random.random() < 0.05:
            self._read(app)

    def _judge(self, acts: Sequence[Act]) -> None:
        for act in acts:
            self.seen.acts[act.kind] += 1
            if not explained(act, self._recent):
                self.find(f"nobody asked to {act.kind} {act.what}")

    def _read(self, app: Frame[Any]) -> None:
        """What is on screen: nothing a terminal obeys, every line as wide as the terminal."""
        compositor, width = app.screen._compositor, app.screen.size.width
        if not compositor.size == app.screen.size == app.size:
            return  # it is being drawn anew for another size
        for strip in compositor.render_strips():
            line = "".join(segment.text for segment in strip)
            if OBEYED.search(line) or "Traceback (most" in line:
                self.find(f"on screen: {line!r}")
            if cell_len(line) != width:
                self.find(f"{cell_len(line)} cells of {width} on {self._named(app.screen)}: {line!r}")

    # A sitting

    async def play(self, app: Frame[Any], keys: int) -> int:
        """Open the app, press up to so many keys, and leave it. Returns how many there were."""
        done = 0
        with _heard(self.find):
            try:
                self._threads = Threads()
                asyncio.get_running_loop().set_default_executor(self._threads)
                async with app.run_test(size=self._size(), notifications=True, message_hook=self.hear) as pilot:
                    await settle(pilot)
                    while done < keys and not _over(app):
                        await self.step(pilot)
                        done += 1
                    await self._leave(pilot)
            except Exception as error:
                self.find(f"it fell over: {error!r}")
            # what a key has begun in a thread ends in the cage
            await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), self._threads.shutdown)
            self._judge(self.cage.watch.taken())
        return max(done, 1)

    async def _leave(self, pilot: Pilot[Any]) -> None:
        """Go the ordinary way out: esc until a stage or Home is on top, then q."""
        app = pilot.app
        for _ in range(20):
            if _over(app):
                break
            given_up = self._named(app.screen) == f"ConfirmDialog: {TEXT_GIVEN_UP}"
            way_out = "q" if isinstance(app.screen, (StageScreen, HomeScreen)) else "escape"
            self._press(app, "y" if given_up else way_out)
            await settle(pilot)
        if app._exception is None and (not app._exit or app.return_code):
            self.find(f"there is no way out of {self._named(app.screen)}: {app.return_code}")


async def settle(pilot: Pilot[Any]) -> None:
    """What has a key has dealt with it, and with what came of that."""
    for _ in range(4):
        if not _over(pilot.app):
            await _heard_by(pilot.app)


async def _heard_by(app: Frame[Any]) -> None:
    """The app, the screen and what is focused have taken all that was sent to them until now."""
    focused = app.screen.focused
    for one in [app, app.screen, *(focused.ancestors_with_self if focused is not None else ())]:
        taken = asyncio.Event()
        if one.call_later(taken.set):
            await _until(taken, app._exception_event)


async def _until(taken: asyncio.Event, failed: asyncio.Event) -> None:
    waits = [asyncio.create_task(one.wait()) for one in (taken, failed)]
    _, left = await asyncio.wait(waits, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    for wait in left:
        wait.cancel()


def _over(app: Frame[Any]) -> bool:
    return app._exit or app._exception is not None


def _drafts(app: Frame[Any]) -> dict[Screen[Any], str]:
    """The windows in which a text has been begun or changed, and labelling with a note or an order that has."""
    begun: dict[Screen[Any], str] = {}
    for screen in app.screen_stack:
        if isinstance(screen, WritingDialog):
            text = "".join(area.text for area in screen.query(TextArea))
            begun |= {screen: screen._title} if text.strip() and text != screen._start else {}
        elif isinstance(screen, LabelScreen) and screen.unstored:
            begun |= {screen: "an answer"}
    return begun


def _mouse(kind: type[events.MouseEvent], at: tuple[int, int]) -> events.MouseEvent:
    return kind(None, *at, 0, 0, 1, False, False, False, *at, None)


@contextmanager
def _heard(find: Any) -> Iterator[None]:
    """What fails in a task or a thread that nobody waits for is a finding, too."""
    loop, before = asyncio.get_running_loop(), threading.excepthook
    loop.set_exception_handler(lambda _, told: find(f"a task failed: {told.get('message')} {told.get('exception')!r}"))
    threading.excepthook = lambda told: find(f"a thread failed: {told.exc_value!r}")
    try:
        yield
    finally:
        threading.excepthook = before
        loop.set_exception_handler(None)


async def play_scene(scene: Scene, seed: int, keys: int, seen: Seen) -> None:
    """So many keys on one project, and a look at its files before and after."""
    with TemporaryDirectory() as folder, caged(Path(folder)) as cage, on_stage(scene, cage) as opened:
        before = inventory(cage.here)
        cage.watch.taken()
        monkey, left = Monkey(seed, cage, seen, scene.name), keys
        while left > 0:
            left -= await monkey.play(opened(), left)
        for act in before.missing(inventory(cage.here)):
            if not act.what.endswith("rlhf.toml"):  # each change of which has been judged when it was heard
                monkey.find(f"{act.kind} of what was there: {act.what}")


async def play(seed: int, keys: int, each: int, tell: Callable[[Seen], object] = bool) -> Seen:
    """So many keys over all scenes in turn, `each` at a time; `tell` hears of it after each of them."""
    seen = Seen()
    for at, begun in enumerate(range(0, keys, each)):
        await play_scene(SCENES[at % len(SCENES)], seed + at // len(SCENES), min(each, keys - begun), seen)
        tell(seen)
    return seen
