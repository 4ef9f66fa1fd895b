"""A whole PPO run on a tiny model: watched on held-out prompts, with a second reward model, cut off anywhere."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import psutil
import pytest
import torch

from rlhf_tui import demo
from rlhf_tui.model.base import Base
from rlhf_tui.model.roles import Roles
from rlhf_tui.preferences.formats import import_labels, read_prompts
from rlhf_tui.preferences.records import Message, NewPrompt
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.reports import report
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Alert, Checkpoint, Done, Memory, Metric, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.worker import execute
from rlhf_tui.settings import AdapterSettings, PpoSettings, Settings
from rlhf_tui.stages.ppo import start_value
from rlhf_tui.training.rollout import Scoring

SETTINGS = (
    "adapters.layers=2",
    "adapters.rank=4",
    "reward.epochs=1",
    "reward.learning_rate=0.001",
    "reward.reference_completions=8",
    "reward.preview_prompts=0",
    "ppo.max_new_tokens=8",
    "ppo.updates=5",
    "ppo.rollout_size=4",
    "ppo.policy_learning_rate=0.003",
    "ppo.save_every=2",
    "ppo.evaluate_every=2",
    "ppo.evaluate_prompts=4",
    "guard.action=warn",  # two made-up reward models on an untrained base soon disagree
    "run.threads=1",
)
CLOCKS = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")


@pytest.fixture(scope="module")
def rewarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two reward models."""
    folder = tmp_path_factory.mktemp("ppo") / "rewarded"
    project = create_project(folder, overrides=(*SETTINGS, f"model.name={tiny_folder}"))
    with as_file(files(demo)) as data, project.store() as store:
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=0.2)
        some = folder / "some.jsonl"
        some.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[::8]))
        store.add_rater("demo", kind="model", card={})
        import_labels(store, some, rater="demo", heldout_fraction=0.2)
    assert execute(project, create_run(project, "reward")).status == "finished"
    return folder


def copied(rewarded: Path, name: str) -> Project:
    folder = rewarded.with_name(name)
    shutil.copytree(rewarded, folder)
    return open_project(folder)


@pytest.fixture(scope="module")
def finished(rewarded: Path) -> Project:
    project = copied(rewarded, "finished")
    done = execute(project, create_run(project, "ppo"))
    assert done.status == "finished", done
    return project


def run_of(project: Project) -> RunFolder:
    return list_runs(project)[-1]


def events(project: Project) -> list[Any]:
    return [one.event for one in JournalReader(run_of(project).events_path).read()]


def repeatable(run: RunFolder) -> dict[str, Any]:
    """The result without what the machine was at: memory."""
    return {name: value for name, value in run.result().items() if name != "memory"}


def metrics(project: Project) -> dict[int, dict[str, float]]:
    """Of updates and evaluations together, without what a clock made."""
    found: dict[int, dict[str, float]] = {}
    for one in events(project):
        if isinstance(one, Metric):
            found.setdefault(one.step, {}).update({k: v for k, v in one.values.items() if k not in CLOCKS})
    return found


def test_it_is_watched_from_before_the_first_update_to_the_end(finished: Project) -> None:
    found = metrics(finished)
    looked = {step for step, values in found.items() if "heldout_score" in values}
    assert looked == {0, 2, 4, 5}
    assert (found[0]["heldout_kl"], found[0]["gold_score"]) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert found[5]["gold_score"] != found[0]["gold_score"]
    shown = [one for one in events(finished) if isinstance(one, Sample) and one.source == "heldout"]
    assert len(shown) == 2 * len(looked)
    assert len({one.prompt for one in shown}) == 2
    with finished.store() as store:
        assert {one.prompt for one in shown} <= {prompt.text for prompt in store.prompts("heldout")}


