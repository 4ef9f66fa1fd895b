"""Errors a user can act on: what happened, why, and what to do next.

Everything a user can cause or cure is raised as a `UserError`. The command line prints it
without a traceback and exits with its `exit_code`; the app shows it in a scrollable window.
Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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


def nearest(name: str, known: Iterable[str]) -> str:
    """'Did you mean …?' for a misspelt name, or an empty string when nothing is close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {matches[0]!r}?" if matches else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the card or off it; torch's error is known by its name alone."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)
