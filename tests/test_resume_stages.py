"""Generating, comparing and exporting, cut off at any event: nothing twice, nothing lost, the same results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_tui import demo
from rlhf_tui.evaluation import compare as comparing
from rlhf_tui.evaluation.kept import keep, recall
from rlhf_tui.model.base import load_base
from rlhf_tui.model.draw import Completion
from rlhf_tui.model.roles import Roles
from rlhf_tui.preferences.formats import read_prompts
from rlhf_tui.preferences.records import Message, NewPrompt
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Done, Event, Sample, Stage
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.worker import execute
from rlhf_tui.stages import generate as generating

SETTINGS = (
    "adapters.layers=2",
    "adapters.rank=4",
    "generate.prompts=7",
    "generate.per_prompt=2",
    "generate.batch_size=4",
    "generate.max_new_tokens=6",
    "compare.prompts=5",
    "compare.bootstrap=200",
    "ppo.max_new_tokens=6",
    "ppo.sampling_rows=2",
    "export.dtype=fp32",
    "run.threads=1",
)


class Cut(Exception):
    """Ends an execution at some event, as a kill would."""


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prompts, a reward model and a policy that has moved."""
    folder = tmp_path_factory.mktemp("resume") / "made"
    project = create_project(folder, overrides=(*SETTINGS, f"model.name={tiny_folder}"))
    with as_file(files(demo)) as data, project.store() as store:
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=0.2)
    reward = create_run(project, "reward")
    settings = project.settings()
    roles = Roles(load_base(settings.model, lambda text: None), settings.adapters, seed=1)
    generator = torch.Generator().manual_seed(1)
    for role, facts in (
        ("reward", {"run": reward.name, "mean": 0.0, "deviation": 1.0, "template": roles.base.chat.fingerprint}),
        ("policy", {"run": "ppo-0007", "reward_run": reward.name}),
    ):
        roles.add(role)
        with torch.no_grad():
            for parameter in roles.parameters(role):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        roles.save(role, project.adapter(role), facts)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Project]:
    def make(name: str) -> Project:
        shutil.copytree(made, tmp_path / name)
        return open_project(tmp_path / name)

    return make


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Project, RunFolder, int], Done]:
    """Carry a run out until it is about to say its n-th event; that one, and what follows, never happens."""
    real = JournalWriter.__call__

    def carry_out(project: Project, run: RunFolder, number: int) -> Done:
        said = count()

        def write(journal: JournalWriter, event: Event) -> None:
            if next(said) == number and not isinstance(event, Done):
                raise Cut
            real(journal, event)

        with monkeypatch.context() as patched:
            patched.setattr(JournalWriter, "__call__", write)
            return execute(project, run)

    return carry_out


def events(run: RunFolder) -> list[Any]:
    return [one.event for one in JournalReader(run.events_path).read(60)]


def contents(project: Project) -> dict[str, Any]:
    """All completions and pairs of a project."""
    with project.store() as store:
        completions = [one for prompt in store.prompts() for one in store.completions(prompt.id)]
        pairs = store.waiting_pairs(1000)
    return {
        "completions": [(one.uid, one.text, one.seed) for one in completions],
        "pairs": sorted(sorted(side.uid for side in sides) for _, sides in pairs),
    }


# -- generate -------------------------------------------------------------------------------------


def test_generating_cut_off_at_every_event_stores_each_completion_once(
    copy: Callable[[str], Project], cut_at: Callable[[Project, RunFolder, int], Done]
) -> None:
    whole, cut = copy("whole"), copy("cut")
    done = execute(whole, create_run(whole, "generate"))
    assert (done.result["completions"], done.result["prompts"]) == (14, 7)
    assert done.result["pairs"] >= 5
    run = create_run(cut, "generate")
    cuts = 0
    for number in range(1, 100):
        outcome = cut_at(cut, run, number)
        if outcome.status == "finished":
            break
        cuts += 1
    assert cuts >= 8
    assert outcome.result == done.result
    assert contents(cut) == contents(whole)
    shown = [(one.step, one.prompt) for one in events(run) if isinstance(one, Sample)]
    assert {step for step, _ in shown} <= {4, 8, 12, 14}


