"""Every format's rows become the judgements they are, found by their keys; what is unusable is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import Preview, import_labels, preview
from rlhf_tui.preferences.records import ImportedLabel, Verdict, prefer
from rlhf_tui.preferences.store import Message, Store


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def blocks(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": 1.0}


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


Q, GOOD, BAD = "q", "good", "bad"
SIDES = {"chosen": GOOD, "rejected": BAD}

PREFERRED: list[tuple[str, dict[str, Any]]] = [
    ("trl", {"prompt": [user(Q)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}),
    ("trl-implicit", {"chosen": [user(Q), assistant(GOOD)], "rejected": [user(Q), assistant(BAD)]}),
    ("trl-text", {"prompt": Q, **SIDES}),
    ("trl", {"prompt": Q, "chosen": [user(Q), assistant(GOOD)], "rejected": [user(Q), assistant(BAD)]}),
    ("trl", {"prompt": Q, "messages": [user(Q), assistant(GOOD)], "chosen": [user(Q), assistant(GOOD)],
             "rejected": [user(Q), assistant(BAD)], "score_chosen": 9.0}),
    ("trl", {"prompt": {"role": ["user"], "content": [Q]}, "chosen": {"role": ["assistant"], "content": [GOOD]},
             "rejected": {"role": ["assistant"], "content": [BAD]}}),
    ("rewardbench", {"prompt": Q, **SIDES, "chosen_model": "m", "rejected_model": "n", "subset": "s", "id": 1}),
    ("hh", {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {GOOD}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {BAD}"}),
    ("trl-text", {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", **SIDES}),
    ("llamafactory-alpaca", {"instruction": Q, "input": "", **SIDES}),
    ("llamafactory-alpaca", {"instruction": Q, "input": "", "output": [GOOD, BAD]}),
    ("llamafactory-sharegpt", {"conversations": [human(Q)], "chosen": gpt(GOOD), "rejected": gpt(BAD)}),
    ("llamafactory-v1", {"chosen_messages": [blocks("user", Q), blocks("assistant", GOOD)],
                         "rejected_messages": [blocks("user", Q), blocks("assistant", BAD)]}),
    ("axolotl", {"messages": [user(Q)], "chosen": assistant(GOOD), "rejected": assistant(BAD)}),
    ("axolotl", {"messages": [user(Q)], **SIDES}),
    ("axolotl-intel", {"system": "", "question": Q, **SIDES}),
    ("axolotl-rm", {"system": "", "input": Q, **SIDES}),
    ("trl", {"instruction": Q, "chosen_response": GOOD, "rejected_response": BAD}),
    ("ms-swift", {"messages": [user(Q), assistant(GOOD)], "rejected_response": BAD}),
    ("ms-swift", {"messages": [user(Q), assistant(GOOD)], "rejected_response": [assistant(BAD)]}),
    ("ms-swift", {"messages": [user(Q), assistant(GOOD)], "rejected_messages": [user(Q), assistant(BAD)]}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row"), PREFERRED)
def test_chosen_and_rejected_in_every_arrangement_are_one_pair(
    tmp_path: Path, format: str, row: dict[str, Any]
) -> None:
    seen = look(tmp_path, row)
    assert (seen.format, seen.kinds, seen.comparisons, seen.dropped) == (format, {"pairs": 1}, 1, {})
    (label,) = seen.labels
    assert (said(label), texts(label)) == ([("user", Q)], [GOOD, BAD])
    assert (label.kind, label.verdict, label.layout, label.rater) == ("pair", prefer(0), "unordered", None)
    assert look(tmp_path, row, format=format).labels == seen.labels


@pytest.mark.parametrize(
    ("row", "conversation"),
    [
        ({"system": "s", "prompt": Q, **SIDES}, [("system", "s"), ("user", Q)]),
        ({"system": "s", "question": Q, **SIDES}, [("system", "s"), ("user", Q)]),
        ({"system": "s", "input": Q, **SIDES}, [("system", "s"), ("user", Q)]),
        ({"system": "s", "chosen": [user(Q), assistant(GOOD)], "rejected": [user(Q), assistant(BAD)]},
         [("system", "s"), ("user", Q)]),
        ({"prompt": [{"role": "system", "content": "s"}, user(Q)], "chosen": [user(Q), assistant(GOOD)],
          "rejected": [assistant(BAD)]}, [("system", "s"), ("user", Q)]),
        ({"instruction": "do", "input": "this", "history": [["a", "b"]], **SIDES},
         [("user", "a"), ("assistant", "b"), ("user", "do\nthis")]),
        ({"conversations": [{"from": "system", "value": "s"}, human("a"), gpt("b"), human(Q)], "chosen": gpt(GOOD),
          "rejected": gpt(BAD)}, [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", Q)]),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: good",
          "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: q\n\nAssistant: bad"},
         [("user", "a"), ("assistant", "b"), ("user", Q)]),
    ],
)  # fmt: skip
def test_prompts_of_several_messages(tmp_path: Path, row: dict[str, Any], conversation: list[tuple[str, str]]) -> None:
    (label,) = look(tmp_path, row).labels
    assert (said(label), texts(label)) == (conversation, [GOOD, BAD])


@pytest.mark.parametrize(("margin", "strength"), [(None, 1), (0, 1), (1 / 3, 1), (2 / 3, 1), (1.0, 2), (3, 2)])
def test_a_margin_of_one_or_more_is_much_better(tmp_path: Path, margin: float | None, strength: int) -> None:
    for row in ({"prompt": Q, **SIDES}, {"messages": [user(Q), assistant(GOOD)], "rejected_response": BAD}):
        (label,) = look(tmp_path, {**row, "margin": margin}).labels
        assert label.verdict == prefer(0, strength)


def test_the_models_of_rewardbench_are_kept(tmp_path: Path) -> None:
    (label,) = look(tmp_path, {"prompt": Q, **SIDES, "chosen_model": "m", "rejected_model": "n"}).labels
    assert [one.model for one in label.candidates] == ["m", "n"]


GOOD_ROW = {"prompt": [user(Q)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GOOD_ROW, "chosen": [assistant(" ")]}, "an empty candidate"),
        ({**GOOD_ROW, "rejected": None}, "an empty candidate"),
        ({**GOOD_ROW, "rejected": [assistant("good ")]}, "identical candidates"),
        ({"chosen": GOOD, "rejected": BAD}, "no prompt"),
        ({**GOOD_ROW, "prompt": [user(" ")]}, "no prompt"),
        ({**GOOD_ROW, "prompt": [assistant("x")]}, "no prompt"),
        ({"chosen": [user(Q), assistant("a"), user("r"), assistant("b")],
          "rejected": [user(Q), assistant("c"), user("r"), assistant("d")]}, "different prompts"),
        ({"chosen": [user(Q), assistant("a")], "rejected": [user("p"), assistant("b")]}, "different prompts"),
        ({"chosen": [user(Q), user("r")], "rejected": [user(Q), user("s")]}, "no answer of the assistant"),
        ({"chosen": [user(Q), assistant("a"), user("r")], "rejected": [user(Q), assistant("a"), user("s")]},
         "no answer of the assistant"),
        ({**GOOD_ROW, "chosen": []}, "no answer of the assistant"),
        ({**GOOD_ROW, "prompt": [{"role": "tool", "content": "x"}, user(Q)]},
         "a role that is neither system, user nor assistant"),
        ({**GOOD_ROW, "prompt": [{"role": "user", "content": [{"type": "image", "url": "u"}]}]},
         "a part that is not text"),
        ({**GOOD_ROW, "images": ["a.png"]}, "a part that is not text"),
        ({**GOOD_ROW, "prompt": "<|im_start|>user\nq<|im_end|>"}, "a prompt inside a chat template"),
        ({**GOOD_ROW, "chosen": [assistant("\ud83d")]}, "half a character (a lone surrogate)"),
        ({**GOOD_ROW, "prompt": [user("\udc00")]}, "half a character (a lone surrogate)"),
    ],
)  # fmt: skip
def test_rows_without_a_pair_are_counted_by_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    seen = look(tmp_path, GOOD_ROW, row, GOOD_ROW)
    assert (seen.kinds, seen.dropped, seen.rows) == ({"pairs": 2}, {reason: 1}, 3)


def test_whole_transcripts_that_differ_before_the_answer_are_refused(tmp_path: Path) -> None:
    def row(one: str, other: str) -> dict[str, str]:
        return {"chosen": one, "rejected": other}

    start = "\n\nHuman: q\n\nAssistant: "
    seen = look(
        tmp_path,
        row(f"{start}good", f"{start}bad"),
        row(f"{start}a\n\nHuman: r\n\nAssistant: b", f"{start}c\n\nHuman: r\n\nAssistant: d"),
        row(f"{start}a\n\nHuman: r", f"{start}a\n\nHuman: s"),
        row(f"{start}", f"{start}bad"),
        row("\n\nHuman:\n\nAssistant: a", "\n\nHuman:\n\nAssistant: b"),
    )
    assert seen.format == "hh"
    assert seen.kinds == {"pairs": 1}
    assert seen.dropped == {
        "different prompts": 1,
        "no answer of the assistant": 1,
        "an empty candidate": 1,
        "no prompt": 1,
    }


# Thumbs


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("trl-unpaired", {"prompt": [user(Q)], "completion": [assistant(GOOD)], "label": True}),
        ("trl-unpaired", {"prompt": Q, "completion": GOOD, "label": True}),
        ("trl-unpaired", {"completion": [user(Q), assistant(GOOD)], "label": True}),
        ("trl-unpaired", {"instruction": Q, "completion": GOOD, "label": True}),
        ("llamafactory-kto", {"messages": [user(Q), assistant(GOOD)], "label": True}),
        ("llamafactory-kto", {"conversations": [human(Q), gpt(GOOD)], "kto_tag": True}),
        ("llamafactory-kto", {"instruction": Q, "input": "", "output": GOOD, "kto_tag": True}),
    ],
)
def test_thumbs_become_acceptances(tmp_path: Path, format: str, row: dict[str, Any]) -> None:
    seen = look(tmp_path, row)
    assert (seen.format, seen.kinds, seen.comparisons) == (format, {"acceptances": 1}, 0)
    (label,) = seen.labels
    assert (said(label), texts(label)) == ([("user", Q)], [GOOD])
    assert (label.kind, label.verdict) == ("accept", Verdict("accepted", accepted=(True,)))


def test_thumbs_on_one_prompt_that_follow_each_other_are_one_task(tmp_path: Path) -> None:
    def row(prompt: str, completion: str, label: bool) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label}

    seen = look(
        tmp_path,
        row("p", "a", True), row("p", "b", False), row("p", "c", True),
        row("q", "a", False),
        row("p", "a", True), row("p", "a ", False),
        row("r", " ", True),
    )  # fmt: skip
    assert [(texts(label), label.verdict.accepted) for label in seen.labels] == [
        (["a", "b", "c"], (True, False, True)),
        (["a"], (False,)),
        (["a"], (True,)),
        (["a "], (False,)),
    ]
    assert (seen.comparisons, seen.dropped) == (2, {"an empty candidate": 1})


# Finding the format


def test_a_file_that_fits_no_format_says_its_keys_and_what_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1") as caught:
        look(tmp_path, {"about": Q, "choosen": "a", "rejcted": "b"})
    assert "Its keys are about, choosen, rejcted." in caught.value.why
    assert "Did you mean 'chosen'?" in caught.value.why
    assert "label-studio" in caught.value.todo
    assert "Nothing was imported" in caught.value.todo


@pytest.mark.parametrize("row", [{"prompt": Q}, "a prompt", {"turns": ["a"]}, {"instruction": "do"}])
def test_prompts_are_sent_to_the_right_verb(tmp_path: Path, row: Any) -> None:
    with pytest.raises(UsageError, match="holds prompts") as caught:
        look(tmp_path, row)
    assert "prompts import" in caught.value.todo


def test_a_misspelt_key_beside_a_prompt_is_hinted_at(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds prompts") as caught:
        look(tmp_path, {"prompt": Q, "choosen": "a", "rejected": "b"})
    assert "Did you mean 'chosen'?" in caught.value.why


def test_a_description_of_data_sets_is_no_data(tmp_path: Path) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_text(json.dumps({"a": {"file_name": "a.json"}, "b": {"hf_hub_url": "c/d"}}, indent=1))
    with pytest.raises(UsageError, match="holds no judgements") as caught:
        preview(path)
    assert "dataset_info.json" in caught.value.why


def test_the_format_can_be_named_and_a_wrong_name_is_corrected(tmp_path: Path) -> None:
    row = {"prompt": "unused", "input": Q, **SIDES}
    (label,) = look(tmp_path, row, format="axolotl-rm").labels
    assert said(label) == [("user", Q)]
    with pytest.raises(UsageError, match="unknown") as caught:
        look(tmp_path, row, format="axolotl-mr")
    assert "axolotl-rm" in caught.value.why
    with pytest.raises(UsageError, match="takes no mapping"):
        look(tmp_path, row, format="trl", mapping={"prompt": "input", "chosen": "chosen", "rejected": "rejected"})


def test_most_of_the_first_rows_decide(tmp_path: Path) -> None:
    odd = {"prompt": None, "chosen": None, "rejected": None}
    assert look(tmp_path, odd, GOOD_ROW, GOOD_ROW).format == "trl"
    with pytest.raises(UsageError, match=r"line 2.*\n.*not a JSON object"):
        look(tmp_path, GOOD_ROW, ["x"])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({**GOOD_ROW, "chosen": 7}, "'chosen'"),
        ({**GOOD_ROW, "chosen": [{"content": "x"}]}, "role"),
        ({**GOOD_ROW, "chosen": [{"role": "assistant", "content": 7}]}, "not a text"),
        ({**GOOD_ROW, "prompt": [user(Q), "x"]}, "'prompt'"),
        ({**GOOD_ROW, "margin": "much"}, "'margin'"),
        ({"prompt": Q, "completion": GOOD, "label": "maybe"}, "'label'"),
        ({"prompt": Q, "answers": "x"}, "'answers'"),
    ],
)
def test_a_row_of_the_wrong_type_is_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    first = {key: value for key, value in GOOD_ROW.items() if key in row} | (
        {} if "chosen" in row else {"completion": GOOD, "label": True} if "label" in row else
        {"answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}
    )  # fmt: skip
    with pytest.raises(UsageError, match="line 3") as caught:
        import_labels(store, write(tmp_path, first, first, row), heldout_fraction=0.2)
    assert why in caught.value.why
    assert store.counts().prompts == store.counts().judgements == 0
    assert store.raters() == []


def test_messages_are_records_of_ours(tmp_path: Path) -> None:
    (label,) = look(tmp_path, GOOD_ROW).labels
    assert label.prompt.messages == (Message("user", Q),)
    assert label.prompt.source == "x.jsonl"


# Whatever is in a field

THUMBS: list[tuple[str, dict[str, Any]]] = [
    ("trl-unpaired", {"prompt": [user(Q)], "completion": [assistant(GOOD)], "label": True}),
    ("llamafactory-kto", {"messages": [user(Q), assistant(GOOD)], "label": True}),
    ("llamafactory-kto", {"instruction": Q, "input": "", "output": GOOD, "kto_tag": True, "history": [["a", "b"]]}),
]


@pytest.mark.parametrize(("format", "row"), PREFERRED + THUMBS)
def test_no_field_whatever_it_holds_breaks_more_than_its_row(
    unbreakable: Callable[[str, dict[str, Any]], None], format: str, row: dict[str, Any]
) -> None:
    unbreakable(format, row)
