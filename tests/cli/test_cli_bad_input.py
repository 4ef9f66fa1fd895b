"""Bad input: one clear message, exit code 2, and nothing written, in words and as JSON."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_tui.project import Project

Tree = Callable[[Path], dict[str, str]]

# words of the call ({p}: a project with unjudged pairs, {e}: an empty one, {t}: the folder they are in), what is said
CASES = {
    "unknown model": ("init {t}/new --model nope", "There is no model 'nope'."),
    "model folder without a model": ("init {t}/new --model {t}", "holds no model"),
    "model that the hub does not have": ("init {t}/new --model owner/nothing", "cannot be had from the hub"),
    "init into a folder that is not empty": ("init {p}", "exists and is not empty"),
    "init with an unknown setting": ("init {t}/new --set ppo.updtes=3 --model {m}", "Did you mean 'ppo.updates'?"),
    "init with a value out of bounds": ("init {t}/new --set ppo.updates=0 --model {m}", "at least 1 and at most"),
    "not a project": ("config show --project {t}", "is not an rlhf-tui project"),
    "no such folder": ("config show --project {t}/none", "is not an rlhf-tui project"),
    "unknown setting": ("config set ppo.updtes 3 --project {p}", "Did you mean 'ppo.updates'?"),
    "unknown setting to explain": ("config explain ppo.clipp", "Did you mean 'ppo.clip'?"),
    "unknown setting for a call": ("generate --set generate.temprature=1 --project {p}", "'generate.temperature'"),
    "value out of bounds": ("config set ppo.updates 0 --project {p}", "at least 1 and at most 100000"),
    "value of another type": ("config set ppo.updates many --project {p}", "ppo.updates cannot be 'many'"),
    "value out of bounds for a call": ("train reward --set reward.epochs=99 --project {p}", "reward.epochs cannot be"),
    "setting without a value": ("train reward --set reward.epochs --project {p}", "section.key=value"),
    "empty prompts file": ("prompts import {t}/empty.txt --project {p}", "empty.txt is empty"),
    "prompts file of blank lines": ("prompts import {t}/blank.txt --project {p}", "blank.txt is empty"),
    "no prompts file": ("prompts import {t}/none.txt --project {p}", "There is no file"),
    "broken line in the second file": ("prompts import {t}/good.txt {t}/bad.jsonl --project {p}", "bad.jsonl, line 2"),
    "prompts of an unknown kind": ("prompts import {t}/new.pdf --project {p}", "not a known kind of prompt file"),
    "broken labels": ("labels import {t}/bad.jsonl --project {p}", "bad.jsonl, line 2"),
    "labels of an unknown format": ("labels import {t}/good.jsonl --format trll --project {p}", "Did you mean 'trl'?"),
    "prompts where labels should be": ("labels import {t}/good.txt --project {p}", "holds prompts and no judgements"),
    "no labels file": ("labels import {t}/none.jsonl --preview --project {p}", "There is no file"),
    "broken labels to look at": ("labels import {t}/bad.jsonl --preview --project {p}", "bad.jsonl, line 2"),
    "a mapping of nothing": ("labels import {t}/good.csv --map chosen --project {p}", "--map cannot be 'chosen'."),
    "a mapping twice": ("labels import {t}/good.csv --map a=x --map a=y --project {p}", "given twice for 'a'"),
    "a column that is not there": (
        "labels import {t}/good.csv --map chosen=x --project {p}",
        "There is no column 'x'.",
    ),
    "a data set without an owner": ("labels import hub:nothing --project {p}", "names no data set"),
    "unknown format": ("labels export {t}/out.jsonl --format trll --project {p}", "Did you mean 'trl'?"),
    "unknown way with ties": ("labels export {t}/out.jsonl --ties no --project {p}", "Ties cannot be 'no'."),
    "no labels to export": ("labels export {t}/out.jsonl --project {p}", "no judgement to export"),
    "no copy to merge": ("labels merge {t}/model --project {p}", "is no copy of a project"),
    "no file to merge": ("labels merge {t}/none.db --project {p}", "is no copy of a project"),
    "something else to merge": ("labels merge {t}/good.csv --project {p}", "is not a database"),
    "itself to merge": ("labels merge {p}/preferences.db --project {p}", "is this project itself"),
    "a rater that is not there": ("labels rater ann --consent --project {p}", "Nobody has judged yet."),
    "the statistics of nobody": ("labels stats --rater ann --project {p}", "There is no rater 'ann'."),
    "a card without a value": ("labels rater ann --card age --project {p}", "--card cannot be 'age'."),
    "unknown mode": ("label --plain --mode rnk --project {p}", "label.mode cannot be 'rnk'"),
    "too many candidates at a time": ("label --plain --candidates 9 --project {p}", "at least 2 and at most 6"),
    "no labels to learn from": ("train reward --project {p}", "6 pairs wait for a judgement."),
    "nothing to learn from": ("train reward --project {e}", "There are no pairs of candidates either."),
    "no prompts to answer": ("generate --project {e}", "There are no prompts to answer."),
    "no reward model": ("train ppo --project {p}", "There is no reward adapter yet."),
    "nothing to compare": ("compare --project {p}", "There is no reward adapter yet."),
    "nothing to export": ("export merged --project {p}", "There is no policy adapter yet."),
    "export over something": ("export adapter --out {t}/empty.txt --project {p}", "exists already"),
    "nothing to judge": ("label --plain --project {e}", "No pairs wait for a judgement."),
    "a run that is not there": ("runs show ppo-0001 --project {p}", "It has no runs yet."),
    "a run to go on with that is not there": ("train ppo --resume 7 --project {p}", "There is no run '7'"),
    "a card of no size": ("fit --card=-1", "Invalid value for '--card'"),
    "a card beside the CPU": ("fit --card 8 --set model.device=cpu", "no card is used"),
    "fit for a folder that is no project": ("fit --project {t}", "is not an rlhf-tui project"),
    "unknown command": ("traim reward", "Did you mean 'train'?"),
    "unknown verb of a group": ("train rewrad", "Did you mean 'reward'?"),
    "unknown option": ("runs list --projekt x", "--project"),
    "missing argument": ("runs show", "Missing argument"),
    "too few candidates": ("generate --per-prompt 1 --project {p}", "--per-prompt"),
    "neither command nor folder": ("nonsense", "There is no command or project folder 'nonsense'."),
    "the app on a folder that is no project": ("{t}", "is not an rlhf-tui project"),
    "the app without a terminal": ("{p}", "needs a terminal"),
    "demo in an occupied folder": ("demo {t} --headless --set model.name={m}", "exists and is not empty"),
    "demo with an unknown setting": ("demo {t}/new --headless --set ppo.clipp=1", "Did you mean 'ppo.clip'?"),
    "demo with an unknown model": ("demo {t}/new --headless --set model.name=nope", "There is no model 'nope'."),
}
WITHOUT_JSON = {"the app on a folder that is no project", "the app without a terminal"}


@pytest.fixture
def words(tmp_path: Path, prompted: Project) -> Callable[[str], list[str]]:
    """Fills a case's call with real places."""
    empty = tmp_path / "nothing-in-it"
    shutil.copytree(prompted.root, empty)
    (empty / "preferences.db").unlink()
    from rlhf_tui.preferences.store import Store

    Store.create(empty / "preferences.db", name="empty", seed=7).close()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "good.txt").write_text("A good prompt?\n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Fine?"}\n{"prompt":\n')
    (tmp_path / "new.pdf").write_text("A prompt?\n")
    (tmp_path / "good.jsonl").write_text('{"prompt": "Why?", "chosen": "So.", "rejected": "No."}\n')
    (tmp_path / "good.csv").write_text("prompt,chosen,rejected\nWhy?,So.,No.\n")
    places = {"p": prompted.root, "e": empty, "t": tmp_path, "m": tmp_path / "model"}
    return lambda text: [word.format(**places) for word in text.split()]


@pytest.mark.parametrize("case", CASES)
def test_one_message_and_nothing_written(case: str, cli, words, tmp_path: Path, tree: Tree) -> None:
    call, says = words(CASES[case][0]), CASES[case][1]
    before = tree(tmp_path)
    said = cli(*call)
    assert said.code == 2, said
    assert said.out == ""
    assert says in said.err
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) <= 5
    assert tree(tmp_path) == before


