"""Errors a user can act on: what happened, why, and what to do next.

Everything a user can cause or cure is raised as a `UserError`. The command line prints it
without a traceback and exits with its `exit_code`; the app shows it in a scrollable window.
Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

#: What a full disk, or a used-up quota on it, answers.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class UserError(Exception):
    """Something went wrong that the user can act on. Exit code 1: the attempt failed."""

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.todo = todo

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.todo) if part)

    def as_dict(self) -> dict[str, str]:
        """The same, for `--json` and for the `done` event of a run."""
        return {"what": self.what, "why": self.why, "todo": self.todo}


class UsageError(UserError):
    """The input was wrong and nothing was done. Exit code 2."""

    exit_code = 2


class DiskError(UserError):
    """A disk, or the user's quota on it, has no room left."""


def nearest(name: str, known: Iterable[str]) -> str:
    """'Did you mean …?' for a misspelt name, or an empty string when nothing is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {matches[0]!r}?" if matches else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the card or off it; torch's errors are known by name and text alone."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return not isinstance(error, UserError) and _says(error, _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk ran out of space; libraries in Rust and C++ say so in the text alone."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return isinstance(error, DiskError) or (not isinstance(error, UserError) and _says(error, _NO_SPACE))


def is_card_lost(error: BaseException) -> bool:
    """Whether the graphics card or its driver stopped answering, so that only a new process can use it again."""
    return not isinstance(error, UserError) and not is_out_of_memory(error) and _says(error, _CARD_LOST)


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it came from, newest first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


_NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_NO_SPACE = ("No space left on device", "Disk quota exceeded", "database or disk is full")
# 'device-side assert' is not among them: that is a wrong index, which a new process would meet again.
_CARD_LOST = (
    "unspecified launch failure",
    "no CUDA-capable device",
    "CUDA-capable device(s) is/are busy or unavailable",
    "cudaErrorDeviceUnavailable",
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "uncorrectable ECC error",
    "hardware stack error",
    "the launch timed out and was terminated",
    "driver shutting down",
    "CUDA driver initialization failed",
    "CUDA unknown error",
    "CUDA error: unknown error",
    "CUDA error: initialization error",
    "GPU is lost",
    "GPU has fallen off the bus",
)


def _says(error: BaseException, phrases: Iterable[str]) -> bool:
    text = str(error)
    return any(phrase in text for phrase in phrases)
