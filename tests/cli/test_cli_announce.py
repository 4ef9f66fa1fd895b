"""Followed on a terminal, a run rings and shows its title there; never in a file, a pipe or with --json."""

from __future__ import annotations

import io
import sys
import time

import pytest

from rlhf_tui import console, verbs
from rlhf_tui.app import announcing
from rlhf_tui.console import follow_on_console, silent, terminal_announcer
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Alert, Done, encode
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.notify import News


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _, _ in announcing.KNOWN:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def ending_while_watched(monkeypatch: pytest.MonkeyPatch, run: RunFolder, *after: bytes) -> None:
    """Let `run` be alive at the first looks; then these lines come, and it is not."""
    looks = iter([True, True, True])

    def alive(_: RunFolder) -> bool:
        return next(looks, None) is not None

    def sleep(_: float) -> None:
        with run.events_path.open("ab") as journal:
            journal.write(b"".join(lines.pop(0) for _ in range(len(lines))))

    lines = list(after)
    monkeypatch.setattr(RunFolder, "alive", property(alive))
    monkeypatch.setattr(console.time, "sleep", sleep)


def test_news_of_a_followed_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(project, "ppo")
    now = time.time()
    run.events_path.write_bytes(encode(Alert("warning", "x", "before it was watched"), now - 60))
    late = [encode(Alert("stop", "nan", "No numbers."), now + 60), encode(Done("failed", "Broke down."), now + 61)]
    ending_while_watched(monkeypatch, run, *late)
    heard: list[News] = []
    with pytest.raises(UserError):
        follow_on_console(project, run, io.StringIO(), announce=lambda _, news: heard.append(news))
    assert [(news.event, news.status, news.message) for news in heard] == [
        ("began", "under way", ""),
        ("alert", "stop", "No numbers."),
        ("ended", "failed", "Broke down."),
    ]


def test_a_run_that_is_over_is_no_news(project: Project) -> None:
    run = create_run(project, "ppo")
    run.events_path.write_bytes(encode(Alert("warning", "x", "y"), time.time() + 60) + encode(Done("stopped"), 1.0))
    heard: list[News] = []
    follow_on_console(project, run, io.StringIO(), announce=lambda _, news: heard.append(news))
    assert heard == []


def test_only_a_terminal_is_rung(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run, news = create_run(project, "ppo"), News("ended", "mine", "ppo-0001", "ppo", "finished")
    for out, standard, rings in (
        (Terminal(), Terminal(), True),
        (io.StringIO(), Terminal(), False),
        (Terminal(), io.StringIO(), False),
    ):
        monkeypatch.setattr(sys, "stdout", standard)
        terminal_announcer(out)(run, news)
        assert (out.getvalue() == "\x1b]2;ppo-0001 finished\x1b\\\a") == rings
        assert standard.getvalue() == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_with_json_nothing_rings(project: Project, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    run = create_run(project, "export")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    ending_while_watched(monkeypatch, run, encode(Done("stopped"), time.time()))
    verbs.follow_and_report(project, run, as_json)
    assert ("\a" in err.getvalue()) != as_json
    assert ("\x1b]" in err.getvalue()) != as_json
    assert "\a" not in out.getvalue()
    silent(run, News("ended", "", "", "", ""))
