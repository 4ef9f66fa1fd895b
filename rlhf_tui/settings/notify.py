"""The settings of how a run calls for attention: on the terminal that follows it, and elsewhere."""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rlhf_tui.settings.section import Section

_VARIABLE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


class NotifySettings(Section):
    """Who hears of a run's end and its alerts, and how. A run keeps those it was started with."""

    on: Literal["both", "ended", "alerts", "off"] = Field(
        "both",
        description="What is told: the end of a run, its alerts (warnings and those that stop it; not mere notes), "
        "both, or nothing. The parts of a demo are not told of one by one: their alerts are, and the demo's end.",
    )
    bell: bool = Field(True, description="Ring the terminal's bell, where the app or 'runs watch' follows the run.")
    title: bool = Field(
        True, description="Show in the terminal's title how the run fares, where the app or 'runs watch' follows it."
    )
    desktop: Literal["auto", "osc9", "osc777", "osc99", "off"] = Field(
        "auto",
        description="A notification on the desktop, shown by the terminal: OSC 9 (iTerm2), OSC 777 (WezTerm, Ghostty, "
        "foot, urxvt) or OSC 99 (kitty). auto: what the terminal is known to understand, or else none. In tmux it "
        "needs 'set -g allow-passthrough on'.",
    )
    command: str = Field(
        "",
        description="A program of yours, with its arguments, that is started when there is something to tell, whether "
        "or not a terminal follows the run. No shell reads it: quotes group words, nothing else is special. It is told "
        "by the environment variables RLHF_TUI_EVENT (ended or alert), RLHF_TUI_PROJECT, RLHF_TUI_RUN, RLHF_TUI_KIND, "
        "RLHF_TUI_STATUS (finished, stopped, failed, crashed; of an alert its level) and RLHF_TUI_MESSAGE, and by the "
        "same as JSON on its standard input. It has 30 seconds; what it prints goes to the run's worker.log. What came "
        "with a project from elsewhere is not started before 'rlhf-tui config trust' allows it on this machine.",
    )
    webhook: str = Field(
        "",
        description="An https address that gets the same as JSON by POST (http only on this machine). Addresses of "
        "chats are secrets: $NAME takes the address from the environment variable NAME. No prompt and no completion "
        "is ever sent. One that came with a project is used only after 'rlhf-tui config trust'.",
    )

    @field_validator("command")
    @classmethod
    def _splits_into_words(cls, command: str) -> str:
        if "\0" in command:
            raise ValueError("a command cannot hold the character NUL")
        shlex.split(command)  # says what is wrong with the quotes
        return command

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, webhook: str) -> str:
        return webhook if not webhook or _VARIABLE.fullmatch(webhook) else checked_address(webhook)

    @property
    def words(self) -> tuple[str, ...]:
        """The command as a program and its arguments; empty when there is none."""
        return tuple(shlex.split(self.command))


def checked_address(address: str) -> str:
    """`address`, when a message may be sent to it. Raises ValueError with the reason, without naming the address."""
    parts = urlsplit(address)
    if not address.isascii() or any(letter <= " " or letter == "\x7f" for letter in address):
        raise ValueError("an address has no spaces, control characters or letters beyond ASCII")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("it has the form https://host/path")
    if parts.username is not None:
        raise ValueError("a user name or password in it would not be sent")
    if parts.scheme == "http" and not _is_this_machine(parts.hostname):
        raise ValueError("http can be read on the way; use https")
    if parts.port == 0:  # reading it raises ValueError when it is no number
        raise ValueError("there is no port 0")
    return address


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
