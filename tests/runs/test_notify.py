"""The end of a run and its alerts reach the user's program and web address, and nothing reaches a shell."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui import settings
from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project
from rlhf_tui.runs import companion, notify, pausing, worker
from rlhf_tui.runs.companion import accompany_to_the_end
from rlhf_tui.runs.events import Alert, Done, Event, Launch, Metric, Sample, encode
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.notify import News, NotTold, alerted, deliver, ended, post, require_program, run_command, wanted
from rlhf_tui.runs.trust import trust
from rlhf_tui.runs.worker import execute
from rlhf_tui.settings import NotifySettings
from tests.runs.listener import keeper, program, told

ROOT = Path(__file__).parents[2]
NEWS = News("ended", "my-assistant", "ppo-0001", "ppo", "failed", "The disk is full.")
EVIL = "x'; touch owned; echo $(touch owned) `touch owned`\n&& touch owned | \x1b]2;owned\x07\0 “ü\ud800"


def configured(project: Project, **values: str) -> list[str]:
    return [f"notify.{name}={value}" for name, value in values.items()]


# -- the command ----------------------------------------------------------------------------------


def test_the_command_gets_the_facts_and_no_shell_reads_anything(tmp_path: Path) -> None:
    root = tmp_path / "a project"
    root.mkdir()
    news = News("alert", "my-assistant", "ppo-0001", "ppo", "warning", "5 > 3; touch owned $(touch owned)")
    command = f"{shlex.quote(keeper(tmp_path))} --to 'me and you' '$HOME' ; touch owned"
    run_command(NotifySettings(command=command).words, news, root)
    (one,) = told(root)
    assert one["argv"] == ["--to", "me and you", "$HOME", ";", "touch", "owned"]
    assert one["env"] == {
        "RLHF_TUI_EVENT": "alert",
        "RLHF_TUI_PROJECT": "my-assistant",
        "RLHF_TUI_RUN": "ppo-0001",
        "RLHF_TUI_KIND": "ppo",
        "RLHF_TUI_STATUS": "warning",
        "RLHF_TUI_MESSAGE": "5 > 3; touch owned $(touch owned)",
    }
    assert one["stdin"] == {
        "event": "alert",
        "project": "my-assistant",
        "run": "ppo-0001",
        "kind": "ppo",
        "status": "warning",
        "message": "5 > 3; touch owned $(touch owned)",
        "text": "my-assistant: ppo-0001 warning: 5 > 3; touch owned $(touch owned)",
    }
    assert [path.name for path in root.iterdir()] == ["told.jsonl"]


def test_a_message_is_one_line_of_plain_text_without_the_path_of_the_project(
    project: Project, run: RunFolder, tmp_path: Path
) -> None:
    news = alerted(project, run, Alert("warning", "x", f"{project.root}/runs is full. {EVIL} {'long ' * 200}"))
    assert str(project.root.parent) not in news.message
    assert news.message.startswith("project/runs is full.")
    assert len(news.message) <= 500
    assert not set(news.message) & {"\n", "\0", "\x1b", "\x07", "\ud800"}
    keeps = keeper(tmp_path)
    run_command([keeps], news, tmp_path)  # as bytes in UTF-8, whatever the locale
    assert told(tmp_path)[0]["stdin"]["message"] == news.message
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [("sys.exit(3)", "ended with code 3"), ("import subprocess; subprocess.run(['sleep', '60'])", "0.5 seconds")],
)
def test_a_command_that_fails_or_hangs_is_given_up(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(NotTold, match=reason):
        run_command([program(tmp_path, code)], NEWS, tmp_path, seconds=0.5)


def test_what_goes_wrong_is_a_sentence_and_the_other_way_is_still_tried(tmp_path: Path) -> None:
    complaints: list[str] = []
    both = NotifySettings(command="no-such-program-anywhere -x", webhook="$NO_SUCH_VARIABLE")
    deliver(NEWS, both, tmp_path, complaints.append)
    assert complaints == [
        "notify.command: there is no program 'no-such-program-anywhere'",
        "notify.webhook: the environment variable NO_SUCH_VARIABLE is not set",
    ]
    plain = tmp_path / "not-a-program"
    plain.write_text("x")
    plain.chmod(0o700)
    deliver(NEWS, NotifySettings(command="./not-a-program"), tmp_path, complaints.append)
    assert "Exec format error" in complaints[-1]


def test_a_missing_program_is_found_before_the_run_begins(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_program(NotifySettings(command="not-allowed-and-so-not-looked-for"), project.root)
    monkeypatch.setattr(notify, "allowed", lambda settings, _: settings)
    require_program(NotifySettings(), project.root)
    require_program(NotifySettings(command="sh -c true"), project.root)
    require_program(NotifySettings(command=shlex.quote(keeper(project.root))), project.root)
    require_program(NotifySettings(command="'./tell me.py'"), project.root)
    with pytest.raises(UsageError, match="no program 'notfiy-send'"):
        require_program(NotifySettings(command="notfiy-send hello"), project.root)


# -- the web address ------------------------------------------------------------------------------

Received = list[tuple[str, dict[str, str], bytes]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who gives up waiting closes the connection: no error of the server."""


