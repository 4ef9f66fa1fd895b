"""The folder of a run: where its files lie, what it was made with, and how it fares.

    runs/ppo-0007/
        run.json        settings, versions, seeds, parents; written once, when the run is made
        events.jsonl    the journal: one writer (the worker), any number of readers
        worker.log      what the worker and its libraries printed; tracebacks
        lock            locked by the worker for as long as it lives; says who holds or held it
        exit.json       how the worker's process ended, as its watcher saw it
        control/        requests to the worker, and its 'paused' and 'waiting' marks
        checkpoints/
        inputs/         what a PPO run began with, prompts and reward models: a resumed one reads these
        tensorboard/    the same figures as TensorBoard's event files, if run.tensorboard is on

Whether a run lives is asked of the lock, never of a process id: the kernel frees the lock however
the worker dies, and no other process can be mistaken for it.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec

from rlhf_tui import __version__
from rlhf_tui.errors import UsageError, UserError, nearest
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Done
from rlhf_tui.runs.holder import Holder, sign
from rlhf_tui.runs.journal import last_event
from rlhf_tui.runs.versions import RECORD, require_understood

#: 'new': no worker was ever started; 'queued': its worker waits for the model, which another run has.
Status = Literal["new", "queued", "running", "paused", "finished", "stopped", "failed", "crashed"]

PAUSED = "paused"  # in control/: the worker waits to be told to go on
MODEL_LOCK = "model.lock"  # in runs/: locked by the worker that has the model (see `turn`)
INPUTS = "inputs"  # the inputs of a run that has begun, held still
WAITING = "waiting"  # in control/: the worker waits for the model; holds its place in the queue
_NAME = re.compile(r"(?P<kind>[a-z][a-z0-9_]*)-(?P<number>\d{4,})")
#: The adapters that a run of a kind reads.
_READS = {"ppo": ("reward",), "compare": ("reward", "policy"), "chat": ("reward", "policy"), "export": ("policy",)}
_CLAIM = re.compile(r"\.(?P<number>\d{4,})")
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "msgspec")
_LOCK_TRIES, _LOCK_WAIT = 20, 0.025

#: The open lock files of the runs that this process holds, the whole before its parts.
held_locks: dict[Path, int] = {}
#: Those that it was given by the process that it replaced (see `pausing`), until it takes them with `RunFolder.lock`.
inherited_locks: dict[Path, int] = {}


class RunBusy(UserError):
    """A worker already holds this run."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is already running.",
            why="Another worker holds its lock.",
            todo=f"Watch it with 'rlhf-tui runs watch {name}', or stop it with 'rlhf-tui runs stop {name}'.",
        )


class RunRecord(msgspec.Struct, frozen=True):
    """What a run was made with: the content of run.json.

    `created` is a unix time; `settings` the full tree; `overrides` the `--set` texts; `options` what
    the verb was asked beyond the settings; `parents` the runs it builds on, by role; `labels` the
    hash of the judgements at that moment; `host` facts of the machine (memory in bytes).
    """

    kind: str
    created: float
    settings: dict[str, Any]
    overrides: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    parents: dict[str, str] = {}
    versions: dict[str, str] = {}
    host: dict[str, Any] = {}
    seed: int = 0
    labels: str = ""
    v: int = RECORD


