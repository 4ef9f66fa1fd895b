"""How a run ended, for people and for programs: from its last word or, when it left none, from what it left.

A worker that is killed writes nothing. What can be known afterwards comes from its lock file (which
process it was, on which boot of which machine, how often the system had run out of memory by then),
from `exit.json` (its wait status, which its watcher has noted), from the last line of its journal, and
from its log.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from dataclasses import dataclass

import msgspec

from rlhf_tui.runs.events import Checkpoint, Done, Event, Launch, Metric, Progress, Stage
from rlhf_tui.runs.folder import RunFolder, Status
from rlhf_tui.runs.holder import Holder, boot_id
from rlhf_tui.runs.journal import last_event
from rlhf_tui.runs.saved import way_on
from rlhf_tui.runs.watcher import EXIT

_LOG_LINES = 5
#: What faulthandler writes when native code brings the process down.
_NATIVE = "Fatal Python error: "


@dataclass(frozen=True)
class Ending:
    """How an execution ended.

    `cause`: that of `Done`, or the status where that says it all; for 'crashed' one of `killed`,
    `out_of_memory`, `restarted` (the machine), `native` (a crash in native code), `vanished`. `heard`
    is the unix time of the last event, `last` what it said; both are empty where there is none.
    """

    status: Status
    cause: str
    what: str
    why: str = ""
    todo: str = ""
    heard: float | None = None
    last: str = ""

    @property
    def label(self) -> str:
        """Status and cause in a few words, for a list."""
        words = _CAUSES.get(self.cause, self.cause.replace("_", " "))
        return f"{self.status} ({words})" if words and words != self.status else self.status


_CAUSES = {
    "error": "",
    "bug": "a bug",
    "no_start": "did not start",
    "signal": "by a signal",
    "interrupted": "at once, unsaved",
    "card_lost": "the card stopped answering",
    "restarted": "the machine was restarted",
    "native": "in native code",
    "vanished": "",
}


#: The line of a reason from which on it shows the end of the log.
LOG_ENDS = "The end of its log:"


class Exit(msgspec.Struct, frozen=True):
    """Content of exit.json: how the process `pid` ended; `signal` is 0 when it ended by itself.

    `oom_kills` is how many processes the system had ended for lack of memory by then, -1 where it cannot be known.
    """

    pid: int
    code: int
    signal: int = 0
    oom_kills: int = -1


def ending(run: RunFolder) -> Ending | None:
    """How the last execution of `run` ended; None for one that lives or has not begun."""
    status = run.status()
    if status in ("new", "queued", "running", "paused"):
        return None
    stamped = last_event(run.events_path)
    if status == "crashed":
        return _crash(run, stamped.t if stamped else None, _said(stamped.event) if stamped else "")
    if stamped is None or not isinstance(stamped.event, Done):
        return None  # it was taken up again at this very moment
    done = stamped.event
    error = done.error or {}
    return Ending(
        status,
        done.cause or status,
        error.get("what", "") or done.message,
        error.get("why", ""),
        error.get("todo", ""),
        stamped.t,
    )


def exit_of(run: RunFolder, pid: int) -> Exit | None:
    """What exit.json says of the process `pid`; None for another one, which was an earlier execution."""
    try:
        found = msgspec.json.decode((run.path / EXIT).read_bytes(), type=Exit)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.pid == pid else None


def exit_pending(run: RunFolder) -> bool:
    """Whether the worker is gone without a word and its watcher is about to note how: see `watcher`."""
    if run.done() is not None or run.alive:
        return False
    holder = run.holder()
    here = holder.host == platform.node() and holder.boot == boot_id()
    return here and exit_of(run, holder.pid) is None and _exists(holder.pid)


def _exists(pid: int) -> bool:
    """Whether there is another process of this user with this id, be it a dead one that nobody has collected."""
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def ago(seconds: float) -> str:
    """'4 minutes ago'; nothing for a time to come, as after a clock was set back."""
    if seconds < 0:
        return ""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _crash(run: RunFolder, heard: float | None, last: str) -> Ending:
    holder = run.holder()
    cause, what, grounds = _why_it_died(run, holder)
    lines = [grounds, _last_heard(heard, last), *_end_of_log(run, holder.pid)]
    return Ending(
        "crashed",
        cause,
        f"{run.name} crashed: {what}.",
        "\n".join(line for line in lines if line),
        f"{way_on(run)} Its log: {run.log_path}",
        heard,
        last,
    )


def _why_it_died(run: RunFolder, holder: Holder) -> tuple[str, str, str]:
    """Cause, what happened in words, and the grounds for saying so."""
    seen = exit_of(run, holder.pid)
    here = holder.host == platform.node()
    if here and holder.boot and boot_id() and holder.boot != boot_id():
        return "restarted", "the machine was restarted or lost its power", ""
    if any(line.startswith(_NATIVE) for line in _own_log(run, holder.pid, 500)):
        return "native", "native code brought its process down", ""
    if seen is None:
        return (
            "vanished",
            "its worker vanished without a word",
            "Perhaps it was killed, or the system ran out of memory.",
        )
    if not seen.signal:
        return "vanished", f"its process ended with code {seen.code} and left no last word", ""
    if seen.signal != signal.SIGKILL:
        return "killed", f"its process was ended by {_signal_name(seen.signal)}", ""
    # Only the count at its death says anything: what the system ended later has nothing to do with this run.
    if 0 <= holder.oom_kills < seen.oom_kills:
        count = seen.oom_kills - holder.oom_kills
        grounds = f"While it ran, the system ended {count} process{'es' if count > 1 else ''} for lack of memory."
        return "out_of_memory", "most likely the system ended it for lack of memory", grounds
    return "killed", "somebody or something killed its process (SIGKILL)", ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_heard(heard: float | None, last: str) -> str:
    if heard is None:
        return ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(heard))
    past = ago(time.time() - heard)
    return f"Last heard of at {when}{f' ({past})' if past else ''}{f': {last}' if last else ''}."


def _said(event: Event) -> str:
    """An event in a few words."""
    match event:
        case Launch():
            return "it had just begun"
        case Stage(name, detail):
            return f"{name}, {detail}" if detail else name
        case Progress(done, total, unit):
            return f"{done} of {total} {unit}".rstrip()
        case Metric(step):
            return f"the figures of step {step}"
        case Checkpoint(step):
            return f"step {step} saved"
        case _:
            return type(event).__name__.lower()


def log_header(pid: int) -> str:
    """The line in worker.log at which the output of the worker `pid` begins."""
    return f"-- worker {pid} --"


def _end_of_log(run: RunFolder, pid: int) -> list[str]:
    tail = _own_log(run, pid, 500)[-_LOG_LINES:]
    return [LOG_ENDS, *tail] if tail else ["It left nothing in its log."]


def _own_log(run: RunFolder, pid: int, lines: int) -> list[str]:
    """The end of what the worker `pid` left in the log, at most `lines` lines: not what earlier executions left."""
    tail = run.log_tail(lines)
    header = log_header(pid)
    return tail[len(tail) - tail[::-1].index(header) :] if header in tail else tail
