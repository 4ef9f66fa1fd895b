"""Exporting, whole or not at all: written beside the target and renamed when everything is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.export.card import Facts, model_card
from rlhf_tui.export.merged import Check, check_merged, merged_bytes, write_merged, write_tokenizer
from rlhf_tui.locate import require_disk
from rlhf_tui.model.base import Base
from rlhf_tui.model.manifest import HEAD_FILE, MANIFEST
from rlhf_tui.model.roles import Roles
from rlhf_tui.training.ppo import TrainPrompt

RECORD = "rlhf_tui.json"

# Nats a token between the tuned model and its merge, by what the former computes in. A faithful merge stays below 1e-4
# in fp32, and fp16 adds 3e-5 (measured). bf16, in which cards compute, rounds by 2.2e-3 itself on the starter, and
# int8, which rounds what goes into a layer, by 0.037: there the more is allowed. A merge into other weights than those
# of a 4-bit base is 0.07 to 0.2 away.
KL_LIMITS = {"float32": 1e-3, "float16": 1e-3, "bfloat16": 2e-2, "int8": 0.1}


def export_merged(
    roles: Roles,
    target: Path,
    *,
    dtype: str,
    facts: Facts,
    record: Mapping[str, Any],
    prompts: Sequence[TrainPrompt],
    report: Callable[[str], None],
    boundary: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the merged checkpoint to `target`, check it against the tuned model, and say what was found.

    There is a `boundary` after each tensor and each checked prompt; when it raises, nothing is left.
    Raises UsageError when the disk is too small, UserError when the merged model is not the tuned one.
    """
    require_disk(target.parent, int(1.1 * merged_bytes(roles, dtype)) + 64 * 2**20, "the merged model")
    with beside(target) as folder:
        report("merging")
        write_merged(roles, folder, dtype, report, boundary)
        report("checking the merged model against the tuned one")
        check = check_merged(roles, folder, prompts, boundary)
        _require_same(check, roles.base)
        found = {"format": "merged", "dtype": dtype, "check": asdict(check)}
        _finish(folder, replace(facts, check=asdict(check)), {**record, **found})
    return {"path": str(target)} | found


def _require_same(check: Check, base: Base) -> None:
    """Raise UserError when the merged model is further from the tuned one than rounding explains."""
    computed_in = "int8" if base.quantisation == "int8" else str(base.dtype).removeprefix("torch.")
    if check.kl > (limit := KL_LIMITS[computed_in]):
        raise UserError(
            "The merged model does not answer as the tuned one does.",
            why=f"Their KL is {check.kl:.2g} nats a token; {limit:g} is allowed where the tuned model computes in "
            f"{computed_in}.",
            todo="Export with --set export.dtype=fp32, and report this with the model's name; 'rlhf-tui export "
            "adapter' writes what was trained as it is.",
        )


def export_adapter(roles: Roles, target: Path, *, facts: Facts, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write the policy adapter to `target` as PEFT reads it, with the tokenizer and a card."""
    with beside(target) as folder:
        inner = folder / "adapter"
        roles.save("policy", inner, {})
        for path in inner.iterdir():
            if path.name not in (MANIFEST, HEAD_FILE):
                path.rename(folder / path.name)
        shutil.rmtree(inner)
        write_tokenizer(roles, folder)
        _finish(folder, facts, record)
    return {"path": str(target), "format": "adapter"}


def finished_export(target: Path, run: str) -> dict[str, Any] | None:
    """What the run called `run` said of the export it wrote to `target`; None when that was not this run's work."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        if record["run"] != run:
            return None
        found = {name: record[name] for name in ("format", "dtype", "check") if name in record}
        return {"path": str(target), "policy_run": record["policy"]["run"]} | found
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place at the end, or vanishes when something is raised.

    Raises UserError when `target` exists: an export never overwrites another.
    """
    if target.exists():
        raise UserError(f"{target} exists already.", todo="Choose another folder with --out, or remove it.")
    folder = target.with_name(f".{target.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        os.replace(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _finish(folder: Path, facts: Facts, record: Mapping[str, Any]) -> None:
    """The card and the record; files readable by others, as safetensors' own are not."""
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")
    (folder / RECORD).write_text(json.dumps(dict(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    mask = os.umask(0)
    os.umask(mask)
    for path in (path for path in folder.rglob("*") if path.is_file()):
        path.chmod(0o666 & ~mask)
        with path.open("rb") as file:
            os.fsync(file.fileno())
