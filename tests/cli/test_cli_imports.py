"""What may be imported when: in words (import-linter's contracts) and in fact (processes of their own)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors"}


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has imported after running `code`."""
    told = "print(); print(json.dumps(list(sys.modules)))"
    script = f"import sys, json\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{told}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_help_imports_nothing_that_takes_time() -> None:
    found = modules_after("sys.argv = ['rlhf-tui', '--help']; from rlhf_tui.cli import main; main()")
    assert not found & {*HEAVY, "textual", "pydantic", "numpy", "sqlite3", "rich", "huggingface_hub", "psutil"}
    assert "typer" in found


def test_a_message_about_wrong_use_comes_as_light() -> None:
    found = modules_after("sys.argv = ['rlhf-tui', 'nonsense']; from rlhf_tui.cli import main; main()")
    assert not found & {*HEAVY, "textual", "pydantic"}


@pytest.mark.parametrize(
    "module", ["rlhf_tui.cli", "rlhf_tui.app.app", "rlhf_tui.runs.launcher", "rlhf_tui.console", "rlhf_tui.fit_report"]
)
def test_no_torch(module: str) -> None:
    found = modules_after(f"import {module}")
    assert "rlhf_tui" in found
    assert not found & HEAVY


def test_the_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def test_the_real_process_exits_with_2() -> None:
    done = subprocess.run([sys.executable, "-m", "rlhf_tui", "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("There is no command or project folder 'nonsense'.")