@pytest.fixture
def server() -> Iterator[tuple[str, Received]]:
    """A web server on this machine: the path of the address says how it answers."""
    received: Received = []
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, dict(self.headers), body))
            if self.path == "/slow":
                for _ in range(600):  # one letter of a header now and then keeps a socket's own time limit quiet
                    self.wfile.write(b"X")
                    if closing.wait(0.1):
                        return
            code = {"/ok": 204, "/moved": 302, "/gone": 404}[self.path]
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/ok")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", received
        closing.set()
        running.shutdown()


def test_the_web_address_gets_the_facts_and_nothing_else(server: tuple[str, Received]) -> None:
    base, received = server
    post(f"{base}/ok", NEWS)
    ((path, headers, body),) = received
    assert path == "/ok"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "event": "ended",
        "project": "my-assistant",
        "run": "ppo-0001",
        "kind": "ppo",
        "status": "failed",
        "message": "The disk is full.",
        "text": "my-assistant: ppo-0001 failed: The disk is full.",
    }


def test_a_proxy_is_not_asked_for_this_machine(server: tuple[str, Received], monkeypatch: pytest.MonkeyPatch) -> None:
    base, received = server
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    post(f"{base}/ok", NEWS)
    assert len(received) == 1


@pytest.mark.parametrize(
    ("path", "reason"), [("/moved", "302 .*final address"), ("/gone", "404"), ("/slow", "did not answer within 0.3")]
)
def test_an_address_that_does_not_take_it_is_named_by_its_host_only(
    server: tuple[str, Received], path: str, reason: str
) -> None:
    base, received = server
    with pytest.raises(NotTold, match=reason) as raised:
        post(f"{base}{path}", NEWS, seconds=0.3)
    assert path not in str(raised.value)
    assert [one for one, _, _ in received] == [path], "no redirection is followed"


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_HOOK", "http://127.0.0.1:9/secret")
    complaints: list[str] = []
    deliver(NEWS, NotifySettings(webhook="$MY_HOOK"), Path(), complaints.append)
    (one,) = complaints
    assert one.startswith("notify.webhook: 127.0.0.1 cannot be reached: ")
    assert "secret" not in one
    monkeypatch.setenv("MY_HOOK", "ftp://127.0.0.1/secret")
    deliver(NEWS, NotifySettings(webhook="$MY_HOOK"), Path(), complaints.append)
    assert "https://" in complaints[1]
    assert "secret" not in complaints[1]


