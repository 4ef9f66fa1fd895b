"""Everybody's word for a split is read by every reader, and one that nobody knows is said to have been passed over."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.preferences.formats import import_labels, preview
from rlhf_tui.preferences.formats.fields import split
from rlhf_tui.preferences.store import Store

Q, A, B = "q", "a", "b"
USER = {"role": "user", "content": Q}
GOOD, BAD = {"role": "assistant", "content": A}, {"role": "assistant", "content": B}
NOTE = "prompts in a split of another name than train, test and their like: the project decides"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        *dict.fromkeys(("train", "Train", " training "), "train").items(),
        *dict.fromkeys(("heldout", "held-out", "Held out", "HELD_OUT", "holdout", "test", "validation", "valid",
                        "valid2", "val", "dev", "eval", "evaluation", "test_1"), "heldout").items(),
        *dict.fromkeys((None, "", "nan", "fold 3", "trains", 7, True, 1.5, ("train",)), None).items(),
    ],
)  # fmt: skip
def test_words_for_a_split(word: Any, found: str | None) -> None:
    assert split(word) == found


def blocks(message: dict[str, str]) -> dict[str, Any]:
    return {"role": message["role"], "content": [{"type": "text", "value": message["content"]}]}


def node(name: str, role: str, rank: int | None, *replies: dict[str, Any]) -> dict[str, Any]:
    return {"message_id": name, "text": name, "role": role, "rank": rank, "replies": list(replies)}


TREE = node(Q, "prompter", None, node(A, "assistant", 0), node(B, "assistant", 1))
FLAT = [
    {"message_id": name, "parent_id": parent, "text": name, "role": role, "rank": rank}
    for name, parent, role, rank in ((Q, None, "prompter", None), (A, Q, "assistant", 0), (B, Q, "assistant", 1))
]
ANNOTATION = {"result": [{"type": "pairwise", "value": {"selected": "left"}}], "completed_by": 1}

#: A file of each format; for most its one row, for Label Studio its data.
FILES: dict[str, list[dict[str, Any]]] = {
    "trl": [{"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}],
    "trl-implicit": [{"chosen": [USER, GOOD], "rejected": [USER, BAD]}],
    "trl-text": [{"prompt": Q, "chosen": A, "rejected": B}],
    "trl-unpaired": [{"prompt": Q, "completion": A, "label": True}],
    "hh": [{"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {B}"}],
    "llamafactory-alpaca": [{"instruction": Q, "output": [A, B]}],
    "llamafactory-sharegpt": [
        {"conversations": [{"from": "human", "value": Q}], "chosen": {"from": "gpt", "value": A},
         "rejected": {"from": "gpt", "value": B}}
    ],
    "llamafactory-kto": [{"messages": [USER, GOOD], "label": True}],
    "llamafactory-v1": [{"chosen_messages": [blocks(USER), blocks(GOOD)],
                         "rejected_messages": [blocks(USER), blocks(BAD)]}],
    "axolotl": [{"messages": [USER], "chosen": GOOD, "rejected": BAD}],
    "axolotl-intel": [{"question": Q, "chosen": A, "rejected": B}],
    "axolotl-rm": [{"input": Q, "chosen": A, "rejected": B}],
    "ms-swift": [{"messages": [USER, GOOD], "rejected_response": B}],
    "openrlhf": [{"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}],
    "rewardbench": [{"prompt": Q, "chosen": A, "rejected": B, "chosen_model": "m"}],
    "axolotl-nectar": [{"prompt": Q, "answers": [{"answer": A, "rank": 1}, {"answer": B, "rank": 2}]}],
    "rankings": [{"prompt": Q, "completions": [{"text": A, "rank": 1}, {"text": B, "rank": 2}]}],
    "oasst": [{"message_tree_id": Q, "prompt": TREE}],
    "ziegler": [{"query": Q, "sample0": A, "sample1": B, "best": 0}],
    "helpsteer": [{"prompt": Q, "response": A, "helpfulness": 4}],
    "summarize": [{"info": {"article": Q}, "summaries": [{"text": A}, {"text": B}], "choice": 0}],
    "arena": [{"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "tie"}],
    "alpacaeval": [{"instruction": Q, "output_1": A, "output_2": B, "preference": 1}],
    "pandalm": [{"instruction": Q, "response1": A, "response2": B, "annotator1": 1}],
    "shp": [{"history": Q, "human_ref_A": A, "human_ref_B": B, "labels": 1}],
    "label-studio": [{"data": {"prompt": Q, "answer1": A, "answer2": B}, "annotations": [ANNOTATION]}],
    "potato": [{"prompt": Q, "responses": [A, B], "preference": {"selection": "A"}}],
    "table": [{"prompt": Q, "a": A, "b": B, "winner": "a"}],
}  # fmt: skip


def in_split(format: str, rows: list[dict[str, Any]], word: Any) -> list[dict[str, Any]]:
    return [
        {**row, "data": {**row["data"], "split": word}} if format == "label-studio" else {**row, "split": word}
        for row in rows
    ]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("format", "rows"),
    [*FILES.items(), ("arena", [{"prompt": Q, "response_a": A, "response_b": B, "winner_model_a": 1}]),
     ("oasst", [TREE]), ("oasst", FLAT), ("llamafactory-kto", [{"instruction": Q, "output": A, "kto_tag": True}])],
)  # fmt: skip
def test_every_reader_reads_the_split(store: Store, tmp_path: Path, format: str, rows: list[dict[str, Any]]) -> None:
    for word, expected in (("train", "train"), ("validation", "heldout"), ("fold 3", None), (None, None), ("", None)):
        path = write(tmp_path, in_split(format, rows, word))
        seen = preview(path, format=format)
        assert [label.prompt.split for label in seen.labels] == [expected], word
        assert seen.notes == ({NOTE: 1} if word == "fold 3" else {})
    report = import_labels(store, write(tmp_path, in_split(format, rows, "fold 3")), heldout_fraction=0.0)
    assert (report.notes, report.dropped) == ({NOTE: 1}, {})
    assert [prompt.split for prompt in store.prompts()] == ["train"]


def test_no_reader_is_missing_from_these_tests() -> None:
    from rlhf_tui.preferences.formats.readers import READERS

    assert set(READERS) - set(FILES) == {"rlhf-tui", "csv", "tsv", "parquet"}


def test_a_table_and_a_known_prompt(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["prompt", "chosen", "rejected", "split"], ["one", "a", "b", "test"], ["two", "a", "b", "Train"],
             ["one", "a", "c", "train"], ["two", "a", "d", "somewhere"]]
        )  # fmt: skip
    report = import_labels(store, path, heldout_fraction=0.0)
    assert {prompt.text: prompt.split for prompt in store.prompts()} == {"one": "heldout", "two": "train"}
    assert (report.pairs, report.split_conflicts, report.notes) == (4, 1, {NOTE: 1})
