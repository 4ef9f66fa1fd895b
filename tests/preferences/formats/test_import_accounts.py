"""Every row of a file is imported, there already, or left out with a reason that is counted: none just vanishes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import import_labels, preview
from rlhf_tui.preferences.formats.importing import open_reading
from rlhf_tui.preferences.formats.readers import READERS
from rlhf_tui.preferences.formats.regrouping import gather
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Message, NewPrompt, Verdict
from rlhf_tui.preferences.store import Store

PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
TOO_FEW = "fewer than two ranked answers"
UNRANKED = "a candidate without a rank, whose group is kept without it"


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def counted(path: Path, format: str) -> tuple[int, dict[str, int]]:
    """How many judgements a file holds, also when that is none, and what is dropped."""
    reading = open_reading(path, format=format, mapping=None)
    return sum(1 for _ in reading.labels()), dict(reading.dropped)


def test_a_row_that_its_reader_makes_nothing_of_is_counted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = READERS["trl-text"]
    careless = dataclasses.replace(
        known, read=lambda row, context: known.read(row, context) if row["chosen"] == "good" else []
    )
    monkeypatch.setitem(READERS, "trl-text", careless)
    report = import_labels(store, write(tmp_path, PAIR, {**PAIR, "chosen": "other"}, PAIR), heldout_fraction=0.2)
    assert (report.pairs, report.duplicates, report.rows) == (1, 1, 3)
    assert report.dropped == {"a row that judges nothing": 1}


def test_the_check_of_spoilt_rows_notices_a_row_that_vanishes(
    unbreakable: Callable[[str, dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    unbreakable("trl-text", PAIR)
    forgetful = dataclasses.replace(READERS["trl-text"], prepare=lambda rows: islice(rows, 1))
    monkeypatch.setitem(READERS, "trl-text", forgetful)
    with pytest.raises(AssertionError, match="this row vanished"):
        unbreakable("trl-text", PAIR)


def message(name: str, parent: str | None, rank: int | None = None, **known: Any) -> dict[str, Any]:
    role = "assistant" if rank is not None or known.pop("answer", False) else "prompter"
    return {"message_id": name, "parent_id": parent, "text": name, "role": role, "rank": rank, **known}


def nested(name: str, *replies: dict[str, Any], rank: int | None = None, role: str = "assistant") -> dict[str, Any]:
    return {"message_id": name, "text": name, "role": role, "rank": rank, "replies": list(replies)}


FORK = (message("a", "q", 0), message("b", "q", 1))


@pytest.mark.parametrize(
    ("format", "rows", "judgements", "dropped"),
    [
        ("pandalm", [{"instruction": "q", "response1": "a", "response2": "b"}], 0, {"no answer given by the rater": 1}),
        ("ziegler", [{"query": "q", "sample0": "a", "best": 0}], 0, {TOO_FEW: 1}),
        ("axolotl-nectar", [{"prompt": "q", "answers": []}], 0, {TOO_FEW: 1}),
        (
            "axolotl-nectar",
            [{"prompt": "q", "answers": [{"answer": text, "rank": rank} for text, rank in
                                         (("a", 1), ("b", None), ("c", 2), ("d", float("nan")))]}],
            1,
            {UNRANKED: 2},
        ),
        ("rankings", [{"prompt": "q", "completions": [{"text": "a", "rank": 1}, {"text": "b"},
                                                      {"text": "c", "rank": 0}]}], 1, {UNRANKED: 1}),
        # a tree: of one message; with one answer; with answers of which one is ranked; with one too many
        ("oasst", [nested("q", role="prompter")], 0, {TOO_FEW: 1}),
        ("oasst", [nested("q", nested("a", rank=0), role="prompter")], 0, {TOO_FEW: 1}),
        ("oasst", [nested("q", nested("a", rank=0), nested("b"), role="prompter")], 0, {TOO_FEW: 1}),
        ("oasst", [nested("q", nested("a", rank=0), nested("b", rank=1), nested("c"), role="prompter")],
         1, {UNRANKED: 1}),
        # a second fork of a tree that is used nevertheless
        ("oasst", [nested("q", nested("a", nested("r", nested("x"), nested("y"), role="prompter"), rank=0),
                          nested("b", rank=1), role="prompter")], 1, {TOO_FEW: 1}),
        # flat messages: a tree without a choice is all its rows
        ("oasst", [message("q", None), message("a", "q", 0), message("r", "a")], 0, {TOO_FEW: 3}),
        ("oasst", [message("q", None), message("a", "q", answer=True), message("b", "q", 1)], 0, {TOO_FEW: 3}),
        ("oasst", [message("q", None), *FORK, message("q", None), *FORK], 1,
         {"a message that is in the file already": 3}),
        ("oasst", [message("q", None), *FORK, message("x", "y"), message("y", "x", 0), message("z", "z")], 1,
         {"an answer whose conversation is not in the file": 3}),
        ("oasst", [message("a", "q", 0), message("r", "a"), message("x", "r", 0), message("y", "r", 1)], 0,
         {"an answer whose conversation is not in the file": 4}),
    ],
)  # fmt: skip
def test_what_gives_no_judgement_is_counted_by_rows(
    tmp_path: Path, format: str, rows: list[dict[str, Any]], judgements: int, dropped: dict[str, int]
) -> None:
    assert counted(write(tmp_path, *rows), format) == (judgements, dropped)


def test_a_file_without_a_judgement_says_what_became_of_its_rows_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no usable judgement") as caught:
        preview(write(tmp_path, message("q", None), message("a", "q", 0)))
    assert f"{TOO_FEW} (2)" in caught.value.why
    assert "it has messages of a tree" in caught.value.why
    assert "name another one" in caught.value.todo
    assert "Nothing was imported" in caught.value.todo


# Marks that are put together


class Watched(str):
    """A text that counts how often it is looked at for being the same as another one."""

    looks = 0

    def strip(self, chars: str | None = None) -> str:
        Watched.looks += 1
        return str.strip(self, chars)


def marks(texts: list[str]) -> list[ImportedLabel]:
    prompt = NewPrompt((Message("user", "q"),), "made up")
    verdict = Verdict("accepted", accepted=(True,))
    return [ImportedLabel(prompt, (ImportedCandidate(text),), "accept", verdict) for text in texts]


@pytest.mark.parametrize("size", [100, 400])
def test_many_marks_on_one_prompt_are_each_looked_at_once(size: int) -> None:
    Watched.looks = 0
    (task,) = gather(marks([Watched(f"answer {number}") for number in range(size)]))
    assert len(task.candidates) == len(task.verdict.accepted) == size
    assert Watched.looks == size


def test_a_text_that_comes_again_begins_a_task_and_may_come_again_in_it(tmp_path: Path) -> None:
    tasks = [[one.text for one in task.candidates] for task in gather(marks(["a", "b", "a", "c", "b", " a", "d"]))]
    assert tasks == [["a", "b"], ["a", "c", "b"], [" a", "d"]]
    rows = [{"prompt": "q", "completion": text, "label": True} for text in "abac"]
    assert [len(label.candidates) for label in preview(write(tmp_path, *rows)).labels] == [2, 2]
