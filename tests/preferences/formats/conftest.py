"""Looking at rows as an import would, and spoiling them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.formats.importing import open_reading

#: What a field may hold that it should not.
JUNK = (None, True, -1, 10**400, float("nan"), "", "x", "\ud800", [], {}, [None], [{}], [[]], {"role": 1}, {"x": {}},
        [{"role": "user", "content": [{"type": "text"}]}], {"role": ["user"], "content": []})  # fmt: skip


def spoilt(value: Any) -> list[Any]:
    """The value with each of its parts in turn replaced by junk, or missing."""
    if isinstance(value, dict):
        inside = [{**value, key: one} for key, part in value.items() for one in (*JUNK, *spoilt(part))]
        return inside + [{other: part for other, part in value.items() if other != key} for key in value]
    if isinstance(value, list):
        return [[*value[:place], one, *value[place + 1 :]] for place, part in enumerate(value) for one in spoilt(part)]
    return []


def accounted_for(path: Path, format: str) -> int:
    """How many candidates a reading keeps, and how many things it counts as dropped: every row must add to it."""
    reading = open_reading(path, format=format, mapping=None)
    kept = sum(len(label.candidates) for label in reading.labels())
    return kept + sum(reading.dropped.values())


@pytest.fixture
def unbreakable(tmp_path: Path) -> Callable[[str, dict[str, Any]], None]:
    """Each spoilt row behind a whole one is read, counted, or refused with what was done; nothing else is raised."""

    def check(format: str, row: dict[str, Any]) -> None:
        path = tmp_path / "x.jsonl"
        whole = json.dumps(row)
        path.write_text(whole)
        alone = accounted_for(path, format)
        assert alone >= 1
        refusals = []
        for odd in spoilt(row):
            path.write_text(f"{whole}\n{json.dumps(odd)}\n")
            try:
                both = accounted_for(path, format)
            except UserError as error:
                refusals.append(error.todo)
            else:
                assert both > alone, f"this row vanished: {odd}"
        assert all("Nothing was imported" in todo for todo in refusals)

    return check
