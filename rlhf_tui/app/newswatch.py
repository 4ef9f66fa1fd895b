"""What is news about the runs that the app watches. Free of Textual."""

from __future__ import annotations

from collections.abc import Iterable

from rlhf_tui.app.overview import Watched
from rlhf_tui.project import Project
from rlhf_tui.runs.folder import RunFolder
from rlhf_tui.runs.notify import News, alerted, began, ended, is_part


class NewsWatch:
    """Notices what happens to runs from now on; what lies in the past is no news."""

    def __init__(self, project: Project, now: float) -> None:
        self._project = project
        self._since = now
        self._alive: dict[str, Watched] = {}
        self._told: dict[str, float] = {}  # by run: when the last alert that was noticed was written

    def look(self, runs: Iterable[Watched]) -> list[tuple[RunFolder, News]]:
        """What is new: beginnings, alerts and ends. Raises UserError where a run cannot be read.

        A run that was alive is watched to its end, also when it is no longer among `runs`.
        """
        current = {run.name: run for run in runs}
        for name, run in self._alive.items():
            if name not in current:
                run.read(budget=0.002)
        return [(run.folder, news) for run in (self._alive | current).values() for news in self._of(run)]

    def _of(self, run: Watched) -> list[News]:
        known = run.name in self._alive
        if not known and not run.alive:
            return []
        found = [] if known else [began(self._project, run.folder)]
        found += self._alerts(run)
        if run.alive:
            self._alive[run.name] = run
        elif run.reader.caught_up:
            del self._alive[run.name]
            if not is_part(run.folder):
                found.append(ended(self._project, run.folder, run.folder.done()))
        return found

    def _alerts(self, run: Watched) -> list[News]:
        last = self._told.get(run.name, self._since)
        new = [one for one in run.state.alerts if one.at > last]
        if new:
            self._told[run.name] = new[-1].at
        return [alerted(self._project, run.folder, one.news) for one in new]
