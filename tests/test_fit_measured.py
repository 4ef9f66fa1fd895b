"""The memory plan beside what was measured, and the bench that measures it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf_tui.fit import GIB

SCRIPT = Path(__file__).parent / "bench" / "fit_measured.py"


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_fit_measured", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = loaded()


# -- the plan of today ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.name)
def test_the_plan_is_within_15_percent_of_what_was_measured(case: Any) -> None:
    rows = bench.recorded(case)
    assert rows
    allowed = 0.17 if case.name == "many words" else 0.15  # too much is planned for a very large vocabulary
    for row in rows:
        assert abs(row.error) <= allowed, str(row)


def test_only_the_case_that_needs_it_is_allowed_more() -> None:
    worst = {case.name: max(abs(row.error) for row in bench.recorded(case)) for case in bench.CASES}
    assert {name for name, error in worst.items() if error > bench.ALLOWED} == set(bench.LARGER) == {"many words"}


def test_every_case_and_no_other_was_measured() -> None:
    assert set(json.loads(bench.RECORD.read_text())["cases"]) == {case.name for case in bench.CASES}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux sets peaks back")
def test_the_plan_is_within_15_percent_of_an_update_measured_now(tiny_folder: Path) -> None:
    """So large that what is kept for the backward pass is a third of it, and not only the process itself."""
    sizes = ("ppo.micro_batch_tokens=15872", "ppo.rollout_size=128", "ppo.sampling_rows=128")
    program = (
        f"import json, sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from pathlib import Path; from fit_measured import Case, carried_out\n"
        f"print(json.dumps(carried_out(Case('tiny', 'ppo', {tiny_folder.name!r}, {sizes!r}), "
        f"Path({str(tiny_folder.parent)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"sampling", "scoring", "update"}
    update = found["update"]
    assert update["parts"]["activations"] > 0.2 * update["planned"]
    assert update["planned"] == pytest.approx(update["measured"], rel=0.15)


# -- the bench ------------------------------------------------------------------------------------


def ended(monkeypatch: pytest.MonkeyPatch, outcomes: list[Any], *arguments: str) -> int:
    """The bench's exit status when its cases end so: phases with planned and measured GiB, or what was said last."""
    waiting = iter(outcomes)

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        outcome = next(waiting)
        if isinstance(outcome, str):
            return subprocess.CompletedProcess(command, 1, "", outcome)
        phases = {
            phase: {"planned": planned * GIB, "measured": measured * GIB}
            for phase, (planned, measured) in outcome.items()
        }
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(phases)}\n", "")

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    status = bench.main()
    assert next(waiting, None) is None
    assert isinstance(status, int)
    return status


GOOD = {"sampling": (1.0, 0.9), "update": (2.0, 2.1)}


def test_cases_that_are_near_their_plan_end_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, [GOOD], "--only", "rank 64") == 0
    assert "OFF" not in capsys.readouterr().out
    assert ended(monkeypatch, [{"scoring": (1.16, 1.0)}], "--only", "many words") == 0
    assert "0 of 1 phases off, 0 cases crashed" in capsys.readouterr().err


@pytest.mark.parametrize("planned", [1.16, 0.84])
def test_a_phase_that_is_further_off_is_shown_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], planned: float
) -> None:
    assert ended(monkeypatch, [GOOD | {"scoring": (planned, 1.0)}], "--only", "rank 64") == 1
    told = capsys.readouterr()
    assert [line.endswith("OFF by over 15%") for line in told.out.splitlines()[1:]] == [False, False, True]
    assert "1 of 3 phases off" in told.err


@pytest.mark.parametrize(("said", "shown"), [("Traceback\nValueError: no", "ValueError: no"), ("", "exit status 1")])
def test_a_case_that_crashes_is_shown_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, shown: str
) -> None:
    assert ended(monkeypatch, [said], "--only", "rank 64") == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split(maxsplit=2)[2] == f"CRASHED: {shown}"
    assert "1 cases crashed" in told.err
    assert ended(monkeypatch, [said], "--only", "rank 64", "--json") == 1
    assert json.loads(capsys.readouterr().out)["crashed"] == shown


def test_what_is_measured_of_all_cases_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, copy = bench.RECORD.read_text(), tmp_path / "record.json"
    copy.write_text(before)
    monkeypatch.setattr(bench, "RECORD", copy)
    rows = [row for case in bench.CASES for row in bench.recorded(case)]
    bench.write_record(json.loads(before)["machine"], rows)
    assert copy.read_text() == before
    monkeypatch.setattr(bench, "CASES", bench.CASES[:2])
    ended(monkeypatch, [GOOD, "no"], "--record", "an abacus")
    assert copy.read_text() == before
    assert ended(monkeypatch, [GOOD, GOOD], "--record", "an abacus") == 0
    after = json.loads(copy.read_text())
    assert after["machine"] == "an abacus"
    assert after["cases"] == {case.name: {"sampling": 0.9, "update": 2.1} for case in bench.CASES}
    with pytest.raises(SystemExit):
        ended(monkeypatch, [], "--record", "an abacus", "--only", "rank 64")
