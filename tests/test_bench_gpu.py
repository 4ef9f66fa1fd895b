"""The bench for cards, tried out without one: every line but those that need CUDA."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parent / "bench" / "gpu.py"
    spec = importlib.util.spec_from_file_location("bench_gpu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_gpu", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "REPEATS", 1)
    return module


def test_a_dry_run_measures_and_shows_everything(gpu: ModuleType) -> None:
    given = gpu.options().parse_args(["--dry-run", "--threads", "1"])
    found = gpu.carried_out(gpu.CASES["tiny"], given)
    assert set(found["phases"]) == {"sampling", "scoring", "update"}
    assert set(found["decode"]) == {"model.generate", "ours", "ours, a copy"}
    assert found["first_deviation"] == 0.0
    assert set(found["sampling_weights"]["seconds"]) == {"quantised", "copy"}
    assert found["alerts"] == []
    text = gpu.table(found)
    for words in ("tiny on cpu", "model.generate", "with an unpacked copy", "an update's sampling", "planned"):
        assert words in text


def test_a_case_that_fails_is_shown_with_what_it_said(gpu: ModuleType) -> None:
    assert gpu.table({"case": "8B", "cap_gib": 12.0, "failed": "out of memory"}).startswith("8B under 12 GiB: FAILED")
