"""Telling the user's own program or web address that a run has ended or needs attention.

A companion process does it: the worker starts one for its run when there is somebody to tell. It reads the
run's journal as any other reader, so that nothing of this can slow a run down or end it, and it is still
there when the worker is not: a run that the system killed for lack of memory is told of, too.

What leaves are facts in this package's own words: never a prompt, never a completion.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.display import clean
from rlhf_tui.project import Project
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.events import Alert, Done
from rlhf_tui.runs.folder import RunFolder
from rlhf_tui.runs.journal import whole_size
from rlhf_tui.runs.trust import allowed, untrusted
from rlhf_tui.settings import NotifySettings, from_tree
from rlhf_tui.settings.notify import checked_address

COMMAND_SECONDS = 30.0
WEBHOOK_SECONDS = 15.0
_LONGEST = 500  # characters of a message


@dataclass(frozen=True)
class News:
    """Something worth telling about a run; all of it plain text on one line.

    `status` is how the run ended, or the level of the alert. 'began' is for the title of a terminal only.
    """

    event: Literal["began", "alert", "ended"]
    project: str
    run: str
    kind: str
    status: str
    message: str = ""

    @property
    def headline(self) -> str:
        return f"{self.run} {self.status}"

    @property
    def sentence(self) -> str:
        return f"{self.headline}: {self.message}" if self.message else self.headline


def began(project: Project, run: RunFolder) -> News:
    """That a run is going on, waits for its turn or is paused."""
    return News("began", _plain(project.name), run.name, run.kind, "under way")


def alerted(project: Project, run: RunFolder, alert: Alert) -> News:
    """An alert of a run."""
    return News("alert", _plain(project.name), run.name, run.kind, alert.level, _message(project, alert.message))


def ended(project: Project, run: RunFolder, done: Done | None) -> News:
    """How an execution of a run has ended; `done` None: without a word. Raises UserError where there are no locks."""
    status, message = (done.status, done.message) if done is not None else ("crashed", _crash(run))
    return News("ended", _plain(project.name), run.name, run.kind, status, _message(project, message))


def _crash(run: RunFolder) -> str:
    found = ending(run)
    if found is None or found.status != "crashed":  # it has been taken up again already
        return "Its worker vanished without a word."
    return found.what.removeprefix(f"{run.name} crashed: ")


def wanted(news: News, settings: NotifySettings) -> bool:
    """Whether the user wants to hear of this. A mere note is never told."""
    match news.event:
        case "began":
            return settings.on != "off"
        case "alert":
            return settings.on in ("both", "alerts") and news.status != "note"
        case "ended":
            return settings.on in ("both", "ended")


def settings_of(run: RunFolder) -> NotifySettings:
    """The settings that the run was started with, without what the user has not allowed here (see `trust`).

    Raises UserError for a record that cannot be read.
    """
    return allowed(_recorded(run), _root(run))


def _recorded(run: RunFolder) -> NotifySettings:
    return from_tree(run.record.settings, origin=str(run.record_path)).notify


def _root(run: RunFolder) -> Path:
    return run.path.parents[1]


def not_told(run: RunFolder) -> Alert | None:
    """What to say when the run names a program or an address that the user has not allowed here, or None.

    Raises UserError as `settings_of` does.
    """
    return nobody_told(_recorded(run), _root(run))


def nobody_told(settings: NotifySettings, root: Path) -> Alert | None:
    """The same of settings, in the project in `root`."""
    wants = untrusted(settings, root) if settings.on != "off" else {}
    if not wants:
        return None
    acts = {"notify.command": "start a program", "notify.webhook": "write to an address"}
    doing = " and ".join(f"{acts[key]} ({key}: {_plain(_without_secret(value))})" for key, value in wants.items())
    return Alert(
        "warning",
        "not-trusted",
        f"The project wants to {doing} when there is something to tell. The run goes on without.",
        why="It came with the project, and nobody has allowed it on this machine.",
        remedy="If you know it, 'rlhf-tui config trust' allows it for this project, as long as it stays the same.",
    )


def _without_secret(value: str) -> str:
    """A command as it is; of an address its host only."""
    return urlsplit(value).hostname or value if value.startswith(("https:", "http:")) else value


def is_part(run: RunFolder) -> bool:
    """Whether the run is a stage of a demo, which tells of its own end. Raises UserError as `RunFolder.record` does."""
    return "demo" in run.record.parents


def require_program(settings: NotifySettings, root: Path) -> None:
    """Raise UsageError when the program of `notify.command` is not there; `root` is the project's folder.

    A program that the user has not allowed is not looked for: the run does without it.
    """
    settings = allowed(settings, root)
    if not settings.words or _program(settings.words[0], root):
        return
    raise UsageError(
        f"There is no program {settings.words[0]!r} to tell of the run.",
        why="notify.command names it.",
        todo="Correct notify.command, or empty it: rlhf-tui config set notify.command ''.",
    )


# -- the companion --------------------------------------------------------------------------------


def accompany(project: Project, run: RunFolder) -> None:
    """Start the companion of `run`, which this process is about to launch, if there is somebody to tell.

    It outlives the worker. Trouble with starting it is a line on standard error, the worker's log, and so is whom
    the user has not allowed to be told.
    """
    try:
        if refused := not_told(run):
            print(f"notify: {refused.message} {refused.why} {refused.remedy}", file=sys.stderr)
        settings = settings_of(run)
        if settings.on == "off" or not (settings.command or settings.webhook):
            return
        arguments = [str(project.root), run.name, str(os.getpid()), str(whole_size(run.events_path))]
        subprocess.Popen(
            [sys.executable, "-P", "-m", "rlhf_tui.runs.companion", *arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except Exception as error:  # whatever it is, the run matters more
        print(f"notify: nobody will be told of {run.name}: {error}", file=sys.stderr)


def deliver(news: News, settings: NotifySettings, root: Path, complain: Callable[[str], None]) -> None:
    """Tell the user's command and web address. What goes wrong is a sentence to `complain`, never an error.

    `root` is the project's folder, in which the command runs.
    """
    if settings.words:
        _trying(lambda: run_command(settings.words, news, root), "notify.command", complain)
    if settings.webhook:
        _trying(lambda: post(resolved(settings.webhook), news), "notify.webhook", complain)


def _trying(act: Callable[[], None], what: str, complain: Callable[[str], None]) -> None:
    try:
        act()
    except (OSError, ValueError, HTTPException) as error:
        complain(f"{what}: {error}")


class NotTold(OSError):
    """The command or the address did not take the news."""


def run_command(words: Sequence[str], news: News, root: Path, *, seconds: float = COMMAND_SECONDS) -> None:
    """Run the user's program in `root`: the facts as environment variables, and as JSON on standard input.

    Its output goes where this process's own goes. Raises NotTold when it fails or has not ended after
    `seconds`, when it is killed with whatever it started; OSError when it cannot be started.
    """
    program = _program(words[0], root)
    if program is None:
        raise NotTold(f"there is no program {words[0]!r}")
    process = subprocess.Popen(
        [program, *words[1:]],
        stdin=subprocess.PIPE,
        stdout=2,
        cwd=root,
        env={**os.environ, **environment(news)},
        start_new_session=True,
    )
    try:
        process.communicate(document(news), timeout=seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise NotTold(f"{words[0]} had not ended after {seconds:g} seconds and was killed") from None
        raise
    if process.returncode != 0:
        raise NotTold(f"{words[0]} ended with code {process.returncode}")


def post(address: str, news: News, *, seconds: float = WEBHOOK_SECONDS) -> None:
    """Send the facts as JSON to a web address. Raises NotTold, which names the host only: addresses are secrets.

    It follows no redirection, so that nothing goes to another place than the user named, and takes `seconds`
    in all (main thread only: it sets an alarm).
    """
    parts = urlsplit(checked_address(address))
    request = urllib.request.Request(
        address,
        data=document(news),
        headers={"Content-Type": "application/json", "User-Agent": "rlhf-tui"},
        method="POST",
    )
    # What is meant for this machine must not go to a proxy.
    direct = (urllib.request.ProxyHandler({}),) if parts.scheme == "http" else ()
    opener = urllib.request.build_opener(_NoRedirection, *direct)
    try:
        with _alarm(seconds), opener.open(request, timeout=seconds):
            pass
    except urllib.error.HTTPError as error:
        hint = "; give the final address, redirections are not followed" if error.code // 100 == 3 else ""
        raise NotTold(f"{parts.hostname} answered {error.code} {_plain(str(error.reason))}{hint}") from None
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise NotTold(f"{parts.hostname} did not answer within {seconds:g} seconds") from None
        raise NotTold(f"{parts.hostname} cannot be reached: {reason}") from None


def resolved(webhook: str) -> str:
    """The address itself, also where the setting names an environment variable; ValueError when that is not set."""
    if not webhook.startswith("$"):
        return webhook
    address = os.environ.get(webhook[1:], "")
    if not address:
        raise ValueError(f"the environment variable {webhook[1:]} is not set")
    return address


def facts(news: News) -> dict[str, str]:
    """What is told, by name; `text` is one sentence of it all, which chats show as it is."""
    return asdict(news) | {"text": f"{news.project}: {news.sentence}"}


def document(news: News) -> bytes:
    """The facts as one JSON object."""
    return json.dumps(facts(news)).encode("ascii")


def environment(news: News) -> Mapping[str, Any]:
    """The facts as environment variables; bytes, because the locale need not know every letter."""
    return {f"RLHF_TUI_{name.upper()}": value.encode() for name, value in asdict(news).items()}


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError here after `seconds`, whatever is being waited for: an answer can come byte by byte."""

    def ring(number: int, frame: object) -> None:
        raise TimeoutError

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _program(name: str, root: Path) -> str | None:
    """The path of a program; one with a slash is meant from the project's folder, or from home with '~'."""
    name = os.path.expanduser(name)
    return shutil.which(root / name if "/" in name else name)


def _message(project: Project, text: str) -> str:
    """A message without the path at which the project lies: it may go to a chat."""
    return _plain(text.replace(str(project.root), project.name))


def _plain(text: str) -> str:
    """One line without anything a terminal or a program would obey."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
