"""Every screen at 80x24 and 160x48 in four states of a project, and every way to judge, letter by letter.

After a change that is meant:  RLHF_TUI_WRITE_GOLDENS=1 pytest -n0 tests/app/test_app_goldens.py
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.cells import cell_len

import rlhf_tui
from rlhf_tui import projects
from rlhf_tui.runs.events import Done
from tests.app import stories
from tests.app.appraising import appraise
from tests.app.still import StillClock, project_here, standing_still
from tests.app.touring import SCREENS, Tour, touring, touring_home

GOLDENS = Path(__file__).with_name("goldens")
SIZES = [(80, 24), (160, 48)]
WRITE = "RLHF_TUI_WRITE_GOLDENS"
AGAIN = f"If the change is meant: {WRITE}=1 pytest -n0 tests/app/test_app_goldens.py"
Size = tuple[int, int]

#: Windows that open from the stages of any project, and say what there is.
WINDOWS = {
    "model-read": ("1", "o"),
    "model-other": ("1", "slash"),
    "prompts-import": ("2", "i"),
    "prompts-write": ("2", "w"),
    "ppo-held-out": ("4", "h"),
    "ppo-samples": ("4", "s"),
    "ppo-alerts": ("4", "w"),
    "ppo-kept": ("4", "k"),
    "ppo-charts": ("4", "slash"),
    "log-events": ("4", "L", "v"),
    "setting": ("4", "e", "enter"),
    "doctor-check": ("1", "D", "enter"),
    "help-label": ("2", "l", "question_mark"),
}


@pytest.fixture
def still(tmp_path: Path) -> Iterator[StillClock]:
    with standing_still(tmp_path / "home") as clock:
        yield clock


def compare(state: str, size: Size, shots: Mapping[str, str]) -> None:
    """Each text against its golden, or new goldens where they are asked for."""
    seen = {GOLDENS / state / f"{name}-{size[0]}x{size[1]}.txt": text for name, text in shots.items()}
    known = set((GOLDENS / state).glob(f"*-{size[0]}x{size[1]}.txt"))
    if os.environ.get(WRITE):
        (GOLDENS / state).mkdir(parents=True, exist_ok=True)
        for path in known - set(seen):
            path.unlink()
        for path, text in seen.items():
            path.write_text(text, encoding="utf-8")
        return
    wrong = [f"{path}: a golden of nothing that was seen" for path in sorted(known - set(seen))]
    for path, text in seen.items():
        golden = path.read_text(encoding="utf-8") if path in known else ""
        if text != golden:
            told = difflib.unified_diff(golden.splitlines(), text.splitlines(), str(path), "on screen", lineterm="")
            wrong.append("\n".join(told))
    assert not wrong, "\n\n".join([*wrong, AGAIN])


async def every_screen(tour: Tour) -> None:
    for name, names in SCREENS.items():
        await tour.visit(name, *names)


@pytest.mark.parametrize("size", SIZES)
async def test_an_empty_project(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    async with touring_home(Path.cwd(), size) as first:
        await first.visit("first-steps")
        await first.visit("new-project", "n")
    projects.note(project.root.resolve())
    async with touring(project, size) as tour:
        await every_screen(tour)
        for name in ("prompts-import", "ppo-held-out", "ppo-samples", "ppo-alerts", "ppo-kept"):
            await tour.visit(name, *WINDOWS[name])
    async with touring_home(Path.cwd(), size) as home:
        await home.visit("home")
    compare("empty", size, first.shots | home.shots | tour.shots)


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_going_on(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    projects.note(project.root.resolve())
    stories.give_prompts(project)
    stories.judge(project, 4)
    async with touring(project, size, busy=True) as tour:
        for number, (stage, kind, events, _, done) in enumerate(stories.LIFE, start=1):
            with stories.at_work(project, kind, events) as run:
                await tour.visit(f"{number}-{stage}", str(number))
                if kind == "ppo":
                    for name, names in SCREENS.items():
                        if not name[0].isdigit() and name != "chat":
                            await tour.visit(name, *names)
                    await tour.visit("ppo-lit-chart", "4", "tab")
                    await tour.press("escape")
                    await tour.visit("stop", "full_stop")
            stories.tell(run, [done])
            if kind in ("reward", "ppo"):
                stories.have_adapter(project, {"reward": "reward", "ppo": "policy"}[kind], run.name)
        with stories.chatting(project, whole=False):
            await tour.visit("chat", "4", "t")
    with stories.at_work(project, "ppo", stories.tuning(7)):
        async with touring_home(Path.cwd(), size) as home:
            await home.visit("home")
    compare("running", size, home.shots | tour.shots)


@pytest.mark.parametrize("size", SIZES)
async def test_failed_runs(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    projects.note(project.root.resolve())
    stories.fail(project)
    still.tick(600)
    async with touring(project, size) as tour:
        await every_screen(tour)
        for name in ("ppo-alerts", "ppo-kept", "log-events"):
            await tour.visit(name, *WINDOWS[name])
    async with touring_home(Path.cwd(), size) as home:
        await home.visit("home")
    compare("failed", size, home.shots | tour.shots)


@pytest.mark.parametrize("size", SIZES)
async def test_a_finished_project(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    projects.note(project.root.resolve())
    stories.finish(project)
    appraise(project)
    still.tick(3600)
    with ExitStack() as chats:
        async with touring(project, size) as tour:
            await every_screen(tour)
            for name, names in REPORT.items():
                await tour.visit(name, *names)
            await whole_report(tour)
            for name, names in WINDOWS.items():
                await tour.visit(name, *names)
            for name, key in LABELLING.items():
                await tour.visit(name, "2", "l", *key)
            chats.enter_context(stories.chatting(project, whole=True))
            await tour.visit("chat", "4", "t")
    async with touring_home(Path.cwd(), size) as home:
        await home.visit("home")
    compare("finished", size, home.shots | tour.shots)


async def whole_report(tour: Tour) -> None:
    """The report page by page, to its end."""
    await tour.press("3")
    await tour.shoot("reward-report-1", "v")
    for page in range(2, 12):  # space, not PgDn: that one has not scrolled yet when the press returns
        if await tour.settle() == await tour.shoot(f"reward-report-{page}", "space"):
            del tour.shots[f"reward-report-{page}"]
            return await tour.back()
    raise AssertionError("a report without an end")


#: What opens on the Reward screen once there is a report.
REPORT = {
    "3-reward-curves": ("3", "c"),
    "3-reward-again": ("3", "c"),
    "reward-disagreements": ("3", "d"),
    "reward-disagreements-next": ("3", "d", "down"),
    "reward-best": ("3", "b"),
    "reward-best-next": ("3", "b", "right"),
}

LABELLING = {
    "label-history": ("h",),
    "label-statistics": ("i",),
    "label-guideline": ("g",),
    "label-mode": ("M",),
    "label-rater": ("R",),
}


@pytest.mark.parametrize("size", SIZES)
async def test_every_verdict(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    stories.give_prompts(project)
    stories.judge(project, 9)
    stories.write(project, "reward", [*stories.learning(10), Done("finished")])
    async with touring(project, size) as tour:
        for level in ("narrow", "not_yet", "broken"):
            appraise(project, level)
            await tour.visit(f"3-reward-{level}", "3")
        stories.judge(project, 1)
        await tour.visit("3-reward-stale", "3")
    compare("verdicts", size, tour.shots)


@pytest.mark.parametrize("size", SIZES)
async def test_every_way_to_judge(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    stories.give_prompts(project)
    stories.give_more(project)
    async with touring(project, size, clock=still) as tour:
        await tour.shoot("pair", "2", "l")
        still.tick()
        await tour.shoot("pair-answered", "k")
        await tour.shoot("label-how-many", "M", "r")
        await tour.press("escape")
        for name, names, begin, rest in WAYS:
            await tour.shoot(name, "M", *names)
            still.tick()
            await tour.shoot(f"{name}-begun", *begin)
            await tour.shoot(f"{name}-whole", *rest)
            still.tick()
            await tour.shoot(f"{name}-answered", "enter")
        still.tick()
        await tour.shoot("label-give-up", "a", "escape")
    compare("judging", size, tour.shots)


@pytest.mark.parametrize("size", SIZES)
async def test_judging_again(still: StillClock, size: Size) -> None:
    project = project_here("my-assistant")
    stories.finish(project)
    appraise(project)
    async with touring(project, size, clock=still) as tour:
        await tour.shoot("rejudge", "3", "d", "enter")
        still.tick()
        await tour.shoot("reward-disagreements-settled", "k")
        await tour.back()
        await tour.visit("3-reward", "3")
    compare("rejudging", size, tour.shots)


#: The ways to judge more than two answers: how to choose it, to begin an answer, and to complete it.
WAYS = (
    ("rank", ("r", "4"), ("2", "1"), ("equals_sign", "4", "3")),
    ("rate", ("m", "4"), ("5", "2"), ("3", "1")),
    ("accept", ("a", "4"), ("a", "r"), ("r", "a")),
)


# How the goldens are laid out

#: Screens without a window in front, whose frames are all to be seen whole.
OPEN = re.compile(r"(?!help|label-|model-|prompts-|ppo-[^l]|reward-|setting-|doctor-|stop|new-)")


def goldens() -> list[Path]:
    return sorted(GOLDENS.glob("*/*.txt"))


def broken_frames(rows: list[str]) -> list[str]:
    """Frames of which an edge or a corner is missing."""
    found = []
    for top, row in enumerate(rows):
        for begin, end in (found.span() for found in re.finditer("╭[^╭╮]*╮", row)):
            right, below = end - 1, top + 1
            while below < len(rows) and [rows[below].ljust(end)[at] for at in (begin, right)] == ["│", "│"]:
                below += 1
            closed = rows[below].ljust(end) if below < len(rows) else " " * end
            if (closed[begin], closed[right]) != ("╰", "╯"):
                found.append(f"line {top + 1}, column {begin + 1}: {row[begin:end]}")
        for one, other in ("╭╮", "╰╯"):
            if row.count(one) != row.count(other):
                found.append(f"line {top + 1}: {row}")
    return found


def test_every_screen_has_its_golden_at_both_sizes() -> None:
    names = {path.relative_to(GOLDENS).as_posix() for path in goldens()}
    for state in ("empty", "running", "failed", "finished"):
        for screen in (*SCREENS, "home"):
            for columns, rows in SIZES:
                assert f"{state}/{screen}-{columns}x{rows}.txt" in names


@pytest.mark.parametrize("size", SIZES)
def test_every_golden_fits_its_terminal_and_its_frames_are_closed(size: Size) -> None:
    columns, height = size
    for path in goldens():
        if not path.stem.endswith(f"-{columns}x{height}"):
            continue
        *rows, rest = path.read_text(encoding="utf-8").split("\n")
        assert (len(rows), rest) == (height, ""), path
        assert max(map(cell_len, rows)) <= columns, path
        if OPEN.match(path.stem):
            assert not broken_frames(rows), path


def test_no_word_is_cut_off_at_an_edge_without_an_ellipsis() -> None:
    """What stands last before an edge is a word that somebody wrote, not the beginning of one."""
    sources = [*Path(rlhf_tui.__file__).parent.rglob("*.py"), *(Path(__file__).parent.glob("st*.py"))]
    known = {word for path in sources for word in re.findall(r"[a-zA-Z]+", path.read_text(encoding="utf-8"))}
    cut = {
        f"{path.relative_to(GOLDENS)}: {row}"
        for path in goldens()
        if OPEN.match(path.stem)
        for row in path.read_text(encoding="utf-8").splitlines()
        for word in re.findall(r"(?<![\w/~.-])([a-zA-Z]{2,}) ?(?:[│╮╯]|$)", row)
        if word not in known
    }
    assert not cut, "\n".join(sorted(cut))
