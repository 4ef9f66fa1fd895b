"""A program that runs may be told by, for tests: it writes down what it hears."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any


def program(folder: Path, code: str) -> str:
    """The path of a Python script that can be started."""
    path = folder / "tell me.py"  # with a space
    path.write_text(f"#!{sys.executable} -S\nimport json, os, sys, time\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def keeper(folder: Path) -> str:
    """A program that appends what it was told to `told.jsonl` in the folder that it is started in."""
    return program(
        folder,
        "told = {k: v for k, v in os.environ.items() if k.startswith('RLHF_TUI_')}\n"
        "line = json.dumps({'argv': sys.argv[1:], 'env': told, 'stdin': json.load(sys.stdin)})\n"
        "open('told.jsonl', 'a').write(line + '\\n')",
    )


def told(root: Path) -> list[dict[str, Any]]:
    path = root / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
