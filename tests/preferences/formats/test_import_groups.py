"""Rankings, trees, marks and votes become the judgements they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats import Preview, preview
from rlhf_tui.preferences.records import ImportedLabel, Verdict, prefer, tied


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def look(folder: Path, *rows: Any, **how: Any) -> Preview:
    return preview(write(folder, *rows), rows=100, **how)


def texts(label: ImportedLabel) -> list[str]:
    return [one.text for one in label.candidates]


def said(label: ImportedLabel) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in label.prompt.messages]


Q = "q"


# Rankings


def test_nectar_ranks_one_best_and_equal_ranks_tied(tmp_path: Path) -> None:
    answers = [{"answer": text, "rank": rank, "model": f"m{rank}"} for text, rank in (("c", 4), ("a", 1), ("b", 1))]
    seen = look(tmp_path, {"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers})
    (label,) = seen.labels
    assert (seen.format, seen.comparisons) == ("axolotl-nectar", 2)
    assert (said(label), texts(label), label.verdict.ranks) == ([("user", "q")], ["c", "a", "b"], (2, 1, 1))
    assert [one.model for one in label.candidates] == ["m4", "m1", "m1"]


def test_empty_and_repeated_answers_leave_a_ranking_that_goes_on_without_them(tmp_path: Path) -> None:
    def row(*answers: tuple[str, int | None]) -> dict[str, Any]:
        return {"prompt": Q, "answers": [{"answer": text, "rank": rank} for text, rank in answers]}

    seen = look(
        tmp_path,
        row(("a", 1), ("", 2), ("b", 3), ("b ", 4), ("c", 5)),
        row(("a", 1), ("", 2)),
        row(("a", 1), ("a", 2)),
        row(("a", 1), ("b", None)),
        row(("a", 1), ("b", 1), ("c", 1)),
    )
    assert [(texts(label), label.verdict) for label in seen.labels] == [
        (["a", "b", "c"], Verdict("ordered", ranks=(1, 2, 3))),
        (["a", "b", "c"], tied(3)),
    ]
    assert seen.dropped == {
        "an empty candidate of a group, which is kept without it": 1,
        "a candidate that is twice in a group, which is kept with the first": 1,
        "an empty candidate": 1,
        "identical candidates": 1,
        "fewer than two ranked answers": 1,
    }


def node(text: str, role: str, *replies: dict[str, Any], **known: Any) -> dict[str, Any]:
    return {"message_id": text, "text": text, "role": role, "replies": list(replies), **known}


def tree() -> dict[str, Any]:
    deep = node("r", "prompter", node("x", "assistant", rank=1), node("y", "assistant", rank=0))
    return node(
        Q,
        "prompter",
        node("good", "assistant", deep, rank=0, model_name="m"),
        node("bad", "assistant", rank=1),
        node("gone", "assistant", rank=2, deleted=True),
        node("unranked", "assistant", rank=None),
    )


def flat(found: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    own = {key: value for key, value in found.items() if key != "replies"} | {"parent_id": parent}
    return [own, *(row for reply in found["replies"] for row in flat(reply, found["message_id"]))]


@pytest.mark.parametrize(
    "rows",
    [
        [{"message_tree_id": Q, "tree_state": "ready_for_export", "prompt": tree()}],
        [tree()],
        flat(tree()),
        flat(tree())[::-1],
    ],
)
def test_every_ranked_fork_of_a_tree_is_a_ranking(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    seen = look(tmp_path, *rows)
    assert (seen.format, seen.kinds, seen.comparisons) == ("oasst", {"rankings": 2}, 2)
    found = {tuple(said(label)): dict(zip(texts(label), label.verdict.ranks, strict=True)) for label in seen.labels}
    assert found == {
        (("user", Q),): {"good": 1, "bad": 2},
        (("user", Q), ("assistant", "good"), ("user", "r")): {"x": 2, "y": 1},
    }


def test_an_answer_whose_conversation_is_missing_is_counted(tmp_path: Path) -> None:
    seen = look(tmp_path, *[row for row in flat(tree()) if row["message_id"] != "r"])
    assert (seen.kinds, seen.dropped) == (
        {"rankings": 1},
        {
            "a candidate without a rank, whose group is kept without it": 1,
            "an answer whose conversation is not in the file": 2,
        },
    )


def test_rankings_with_the_least_rank_best(tmp_path: Path) -> None:
    completions = [{"text": "a", "rank": 1, "model_name": "m"}, {"text": "b", "rank": 0}]
    (label,) = look(tmp_path, {"prompt": [user(Q)], "completions": completions}).labels
    assert (label.kind, label.verdict.ranks, label.candidates[0].model) == ("rank", (2, 1), "m")


def test_the_best_of_four_beats_each_other_and_says_nothing_of_them(tmp_path: Path) -> None:
    row = {"query": Q, "sample0": "a", "sample1": "b", "sample2": "c", "sample3": "d", "best": 2}
    seen = look(tmp_path, row)
    assert (seen.format, seen.kinds) == ("ziegler", {"pairs": 3})
    assert [texts(label) for label in seen.labels] == [["c", "a"], ["c", "b"], ["c", "d"]]


def test_token_numbers_are_decoded_by_tiktoken_or_the_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"query": [1, 2, 50259], "sample0": [3], "sample1": [4, 50256], "best": 0}
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(UserError, match="token numbers") as caught:
        look(tmp_path, row)
    assert "pip install tiktoken" in caught.value.todo
    words = {1: "What", 2: " now?", 3: "This", 4: "That"}
    encoding = SimpleNamespace(decode=lambda tokens: "".join(words[token] for token in tokens))
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=lambda name: {"gpt2": encoding}[name]))
    (label,) = look(tmp_path, row).labels
    assert (said(label), texts(label)) == ([("user", "What now?")], ["This", "That"])


# Marks


def test_helpsteer_marks_of_one_prompt_are_one_task(tmp_path: Path) -> None:
    def row(prompt: str, response: str, helpfulness: int | None) -> dict[str, Any]:
        return {"prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": 4, "verbosity": 2}

    talk = "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nc"
    seen = look(tmp_path, row(Q, "x", 0), row(Q, "y", 4), row(talk, "z", 2), row(Q, "w", 7), row(Q, "v", None))
    assert seen.format == "helpsteer"
    assert [(said(label), texts(label), label.verdict) for label in seen.labels] == [
        ([("user", Q)], ["x", "y"], Verdict("rated", ratings=(1, 5))),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], ["z"], Verdict("rated", ratings=(3,))),
    ]
    assert seen.dropped == {"a mark outside the scale": 1, "no answer given by the rater": 1}


# Votes


def battle(winner: str, **fields: Any) -> dict[str, Any]:
    return {
        "question_id": "1",
        "model_a": "m",
        "model_b": "n",
        "winner": winner,
        "judge": "expert_1",
        "conversation_a": [user(Q), assistant("a"), user("r"), assistant("c")],
        "conversation_b": [user(Q), assistant("b"), user("r"), assistant("d")],
        "turn": 1,
        **fields,
    }


@pytest.mark.parametrize(
    ("winner", "verdict"),
    [
        ("model_a", prefer(0)),
        ("model_b", prefer(1)),
        ("tie", tied()),
        ("tie (bothbad)", Verdict("both_bad")),
        ("both_bad", Verdict("both_bad")),
    ],
)
def test_arena_votes_keep_ties_both_bad_models_and_judge(tmp_path: Path, winner: str, verdict: Verdict) -> None:
    seen = look(tmp_path, battle(winner))
    (label,) = seen.labels
    assert (seen.format, said(label), texts(label)) == ("arena", [("user", Q)], ["a", "b"])
    assert (label.verdict, label.rater, label.layout) == (verdict, "expert_1", "file")
    assert [one.model for one in label.candidates] == ["m", "n"]


def test_arena_votes_on_conversations_that_went_apart_are_counted(tmp_path: Path) -> None:
    rows = [battle("tie"), battle("model_a", turn=2), battle(""), battle("model_a", judge=["gpt-4", "pair-v2"])]
    seen = look(tmp_path, *rows)
    assert seen.dropped == {"different prompts": 1, "no answer given by the rater": 1}
    assert [label.rater for label in seen.labels] == ["expert_1", "gpt-4/pair-v2"]
    with pytest.raises(UsageError, match=r"line 2.*\n.*model_c"):
        look(tmp_path, battle("tie"), battle("model_c"))


def test_the_flat_tables_of_the_arena(tmp_path: Path) -> None:
    row = {
        "id": 1, "model_a": "m", "model_b": "n", "prompt": json.dumps([Q]), "response_a": json.dumps(["a"]),
        "response_b": json.dumps(["b"]), "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1,
    }  # fmt: skip
    rows = [row, {**row, "winner_tie": 0, "winner_model_b": 1, "response_a": "[not JSON"}]
    one, other = look(tmp_path, *rows).labels
    assert (said(one), texts(one), one.verdict) == ([("user", Q)], ["a", "b"], tied())
    assert (texts(other), other.verdict) == (["[not JSON", "b"], prefer(1))


@pytest.mark.parametrize(
    ("preference", "verdict"),
    [(1, prefer(0)), (2.0, prefer(1)), (1.5, tied()), (0, tied()), (1.01, prefer(0)), (1.98, prefer(1))],
)
def test_alpacaeval_annotations(tmp_path: Path, preference: float, verdict: Verdict) -> None:
    row = {
        "instruction": Q, "output_1": "a", "output_2": "b", "generator_1": "m", "generator_2": "n",
        "annotator": "somebody", "preference": preference, "dataset": "d",
    }  # fmt: skip
    seen = look(tmp_path, row, {**row, "preference": None}, {**row, "preference": float("nan")})
    (label,) = seen.labels
    assert (seen.format, said(label), texts(label)) == ("alpacaeval", [("user", Q)], ["a", "b"])
    assert (label.verdict, label.rater) == (verdict, "somebody")
    assert seen.dropped == {"no answer given by the rater": 2}
    with pytest.raises(UsageError, match=r"line 1.*\n.*preference"):
        look(tmp_path, {**row, "preference": 3})


def test_pandalm_has_one_judgement_for_each_annotator(tmp_path: Path) -> None:
    row = {
        "instruction": "do", "input": float("nan"), "response1": "a", "response2": True, "annotator1": 0,
        "annotator2": 1, "annotator3": None,
    }  # fmt: skip
    seen = look(tmp_path, row, {**row, "input": "this", "annotator3": 2})
    assert [(label.rater, label.verdict) for label in seen.labels] == [
        ("annotator1", tied()), ("annotator2", prefer(0)),
        ("annotator1", tied()), ("annotator2", prefer(0)), ("annotator3", prefer(1)),
    ]  # fmt: skip
    assert {tuple(texts(label)) for label in seen.labels} == {("a", "True")}
    assert [said(label)[0][1] for label in seen.labels] == ["do"] * 2 + ["do\nthis"] * 3
    assert (seen.format, seen.dropped) == ("pandalm", {"no answer given by the rater": 1})


def test_shp_says_one_when_a_is_better(tmp_path: Path) -> None:
    row = {"history": Q, "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 9, "score_B": 4}
    seen = look(tmp_path, row, {**row, "labels": 0})
    assert (seen.format, [label.verdict for label in seen.labels]) == ("shp", [prefer(0), prefer(1)])


def summary(choice: int, confidence: int | None, **fields: Any) -> dict[str, Any]:
    return {
        "info": {"id": "1", "post": "p", "title": "t", "subreddit": "s"},
        "summaries": [{"text": " a", "policy": "m", "note": None}, {"text": " b", "policy": "n", "note": "vague"}],
        "choice": choice, "worker": "w1", "split": "train", "extra": {"confidence": confidence}, **fields,
    }  # fmt: skip


def test_summaries_keep_worker_policy_note_and_confidence(tmp_path: Path) -> None:
    rows = [summary(0, 1), summary(0, 4), summary(1, 8, split="valid1"), summary(1, None)]
    seen = look(tmp_path, *rows)
    assert seen.format == "summarize"
    assert [label.verdict for label in seen.labels] == [prefer(0, 2), prefer(0), prefer(1, 2), prefer(1)]
    assert [label.prompt.split for label in seen.labels] == ["train", "train", "heldout", "train"]
    label = seen.labels[0]
    assert said(label) == [("user", "SUBREDDIT: r/s\n\nTITLE: t\n\nPOST: p\n\nTL;DR:")]
    assert (label.rater, label.note, texts(label)) == ("w1", "second: vague", [" a", " b"])
    assert [one.model for one in label.candidates] == ["m", "n"]
    (news,) = look(tmp_path, summary(0, None, info={"id": "1", "article": "News.", "title": "t"})).labels
    assert said(news) == [("user", "Article:\n\nNews.\n\nTL;DR:")]


# Whatever is in a field

SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("axolotl-nectar", {"prompt": Q, "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}),
    ("rankings", {"prompt": Q, "completions": [{"text": "a", "rank": 1}, {"text": "b", "rank": 2}]}),
    ("oasst", tree()),
    ("oasst", {"message_tree_id": Q, "prompt": tree()}),
    ("oasst", flat(tree())[0]),
    ("ziegler", {"query": Q, "sample0": "a", "sample1": "b", "best": 1}),
    ("helpsteer", {"prompt": Q, "response": "a", "helpfulness": 2}),
    ("arena", battle("tie")),
    ("arena", {"model_a": "m", "model_b": "n", "prompt": "[]", "response_a": "[]", "response_b": "x",
               "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}),
    ("alpacaeval", {"instruction": Q, "output_1": "a", "output_2": "b", "preference": 1, "annotator": "x"}),
    ("pandalm", {"instruction": Q, "input": "", "response1": "a", "response2": "b", "annotator1": 1}),
    ("shp", {"history": Q, "human_ref_A": "a", "human_ref_B": "b", "labels": 1}),
    ("summarize", summary(1, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row"), SHAPES)
def test_no_field_whatever_it_holds_breaks_more_than_its_row(
    unbreakable: Callable[[str, dict[str, Any]], None], format: str, row: dict[str, Any]
) -> None:
    unbreakable(format, row)
