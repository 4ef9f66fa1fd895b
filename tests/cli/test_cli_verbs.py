"""Every verb: its help, its one JSON document, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from rlhf_tui import __version__, verbs
from rlhf_tui.cli import app
from rlhf_tui.doctor import Check
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.project import Project, open_project
from rlhf_tui.runs.events import Done
from rlhf_tui.runs.folder import list_runs


def verbs_of(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, inner in getattr(command, "commands", {}).items():
        found += verbs_of(inner, (*path, name))
    return found


ALL = verbs_of(typer.main.get_command(app))


def test_the_verbs_are_those_of_the_design() -> None:
    assert {" ".join(path) for path in ALL} >= {
        *("open", "demo", "init", "doctor", "fit", "config show", "config explain", "config set"),
        *("prompts import", "prompts list", "generate", "label", "labels import", "labels export", "labels stats"),
        *("labels merge", "labels raters", "labels rater"),
        *("train reward", "train ppo", "runs list", "runs show", "runs watch", "runs pause", "runs resume"),
        *("runs save", "runs stop", "runs report", "compare", "export adapter", "export merged", "help"),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help(path: tuple[str, ...], cli) -> None:
    said = cli(*path, "--help")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"Usage: rlhf-tui {' '.join(path)}".rstrip())


def test_version(cli) -> None:
    assert cli("--version").out == f"rlhf-tui {__version__}\n"


def document(said: Any) -> Any:
    assert said.code == 0, said
    return json.loads(said.out)


def test_json_of_the_verbs_that_do_not_run_the_model(
    cli, tmp_path: Path, starter: None, fake_run, results: dict[str, Any]
) -> None:
    root = tmp_path / "new"
    here = ("--project", str(root), "--json")
    assert document(cli("init", root, "--json")) == {"project": str(root), "model": "starter"}
    assert document(cli("config", "show", *here))["ppo"]["updates"] == 50
    assert document(cli("config", "explain", "ppo.updates", "--json"))["default"] == 50
    assert document(cli("config", "set", "ppo.updates", "3", *here)) == {"ppo.updates": 3}
    assert document(cli("config", "show", *here))["ppo"]["updates"] == 3
    (tmp_path / "some.txt").write_text("One?\nTwo?\nOne?\n")
    imported = document(cli("prompts", "import", tmp_path / "some.txt", *here))
    assert (imported["added"], imported["duplicates"]) == (2, 1)
    assert [row["text"] for row in document(cli("prompts", "list", *here))] == ["One?", "Two?"]
    row = {"prompt": "One?", "candidates": [{"text": "a"}, {"text": "b"}], "outcome": "ordered", "better": 1}
    tie = {"prompt": "Two?", "candidates": [{"text": "a"}, {"text": "b"}], "outcome": "tie"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(tie) + "\n")
    labels = document(cli("labels", "import", tmp_path / "labels.jsonl", "--rater", "ann", *here))
    assert (labels["pairs"], labels["ties"]) == (1, 1)
    assert document(cli("labels", "stats", *here))["counts"]["judgements"] == 2
    written = document(cli("labels", "export", tmp_path / "out.jsonl", "--format", "trl", *here))
    assert (written["rows"], sum(written["left_out"].values())) == (1, 1)
    assert document(cli("runs", "list", *here)) == []
    project = open_project(root)
    fake_run(project, "ppo", [Done("finished", result=results["ppo"])], overrides=["ppo.updates=10"])
    fake_run(project, "ppo", [])
    assert [run["status"] for run in document(cli("runs", "list", *here))] == ["finished", "crashed"]
    shown = document(cli("runs", "show", "1", *here))
    assert (shown["run"], shown["result"]["updates"], shown["overrides"]) == ("ppo-0001", 10, ["ppo.updates=10"])
    assert document(cli("runs", "watch", "1", *here))["status"] == "finished"
    assert document(cli("runs", "stop", "1", *here)) == {"run": "ppo-0001", "status": "finished", "asked": ""}


def test_json_of_doctor_and_fit(cli) -> None:
    checks = json.loads(cli("doctor", "--json").out)
    assert {"python", "disk"} <= {check["name"] for check in checks}
    planned = document(cli("fit", "--card", "4", "--json"))
    assert planned["room"]["size"] == 4 * 2**30
    assert planned["quantisation"] == "nf4"
    assert [stage["stage"] for stage in planned["stages"]] == ["generate", "reward", "ppo", "compare"]
    assert all(sum(stage["parts"].values()) == stage["peak"] for stage in planned["stages"])


def test_doctor_exits_with_1_when_something_will_not_work(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Check("python", "ok", "3.11.9"), Check("disk", "problem", "full", "Free some.")]
    monkeypatch.setattr("rlhf_tui.doctor.examine", lambda folder: found)
    said = cli("doctor", "--json")
    assert (said.code, said.err) == (1, "")
    assert [check["status"] for check in json.loads(said.out)] == ["ok", "problem"]
    assert "PROBLEM  disk" in cli("doctor").out


def test_fit_says_what_to_lower_and_that_helps(cli) -> None:
    long = ("--set", "ppo.max_new_tokens=2000", "--set", "ppo.rollout_size=8")
    said = cli("fit", "--card", "3", *long).out
    assert "estimated from the settings, not measured" in said
    assert "too much. Set" in said
    stages = document(cli("fit", "--card", "3", "--json", *long))["stages"]
    lower = [setting for stage in stages for setting in stage["lower"]]
    assert lower
    changes = [word for setting in lower for word in ("--set", setting)]
    again = document(cli("fit", "--card", "3", "--json", *long, *changes))["stages"]
    assert all(stage["fits"] for stage in again)


def test_fit_takes_the_project_settings_and_another_model(cli, project: Project, tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(shape | {"vocab_size": 1000}))
    cli("config", "set", "model.quantisation", "none", "--project", project.root)
    found = document(cli("fit", "--model", tmp_path / "tiny", "--card", "4", "--project", project.root, "--json"))
    assert (found["model"], found["quantisation"], found["device"]) == ("tiny", "none", "cuda")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("generate --prompts 2 --per-prompt 3", "generate-0001"),
        ("train reward --set reward.epochs=1", "reward-0001"),
        ("train ppo", "ppo-0001"),
        ("compare", "compare-0001"),
        ("export merged", "export-0001"),
        ("export adapter --out out", "export-0001"),
    ],
)
def test_a_verb_that_runs_the_model(words: str, name: str, cli, ready: Project, launched, results) -> None:
    said = cli(*words.split(), "--project", ready.root, "--json")
    kind = name.rpartition("-")[0]
    assert document(said) == {"run": name, "status": "finished"} | results[kind]
    assert launched == [name]
    assert "[########################] 1/1 updates" in said.err
    assert "\x1b" not in said.err
    again = cli(*words.split(), "--project", ready.root)
    assert again.code == 0
    assert again.out.strip()


def test_options_become_settings_and_options_of_the_run(cli, ready: Project, launched) -> None:
    cli("generate", "--prompts", "2", "--per-prompt", "3", "--set", "run.seed=5", "--project", ready.root)
    cli("export", "adapter", "--out", "out", "--project", ready.root)
    generate, export = list_runs(ready)
    settings = generate.record.settings
    assert (settings["generate"]["prompts"], settings["generate"]["per_prompt"], settings["run"]["seed"]) == (2, 3, 5)
    assert export.record.options == {"format": "adapter", "out": str(Path("out").resolve())}


def test_detached(cli, ready: Project, launched) -> None:
    found = document(cli("train", "reward", "--detach", "--json", "--project", ready.root))
    assert found == {"run": "reward-0001", "path": str(ready.runs / "reward-0001"), "waits_for": ""}


@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_resume_starts_the_worker_again(kind: str, cli, ready: Project, launched, fake_run) -> None:
    fake_run(ready, kind, [Done("stopped")])
    assert document(cli("train", kind, "--resume", "1", "--json", "--project", ready.root))["status"] == "finished"
    assert launched == [f"{kind}-0001"]


def test_resume_takes_no_settings_and_no_run_of_another_kind(cli, ready: Project, launched, fake_run) -> None:
    fake_run(ready, "ppo", [Done("stopped")])
    said = cli("train", "reward", "--resume", "1", "--project", ready.root)
    assert said.code == 2
    assert "ppo-0001 is not a reward run." in said.err
    fake_run(ready, "reward", [Done("stopped")])
    said = cli("train", "reward", "--resume", "2", "--set", "reward.epochs=9", "--project", ready.root)
    assert said.code == 2
    assert "Leave out --set." in said.err
    assert launched == []


def test_a_living_run_is_asked_not_started(cli, ready: Project, launched, fake_run) -> None:
    run = fake_run(ready, "ppo", [])
    with run.lock():
        assert document(cli("runs", "pause", "1", "--json", "--project", ready.root))["asked"] == "pause"
        assert (run.control_dir / "pause").exists()
        assert cli("runs", "resume", "1", "--detach", "--project", ready.root).code == 0
        assert not (run.control_dir / "pause").exists()
        assert "asked to save; it" in cli("runs", "save", "1", "--project", ready.root).out
        assert (run.control_dir / "save").exists()
        (run.control_dir / "waiting").write_text("1")
        assert "nothing to save yet" in cli("runs", "save", "1", "--project", ready.root).out
        assert "asked to stop" in cli("runs", "stop", "1", "--project", ready.root).out
        assert (run.control_dir / "stop").exists()
    assert launched == []
    refused = cli("runs", "save", "1", "--project", ready.root)
    assert refused.code == 2
    assert "not running: it cannot save" in refused.err


def test_a_run_of_a_newer_version_is_shown_with_a_note_and_otherwise_left_alone(cli, ready: Project, fake_run) -> None:
    run = fake_run(ready, "ppo", [])
    run.record_path.write_text(run.record_path.read_text().replace('"v": 1', '"v": 2'))
    here = ("--project", ready.root)
    assert "crashed" in cli("runs", "list", *here).out
    shown = cli("runs", "show", "1", "--json", *here)
    assert json.loads(shown.out)["run"] == run.name
    assert "run.json is of version 2" in shown.err
    refused = cli("runs", "resume", "1", "--detach", *here)
    assert refused.code == 1
    assert "belongs to a newer version of rlhf-tui" in refused.err


def test_demo_headless_makes_the_project_runs_once_and_reports(cli, tmp_path: Path, starter: None, launched) -> None:
    root = tmp_path / "demo"
    said = cli("demo", root, "--headless", "--set", "ppo.updates=4")
    assert said.code == 0
    for part in ("Accuracy on 40 held-out pairs", "always pick the shorter", "95 % interval [+0.60, +1.10] (above 0)"):
        assert part in said.out
    assert "/somewhere/exports/merged-0005" in said.out
    project = open_project(root)
    assert project.settings().ppo.updates == 4
    with project.store() as store:
        assert store.counts().judgements > 0
        assert store.counts().heldout > 0
    assert document(cli("demo", root, "--json"))["run"] == "demo-0001"
    assert launched == ["demo-0001"]
    late = cli("demo", root, "--headless", "--set", "ppo.updates=5")
    assert late.code == 2
    assert "Leave out --set" in late.err


def test_in_a_terminal_a_folder_opens_the_app(cli, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.setattr(verbs, "is_terminal", lambda: True)
    monkeypatch.setattr("rlhf_tui.app.session.run_app", lambda project, **how: opened.append((project.root, how)))
    assert cli(project.root).code == 0
    monkeypatch.chdir(project.root)
    assert cli().code == 0
    assert opened == [(project.root, {}), (project.root, {})]


def test_in_a_terminal_label_opens_the_app_on_the_labelling_screen(
    cli, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, Any]] = []
    monkeypatch.setattr(verbs, "is_terminal", lambda: True)
    monkeypatch.setattr("rlhf_tui.app.session.run_app", lambda project, **how: opened.append(how))
    monkeypatch.chdir(project.root)
    assert cli("label").code == 0
    cli("config", "set", "label.repeat_share", "0.2")
    assert cli("label", "--rater", "ann", "--mode", "rank", "--candidates", "3").code == 0
    assert opened == [
        {"start": "label", "rater": "", "rules": Rules()},
        {"start": "label", "rater": "ann", "rules": Rules(kind="rank", size=3, repeat_share=0.2)},
    ]


def test_the_demo_in_a_terminal_is_the_app(
    cli, tmp_path: Path, starter: None, launched, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[str] = []
    monkeypatch.setattr(verbs, "is_terminal", lambda: True)
    monkeypatch.setattr("rlhf_tui.app.session.run_app", lambda project, follow: followed.append(follow and follow.name))
    assert cli("demo", tmp_path / "demo").code == 0
    assert cli("demo", tmp_path / "demo").code == 0
    assert followed == ["demo-0001", None]


def test_a_model_folder_with_letters_of_the_world(cli, tmp_path: Path) -> None:
    folder = tmp_path / "modèle ü"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert cli("init", tmp_path / "new", "--model", folder).code == 0
    assert open_project(tmp_path / "new").settings().model.name == str(folder)


def test_in_a_terminal_a_folder_without_a_project_opens_home_there(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []
    monkeypatch.setattr("rlhf_tui.app.home.run_home", shown.append)
    monkeypatch.chdir(tmp_path)
    assert "is not an rlhf-tui project" in cli().err  # no terminal, no Home
    monkeypatch.setattr(verbs, "is_terminal", lambda: True)
    assert cli().code == 0
    assert cli(tmp_path).code == 0
    assert [path.resolve() for path in shown] == [tmp_path, tmp_path]
    (tmp_path / "rlhf.toml").write_text("")  # what is left of a project is told so
    assert "is not an rlhf-tui project" in cli().err
