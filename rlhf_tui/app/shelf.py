"""What Home shows of every known project: its stage, the run that goes on, when it was opened. Free of Textual."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlhf_tui.app.keytable import STAGES
from rlhf_tui.app.overview import Overview
from rlhf_tui.project import CONFIG, DATABASE, Project
from rlhf_tui.projects import Known
from rlhf_tui.runs.folder import RunFolder

_READING = 0.05  # seconds for the journals of a project, at a look


@dataclass(frozen=True)
class Glance:
    """One project at a glance. `there`: its folder is; the rest is empty when it is not.

    `stage` is the first unfinished one as '3 Reward'; `live` names the run that goes on, `status` and `progress`
    say how ('RUNNING', '182/400').
    """

    known: Known
    there: bool
    stage: str = ""
    done: bool = False
    labels: str = ""
    live: RunFolder | None = None
    status: str = ""
    progress: str = ""

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.known.path.name or self.known.root


class Shelf:
    """Looks at projects again and again, reading only what is new. Not for two threads at a time."""

    def __init__(self) -> None:
        self._views: dict[str, Overview] = {}

    def look(self, known: Iterable[Known]) -> list[Glance]:
        """A glance at each project, in the order given."""
        return [self._glance(one) for one in known]

    def _glance(self, known: Known) -> Glance:
        if not is_there(known.path):
            self._views.pop(known.root, None)
            return Glance(known, False)
        view = self._views.setdefault(known.root, Overview(Project(known.path)))
        view.poll(_READING)
        names = [name for name, _ in STAGES]
        stage = view.first_stage()
        counts, live = view.counts, view.live
        progress = live.state.progress if live else None
        return Glance(
            known,
            True,
            f"{names.index(stage) + 1} {dict(STAGES)[stage]}",
            done=all(view.mark(name) == "done" for name in names),
            labels=f"{counts.prompts:,} prompts · {counts.judgements:,} judgements",
            live=live.folder if live else None,
            status=live.status if live else "",
            progress=f"{progress.done}/{progress.total}" if progress and progress.total else "",
        )


def is_there(root: Path) -> bool:
    """Whether a project lies in the folder."""
    return (root / CONFIG).is_file() and (root / DATABASE).is_file()


def short(path: Path | str) -> str:
    """A path with the home folder written as '~'."""
    text, home = str(path), os.path.expanduser("~")
    return "~" + text[len(home) :] if home != "/" and (text == home or text.startswith(home + "/")) else text
