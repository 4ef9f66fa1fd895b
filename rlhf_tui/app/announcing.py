"""What a terminal is told when a run ends or raises an alert: bell, title, desktop notification.

Pure text for whoever holds the terminal, the app or the console. A terminal that does not know one of these
sequences ignores it; where even that is doubtful none is sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rlhf_tui.errors import UserError
from rlhf_tui.runs.folder import RunFolder
from rlhf_tui.runs.notify import News, settings_of, wanted
from rlhf_tui.settings import NotifySettings

_BELL = "\a"
_OSC, _END = "\x1b]", "\x1b\\"
#: The terminal remembers its title, and shows the remembered one again.
KEEP_TITLE, FORMER_TITLE = "\x1b[22;2t", "\x1b[23;2t"
_DUMB = ("", "dumb", "linux")
_SHOWN = 200  # characters

#: How a terminal is known that shows notifications, and by which sequence: the start of a variable's value.
KNOWN = (
    ("KITTY_WINDOW_ID", "", "osc99"),
    ("TERM", "xterm-kitty", "osc99"),
    ("TERM_PROGRAM", "WezTerm", "osc777"),
    ("WEZTERM_PANE", "", "osc777"),
    ("TERM", "wezterm", "osc777"),
    ("TERM_PROGRAM", "ghostty", "osc777"),
    ("GHOSTTY_RESOURCES_DIR", "", "osc777"),
    ("TERM", "xterm-ghostty", "osc777"),
    ("TERM", "foot", "osc777"),
    ("TERM", "rxvt-unicode", "osc777"),
    ("TERM_PROGRAM", "iTerm.app", "osc9"),
    ("LC_TERMINAL", "iTerm2", "osc9"),
    ("ITERM_SESSION_ID", "", "osc9"),
)


def sequences(news: News, settings: NotifySettings, environment: Mapping[str, str]) -> str:
    """What to write to the terminal for `news`; empty when the user does not want it or the terminal cannot.

    That a run goes on changes the title only. `environment` holds the variables of the process at the terminal.
    """
    if not wanted(news, settings):
        return ""
    parts = [_title(news, environment)] if settings.title else []
    if news.event != "began":
        parts += [_desktop(news, settings.desktop, environment)]
        parts += [_BELL] if settings.bell else []
    return "".join(parts)


def for_run(run: RunFolder, news: News) -> str:
    """`sequences` by the settings that the run was started with, for the terminal of this process."""
    try:
        settings = settings_of(run)
    except UserError:  # a record of another version, or a broken one
        settings = NotifySettings()
    return sequences(news, settings, os.environ)


def _title(news: News, environment: Mapping[str, str]) -> str:
    if environment.get("TERM", "") in _DUMB:
        return ""
    return f"{_OSC}2;{_short(news.headline)}{_END}"


def _desktop(news: News, chosen: str, environment: Mapping[str, str]) -> str:
    kind = _notifies(environment) if chosen == "auto" else chosen
    title, body = _short(f"{news.project}: {news.headline}"), _short(news.message)
    match kind:
        case "osc9":
            text = _sent(f"9;{title}{f'. {body}' if body else ''}")
        case "osc777":
            # A semicolon would end the title.
            text = _sent(f"777;notify;{title.replace(';', ',')};{body}")
        case "osc99":
            text = _sent(f"99;i=rlhf-tui:d={0 if body else 1};{title}")
            text += _sent(f"99;i=rlhf-tui:d=1:p=body;{body}") if body else ""
        case _:
            return ""
    return _through_tmux(text) if "TMUX" in environment else text


def _notifies(environment: Mapping[str, str]) -> str:
    """The sequence by which this terminal is known to show notifications; empty when it is not.

    In tmux the variables of the terminal in which its server was started are still there. GNU screen lets
    nothing through.
    """
    if "STY" in environment:
        return ""
    for variable, start, kind in KNOWN:
        value = environment.get(variable, "")
        if value and value.startswith(start):
            return kind
    return ""


def _sent(text: str) -> str:
    return f"{_OSC}{text}{_END}"


def _through_tmux(text: str) -> str:
    """Handed on by tmux to the terminal it runs in (needs its allow-passthrough)."""
    doubled = text.replace("\x1b", "\x1b\x1b")
    return f"\x1bPtmux;{doubled}{_END}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
