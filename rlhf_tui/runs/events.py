"""What a run says about itself: the typed lines of `events.jsonl`.

One event is one JSON object on one line: `{"v":1,"t":unix seconds,"type":…,…}`. Readers ignore
types and fields they do not know, so that an older app can watch a newer worker.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

VERSION = 1

if TYPE_CHECKING:
    Values = dict[str, float]
else:
    # JSON has no NaN: it travels as null and becomes nan again in `_restore_nan`.
    Values = dict[str, float | None]


def _restore_nan(values: Values) -> None:
    if None in values.values():
        values.update({name: math.nan for name, value in values.items() if value is None})


class Launch(msgspec.Struct, frozen=True, tag_field="type", tag="launch"):
    """First event of an execution: the worker lives and holds the lock."""

    run: str
    kind: str
    pid: int
    host: str
    version: str


class Stage(msgspec.Struct, frozen=True, tag_field="type", tag="stage"):
    """What the run is doing now, e.g. 'loading the model'. 'paused' and 'resumed' are stages too."""

    name: str
    detail: str = ""


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """`done` of `total` units. Pace and remaining time follow from the times of these events."""

    done: int
    total: int
    unit: str = ""


class Metric(msgspec.Struct, frozen=True, tag_field="type", tag="metric"):
    """Numbers measured at one step. NaN and infinities are written as null and read back as nan."""

    step: int
    values: Values

    def __post_init__(self) -> None:
        _restore_nan(self.values)


class Sample(msgspec.Struct, frozen=True, tag_field="type", tag="sample"):
    """One completion worth looking at. `source`: policy, heldout, generate, before, after; in a chat base or policy."""

    step: int
    prompt: str
    completion: str
    values: Values = {}
    source: str = ""

    def __post_init__(self) -> None:
        _restore_nan(self.values)


class Memory(msgspec.Struct, frozen=True, tag_field="type", tag="memory"):
    """Memory of the worker in bytes: resident, its peak, allocated on the device, its peak.

    `planned` is what the plan gave the phase, CUDA's own memory included; 0: nothing was planned for it. `reserved` is
    the most that torch's allocator took from the device, with what it could not use; journals of older versions have
    neither.
    """

    phase: str
    rss: int
    peak_rss: int
    device: int = 0
    peak_device: int = 0
    planned: int = 0
    reserved: int = 0


class Alert(msgspec.Struct, frozen=True, tag_field="type", tag="alert"):
    """Something a person should know: what (`message`), why, and what to do (`remedy`)."""

    level: Literal["note", "warning", "stop"]
    code: str
    message: str
    why: str = ""
    remedy: str = ""


class Checkpoint(msgspec.Struct, frozen=True, tag_field="type", tag="checkpoint"):
    """A checkpoint lies complete on the disk at `path`."""

    step: int
    path: str
    best: bool = False


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """Last event of an execution. `error` has the keys what, why and todo.

    `cause` says for programs why it ended where the status leaves that open: for 'failed' one of
    `error` (something the user can act on), `bug` (the traceback is in worker.log), `out_of_memory`,
    `disk_full`, `card_lost`, `no_start`; for 'stopped' `signal` or `interrupted` (a second signal,
    nothing saved), and nothing when it was asked for. Journals of older versions have none.
    """

    status: Literal["finished", "stopped", "failed"]
    message: str = ""
    error: dict[str, str] | None = None
    result: dict[str, Any] = {}
    cause: str = ""


Event = Launch | Stage | Progress | Metric | Sample | Memory | Alert | Checkpoint | Done
EventSink = Callable[[Event], None]


class Stamped(NamedTuple):
    """An event and the unix time at which it was written."""

    t: float
    event: Event


class Head(msgspec.Struct, frozen=True):
    """What every line has, whichever version wrote it."""

    v: int
    t: float
    type: str


_TYPES = {"launch", "stage", "progress", "metric", "sample", "memory", "alert", "checkpoint", "done"}


def encode(event: Event, now: float) -> bytes:
    """`event`, written at unix time `now`, as one line with its newline.

    Raises TypeError when the event holds something that has no JSON form.
    """
    # The body starts with its own brace; version and time are put right behind it.
    return b'{"v":%d,"t":%.6f,%b\n' % (VERSION, now, _encoder.encode(event)[1:])


def head(line: bytes) -> Head:
    """Version, time and type of a line. Raises msgspec.DecodeError for one that is broken."""
    return _heads.decode(line)


def decode(line: bytes) -> Stamped | None:
    """The event in one line, or None when its type is unknown here.

    Raises msgspec.DecodeError (or UnicodeDecodeError) for a line that is broken.
    """
    first = head(line)
    if first.type not in _TYPES:
        return None
    return Stamped(first.t, _events.decode(line))


def _plain(value: object) -> object:
    """A JSON form for what results commonly hold: paths, and numpy or torch scalars."""
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r:.80}")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_heads = msgspec.json.Decoder(Head)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
