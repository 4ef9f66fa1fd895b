"""The verb `bench`: where its run lives, what it says, and the whole of it on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.bench_report import bench_text
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.events import Done, Launch
from rlhf_tui.runs.folder import RunFolder, list_runs
from rlhf_tui.runs.journal import JournalWriter

GIB = 2**30

SIZES = {
    "prompt_tokens": 60,
    "new_tokens": 64,
    "rollout_size": 16,
    "sampling_rows": 16,
    "micro_rows": 4,
    "minibatches": 1,
    "epochs": 4,
}


def speed(phase: str, role: str, tokens: float, share: float, read: float | None = None) -> dict[str, Any]:
    rates = {"phase": phase, "role": role, "rows": 16, "tokens": tokens, "flops": share * 120e9, "own_matmul": 100e9}
    return rates | {"bytes": 0.0, "of_matmul": share, "of_own_matmul": share * 1.2, "of_bandwidth": read}


def phase(name: str, seconds: float, peak: float, planned: float) -> dict[str, Any]:
    return {"phase": name, "seconds": seconds, "share": seconds / 100, "peak": peak * GIB, "planned": planned * GIB}


FOUND = {
    "run": "bench-0001",
    "model": "Some-Model",
    "parameters": 134_500_000,
    "quantisation": "nf4",
    "dtype": "float32",
    "device": "cpu",
    "device_name": "the CPU",
    "threads": 2,
    "sampling_weights": {"chosen": "copy", "seconds": {"quantised": 40.2, "copy": 18.61}},
    "sizes": SIZES,
    "machine": {"matmul": 120e9, "bandwidth": 14.2e9},
    "speeds": [
        speed("prefill", "policy", 480, 0.8),
        speed("decode", "policy", 160.4, 0.35, 0.3),
        speed("update", "value", 130, 0.7),
    ],
    "seconds": 100.0,
    "phases": [phase("sampling", 20, 1.1, 1.21), phase("scoring", 15, 1.2, 1.2), phase("update", 65, 2, 1.9)],
}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """Instead of starting workers: every run has found FOUND at once; the runs are collected here."""
    runs: list[RunFolder] = []

    def launch(project: Project, run: RunFolder) -> None:
        runs.append(run)
        with JournalWriter(run.events_path) as emit:
            emit(Launch(run.name, run.kind, 1, "box", "0.1"))
            emit(Done("finished", result=FOUND))

    monkeypatch.setattr("rlhf_tui.runs.launcher.launch", launch)
    return runs


def test_in_a_project_it_is_a_run_of_the_project(cli, project: Project, starter: None, measured: list) -> None:
    said = cli("bench", "--project", project.root, "--set", "ppo.rollout_size=4", "--json")
    assert said.code == 0, said
    assert json.loads(said.out) == FOUND | {"status": "finished"}
    (run,) = list_runs(project)
    assert (run.kind, run.record.overrides) == ("bench", ("ppo.rollout_size=4",))


def test_without_a_project_nothing_is_left_behind(cli, starter: None, measured: list, tree) -> None:
    here = tree(Path())
    said = cli("bench")
    assert said.code == 0, said
    assert "Some-Model" in said.out
    assert not measured[0].path.exists()
    assert tree(Path()) == here


def test_wrong_use_is_refused_before_anything_is_made(cli, project: Project, starter: None, measured: list) -> None:
    said = cli("bench", "--detach")
    assert (said.code, said.out) == (2, "")
    assert "--project" in said.err
    assert cli("bench", "--project", project.root, "--model", "no such folder").code == 2
    assert cli("bench", "--project", project.root, "--set", "ppo.nonsense=1").code == 2
    assert cli("bench", "--project", project.root / "nowhere").code == 2
    assert (measured, list_runs(project)) == ([], [])


def test_detached_it_says_how_to_watch_it(cli, project: Project, starter: None, measured: list) -> None:
    said = cli("bench", "--project", project.root, "--detach", "--json")
    assert json.loads(said.out)["run"] == "bench-0001"


def test_the_table_fits_a_terminal_and_says_what_was_found() -> None:
    text = bench_text(FOUND)
    assert all(len(line) <= 80 for line in text.splitlines()), max(text.splitlines(), key=len)
    assert "134.5 million parameters, stored as nf4, fp32 products" in text
    assert "120.0 GFLOP/s in matrix products, 14.2 GB/s from memory" in text
    rows = {line[:26].strip(): line.split() for line in text.splitlines()}
    assert rows["decode, 16 rows"][3:] == ["160", "42.0", "GFLOP/s", "35%", "42%"]
    assert rows["update  value"][2:] == ["130", "84.0", "GFLOP/s", "70%", "84%"]
    assert rows["sampling"] == ["sampling", "20.0", "20%", "1.10", "1.21", "+10%"]
    assert rows["update"] == ["update", "65.0", "65%", "2.00", "1.90", "-5%"]
    assert "30% of what memory can give" in text
    assert "An update's sampling: 40.2 s in 4 bits, 18.6 s with a copy, which it uses." in text
    assert "An update's sampling" not in bench_text(
        FOUND | {"sampling_weights": {"chosen": "quantised", "seconds": {}}}
    )
    fast = FOUND | {"machine": {"matmul": 8e14, "bandwidth": 3.3e12}, "device": "cuda", "device_name": "Some Card"}
    assert "800.0 TFLOP/s in matrix products, 3300.0 GB/s" in bench_text(fast)
    assert "threads" not in bench_text(fast)


@pytest.mark.parametrize("layers", [0, 2])
def test_the_whole_bench_on_the_tiny_model(
    layers: int, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.worker import execute
    from rlhf_tui.training import machine

    monkeypatch.setattr(machine, "_SIDE", 64)
    monkeypatch.setattr(machine, "_STREAMED", 2**16)
    settings = (f"adapters.layers={layers}", "adapters.rank=4", "ppo.rollout_size=4", "ppo.max_new_tokens=6")
    more = ("model.max_prompt_tokens=16", "ppo.micro_batch_tokens=64", "ppo.sampling_rows=2", "run.threads=1")
    project = create_project(tmp_path / "project", overrides=(*settings, *more, f"model.name={tiny_folder}"))
    done = execute(project, create_run(project, "bench"))
    assert done.status == "finished", done
    found = json.loads(json.dumps(done.result))
    assert found["sizes"] == SIZES | {
        **{"prompt_tokens": 16, "new_tokens": 6, "rollout_size": 4, "sampling_rows": 2},
        **{"micro_rows": 2, "minibatches": 2, "epochs": 2},
    }
    kinds = [(one["phase"], one["role"]) for one in found["speeds"]]
    shared = [("scoring", "shared layers")] if layers else []
    roles = [("scoring", role) for role in ("policy", "reference", "value", "reward")]
    learning = [("update", "policy"), ("update", "value")]
    assert kinds == [("prefill", "policy"), ("decode", "policy"), *shared, *roles, *learning]
    assert all(one["tokens"] > 0 and one["of_matmul"] > 0 and one["of_own_matmul"] > 0 for one in found["speeds"])
    assert [one["phase"] for one in found["phases"]] == ["sampling", "scoring", "update"]
    assert sum(one["share"] for one in found["phases"]) == pytest.approx(1)
    assert found["sampling_weights"] == {"chosen": "quantised", "seconds": {}}  # nothing to unpack
    assert all(one["peak"] > 0 and one["planned"] > 0 for one in found["phases"])
    assert "One update: 4 completions of 16 + 6 tokens" in bench_text(found)
    assert not any(project.adapters.iterdir())


def test_the_bench_times_a_copy_of_4_bit_weights_and_plans_what_it_took(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.worker import execute
    from rlhf_tui.training import machine, ppo

    monkeypatch.setattr(machine, "_SIDE", 64)
    monkeypatch.setattr(machine, "_STREAMED", 2**16)
    timed = {"quantised": 2.0, "copy": 1.0}
    monkeypatch.setattr(ppo, "projected_seconds", lambda *arguments, weights, **named: timed[weights])
    settings = ("adapters.rank=4", "ppo.rollout_size=4", "ppo.max_new_tokens=8", "model.max_prompt_tokens=16")
    more = ("model.quantisation=nf4", "ppo.sampling_rows=2", "run.threads=1", f"model.name={tiny_folder}")
    project = create_project(tmp_path / "project", overrides=(*settings, *more))
    done = execute(project, create_run(project, "bench"))
    assert done.status == "finished", done
    found = json.loads(json.dumps(done.result))
    assert found["sampling_weights"] == {"chosen": "copy", "seconds": timed}
    copies = {one["phase"]: one["planned_parts"]["copy"] for one in found["phases"]}
    assert copies == {"sampling": 4 * 4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64), "scoring": 0, "update": 0}
