"""The lines of a run's log and of its journal as a person reads them; and the runs to choose from. No widgets."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.widgets.panel import lines, list_line, tinted
from rlhf_tui.preferences.display import clean
from rlhf_tui.runs.ending import LOG_ENDS, Ending
from rlhf_tui.runs.events import Alert, Checkpoint, Done, Event, Launch, Stage, decode
from rlhf_tui.runs.folder import RunFolder, Status
from rlhf_tui.runs.paging import Line, Shown

# Most lines of a journal are numbers and samples, which have screens of their own: they are not even decoded.
_TOLD = re.compile(rb'"type":"(launch|stage|alert|checkpoint|done)"')
_HEAD = 96  # bytes in which the type of an event stands
_DONE = {"finished": "✓ finished", "stopped": "■ stopped", "failed": "✗ failed"}
_LEVELS = {"note": "· note", "warning": "⚠ warning", "stop": "✗ stop"}


@dataclass(frozen=True)
class Listed:
    """A run to choose: how it fares, and the unix time of its last word (0: none)."""

    folder: RunFolder
    status: Status
    heard: float

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def listed(folder: RunFolder) -> Listed:
    """A run as it is now."""
    try:
        heard = folder.events_path.stat().st_mtime
    except OSError:
        heard = 0.0
    return Listed(folder, folder.status(), heard)


def log_line(line: bytes) -> str | None:
    """A line of worker.log; of one that was written over again and again, what stands there in the end."""
    return clean(line.decode("utf-8", errors="replace").rstrip("\r").rsplit("\r", 1)[-1])


def log_line_saying(needle: str) -> Shown:
    """`log_line` for a search: lines whose bytes do not say `needle` are left out at once, 100 MB in a second."""
    if not needle.isascii():
        return log_line
    wanted = needle.lower().encode()
    return lambda line: log_line(line) if wanted in line.lower() else None


def event_line(line: bytes) -> str | None:
    """A line of the journal, when it tells what the run did: launch, stage, alert, checkpoint, done."""
    if not _TOLD.search(line, 0, _HEAD):
        return None
    try:
        stamped = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if stamped is None:
        return None
    at = time.strftime("%d %b %H:%M:%S", time.localtime(stamped.t))
    return clean(f"{at}  {_told(stamped.event)}")


def _told(event: Event) -> str:
    match event:
        case Launch():
            return f"● launched  process {event.pid} on {event.host}, version {event.version}"
        case Stage():
            return f"  {event.name}  {event.detail}".rstrip()
        case Alert():
            rest = " ".join(part for part in (event.message, event.why, event.remedy) if part)
            return f"{_LEVELS[event.level]}  {rest}"
        case Checkpoint():
            return f"✓ saved  step {event.step}{', the best so far' if event.best else ''}  {event.path}"
        case Done():
            said = (event.error or {}).get("what", "") or event.message
            return f"{_DONE[event.status]}  {said}".rstrip()
        case _:
            return ""


def how_it_broke_off(end: Ending | None) -> Content:
    """What happened, why, what to do; nothing for a run that goes on or ended well. The log itself stands below."""
    if end is None or end.status not in ("failed", "crashed"):
        return Content("")
    why = end.why.partition(LOG_ENDS)[0].rstrip()
    parts = [tinted(clean(f"✗ {end.what}"), "bad"), *(Content(clean(part)) for part in (why, end.todo) if part)]
    return lines(*parts)


def run_row(run: Listed, state: tuple[str, str, str], now: float, width: int, *, lit: bool) -> Content:
    """A run in the list: its name, its state in words, when it was last heard of."""
    glyph, word, tone = state
    ago = f"{words.duration(max(now - run.heard, 0.0))} ago" if run.heard else ""
    parts = [
        tinted(run.name.ljust(15), "strong" if lit else ""),
        tinted(f"{glyph} {word}".ljust(13), tone),
        tinted(ago, "quiet"),
    ]
    return list_line(parts, width, lit=lit)


def joined(shown: Sequence[Line]) -> tuple[str, list[int]]:
    """The lines as one text, and at which character each begins."""
    begins, at = [], 0
    for line in shown:
        begins.append(at)
        at += len(line.text) + 1
    return "\n".join(line.text for line in shown), begins


def matches(text: str, needle: str) -> list[tuple[int, int]]:
    """Where `text` says `needle`, whatever the capitals."""
    if not needle:
        return []
    return [found.span() for found in re.finditer(re.escape(needle), text, re.IGNORECASE)]
