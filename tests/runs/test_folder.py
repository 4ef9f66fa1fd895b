"""The run's folder: numbers, record, lock and status."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import Project
from rlhf_tui.runs import folder
from rlhf_tui.runs.events import Done, Event, Launch, Stage
from rlhf_tui.runs.folder import RunBusy, RunFolder, create_run, find, latest, list_runs
from rlhf_tui.runs.journal import JournalWriter
from rlhf_tui.settings import from_tree

LAUNCH = Launch("quick-0001", "quick", 1, "host", "0")


def journal(run: RunFolder, *events: Event) -> None:
    with JournalWriter(run.events_path) as write:
        for event in events:
            write(event)


def test_the_record_holds_everything_needed_to_repeat_the_run(project: Project) -> None:
    run = create_run(
        project,
        "ppo",
        overrides=["adapters.rank=4", "run.seed=11"],
        options={"resume": True},
        parents={"reward": "r-1"},
    )
    record = run.record
    settings = from_tree(record.settings, origin="run.json")
    assert settings == project.settings(["adapters.rank=4", "run.seed=11"])
    assert settings.adapters.rank == 4
    assert record.kind == run.kind == "ppo"
    assert record.seed == 11
    assert record.overrides == ("adapters.rank=4", "run.seed=11")
    assert record.options == {"resume": True}
    assert record.parents == {"reward": "r-1"}
    assert record.versions["msgspec"] == msgspec.__version__
    assert record.versions["python"] == sys.version.split()[0]
    assert record.host["memory"] > 2**20
    with project.store() as store:
        assert record.labels == store.snapshot_hash()


def test_the_record_names_the_runs_that_made_the_adapters_it_reads(project: Project) -> None:
    for role, name in (("reward", "reward-0003"), ("policy", "ppo-0007")):
        project.adapter(role).mkdir(parents=True)
        (project.adapter(role) / "manifest.json").write_text(json.dumps({"facts": {"run": name}}))
    assert create_run(project, "ppo").record.parents == {"reward": "reward-0003"}
    assert create_run(project, "compare").record.parents == {"reward": "reward-0003", "ppo": "ppo-0007"}
    assert create_run(project, "export", parents={"demo": "demo-0001"}).record.parents == {
        "ppo": "ppo-0007",
        "demo": "demo-0001",
    }
    assert create_run(project, "generate").record.parents == {}


@pytest.mark.parametrize("content", ["", "{}", '{"facts": 3}', '{"facts": {"run": "../x"}}', '{"facts": {"run": 5}}'])
def test_a_broken_manifest_names_no_parent(project: Project, content: str) -> None:
    project.adapter("reward").mkdir(parents=True)
    (project.adapter("reward") / "manifest.json").write_text(content)
    assert create_run(project, "ppo").record.parents == {}


def test_files_are_private(run: RunFolder) -> None:
    for path in (run.path, *run.path.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_numbers_run_over_all_kinds_and_sort_as_numbers(project: Project) -> None:
    names = [create_run(project, kind).name for kind in ("reward", "ppo", "generate")]
    assert names == ["reward-0001", "ppo-0002", "generate-0003"]
    (project.runs / "ppo-0002").rename(project.runs / "ppo-9999")
    assert create_run(project, "a").name == "a-10000"
    assert [run.number for run in list_runs(project)] == [1, 3, 9999, 10000]


def test_a_bad_setting_makes_no_folder(project: Project) -> None:
    with pytest.raises(UsageError, match="rank"):
        create_run(project, "ppo", overrides=["adapters.rank=many"])
    assert list(project.runs.iterdir()) == []


def test_a_failed_creation_leaves_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_whole", full)
        with pytest.raises(UserError, match="No space left"):
            create_run(project, "ppo")
    assert list(project.runs.iterdir()) == []
    assert create_run(project, "ppo").name == "ppo-0001"


def test_numbers_are_unique_when_many_are_made_at_once(project: Project) -> None:
    gate = threading.Barrier(8)

    def make(index: int) -> list[int]:
        gate.wait()
        return [create_run(project, f"kind{index}").number for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for made in pool.map(make, range(8)) for number in made]
    assert sorted(numbers) == sorted(set(numbers))
    assert len(list_runs(project)) == 40
    assert all(run.record.kind == run.kind for run in list_runs(project))
    assert not [path for path in project.runs.iterdir() if path.name.startswith(".")]


def test_a_number_won_by_a_faster_process_is_given_up(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has already renamed its claim when ours, made from an older look, succeeds."""
    real = folder._numbers
    looks = 0

    def late(runs: Path, *shapes: object) -> set[int]:
        nonlocal looks
        looks += 1
        if looks == 1:
            seen = real(runs, *shapes)  # type: ignore[arg-type]
            other = runs / "other-0001"
            other.mkdir()
            return seen
        return real(runs, *shapes)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "_numbers", late)
    assert create_run(project, "ppo").name == "ppo-0002"
    assert sorted(path.name for path in project.runs.iterdir()) == ["other-0001", "ppo-0002"]


