"""What the tests of the command line share: calling it, projects to call it on, and runs that never ran."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui import verbs
from rlhf_tui.cli import main
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.events import Done, Event, Launch, Progress
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

RESULTS: dict[str, dict[str, Any]] = {
    "generate": {"prompts": 6, "completions": 12, "pairs": 5, "prompts_too_long": 1},
    "reward": {
        "run": "reward-0002",
        "train_pairs": 160,
        "raters": ["demo", "ann"],
        "heldout": {"n": 40, "accuracy": 0.8, "low": 0.652, "high": 0.895, "shorter": 0.7, "longer": 0.3},
        "pairs_too_long": 0,
    },
    "ppo": {"run": "ppo-0003", "updates": 10, "episodes": 320, "prompts_too_long": 0, "ended": "finished"},
    "compare": {
        "prompts": 48,
        "before": {"score": -0.21, "length": 51.4, "eos_rate": 0.5},
        "after": {"score": 0.64, "length": 23.0, "eos_rate": 0.9},
        "difference": 0.85,
        "low": 0.6,
        "high": 1.1,
        "kl": 12.3,
        "kl_low": 11.0,
        "kl_high": 13.6,
    },
    "export": {
        "path": "/somewhere/exports/merged-0005",
        "format": "merged",
        "check": {"kl": 2.5e-6, "top1": 0.995, "positions": 400},
    },
}
RESULTS["demo"] = {kind: {"run": f"{kind}-0001"} | result for kind, result in RESULTS.items()}
RESULTS["download"] = {"model": "o/m", "path": "/cache", "files": 4, "bytes": 105_000_000, "licence": "mit"}


@dataclass(frozen=True)
class Answer:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _own_corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache of this machine, no network, no terminal; the current folder is an empty one."""
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(verbs, "is_terminal", lambda: False)

    def offline(*args: object, **more: object) -> None:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("runs", "list", stdin="")` calls the entry point in this process."""

    def call(*words: str | Path, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["rlhf-tui", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, said.out, said.err)

    return call


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with nothing in it."""
    return create_project(tmp_path / "project")


@pytest.fixture
def prompted(project: Project) -> Project:
    """Four training prompts and two held-out ones, with a pair each that waits for a judgement."""
    with project.store() as store:
        rows = [
            NewPrompt((Message("user", f"Question {i}?\x1b[31m"),), "test", "heldout" if i > 3 else "train")
            for i in range(6)
        ]
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("secret-model", "base")
        for prompt in store.prompts():
            store.add_completions(
                NewCompletion(prompt.id, model, None, f"{text} to {prompt.id}.\x1b]0;title\x07", 5, "eos", k)
                for k, text in enumerate(("Yes, an answer", "No, nothing"))
            )
            store.make_tasks(prompt.id)
    return project


@pytest.fixture
def starter(tmp_path: Path) -> None:
    """The starter model looks as if it were cached."""
    folder = tmp_path / "cache" / "starter-smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


@pytest.fixture
def ready(prompted: Project, starter: None, cli: Cli) -> Project:
    """A project in which every stage could run: labels, and adapters as far as anybody looks without torch."""
    assert cli("label", "--plain", "--project", prompted.root, stdin="f\n" * 6).code == 0
    for role in ("reward", "policy"):
        prompted.adapter(role).mkdir(parents=True)
        (prompted.adapter(role) / "manifest.json").write_text("{}")
    return prompted


def write_run(project: Project, kind: str, events: Sequence[Event], **made: Any) -> RunFolder:
    """A run whose journal holds Launch and these events."""
    run = create_run(project, kind, **made)
    with JournalWriter(run.events_path) as emit:
        emit(Launch(run.name, kind, 1, "box", "0.1"))
        for event in events:
            emit(event)
    return run


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of starting workers: every run finishes at once; their names are collected here."""
    names: list[str] = []

    def launch(project: Project, run: RunFolder) -> None:
        names.append(run.name)
        with JournalWriter(run.events_path) as emit:
            emit(Launch(run.name, run.kind, 1, "box", "0.1"))
            emit(Progress(1, 1, "updates"))
            emit(Done("finished", result=RESULTS[run.kind]))

    monkeypatch.setattr("rlhf_tui.runs.launcher.launch", launch)
    return names


def listing(folder: Path) -> dict[str, str]:
    """Every path under `folder` with a hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def tree() -> Callable[[Path], dict[str, str]]:
    return listing


@pytest.fixture
def fake_run() -> Callable[..., RunFolder]:
    return write_run


@pytest.fixture
def results() -> dict[str, dict[str, Any]]:
    return RESULTS
