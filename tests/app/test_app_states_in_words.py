"""Every state is told in words or signs, never by a colour alone: looked for where no style is left.

The same in plain ASCII, where the app itself draws nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from textual.app import App, ComposeResult

from rlhf_tui import projects
from rlhf_tui.app.glyphs import plain
from rlhf_tui.app.widgets.options import Options
from rlhf_tui.project import Project
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Alert, Done, Event, Stage
from rlhf_tui.runs.folder import PAUSED, WAITING, RunFolder
from rlhf_tui.runs.turn import WAITS
from tests.app import stories
from tests.app.still import StillClock, project_here, standing_still
from tests.app.touring import Tour, touring, touring_home

#: How a run that lives is brought into a state, and the words that say so: in line 1 and in the panel of its stage.
LIVE: Sequence[tuple[str, Callable[[RunFolder], object], Sequence[str]]] = (
    ("running", lambda run: None, ("● RUNNING ppo 7/40", "● RUNNING, update 7", "[4 ▶ PPO]")),
    ("paused", lambda run: (run.control_dir / PAUSED).touch(), ("‖ PAUSED ppo 7/40", "‖ PAUSED, update 7")),
    (
        "queued",
        lambda run: (run.control_dir / WAITING).write_text("1"),
        ("○ QUEUED ppo 7/40", "○ QUEUED, update 7"),
    ),
    ("stopping", lambda run: request(run, "stop"), ("■ STOPPING ppo 7/40", "■ STOPPING, update 7")),
)
#: How a run has ended, and the words that say so.
ENDED: Sequence[tuple[str, Sequence[Event], Sequence[str]]] = (
    ("stopped", [Done("stopped")], ("■ stopped", "○ idle")),
    ("failed", [Done("failed", error=stories.OUT_OF_MEMORY)], ("✗ FAILED", "The card is full; L says why", "[3 ⚠ Re")),
    ("crashed", [], ("✗ CRASHED", "r goes on with it, L shows its log", "[3 ⚠ Reward]")),
    ("finished", [Done("finished")], ("✓ finished", "[3 ✓ Reward]")),
)
#: What else a finished project shows, by the keys that lead there.
SHOWN: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
    ("the marks of the stages", ("4",), ("1 ✓ Model", "[4 ✓ PPO]", "○ idle")),
    ("the row under the cursor", ("1",), ("▶ SmolLM2-135M", "in use", "✓ fits")),
    ("the chosen form", ("6",), ("(•) merged model", "( ) LoRA adapter")),
    ("the lit chart", ("4", "tab"), ("▶ score",)),
    ("the best update in a chart", ("4",), ("best",)),
    ("the best checkpoint", ("4", "k"), ("✓ the best so far",)),
    ("the best policy on held-out prompts", ("4", "h"), ("★ the best policy",)),
    ("levels of alerts", ("4", "w"), ("⚠ warning", "· note", "✗ serious")),
    ("the newest alert", ("4",), ("Kept: update 15",)),
    ("which side is which", ("5",), ("─ before ─", "─ after ─", "✓ The score rose")),
    ("the lit run of the log", ("4", "L"), ("▶ ppo-0003", "✓ finished")),
    ("checks", ("1", "D"), ("✓ ok", "· note", "✗ problem", "▶ ✗ problem  bitsandbytes")),
    ("the lit setting", ("4", "e"), ("▶ updates",)),
    ("a chat that is not loaded", ("4", "t"), ("○ not loaded",)),
)
ALERTS = [
    Alert("note", "n", "A note", "Why.", "Nothing."),
    stories.LEASH,
    Alert("stop", "s", "The KL is too high", "Why.", "Lower it."),
]
Drawn = Callable[[str], str]


@pytest.fixture
def still(tmp_path: Path) -> Iterator[StillClock]:
    with standing_still(tmp_path / "home") as clock:
        yield clock


@pytest.fixture
def project(still: StillClock) -> Project:
    return project_here("my-assistant")


@pytest.fixture(params=["glyphs", "ascii"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """What a text looks like on screen, in either way to draw."""
    if request.param == "glyphs":
        return str
    monkeypatch.setenv("RLHF_TUI_ASCII", "1")
    return plain


async def seen(tour: Tour, drawn: Drawn, words: Sequence[str], *keys: str) -> None:
    """Where these keys lead all the words are on screen."""
    text = await tour.shoot("", *keys)
    flat = " ".join(text.replace("│", " ").replace("|", " ").split())  # a sentence may go on in the next line
    missing = [word for word in words if drawn(word) not in text and drawn(word) not in flat]
    assert not missing, f"{missing} is not in\n{text}"
    assert drawn is str or text.isascii(), {sign for sign in text if not sign.isascii()}
    await tour.back()


async def test_a_project_without_anything(project: Project, drawn: Drawn) -> None:
    async with touring(project, (80, 24)) as tour:
        await seen(tour, drawn, ("○ idle", "[1 · Model]", "2 · Pairs"), "1")
        await seen(tour, drawn, ("⚠ no reward model yet", "There is no reward model yet."), "4")
        await seen(tour, drawn, ("There is no tuned model yet.",), "6")
        tour.app.starting = "ppo"  # type: ignore[attr-defined]
        await seen(tour, drawn, ("● starting ppo…",), "4")


async def test_a_run_that_lives(project: Project, drawn: Drawn) -> None:
    for _, bring, words in LIVE:
        with stories.at_work(project, "ppo", stories.tuning(7)) as run:
            bring(run)
            async with touring(project, (80, 24)) as tour:
                await seen(tour, drawn, words, "4")
        stories.tell(run, [Done("finished")])
    with stories.at_work(project, "reward", [Stage(WAITS, "ppo-0004 has it")]) as run:
        (run.control_dir / WAITING).write_text("1")
        async with touring(project, (80, 24)) as tour:
            await seen(tour, drawn, ("○ QUEUED", "waiting for the model · ppo-0004 has it"), "3")


async def test_how_a_run_has_ended(project: Project, drawn: Drawn) -> None:
    stories.give_prompts(project)
    stories.judge(project, 20)
    for _, events, words in ENDED:
        stories.write(project, "reward", [*stories.learning(), *events])
        async with touring(project, (80, 24)) as tour:
            await seen(tour, drawn, words, "3")


async def test_a_download(project: Project, drawn: Drawn) -> None:
    with stories.at_work(project, "download", stories.downloading()):
        async with touring(project, (80, 24)) as tour:
            await seen(tour, drawn, ("● RUNNING download 41M/93M", "─ Download ─", "[1 ▶ Model]"), "1")


async def test_what_a_finished_project_shows(project: Project, drawn: Drawn) -> None:
    stories.finish(project)
    ppo = next(path for path in project.runs.iterdir() if path.name.startswith("ppo"))
    stories.tell(RunFolder(ppo), [*ALERTS, stories.LIFE[3][-1]])
    async with touring(project, (80, 24)) as tour:
        for _, keys, words in SHOWN:
            await seen(tour, drawn, words, *keys)


async def test_judging(project: Project, drawn: Drawn) -> None:
    stories.give_prompts(project)
    async with touring(project, (80, 24)) as tour:
        await seen(tour, drawn, ("─ A ─", "─ B ─", "d A much", "k B much"), "2", "l")
        await seen(tour, drawn, ("─ ▶ A ─", "─ B ─"), "2", "l", "tab")
        await seen(tour, drawn, ("─ A ─", "─ ▶ B ─"), "2", "l", "tab", "tab")


async def test_a_folder_that_is_read_only(project: Project, drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "writable", False)
    async with touring(project, (80, 24)) as tour:
        await seen(tour, drawn, ("my-assistant  read-only",), "1")


async def test_home(project: Project, drawn: Drawn) -> None:
    projects.note(project.root.resolve())
    other = project_here("other")
    projects.note(other.root.resolve())
    with ExitStack() as running:
        run: AbstractContextManager[RunFolder] = stories.at_work(project, "ppo", stories.tuning(7))
        running.enter_context(run)
        os.rename("other", "elsewhere")
        async with touring_home(Path.cwd(), (80, 24)) as tour:
            await seen(tour, drawn, ("● RUNNING ppo-0001 7/40", "▸ ", "✗ its folder is gone", "● 1 run going on"))


async def test_the_lit_line_of_a_list_has_a_sign(text_of: Callable[[App[None]], str]) -> None:
    class Listed(App[None]):
        def compose(self) -> ComposeResult:
            yield Options(*(f"  {number}" for number in range(40)))

    app = Listed()
    async with app.run_test(size=(20, 8)) as pilot:
        for keys, lit in ((["down"], 1), (["down"] * 9, 10), (["end"], 39), (["home"], 0)):
            await pilot.press(*keys)
            await pilot.pause()
            signed = [line.split() for line in text_of(app).splitlines() if "▶" in line]
            assert [words[words.index("▶") + 1] for words in signed] == [str(lit)]
