"""Which process holds a run, and on which machine: what a worker leaves in the file that it locks.

It is for whoever asks later what became of a worker that left no word; the lock alone says whether it lives.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import msgspec

from rlhf_tui.runs.watcher import oom_kills


class Holder(msgspec.Struct, frozen=True):
    """Who holds the lock, or held it last: the content of `lock`.

    `boot` tells one boot of the machine from another; `oom_kills` is how many processes the system had
    ended for lack of memory when the worker began, -1 where it cannot be known.
    """

    pid: int = 0
    host: str = ""
    boot: str = ""
    oom_kills: int = -1


def boot_id() -> str:
    """What tells one boot of this machine from another; empty where the system does not say."""
    return _system_text("/proc/sys/kernel/random/boot_id").strip()


def _system_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def sign(fd: int) -> None:
    """Write into the open lock file `fd` that this process holds it."""
    # Only for whoever asks later what became of the worker: a full disk does not keep it from working.
    with suppress(OSError):
        facts = Holder(os.getpid(), platform.node(), boot_id(), oom_kills())
        os.ftruncate(fd, 0)
        os.pwrite(fd, msgspec.json.encode(facts), 0)
