"""How busy the machine is: with a card, without one, and with one that is lost; and where that is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from textual.app import App

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.usage import CardUse, DriverCard, HostUse, MachineWatch, host_use
from rlhf_tui.doctor import NoDriver
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Event as RunEvent
from rlhf_tui.runs.events import Progress, Stage
from rlhf_tui.runs.folder import RunFolder

GIB = 1 << 30
BUSY = CardUse(int(9.8 * GIB), 12 * GIB, 87, 71, 180.4)
HOST = HostUse(97.4, 5 * GIB, 16 * GIB)


class FakeCard:
    """A card that answers with what it is given: a use, or a reason why not."""

    def __init__(self, *answers: CardUse | str) -> None:
        self.answers = list(answers)
        self.closed = 0

    def use(self) -> CardUse:
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise NoDriver(answer)
        return answer

    def close(self) -> None:
        self.closed += 1


def no_card() -> FakeCard:
    raise NoDriver("Driver Not Loaded")


def test_a_card_is_told_with_all_it_tells() -> None:
    watch = MachineWatch(lambda: FakeCard(BUSY), lambda: HOST)
    assert watch.words == ""
    watch.sample()
    assert watch.words == "card 87 % 9.8G/12.0G 71 °C 180 W"
    assert str(CardUse(GIB, 12 * GIB)) == "card 1.0G/12.0G"


def test_without_a_card_the_processor_and_the_memory_are_told() -> None:
    asked: list[int] = []

    def open_card() -> FakeCard:
        asked.append(1)
        return no_card()

    watch = MachineWatch(open_card, lambda: HOST)
    for _ in range(3):
        watch.sample()
        assert watch.words == "CPU 97 % RAM 5.0G/16.0G"
    assert asked == [1]


def test_a_card_that_is_lost_is_told_and_looked_for_again() -> None:
    first, third = FakeCard(BUSY, "GPU is lost"), FakeCard(BUSY)
    found: list[Callable[[], FakeCard]] = [lambda: first, no_card, lambda: third]
    watch = MachineWatch(lambda: found.pop(0)(), lambda: HOST)
    said = []
    for _ in range(4):
        watch.sample()
        said.append(watch.words)
    busy = "card 87 % 9.8G/12.0G 71 °C 180 W"
    lost = "the card does not answer: "
    assert said == [busy, f"{lost}GPU is lost", f"{lost}Driver Not Loaded", busy]
    assert first.closed == 1


def test_a_driver_that_hangs_holds_nobody_up() -> None:
    hung, going_on = Event(), Event()

    class Hanging(FakeCard):
        def use(self) -> CardUse:
            hung.set()
            going_on.wait()
            return BUSY

    card = Hanging()
    watch = MachineWatch(lambda: card, lambda: HOST)
    for _ in range(3):
        watch.look()  # returns although the driver does not
    assert hung.wait(30)
    assert watch.words == ""
    assert watch._thread is not None
    assert watch._thread.daemon
    watch.close()
    going_on.set()
    watch._thread.join(30)
    assert not watch._thread.is_alive()
    assert card.closed == 1


def test_the_machine_itself_is_measured() -> None:
    use = host_use()
    assert 0 <= use.busy <= 100
    assert 0 < use.used < use.total


@dataclass
class Library:
    """What NVIDIA's library offers, with a card that does not tell its power."""

    NVML_TEMPERATURE_GPU = 0
    opened: int = 0
    taken: list[object] = field(default_factory=list)

    class NVMLError(Exception):
        """Whatever it says went wrong."""

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index > 1:
            raise self.NVMLError("Invalid Argument")
        self.taken.append(index)
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        self.taken.append(name)
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(used=GIB, total=8 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return SimpleNamespace(gpu=40)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return 55

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        raise self.NVMLError("Not Supported")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setitem(sys.modules, "pynvml", found)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("visible", "taken"), [(None, 0), ("", 0), ("1", 1), ("1,0", 1), ("GPU-12ab", "GPU-12ab"), ("MIG-x", 0)]
)
def test_the_card_that_a_run_takes_is_asked(library: Library, visible: str | None, taken: object) -> None:
    card = DriverCard({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert library.taken == [taken]
    assert card.use() == CardUse(GIB, 8 * GIB, 40, 55, None)
    card.close()
    assert library.opened == 0


def test_a_card_that_is_not_there_leaves_the_driver_closed(library: Library) -> None:
    with pytest.raises(NoDriver, match="Invalid Argument"):
        DriverCard({"CUDA_VISIBLE_DEVICES": "7"})
    assert library.opened == 0


class Told(MachineWatch):
    """A watch that has looked, and counts how often it is to look again."""

    def __init__(self) -> None:
        super().__init__(lambda: FakeCard(BUSY), lambda: HOST)
        self.sample()
        self.asked = 0

    def look(self) -> None:
        self.asked += 1


@pytest.mark.parametrize("kind", ["generate", "reward", "ppo"])
@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_a_live_page_shows_how_busy_the_card_is(
    labelled: Project,
    write_run: Callable[..., RunFolder],
    ppo_events: list[RunEvent],
    alive: Callable[[RunFolder], AbstractContextManager[None]],
    kind: str,
    size: tuple[int, int],
    text_of: Callable[[App[None]], str],
) -> None:
    news = ppo_events if kind == "ppo" else [Stage("working"), Progress(3, 20, "steps")]
    run, machine = write_run(labelled, kind, news), Told()
    busy = "card 87 % 9.8G/12.0G 71 °C 180 W"
    with alive(run):
        app = RlhfApp(labelled, machine=machine)
        async with app.run_test(size=size) as pilot:
            for _ in range(3):
                await pilot.pause()
            app._look_at_machine()
            assert machine.asked >= 1
            head, *rest = text_of(app).splitlines()
            assert (busy in head) == (size[0] >= 120)
            assert (busy in "".join(rest)) == (size[0] < 120)


async def test_an_idle_app_leaves_the_driver_alone(finished: Project, text_of: Callable[[App[None]], str]) -> None:
    machine = Told()
    app = RlhfApp(finished, machine=machine)
    async with app.run_test(size=(160, 48)) as pilot:
        await pilot.pause()
        app._look_at_machine()
        assert machine.asked == 0
        assert "87 %" not in text_of(app)
