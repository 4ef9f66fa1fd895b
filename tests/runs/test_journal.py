"""The journal under real faults: torn tails, short writes, a full disk, replaced files."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.runs.events import Checkpoint, Done, Event, Head, Metric, Progress, Stage
from rlhf_tui.runs.journal import CHUNK, DiskFull, JournalReader, JournalWriter, last_event, last_head, whole_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs the right to mount a small file system")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def written(path: Path, events: list[Event]) -> None:
    with JournalWriter(path) as journal:
        for event in events:
            journal(event)


def read(path: Path) -> list[Event]:
    return [event for _, event in JournalReader(path).read(budget=60)]


def test_ten_thousand_events_are_read_as_written_within_budgets(path: Path) -> None:
    events: list[Event] = [Metric(step, {f"m{i}": step * 0.1 + i for i in range(20)}) for step in range(10_000)]
    written(path, events)
    reader = JournalReader(path)
    got: list[Event] = []
    portions = 0
    while not reader.caught_up:
        got += [event for _, event in reader.read(budget=0.0)]
        portions += 1
    assert got == events
    assert portions > 10, "a budget of nothing must not read everything in one go"
    assert reader.fraction == 1.0
    assert reader.skipped == 0


def test_one_look_without_time_takes_in_a_short_journal_and_says_that_this_was_all(path: Path) -> None:
    written(path, [Stage("a")])
    reader = JournalReader(path)
    assert [event for _, event in reader.read(budget=0.0)] == [Stage("a")]
    assert reader.caught_up


def test_a_tail_torn_at_any_byte_is_skipped_then_healed(path: Path) -> None:
    events: list[Event] = [Progress(1, 3, "é"), Metric(2, {"kl": 0.5})]
    written(path, events)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = [event for end, event in zip(ends, events, strict=True) if end <= cut]
        reader = JournalReader(path)
        assert [event for _, event in reader.read()] == complete
        assert reader.caught_up
        written(path, [Stage("next")])
        # The same reader, which has seen the torn bytes, and a new one agree.
        assert [event for _, event in reader.read()] == [Stage("next")]
        assert read(path) == [*complete, Stage("next")]
        assert (reader.skipped, reader.resets) == (0, 0)


def test_a_line_that_arrives_in_pieces_is_read_once_whole(path: Path) -> None:
    written(path, [Stage("naïve")])
    line = path.read_bytes()
    reader = JournalReader(path)
    for end in range(len(line)):
        path.write_bytes(line[:end])
        assert reader.read() == []
    path.write_bytes(line)
    assert [event for _, event in reader.read()] == [Stage("naïve")]


def test_a_line_longer_than_a_chunk_is_read(path: Path) -> None:
    events: list[Event] = [Stage("a"), Stage("long", "x" * (3 * CHUNK)), Stage("b")]
    written(path, events)
    assert read(path) == events
    written(path, [Done("finished", "y" * (2 * CHUNK))])
    last = last_event(path)
    assert last is not None
    assert last.event == Done("finished", "y" * (2 * CHUNK))


def test_broken_lines_are_counted_and_unknown_types_are_not(path: Path) -> None:
    written(path, [Stage("a")])
    with path.open("ab") as file:
        file.write(b"\0\0\0\n{broken\n\xff\xfe\n" + b'{"v":1,"t":1.0,"type":"hologram"}\n')
    written(path, [Stage("b")])
    reader = JournalReader(path)
    assert [event for _, event in reader.read()] == [Stage("a"), Stage("b")]
    assert reader.skipped == 3


def test_lines_of_a_newer_version_are_read_and_known_as_that(path: Path) -> None:
    assert last_head(path) is None
    path.write_bytes(b'{"v":2,"t":1.0,"type":"stage","name":"a","mood":"good"}\n')
    assert [event for _, event in JournalReader(path).read()] == [Stage("a")]
    assert last_head(path) == Head(2, 1.0, "stage")


@pytest.mark.parametrize(
    ("names", "in_place"), [(["x"], True), (["x"], False), (["FIRST", "SECOND"], False), (["x", "y", "z"] * 9, True)]
)
def test_a_replaced_journal_is_read_from_its_start(
    path: Path, tmp_path: Path, names: list[str], in_place: bool
) -> None:
    """Shorter, longer, or with lines that end where the old ones did."""
    written(path, [Stage("first"), Stage("second")])
    reader = JournalReader(path)
    assert len(reader.read()) == 2
    other = tmp_path / "other.jsonl"
    written(other, [Stage(name) for name in names])
    if in_place:
        path.write_bytes(other.read_bytes())
    else:
        other.replace(path)
    assert [event for _, event in reader.read()] == [Stage(name) for name in names]
    assert reader.resets == 1
    written(path, [Stage("more")])
    assert [event for _, event in reader.read()] == [Stage("more")]


def test_a_missing_journal_reads_as_empty_until_it_appears(path: Path) -> None:
    reader = JournalReader(path)
    assert reader.read() == []
    assert reader.caught_up
    assert last_event(path) is None
    written(path, [Stage("a")])
    assert [event for _, event in reader.read()] == [Stage("a")]


def test_a_short_write_is_taken_back_and_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JournalWriter(path) as journal:
        journal(Stage("before"))
        before = path.read_bytes()
        real = os.write
        with monkeypatch.context() as patch:
            patch.setattr("rlhf_tui.runs.journal.os.write", lambda fd, data: real(fd, data[:19]))
            with pytest.raises(DiskFull):
                journal(Stage("lost"))
        assert path.read_bytes() == before
        journal(Stage("after"))
    assert read(path) == [Stage("before"), Stage("after")]


def test_an_interrupted_short_write_is_healed_by_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def interrupted(fd: int, data: bytes) -> int:
        real(fd, data[:10])
        raise KeyboardInterrupt

    with JournalWriter(path) as journal:
        journal(Stage("before"))
        with monkeypatch.context() as patch:
            patch.setattr("rlhf_tui.runs.journal.os.write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal(Stage("lost"))
        journal(Done("stopped"))
    assert read(path) == [Stage("before"), Done("stopped")]


def test_a_really_full_disk(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 20_000)
    path = small_disk / "events.jsonl"
    with JournalWriter(path) as journal:
        count = 0

        def fill() -> None:
            nonlocal count
            while True:
                journal(Metric(count, {"loss": 1.0}))
                count += 1

        with pytest.raises(DiskFull) as caught:
            fill()
        assert "full" in caught.value.what
        assert caught.value.todo
        assert path.read_bytes().endswith(b"\n")
        assert read(path) == [Metric(step, {"loss": 1.0}) for step in range(count)]
        filler.unlink()
        journal(Stage("room again"))
    assert read(path)[-1] == Stage("room again")
    assert len(read(path)) == count + 1


def test_threads_do_not_mix_their_lines(path: Path) -> None:
    with JournalWriter(path) as journal:

        def work(name: str) -> None:
            for step in range(200):
                journal(Progress(step, 200, name))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    got = read(path)
    for name in "abcd":
        assert [e for e in got if isinstance(e, Progress) and e.unit == name] == [
            Progress(step, 200, name) for step in range(200)
        ]


def test_only_checkpoints_and_done_are_forced_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    monkeypatch.setattr("rlhf_tui.runs.journal.os.fsync", forced.append)
    with JournalWriter(path) as journal:
        journal(Stage("a"))
        assert forced == []
        journal(Checkpoint(1, "step-000001"))
        journal(Done("finished"))
    assert len(forced) == 2


def test_the_journal_is_private_and_an_unwritable_one_is_explained(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, [Stage("a")])
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError) as caught:
        JournalWriter(tmp_path / "absent" / "events.jsonl")
    assert "cannot be written" in caught.value.what


def test_the_last_event_ignores_a_torn_tail_and_a_broken_line(path: Path) -> None:
    written(path, [Stage("a"), Done("finished")])
    with path.open("ab") as file:
        file.write(b'{"v":1,"t":1.0,"ty')
    last = last_event(path)
    assert last is not None
    assert last.event == Done("finished")
    with path.open("ab") as file:
        file.write(b"\n")
    assert last_event(path) is None


def test_the_reader_keeps_up_with_a_live_writer(path: Path, until: Callable[..., None]) -> None:
    reader = JournalReader(path)
    got: list[Event] = []
    writer = threading.Thread(target=written, args=(path, [Progress(step, 3000) for step in range(3000)]))
    writer.start()

    def all_read() -> bool:
        got.extend(event for _, event in reader.read(0.001))
        return len(got) >= 3000

    until(all_read, "all events are read")
    writer.join()
    assert got == [Progress(step, 3000) for step in range(3000)]
    assert reader.skipped == 0


def test_a_reader_may_begin_where_the_next_line_will_start(path: Path) -> None:
    assert whole_size(path) == 0
    written(path, [Stage("a")])
    with path.open("ab") as file:
        file.write(b'{"v":1,"t":17')  # torn: the next writer cuts it
    reader = JournalReader(path, whole_size(path))
    assert reader.read() == []
    written(path, [Stage("b")])
    assert [event for _, event in reader.read()] == [Stage("b")]
    assert reader.skipped == reader.resets == 0
    lost = JournalReader(path, 10_000)  # the journal was replaced by a shorter one
    assert [event for _, event in lost.read()] == [Stage("a"), Stage("b")]
    assert lost.resets == 1