def test_strange_entries_are_no_runs(project: Project, run: RunFolder) -> None:
    (project.runs / ".0007").mkdir()
    (project.runs / "notes-0005").mkdir()
    (project.runs / "README").write_text("mine")
    assert list_runs(project) == [run]
    # A claim left by a killed process is not taken again.
    assert create_run(project, "ppo").number == 8


def test_find_by_name_by_number_and_with_a_hint(project: Project, run: RunFolder) -> None:
    assert find(project, "quick-0001") == run
    assert find(project, "1") == find(project, "0001") == run
    with pytest.raises(UsageError, match="quick-0001"):
        find(project, "quikc-0001")
    with pytest.raises(UsageError):
        find(project, "../quick-0001")


def test_latest_of_a_kind_and_status(project: Project) -> None:
    first, second, _ = create_run(project, "ppo"), create_run(project, "ppo"), create_run(project, "reward")
    journal(first, LAUNCH, Done("finished"))
    assert latest(project, "ppo") == second
    assert latest(project, "ppo", "finished") == first
    assert latest(project, "ppo", "failed") is None
    assert latest(project, "export") is None


def test_status_follows_lock_and_journal(run: RunFolder) -> None:
    assert run.status() == "new"
    assert run.done() is None
    with run.lock():
        journal(run, LAUNCH)
        assert run.alive
        assert run.status() == "running"
        (run.control_dir / "paused").touch()
        assert run.status() == "paused"
    assert run.status() == "crashed"
    for status in ("finished", "stopped", "failed"):
        journal(run, LAUNCH, Done(status, result={"x": 1}))
        assert run.status() == status
        assert run.result() == {"x": 1}
    # Carried out again: the earlier Done no longer counts.
    journal(run, LAUNCH, Stage("loading"))
    assert run.status() == "crashed"
    assert run.result() == {}


def test_the_lock_holds_across_processes_and_goes_with_its_holder(run: RunFolder) -> None:
    code = (
        "import sys; from pathlib import Path; from rlhf_tui.runs.folder import RunFolder\n"
        f"with RunFolder(Path({str(run.path)!r})).lock(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert run.alive
    with pytest.raises(RunBusy, match="already running"):
        run.lock().__enter__()
    holder.kill()
    holder.communicate()
    assert run.status() == "new"
    with run.lock():
        pass


def test_asking_for_liveness_never_turns_a_worker_away(run: RunFolder) -> None:
    """Readers probe the lock all the time; taking it must succeed nevertheless."""
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            run.status()

    threads = [threading.Thread(target=probe) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            with run.lock():
                assert run.alive
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_reader_who_asks_is_not_taken_for_a_worker(run: RunFolder) -> None:
    with run.lock_path.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert run.status() == "new"


def test_log_tail(run: RunFolder) -> None:
    assert run.log_tail(5) == []
    run.log_path.write_bytes(b"".join(b"line %d\n" % number for number in range(20_000)) + b"\xff torn")
    assert run.log_tail(3) == ["line 19998", "line 19999", "\ufffd torn"]
    assert run.log_tail(0) == []


def test_a_broken_record_is_explained(run: RunFolder) -> None:
    run.record_path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        _ = run.record


def test_fields_of_a_newer_version_in_the_record_are_ignored(run: RunFolder) -> None:
    tree = msgspec.json.decode(run.record_path.read_bytes())
    run.record_path.write_bytes(msgspec.json.encode({**tree, "v": 2, "mood": "good"}))
    assert RunFolder(run.path).record.seed == tree["seed"]