@pytest.mark.parametrize("case", sorted(set(CASES) - WITHOUT_JSON))
def test_the_same_as_one_json_document(case: str, cli, words, tmp_path: Path, tree: Tree) -> None:
    before = tree(tmp_path)
    said = cli(*words(CASES[case][0]), "--json")
    assert (said.code, said.err) == (2, "")
    error = json.loads(said.out)["error"]
    assert set(error) == {"what", "why", "todo"}
    assert error["what"]
    assert tree(tmp_path) == before


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    "call",
    ["init {t}/new", "demo {t}/new --headless", "generate --project {p}", "train reward --project {p}"],
)
def test_disk_too_small(
    call: str, cli, ready: Project, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tmp_path / "cache")  # so that the starter has to be fetched
    before = tree(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 10**6, 10**6))
    said = cli(*(word.format(t=tmp_path, p=ready.root) for word in call.split()))
    assert said.code == 2
    assert said.out == ""
    assert "Not enough disk space" in said.err
    assert "0.00 GB are free" in said.err
    assert tree(tmp_path) == before


def test_a_broken_settings_file_is_not_written_to(cli, project: Project) -> None:
    project.config.write_text("[ppo\n")
    said = cli("config", "set", "ppo.updates", "3", "--project", project.root)
    assert said.code == 2
    assert "not valid TOML" in said.err
    assert project.config.read_text() == "[ppo\n"