@dataclass(frozen=True)
class RunFolder:
    """One run. Holds no open files; cheap to make and to pass around."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def number(self) -> int:
        """Its place among all runs of the project, from 1."""
        return int(self.name.rpartition("-")[2])

    @property
    def record_path(self) -> Path:
        return self.path / "run.json"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log_path(self) -> Path:
        return self.path / "worker.log"

    @property
    def lock_path(self) -> Path:
        return self.path / "lock"

    @property
    def control_dir(self) -> Path:
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @cached_property
    def record(self) -> RunRecord:
        """What the run was made with. Raises UserError when run.json is missing, broken or of a newer version."""
        try:
            return msgspec.json.decode(self.record_path.read_bytes(), type=RunRecord)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            require_understood(self.record_path, self.events_path)  # fields of a newer version may mean other things
            raise UserError(
                f"{self.record_path} cannot be read.",
                why=str(error),
                todo=f"Put it back from a copy, or remove the folder {self.path}.",
            ) from None

    @property
    def alive(self) -> bool:
        """Whether a worker holds the lock at this moment."""
        try:
            fd = os.open(self.lock_path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two readers who ask at once do not take each other for a worker.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            raise no_locks(self.lock_path, error) from None
        finally:
            os.close(fd)
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run, as its worker does. Raises RunBusy when somebody else holds it."""
        fd = inherited_locks.pop(self.path, -1)
        if fd < 0:
            fd = self._claimed()
        held_locks[self.path] = fd
        try:
            sign(fd)
            yield
        finally:
            del held_locks[self.path]
            os.close(fd)

    def _claimed(self) -> int:
        """The lock file, opened and locked."""
        try:
            fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UserError(
                f"{self.name} cannot be locked.", why=str(error), todo="Check the disk and the folder's rights."
            ) from None
        try:
            self._claim(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _claim(self, fd: int) -> None:
        # A reader asking `alive` holds the lock for some microseconds: hence more than one try.
        for _ in range(_LOCK_TRIES):
            try:
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_WAIT)
            except OSError as error:
                raise no_locks(self.lock_path, error) from None
        raise RunBusy(self.name)

    def holder(self) -> Holder:
        """Who holds the lock or held it last, as far as the file says."""
        try:
            return msgspec.json.decode(self.lock_path.read_bytes(), type=Holder)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return Holder()

    def status(self) -> Status:
        """How the run fares. Costs a lock probe and the last line of the journal."""
        # The lock is asked first: a worker writes Done before it lets go, never after.
        if self.alive:
            if (self.control_dir / PAUSED).exists():
                return "paused"
            return "queued" if (self.control_dir / WAITING).exists() else "running"
        if done := self.done():
            return done.status
        return "crashed" if self._began() else "new"

    def done(self) -> Done | None:
        """How the last execution ended; None while it goes on, before it began, and after a crash."""
        last = last_event(self.events_path)
        return last.event if last is not None and isinstance(last.event, Done) else None

    def result(self) -> dict[str, Any]:
        """What the stage returned; empty when there is no such thing."""
        done = self.done()
        return done.result if done is not None else {}

    def log_tail(self, lines: int) -> list[str]:
        """The last `lines` lines of worker.log (at most its last 64 KiB)."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - (1 << 16)))
                text = log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-lines:] if lines > 0 else []

    def _began(self) -> bool:
        try:
            return self.events_path.stat().st_size > 0
        except FileNotFoundError:
            return False


def list_runs(project: Project) -> list[RunFolder]:
    """All runs of the project, oldest first."""
    return runs_in(project.runs)


def runs_in(folder: Path) -> list[RunFolder]:
    """All runs in the folder `runs` of a project, oldest first."""
    found = [RunFolder(path) for path in _entries(folder) if _NAME.fullmatch(path.name)]
    return sorted((run for run in found if run.record_path.exists()), key=lambda run: (run.number, run.name))


def latest(project: Project, kind: str, status: Status | None = None) -> RunFolder | None:
    """The newest run of `kind` (and of `status`, if given), or None."""
    for run in reversed(list_runs(project)):
        if run.kind == kind and (status is None or run.status() == status):
            return run
    return None


def named(runs: Path, name: str) -> RunFolder | None:
    """The run of that exact name in the folder `runs`, if there may be one; the name may come from anywhere."""
    return RunFolder(runs / name) if _NAME.fullmatch(name) else None


def find(project: Project, name: str) -> RunFolder:
    """The run called `name`, or with that number. Raises UsageError, naming the nearest one."""
    runs = {run.name: run for run in list_runs(project)}
    if name in runs:
        return runs[name]
    for run in runs.values():
        if name.isdecimal() and run.number == int(name):
            return run
    raise UsageError(
        f"There is no run {name!r} in this project.",
        why=nearest(name, runs),
        todo="'rlhf-tui runs list' shows all of them." if runs else "It has no runs yet.",
    )


def create_run(
    project: Project,
    kind: str,
    *,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    parents: Mapping[str, str] | None = None,
) -> RunFolder:
    """Make the folder of a new run; it appears whole or not at all, under the project's next number.

    Its record names the runs it builds on, by kind: those that made the adapters it reads, and `parents`.
    Raises UsageError for a bad override, UserError when the folder cannot be written.
    """
    if not _NAME.fullmatch(f"{kind}-0001"):
        raise ValueError(f"{kind!r} is no kind of run")
    settings = project.settings(overrides)
    with project.store() as store:
        labels = store.snapshot_hash()
    record = RunRecord(
        kind=kind,
        created=time.time(),
        settings=settings.model_dump(mode="json"),
        overrides=tuple(overrides),
        options=dict(options or {}),
        parents=makers(project, kind) | dict(parents or {}),
        versions=_versions(),
        host=_host(),
        seed=settings.run.seed,
        labels=labels,
    )
    try:
        return _publish(project.runs, record)
    except OSError as error:
        raise UserError(
            "The folder of the new run cannot be made.", why=str(error), todo="Check the disk and the folder's rights."
        ) from None


def makers(project: Project, kind: str) -> dict[str, str]:
    """The runs whose adapters a run of `kind` reads, as the adapters' manifests say; a broken one says nothing."""
    found: dict[str, str] = {}
    for role in _READS.get(kind, ()):
        try:
            facts = json.loads((project.adapter(role) / "manifest.json").read_text(encoding="utf-8"))["facts"]
            name = _NAME.fullmatch(facts["run"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the run itself says what is wrong with it
        if name:
            found[name["kind"]] = name[0]
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _publish(runs: Path, record: RunRecord) -> RunFolder:
    claim, number = _claim_number(runs)
    try:
        _fill(RunFolder(claim), record)
        run = RunFolder(runs / f"{record.kind}-{number:04d}")
        os.rename(claim, run.path)
    except OSError:
        shutil.rmtree(claim, ignore_errors=True)
        raise
    return run


def _fill(claim: RunFolder, record: RunRecord) -> None:
    claim.control_dir.mkdir(mode=0o700)
    claim.checkpoints.mkdir(mode=0o700)
    os.close(os.open(claim.lock_path, os.O_WRONLY | os.O_CREAT, 0o600))
    write_whole(claim.record_path, msgspec.json.format(msgspec.json.encode(record), indent=2))


def _claim_number(runs: Path) -> tuple[Path, int]:
    """Take the next free number by making the folder `.NNNN`, which becomes the run's folder.

    mkdir decides between two processes that want the same number. One that comes late, when the
    winner has already renamed its folder, sees it by looking again.
    """
    runs.mkdir(mode=0o700, exist_ok=True)
    number = max(_numbers(runs, _NAME, _CLAIM), default=0)
    while True:
        number += 1
        claim = runs / f".{number:04d}"
        try:
            claim.mkdir(mode=0o700)
        except FileExistsError:
            continue
        if number not in _numbers(runs, _NAME):
            return claim, number
        claim.rmdir()


def _numbers(runs: Path, *shapes: re.Pattern[str]) -> set[int]:
    matches = (shape.fullmatch(path.name) for path in _entries(runs) for shape in shapes)
    return {int(match["number"]) for match in matches if match}


def _entries(runs: Path) -> list[Path]:
    return list(runs.iterdir()) if runs.is_dir() else []


def _versions() -> dict[str, str]:
    """Versions of what decides a run's numbers, read from package metadata: torch stays unimported."""
    found = {"rlhf_tui": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _host() -> dict[str, Any]:
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 0,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def no_locks(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be locked.",
        why=f"{error.strerror or error}. Some network file systems have no file locks.",
        todo="Keep the project on a local disk.",
    )