def test_what_is_in_the_store_is_not_sampled_again(
    copy: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy("stored")
    run = create_run(project, "generate")
    assert execute(project, run).status == "finished"
    before = contents(project)
    forget_the_end(run)
    with project.store() as store:  # what came since does not change what the run does
        store.add_prompts([NewPrompt((Message("user", "A new question?"),), "new")], heldout_fraction=0.2)
    monkeypatch.setattr(generating, "sample", lambda *arguments, **named: pytest.fail("sampled again"))
    done = execute(project, run)
    assert done.status == "finished"
    assert done.result["completions"] == 14
    assert contents(project) == before


def test_a_second_run_samples_other_prompts(copy: Callable[[str], Project]) -> None:
    project = copy("second")
    for _ in range(2):
        assert execute(project, create_run(project, "generate")).status == "finished"
    with project.store() as store:
        assert sorted(store.completions_by_prompt().values()) == 14 * [2]


def test_a_run_in_the_place_of_a_deleted_one_samples_too(tiny_folder: Path, tmp_path: Path) -> None:
    """It has that one's name and, where there are few, that one's prompts."""
    project = create_project(tmp_path / "again", overrides=(*SETTINGS, f"model.name={tiny_folder}"))
    with project.store() as store:
        prompts = [NewPrompt((Message("user", f"Number {n}?"),), "few") for n in range(3)]
        store.add_prompts(prompts, heldout_fraction=0.2)
    names = []
    for _ in range(2):
        run = create_run(project, "generate")
        done = execute(project, run)
        assert done.result["completions"] == 6, done
        names.append(run.name)
        shutil.rmtree(run.path)
    assert names[0] == names[1]
    with project.store() as store:
        assert list(store.completions_by_prompt().values()) == [4, 4, 4]


def test_a_damaged_plan_is_an_error_that_says_so(copy: Callable[[str], Project]) -> None:
    project = copy("damaged")
    run = create_run(project, "generate")
    (run.path / "plan.json").write_text('{"prompts": [')
    done = execute(project, run)
    assert done.status == "failed"
    assert done.error is not None
    assert "plan.json is damaged" in done.error["what"]


def forget_the_end(run: RunFolder) -> None:
    """Be as if the run had been killed just before it wrote Done."""
    lines = run.events_path.read_bytes().splitlines(keepends=True)
    assert b'"done"' in lines[-1]
    run.events_path.write_bytes(b"".join(lines[:-1]))
    assert run.status() == "crashed"


# -- compare --------------------------------------------------------------------------------------


def test_comparing_cut_off_anywhere_comes_to_the_same(
    copy: Callable[[str], Project],
    cut_at: Callable[[Project, RunFolder, int], Done],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = copy("compared")
    wanted = execute(project, create_run(project, "compare"))
    assert wanted.status == "finished", wanted
    run = create_run(project, "compare")
    drawn: list[int] = []
    real = comparing.sample

    def counted(model: Any, prompts: Any, *arguments: Any, **named: Any) -> Any:
        drawn.append(len(prompts))
        return real(model, prompts, *arguments, **named)

    monkeypatch.setattr(comparing, "sample", counted)
    outcome, number = wanted, 3
    for number in (5, 9, 14, 20, 24, 1000):
        outcome = cut_at(project, run, number)
    assert outcome.status == "finished"
    assert outcome.result == wanted.result
    assert sorted(path.name for path in (run.path / "answers").iterdir()) == [
        f"{side}-{start:06d}.json" for side in ("after", "before") for start in (0, 8)
    ]
    drawn.clear()
    forget_the_end(run)
    assert execute(project, run).result == wanted.result
    assert drawn == []


def test_answers_of_another_policy_are_sampled_anew(copy: Callable[[str], Project]) -> None:
    project = copy("moved")
    run = create_run(project, "compare")
    first = execute(project, run).result
    forget_the_end(run)
    settings = project.settings()
    roles = Roles(load_base(settings.model, lambda text: None), settings.adapters, seed=1)
    facts = roles.load("policy", project.adapter("policy"))
    with torch.no_grad():
        for parameter in roles.parameters("policy"):
            parameter.mul_(3.0)
    roles.save("policy", project.adapter("policy"), facts)
    second = execute(project, run).result
    assert second["before"] == first["before"]
    assert second["after"] != first["after"]


def test_kept_answers_that_are_damaged_or_foreign_are_none(tmp_path: Path) -> None:
    path = tmp_path / "answers" / "before-000000.json"
    drawn = [Completion((1, 2), True), Completion((3,), False)]
    assert recall(path, "key") is None
    keep(path, "key", drawn)
    assert recall(path, "key") == drawn
    assert recall(path, "other") is None
    path.write_bytes(path.read_bytes()[:-4])
    assert recall(path, "key") is None


# -- export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_export_that_was_in_place_is_found_there(form: str, copy: Callable[[str], Project]) -> None:
    project = copy(form)
    run = create_run(project, "export", options={"format": form})
    done = execute(project, run)
    assert done.status == "finished", done
    before = {path.name: path.read_bytes() for path in Path(done.result["path"]).iterdir()}
    forget_the_end(run)
    assert execute(project, run).result == done.result
    assert {path.name: path.read_bytes() for path in Path(done.result["path"]).iterdir()} == before


@pytest.mark.parametrize(("form", "stage"), [("adapter", "loading the model"), ("merged", "merging")])
def test_an_export_stops_when_asked_and_goes_on_later(
    form: str, stage: str, copy: Callable[[str], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy("asked")
    run = create_run(project, "export", options={"format": form})
    real = JournalWriter.__call__

    def write(journal: JournalWriter, event: Event) -> None:
        real(journal, event)
        if event == Stage(stage):
            request(run, "stop")

    with monkeypatch.context() as patched:
        patched.setattr(JournalWriter, "__call__", write)
        assert execute(project, run).status == "stopped"
    assert list(project.exports.glob("*")) == []
    assert execute(project, run).status == "finished"


def test_an_export_cut_off_anywhere_leaves_nothing_half(
    copy: Callable[[str], Project], cut_at: Callable[[Project, RunFolder, int], Done]
) -> None:
    project = copy("half")
    run = create_run(project, "export", options={"format": "merged"})
    killed = project.exports / f".merged-{run.number:04d}.partial"
    killed.mkdir()
    (killed / "shard-00000.safetensors").write_text("half")
    for number in range(3, 20):
        done = cut_at(project, run, number)
        if done.status == "finished":
            break
        assert list(project.exports.glob(f"merged-{run.number:04d}")) == []
    assert done.status == "finished"
    assert [path.name for path in project.exports.iterdir()] == [f"merged-{run.number:04d}"]
    other = create_run(project, "export", options={"format": "merged", "out": done.result["path"]})
    refused = execute(project, other)
    assert refused.error is not None
    assert "exists already" in refused.error["what"]
