"""A run outlives the terminal it was started in: the tmux server is killed, and a new app finds past and present."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from rlhf_tui import demo
from rlhf_tui.preferences.formats import import_labels, read_prompts
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.events import Checkpoint, Metric
from rlhf_tui.runs.folder import RunFolder, create_run, latest
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.worker import execute
from tests.terminal import Terminal, ended

SETTINGS = (
    "adapters.layers=2",
    "adapters.rank=4",
    "reward.epochs=1",
    "reward.ensemble=1",  # nobody exploits anything here
    "reward.folds=0",
    "reward.head_start=zero",
    "reward.reference_completions=4",
    "reward.preview_prompts=0",
    "ppo.updates=100000",  # until somebody stops it
    "ppo.rollout_size=4",
    "ppo.max_new_tokens=6",
    "ppo.policy_learning_rate=1e-6",  # an untrained base would soon be led astray
    "ppo.evaluate_every=100000",  # before the first update
    "ppo.evaluate_prompts=4",
    "ppo.save_every=100000",
    "guard.action=warn",
    "run.threads=1",
)
STEP = re.compile(r"ppo (\d+)/100000")


@pytest.fixture
def project(tiny_folder: Path, tmp_path: Path) -> Iterator[Project]:
    """A project that is ready for PPO; no run of it outlives the test."""
    made = create_project(tmp_path / "walk-away", overrides=(*SETTINGS, f"model.name={tiny_folder}"))
    with as_file(files(demo)) as data, made.store() as store:
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=0.2)
        some = tmp_path / "some.jsonl"
        some.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[::12]))
        store.add_rater("demo", kind="model", card={})
        import_labels(store, some, rater="demo", heldout_fraction=0.2)
    assert execute(made, create_run(made, "reward")).status == "finished"
    yield made
    run = latest(made, "ppo")
    if run is not None and run.alive:
        os.kill(run.holder().pid, signal.SIGKILL)


@pytest.fixture
def open_app(project: Project) -> Callable[[], Terminal]:
    """Opens the project in the app, in a terminal with a server of its own."""
    return lambda: Terminal(160, 48, shlex.join([sys.executable, "-m", "rlhf_tui", str(project.root)]))


def steps(run: RunFolder) -> int:
    """The last update that the worker has written down."""
    found = [one.event.step for one in JournalReader(run.events_path).read(60) if isinstance(one.event, Metric)]
    return max(found, default=0)


def saved(run: RunFolder) -> list[int]:
    return [one.event.step for one in JournalReader(run.events_path).read(60) if isinstance(one.event, Checkpoint)]


def shown(screen: str) -> int:
    """How far the run is, by the head of the screen."""
    found = STEP.search(screen)
    return int(found[1]) if found else 0


def past(step: int) -> Callable[[str], bool]:
    return lambda screen: shown(screen) > step


def test_a_run_outlives_its_terminal_and_is_found_again_with_all_it_did(
    project: Project, open_app: Callable[[], Terminal]
) -> None:
    with open_app() as first:
        first.wait_for("○ idle")
        first.press("4")
        first.wait_for("Press ⏎ to start")
        first.press("Enter")
        first.wait_for(past(2), "the first updates")
        first.press("s")
        first.wait_for("✓ saved update ")
        app, server = first.process, first.server
        first.close()
        run = latest(project, "ppo")
        assert run is not None
        with open_app() as second:
            # The server is gone, and the app with it; the worker writes on.
            second.wait_for(lambda _: ended(server) and ended(app), "the first app to be gone")
            assert run.alive
            reached = steps(run)
            second.wait_for(lambda _: steps(run) > reached, "the worker to write on")
            screen = second.wait_for(past(reached), "the live run on screen")
            # From its early days to now: what was saved in the first terminal, and an update after that terminal's end.
            (kept,) = saved(run)
            assert kept <= reached < shown(screen)
            assert f"✓ saved update {kept}" in screen
            assert run.name in screen
            assert "RUNNING" in screen
            second.press("h")
            second.wait_for(
                lambda screen: re.search(r"│ +0 +0\.00 ", screen) is not None,
                "what was measured before the first update",
            )
            second.press("Escape")
            second.wait_for(past(shown(screen)), "the run to move on screen")
            stop(second, run)
            left_at = steps(run)
            second.wait_for("r Go on")
            second.press("r")
            second.wait_for(past(left_at), "the run to go on from where it was stopped")
            assert latest(project, "ppo") == run, "taken up, not begun anew"
            stop(second, run)
            app = second.process
            second.press("q")
            second.wait_for(lambda _: ended(app), "the app to end")
    assert run.status() == "stopped", run.log_tail(20)
    assert max(saved(run)) == steps(run)


def stop(terminal: Terminal, run: RunFolder) -> None:
    terminal.press(".")
    terminal.wait_for(f"Stop {run.name}?")
    terminal.press("y")
    terminal.wait_for("■ stopped")
    terminal.wait_for(lambda _: not run.alive, "the worker to let go")