# -- the settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("command", "say 'unclosed", "no closing quotation"),
        ("webhook", "http://example.org/x", "use https"),
        ("webhook", "http://127.0.0.1.example.org/x", "use https"),
        ("webhook", "http://0177.0.0.1/x", "use https"),
        ("webhook", "ftp://example.org/x", "https://host/path"),
        ("webhook", "file:///etc/passwd", "https://host/path"),
        ("webhook", "https://", "https://host/path"),
        ("webhook", "example.org/x", "https://host/path"),
        ("webhook", "https://me:secret@example.org/x", "would not be sent"),
        ("webhook", "https://example.org/x\r\nHost: y", "control characters"),
        ("webhook", "https://example.org:x/", "port"),
        ("webhook", "https://[example.org/", "invalid"),
        ("webhook", "$9X", "https://host/path"),
        ("on", "sometimes", "'both', 'ended', 'alerts' or 'off'"),
        ("desktop", "growl", "'auto'"),
    ],
)
def test_what_cannot_work_is_refused_when_settings_are_read(project: Project, key: str, value: str, why: str) -> None:
    with pytest.raises(UsageError, match=f"notify.{key} cannot be") as raised:
        project.settings([f"notify.{key}={value}"])
    assert why in raised.value.what.lower() or why in raised.value.what


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/x?y=1",
        "https://example.org:8443",
        "http://localhost:1/x",
        "http://127.8.9.1/",
        "http://[::1]:80/x",
        "$HOOK_2",
    ],
)
def test_what_can_work_is_taken(project: Project, address: str) -> None:
    settings.write(project.config, "notify.webhook", address)
    assert project.settings().notify.webhook == address


@pytest.mark.parametrize(
    ("on", "alerts", "ends", "starts"),
    [("both", 1, 1, 1), ("alerts", 1, 0, 1), ("ended", 0, 1, 1), ("off", 0, 0, 0)],
)
def test_only_what_is_wanted_is_told(
    project: Project, run: RunFolder, on: str, alerts: int, ends: int, starts: int
) -> None:
    chosen = NotifySettings.model_validate({"on": on})
    assert wanted(alerted(project, run, Alert("stop", "x", "y")), chosen) == bool(alerts)
    assert wanted(alerted(project, run, Alert("warning", "x", "y")), chosen) == bool(alerts)
    assert not wanted(alerted(project, run, Alert("note", "x", "y")), chosen)
    assert wanted(ended(project, run, Done("finished")), chosen) == bool(ends)
    assert wanted(notify.began(project, run), chosen) == bool(starts)


# -- the companion --------------------------------------------------------------------------------


def journal(run: RunFolder, *events: tuple[float, Event]) -> int:
    """Write these events; returns the size of the journal."""
    return run.events_path.write_bytes(b"".join(encode(event, t) for t, event in events))


def launch(pid: int) -> Launch:
    return Launch("x", "y", pid, "box", "0.1")


