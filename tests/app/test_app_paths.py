"""Completing a half-typed path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlhf_tui.app.paths import as_path, choices


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for name in ("data", "Downloads", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("prompts.txt", "prompts-2.jsonl", "photo.png", "data/a.csv", ".secret.txt"):
        (tmp_path / name).write_text("x")
    return tmp_path


def text_files(name: str) -> bool:
    return name.endswith((".txt", ".jsonl", ".csv"))


def offered(text: str, base: Path) -> tuple[str, ...]:
    return choices(text, base, text_files).names


def test_folders_come_first_and_only_files_that_fit(disk: Path) -> None:
    assert offered("", disk) == ("data/", "Downloads/", "prompts-2.jsonl", "prompts.txt")


def test_the_shared_beginning_is_filled_in(disk: Path) -> None:
    assert choices("pr", disk, text_files).completed == "prompts"
    assert choices("prompts.", disk, text_files).completed == "prompts.txt"
    assert choices("da", disk, text_files).completed == "data/"
    assert choices("data/", disk, text_files).completed == "data/a.csv"
    assert choices("zzz", disk, text_files).completed == "zzz"


def test_capitals_need_not_be_right(disk: Path) -> None:
    assert choices("do", disk, text_files).completed == "Downloads/"
    assert choices("PROMPTS.T", disk, text_files).completed == "prompts.txt"


def test_hidden_entries_need_their_dot(disk: Path) -> None:
    assert offered(".", disk) == (".hidden/", ".secret.txt")


def test_an_entry_is_taken_with_what_was_typed_before_it(disk: Path) -> None:
    assert choices("data/", disk, text_files).taken(0) == "data/a.csv"
    assert choices(f"{disk}/data/a", Path("/"), text_files).taken(0) == f"{disk}/data/a.csv"


def test_home_is_a_tilde(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(disk))
    assert choices("~", Path("/"), text_files).completed == "~/"
    assert choices("~/da", Path("/"), text_files).completed == "~/data/"
    assert as_path("~/data", Path("/")) == disk / "data"
    assert as_path("~nobody-of-that-name/x", Path("/y")) == Path("/y/~nobody-of-that-name/x")


def test_what_cannot_be_read_offers_nothing(disk: Path) -> None:
    assert offered("nowhere/", disk) == ()
    assert offered("prompts.txt/", disk) == ()
    assert offered("a\0b/", disk) == ()


def test_names_that_a_terminal_would_obey_are_left_out(disk: Path) -> None:
    for name in (b"\x1b[31mred.txt", b"two\nlines.txt", b"half\xff.txt"):
        Path(os.fsdecode(os.fsencode(disk) + b"/" + name)).write_text("x")
    assert offered("", disk) == ("data/", "Downloads/", "prompts-2.jsonl", "prompts.txt")