def test_the_result_says_which_policy_is_kept_and_it_is_that_one(finished: Project) -> None:
    run, result = run_of(finished), run_of(finished).result()
    best = [one for one in events(finished) if isinstance(one, Checkpoint) and one.best]
    assert best[0].step == 0
    assert result["kept"] == best[-1].step == result["best"]["update"]
    assert (run.path / best[-1].path / "policy" / "adapter_model.safetensors").exists()
    for role in ("policy", "value"):
        kept = [folder / role / "adapter_model.safetensors" for folder in (finished.adapters, run.checkpoints / "best")]
        assert kept[0].read_bytes() == kept[1].read_bytes()
    manifest = json.loads((finished.adapter("policy") / "manifest.json").read_text())
    assert manifest["facts"]["kept"] == result["kept"]
    assert manifest["facts"]["run"] == run.name
    said = report("ppo", result)
    assert "5 updates on 20 completions." in said
    assert "On 4 held-out prompts:" in said
    assert "second" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_peak_of_each_phase_stands_beside_its_plan(finished: Project) -> None:
    taken: dict[str, list[Memory]] = {}
    for one in events(finished):
        if isinstance(one, Memory):
            taken.setdefault(one.phase, []).append(one)
    result = run_of(finished).result()["memory"]
    assert set(result) == {"evaluation", "sampling", "scoring", "update"}
    for phase, found in result.items():
        assert found["peak"] == max(one.peak_rss for one in taken[phase])
        assert {one.planned for one in taken[phase]} == {found["planned"]}
        assert found["planned"] > 2**29  # the process alone
    assert "  scoring     " in report("ppo", run_of(finished).result())
    assert "memory" not in json.loads((finished.adapter("policy") / "manifest.json").read_text())["facts"]


