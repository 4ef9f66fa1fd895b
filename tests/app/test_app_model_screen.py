"""Stage 1 as it is used: choose, see whether it fits, lower what does not, ask the hub, download and cancel."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from rlhf_tui import hub, settings
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.overview import Overview
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog
from rlhf_tui.app.screens.model import ModelScreen
from rlhf_tui.app.screens.model_window import ModelWindow
from rlhf_tui.fit import GIB
from rlhf_tui.project import Project
from rlhf_tui.room import Room
from rlhf_tui.runs.events import Done, Progress, Stage
from rlhf_tui.runs.folder import latest
from tests.app.conftest import STARTER
from tests.fakehub import FakeHub, serving

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[None]], str]


async def settle(pilot: Pilot[None]) -> None:
    """Until the threads have told what they found and it is on screen."""
    for _ in range(2):
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()


async def press(pilot: Pilot[None], *pressed: str) -> None:
    for key in pressed:
        await pilot.press(key)
        await settle(pilot)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model in a folder."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(STARTER | {"num_hidden_layers": 2}))
    (folder / "model.safetensors").write_bytes(b"w" * 4096)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine."""
    from huggingface_hub import constants

    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving() as served:
        served.models["o/m"] = {
            "config.json": json.dumps(STARTER).encode(),
            "tokenizer.json": b"{ }",
            "model.safetensors": b"w" * 3_000_000,
        }
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache()))
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served


def set_to(project: Project, key: str, new: object) -> None:
    settings.write(project.config, key, new)


@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_shows_model_memory_checks_and_the_next_key(
    project: Project, size: tuple[int, int], text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert isinstance(app.screen, ModelScreen)
        shown = text_of(app)
        assert "▶ SmolLM2-135M-Instruct" in shown
        assert "cached · in use" in shown
        for stage in ("generate", "reward", "ppo", "compare"):
            assert any(line.startswith(f"│ {stage}") and "✓ fits" in line for line in shown.split("\n"))
        if size[1] > 16:
            assert "✓ ok: memory" in shown
            assert "Press 2, then i to import prompts" in shown
        await press(pilot, "enter")
        assert app.current_mode == "pairs"


async def test_a_folder_is_browsed_to_and_becomes_the_model(project: Project, tiny: Path, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "down", "enter")
        assert isinstance(app.screen, ModelWindow)
        app.screen.query_one(Input).value = f"{tiny.parent}/t"
        await press(pilot, "tab")
        assert app.screen.query_one(Input).value == f"{tiny}/"
        assert "a model folder" in text_of(app)
        await press(pilot, "enter")
        assert project.settings().model.name == str(tiny)
        shown = text_of(app)
        assert "▶ tiny" in shown
        assert "folder · in use" in shown
        assert "mit" in shown
        shutil.rmtree(tiny)
        await press(pilot, "2", "1")
        assert "gone · in use" in text_of(app)
        await press(pilot, "enter")
        assert isinstance(app.screen, TextDialog)


async def test_a_name_that_is_no_model_is_not_taken(project: Project, text_of: TextOf) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "slash", *"nonsense", "enter")
        assert isinstance(app.screen, ModelWindow)
        assert "There is no model 'nonsense'" in text_of(app)
        await press(pilot, "escape")
        assert project.settings().model.name == "starter"


async def test_adapters_of_the_old_model_are_spoken_of_before_another_is_chosen(
    project: Project, tiny: Path, text_of: TextOf
) -> None:
    project.adapter("policy").mkdir()
    manifest = {"layout": {"base": "HuggingFaceTB/SmolLM2-135M-Instruct"}}
    (project.adapter("policy") / "manifest.json").write_text(json.dumps(manifest))
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for answer, name in (("n", "starter"), ("y", str(tiny))):
            await press(pilot, "slash")
            app.screen.query_one(Input).value = str(tiny)
            await press(pilot, "enter")
            assert isinstance(app.screen, ConfirmDialog)
            assert "policy adapter belongs to" in text_of(app)
            await press(pilot, answer)
            assert project.settings().model.name == name


