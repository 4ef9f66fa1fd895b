"""The whole loop as a user starts it, on a tiny random model: same code as the demo, minutes become seconds."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer
from rlhf_tui.project import open_project
from rlhf_tui.runs.folder import list_runs

STRANGER = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch
answers = []
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "why is the sky blue"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answers.append(model(**ids).logits[0, -1].float().topk(5).values.tolist())
assert not [name for name in sys.modules if name.startswith("rlhf_tui")]
print(json.dumps(answers))
"""


def demo(folder: Path, model: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    overrides = [f"--set={text}" for text in (*settings, f"model.name={model}", "label.active_share=0.3")]
    outcome = subprocess.run(
        [sys.executable, "-m", "rlhf_tui", "demo", str(folder), "--headless", "--json", *overrides],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:] + outcome.stdout[-2000:]
    result: dict[str, Any] = json.loads(outcome.stdout)
    return result


@pytest.fixture(scope="module")
def twice(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, small_demo: tuple[str, ...]
) -> list[tuple[Path, dict[str, Any]]]:
    folders = [tmp_path_factory.mktemp("loop") / "demo" for _ in range(2)]
    return [(folder, demo(folder, tiny_folder, small_demo)) for folder in folders]


def test_every_stage_finishes_and_says_what_it_did(twice: list[tuple[Path, dict[str, Any]]]) -> None:
    folder, result = twice[0]
    assert result["status"] == "finished"
    assert result["generate"]["completions"] == 6
    assert result["reward"]["heldout"]["n"] >= 50
    assert {"accuracy", "low", "high", "shorter", "longer"} <= set(result["reward"]["heldout"])
    assert result["ppo"]["updates"] == 2
    assert result["compare"]["prompts"] == 6
    statuses = {run.kind: run.status() for run in list_runs(open_project(folder))}
    assert statuses == dict.fromkeys(("demo", "generate", "reward", "ppo", "compare", "export"), "finished")


def test_the_pairs_that_wait_are_scored_for_the_raters_queue(twice: list[tuple[Path, dict[str, Any]]]) -> None:
    with open_project(twice[0][0]).store() as store:
        waiting = store.waiting_pairs(100)
        assert waiting
        scores = store.scores()
        assert {side.id for _, sides in waiting for side in sides} <= set(scores)
        assert len(set(scores.values())) > 1
        assert all(math.isfinite(score) for score in scores.values())
        rater = store.add_rater("me")
        session = store.start_session(rater.id, columns=80, rows=24)
        offer = Queue(store, rater, Rules(active_share=0.3)).next()
        assert offer is not None
        shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="x")
        store.judge(shown.id, prefer(0), latency_ms=1)
        predicted = store.facts(rater.id)[0].predicted
    gap = scores[shown.shown[0].id] - scores[shown.shown[1].id]
    assert predicted == pytest.approx(1 / (1 + math.exp(-gap)))


def test_the_same_seed_gives_the_same_numbers(twice: list[tuple[Path, dict[str, Any]]]) -> None:
    first, second = ({**result, "export": result["export"]["check"]} for _, result in twice)
    for result in (first, second):
        for stage in ("reward", "ppo"):
            result[stage] = {name: found for name, found in result[stage].items() if name != "memory"}  # the machine's
    assert first == second
    weights = [Path(result["export"]["path"]) / "model.safetensors" for _, result in twice]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_stranger_loads_the_merged_model_and_it_is_not_the_base(
    twice: list[tuple[Path, dict[str, Any]]], tiny_folder: Path
) -> None:
    merged = twice[0][1]["export"]["path"]
    outcome = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tiny_folder), merged], capture_output=True, text=True, timeout=120
    )
    assert outcome.returncode == 0, outcome.stderr
    before, after = json.loads(outcome.stdout)
    assert before != after


def test_the_demo_called_again_only_reports(twice: list[tuple[Path, dict[str, Any]]], tiny_folder: Path) -> None:
    folder, result = twice[0]
    runs = [run.name for run in list_runs(open_project(folder))]
    again = subprocess.run(
        [sys.executable, "-m", "rlhf_tui", "demo", str(folder), "--headless", "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert json.loads(again.stdout) == result
    assert [run.name for run in list_runs(open_project(folder))] == runs
