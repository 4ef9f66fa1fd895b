"""Stable names and stable chance: the same content gets the same uid, order and side on every machine."""

from __future__ import annotations

import hashlib
import json

Part = str | int | float | None | list[str]


def uid(*parts: Part) -> str:
    """SHA-256 of the parts, as 64 hex digits. Different lists of parts never share their bytes."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8")).hexdigest()


def number(*parts: Part) -> int:
    """A uniform integer in [0, 2**63) that depends only on the parts (it fits SQLite's INTEGER)."""
    return int(uid(*parts)[:16], 16) >> 1


def fraction(*parts: Part) -> float:
    """A uniform number in [0, 1) that depends only on the parts."""
    return (number(*parts) >> 10) / 2**53
