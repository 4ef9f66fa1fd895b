"""A window on a large file: it reads what is asked for, follows what is new, and finds what is far away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.runs.paging import Window, search


def plain(line: bytes) -> str:
    return line.decode("utf-8", errors="replace")


def only_odd(line: bytes) -> str | None:
    return plain(line) if line.endswith((b"1", b"3", b"5", b"7", b"9")) else None


def texts(window: Window) -> list[str]:
    return [line.text for line in window.lines]


def never() -> bool:
    return False


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "worker.log"
    path.write_text("".join(f"line {number:04d}\n" for number in range(1000)))
    return path


def test_it_opens_at_the_end_and_holds_little(log: Path) -> None:
    window = Window(log, plain, block=100, most=300)
    assert texts(window)[-1] == "line 0999"
    assert len(window.lines) < 20
    assert window.at_end
    assert not window.at_start


def test_it_can_be_moved_through_the_whole_file_and_back(log: Path) -> None:
    window = Window(log, plain, block=100, most=300)
    seen = texts(window)
    while window.back():
        seen = [text for text in texts(window) if text < seen[0]] + seen
        assert sum(map(len, texts(window))) <= 400
    assert seen == [f"line {number:04d}" for number in range(1000)]
    assert window.at_start
    seen = texts(window)
    while not window.at_end:
        window.on()
        seen += [text for text in texts(window) if text > seen[-1]]
    assert seen == [f"line {number:04d}" for number in range(1000)]


def test_it_reads_only_a_little_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(100 << 20)  # a hole: 100 MB of nothing, then a line
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read.append(size) or pread(fd, size, at))
    window = Window(path, plain)
    assert texts(window)[-1] == "the end"
    window.back()
    window.follow()
    assert sum(read) < 1 << 20


def test_what_is_new_is_followed_and_an_unfinished_line_grows(log: Path) -> None:
    window = Window(log, plain, block=100, most=300)
    assert not window.changed()
    with log.open("a") as file:
        file.write("half")
    assert window.changed()
    window.follow()
    assert texts(window)[-2:] == ["line 0999", "half"]
    with log.open("a") as file:
        file.write(" and whole\nnext\n")
    window.follow()
    assert texts(window)[-3:] == ["line 0999", "half and whole", "next"]
    assert window.at_end
    with log.open("a") as file:
        file.write("more\n" * 1000 + "last\n")
    window.follow()
    assert texts(window)[-1] == "last"
    assert len(window.lines) < 100


def test_a_file_that_is_not_there_or_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    window = Window(path, plain)
    assert (window.lines, window.at_start, window.at_end) == ([], True, True)
    path.write_text("one\ntwo\n")
    window.follow()
    assert texts(window) == ["one", "two"]
    path.write_text("new\n")  # cut
    window.follow()
    assert texts(window) == ["new"]
    other = tmp_path / "other"
    other.write_text("another file\nof more bytes\n")
    other.replace(path)
    window.follow()
    assert texts(window) == ["another file", "of more bytes"]
    path.unlink()
    window.follow()
    assert texts(window) == []


def test_a_line_longer_than_a_block_is_cut_but_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("short\n" + "x" * 950 + "\nend\n")
    window = Window(path, plain, block=100, most=10_000)
    while window.back():
        pass
    assert "".join(texts(window)) == "short" + "x" * 950 + "end"
    assert texts(window)[-1] == "end"


def test_lines_that_are_not_shown_cost_no_room(log: Path) -> None:
    window = Window(log, only_odd, block=100, most=300)
    assert texts(window)[-1] == "line 0999"
    window.around(0)
    assert texts(window)[:2] == ["line 0001", "line 0003"]
    with log.open("a") as file:
        file.write("line 1000\nline 1001")
    window.to_end()
    assert texts(window)[-2:] == ["line 0999", "line 1001"]
    assert window.at_end


def test_it_moves_to_a_place(log: Path) -> None:
    window = Window(log, plain, block=100, most=300)
    window.around(500 * 10)
    assert "line 0500" in texts(window)
    assert "line 0495" in texts(window)
    assert not window.at_end


def test_search_finds_the_nearest_in_either_direction(log: Path) -> None:
    size = log.stat().st_size

    def find(needle: str, at: int, *, backwards: bool) -> int | None:
        return search(log, plain, needle, at, backwards=backwards, stopped=never, block=100)

    assert find("LINE 05", size, backwards=True) == 599 * 10
    assert find("line 05", 599 * 10, backwards=True) == 598 * 10
    assert find("line 05", 500 * 10, backwards=True) is None
    assert find("line 05", 0, backwards=False) == 500 * 10
    assert find("line 05", 500 * 10, backwards=False) == 501 * 10
    assert find("line 05", 599 * 10, backwards=False) is None
    assert find("nowhere", size, backwards=True) is None
    assert search(log.with_name("none"), plain, "x", 5, backwards=True, stopped=never) is None
    assert search(log, plain, "line 0000", size, backwards=True, stopped=lambda: True, block=100) is None
    assert search(log, only_odd, "line 0998", size, backwards=True, stopped=never) is None


@given(st.lists(st.text("ab\r é", max_size=12), max_size=30), st.integers(8, 40), st.integers(8, 80), st.booleans())
def test_walking_back_shows_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[str], block: int, most: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    data = "\n".join(wanted) + ("\n" if ended and wanted else "")
    path.write_bytes(data.encode())
    window = Window(path, plain, block=max(block, 30), most=most)
    seen = {line.offset: line.text for line in window.lines}
    while not window.at_start:
        window.back()
        seen |= {line.offset: line.text for line in window.lines}
    found = [seen[offset] for offset in sorted(seen)]
    expected = data.removesuffix("\n").split("\n") if data else []
    assert found == expected