async def test_the_plan_follows_the_settings_and_f_lowers_them(
    project: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    monkeypatch.setattr("rlhf_tui.app.model_plan.room_for", lambda settings: Room("a card", 2 * GIB, True))
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "Every stage fits." in text_of(app)
        assert "f Make fit" not in text_of(app)
        set_to(project, "ppo.micro_batch_tokens", 8192)
        app.look()
        await settle(pilot)
        assert "✗ ppo" in text_of(app)
        assert "✗ -" in text_of(app)
        assert "f Make fit" in text_of(app)
        await press(pilot, "f")
        assert isinstance(app.screen, ConfirmDialog)
        assert "ppo.micro_batch_tokens" in text_of(app)
        assert "8192 →" in text_of(app)
        assert "Then every stage fits." in text_of(app)
        await press(pilot, "n")
        assert project.settings().ppo.micro_batch_tokens == 8192
        await press(pilot, "f", "y")
        assert project.settings().ppo.micro_batch_tokens < 8192
        assert "Every stage fits." in text_of(app)


@pytest.mark.parametrize(("size", "shown"), [((120, 36), True), ((109, 36), False), ((160, 48), True)])
async def test_where_there_is_room_all_about_the_lit_model_stands_beside_the_list(
    project: Project, size: tuple[int, int], shown: bool, text_of: TextOf
) -> None:
    app = RlhfApp(project)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        assert ("the starter model" in text_of(app)) is shown


async def test_the_hub_is_asked_only_when_the_user_asks(project: Project, fake: FakeHub, text_of: TextOf) -> None:
    set_to(project, "model.name", "o/m")
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "a asks the hub for it" in text_of(app)
        assert "a Ask hub" in text_of(app)
        assert "to download · in use" in text_of(app)
        assert fake.asked == []
        await press(pilot, "a")
        shown = text_of(app)
        assert "Every stage fits." in shown
        assert "partly here · in use" in shown  # its config.json
        assert "3M" in shown
        assert "mit" in shown
        assert fake.sent == ["config.json"]


async def test_a_refusal_of_the_hub_is_told(project: Project, fake: FakeHub, text_of: TextOf) -> None:
    set_to(project, "model.name", "o/other")
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await press(pilot, "a")
        assert isinstance(app.screen, TextDialog)
        assert "no such model" in text_of(app)


async def test_a_download_is_started_watched_and_cancelled(project: Project, fake: FakeHub, text_of: TextOf) -> None:
    """The real worker, from a slow hub on this machine."""
    fake.pace = 300_000
    set_to(project, "model.name", "o/m")
    app = RlhfApp(project)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "⏎ downloads o/m" in text_of(app)
        await press(pilot, "enter")
        run = latest(project, "download")
        assert run is not None
        await until(pilot, lambda: "/3M" in text_of(app))
        assert "● RUNNING download" in text_of(app)
        assert "[1 ▶ Model]" in text_of(app)
        await press(pilot, "full_stop", "y")
        await until(pilot, lambda: "■ stopped" in text_of(app))
        assert run.status() == "stopped"
        assert "partly here · in use" in text_of(app)
        fake.pace = 0
        await press(pilot, "enter")
        await until(pilot, lambda: "cached · in use" in text_of(app))


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.05)
        pilot.app.look()  # type: ignore[attr-defined]


def test_a_download_belongs_to_the_first_stage(project: Project, write_run, alive) -> None:  # type: ignore[no-untyped-def]
    run = write_run(project, "download", [Stage("downloading"), Progress(1, 9, "bytes")])
    with alive(run):
        view = Overview(project)
        view.poll(budget=5)
        assert view.mark("model") == "running"
        assert view.first_stage() == "model"
        assert view.in_the_way("model") is not None
        set_to(project, "run.when_busy", "refuse")
        view.poll(budget=5)
        assert view.in_the_way("ppo") is None
    broken = write_run(project, "download", [Done("failed", "no network")])
    view = Overview(project)
    view.poll(budget=5)
    assert view.run("model").name == broken.name
    assert view.mark("model") == "open"  # the starter is here all the same
    set_to(project, "model.name", "o/m")
    view.poll(budget=5)
    assert view.mark("model") == "broken"


async def test_the_screen_is_there_before_anything_was_looked_at(
    project: Project, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    """Slow disks, drivers and searches hold nobody up."""
    released = threading.Event()

    def slowly(quick: Callable[..., object]) -> Callable[..., object]:
        def slow(*args: object) -> object:
            released.wait(30)
            return quick(*args)

        return slow

    for name in ("examine", "models.listed", "planned"):
        whole = f"rlhf_tui.app.screens.model.{name}"
        monkeypatch.setattr(whole, slowly(resolve_name(whole)))
    app = RlhfApp(project)
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            for _ in range(3):
                await pilot.pause()
            shown = text_of(app)
            assert "▶ SmolLM2-135M-Instruct" in shown
            assert "● counting…" in shown
            assert "● looking…" in shown
            await pilot.press("2")
            await pilot.pause()
            assert app.current_mode == "pairs"
            released.set()
            await app.workers.wait_for_complete()
    finally:
        released.set()
