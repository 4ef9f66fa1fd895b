"""Copying: which way is taken where, what is told, and what is in the file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot

from rlhf_tui.app import copying
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.project import Project

LOCAL = {"TERM": "xterm", "DISPLAY": ":0"}
FAR = {"TERM": "xterm", "DISPLAY": ":10", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}


@pytest.mark.parametrize(
    ("environ", "programs"),
    [
        (LOCAL, ["xclip", "xsel", "pbcopy", "clip.exe"]),
        (LOCAL | {"WAYLAND_DISPLAY": "wayland-0"}, ["wl-copy", "xclip", "xsel", "pbcopy", "clip.exe"]),
        (FAR, []),  # an X display that ssh brought along would wait for its other end
        (FAR | {"TMUX": "/tmp/tmux"}, ["tmux"]),
        ({"TERM": "xterm"}, ["pbcopy", "clip.exe"]),
    ],
)
def test_programs_are_asked_only_where_they_reach_the_person(
    environ: Mapping[str, str], programs: Sequence[str]
) -> None:
    assert [command[0] for _, command in copying.ways(environ, lambda name: name)] == programs
    assert copying.ways(environ, lambda name: None) == []


@pytest.mark.parametrize(
    ("environ", "takes"),
    [
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "tmux-256color", "TMUX": "x"}, True),
        ({"TERM": "linux"}, False),
        ({}, False),
        ({"TERM": "screen", "STY": "1.tty"}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, False),
    ],
)
def test_a_terminal_known_not_to_take_a_text_is_not_sent_one(environ: Mapping[str, str], takes: bool) -> None:
    assert copying.takes_osc52(environ) is takes


def test_the_first_program_that_takes_it_is_named_and_no_file_is_written(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def run(command: Sequence[str], text: str) -> bool:
        asked.append((command[0], text))
        return command[0] == "xsel"

    file = tmp_path / "copied.txt"
    told = copying.hand_over("rlhf-tui", LOCAL, asked=False, run=run, there=lambda name: name, file=file)
    assert told == "In the clipboard (xsel)."
    assert asked == [("xclip", "rlhf-tui"), ("xsel", "rlhf-tui")]
    assert not file.exists()


def test_without_a_program_the_text_is_in_a_file_for_the_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "copied.txt"
    told = copying.hand_over("a\nb", FAR, asked=True, there=lambda name: None, file=file)
    assert told == f"Sent to the terminal's clipboard (OSC 52), which not every terminal takes; also in {file}"
    assert file.read_text() == "a\nb"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told = copying.hand_over("c", FAR, asked=False, there=lambda name: None, file=file)
    assert told == f"Written to {file}: nothing here takes a text from a program."
    assert file.read_text() == "c"


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    file = tmp_path / "in the way" / "copied.txt"
    told = copying.hand_over("a", FAR, asked=False, there=lambda name: None, file=file)
    assert told.startswith(f"It could not be written to {file}: ")


def test_a_real_program_gets_the_text_and_one_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in {"xclip": "exec sleep 60", "xsel": f"cat > {tmp_path}/got"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(copying, "PATIENCE_S", 0.2)
    told = copying.hand_over("größer", LOCAL, asked=False)
    assert told == "In the clipboard (xsel)."
    assert (tmp_path / "got").read_text() == "größer"


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def test_y_says_how_the_command_was_copied(finished: Project) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(160, 48)) as pilot:
        await settle(pilot)
        await pilot.press("6", "y")
        await settle(pilot)
        told = [str(toast.message) for toast in app._notifications]
        assert any(re.search(r"rlhf-tui export merged .*\n.*OSC 52.*copied\.txt", text) for text in told)
    assert copying.copied_file().read_text() == app.clipboard


async def test_y_in_a_window_copies_all_of_it_also_what_is_out_of_view(finished: Project) -> None:
    app = RlhfApp(finished)
    async with app.run_test(size=(60, 16)) as pilot:
        await settle(pilot)
        await pilot.press("4", "question_mark")
        await settle(pilot)
        await pilot.press("y")
        await settle(pilot)
        assert app.clipboard.startswith("Keys: PPO\n")
        assert "Hold shift while dragging" in app.clipboard
        assert "[red]" not in app.clipboard
