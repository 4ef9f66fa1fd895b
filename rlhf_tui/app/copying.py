"""Copying to where a paste finds it: the terminal's clipboard, a program for it, or a file; and saying which.

No terminal answers whether it took a text (OSC 52), and a program for the clipboard of a far machine is of no use over
ssh. So the terminal is asked first, then what can be trusted here, and without that the text is in a file, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs
from textual.app import App
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.preferences.display import clean

#: A program gets so long: `xsel` without a display and `wl-copy` without a compositor wait for ever.
PATIENCE_S = 2.0
#: Lines of what was copied that are shown again.
SHOWN = 3

Run = Callable[[Sequence[str], str], bool]


def copy(app: App[Any], text: str) -> None:
    """Hand `text` over, and say how; programs and the file are tried in a thread."""
    asked = takes_osc52(os.environ)
    if asked:
        app.copy_to_clipboard(text)
    else:
        app._clipboard = text  # what is pasted inside the app
    app.run_worker(partial(_finish, app, text, asked), thread=True, group="copy", exit_on_error=False)


def _finish(app: App[Any], text: str, asked: bool) -> None:
    told = hand_over(text, os.environ, asked=asked)
    shown = clean(text).strip().splitlines()
    more = [f"… {len(shown) - SHOWN} more lines"] if len(shown) > SHOWN + 1 else shown[SHOWN:]
    app.notify("\n".join([*shown[:SHOWN], *more, told]), title="Copied", markup=False, timeout=8)


def takes_osc52(environ: Mapping[str, str]) -> bool:
    """Whether the terminal may take a text from a program; false for those that are known not to."""
    if environ.get("STY") or environ.get("TERM", "") in ("linux", "dumb", ""):
        return False  # GNU screen swallows it, a console has no clipboard
    return environ.get("TERM_PROGRAM") != "Apple_Terminal"


def ways(environ: Mapping[str, str], there: Callable[[str], object] = shutil.which) -> list[tuple[str, list[str]]]:
    """What to call it and how to call it, for each program that reaches the clipboard of whoever sits here."""
    found = []
    if environ.get("TMUX"):
        found.append(("tmux's buffer (its paste key is prefix ])", ["tmux", "load-buffer", "-w", "-"]))
    if not (environ.get("SSH_CONNECTION") or environ.get("SSH_TTY")):
        if environ.get("WAYLAND_DISPLAY"):
            found.append(("the clipboard (wl-copy)", ["wl-copy"]))
        if environ.get("DISPLAY"):
            found.append(("the clipboard (xclip)", ["xclip", "-selection", "clipboard"]))
            found.append(("the clipboard (xsel)", ["xsel", "--input", "--clipboard"]))
        found.append(("the clipboard (pbcopy)", ["pbcopy"]))
        found.append(("the clipboard of Windows", ["clip.exe"]))
    return [(called, command) for called, command in found if there(command[0])]


def hand_over(
    text: str,
    environ: Mapping[str, str],
    *,
    asked: bool,
    run: Run | None = None,
    there: Callable[[str], object] = shutil.which,
    file: Path | None = None,
) -> str:
    """Give `text` to the first program that takes it, else write it to `file`; returns what to tell.

    `asked`: the terminal has been sent it already.
    """
    sent = "Sent to the terminal's clipboard (OSC 52), which not every terminal takes" if asked else ""
    for called, command in ways(environ, there):
        if (run or _run)(command, text):
            return f"In {called}." + (" Sent to the terminal as well (OSC 52)." if asked else "")
    path = file or copied_file()
    try:
        _write(path, text)
    except OSError as error:
        return (f"{sent}. " if sent else "") + f"It could not be written to {path}: {error.strerror or error}."
    return f"{sent}; also in {path}" if sent else f"Written to {path}: nothing here takes a text from a program."


def copied_file() -> Path:
    """Where what was copied last is written, for the user's eyes only."""
    return platformdirs.user_state_path("rlhf-tui") / "copied.txt"


def text_in(screen: Screen[Any]) -> str:
    """All that there is to read on a screen or in a window, scrolled out of view or not."""
    title = next((str(box.border_title) for box in screen.query(".dialog") if box.border_title), "")
    parts = [title]
    for widget in screen.walk_children():
        if isinstance(widget, TextPane):
            parts.append(widget.text)
        elif isinstance(widget, Static) and widget.display:
            body = widget.content
            parts.append(body.plain if isinstance(body, Content) else str(body))
    return "\n".join(part.rstrip() for part in parts if part.strip()) + "\n"


def _run(command: Sequence[str], text: str) -> bool:
    try:
        # no pipes for its output: xclip stays behind as the clipboard's owner and would hold them open
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
