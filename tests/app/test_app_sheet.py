"""The stylesheet is parsed when it has changed, and only then."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from textual.css import stylesheet

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.project import Project


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each part was parsed, by where it was read from."""
    times: Counter[tuple[str, str]] = Counter()
    really = stylesheet.parse

    def parse(scope: str, css: str, read_from: tuple[str, str], **rest: Any) -> Any:
        times[read_from] += 1
        return really(scope, css, read_from, **rest)

    monkeypatch.setattr(stylesheet, "parse", parse)
    return times


async def test_our_rules_are_parsed_once_for_each_theme(finished: Project, parsed: Counter[tuple[str, str]]) -> None:
    app = RlhfApp(finished)
    async with app.run_test() as pilot:
        await pilot.press("1", "2", "3", "4", "5", "6", "D", "escape", "L", "escape", "e", "escape")
        await pilot.pause()
        ours = next(place for place in parsed if str(place[0]).endswith("app.tcss"))
        assert parsed[ours] == 1
        assert max(parsed.values()) <= 2  # where a widget turns out to be another one's parent, its rules weigh less
        before = app.screen.styles.background
        app.theme = "light"
        await pilot.pause()
        assert app.screen.styles.background != before
        assert parsed[ours] == 2