def test_a_failed_run_is_exit_code_1(cli, project: Project, fake_run) -> None:
    from rlhf_tui.runs.events import Done

    error = {"what": "The card is full.", "why": "Too long.", "todo": "Lower ppo.rollout_size."}
    fake_run(project, "ppo", [Done("failed", "The card is full.", error)])
    said = cli("runs", "watch", "1", "--project", project.root)
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("The card is full.\nToo long.\nLower ppo.rollout_size.\n")
    said = cli("runs", "watch", "1", "--json", "--project", project.root)
    assert said.code == 1
    assert json.loads(said.out) == {"error": error}


def test_a_run_that_has_ended_cannot_be_paused_or_resumed(cli, project: Project, fake_run, results) -> None:
    from rlhf_tui.runs.events import Done

    fake_run(project, "ppo", [Done("finished", result=results["ppo"])])
    for verb, says in {"pause": "is not running: it cannot pause", "resume": "has finished"}.items():
        said = cli("runs", verb, "1", "--project", project.root)
        assert said.code == 2
        assert says in said.err
    assert "it is finished" in cli("runs", "stop", "1", "--project", project.root).out


def test_a_resumed_training_keeps_its_kind_and_settings(cli, project: Project, fake_run) -> None:
    fake_run(project, "reward", [])
    fake_run(project, "ppo", [])
    said = cli("train", "ppo", "--resume", "reward-0001", "--project", project.root)
    assert said.code == 2
    assert "is not a ppo run" in said.err
    said = cli("train", "ppo", "--resume", "2", "--set", "ppo.updates=3", "--project", project.root)
    assert said.code == 2
    assert "Leave out --set." in said.err


def test_a_bug_keeps_its_traceback(cli, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_tui.runs.folder.list_runs", lambda opened: SimpleNamespace().missing)
    with pytest.raises(AttributeError):
        cli("runs", "list", "--project", project.root)
