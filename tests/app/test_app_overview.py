"""What the app makes of a project folder: marks, the first stage, what is missing, a live and a broken run."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest

from rlhf_tui import settings as settings_module
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.keytable import STAGES
from rlhf_tui.app.overview import ENOUGH, Overview
from rlhf_tui.app.screens.stage import headline
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Done, Event, Metric, Progress, Stage
from rlhf_tui.runs.folder import PAUSED, WAITING, RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter


def seen(project: Project, **more: Any) -> Overview:
    view = Overview(project, **more)
    view.poll(budget=5.0)
    return view


def marks(view: Overview) -> list[str]:
    return [view.mark(name) for name, _ in STAGES]


def test_an_empty_project_opens_with_the_model(project: Project) -> None:
    view = seen(project)
    assert marks(view) == ["open"] * 6
    assert view.first_stage() == "model"
    assert view.live is None
    assert "i to import prompts" in view.next_step()


def test_with_prompts_the_pairs_come_first(prompted: Project) -> None:
    view = seen(prompted)
    assert marks(view) == ["done", "open", "open", "open", "open", "open"]
    assert view.first_stage() == "pairs"


def test_with_all_pairs_judged_the_reward_model_comes_first(labelled: Project) -> None:
    view = seen(labelled)
    assert view.first_stage() == "reward"
    assert [rater.handle for rater in view.raters] == ["demo"]
    assert view.missing("reward") is None


def test_raters_who_have_not_judged_are_not_named(prompted: Project) -> None:
    with prompted.store() as store:
        store.add_rater("you")
    assert seen(prompted).raters == []


def test_a_finished_project_is_done_everywhere(finished: Project) -> None:
    view = seen(finished)
    assert marks(view) == ["done"] * 6
    assert view.first_stage() == "export"
    assert "Every stage is done" in view.next_step()


def test_nothing_new_changes_nothing(finished: Project) -> None:
    view = seen(finished)
    assert [view.poll() for _ in range(3)] == [False, False, False]


def test_whoever_only_reads_the_labels_changes_nothing(finished: Project) -> None:
    view = seen(finished)
    before = view.labels_seen
    with finished.store() as store:
        store.counts()
        assert finished.database.with_name(f"{finished.database.name}-wal").exists()
        assert view.poll() is False
    assert view.poll() is False
    assert view.labels_seen == before
    with finished.store() as store:
        store.add_rater("new")
    assert view.poll() is True
    assert view.labels_seen != before


def test_a_run_without_an_end_and_without_a_worker_has_crashed(
    labelled: Project, write_run: Callable[..., RunFolder]
) -> None:
    write_run(labelled, "reward", [Progress(1, 10, "steps")])
    view = seen(labelled)
    assert view.mark("reward") == "broken"
    assert view.live is None
    assert view.first_stage() == "reward"


def test_a_live_run_opens_first_and_news_arrive(
    finished: Project, alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    run = create_run(finished, "ppo")
    with alive(run), JournalWriter(run.events_path) as emit:
        emit(Stage("loading the model"))
        view = seen(finished)
        assert view.first_stage() == "ppo"
        assert view.mark("ppo") == "running"
        assert view.live is not None
        assert view.live.name == run.name
        emit(Metric(1, {"score": 0.25}))
        assert view.poll() is True
        assert view.live.state.latest == {"score": 0.25}
    assert view.poll() is True
    assert view.mark("ppo") == "broken"


def test_a_newer_run_takes_the_place_of_an_older_one(finished: Project, write_run: Callable[..., RunFolder]) -> None:
    view = seen(finished)
    newer = write_run(finished, "reward", [Done("failed", error={"what": "no", "why": "", "todo": ""})])
    assert view.poll() is True
    shown = view.run("reward")
    assert shown is not None
    assert shown.name == newer.name
    assert view.mark("reward") == "broken"


def shown(view: Overview, stage: str) -> tuple[str, str]:
    view.poll()
    run = view.run(stage)
    assert run is not None
    return run.name, run.status


def queued(run: RunFolder, place: int = 1) -> None:
    (run.control_dir / WAITING).write_text(str(place))


def paused(run: RunFolder) -> None:
    (run.control_dir / WAITING).unlink(missing_ok=True)
    (run.control_dir / PAUSED).touch()


def steered(view: Overview, stage: str) -> str:
    view.poll()
    run = view.steered(stage)
    assert run is not None
    return run.name


def test_a_run_at_work_is_seen_and_steered_though_a_newer_one_of_its_kind_is_queued(
    finished: Project, alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    view = seen(finished)
    first, second, third = (create_run(finished, "ppo") for _ in range(3))
    with alive(second), alive(third):
        queued(second, 1)
        queued(third, 2)
        with alive(first):
            assert shown(view, "ppo") == (first.name, "running")
            assert steered(view, "ppo") == first.name
            paused(first)
            assert shown(view, "ppo") == (first.name, "paused")
            assert steered(view, "ppo") == first.name
            (first.control_dir / PAUSED).unlink()
            paused(second)  # while it waits
            assert shown(view, "ppo") == (first.name, "running")
            (second.control_dir / PAUSED).unlink()
            queued(second)
        assert shown(view, "ppo") == (second.name, "queued"), "the next one in the queue"
        (second.control_dir / WAITING).unlink()
        assert shown(view, "ppo") == (second.name, "running")
    assert shown(view, "ppo") == (third.name, "new")


def test_a_run_at_work_is_seen_though_a_newer_one_was_taken_out_of_the_queue(
    finished: Project, write_run: Callable[..., RunFolder], alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    first = create_run(finished, "ppo")
    with alive(first):
        write_run(finished, "ppo", [Done("stopped")])
        assert shown(seen(finished), "ppo") == (first.name, "running")


def test_a_run_that_waits_is_steered_itself_also_when_it_is_paused(
    finished: Project, alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    """Whatever has the model meanwhile: a stage of another kind, or a demo."""
    working, waiting = create_run(finished, "reward"), create_run(finished, "ppo")
    demo = create_run(finished, "demo")
    view = seen(finished)
    with alive(waiting):
        queued(waiting)
        with alive(working):
            assert steered(view, "ppo") == waiting.name
            assert steered(view, "reward") == working.name
            paused(waiting)
            assert steered(view, "ppo") == waiting.name
            assert steered(view, "reward") == working.name
            assert steered(view, "compare") == working.name
        with alive(demo):
            assert steered(view, "ppo") == waiting.name
            assert steered(view, "reward") == demo.name


async def test_the_key_for_a_pause_acts_on_the_queued_run_of_the_screen_only(
    finished: Project, alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    working, waiting = create_run(finished, "reward"), create_run(finished, "ppo")
    with alive(working), alive(waiting):
        paused(working)
        (working.control_dir / "pause").touch()
        queued(waiting)
        app = RlhfApp(finished)
        async with app.run_test() as pilot:
            await pilot.press("4", "space")
            await pilot.pause()
            assert (waiting.control_dir / "pause").exists()
            assert (working.control_dir / "pause").exists()
            paused(waiting)
            app.look()
            await pilot.press("space")
            await pilot.pause()
            assert not (waiting.control_dir / "pause").exists()
            assert (working.control_dir / "pause").exists()


async def test_a_stop_is_meant_for_the_run_that_was_asked_about(
    finished: Project, alive: Callable[[RunFolder], AbstractContextManager[None]]
) -> None:
    working, waiting = create_run(finished, "ppo"), create_run(finished, "ppo")
    with alive(waiting):
        queued(waiting)
        app = RlhfApp(finished)
        async with app.run_test() as pilot:
            with alive(working), JournalWriter(working.events_path) as emit:
                app.look()
                await pilot.press("4", "full_stop")
                await pilot.pause()
                emit(Done("finished"))
            (waiting.control_dir / WAITING).unlink()
            app.look()
            await pilot.press("y")
            await pilot.pause()
            assert not (waiting.control_dir / "stop").exists()


def test_a_demo_is_followed_and_steered_as_a_whole(
    labelled: Project,
    write_run: Callable[..., RunFolder],
    alive: Callable[[RunFolder], AbstractContextManager[None]],
) -> None:
    demo = create_run(labelled, "demo")
    with alive(demo), JournalWriter(demo.events_path) as emit:
        view = seen(labelled, follow=demo)
        assert view.followed_stage() is None
        child = create_run(labelled, "reward", parents={"demo": demo.name})
        emit(Stage("reward", child.name))
        with alive(child):
            view.poll()
            assert view.followed_stage() == "reward"
            assert view.live is not None
            assert view.live.name == child.name
            steered = view.steered("reward")
            assert steered is not None
            assert steered.name == demo.name
        view.poll()
        assert view.live is not None
        assert view.live.name == demo.name


def test_settings_are_read_again_when_the_file_changes(project: Project) -> None:
    view = seen(project)
    settings_module.write(project.config, "ppo.updates", 77)
    assert view.poll() is True
    assert view.settings is not None
    assert view.settings.ppo.updates == 77


def test_broken_settings_are_a_problem_not_a_crash(project: Project) -> None:
    project.config.write_text("[ppo]\nupdates = -3\n")
    view = seen(project)
    assert view.problem is not None
    assert "ppo.updates" in str(view.problem)
    assert view.missing("pairs") is view.problem


@pytest.mark.parametrize(("stage", "word"), [("pairs", "prompts"), ("reward", "judged"), ("ppo", "reward model")])
def test_what_is_missing_is_said_with_what_to_do(project: Project, stage: str, word: str) -> None:
    missing = seen(project).missing(stage)
    assert missing is not None
    assert word in str(missing)
    assert missing.todo


def test_a_journal_written_anew_is_folded_anew(
    labelled: Project, write_run: Callable[..., RunFolder], ppo_events: list[Event]
) -> None:
    run = write_run(labelled, "ppo", ppo_events)
    view = seen(labelled)
    assert view.runs["ppo"].state.step == 12
    run.events_path.unlink()
    with JournalWriter(run.events_path) as emit:
        emit(Metric(1, {"score": 9.0}))
    view.poll()
    assert view.runs["ppo"].state.latest == {"score": 9.0}


def test_pairs_that_wait_keep_nobody_from_going_on(prompted: Project, write_run: Callable[..., RunFolder]) -> None:
    """A stage that was done on the pairs there were, or more judgements than most need: what comes next is later."""
    view = seen(prompted)
    assert "Press 2" in view.next_step()
    view.counts = replace(view.counts, judgements=ENOUGH - 1)
    assert "Press 2" in view.next_step()
    view.counts = replace(view.counts, judgements=ENOUGH)
    assert "Press 3" in view.next_step()
    write_run(prompted, "reward", [Done("finished")])
    view = seen(prompted)
    assert view.counts.pairs_waiting
    assert "Press 4" in view.next_step()


def test_a_long_journal_says_how_far_it_has_been_read(project: Project, write_run: Callable[..., RunFolder]) -> None:
    run = write_run(project, "ppo", [Metric(step, {"score": 0.5}) for step in range(20_000)])
    view, told = Overview(project), list[str]()
    while not told or view.behind:
        view.poll_runs(budget=0)
        told.append(headline(view, "", 0.0, 80)[1].plain)
    assert told[-1] == "○ idle"
    assert len(told) > 2
    assert all(re.fullmatch(rf"● reading {run.name}: \d+ %", text) for text in told[:-1])
    shares = [int(text.split()[-2]) for text in told[:-1]]
    assert shares == sorted(shares)
    assert shares[0] < 100


@pytest.mark.parametrize(
    ("stage", "kind", "events", "waits"),
    [
        ("ppo", "ppo", [Done("stopped")], True),
        ("ppo", "ppo", [Done("failed")], True),
        ("reward", "reward", [Metric(1, {"loss": 0.5})], True),  # crashed
        ("pairs", "generate", [Done("stopped")], True),
        ("compare", "compare", [Done("stopped")], True),
        ("ppo", "ppo", [Done("finished")], False),
        ("export", "export", [Done("stopped")], False),  # is written anew
        ("model", "download", [Done("stopped")], False),  # is fetched by ⏎
    ],
)
def test_a_run_that_broke_off_waits_to_be_taken_up(
    stage: str, kind: str, events: list[Event], waits: bool, project: Project, write_run: Callable[..., RunFolder]
) -> None:
    run = write_run(project, kind, events)
    found = seen(project).unfinished(stage)
    assert (found.name if found else "") == (run.name if waits else "")


def test_a_part_of_a_demo_that_broke_off_is_taken_up_with_the_demo(project: Project, alive: Any) -> None:
    whole = create_run(project, "demo")
    part = create_run(project, "ppo", parents={"demo": whole.name})
    for run in (part, whole):
        with JournalWriter(run.events_path) as emit:
            emit(Done("stopped"))
    found = seen(project)
    for stage in ("ppo", "compare"):  # that one was not begun
        waits = found.unfinished(stage)
        assert waits is not None
        assert waits.name == whole.name
    with alive(whole):
        assert seen(project).unfinished("ppo") is None


def test_the_next_step_is_to_take_up_what_broke_off(prompted: Project, write_run: Callable[..., RunFolder]) -> None:
    write_run(prompted, "reward", [Done("finished")])
    run = write_run(prompted, "ppo", [Done("stopped")])
    view = seen(prompted)
    assert view.next_step() == f"{run.name} did not finish: press 4, then r to go on with it."
