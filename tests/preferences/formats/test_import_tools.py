"""What Label Studio and Potato write becomes the judgements it is, by usual names or by a mapping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import Preview, preview
from rlhf_tui.preferences.records import ImportedLabel, Verdict, prefer, tied


def look(folder: Path, *rows: Any, **how: Any) -> Preview:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return preview(path, rows=100, **how)


def texts(label: ImportedLabel) -> list[str]:
    return [one.text for one in label.candidates]


def said(label: ImportedLabel) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in label.prompt.messages]


Q = "q"


# Label Studio


def task(*annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 1, "data": data or {"prompt": Q, "answer1": "a", "answer2": "b"}, "annotations": list(annotations)}


def annotation(selected: str | None, by: Any = 2, *, cancelled: bool = False) -> dict[str, Any]:
    result = [{"type": "pairwise", "value": {"selected": selected}, "from_name": "c"}] if selected else []
    return {"completed_by": by, "result": result, "was_cancelled": cancelled, "lead_time": 12.51}


def test_label_studio_has_one_judgement_for_each_annotation(tmp_path: Path) -> None:
    rows = [
        task(annotation("left"), annotation("right", {"id": 3, "email": "ada@example.org"})),
        task(annotation("left", cancelled=True), annotation(None)),
        task(),
    ]
    seen = look(tmp_path, *rows)
    assert [(label.rater, label.verdict, label.latency_ms, label.layout) for label in seen.labels] == [
        ("label-studio 2", prefer(0), 12510, "file"),
        ("label-studio 3", prefer(1), 12510, "file"),
    ]
    assert (seen.format, texts(seen.labels[0])) == ("label-studio", ["a", "b"])
    assert seen.dropped == {"skipped by the rater": 1, "no answer given by the rater": 2}


def test_label_studio_fields_with_names_of_their_own_are_mapped_and_never_guessed(tmp_path: Path) -> None:
    row = task(annotation("right"), context="x", left_one="a", right_one="b")
    with pytest.raises(UsageError, match="not clear") as caught:
        look(tmp_path, row)
    assert "left_one" in caught.value.why
    assert "prompt=THEIRS" in caught.value.todo
    (label,) = look(tmp_path, row, mapping={"prompt": "context", "a": "left_one", "b": "right_one"}).labels
    assert (said(label), texts(label), label.verdict) == ([("user", "x")], ["a", "b"], prefer(1))
    with pytest.raises(UsageError, match="cannot be mapped"):
        look(tmp_path, row, mapping={"chosen": "left_one"})


# Potato


def item(answer: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "1", "prompt": Q, "responses": ["a", "b"], "user_id": "u", **answer, **fields}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"preference": {"selection": "A"}}, prefer(0)),
        ({"preference": {"selection": "B"}}, prefer(1)),
        ({"preference": {"selection": "tie"}}, tied()),
        ({"labels": {"preference": {"selection": "B"}}}, prefer(1)),
        ({"labels": {"preference_scale": {"scale_value": "-2"}}}, prefer(0, 2)),
        ({"annotations": {"p": {"scale_value": 1}}}, prefer(1)),
        ({"annotations": {"p": {"scale_value": "0"}}}, tied()),
        ({"preference": {"selection": "A"}, "helpfulness": {"selection": "B"}}, prefer(0)),
    ],
)
def test_potato_answers_beside_their_items(tmp_path: Path, answer: dict[str, Any], verdict: Verdict) -> None:
    seen = look(tmp_path, item(answer))
    (label,) = seen.labels
    assert (seen.format, said(label), texts(label)) == ("potato", [("user", Q)], ["a", "b"])
    assert (label.verdict, label.rater) == (verdict, "u")


def test_potato_files_that_do_not_say_enough_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in the file"):
        look(tmp_path, item({"preference": {"selection": "A"}}, responses=None))
    both = {"honesty": {"selection": "A"}, "help": {"selection": "B"}}
    with pytest.raises(UsageError, match="several answers"):
        look(tmp_path, item(both))
    (label,) = look(tmp_path, item(both), mapping={"winner": "help"}).labels
    assert label.verdict == prefer(1)
    with pytest.raises(UsageError, match="middle of the scale"):
        look(tmp_path, *[item({"p": {"scale_value": value}}) for value in (1, 2, 3, 5, 6)])


# Mappings


@pytest.mark.parametrize(
    ("mapping", "what", "todo"),
    [
        ({"a": "answer1"}, "'a' is mapped and 'b' is not", "a=answer1,b=THEIRS"),
        ({"b": "answer1"}, "'b' is mapped and 'a' is not", "b=answer1,a=THEIRS"),
        ({"a": "answer1", "b": "answer3"}, "no field 'answer3' for 'b'", "Map 'b' to a field that is there"),
        ({"prompt": "promt"}, "no field 'promt' for 'prompt'", "Map 'prompt' to a field that is there"),
        ({"winner": "best"}, "no question 'best' for 'winner'", "Map 'winner' to a question that is there"),
        ({"winner": "c", "strength": "c"}, "'strength' cannot be mapped", "prompt, a, b, winner"),
    ],
)
@pytest.mark.parametrize("tool", ["label-studio", "potato"])
def test_a_mapping_that_cannot_be_followed_is_refused_by_name(
    tmp_path: Path, tool: str, mapping: dict[str, str], what: str, todo: str
) -> None:
    fields = {"prompt": Q, "answer1": "a", "answer2": "b"}
    rows = {
        "label-studio": task(annotation("left"), **fields),
        "potato": {**item({"c": {"selection": "A"}}), **fields},
    }
    with pytest.raises(UsageError, match=what) as caught:
        look(tmp_path, rows[tool], mapping=mapping)
    assert todo in caught.value.todo
    assert "Nothing was imported" in caught.value.todo


def asked(**answers: str) -> dict[str, Any]:
    """An annotation of several pairwise controls."""
    result = [{"type": "pairwise", "value": {"selected": side}, "from_name": name} for name, side in answers.items()]
    return {"completed_by": 2, "result": result, "was_cancelled": False}


def test_label_studio_answers_to_several_questions_need_one_named(tmp_path: Path) -> None:
    rows = [task(asked(helpful="left", harmless="right")), task(asked(helpful="right"))]
    with pytest.raises(UsageError, match="several answers") as caught:
        look(tmp_path, *rows)
    assert ("helpful, harmless" in caught.value.why, "winner=helpful" in caught.value.todo) == (True, True)
    seen = look(tmp_path, *rows, mapping={"winner": "harmless"})
    assert ([label.verdict for label in seen.labels], seen.dropped) == (
        [prefer(1)],
        {"no answer given by the rater": 1},
    )
    seen = look(tmp_path, *rows, mapping={"winner": "helpful"})
    assert [label.verdict for label in seen.labels] == [prefer(0), prefer(1)]


def test_label_studio_answers_to_one_question_given_twice_are_the_last(tmp_path: Path) -> None:
    twice = asked(c="left")
    twice["result"] += asked(c="right")["result"]
    assert look(tmp_path, task(twice)).labels[0].verdict == prefer(1)


def test_potato_sides_and_prompt_by_a_mapping(tmp_path: Path) -> None:
    row = {"frage": Q, "eins": "x", "zwei": "y", "user_id": "u", "p": {"selection": "B"}}
    mapping = {"prompt": "frage", "a": "eins", "b": "zwei"}
    seen = look(tmp_path, row, {**row, "zwei": None}, {**row, "frage": None}, mapping=mapping)
    (label,) = seen.labels
    assert (seen.format, said(label), texts(label), label.verdict) == ("potato", [("user", Q)], ["x", "y"], prefer(1))
    assert seen.dropped == {"an empty candidate": 1, "no prompt": 1}


# Whatever is in a field


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("label-studio", task(annotation("left"))),
        ("potato", item({"labels": {"preference": {"scale_value": "-2"}}})),
    ],
)
def test_no_field_whatever_it_holds_breaks_more_than_its_row(
    unbreakable: Callable[[str, dict[str, Any]], None], format: str, row: dict[str, Any]
) -> None:
    unbreakable(format, row)
