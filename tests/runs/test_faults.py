"""Faults, injected really where that is possible: what is said, what is kept, and that nothing hangs."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rlhf_tui import locate, settings
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.state import Pace
from rlhf_tui.console import ConsoleFollower
from rlhf_tui.errors import DiskError, UsageError, UserError, is_card_lost, is_disk_full, is_out_of_memory
from rlhf_tui.preferences.database import in_plain_words
from rlhf_tui.preferences.records import Message, NewPrompt
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.runs import folder as folder_module
from rlhf_tui.runs import worker
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Done, Launch, Progress
from rlhf_tui.runs.folder import RunFolder, create_run, find, list_runs
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.launcher import follow, launch
from rlhf_tui.runs.preflight import require_ready
from rlhf_tui.runs.worker import execute

Start = Callable[..., RunFolder]
Until = Callable[..., None]
Mount = Callable[..., None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*words: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount a small file system")
    if subprocess.run(["mount", *words], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def read_only(disk: Path) -> Project:
    """A project with a prompt and a finished run, on a disk that has become read-only."""
    project = create_project(disk / "project")
    with project.store() as store:
        add(store, "a prompt")
    ended = create_run(project, "quick")
    with JournalWriter(ended.events_path) as journal:
        journal(Launch(ended.name, "quick", 1, "host", "0"))
        journal(Done("finished", result={"x": 1}))
    _mount("-o", "remount,ro", str(disk))
    return open_project(project.root)


def add(store: Store, prompt: str) -> None:
    store.add_prompts([NewPrompt((Message("user", prompt),), "test")], heldout_fraction=0.5)


def fill(place: Path) -> None:
    """Leave no byte free."""
    with (place / "ballast").open("ab", buffering=0) as file:
        while free(place):
            file.write(b"\0" * min(4096, free(place)))


def free(place: Path) -> int:
    return shutil.disk_usage(place).free


def progress(run: RunFolder) -> int:
    steps = [event.done for _, event in JournalReader(run.events_path).read(60) if isinstance(event, Progress)]
    return steps[-1] if steps else -1


# -- a disk that is read-only, or full ------------------------------------------------------------


def test_a_read_only_project_can_be_looked_at(read_only: Project) -> None:
    assert not read_only.writable
    with read_only.store() as store:
        assert store.counts().prompts == 1
        with pytest.raises(UserError, match="cannot be written") as error:
            add(store, "another one")
    assert "read-only" in error.value.why
    (run,) = list_runs(read_only)
    assert run.status() == "finished"
    assert run.result() == {"x": 1}


def test_nothing_starts_in_a_read_only_project_and_it_says_why(
    read_only: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = list_runs(read_only)
    tries: list[Callable[[], object]] = [
        lambda: require_ready(read_only, "generate", read_only.settings()),
        lambda: launch(read_only, run),
        lambda: execute(read_only, run),
        lambda: create_run(read_only, "quick"),
        lambda: settings.write(read_only.config, "run.seed", 3),
    ]
    for start in tries:
        with pytest.raises(UserError) as error:
            start()
        assert "read-only" in str(error.value).lower(), error.value


def test_changes_that_are_not_in_the_file_yet_are_not_left_out_silently(disk: Path) -> None:
    project = create_project(disk / "project")
    writer = Store.open(project.database)
    add(writer, "only in the log of the database")
    copy = disk / "copy"
    shutil.copytree(project.root, copy, ignore=shutil.ignore_patterns("*-shm"))
    writer.close()
    _mount("-o", "remount,ro", str(disk))
    with pytest.raises(UserError, match="cannot be read where it is") as error:
        Store.open(copy / project.database.name)
    assert "preferences.db-wal" in error.value.why


def test_a_full_disk_is_named_by_the_database_and_nothing_is_lost(disk: Path) -> None:
    project = create_project(disk / "project")
    with project.store() as store:
        add(store, "a prompt")
        fill(disk)
        with pytest.raises(DiskError) as error:
            add(store, "x" * 300_000)
        assert is_disk_full(error.value)
        (disk / "ballast").unlink()
        assert store.counts().prompts == 1
        add(store, "another one")
    fill(disk)
    with pytest.raises(UserError, match=r"rlhf\.toml cannot be written"):
        settings.write(project.config, "run.seed", 3)
    assert project.settings().run.seed == 7
    assert not list(project.root.glob("*.partial"))


# -- a project that is moved, a model that is removed ---------------------------------------------


def test_a_project_that_was_moved_goes_on_in_its_new_place(
    project: Project, stages: str, run: RunFolder, tmp_path: Path
) -> None:
    os.rename(project.root, tmp_path / "elsewhere")
    moved = open_project(tmp_path / "elsewhere")
    assert execute(moved, find(moved, run.name), stages=stages).status == "finished"
    assert str(project.root) not in find(moved, run.name).record_path.read_text()


def test_a_project_moved_under_a_living_run_ends_it_and_says_so_in_the_new_place(
    start: Start, until: Until, project: Project, tmp_path: Path
) -> None:
    run = start("steady")
    until(lambda: progress(run) > 2, "it works")
    os.rename(project.root, tmp_path / "elsewhere")
    moved = find(open_project(tmp_path / "elsewhere"), run.name)
    done = follow(moved, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.error is not None
    assert "is no longer there" in done.error["what"]
    assert "moved" in done.error["why"]
    assert not project.root.exists(), "nothing is written where nobody looks"


def test_a_model_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert locate.locate(str(model)).kind == "folder"
    shutil.rmtree(model)
    with pytest.raises(UsageError, match="is not there") as error:
        locate.locate(str(model))
    assert "Put it back" in error.value.todo
    model.write_text("")
    with pytest.raises(UsageError, match="is not there") as error:
        locate.locate(str(model))
    assert error.value.why == "It is a file."


# -- the card and the memory ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: unspecified launch failure",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "cudaErrorDeviceUnavailable",
        "CUDA error: uncorrectable ECC error encountered",
        "NVML: GPU is lost",
    ],
)
def test_a_lost_card_is_named_with_a_way_out(text: str, run: RunFolder) -> None:
    done = worker._failure(run, RuntimeError(text))
    assert done.cause == "card_lost"
    assert done.error is not None
    assert done.error["what"] == "The graphics card or its driver stopped answering."
    assert text in done.error["why"]
    assert "nvidia-smi" in done.error["todo"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_no_lost_card(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_card_lost(error)


def test_what_a_user_reads_is_not_taken_for_a_fault() -> None:
    told = UserError("x", why="CUDA error: unspecified launch failure; No space left on device")
    assert not any(asks(told) for asks in (is_card_lost, is_disk_full, is_out_of_memory))
    assert not is_card_lost(RuntimeError("CUDA error: device-side assert triggered"))


# -- time, signals, terminals ---------------------------------------------------------------------


def test_a_clock_that_was_set_back_gives_no_negative_times() -> None:
    pace = Pace()
    for at, done in ((1000.0, 1), (1010.0, 2), (400.0, 3), (410.0, 4)):
        pace.add(at, Progress(done, 10, "steps"))
        assert not pace.seconds_each < 0
        assert not pace.left(at) < 0
    assert pace.seconds_each == 10.0
    follower = ConsoleFollower(sys.stderr)
    assert "left" not in follower._progress_text(1000.0, Progress(1, 10, "steps"))
    assert "left" not in follower._progress_text(400.0, Progress(2, 10, "steps"))
    assert "1:10 left" in follower._progress_text(410.0, Progress(3, 10, "steps"))


def test_a_worker_that_was_suspended_goes_on(start: Start, until: Until) -> None:
    run = start("steady")
    until(lambda: progress(run) > 0, "it works")
    os.kill(run.holder().pid, signal.SIGSTOP)
    until(lambda: psutil.Process(run.holder().pid).status() == psutil.STATUS_STOPPED, "it is suspended")
    assert run.status() == "running"
    here = progress(run)
    os.kill(run.holder().pid, signal.SIGCONT)
    until(lambda: progress(run) > here, "it goes on")
    request(run, "stop")
    assert follow(run, lambda stamped: None, poll=0.01) is not None
    assert run.status() == "stopped"


def test_a_follower_whose_terminal_is_gone_ends_and_leaves_the_run_alone(
    start: Start, until: Until, project: Project
) -> None:
    run = start("steady")
    until(lambda: progress(run) > 0, "it works")
    ours, theirs = pty.openpty()
    command = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    command += "import sys; from rlhf_tui.cli import main; main()"
    verb = ["runs", "watch", run.name, "--project", str(project.root)]
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(worker.__file__).parents[2])])
    watching = subprocess.Popen(
        [sys.executable, "-c", command, *verb],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": path},
    )
    os.close(theirs)
    assert os.read(ours, 1), "it shows something"
    os.close(ours)
    try:
        assert watching.wait(60) != 0
    finally:
        watching.kill()
    assert run.status() == "running"


# -- what others may see, and hear ----------------------------------------------------------------


def test_a_project_is_private_whatever_the_umask(tmp_path: Path, stages: str) -> None:
    before = os.umask(0)
    try:
        project = create_project(tmp_path / "project", overrides=["run.seed=3"])
        settings.write(project.config, "run.seed", 4)
        run = create_run(project, "user_error")
        execute(project, run, stages=stages)
        with project.store() as store:
            add(store, "a prompt")
            kept = {path: stat.S_IMODE(path.stat().st_mode) for path in [project.root, *project.root.rglob("*")]}
    finally:
        os.umask(before)
    assert {project.database, project.config, run.events_path, run.log_path, run.lock_path} <= set(kept)
    assert project.database.with_name("preferences.db-wal") in kept
    open_to_others = {path for path, mode in kept.items() if mode & 0o077}
    assert open_to_others == {project.exports}, "the one thing in it that is meant for others"
    assert kept[project.root] == 0o700


@pytest.mark.parametrize(
    ("kind", "options", "private"),
    [
        ("writes", {}, True),
        ("nested", {"child": "writes"}, True),
        ("export", {}, False),
        ("nested", {"child": "export"}, False),
    ],
)
def test_what_a_worker_writes_is_private_unless_it_is_an_export(
    kind: str, options: dict[str, str], private: bool, start: Start, project: Project
) -> None:
    before = os.umask(0o022)
    try:
        run = start(kind, **options)
    finally:
        os.umask(before)
    done = follow(run, lambda stamped: None, poll=0.01)
    assert done is not None
    assert done.status == "finished"
    written = list(project.root.rglob("deep/*.json"))
    assert len(written) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600 if private else 0o644}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in written} == {0o700 if private else 0o755}
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700, "what an export writes there cannot be reached either"


def test_no_worker_listens_on_a_port(start: Start, until: Until) -> None:
    run = start("steady")
    until(lambda: progress(run) > 0, "it works")
    assert psutil.Process(run.holder().pid).net_connections(kind="inet") == []


@pytest.mark.parametrize("code", [sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_SHMLOCK])
def test_so_are_those_that_it_refuses_the_database(code: int, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("locking protocol")
    error.sqlite_errorcode = code
    told = in_plain_words(error, tmp_path / "preferences.db")
    assert told is not None
    assert "cannot be locked" in told.what
    assert "local disk" in told.todo


async def test_the_app_opens_a_read_only_project_says_so_and_listens_on_no_port(read_only: Project) -> None:
    before = psutil.Process().net_connections(kind="inet")
    app = RlhfApp(read_only)
    async with app.run_test() as pilot:
        await pilot.pause()
        assert any("read-only" in note.message for note in app._notifications)
        assert app.overview.counts.prompts == 1
        app.start_stage("pairs", {})
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert len(list_runs(read_only)) == 1
        assert app.starting == ""
        assert psutil.Process().net_connections(kind="inet") == before


def test_locks_that_a_file_system_refuses_are_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folder_module.fcntl, "flock", refused)
    for ask in (run.status, run.lock().__enter__):
        with pytest.raises(UserError, match="cannot be locked") as error:
            ask()
        assert "network file systems" in error.value.why
