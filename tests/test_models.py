"""The models of a machine: found in the starter's cache, the hub's cache and folders; choosing one; licences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from rlhf_tui import hub, models
from rlhf_tui.app import model_rows
from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project, create_project
from rlhf_tui.settings import ModelSettings

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def _corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return create_project(tmp_path / "project")


def cached(name: str, **files: str) -> Path:
    """A model in the hub's cache, with blobs and links as its library lays them out."""
    root = hub.cache() / f"models--{name.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for folder in (snapshot, root / "refs", root / "blobs"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    for at, (key, text) in enumerate(files.items()):
        blob = root / "blobs" / f"{at:x}"
        blob.write_text(text)
        file = key.replace("__", "-").replace("_json", ".json").replace("_safetensors", ".safetensors")
        (snapshot / file.replace("_md", ".md")).symlink_to(blob)
    return snapshot


def model_folder(folder: Path, licence: str = "") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    if licence:
        (folder / "LICENSE").write_text(licence)
    return folder


def test_all_models_of_the_machine_are_listed_with_what_is_known_of_them(tmp_path: Path) -> None:
    config = json.dumps(CONFIG)
    head = "---\nlicense: other\nlicense_name: llama3\n---\n"
    cached("o/whole", config_json=config, tokenizer_json="{}", model_safetensors="w" * 5000, README_md=head)
    cached("o/half", config_json=config)
    cached("o/data", other_json="{}")
    mine = model_folder(tmp_path / "mine", "   Apache License\n  Version 2.0")
    found = {one.name: one for one in models.listed(ModelSettings(name=str(mine)))}
    assert list(found) == ["starter", str(mine), "o/half", "o/whole"]
    assert (found["starter"].state, found["starter"].licence) == ("to download", "apache-2.0")
    assert found["starter"].parameters == 134_515_008
    assert (found["o/whole"].state, found["o/whole"].licence) == ("cached", "llama3")
    assert found["o/whole"].here
    assert (found["o/whole"].size or 0) > 5000
    assert found["o/half"].state == "partly here"
    assert found["o/half"].size is None
    assert found["o/half"].licence == ""
    assert (found[str(mine)].state, found[str(mine)].licence) == ("folder", "apache-2.0")
    assert found[str(mine)].parameters == found["o/whole"].parameters


def test_shards_are_whole_when_all_that_the_index_names_are_there() -> None:
    index = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})
    folder = cached("o/parts", config_json="{}", tokenizer_json="{}")
    (folder / hub.INDEX).write_text(index)
    (folder / "model-1-of-2.safetensors").write_text("w")
    assert not hub.is_cached("o/parts")
    (folder / "model-2-of-2.safetensors").write_text("w")
    assert hub.is_cached("o/parts")
    assert not hub.is_cached("o/parts", "v2")
    assert hub.is_cached("o/parts", COMMIT)


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    found = models.find(ModelSettings(name=str(tmp_path / "away")))
    assert (found.state, found.title) == ("gone", "away")
    assert "is not there" in found.problem
    assert not models.is_here(ModelSettings(name=str(tmp_path / "away")))


@pytest.mark.parametrize(
    "name", ["x" * 3000, "/" + "x" * 3000, "~nobody-of-this-name/model", "/\x00"], ids=["long", "deep", "nobody", "nul"]
)
def test_a_name_that_no_folder_can_have_is_said_to_be_gone(name: str) -> None:
    assert models.find(ModelSettings(name=name)).state == "gone"
    assert model_rows.told(name)[0]


def test_the_shape_of_a_hub_model_is_known_once_its_config_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    assert models.shape_here(ModelSettings(name="o/new")) is None
    cached("o/new", config_json=json.dumps(CONFIG))
    shape = models.shape_here(ModelSettings(name="o/new"))
    assert shape is not None
    assert shape.layers == 2
    assert models.find(ModelSettings(name="o/new")).parameters == shape.parameters


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                hub.INDEX,
                "consolidated.safetensors",
            ],
            [hub.INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["model.safetensors", "model-00001-of-00001.safetensors"], ["model.safetensors"]),
        (
            ["onnx/model.onnx", "tokenizer.json", "tokenizer_config.json", "LICENSE.txt", "model.gguf", "x.py"],
            ["LICENSE.txt", "tokenizer.json", "tokenizer_config.json"],
        ),
    ],
)
def test_only_what_loading_needs_is_wanted(names: list[str], wanted: list[str]) -> None:
    assert hub.needed(names) == wanted


def test_choosing_writes_the_name_and_takes_the_old_revision_out(project: Project, tmp_path: Path) -> None:
    project.config.write_text('# mine\n[model]\nname = "o/old"\nrevision = "v1"\n')
    mine = model_folder(tmp_path / "mine")
    assert models.choose(project, str(mine)).model.name == str(mine)
    assert project.settings().model.revision == ""
    assert "# mine" in project.config.read_text()
    with pytest.raises(UsageError, match="There is no model"):
        models.choose(project, "nonsense")
    assert project.settings().model.name == str(mine)
    models.choose(project, "starter")
    assert project.settings().model == ModelSettings()


def test_adapters_of_another_base_are_told(project: Project) -> None:
    for role, base in (("reward", "o/old"), ("policy", "o/old"), ("value", "")):
        project.adapter(role).mkdir()
        layout = {"layout": {"base": base}} if base else {}
        (project.adapter(role) / "manifest.json").write_text(json.dumps(layout))
    assert models.trained_elsewhere(project, "o/old") == {}
    elsewhere = models.trained_elsewhere(project, "starter")
    assert elsewhere == {"reward": "o/old", "policy": "o/old"}
    said = models.belongings(elsewhere, "starter")
    assert "The reward and policy adapters belong to o/old." in said
    assert "refuse" in said


def test_adapters_are_of_roles_that_there_are() -> None:
    """The reward model that only watches is never a project's own."""
    from rlhf_tui.model.roles import Role

    assert set(models.TRAINED) == set(get_args(Role)) - {"gold"}


class GatedRepoError(OSError): ...


def test_errors_of_the_hub_are_told_in_plain_words() -> None:
    assert "agree to terms" in hub.reason("o/m", GatedRepoError("403 …"))[0]
    assert "https://huggingface.co/o/m" in hub.reason("o/m", GatedRepoError("403 …"))[1]
    outer = RuntimeError("could not")
    outer.__cause__ = ConnectionError("no route")
    assert hub.reason("o/m", outer)[0] == "The hub cannot be reached."
    assert hub.reason("o/m", ValueError("odd\nmore"))[0] == "odd"
