"""The verbs of the base model: list, choose and download."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_tui.project import Project
from rlhf_tui.runs.folder import list_runs


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_list_says_where_every_model_is(cli, project: Project) -> None:  # type: ignore[no-untyped-def]
    said = cli("model", "list", "--project", project.root)
    assert said.code == 0
    assert said.out == "starter  135M  89M  apache-2.0  to download · in use\n"
    [row] = json.loads(cli("model", "list", "--project", project.root, "--json").out)
    assert (row["name"], row["state"], row["in_use"], row["here"]) == ("starter", "to download", True, False)


def test_choosing_writes_the_setting_and_says_what_comes_next(cli, project: Project) -> None:  # type: ignore[no-untyped-def]
    said = cli("model", "choose", "owner/model", "--project", project.root)
    assert said.code == 0
    assert "'rlhf-tui model download' fetches it" in said.out
    assert project.settings().model.name == "owner/model"
    assert cli("model", "choose", "nonsense", "--project", project.root).code == 2


def test_adapters_of_another_model_need_a_yes(cli, project: Project) -> None:  # type: ignore[no-untyped-def]
    project.adapter("policy").mkdir()
    (project.adapter("policy") / "manifest.json").write_text('{"layout": {"base": "o/old"}}')
    said = cli("model", "choose", "owner/model", "--project", project.root)
    assert said.code == 2
    assert "The policy adapter belongs to o/old." in said.err
    assert project.settings().model.name == "starter"
    document = json.loads(cli("model", "choose", "owner/model", "--yes", "--json", "--project", project.root).out)
    assert document == {"model": "owner/model", "state": "to download", "adapters_of_another": {"policy": "o/old"}}


def test_a_download_is_a_run(cli, project: Project, launched: list[str]) -> None:  # type: ignore[no-untyped-def]
    said = cli("model", "download", "--project", project.root)
    assert said.code == 0
    assert launched == ["download-0001"]
    assert "is on this machine: 105 MB in /cache" in said.out
    detached = cli("model", "download", "--project", project.root, "--detach", "--json")
    assert json.loads(detached.out)["run"] == "download-0002"


def test_what_is_here_is_not_downloaded(cli, project: Project, starter: None, launched: list[str]) -> None:  # type: ignore[no-untyped-def]
    said = cli("model", "download", "--project", project.root)
    assert said.code == 2
    assert "on this machine already" in said.err
    folder = project.root.parent / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert cli("model", "download", "--project", project.root, "--set", f"model.name={folder}").code == 2
    assert list_runs(project) == []


def test_a_hub_that_cannot_be_reached_leaves_nothing_behind(cli, project: Project) -> None:  # type: ignore[no-untyped-def]
    said = cli("model", "download", "--project", project.root, "--set", "model.name=owner/model")
    assert said.code == 2
    assert "The hub cannot be reached." in said.err
    assert list_runs(project) == []
