"""What the process and the card hold, by phase."""

from __future__ import annotations

import ctypes
import re
import resource
from functools import cache
from pathlib import Path

import psutil
import torch

from rlhf_tui.runs.events import Memory

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"  # proc(5): 'reset the peak resident set size to the process's current value'

_highest = [0]  # the largest peak so far: setting the kernel's mark back makes it forget


def measure(phase: str, device: torch.device) -> Memory:
    """Memory now and at its peak since the last measurement, in bytes.

    The process's peak is VmHWM, which Linux sets back on request. Where it can't be, on other systems or when /proc
    may not be written, it is the peak since the process began. A card's peaks, allocated and reserved, are those
    of torch's allocator.
    """
    rss = psutil.Process().memory_info().rss
    peak_rss = max(rss, _peak())
    _highest[0] = max(_highest[0], peak_rss)
    _forget_peak()
    if device.type != "cuda":
        return Memory(phase, rss, peak_rss)
    now, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    reserved = torch.cuda.max_memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    return Memory(phase, rss, peak_rss, now, peak, reserved=reserved)


def release(device: torch.device) -> None:
    """Give back what was freed: to be called where one phase ends and the next needs other sizes.

    glibc keeps freed tensors below 32 MiB in its heap, where holes are of no use to larger ones; torch's allocator
    does the same on a card. Takes milliseconds; on the CPU it does nothing elsewhere than with glibc.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@cache
def _c_library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None


def peak_of_process() -> int:
    """The most this process has held, in bytes.

    getrusage's ru_maxrss won't do after `measure`: it is forgotten together with VmHWM.
    """
    return max(_highest[0], _peak())


def _peak() -> int:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * int(found[1] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _forget_peak() -> None:
    try:
        _CLEAR.write_text(_CLEAR_PEAK, encoding="ascii")
    except OSError:
        return
