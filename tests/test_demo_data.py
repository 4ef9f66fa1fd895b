"""The demo's data: enough of it, held-out prompts really held out, and imported like any user's labels."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from rlhf_tui.demo import SETTINGS, STAGES, create_demo_project
from rlhf_tui.project import Project
from rlhf_tui.runs.preflight import KINDS
from rlhf_tui.settings import changed, parse_override

DATA = files("rlhf_tui.demo")


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in DATA.joinpath(name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return create_demo_project(tmp_path_factory.mktemp("demo") / "demo")


def test_there_are_enough_prompts_of_every_kind_and_no_two_are_the_same() -> None:
    prompts = rows("prompts.jsonl")
    assert len(prompts) >= 240
    assert len({str(row["prompt"]).casefold() for row in prompts}) == len(prompts)
    kinds = Counter(row["kind"] for row in prompts)
    assert set(kinds) == {"question", "advice", "writing", "explain", "refuse"}
    assert min(kinds.values()) >= 30


def test_held_out_prompts_share_no_wording_with_training_prompts() -> None:
    def words(text: object) -> frozenset[str]:
        return frozenset(word for word in str(text).lower().replace("?", "").replace(".", "").split() if len(word) > 3)

    split: dict[str, list[frozenset[str]]] = {"train": [], "heldout": []}
    for row in rows("prompts.jsonl"):
        split[str(row["split"])].append(words(row["prompt"]))
    for held in split["heldout"]:
        for trained in split["train"]:
            shared = len(held & trained) / max(1, len(held | trained))
            assert shared < 0.7, (held, trained)


def test_at_least_two_hundred_pairs_are_decided_and_every_judgement_has_its_reason() -> None:
    judged = rows("pairs.jsonl")
    assert sum(row["outcome"] == "ordered" for row in judged) >= 200
    assert all(str(row["note"]).strip() for row in judged)
    better = Counter(row["better"] for row in judged if row["outcome"] == "ordered")
    assert abs(better[0] - better[1]) < 0.2 * sum(better.values()), "the sides were not shuffled"


def test_the_project_holds_all_of_it_and_keeps_the_splits_apart(project: Project) -> None:
    with project.store() as store:
        counts = store.counts()
        train = {pair.prompt.uid for pair in store.pairs("train")}
        heldout = {pair.prompt.uid for pair in store.pairs("heldout")}
        guideline = store.guideline()
        raters = store.raters()
    assert counts.prompts == len(rows("prompts.jsonl"))
    assert counts.pairs >= 200
    assert train
    assert heldout
    assert not train & heldout
    declared = {row["prompt"]: row["split"] for row in rows("prompts.jsonl")}
    with project.store() as store:
        assert all(declared[prompt.text] == prompt.split for prompt in store.prompts())
    assert guideline is not None
    assert "at most two sentences" in guideline.body_md
    assert [(rater.handle, rater.kind) for rater in raters] == [("demo", "model")]
    assert "not a person" in str(raters[0].card)


def test_the_demo_settings_are_ordinary_settings_and_its_stages_ordinary_runs(project: Project) -> None:
    expected = dict(parse_override(text) for text in SETTINGS)
    assert changed(project.settings()).items() <= expected.items()
    assert set(STAGES) <= set(KINDS)
    assert set(KINDS) - set(STAGES) == {"download", "chat"}  # which a person asks for by themselves


def test_making_it_where_something_lies_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(Exception, match="not empty"):
        create_demo_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
