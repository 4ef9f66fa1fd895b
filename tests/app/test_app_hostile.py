"""Texts that want to do something to the terminal, the layout or the reader, wherever a text can come from.

The filter that stands behind all screens (app/harmless.py) is taken away here: what is found was not cleaned where it
came in, where the reader would have been told that something is hidden.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui import settings
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.assessment.records import Report
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt
from rlhf_tui.project import CONFIG, Project, create_project
from rlhf_tui.runs.events import Alert, Checkpoint, Done, Event, Metric, Progress, Sample, Stage
from rlhf_tui.runs.folder import RunFolder

#: A title, a colour, a cursor movement, a bell, an 8-bit sequence, a reordered line, letters nobody sees, markup.
HOSTILE = (
    "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b31m \u202etxt.exe\u202c \u2066iso\u2069 \u200fzero\u200b\ufeff "
    "\U000e0041\U000e0042 [bold]not[/bold] [@click=app.leave]no[/] 漢字 e\u0301\ttab\r\nnext"
)
LONG = "a leash keeps the new model close to the old one. " * 20
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\u200b\U000e0000-\U000e007f]")
#: In an editor also what nobody sees is part of the text.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
SIZES = [(80, 24), (160, 48)]
#: The keys that open what a screen has to say, one window after the other.
WINDOWS = {
    "1": "?",
    "2": "?",
    "3": "?vdb",
    "4": "?shwk",
    "5": "?",
    "6": "?",
}
Hold = Callable[[RunFolder], AbstractContextManager[None]]


@pytest.fixture
def hostile(
    tmp_path: Any,
    write_run: Callable[..., RunFolder],
    write_report: Callable[[Report, RunFolder], None],
    report_of: Callable[..., Report],
) -> Project:
    """A project in which every text that somebody else wrote is hostile."""
    project = create_project(tmp_path / "my \u202eassistant [bold]x[/bold]")
    for key, value in {"model.system_prompt": HOSTILE, "label.guideline": HOSTILE}.items():
        if key in {item.key for item in settings.catalogue()}:
            settings.write(project.root / CONFIG, key, value)
    with project.store() as store:
        rows = [NewPrompt((Message("user", f"{HOSTILE} {i}?"),), HOSTILE) for i in range(10)]
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model(HOSTILE, "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt=HOSTILE)
        for prompt in store.prompts():
            texts = (f"{HOSTILE} first {prompt.id}", f"Another answer altogether, {prompt.id}: {LONG} {HOSTILE}")
            store.add_completions(
                [NewCompletion(prompt.id, model, sampling, text, 9, "stop", n) for n, text in enumerate(texts)]
            )
            store.make_tasks(prompt.id)
        store.set_guideline(HOSTILE)
        rater = store.add_rater(HOSTILE, kind="human", card={"languages": HOSTILE})
        session = store.start_session(rater.id, columns=80, rows=24)
        queue = Queue(store, rater, Rules())
        for _ in range(4):
            offer = queue.next()
            assert offer is not None
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="stacked")
            store.judge(shown.id, prefer(0), latency_ms=4000, note=HOSTILE)
            queue.refresh(offer.task_id, offer.purpose)
    for role in ("reward", "policy"):
        project.adapter(role).mkdir()
        facts = {"facts": {"run": {"reward": "reward-0002", "policy": "ppo-0003"}[role], "reward_run": HOSTILE}}
        (project.adapter(role) / "manifest.json").write_bytes(msgspec.json.encode(facts))
    error = {"what": f"What {HOSTILE}", "why": f"Why {HOSTILE}", "todo": f"Todo {HOSTILE}"}
    sample = Sample(1, HOSTILE, f"{HOSTILE} one", {"score": 0.5}, "generate")
    write_run(
        project, "generate", [Stage(HOSTILE, HOSTILE), sample, Progress(3, 9, HOSTILE), Done("failed", error=error)]
    )
    reward = write_run(
        project,
        "reward",
        [Stage(HOSTILE, HOSTILE), Metric(1, {"loss": 0.6, HOSTILE: 1.0}), Done("finished", message=HOSTILE)],
    )
    write_report(report_of("narrow"), reward)
    moves: list[Event] = [Stage(HOSTILE, HOSTILE), Alert("warning", HOSTILE, f"Message {HOSTILE}", HOSTILE, HOSTILE)]
    for step in range(1, 5):
        moves += [
            Metric(
                step,
                {"score": 0.1 * step, "kl": 1.0 * step, "heldout_score": 0.1, "heldout_root_kl": 1.0, HOSTILE: 2.0},
            ),
            Sample(step, HOSTILE, f"{HOSTILE} {step}", {"score": 0.1}, "policy"),
            Sample(step, HOSTILE, f"{HOSTILE} {step}", {"score": 0.1}, "heldout"),
        ]
    write_run(project, "ppo", [*moves, Checkpoint(4, f"checkpoints/{HOSTILE}", best=True), Done("failed", error=error)])
    sides = [Sample(0, HOSTILE, f"{HOSTILE} {side}", {"score": 0.4}, side) for side in ("before", "after")]
    write_run(project, "compare", [*sides, Done("failed", error=error, message=HOSTILE)])
    result = {"path": f"/models/{HOSTILE}", "format": HOSTILE, "check": {HOSTILE: HOSTILE, "kl": 0.1}}
    export = write_run(project, "export", [Stage(HOSTILE, HOSTILE), Done("finished", message=HOSTILE, result=result)])
    export.log_path.write_bytes(HOSTILE.encode() + b"\xff\xfe" + HOSTILE.encode("utf-16"))
    return project


def lines_of(app: App[Any]) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]


def check(app: App[Any], where: str, never: re.Pattern[str] = OBEYED) -> str:
    """Nothing obeyed or unseen in any line, and every line as wide as the terminal."""
    width = app.size.width
    for line in lines_of(app):
        found = never.search(line)
        assert not found, f"{where}: {found!r} in {line!r}"
        assert cell_len(line) == width, f"{where}: {cell_len(line)} cells in {line!r}"
    return "\n".join(lines_of(app))


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


@asynccontextmanager
async def opened(project: Project, size: tuple[int, int]) -> AsyncIterator[tuple[RlhfApp, Pilot[None]]]:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield app, pilot


@pytest.fixture
def unfiltered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_tui.app.harmless.HarmlessFilter.apply", lambda self, segments, background: segments)


@pytest.mark.usefixtures("unfiltered")
@pytest.mark.parametrize("size", SIZES)
async def test_every_stage_and_its_windows(hostile: Project, size: tuple[int, int]) -> None:
    seen: dict[str, str] = {}
    async with opened(hostile, size) as (app, pilot):
        for stage, windows in WINDOWS.items():
            await pilot.press(stage)
            await settle(pilot)
            seen[stage] = check(app, f"stage {stage}")
            for key in (*windows, "L"):
                await pilot.press("question_mark" if key == "?" else key)
                await settle(pilot)
                seen[stage + key] = check(app, f"stage {stage}, key {key}")
                await pilot.press("escape")
                await settle(pilot)
        await pilot.press("e")
        await settle(pilot)
        seen["e"] = check(app, "settings")
    for name in ("4", "5", "4s"):  # markup is text, and the sequence without its first byte is there to be seen
        assert "[bold]not[/bold]" in seen[name], name
        assert "[31mred" in seen[name], name


@pytest.mark.usefixtures("unfiltered")
async def test_labelling_and_its_windows(hostile: Project) -> None:
    async with opened(hostile, (160, 48)) as (app, pilot):
        await pilot.press("2", "l")
        await settle(pilot)
        shown = check(app, "label")
        assert "[31mred" in shown
        for key in ("m", "D", "f", "v", "z", "z"):
            await pilot.press(key)
            await settle(pilot)
            check(app, f"label, key {key}")
        for key in ("question_mark", "h", "i", "o", "R"):
            await pilot.press(key)
            await settle(pilot)
            check(app, f"label, window {key}")
            await pilot.press("escape")
            await settle(pilot)


async def test_a_text_that_is_edited_stays_as_it_is_and_is_drawn_harmless(hostile: Project) -> None:
    async with opened(hostile, (80, 24)) as (app, pilot):
        await pilot.press("2", "l")
        await settle(pilot)
        for keys in (("g",), ("n",), ("e", "1")):
            await pilot.press(*keys)
            await settle(pilot)
            check(app, f"label, editor {keys}", CONTROLS)
            await pilot.press("escape")
            await settle(pilot)
    with hostile.store() as store:
        guideline = store.guideline()
    assert guideline is not None
    assert guideline.body_md == HOSTILE


@pytest.mark.usefixtures("unfiltered")
async def test_a_run_that_goes_on_and_is_followed(hostile: Project, alive: Hold) -> None:
    for kind, stage in (("ppo", "4"), ("generate", "2"), ("reward", "3")):
        run = next(folder for folder in sorted((hostile.root / "runs").iterdir()) if folder.name.startswith(kind))
        folder = RunFolder(run)
        kept = folder.events_path.read_bytes().splitlines(keepends=True)
        folder.events_path.write_bytes(b"".join(line for line in kept if b'"done"' not in line))
        with alive(folder):
            async with opened(hostile, (80, 24)) as (app, pilot):
                await pilot.press(stage)
                await settle(pilot)
                check(app, f"{kind} live")
