"""The user's theme: chosen once in the app, kept in a small file that is theirs, not a project's.

# theme.toml
theme = "light"
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from rlhf_tui.app.look import ANSI, CALM, LIGHT, THEMES
from rlhf_tui.runs.folder import write_whole

VARIABLE = "RLHF_TUI_THEME"


@dataclass(frozen=True)
class Taste:
    """The theme to begin with, the file that keeps another one (None: it is not kept), and what to say first."""

    theme: str = CALM.name
    file: Path | None = None
    notice: str = ""


def theme_file() -> Path:
    """Where the choice is kept, whether or not the file exists."""
    return platformdirs.user_config_path("rlhf-tui") / "theme.toml"


def taste(file: Path, environ: Mapping[str, str] = os.environ) -> Taste:
    """The theme of the environment, else of the file, else what suits the terminal. What is wrong is noticed, once."""
    known = ", ".join(THEMES)
    if environ.get("NO_COLOR"):
        return Taste(ANSI.name, file)
    named = environ.get(VARIABLE, "")
    if named in THEMES:
        return Taste(named, file)
    notice = f"{VARIABLE} names no theme: {named!r}. There are: {known}." if named else ""
    try:
        kept = tomllib.loads(file.read_text(encoding="utf-8")).get("theme")
    except FileNotFoundError:
        return Taste(suited(environ), file, notice)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Taste(suited(environ), file, notice or f"{file} cannot be read: {error}. Choose a theme again (T).")
    if isinstance(kept, str) and kept in THEMES:
        return Taste(kept, file, notice)
    return Taste(suited(environ), file, notice or f"{file} names no theme. There are: {known}. Choose one again (T).")


def keep(file: Path, theme: str) -> str:
    """Keep a choice for next time, whole or not at all. What hindered it, in words; empty when nothing did."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, f"theme = {json.dumps(theme)}\n".encode())
    except OSError as error:
        return f"The theme could not be kept for next time: {error}."
    return ""


def suited(environ: Mapping[str, str]) -> str:
    """The theme for a terminal that nobody has chosen one for: by its number of colours, and whether it is light.

    A light terminal is known only by COLORFGBG ("0;15": black on white), which some set; the others are not asked,
    for one that does not answer would be waited for.
    """
    term, colours = environ.get("TERM", ""), environ.get("COLORTERM", "").lower()
    if colours not in ("truecolor", "24bit") and not any(word in term for word in ("256color", "direct", "kitty")):
        return ANSI.name
    ground = environ.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT.name if ground in ("7", "15") else CALM.name
