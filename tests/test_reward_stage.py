"""A whole reward run on a tiny model: its labels held still, cut off anywhere, its report, and who may use it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui import demo
from rlhf_tui.assessment.report import load_report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences import snapshot as snapshots
from rlhf_tui.preferences.formats import import_labels, read_prompts
from rlhf_tui.project import Project, create_project, open_project
from rlhf_tui.reports import report
from rlhf_tui.runs.control import request
from rlhf_tui.runs.events import Alert, Done, Metric, Progress, Stage
from rlhf_tui.runs.folder import RunFolder, create_run, list_runs
from rlhf_tui.runs.journal import JournalReader, JournalWriter
from rlhf_tui.runs.worker import execute

SETTINGS = (
    "adapters.layers=2",
    "adapters.rank=4",
    "reward.epochs=2",
    "reward.patience=0",
    "reward.learning_rate=0.001",
    "reward.save_every=2",
    "reward.folds=2",
    "reward.reference_completions=8",
    "reward.preview_prompts=1",
    "ppo.max_new_tokens=8",
    "ppo.updates=1",
    "ppo.rollout_size=4",
    "run.threads=1",
)


@pytest.fixture(scope="module")
def fresh(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with labels and a reward run that has not begun."""
    folder = tmp_path_factory.mktemp("reward") / "fresh"
    project = create_project(folder, overrides=(*SETTINGS, f"model.name={tiny_folder}"))
    with as_file(files(demo)) as data, project.store() as store:
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=0.2)
        some = folder / "some.jsonl"
        some.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[::5]))
        store.add_rater("demo", kind="model", card={})
        import_labels(store, some, rater="demo", heldout_fraction=0.2)
    create_run(project, "reward")
    return folder


@pytest.fixture(scope="module")
def finished(fresh: Path) -> Project:
    """The same, with the run carried out in one go."""
    folder = fresh.with_name("finished")
    shutil.copytree(fresh, folder)
    project = open_project(folder)
    done = work(folder)
    assert done.status == "finished", done
    return project


def work(folder: Path) -> Done:
    """Run the worker to its end."""
    subprocess.run([sys.executable, "-m", "rlhf_tui.runs.worker", str(folder), "reward-0001"], timeout=200, check=False)
    done = run_of(open_project(folder)).done()
    assert done is not None
    return done


def run_of(project: Project) -> RunFolder:
    return list_runs(project)[0]


def events(run: RunFolder) -> list[Any]:
    return [one.event for one in JournalReader(run.events_path).read()]


def comparable(project: Project) -> dict[str, Any]:
    """Everything the run came to, but for what the machine was at: memory."""
    run = run_of(project)
    return {
        "result": {name: value for name, value in run.result().items() if name != "memory"},
        "report": json.loads((run.path / "report.json").read_text()),
        "adapter": json.loads((project.adapter("reward") / "manifest.json").read_text()),
        "metrics": {one.step: one.values for one in events(run) if isinstance(one, Metric)},
    }


# -- cut off and taken up -------------------------------------------------------------------------


