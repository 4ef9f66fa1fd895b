"""How busy the machine is: the card by its driver, or the processor and the memory where there is no card.

The driver may take its time, or hang: whoever samples does so away from the thread that draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Protocol

import psutil

from rlhf_tui.app import words
from rlhf_tui.doctor import NoDriver, driver


@dataclass(frozen=True)
class CardUse:
    """What a card is at now: memory in bytes, utilisation in percent, degrees Celsius, watts. None: not told."""

    used: int
    total: int
    utilisation: int | None = None
    temperature: int | None = None
    watts: float | None = None

    def __str__(self) -> str:
        busy = "" if self.utilisation is None else f"{self.utilisation} % "
        parts = [f"card {busy}{words.size(self.used)}/{words.size(self.total)}"]
        parts += [] if self.temperature is None else [f"{self.temperature} °C"]
        parts += [] if self.watts is None else [f"{self.watts:.0f} W"]
        return " ".join(parts)


@dataclass(frozen=True)
class HostUse:
    """What the machine itself is at: all processors together in percent, memory in bytes."""

    busy: float
    used: int
    total: int

    def __str__(self) -> str:
        return f"CPU {self.busy:.0f} % RAM {words.size(self.used)}/{words.size(self.total)}"


class Card(Protocol):
    """A card that can be asked; `use` raises NoDriver once it does not answer any more."""

    def use(self) -> CardUse:
        """What it is at now."""

    def close(self) -> None:
        """Let go of the driver."""


class DriverCard:
    """The card that a run takes, through NVIDIA's library, which stays open: opening it takes long."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises NoDriver when there is no card to ask."""
        self._library = driver()
        named = environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
        try:
            if named.startswith("GPU-"):
                self._handle = self._library.nvmlDeviceGetHandleByUUID(named)
            else:
                self._handle = self._library.nvmlDeviceGetHandleByIndex(int(named) if named.isdecimal() else 0)
        except self._library.NVMLError as error:
            self.close()
            raise NoDriver(str(error)) from None

    def use(self) -> CardUse:
        """What it is at now. Raises NoDriver when it does not answer."""
        library, handle = self._library, self._handle
        try:
            memory = library.nvmlDeviceGetMemoryInfo(handle)
        except library.NVMLError as error:
            raise NoDriver(str(error)) from None
        milliwatts = self._told(lambda: library.nvmlDeviceGetPowerUsage(handle))
        return CardUse(
            int(memory.used),
            int(memory.total),
            self._told(lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu),
            self._told(lambda: library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)),
            None if milliwatts is None else milliwatts / 1000,
        )

    def close(self) -> None:
        """Let go of the driver."""
        with suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _told(self, ask: Callable[[], Any]) -> int | None:
        """A number that not every card tells."""
        try:
            return int(ask())
        except self._library.NVMLError:
            return None


def host_use() -> HostUse:
    """The machine now; the share of the processors is the one since the last call."""
    memory = psutil.virtual_memory()
    return HostUse(psutil.cpu_percent(), memory.total - memory.available, memory.total)


class MachineWatch:
    """What the machine is at, in words, as of the last look. Never raises: a card that is lost is told in words.

    It looks in a thread of its own, which nothing waits for: not the drawing, and not the end of the program.
    """

    def __init__(self, open_card: Callable[[], Card] = DriverCard, read_host: Callable[[], HostUse] = host_use) -> None:
        self.words = ""
        self._open, self._read_host = open_card, read_host
        self._card: Card | None = None
        self._had_card: bool | None = None  # not known before the first look
        self._thread: Thread | None = None
        self._wanted, self._over = Event(), Event()
        read_host()  # the share of the processors is one since the last time

    def look(self) -> None:
        """Have it look soon. Returns at once; a look that is still going on is all there is."""
        if self._thread is None:
            self._thread = Thread(target=self._go_on, daemon=True, name="machine")
            self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """No more looks."""
        self._over.set()
        self._wanted.set()

    def _go_on(self) -> None:
        while self._wanted.wait() and not self._over.is_set():
            self._wanted.clear()
            self.sample()
        if self._card:
            self._card.close()

    def sample(self) -> None:
        """Look now; may take as long as the driver takes."""
        if self._had_card is False:
            self.words = str(self._read_host())
            return
        try:
            self._card = self._card or self._open()
            self.words = str(self._card.use())
            self._had_card = True
        except NoDriver as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        """No card, or one that has gone: the next look tries it anew."""
        card, self._card = self._card, None
        if card:
            card.close()
        self._had_card = bool(self._had_card)
        self.words = f"the card does not answer: {why}" if self._had_card else str(self._read_host())