def test_paused_and_killed_again_and_again_it_comes_to_the_same_end(rewarded: Path, finished: Project) -> None:
    """A pause after the first update, kill -9 after a checkpoint and near the end: everything is the same bits."""
    project = copied(rewarded, "killed")
    run = create_run(project, "ppo")
    reader, seen = JournalReader(run.events_path), list[Any]()
    for steps in (3, 4):
        worker = subprocess.Popen([sys.executable, "-m", "rlhf_tui.runs.worker", str(project.root), run.name])
        if steps == 3:
            wait_for_update(1, worker, reader, seen)
            assert_pausing_gives_the_model_back(run, worker)
        wait_for_update(steps, worker, reader, seen)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert run.status() == "crashed"
    assert execute(project, run).status == "finished"
    names = {one.name for one in events(project) if isinstance(one, Stage)}
    assert {"paused", "resumed"} <= names
    assert metrics(project) == metrics(finished)
    assert repeatable(run) == repeatable(run_of(finished))
    for role in ("policy", "value"):
        paths = [one.adapter(role) / "adapter_model.safetensors" for one in (project, finished)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_changes_in_the_project_meanwhile_does_not_enter(
    rewarded: Path, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New prompts, another reward model, another second one: the run goes on with what it began with, bit for bit."""
    project = copied(rewarded, "changed")
    run = create_run(project, "ppo")
    stopped_after(3, project, run, monkeypatch)
    assert (run.checkpoints / "step-000003").is_dir()
    with project.store() as store:
        for split in ("train", "heldout"):
            store.add_prompts([NewPrompt((Message("user", f"A new {split} one?"),), "new", split)], heldout_fraction=0)
    second = project.runs / "reward-0001" / "fits" / "member-2" / "adapter"
    exchange(project.adapter("reward"), second)
    shutil.rmtree(second)
    assert execute(project, run).status == "finished"
    assert metrics(project) == metrics(finished)
    assert repeatable(run) == repeatable(run_of(finished))
    for role in ("policy", "value"):
        paths = [one.adapter(role) / "adapter_model.safetensors" for one in (project, finished)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_without_what_it_began_with_a_run_does_not_go_on(
    rewarded: Path, finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied(rewarded, "lost")
    run = create_run(project, "ppo", overrides=("ppo.save_every=1", "ppo.evaluate_every=0"))
    stopped_after(1, project, run, monkeypatch)
    prompts = run.path / "inputs" / "prompts.json"
    text = prompts.read_text()
    prompts.write_text(text.replace('"ids":[', '"ids":[5,', 1))
    damaged = execute(project, run)
    shutil.rmtree(prompts.parent)
    missing = execute(project, run)
    for done, what in ((damaged, "prompts.json is damaged"), (missing, "inputs is missing")):
        assert done.error is not None
        assert what in done.error["what"]
        assert "start a new run" in done.error["todo"]


def stopped_after(update: int, project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry the run out until this update, as 'rlhf-tui runs stop' would end it there."""
    real = JournalWriter.__call__

    def write(journal: JournalWriter, event: Any) -> None:
        real(journal, event)
        if isinstance(event, Metric) and event.step == update:
            request(run, "stop")

    with monkeypatch.context() as patched:
        patched.setattr(JournalWriter, "__call__", write)
        assert execute(project, run).status == "stopped"


def exchange(adapter: Path, other: Path) -> None:
    """Put another trained reward model in the place of the project's, as a later reward run does."""
    facts = json.loads((adapter / "manifest.json").read_text())["facts"]
    manifest = json.loads((other / "manifest.json").read_text())
    shutil.rmtree(adapter)
    shutil.copytree(other, adapter)
    (adapter / "manifest.json").write_text(json.dumps(manifest | {"facts": facts | {"run": "reward-0009"}}))


def wait_for_update(number: int, worker: subprocess.Popen[bytes], reader: JournalReader, seen: list[Any]) -> None:
    while worker.poll() is None and not any(isinstance(one, Metric) and one.step >= number for one in seen):
        time.sleep(0.02)
        seen += [one.event for one in reader.read()]


def assert_pausing_gives_the_model_back(run: RunFolder, worker: subprocess.Popen[bytes]) -> None:
    """What a paused worker holds is what one holds that has loaded nothing yet."""
    bare = "import psutil, rlhf_tui.runs.worker; print(psutil.Process().memory_info().rss)"
    empty = int(subprocess.run([sys.executable, "-c", bare], capture_output=True, check=True).stdout)
    process = psutil.Process(worker.pid)
    held = process.memory_info().rss
    request(run, "pause")
    while run.status() != "paused":
        assert worker.poll() is None
        time.sleep(0.02)
    assert held - process.memory_info().rss >= 0.95 * (held - empty)
    request(run, "resume")


def carried_out(rewarded: Path, name: str, *overrides: str) -> tuple[Project, Done]:
    project = copied(rewarded, name)
    done = execute(project, create_run(project, "ppo", overrides=("ppo.updates=2", *overrides)))
    assert done.status == "finished", done
    return project, done


@pytest.mark.parametrize("start", ["reward", "base"])
def test_the_value_starts_where_the_settings_say(start: Literal["reward", "base"], tiny_base: Base) -> None:
    roles = Roles(tiny_base, AdapterSettings(rank=4, alpha=8), seed=3)
    roles.add("reward")
    with torch.no_grad():
        for parameter in roles.parameters("reward"):
            parameter.fill_(0.5)
    context: Any = SimpleNamespace(settings=Settings(ppo=PpoSettings(value_start=start)))
    start_value(context, roles, Scoring(0.3, 0.25))
    head = roles.head("value")
    if start == "base":
        assert not head.weight.any()
        assert float(head.bias) == 0.0
        assert any(not parameter.any() for parameter in roles.adapter("value"))  # B = 0: the base as it is
    else:
        assert head.weight.unique().tolist() == [2.0]
        assert float(head.bias) == pytest.approx(0.8)
        assert all(bool((parameter == 0.5).all()) for parameter in roles.adapter("value"))


def test_without_evaluations_the_last_policy_is_kept(rewarded: Path) -> None:
    project, done = carried_out(rewarded, "blind", "ppo.evaluate_every=0", "ppo.value_start=base")
    assert done.result["kept"] == 2
    assert done.result["start"] is None
    assert "Nothing was evaluated" in done.result["why"]
    assert not any("heldout_score" in values for values in metrics(project).values())
    assert "policy_loss" not in metrics(project)[2]  # a value from the base learns alone at first


def test_a_second_model_that_is_damaged_is_told_and_done_without(rewarded: Path) -> None:
    project = copied(rewarded, "damaged")
    (project.runs / "reward-0001" / "fits" / "member-2" / "adapter" / "head.safetensors").unlink()
    done = execute(project, create_run(project, "ppo", overrides=("ppo.updates=1",)))
    assert done.status == "finished"
    told = [(one.level, one.code) for one in events(project) if isinstance(one, Alert)]
    assert told[:2] == [("warning", "gold-damaged"), ("note", "no-gold")]
    assert done.result["end"]["gold"] is None


def test_a_run_without_a_second_model_says_so_and_how_to_get_one(rewarded: Path, finished: Project) -> None:
    project = copied(rewarded, "alone")
    shutil.rmtree(project.runs / "reward-0001" / "fits" / "member-2")  # as with reward.ensemble=1
    done = execute(project, create_run(project, "ppo", overrides=("ppo.updates=1",)))
    (told,) = [one for one in events(project) if isinstance(one, Alert) and one.code == "no-gold"]
    assert told.level == "note"
    assert "reward.ensemble=2" in told.remedy
    assert done.result["end"]["gold"] is None
    assert not any(isinstance(one, Alert) and one.code == "no-gold" for one in events(finished))


# -- in words -------------------------------------------------------------------------------------

LOOK = {"score": 0.0, "kl": 0.0, "length": 51.0, "eos_rate": 0.9, "repetition": 0.1, "gold": None}
RESULT: dict[str, Any] = {
    "updates": 35,
    "episodes": 1120,
    "ended": "kl-runaway",
    "kept": 30,
    "why": "The best held-out score within 15 nats: +0.91 deviations over the start.",
    "heldout_prompts": 16,
    "start": LOOK | {"update": 0, "score": -0.02},
    "best": LOOK | {"update": 30, "score": 0.89, "kl": 7.32},
    "end": LOOK | {"update": 35, "score": 1.2, "kl": 61.0, "length": 128.0, "eos_rate": 0.05},
    "alerts": [{"update": 35, "level": "stop", "code": "kl-runaway", "message": "The policy is 61 nats away."}],
    "prompts_too_long": 2,
    "memory": {
        "sampling": {"peak": 5 << 28, "planned": 5 << 28},
        "update": {"peak": 5 << 29, "planned": 2 << 30},
    },
}


def test_a_result_in_words() -> None:
    assert report("ppo", RESULT).splitlines() == [
        "35 updates on 1120 completions. It was ended early: kl-runaway.",
        "",
        "The policy that is kept is that of update 30. The best held-out score within 15",
        "nats: +0.91 deviations over the start.",
        "On 16 held-out prompts:",
        "          update    score      KL   tokens   ended",
        "  start        0    -0.02     0.0       51     90%",
        "  best        30    +0.89     7.3       51     90%",
        "  end         35    +1.20    61.0      128      5%",
        "Scores are in deviations of the reward model on the base's completions.",
        "",
        "Alerts:",
        "  update 35, kl-runaway: The policy is 61 nats away.",
        "",
        "Memory at its peak:",
        "  sampling    1.25 of 1.25 GiB planned",
        "  update      2.50 of 2.00 GiB planned, 25% more",
        "Left out: 2 prompts longer than model.max_prompt_tokens.",
    ]


def test_that_nothing_beat_the_start_is_said_plainly() -> None:
    said = report("ppo", RESULT | {"kept": 0, "why": "Nothing within 15 nats beat the start by its held-out score."})
    assert "that of the start. Nothing within 15" in said


def test_the_second_model_has_a_column_and_its_meaning() -> None:
    golds = {name: RESULT[name] | {"gold": value} for name, value in (("start", 0.0), ("best", 0.4), ("end", -1.2))}
    lines = report("ppo", RESULT | golds).splitlines()
    assert lines[5].split() == ["update", "score", "second", "KL", "tokens", "ended"]
    assert lines[8].split() == ["end", "35", "+1.20", "-1.20", "61.0", "128", "5%"]
    assert "that PPO does not see" in " ".join(lines[9:11])


def test_a_run_on_a_4_bit_base_may_sample_with_a_copy_and_remembers_it(
    rewarded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan leaves room for a copy here; the clock is made up so that it wins."""
    from rlhf_tui.training import ppo as training

    project = copied(rewarded, "copied")
    timed = {"quantised": 2.0, "copy": 1.0}
    monkeypatch.setattr(training, "projected_seconds", lambda *arguments, weights, **named: timed[weights])
    small = ("model.quantisation=nf4", "reward.ensemble=1")
    assert execute(project, create_run(project, "reward", overrides=small)).status == "finished"
    done = execute(project, create_run(project, "ppo", overrides=(*small, "ppo.updates=2")))
    assert done.status == "finished", done
    assert done.result["sampling_weights"] == {"chosen": "copy", "seconds": timed}
    told = [
        one.event.detail for one in JournalReader(run_of(project).events_path).read() if isinstance(one.event, Stage)
    ]
    assert sum("an unpacked copy from now on" in detail for detail in told) == 1
