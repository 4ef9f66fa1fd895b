"""A model folder is data: nothing in it is executed, and what would have to be is refused with the reason."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.locate import cannot_load, locate
from rlhf_tui.model.base import load_base
from rlhf_tui.model.manifest import ADAPTER_FILE, MANIFEST, read_manifest
from rlhf_tui.settings import ModelSettings


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self._path), "w")


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as error:
        load_base(ModelSettings(name=str(folder), quantisation="none"), lambda text: None)
    return error.value


def test_code_that_comes_with_a_model_is_not_run(tiny_copy: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    config = json.loads((tiny_copy / "config.json").read_text())
    own = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modelling_own.Own"}
    (tiny_copy / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
    for name in ("configuration_own.py", "modelling_own.py"):
        (tiny_copy / name).write_text(f"open({str(sprung)!r}, 'w')\n")
    error = refused(tiny_copy)
    assert "brings program code of its own, which is not run" in error.what
    assert not sprung.exists()


def test_pickled_weights_are_not_opened(tiny_copy: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tiny_copy / "model.safetensors").unlink()
    (tiny_copy / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(sprung)))
    error = refused(tiny_copy)
    assert isinstance(error, UsageError)
    assert "no safetensors weights" in error.what
    assert "can run any code" in error.why
    with pytest.raises(UsageError, match="no safetensors weights"):
        locate(str(tiny_copy))  # said before a run is made
    hub = OSError("x does not appear to have a file named m and thus cannot be loaded with `safetensors`.")
    assert cannot_load("owner/model", hub).what == "The model 'owner/model' has no safetensors weights."
    assert not sprung.exists()


def test_a_pickled_adapter_is_not_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(_Trap(sprung)))
    manifest = {"role": "policy", "layout": {}, "files": {}, "facts": {}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{ADAPTER_FILE} is missing"):
        read_manifest(tmp_path, "policy")
    assert not sprung.exists()
