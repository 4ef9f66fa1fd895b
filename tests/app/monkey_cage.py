"""Where the monkey plays: projects in every state in a folder of their own, with no way out of it.

Workers, the hub, the look at the machine and the user's own folders are replaced; all else is the app itself.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rlhf_tui import projects
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.frame import Frame
from rlhf_tui.app.home import HomeApp
from rlhf_tui.app.themefile import Taste
from rlhf_tui.doctor import Check
from rlhf_tui.errors import UserError
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.events import Done, Launch
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter
from tests.app.conftest import STARTER, SURROUNDINGS, full_report
from tests.app.monkey_acts import Watch, watching
from tests.app.project_states import add_pairs, go_through, judge_all, ppo_events, write_report, write_run

CHECKS = [
    Check("card", "note", "no card"),
    Check("memory", "ok", "16.0 GiB"),
    Check("glyphs", "problem", "none", "Get."),
]
HOSTILE = "\x1b]0;owned\x07\x1b[31mred \u202etxt.exe\u202c [bold]not[/bold] [@click=app.leave]no[/] 漢字\u200b\r\nnext"


class Clock:
    """Seconds that pass only with the keys."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Cage:
    """A folder, what is done in it, and the clock of the app."""

    root: Path
    watch: Watch
    clock: Clock

    @property
    def here(self) -> Path:
        """The folder that the app is started in."""
        return self.root / "here"


@contextmanager
def caged(root: Path) -> Iterator[Cage]:
    """Nothing but `root` can be reached until the block ends."""
    own = {name: str(root / name.lower()) for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    own |= {"HF_HUB_CACHE": str(root / "hub"), "RLHF_TUI_CACHE": str(root / "cache"), "SSH_CONNECTION": "a far place"}
    own |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    starter = root / "cache" / "starter-smollm2-135m-instruct"
    for folder in (*map(Path, own.values()), root / "here", starter):
        if folder.is_absolute():
            folder.mkdir(parents=True, exist_ok=True)
    (starter / "config.json").write_text(json.dumps(STARTER))
    (root / "here" / "prompts.txt").write_text("Why is the sky blue?\nWhat is a leash?\n")
    (root / "here" / "more [bold]\u202e.jsonl").write_text('{"prompt": "One more?"}\nnot json\n')
    kept = {name: value for name, value in os.environ.items() if name not in (*SURROUNDINGS, "HF_HOME")}
    before = Path.cwd()
    platform.processor()  # asks a program, once in a process; a run's record needs it
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {**kept, **own}, clear=True))
        watch = stack.enter_context(watching(root))
        for target, stand_in in _stand_ins(watch).items():
            stack.enter_context(patch(target, stand_in))
        os.chdir(root / "here")
        stack.callback(os.chdir, before)
        yield Cage(root, watch, Clock())


def _stand_ins(watch: Watch) -> Mapping[str, object]:
    """What takes the place of a worker, of the hub and of the look at the machine."""

    def launch(project: Project, run: RunFolder, **_: Any) -> None:
        watch.note("start", run.kind)
        with JournalWriter(run.events_path) as emit:
            emit(Launch(run.name, run.kind, 1, "box", "0.1"))
            emit(Done("stopped"))

    def unreachable(*_: Any, **__: Any) -> None:
        raise UserError("The hub cannot be reached.", why="There is no way out.")

    examined = {f"rlhf_tui.app.screens.{where}.examine": lambda folder: CHECKS for where in ("home", "doctor", "model")}
    return {
        "rlhf_tui.runs.launcher.launch": launch,
        "rlhf_tui.hub.look_up": unreachable,
        "rlhf_tui.preferences.formats.hub.hub_rows": unreachable,
        "rlhf_tui.app.app._PATIENCE": 0.3,
        **examined,
    }


# Projects in every state

Open = Callable[[Cage, Path], Frame[Any]]


@dataclass(frozen=True)
class Scene:
    """A project in some state, and where the app is opened; `alive` names the kinds of runs that go on."""

    name: str
    build: Callable[[Path], object]
    start: str = ""
    alive: Sequence[str] = ()


def _empty(root: Path) -> Project:
    return create_project(root)


def _waiting(root: Path) -> Project:
    project = create_project(root)
    add_pairs(project)
    return project


def _judged(root: Path) -> Project:
    project = _waiting(root)
    judge_all(project, "ann", kind="human")
    return project


def _finished(root: Path) -> Project:
    """Every stage has been through, with a report that has something to say in every part."""
    project = _judged(root)
    go_through(project)
    write_report(full_report(), RunFolder(root / "runs" / "reward-0002"))
    checkpoint = root / "runs" / "ppo-0003" / "checkpoints" / "step-000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    return project


def _running(kind: str) -> Callable[[Path], Project]:
    def build(root: Path) -> Project:
        project = _finished(root)
        write_run(project, kind, ppo_events() if kind == "ppo" else ppo_events()[:40])
        return project

    return build


def _talking(root: Path) -> Project:
    project = _finished(root)
    write_run(project, "chat", [])
    return project


def _shelf(root: Path) -> Project:
    """Three projects on the list of Home: one that is done, one that is empty, and one whose folder is gone."""
    for name, build in (("done", _finished), ("empty", _empty), ("gone [x]", _empty)):
        projects.note(build(root.parent / name).root)
    (root.parent / "gone [x]").rename(root.parent / "elsewhere")
    return Project(root)


def _hostile(root: Path) -> Project:
    project = _judged(root)
    run = create_run(project, "export")
    with JournalWriter(run.events_path) as emit:
        emit(Launch(run.name, "export", 1, HOSTILE, "0.1"))
        emit(Done("failed", message=HOSTILE, error={"what": HOSTILE, "why": HOSTILE}))
    return project


SCENES = (
    Scene("finished", _finished, "reward"),
    Scene("waiting", _waiting, "label"),
    Scene("first", lambda root: None, "home"),
    Scene("running ppo", _running("ppo"), "ppo", ("ppo",)),
    Scene("empty", _empty, "model"),
    Scene("talking", _talking, "pairs", ("chat",)),
    Scene("shelf", _shelf, "home"),
    Scene("finished, compared", _finished, "compare"),
    Scene("waiting, pairs", _waiting, "pairs"),
    Scene("running reward", _running("reward"), "reward", ("reward",)),
    Scene("finished, ppo", _finished, "ppo"),
    Scene("judged", _judged, "label"),
    Scene("running generate", _running("generate"), "label", ("generate",)),
    Scene("hostile", _hostile, "export"),
)


@contextmanager
def on_stage(scene: Scene, cage: Cage) -> Iterator[Callable[[], Frame[Any]]]:
    """Build the project, hold the locks of what goes on; hands out what opens the app."""
    root = cage.here / "my-assistant"
    scene.build(root)
    taste = Taste(file=cage.root / "xdg_config_home" / "theme.toml")

    def opened() -> Frame[Any]:
        if scene.start == "home":
            return HomeApp(cage.here, taste=taste)
        return RlhfApp(Project(root), start=scene.start, taste=taste, clock=cage.clock)

    with ExitStack() as stack:
        for run in sorted((root / "runs").glob("*")) if scene.alive else ():
            if run.name.split("-")[0] in scene.alive and RunFolder(run).done() is None:
                stack.enter_context(RunFolder(run).lock())
        yield opened