WARNING, NOTE = Alert("warning", "kl", "The KL is high.", "secret why"), Alert("note", "n", "By the way.")
PROSE = [(6.0, Sample(1, "secret prompt", "secret completion")), (6.5, Metric(1, {"score": 1.0}))]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What the companion delivers: event, status, message."""
    found: list[tuple[str, str, str]] = []
    monkeypatch.setattr(companion, "deliver", lambda news, *_: found.append((news.event, news.status, news.message)))
    return found


def test_the_companion_tells_of_one_execution_only(
    project: Project, run: RunFolder, heard: list[tuple[str, str, str]]
) -> None:
    """Not of an earlier worker that had the same process id, and not of what comes after it."""
    # The clock was set back after the earlier execution: times tell nothing.
    earlier = [(91.0, launch(7)), (92.0, WARNING), (93.0, Done("failed", "Earlier."))]
    start = journal(run, *earlier)
    ours = [(5.0, launch(7)), *PROSE, (7.0, NOTE), (8.0, WARNING), (9.0, launch(7)), (9.5, WARNING)]
    later = [(12.0, launch(8)), (13.0, WARNING), (14.0, Done("finished"))]
    journal(run, *earlier, *ours, (10.0, Done("stopped", "Stopped as asked.")), *later)
    accompany_to_the_end(project, run, 7, start)
    assert heard == [
        ("alert", "warning", "The KL is high."),
        ("alert", "warning", "The KL is high."),
        ("ended", "stopped", "Stopped as asked."),
    ]


def test_the_companion_tells_of_a_crash(project: Project, run: RunFolder, heard: list[tuple[str, str, str]]) -> None:
    journal(run, (5.0, launch(7)), *PROSE)
    accompany_to_the_end(project, run, 7, 0)
    (one,) = heard
    assert one[:2] == ("ended", "crashed")
    assert "secret" not in one[2]
    journal(run, (5.0, launch(7)), *PROSE, (9.0, launch(8)), (10.0, Done("finished")))
    accompany_to_the_end(project, run, 7, 0)
    assert heard[1] == ("ended", "crashed", "Its worker vanished without a word.")


def test_the_companion_is_silent_where_others_speak(
    project: Project, run: RunFolder, heard: list[tuple[str, str, str]]
) -> None:
    """A worker that never began is told by its starter; the end of a part by the demo."""
    journal(run, (1.0, launch(7)), (2.0, Done("finished")))
    accompany_to_the_end(project, run, 9, 0)
    assert heard == []
    part = create_run(project, "quick", parents={"demo": "demo-0009"})
    journal(part, (1.0, launch(7)), (2.0, WARNING), (3.0, Done("finished")))
    accompany_to_the_end(project, part, 7, 0)
    assert [event for event, _, _ in heard] == ["alert"]


def test_the_companion_is_light() -> None:
    code = "import sys, rlhf_tui.runs.companion; print({'torch', 'textual', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_run_without_anybody_to_tell_has_no_companion(
    project: Project, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(notify.subprocess, "Popen", started)
    trust(project.root, {"notify.command": "true"})
    for overrides in ([], ["notify.command=true", "notify.on=off"]):
        assert execute(project, create_run(project, "quick", overrides=overrides), stages=stages).status == "finished"


def test_every_execution_has_one_companion_and_a_pause_none_of_its_own(
    project: Project, stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(worker, "accompany", lambda _, run: started.append(run.name))
    run = create_run(project, "quick")
    execute(project, run, stages=stages)
    execute(project, run, stages=stages)
    assert started == [run.name] * 2
    pausing._woken.add(run.path)  # as the process does that takes itself over
    execute(project, run, stages=stages)
    assert started == [run.name] * 2
    execute(project, create_run(project, "nested", options={"child": "quick"}), stages=stages)
    assert started[2:] == ["nested-0002", "quick-0003"]


def test_a_companion_that_cannot_be_started_costs_the_run_nothing(
    project: Project, stages: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify.sys, "executable", "/no/such/python")
    trust(project.root, {"notify.command": "true"})
    run = create_run(project, "quick", overrides=["notify.command=true"])
    assert execute(project, run, stages=stages).status == "finished"
    assert f"nobody will be told of {run.name}" in capsys.readouterr().err


def test_the_command_hears_of_a_real_run_that_is_killed(
    project: Project, stages: str, until: Callable[..., None]
) -> None:
    """From launch to SIGKILL with real processes; the terminal's own process plays no part."""
    from rlhf_tui.runs.launcher import launch as start

    command = f"{shlex.quote(keeper(project.root))} $RLHF_TUI_RUN"
    trust(project.root, {"notify.command": command})
    run = create_run(project, "steady", overrides=configured(project, command=command))
    start(project, run, stages=stages)
    os.kill(run.holder().pid, signal.SIGKILL)
    until(lambda: told(project.root), "the command is told")
    (one,) = told(project.root)
    assert one["argv"] == ["$RLHF_TUI_RUN"]
    assert (one["stdin"]["run"], one["stdin"]["event"], one["stdin"]["status"]) == (run.name, "ended", "crashed")
    assert run.status() == "crashed"
