"""Handing a line to the clipboard of the terminal, and showing what was handed over."""

from __future__ import annotations

from typing import Any

from textual.app import App

from rlhf_tui.preferences.display import clean


def copy(app: App[Any], line: str) -> None:
    """Copy `line` with OSC 52, which some terminals do not allow: it is shown, too."""
    app.copy_to_clipboard(line)
    app.notify(clean(line), title="Copied, if your terminal allows it", markup=False, timeout=8)