def test_killed_again_and_again_it_comes_to_the_same_numbers(fresh: Path, finished: Project) -> None:
    """kill -9 in the first model, in the second one, in a fold and while sampling: not one digit differs."""
    folder = fresh.with_name("killed")
    shutil.copytree(fresh, folder)
    run = run_of(open_project(folder))
    moments = (
        lambda seen: sum(isinstance(one, Metric) and "loss" in one.values for one in seen) >= 4,
        lambda seen: any(isinstance(one, Stage) and "ensemble" in one.name for one in seen),
        lambda seen: any(isinstance(one, Stage) and "fold 2" in one.name for one in seen),
        lambda seen: any(isinstance(one, Stage) and "reference completions" in one.name for one in seen),
    )
    for moment in moments:
        worker = subprocess.Popen([sys.executable, "-m", "rlhf_tui.runs.worker", str(folder), run.name])
        seen: list[Any] = []
        reader = JournalReader(run.events_path)
        while worker.poll() is None and not moment(seen):
            time.sleep(0.02)
            seen += [one.event for one in reader.read()]
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert run.status() == "crashed"
    assert work(folder).status == "finished"
    resumed = [one for one in events(run) if isinstance(one, Stage) and "step-" in one.detail]
    assert resumed  # it did go on from a checkpoint, not from the start each time
    assert comparable(open_project(folder)) == comparable(finished)
    for file in ("adapter_model.safetensors", "head.safetensors"):
        paths = [open_project(one).adapter("reward") / file for one in (folder, finished.root)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_model_that_was_damaged_since_is_trained_again(fresh: Path, finished: Project) -> None:
    """A bit of one model's scores, another model's record: both are said, and come out as they were."""
    folder = fresh.with_name("spoilt")
    shutil.copytree(finished.root, folder)
    project = open_project(folder)
    run = run_of(project)
    wanted, fits = comparable(project), run.path / "fits"
    scores = fits / "member-1" / "scores.safetensors"
    data = bytearray(scores.read_bytes())
    data[-1] ^= 1
    scores.write_bytes(bytes(data))
    record = json.loads((fits / "fold-0" / "fit.json").read_text())
    record["facts"]["steps"] += 1
    (fits / "fold-0" / "fit.json").write_text(json.dumps(record))
    lines = run.events_path.read_bytes().splitlines(keepends=True)
    run.events_path.write_bytes(b"".join(lines[:-1]))  # as if it had been killed just before its end
    before = len(lines)
    assert execute(project, run).status == "finished"
    told = [one for one in events(run)[before - 1 :] if isinstance(one, Alert)]
    told = [one for one in told if one.code != "over-plan"]  # the memory of this process is that of all tests in it
    assert [(one.code, Path(one.message.split()[0]).name) for one in told] == [
        ("fit-damaged", "member-1"),
        ("fit-damaged", "fold-0"),
    ]
    assert [one.why for one in told] == [f"Not as it was written: {name}." for name in (scores.name, "fit.json")]
    assert comparable(project) == wanted
    for name in ("member-1", "member-2", "fold-0", "fold-1"):
        for file in ("fit.json", "scores.safetensors", "adapter/head.safetensors"):
            assert (fits / name / file).read_bytes() == (run_of(finished).path / "fits" / name / file).read_bytes()


@pytest.mark.parametrize("reading", [1, 2])
def test_it_stops_while_it_reads_the_candidates(reading: int, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base reads them first, then the layers that all models share: it stops between two passes, not after all."""
    folder = fresh.with_name(f"asked-{reading}")
    shutil.copytree(fresh, folder)
    project = open_project(folder)
    run = create_run(project, "reward", overrides=["reward.micro_batch_tokens=512", "reward.layer=1000"])
    real, said = JournalWriter.__call__, list[Any]()

    def write(journal: JournalWriter, event: Any) -> None:
        real(journal, event)
        said.append(event)
        if isinstance(event, Progress) and stages(said).count("reading the candidates") == reading:
            request(run, "stop")

    monkeypatch.setattr(JournalWriter, "__call__", write)
    assert execute(project, run).status == "stopped"
    assert stages(said).count("reading the candidates") == reading
    assert stages(said)[-1] == "reading the candidates"
    last = [one for one in said if isinstance(one, Progress)][-1]
    assert 0 < last.done < last.total


def stages(said: list[Any]) -> list[str]:
    return [one.name for one in said if isinstance(one, Stage)]


# -- the labels of a run --------------------------------------------------------------------------


def test_the_labels_are_held_still_and_held_out_prompts_never_train(finished: Project) -> None:
    run = run_of(finished)
    snapshot = snapshots.read(run.path / "snapshot.jsonl")
    with finished.store() as store:
        assert snapshot.labels == store.snapshot_hash()
        split = {prompt.uid: prompt.split for prompt in store.prompts()}
    assert {row.split for row in snapshot.rows} == {"train", "heldout"}
    assert all(split[row.prompt] == row.split for row in snapshot.rows)
    result = run.result()
    assert set(result["memory"]) == {"update"}
    assert "Memory at its peak:\n  update " in report("reward", result)
    assert result["snapshot"] == snapshot.hash
    assert result["train_pairs"] == sum(row.split == "train" for row in snapshot.rows)
    folds: dict[str, set[int]] = {}
    for row in snapshot.rows:
        folds.setdefault(row.prompt, set()).add(row.fold)
    assert all(len(one) == 1 for one in folds.values())


def test_labels_given_while_it_was_stopped_do_not_enter(fresh: Path, finished: Project) -> None:
    folder = fresh.with_name("later")
    shutil.copytree(fresh, folder)
    project = open_project(folder)
    run = run_of(project)
    shutil.copy(run_of(finished).path / "snapshot.jsonl", run.path)
    with project.store() as store:
        before = store.snapshot_hash()
        rater = store.raters()[0]
        session = store.start_session(rater.id, columns=80, rows=24)
        prompt = store.prompts("train")[0]
        from rlhf_tui.preferences.records import NewCompletion, prefer

        model = store.add_model("someone", "human")
        store.add_completions([NewCompletion(prompt.id, model, None, text) for text in ("a new one", "another one")])
        store.make_tasks(prompt.id)
        waiting = store.waiting_pairs(1)
        assert waiting
        task = next(iter(store.database.rows("SELECT max(id) AS id FROM task")))["id"]
        shown = store.present(task, rater_id=rater.id, session_id=session, layout="x")
        store.judge(shown.id, prefer(0), latency_ms=1)
        assert store.snapshot_hash() != before
    assert execute(project, run).status == "finished"
    assert run.result()["labels"] == before
    assert run.result()["heldout"] == run_of(finished).result()["heldout"]


# -- what it came to ------------------------------------------------------------------------------


def test_the_report_holds_every_part(finished: Project) -> None:
    run = run_of(finished)
    report = load_report(run.path)
    assert report is not None
    assert report.run == run.name
    assert report.crossvalidated_by == "lora"
    assert report.crossvalidated is not None
    assert report.crossvalidated.rate.n == report.labels.train_pairs
    assert report.heldout is not None
    assert report.heldout.rate.n == report.labels.heldout_pairs - report.labels.heldout_ties
    assert report.ensemble is not None
    assert report.ensemble.members == 2
    assert report.ensemble.mean_spread > 0
    assert len(report.curve.points) == 4 if report.curve else False
    assert len(report.preview) == 1
    assert [choice.n for choice in report.preview[0].choices] == [1, 4, 16]
    scores = [choice.score for choice in report.preview[0].choices]
    assert scores == sorted(scores)
    assert report.normalisation.of == "reference completions"
    assert report.normalisation.n == 8
    result = run.result()
    assert result["mean"] == report.normalisation.mean
    assert result["deviation"] == report.normalisation.deviation
    assert result["verdict"] == report.verdict.level
    assert report.verdict.level in ("not_yet", "broken", "narrow")  # a random model cannot be ready
    assert (finished.root / result["report"]).read_text().startswith("# ")
    assert report.disagreements
    with finished.store() as store:
        there = {one.id for one in store.judgements()}
    assert {one.judgement_id for one in report.disagreements} <= there


def test_the_models_of_folds_and_ensemble_differ_and_leave_the_main_one_alone(finished: Project) -> None:
    fits = run_of(finished).path / "fits"
    names = sorted(path.name for path in fits.iterdir())
    assert names == ["fold-0", "fold-1", "member-1", "member-2"]
    heads = {name: (fits / name / "adapter" / "head.safetensors").read_bytes() for name in names}
    assert len(set(heads.values())) == 4
    assert (finished.adapter("reward") / "head.safetensors").read_bytes() == heads["member-1"]


# -- who may use it -------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["model.system_prompt=Be kind.", "model.chat_template=other.jinja"])
def test_scoring_under_another_template_is_refused(change: str, finished: Project, tmp_path: Path) -> None:
    from rlhf_tui.model.chat import CHATML

    template = tmp_path / "other.jinja"
    template.write_text(CHATML.replace("assistant\n", "assistant:\n"))
    run = create_run(finished, "ppo", overrides=[change.replace("other.jinja", str(template))])
    done = execute(finished, run)
    assert done.status == "failed"
    assert done.error is not None
    assert "chat template" in done.error["what"]
    assert "train reward" in done.error["todo"]


def test_ppo_takes_the_scores_in_the_reports_units(finished: Project) -> None:
    run = create_run(finished, "ppo")
    assert execute(finished, run).status == "finished"
    values = [one.values for one in events(run) if isinstance(one, Metric) and "score_raw" in one.values]
    report = load_report(run_of(finished).path)
    assert report is not None
    normal = (values[0]["score_raw"] - report.normalisation.mean) / report.normalisation.deviation
    penalty = finished.settings().ppo.missing_eos_penalty * (1 - values[0]["eos_rate"])
    assert values[0]["score"] == pytest.approx(normal - penalty, abs=1e-3)


def test_a_rater_nobody_knows_is_refused_before_anything_is_trained(finished: Project) -> None:
    run = create_run(finished, "reward", overrides=["reward.raters=demi"])
    done = execute(finished, run)
    assert done.status == "failed"
    assert done.error is not None
    assert "demi" in done.error["what"]
    assert "demo" in done.error["why"]
    assert not any(isinstance(one, Stage) and one.name == "loading the model" for one in events(run))
    assert not (run.path / "snapshot.jsonl").exists()
    with pytest.raises(UserError):
        snapshots.read(run.path / "snapshot.jsonl")


def test_held_out_prompts_that_are_all_too_long_cost_only_the_preview(tiny_folder: Path, tmp_path: Path) -> None:
    quick = ("adapters.rank=4", "reward.epochs=1", "reward.ensemble=1", "reward.reference_completions=4")
    small = ("model.max_prompt_tokens=64", "ppo.max_new_tokens=4", "run.threads=1", f"model.name={tiny_folder}")
    project = create_project(tmp_path / "p", overrides=(*quick, *small))
    rows = [{"prompt": f"Number {n}?", "chosen": f"It is {n}.", "rejected": "No.", "split": "train"} for n in range(12)]
    rows.append({"prompt": "long " * 500, "chosen": "Yes.", "rejected": "No.", "split": "heldout"})
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with project.store() as store:
        store.add_rater("me", kind="human", card={})
        import_labels(store, labels, rater="me", heldout_fraction=0.2)
    run = create_run(project, "reward")
    done = execute(project, run)
    assert done.status == "finished", done
    assert done.result["pairs_too_long"] == 1
    report = load_report(run.path)
    assert report is not None
    assert report.preview == ()
    assert report.normalisation.n == 4
