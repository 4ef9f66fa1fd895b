"""Requests and the boundary between steps, in one process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project
from rlhf_tui.runs.control import Control, Requests, StopRequested, StopSignal, Verb, clear, clear_stale, request
from rlhf_tui.runs.events import Done, Event, Launch, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

NOTHING = Requests(pause=False, stop=False, save=False)


class Saves:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_nothing_asked_nothing_done(run: RunFolder) -> None:
    control, save = Control([run.control_dir]), Saves()
    assert control.poll() == NOTHING
    control.boundary(save)
    assert save.count == 0


@pytest.mark.parametrize("times", [1, 3])
def test_save_is_done_once_however_often_it_was_asked(run: RunFolder, times: int) -> None:
    control, save = Control([run.control_dir]), Saves()
    for _ in range(times):
        request(run, "save")
    control.boundary(save)
    control.boundary(save)
    assert save.count == 1


def test_a_save_asked_while_saving_is_not_lost_when_the_run_goes_on(run: RunFolder) -> None:
    control = Control([run.control_dir])
    request(run, "save")
    control.boundary(lambda: None)
    request(run, "save")
    save = Saves()
    control.boundary(save)
    assert save.count == 1


def test_stop_saves_then_raises_at_every_boundary(run: RunFolder) -> None:
    control, save = Control([run.control_dir]), Saves()
    request(run, "stop")
    request(run, "stop")
    for expected in (1, 2):
        with pytest.raises(StopRequested):
            control.boundary(save)
        assert save.count == expected
    clear(run)
    control.boundary(save)
    assert control.poll() == NOTHING


def test_what_is_asked_of_a_new_execution_is_kept_when_the_old_ones_requests_are_dropped(run: RunFolder) -> None:
    for name, age in (("pause", -3600.0), ("save", 3600.0)):  # the latter before the clock was set back
        (run.control_dir / name).touch()
        os.utime(run.control_dir / name, times=2 * (time.time() + age,))
    (run.control_dir / "paused").touch()
    with run.lock():
        request(run, "stop")
        clear_stale(run)
        assert Control([run.control_dir], signals=StopSignal()).poll() == Requests(pause=False, stop=True, save=False)
    assert not (run.control_dir / "paused").exists()


def test_a_failing_save_is_not_hidden(run: RunFolder) -> None:
    request(run, "stop")

    def save() -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        Control([run.control_dir]).boundary(save)


@pytest.mark.parametrize(("way_out", "last"), [("resume", "resumed"), ("stop", "paused")])
def test_pause_waits_until_resume_or_stop(run: RunFolder, until: Callable[..., None], way_out: Verb, last: str) -> None:
    heard: list[Event] = []
    save = Saves()
    control = Control([run.control_dir], emit=heard.append)
    outcome: list[str] = []

    def engine() -> None:
        try:
            control.boundary(save)
            outcome.append("resume")
        except StopRequested:
            outcome.append("stop")

    request(run, "pause")
    request(run, "pause")
    with run.lock():
        thread = threading.Thread(target=engine)
        thread.start()
        until(lambda: run.status() == "paused", "the run is paused")
        assert outcome == []
        request(run, "save")
        until(lambda: not control.poll().save, "the request to save is taken")
        request(run, way_out)
        request(run, way_out)
        thread.join()
        assert outcome == [way_out]
        assert run.status() == "running"
    assert save.count == 1, "nothing changed while paused: one save is enough"
    assert [event.name for event in heard if isinstance(event, Stage)] == (
        ["paused", "resumed"] if last == "resumed" else ["paused"]
    )


def test_a_part_hears_what_is_asked_of_the_whole(run: RunFolder, project: Project) -> None:
    whole = create_run(project, "nested")
    control, save = Control([run.control_dir, whole.control_dir]), Saves()
    request(whole, "save")
    control.boundary(save)
    assert save.count == 1
    assert Control([whole.control_dir]).poll() == NOTHING
    request(whole, "stop")
    with pytest.raises(StopRequested):
        control.boundary(save)
    assert Control([whole.control_dir]).poll().stop, "the whole must still hear it"


def test_an_ended_run_takes_no_requests_but_stop_is_harmless(run: RunFolder) -> None:
    with JournalWriter(run.events_path) as journal:
        journal(Launch(run.name, run.kind, 1, "host", "0"))
        journal(Done("finished"))
    request(run, "stop")
    assert list(run.control_dir.iterdir()) == []
    verbs: list[Verb] = ["pause", "resume", "save"]
    for verb in verbs:
        with pytest.raises(UsageError, match="not running"):
            request(run, verb)


def test_the_first_signal_asks_and_only_the_second_raises(run: RunFolder) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    signals = StopSignal()
    control = Control([run.control_dir], signals=signals)
    try:
        signals.install()
        signal.raise_signal(signal.SIGHUP)
        assert control.poll() == NOTHING
        signal.raise_signal(signal.SIGTERM)
        assert control.poll().stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.count == 3
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
