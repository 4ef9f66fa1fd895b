"""Home: the projects of this machine, the first steps, a new project by keys, the way to a project and back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

from rlhf_tui import hub, projects
from rlhf_tui.app import session
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.home import Choice, HomeApp
from rlhf_tui.app.screens.dialogs import ConfirmDialog, TextDialog
from rlhf_tui.app.screens.doctor import DoctorScreen
from rlhf_tui.app.screens.first import machine_words
from rlhf_tui.app.screens.home import HomeScreen, ago
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.new_project import NewProjectWindow
from rlhf_tui.doctor import Check
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.runs.events import Progress
from rlhf_tui.runs.folder import RunFolder

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[Any]], str]
Hold = Callable[[RunFolder], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder the app is started in, on a machine where nothing has been opened."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(folder)
    checks = [
        Check("card", "note", "no NVIDIA card"),
        Check("memory", "ok", "16.0 GiB"),
        Check("glyphs", "problem", "none", "Get some."),
    ]
    for where in ("home", "doctor"):
        monkeypatch.setattr(f"rlhf_tui.app.screens.{where}.examine", lambda folder: checks)
    return folder


async def until(pilot: Pilot[Any], what: Callable[[], object]) -> None:
    """Wait until something holds that a thread brings about."""
    for _ in range(500):
        if what():
            break
        await pilot.pause(0.02)
    assert what()
    for _ in range(3):
        await pilot.pause()


def home(app: App[Any]) -> HomeScreen:
    return next(screen for screen in app.screen_stack if isinstance(screen, HomeScreen))


async def looked(pilot: Pilot[Any]) -> None:
    """Home has looked at every project, and at the machine where it does so by itself."""
    await pilot.pause()
    screen = home(pilot.app)
    await until(pilot, lambda: not screen._looking and (not screen.first or screen._checks is not None))


@pytest.fixture
def known(here: Path, write_run: Callable[..., RunFolder]) -> tuple[Project, RunFolder]:
    """Three projects: one with a run, one that is empty, and one whose folder is gone."""
    running, empty = create_project(here / "running"), create_project(here / "empty")
    gone = create_project(here / "gone")
    for project in (gone, empty, running):
        projects.note(project.root)
    shutil.rmtree(gone.root)
    return running, write_run(running, "ppo", [Progress(18, 40, "updates")])


# The list


@pytest.mark.parametrize("size", SIZES)
async def test_every_project_is_shown_with_its_stage_its_run_and_when_it_was_opened(
    known: tuple[Project, RunFolder], alive: Hold, size: tuple[int, int], text_of: TextOf
) -> None:
    app = HomeApp(Path.cwd())
    with alive(known[1]):
        async with app.run_test(size=size) as pilot:
            await looked(pilot)
            shown = text_of(app)
            rows = shown.split("\n")
            assert len(rows) == size[1]
            assert {len(row) for row in rows} == {size[0]}
            assert "▸ running" in shown
            assert "4 PPO" in shown
            assert "● RUNNING ppo-0001 18/40" in shown
            assert "opened just now" in shown
            assert "1 Model" in shown
            assert "1 run going on" in shown
            assert "ppo-0001 is going on" in shown
            await pilot.press("end")
            await pilot.pause()
            assert "✗ its folder is gone" in text_of(app)


@pytest.mark.parametrize("size", SIZES)
async def test_enter_opens_the_lit_one(known: tuple[Project, RunFolder], size: tuple[int, int]) -> None:
    app = HomeApp(Path.cwd())
    async with app.run_test(size=size) as pilot:
        await looked(pilot)
        await pilot.press("down", "enter")
        await pilot.pause()
    assert app.return_value == Choice(open_project(Path("empty")))


async def test_a_look_that_began_before_a_project_was_dropped_does_not_bring_it_back(
    known: tuple[Project, RunFolder], text_of: TextOf
) -> None:
    app = HomeApp(Path.cwd())
    async with app.run_test(size=(160, 48)) as pilot:
        await looked(pilot)
        screen = home(app)
        stale = screen.Seen(screen._listed, screen._glances, screen._drops)
        await pilot.press("x", "y")
        await looked(pilot)
        left = [one.known.path for one in screen._glances]
        assert len(left) == len(stale.glances) - 1
        screen.post_message(stale)
        await pilot.pause()
        assert [one.known.path for one in screen._glances] == left


@pytest.mark.parametrize("size", SIZES)
async def test_one_whose_folder_is_gone_is_dropped_and_not_opened(
    known: tuple[Project, RunFolder], size: tuple[int, int], text_of: TextOf
) -> None:
    app = HomeApp(Path.cwd())
    async with app.run_test(size=size) as pilot:
        await looked(pilot)
        await pilot.press("down", "down", "enter")
        await pilot.pause()
        assert app.is_running
        assert "x takes it off the list" in text_of(app)
        await pilot.press("x")
        await pilot.pause()
        assert "✗ its folder is gone" not in text_of(app)
        await pilot.press("home", "x")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("n")
        for _ in range(2):
            await looked(pilot)  # the list is whole again
            await pilot.press("x")
            await pilot.pause()
            assert isinstance(app.screen, ConfirmDialog)
            await pilot.press("y")
            await pilot.pause()
        await looked(pilot)
        assert "n makes a project, d starts the demo" in text_of(app)
    assert Path("running/rlhf.toml").is_file()
    assert projects.read() == projects.Projects(begun=True)


async def test_a_folder_that_comes_back_is_there_again(here: Path, text_of: TextOf) -> None:
    project = create_project(here / "mine")
    projects.note(project.root)
    project.root.rename(here / "away")
    app = HomeApp(here)
    async with app.run_test() as pilot:
        await looked(pilot)
        assert "its folder is gone" in text_of(app)
        (here / "away").rename(project.root)
        home(app)._look_again()
        await looked(pilot)
        assert "its folder is gone" not in text_of(app)


async def test_a_project_that_cannot_be_read_is_an_error_in_words(here: Path, text_of: TextOf) -> None:
    project = create_project(here / "mine")
    projects.note(project.root)
    app = HomeApp(here)
    async with app.run_test() as pilot:
        await looked(pilot)
        project.database.unlink()
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, TextDialog)
        assert "is not an rlhf-tui project" in " ".join(text_of(app).split())


@pytest.mark.parametrize("size", SIZES)
async def test_help_command_line_log_and_palette(
    known: tuple[Project, RunFolder], alive: Hold, size: tuple[int, int], text_of: TextOf
) -> None:
    app = HomeApp(Path.cwd())
    with alive(known[1]):
        async with app.run_test(size=size) as pilot:
            await looked(pilot)
            await pilot.press("question_mark")
            await pilot.pause()
            assert "Open the lit project." in text_of(app)
            await pilot.press("escape", "y")
            assert app.clipboard == f"rlhf-tui {known[0].root}"
            await pilot.press("L")
            await pilot.pause()
            assert "loading the model" in text_of(app)
            await pilot.press("escape", "down", "L")
            await pilot.pause()
            assert "No run has been started yet." in text_of(app)
            await pilot.press("escape", "end", "L")
            assert "No project is lit whose logs could be shown." in [one.message for one in app._notifications]
            assert {"Open (⏎)", "Theme (T)"} <= {one.title for one in app.get_system_commands(app.screen)}
            await pilot.press("c")
            await until(pilot, lambda: "✗ problem" in text_of(app))
            assert "Get some." in text_of(app)
            assert {"Look again (r)", "Back (esc)"} <= {one.title for one in app.get_system_commands(app.screen)}
            await pilot.press("y")
            assert any(one.message.startswith("rlhf-tui doctor") for one in app._notifications)
            await pilot.press("escape", "2", "3", "pageup", "pagedown")  # these begin nothing here
            assert isinstance(app.screen, HomeScreen)
            await pilot.press("q")
    assert app.return_value is None


async def test_last_opened_in_words() -> None:
    assert [ago(t) for t in (-5, 3, 61, 7300, 90000)] == [
        *("just now", "just now", "1 minute ago", "2 hours ago", "1 day ago")
    ]


# First steps


@pytest.mark.parametrize("size", SIZES)
async def test_the_first_start_shows_three_steps(here: Path, size: tuple[int, int], text_of: TextOf) -> None:
    app = HomeApp(here)
    async with app.run_test(size=size) as pilot:
        await looked(pilot)
        shown = text_of(app)
        for part in ("1  This machine", "Something will not work: glyphs", "2  Something to look at", "3  Five labels"):
            assert part in shown
        assert "93 MB" in shown
        await pilot.press("x", "enter", "1")
        await pilot.pause()
        assert isinstance(app.screen, DoctorScreen)
        assert "1 problem · 1 note" in text_of(app)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "Keys: This machine" in text_of(app)
        await pilot.press("escape", "escape", "question_mark")
        await pilot.pause()
        assert "What this machine can do" in text_of(app)
    assert not any(here.iterdir())


@pytest.mark.parametrize("size", SIZES)
async def test_a_sample_project_is_made_and_its_pairs_are_judged(
    here: Path, size: tuple[int, int], text_of: TextOf
) -> None:
    app = HomeApp(here)
    async with app.run_test(size=size) as pilot:
        await looked(pilot)
        await pilot.press("2")
        await until(pilot, lambda: not home(app)._busy and not home(app)._looking)
        assert home(app).first
        assert "✓ The sample project is ready" in text_of(app)
        await pilot.press("2")
        assert "It is there already" in next(iter(app._notifications)).message
        await pilot.press("3")
        await until(pilot, lambda: app.return_value is not None)
    choice = app.return_value
    assert choice is not None
    assert (choice.project.root, choice.start) == (here / "rlhf-sample", "label")
    assert "f: A, j: B" in choice.greeting
    inside = RlhfApp(choice.project, **choice.how())
    async with inside.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(inside.screen, LabelScreen))
        assert choice.greeting in [one.message for one in inside._notifications]
        await pilot.press("f", "j", "space", "f", "j")
        await pilot.pause()
    with choice.project.store() as store:
        assert {rater.kind for rater in store.judging_raters()} == {"human", "model"}


async def test_what_is_in_the_way_of_the_sample_project_is_said(here: Path, text_of: TextOf) -> None:
    (here / "rlhf-sample").write_text("a file")
    app = HomeApp(here)
    async with app.run_test() as pilot:
        await looked(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        assert "exists and is not empty" in " ".join(text_of(app).split())
        assert not home(app)._busy


def test_a_machine_without_trouble_is_told_so() -> None:
    good = [Check("memory", "ok", "16 GiB")]
    assert "✓ It can do this." in machine_words(good, False).plain
    assert "16 GiB" not in machine_words(good, True).plain
    assert "Looking" in machine_words(None, False).plain


@pytest.mark.parametrize("size", SIZES)
async def test_the_demo_is_asked_for_started_and_followed(
    here: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    launched: list[str] = []
    monkeypatch.setattr("rlhf_tui.runs.launcher.launch", lambda project, run: launched.append(run.name))
    app = HomeApp(here)
    async with app.run_test(size=size) as pilot:
        await looked(pilot)
        await pilot.press("d")
        await pilot.pause()
        assert "See the whole loop" in " ".join(text_of(app).split())
        await pilot.press("n")
        await pilot.pause()
        assert not any(here.iterdir())
        await pilot.press("d", "y")
        await until(pilot, lambda: app.return_value is not None)
    choice = app.return_value
    assert choice is not None
    assert choice.follow is not None
    assert (choice.project.root, launched) == (here / "rlhf-demo", [choice.follow.name])
    again = HomeApp(here)
    async with again.run_test(size=size) as pilot:
        await looked(pilot)
        await pilot.press("d")
        await pilot.pause()
        assert "Open the demo that is in" in " ".join(text_of(again).split())


# A new project


async def at_new(pilot: Pilot[Any]) -> NewProjectWindow:
    await looked(pilot)
    await pilot.press("n")
    await pilot.pause()
    window = pilot.app.screen
    assert isinstance(window, NewProjectWindow)
    await until(pilot, lambda: window._shown())
    return window


@pytest.mark.parametrize("size", SIZES)
async def test_three_enters_make_a_project(here: Path, size: tuple[int, int], text_of: TextOf) -> None:
    app = HomeApp(here)
    async with app.run_test(size=size) as pilot:
        await at_new(pilot)
        shown = text_of(app)
        assert "my-assistant" in shown
        assert "the first run fetches 93 MB" in shown
        assert "✓ 252 questions and tasks, 60 held out" in shown
        assert "Nothing is made or fetched before the last ⏎." in shown
        assert not any(here.iterdir())
        await pilot.press("enter", "enter", "enter")
        await until(pilot, lambda: app.return_value is not None)
    choice = app.return_value
    assert choice is not None
    assert (choice.project.root, choice.start) == (here / "my-assistant", "pairs")
    assert choice.project.settings().model.name == "starter"
    with choice.project.store() as store:
        assert (store.counts().prompts, store.counts().heldout) == (252, 60)
    assert [one.path.name for one in projects.read().known] == ["my-assistant"]


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_typed_is_checked_while_it_is_typed(here: Path, size: tuple[int, int], text_of: TextOf) -> None:
    (here / "full").mkdir()
    (here / "full" / "x").write_text("")
    (here / "a-file").write_text("")
    (here / "bad.jsonl").write_text('{"promt": 1}\n')
    app = HomeApp(here)
    async with app.run_test(size=size) as pilot:
        window = await at_new(pilot)
        for name, typed, told in (
            ("folder", "", "✗ A name is needed."),
            ("folder", "full", "✗ That folder is not empty"),
            ("folder", "a-file", "✗ That is a file."),
            ("folder", "a-file/x", "✗ You may not write to"),
            ("folder", "new/deep", "✓ "),
            ("model", "nonsense", "✗ There is no model 'nonsense'."),
            ("model", "full", "✗ full holds no model."),
            ("model", "owner/model", "✓ fetched from the hub when"),
            ("prompts", "", "· none for now"),
            ("prompts", "a-file", "✗ No such file of prompts"),
        ):
            window.line(name).value = typed
            for _ in range(3):
                await pilot.pause()
            assert told in text_of(app)
        window.line("prompts").value = "bad.jsonl"
        await until(pilot, lambda: window._shown())
        assert "✗ bad.jsonl, line 1 cannot be read." in text_of(app)
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, NewProjectWindow)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)


async def test_the_hubs_cache_and_a_model_folder_need_no_download(here: Path, text_of: TextOf) -> None:
    model = hub.cache() / "models--owner--model"
    for folder in ("refs", "snapshots/1"):
        (model / folder).mkdir(parents=True)
    (model / "refs" / "main").write_text("1")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / "snapshots" / "1" / name).write_text("{}")
    (here / "weights").mkdir()
    (here / "weights" / "config.json").write_text("{}")
    (here / "mine.txt").write_text("Why?\nHow?\n")
    app = HomeApp(here)
    async with app.run_test() as pilot:
        window = await at_new(pilot)
        window.line("model").value = "owner/model"
        await pilot.pause()
        await pilot.pause()
        assert "in the hub's cache" in text_of(app)
        window.line("model").value = ""
        await pilot.press("enter", "w", "tab")  # the folder of weights is completed
        assert window.line("model").value == "weights/"
        await pilot.pause()
        assert "a model folder; nothing is fetched" in text_of(app)
        window.line("prompts").value = ""
        await pilot.press("enter", "m", "tab")
        assert window.line("prompts").value == "mine.txt"
        await pilot.press("enter")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value is not None
    project = app.return_value.project
    assert project.settings().model.name == str(here / "weights")
    with project.store() as store:
        assert store.counts().prompts == 2


async def test_a_project_may_begin_without_prompts_and_a_taken_name_gets_a_number(here: Path) -> None:
    (here / "my-assistant").mkdir()
    app = HomeApp(here)
    async with app.run_test() as pilot:
        window = await at_new(pilot)
        assert window.line("folder").value == "my-assistant-2"
        window.line("prompts").value = ""
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.return_value is not None)
    assert app.return_value is not None
    assert app.return_value.start == ""
    assert "then i, to give it prompts" in app.return_value.greeting


async def test_a_model_that_cannot_be_had_makes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, text_of: TextOf
) -> None:
    app = HomeApp(here)
    async with app.run_test() as pilot:
        window = await at_new(pilot)
        monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 0})())
        await pilot.press("ctrl+s")
        await until(pilot, lambda: window._error)
        assert "✗ Not enough disk space" in text_of(app)
    assert not (here / "my-assistant").exists()


# From Home to a project and back


@pytest.mark.parametrize("size", SIZES)
async def test_H_leaves_a_project_for_home(here: Path, size: tuple[int, int]) -> None:
    app = RlhfApp(create_project(here / "mine"))
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press("H")
        await pilot.pause()
    assert app.going_home
    other = RlhfApp(open_project(here / "mine"))
    async with other.run_test(size=size) as pilot:
        await pilot.press("q")
    assert not other.going_home


def test_a_session_goes_home_until_somebody_leaves(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = create_project(here / "one"), create_project(here / "two")
    choices = [Choice(two, start="label"), Choice(one)]
    opened: list[tuple[str, dict[str, Any]]] = []

    def show(project: Project, **how: Any) -> bool:
        opened.append((project.name, how))
        return len(opened) < 3

    monkeypatch.setattr("rlhf_tui.app.session.run_app", show)
    monkeypatch.setattr("rlhf_tui.app.home.run_home", lambda base: choices.pop(0))
    session.run_session(one, here, start="ppo")
    assert [name for name, _ in opened] == ["one", "two", "one"]
    assert [how["start"] for _, how in opened] == ["ppo", "label", ""]
    assert {one.path.name for one in projects.read().known} == {"one", "two"}
    assert projects.read().begun


def test_leaving_home_ends_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_tui.app.home.run_home", lambda base: None)
    session.run_session(None, here)
    assert not projects.read().begun


async def test_old_entries_are_shown_by_day(here: Path, text_of: TextOf) -> None:
    projects.note(create_project(here / "mine").root)
    tree = json.loads(projects.list_file().read_text())
    tree["projects"][0]["opened"] = time.time() - 3 * 86400 - 60
    projects.list_file().write_text(json.dumps(tree))
    app = HomeApp(here)
    async with app.run_test() as pilot:
        await looked(pilot)
        assert "opened 3 days ago" in text_of(app)
