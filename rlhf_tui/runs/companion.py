"""The companion of a run: follows it as any reader does, and tells the user's command and web address.

    python -m rlhf_tui.runs.companion PROJECT RUN PID START

It goes along with one execution, that of the worker PID whose Launch comes after the first START bytes of the
journal, and ends when that has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rlhf_tui.errors import UserError
from rlhf_tui.project import Project, open_project
from rlhf_tui.runs.events import Alert, Done, Launch, Stamped
from rlhf_tui.runs.folder import RunFolder, find
from rlhf_tui.runs.launcher import follow
from rlhf_tui.runs.notify import News, alerted, deliver, ended, is_part, settings_of, wanted
from rlhf_tui.settings import NotifySettings

_POLL = 1.0  # seconds


class _NextExecution(Exception):
    """The run was taken up again; another companion goes along with that."""


class Companion:
    """Hears the events of a run and tells those of one execution."""

    def __init__(self, project: Project, run: RunFolder, settings: NotifySettings, pid: int) -> None:
        self._project = project
        self._run = run
        self._settings = settings
        self._pid = pid
        self.launched = False
        self.done: Done | None = None

    def hear(self, stamped: Stamped) -> None:
        """Take one event in. Raises _NextExecution when it belongs to a later worker."""
        match stamped.event:
            case Launch(pid=pid) if self.launched:
                if pid != self._pid:  # the same process launches again when a pause is over
                    raise _NextExecution
            case Launch(pid=pid) if pid == self._pid:
                self.launched = True
            case Alert() as alert if self.launched:
                self.tell(alerted(self._project, self._run, alert))
            case Done() as done if self.launched:
                self.done = done
            case _:
                pass

    def tell(self, news: News) -> None:
        """Deliver it, if the user wants to hear of it."""
        if wanted(news, self._settings):
            deliver(news, self._settings, self._project.root, _complain)


def accompany_to_the_end(project: Project, run: RunFolder, pid: int, start: int) -> None:
    """Tell of the execution of worker `pid` until it is over, and then how it ended.

    It begins at the byte `start` of the journal: an earlier worker of this run may have had the same process id.
    Raises UserError or OSError when the run cannot be read.
    """
    companion = Companion(project, run, settings_of(run), pid)
    with suppress(_NextExecution):
        follow(run, companion.hear, poll=_POLL, start=start)
    # Of a worker that never began, whoever started it has heard; a folder that is gone says nothing.
    if companion.launched and not is_part(run) and run.record_path.exists():
        companion.tell(ended(project, run, companion.done))


def main(arguments: Sequence[str] | None = None) -> int:
    """The companion process. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="rlhf_tui.runs.companion", description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path, help="the project's folder")
    parser.add_argument("run", help="the run's name")
    parser.add_argument("pid", type=int, help="of its worker")
    parser.add_argument("start", type=int, help="bytes that were in the journal before the worker's launch")
    given = parser.parse_args(arguments)
    try:
        project = open_project(given.project)
        accompany_to_the_end(project, find(project, given.run), given.pid, given.start)
    except (UserError, OSError) as error:
        _complain(str(error))
        return 1
    return 0


def _complain(text: str) -> None:
    print(f"notify: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
