"""What the console shows of a run: lines where no cursor can move, one redrawn line on a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest

from rlhf_tui import console
from rlhf_tui.console import ConsoleFollower, follow_on_console
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Alert, Done, Event, Launch, Memory, Metric, Progress, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LAUNCH = Launch("ppo-0001", "ppo", 1, "box", "0.1")
# seconds since the first event, event
RECORDED: list[tuple[float, Event]] = [
    (0, LAUNCH),
    (1, Stage("loading the model")),
    (2, Progress(0, 4, "updates")),
    (5, Stage("update", "1: sampling")),
    (10, Metric(1, {"score": -0.5, "kl": 0.25, "eos_rate": math.nan, "entropy": 2.0})),
    (12, Progress(1, 4, "updates")),
    (13, Sample(1, "Why?\n", "Because \x1b[31mred\x07.", {}, "policy")),
    (14, Memory("update", 1, 1)),
    (20, Alert("warning", "kl", "The KL is high.", "It is 60.", "Lower the rate.")),
    (22, Progress(2, 4, "updates")),
    (32, Progress(3, 4, "updates")),
    (42, Progress(4, 4, "updates")),
    (43, Done("finished")),
]


@pytest.fixture
def ppo(project: Project) -> RunFolder:
    return create_run(project, "ppo")


def told(run: RunFolder, events: list[tuple[float, Event]], out: io.StringIO) -> str:
    follower = ConsoleFollower(out)
    for t, event in events:
        follower.show(run, 1_700_000_000 + t, event)
    follower.close()
    return out.getvalue()


def test_without_a_terminal_lines_come_now_and_then(ppo: RunFolder) -> None:
    assert told(ppo, RECORDED, io.StringIO()).splitlines() == [
        "  loading the model",
        "  [........................] 0/4 updates",
        "  warning: The KL is high. It is 60. Lower the rate.",
        "  [############............] 2/4 updates  0:20 left  score -0.50  kl 0.25  eos-rate nan",
        "  [########################] 4/4 updates  score -0.50  kl 0.25  eos-rate nan",
    ]


def test_on_a_terminal_one_line_is_redrawn_within_its_width(ppo: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = told(ppo, RECORDED, Terminal())
    redrawn = [part.split("\n")[0] for part in text.split("\r\x1b[2K")[1:]]
    assert len(redrawn) == 5
    assert all(len(line) < 60 for line in redrawn)
    assert redrawn[1].startswith("  [######..................] 1/4 updates  0:30 left")
    assert "  Why? → Because [31mred.\n" in text
    assert text.endswith("\n")
    for line in ("  Why?", "  warning: The KL"):
        assert f"\n{line}" in text, "what does not redraw the line begins a new one"


def test_a_resumed_run_keeps_its_own_pace(ppo: RunFolder) -> None:
    later = [(1000.0, LAUNCH), (1001.0, Progress(2, 4, "updates")), (1011.0, Progress(3, 4, "updates"))]
    text = told(ppo, [*RECORDED[:10], *later], Terminal())
    assert "3/4 updates  0:10 left" in text


def test_a_stage_that_counts_anew_starts_its_own_clock(ppo: RunFolder) -> None:
    events: list[tuple[float, Event]] = [
        (0, Progress(50, 50, "pairs")),
        (100, Progress(0, 10, "updates")),
        (105, Progress(5, 10, "updates")),
    ]
    assert "5/10 updates  0:05 left" in told(ppo, events, Terminal())


def test_what_comes_after_training_starts_its_own_clock(ppo: RunFolder) -> None:
    events: list[tuple[float, Event]] = [
        (0, Progress(0, 12, "steps")),
        (800, Progress(12, 12, "steps")),
        (810, Progress(4, 32, "completions")),
        (812, Progress(5, 32, "completions")),
    ]
    assert "5/32 completions  0:54 left" in told(ppo, events, Terminal())


def test_following_a_demo_tells_its_stages_in_order(project: Project, fake_run: Callable[..., RunFolder]) -> None:
    children = [
        fake_run(project, "generate", [Progress(0, 8, "completions"), Progress(8, 8, "completions"), Done("finished")]),
        fake_run(project, "reward", [Metric(1, {"loss": 0.5}), Progress(3, 3, "steps"), Done("finished")]),
    ]
    stages: list[Event] = []
    for number, child in enumerate(children):
        stages += [Progress(number, 2, "stages"), Stage(child.kind, child.name)]
    demo = fake_run(project, "demo", [*stages, Progress(2, 2, "stages"), Done("finished", result={"x": 1})])
    out = io.StringIO()
    assert follow_on_console(project, demo, out).result == {"x": 1}
    assert out.getvalue().splitlines() == [
        "",
        "generate  (generate-0001)",
        "  [........................] 0/8 completions",
        "  [########################] 8/8 completions",
        "",
        "reward  (reward-0002)",
        "  [########################] 3/3 steps  loss 0.50",
    ]


def test_how_a_run_may_have_ended(project: Project, fake_run: Callable[..., RunFolder]) -> None:
    out = io.StringIO()
    assert follow_on_console(project, fake_run(project, "ppo", [Done("stopped")]), out).status == "stopped"
    with pytest.raises(UserError, match="has not been started"):
        follow_on_console(project, create_run(project, "ppo"), out)
    crashed = fake_run(project, "ppo", [Stage("loading the model")])
    crashed.log_path.write_text("Killed\n")
    with pytest.raises(UserError, match="vanished without a word") as error:
        follow_on_console(project, crashed, out)
    assert "loading the model" in error.value.why
    assert error.value.why.endswith("The end of its log:\nKilled")
    failed = fake_run(project, "ppo", [Done("failed", "No card.", {"what": "No card.", "why": "w", "todo": "t"})])
    with pytest.raises(UserError) as error:
        follow_on_console(project, failed, out)
    assert error.value.as_dict() == {"what": "No card.", "why": "w", "todo": "t"}


class Waits:
    """Stands in for `time.sleep`: what happens at each wait in turn."""

    def __init__(self, *acts: Callable[[], None]) -> None:
        self.acts = list(acts)

    def __call__(self, seconds: float) -> None:
        self.acts.pop(0)()


def interrupted() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_saves_and_stops(project: Project, ppo: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ppo.lock()
    lock.__enter__()
    emit = JournalWriter(ppo.events_path)
    emit(LAUNCH)

    def ends() -> None:
        assert (ppo.control_dir / "stop").exists()
        emit(Done("stopped"))
        emit.close()
        lock.__exit__(None, None, None)

    monkeypatch.setattr(console.time, "sleep", Waits(interrupted, ends, lambda: None))
    out = io.StringIO()
    assert follow_on_console(project, ppo, out).status == "stopped"
    assert "Saving and stopping" in out.getvalue()


def test_a_second_ctrl_c_leaves_it_running(project: Project, ppo: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.time, "sleep", Waits(interrupted, interrupted))
    out = io.StringIO()
    with ppo.lock(), pytest.raises(KeyboardInterrupt):
        follow_on_console(project, ppo, out)
    assert "ppo-0001 goes on; 'rlhf-tui runs watch ppo-0001'" in out.getvalue()
