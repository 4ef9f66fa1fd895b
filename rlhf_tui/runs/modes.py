"""Who may read what a worker writes: nobody but its user, except for an export, which is made to be handed on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class Modes:
    """The umask of this process: the user's own, until a program that is only a worker makes it private."""

    def __init__(self) -> None:
        self._usual: int | None = None

    def make_private(self) -> None:
        """From now on everything that is written is the user's alone, whichever library writes it."""
        self._usual = os.umask(0o077)

    @contextmanager
    def usual(self) -> Iterator[None]:
        """Meanwhile files get the rights that the user's own umask gives, also those of programs started here."""
        if self._usual is None:
            yield
            return
        before = os.umask(self._usual)
        try:
            yield
        finally:
            os.umask(before)


modes = Modes()
