"""Runs that a newer version of this program has made or carried out.

What is understood of one is shown: unknown fields and types of events are passed over. But it is not
steered or taken up again here, where that would mean something else than its makers intended.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from rlhf_tui.errors import UserError
from rlhf_tui.runs.events import VERSION
from rlhf_tui.runs.journal import last_head

#: The version of run.json that is written here.
RECORD = 1


class NewerVersion(UserError):
    """The run is a newer version's."""


class _Record(msgspec.Struct):
    v: int = RECORD
    versions: dict[str, str] = {}


def newer_version(record: Path, journal: Path) -> str:
    """Which of a run's two files is of a newer version, in words; empty when both are understood, or broken."""
    try:
        found = msgspec.json.decode(record.read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        found = _Record()
    if found.v > RECORD:
        maker = found.versions.get("rlhf_tui", "")
        by = f", written by rlhf-tui {maker}" if maker else ""
        return f"{record.name} is of version {found.v}{by}; this program knows version {RECORD}."
    # The last line is enough: no older version carries such a run out again.
    last = last_head(journal)
    if last is not None and last.v > VERSION:
        return f"{journal.name} is of version {last.v}; this program knows version {VERSION}."
    return ""


def require_understood(record: Path, journal: Path) -> None:
    """Raise NewerVersion when these files of a run are a newer version's."""
    if why := newer_version(record, journal):
        raise NewerVersion(
            f"{record.parent.name} belongs to a newer version of rlhf-tui.",
            why=why,
            todo="Use that version, or a later one. Here the run can only be looked at.",
        )
