"""Peaks belong to their phase: a large one is not counted again in what comes after it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf_tui.training import memory

CPU = torch.device("cpu")
MIB = 2**20

needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux sets peaks back")


def hold(size: int) -> None:
    """Have `size` bytes in memory for a moment."""
    torch.ones(size, dtype=torch.uint8)


@needs_linux
def test_a_peak_is_that_since_the_last_measurement() -> None:
    before = memory.measure("before", CPU)
    hold(200 * MIB)
    large = memory.measure("large", CPU)
    hold(50 * MIB)
    small = memory.measure("small", CPU)
    assert (large.phase, small.phase) == ("large", "small")
    assert large.peak_rss - before.rss > 190 * MIB
    assert 40 * MIB < small.peak_rss - large.rss < 100 * MIB
    assert (large.device, large.peak_device) == (0, 0)


@needs_linux
def test_the_peak_of_the_process_is_not_forgotten() -> None:
    hold(300 * MIB)
    large = memory.measure("large", CPU).peak_rss
    assert memory.measure("after", CPU).peak_rss < large - 100 * MIB
    assert memory.peak_of_process() >= large


def test_where_the_peak_cannot_be_set_back_it_is_the_processs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "either")
    hold(300 * MIB)
    first = memory.measure("first", CPU)
    second = memory.measure("second", CPU)
    assert second.peak_rss >= first.peak_rss - MIB
    assert first.peak_rss >= first.rss > 0


def test_of_a_card_both_peaks_are_told_and_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"memory_allocated": 1, "max_memory_allocated": 5, "max_memory_reserved": 7}
    for name in peaks:
        monkeypatch.setattr(torch.cuda, name, lambda device, name=name: peaks[name])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update(max_memory_reserved=2))
    card = torch.device("cuda")
    assert [memory.measure("update", card).reserved for _ in range(2)] == [7, 2]
    found = memory.measure("update", card)
    assert (found.device, found.peak_device) == (1, 5)
    assert memory.measure("update", CPU).reserved == 0
