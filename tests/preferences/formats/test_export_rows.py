"""Every writer gives the row that its tool documents, or refuses with a reason; hand-made records, no store."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rlhf_tui.preferences.formats import conventions
from rlhf_tui.preferences.formats.fields import Unusable
from rlhf_tui.preferences.formats.readers import building
from rlhf_tui.preferences.formats.readers.building import TEMPLATED
from rlhf_tui.preferences.formats.writers import (
    axolotl,
    hh,
    leaderboards,
    llamafactory,
    oasst,
    openrlhf,
    own,
    rewardbench,
    shapes,
    swift,
    tables,
    trl,
)
from rlhf_tui.preferences.formats.writers.shapes import Row, Unfit
from rlhf_tui.preferences.reading import as_pairs
from rlhf_tui.preferences.records import (
    Completion,
    Generation,
    Judged,
    LabelledPair,
    Message,
    Prompt,
    Rater,
    Verdict,
    prefer,
    tied,
)

ASKED = {"role": "user", "content": "Why?"}
BETTER = {"role": "assistant", "content": " because"}
WORSE = {"role": "assistant", "content": "don't know"}


def prompt(*turns: str, system: str | None = None) -> Prompt:
    said = [Message(("user", "assistant")[place % 2], text) for place, text in enumerate(turns or ("Why?",))]
    messages = [Message("system", system), *said] if system is not None else said
    return Prompt(1, "p1", tuple(messages), "train", "own", ("licence:CC0",))


def judged(
    verdict: Verdict | None = None,
    texts: tuple[str, ...] = ("don't know", " because"),
    about: Prompt | None = None,
    kind: str = "pair",
) -> Judged:
    shown = tuple(
        Completion(place, f"c{place}", 1, text, 5, "eos", f"model {place}", 7) for place, text in enumerate(texts, 10)
    )
    rater = Rater(1, "0123456789abcdef", "Ada", "human", {"languages": ["en"]})
    return Judged(
        4, "j4", 2, kind, "label", about or prompt(), shown, verdict or prefer(1), "", (), rater, "side by side", 900,
        "2026-11-23T18:00:00.000+00:00",
    )  # fmt: skip


def only_pair(one: Judged) -> LabelledPair:
    (pair,) = as_pairs([one])
    return pair


def written(write: object, about: Prompt | None = None, verdict: Verdict | None = None) -> Row:
    one = judged(verdict, about=about)
    assert callable(write)
    row: Row = write(only_pair(one), one)
    return row


def test_trl_explicit_has_the_prompt_beside_the_answers_and_the_strength_as_margin() -> None:
    row = {"prompt": [ASKED], "chosen": [BETTER], "rejected": [WORSE], "margin": pytest.approx(2 / 3)}
    assert written(trl.explicit) == row
    assert written(trl.explicit, verdict=prefer(1, 2))["margin"] == 1.0
    assert openrlhf.row is trl.explicit


def test_trl_implicit_has_the_whole_conversation_on_both_sides() -> None:
    row = written(trl.implicit, prompt("Hi", "Hello", "Why?", system="Be short."))
    before = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        ASKED,
    ]
    assert row == {"chosen": [*before, BETTER], "rejected": [*before, WORSE], "margin": pytest.approx(2 / 3)}


def test_trl_strings_prompts_and_unpaired() -> None:
    assert written(trl.text) == {
        "prompt": "Why?",
        "chosen": " because",
        "rejected": "don't know",
        "margin": pytest.approx(2 / 3),
    }
    one = judged()
    assert trl.prompt_only(one.prompt) == {"prompt": [ASKED]}
    assert trl.unpaired(one.prompt, one.shown[1], True) == {"prompt": [ASKED], "completion": [BETTER], "label": True}


def test_hh_writes_every_turn_after_its_mark() -> None:
    row = written(hh.row, prompt("Hi", "Hello", "Why?"))
    before = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: "
    assert row == {"chosen": f"{before} because", "rejected": f"{before}don't know"}


@pytest.mark.parametrize("text", ["a\n\nHuman: b", "\n\nAssistant:", "x\n\nHuman:"])
def test_hh_refuses_a_text_that_holds_a_mark(text: str) -> None:
    for one in (judged(texts=(text, "b")), judged(texts=("b", text)), judged(about=prompt(text, "b", "c"))):
        with pytest.raises(Unfit, match="Human:"):
            hh.row(only_pair(one), one)


def test_llamafactory_rows_and_their_entries_name_the_same_columns() -> None:
    about = prompt("Hi", "Hello", "Why?", system="Be short.")
    alpaca = written(llamafactory.alpaca, about)
    assert alpaca == {
        "instruction": "Why?",
        "input": "",
        "chosen": " because",
        "rejected": "don't know",
        "system": "Be short.",
        "history": [["Hi", "Hello"]],
    }
    assert set(llamafactory.ENTRIES["llamafactory-alpaca"]["columns"].values()) == set(alpaca)
    sharegpt = written(llamafactory.sharegpt, about)
    assert sharegpt == {
        "conversations": [
            {"from": "system", "value": "Be short."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "human", "value": "Why?"},
        ],
        "chosen": {"from": "gpt", "value": " because"},
        "rejected": {"from": "gpt", "value": "don't know"},
    }
    assert set(llamafactory.ENTRIES["llamafactory-sharegpt"]["columns"].values()) == set(sharegpt)
    one = judged()
    kto = llamafactory.kto(one.prompt, one.shown[0], False)
    assert kto == {"messages": [ASKED, WORSE], "label": False}
    entry = llamafactory.ENTRIES["llamafactory-kto"]
    assert set(entry["columns"].values()) == set(kto)
    # An entry with 'tags' loses the defaults of those it leaves out, the system tag too.
    assert entry["tags"]["system_tag"] == "system"


def test_llamafactory_v1_has_typed_blocks_and_loss_on_the_assistant_only() -> None:
    row = written(llamafactory.v1)
    asked = {"role": "user", "content": [{"type": "text", "value": "Why?"}], "loss_weight": 0.0}
    chosen = {"role": "assistant", "content": [{"type": "text", "value": " because"}], "loss_weight": 1.0}
    rejected = {"role": "assistant", "content": [{"type": "text", "value": "don't know"}], "loss_weight": 1.0}
    assert row == {"chosen_messages": [asked, chosen], "rejected_messages": [asked, rejected]}


def test_axolotl_rows() -> None:
    assert written(axolotl.chat) == {"messages": [ASKED], "chosen": BETTER, "rejected": WORSE}
    sides = {"chosen": " because", "rejected": "don't know"}
    with_system = prompt("Why?", system="Be short.")
    assert written(axolotl.intel, with_system) == {"system": "Be short.", "question": "Why?", **sides}
    assert written(axolotl.intel) == {"system": "", "question": "Why?", **sides}
    assert written(axolotl.bradley_terry) == {"system": "", "input": "Why?", **sides}


def test_swift_and_rewardbench_rows() -> None:
    assert written(swift.row) == {
        "messages": [ASKED, BETTER],
        "rejected_response": "don't know",
        "margin": pytest.approx(2 / 3),
    }
    assert written(rewardbench.row) == {
        "prompt": "Why?",
        "chosen": " because",
        "chosen_model": "model 11",
        "rejected": "don't know",
        "rejected_model": "model 10",
    }


def test_nectar_keeps_a_ranking_whole_with_rank_1_the_best() -> None:
    ranks = Verdict("ordered", ranks=(2, 1, 2))
    assert axolotl.nectar(judged(ranks, ("a", "b", "c"), kind="rank")) == {
        "prompt": "Why?",
        "answers": [{"answer": "a", "rank": 2}, {"answer": "b", "rank": 1}, {"answer": "c", "rank": 2}],
    }
    ratings = axolotl.nectar(judged(Verdict("rated", ratings=(2, 5, 2, 1)), ("a", "b", "c", "d"), kind="rate"))
    assert [one["rank"] for one in ratings["answers"]] == [2, 1, 2, 4]
    for verdict in (Verdict("both_bad"), Verdict("accepted", accepted=(True, False))):
        with pytest.raises(Unfit, match="rank nothing"):
            axolotl.nectar(judged(verdict))


def test_oasst_hangs_the_replies_under_the_last_turn_best_first() -> None:
    order = Verdict("ordered", ranks=(3, 1, 2))
    tree = oasst.tree(judged(order, ("a", "b", "c"), prompt("Hi", "Hello", "Why?"), kind="rank"))
    assert tree["tree_state"] == "ready_for_export"
    node, roles = tree["prompt"], []
    while node["role"] == "prompter" or node["replies"]:
        roles.append((node["role"], node["text"]))
        last, node = node, node["replies"][0]
    assert roles == [("prompter", "Hi"), ("assistant", "Hello"), ("prompter", "Why?")]
    assert [(reply["text"], reply["rank"], reply["model_name"]) for reply in last["replies"]] == [
        ("b", 0, "model 11"),
        ("c", 1, "model 12"),
        ("a", 2, "model 10"),
    ]


def test_a_battle_has_the_sides_as_they_stood_on_screen() -> None:
    row = written(leaderboards.battle)
    assert (row["model_a"], row["model_b"], row["winner"]) == ("model 10", "model 11", "model_b")
    assert row["conversation_a"] == [ASKED, WORSE]
    assert row["conversation_b"] == [ASKED, BETTER]
    assert (row["question_id"], row["judge"], row["turn"], row["anony"]) == ("p1", "rater-01234567", 1, True)
    assert row["tstamp"] == 1795456800.0
    assert written(leaderboards.battle, verdict=prefer(0))["winner"] == "model_a"
    assert written(leaderboards.battle, verdict=tied())["winner"] == "tie"
    assert [one["winner"] for one in leaderboards.both_bad(judged(Verdict("both_bad"), ("a", "b", "c")))] == [
        "tie (bothbad)"
    ] * 3


def test_an_annotation_says_1_2_or_one_and_a_half() -> None:
    row = written(leaderboards.annotation)
    assert row == {
        "instruction": "Why?",
        "output_1": "don't know",
        "output_2": " because",
        "generator_1": "model 10",
        "generator_2": "model 11",
        "annotator": "rater-01234567",
        "preference": 2.0,
        "dataset": "own",
    }
    assert written(leaderboards.annotation, verdict=prefer(0))["preference"] == 1.0
    assert written(leaderboards.annotation, verdict=tied())["preference"] == 1.5


def test_a_table_row_has_every_column_with_its_type() -> None:
    row = written(tables.row, verdict=prefer(1, 2))
    assert list(row) == list(tables.COLUMNS)
    assert all(type(value) is tables.COLUMNS[name] for name, value in row.items())
    assert (row["prompt"], row["answer_a"], row["answer_b"]) == ("Why?", "don't know", " because")
    assert (row["winner"], row["strength"], row["model_b"]) == ("b", 2, "model 11")
    assert [written(tables.row, verdict=verdict)["winner"] for verdict in (prefer(0), tied())] == ["a", "tie"]
    several = written(tables.row, prompt("Hi", "Hello", "Why?"))
    assert several["prompt"].startswith('[{"role": "user", "content": "Hi"}')
    bad = tables.both_bad(judged(Verdict("both_bad"), ("a", "b", "c")))
    assert [(one["answer_a"], one["answer_b"]) for one in bad] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {(one["winner"], one["weight"], one["strength"]) for one in bad} == {("both_bad", 0.0, 0)}


def test_a_cell_that_would_be_taken_for_messages_is_written_as_messages() -> None:
    trap = '{"role": "user", "content": "x"}'
    one = judged(texts=(trap, "b"), about=prompt(trap))
    row = tables.row(only_pair(one), one)
    assert json.loads(row["prompt"]) == [{"role": "user", "content": trap}]
    assert json.loads(row["answer_a"]) == [{"role": "assistant", "content": trap}]
    assert json.loads(written(tables.row, prompt("Human: hi"))["prompt"]) == [{"role": "user", "content": "Human: hi"}]


def test_our_own_line_leaves_out_what_says_nothing() -> None:
    one = judged(prefer(1, 2))
    assert own.line(one, {}, "beef") == {
        "prompt": "Why?",
        "split": "train",
        "tags": ["licence:CC0"],
        "kind": "pair",
        "candidates": [
            {"text": "don't know", "n_tokens": 5, "finish_reason": "eos", "model": "model 10", "seed": 7},
            {"text": " because", "n_tokens": 5, "finish_reason": "eos", "model": "model 11", "seed": 7},
        ],
        "outcome": "ordered",
        "ranks": [2, 1],
        "strength": 2,
        "rater": "rater-01234567",
        "rater_uid": "0123456789abcdef",
        "layout": "side by side",
        "latency_ms": 900,
        "guideline": "beef",
        "created_at": "2026-11-23T18:00:00.000+00:00",
    }


def test_our_own_line_holds_every_kind_of_verdict_and_how_texts_were_made() -> None:
    rated = judged(Verdict("rated", ratings=(4,)), ("a",), prompt("Hi", "Hello", "Why?"), kind="rate")
    made = dataclasses.replace(
        rated,
        shown=(dataclasses.replace(rated.shown[0], generation_id=3),),
        note="n",
        flags=("wrong",),
        latency_ms=0,
        rater=dataclasses.replace(rated.rater, consent=True),
    )
    row = own.line(made, {3: Generation(3, 0.7, 0.9, 64, "sys")}, None)
    assert len(row["messages"]) == 3
    assert row["ratings"] == [4]
    assert (row["note"], row["flags"], row["latency_ms"], row["rater"]) == ("n", ["wrong"], 0, "Ada")
    assert row["candidates"][0]["generation"] == {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 64,
        "system_prompt": "sys",
    }
    assert not {"ranks", "accepted", "strength", "guideline", "prompt"} & set(row)
    accepted = own.line(judged(Verdict("accepted", accepted=(True, False)), kind="accept"), {}, None)
    assert accepted["accepted"] == [True, False]


@pytest.mark.parametrize("beginning", conventions.TEMPLATES)
def test_a_prompt_that_readers_take_for_a_template_is_never_written_as_a_string(beginning: str) -> None:
    text = f"{beginning}user"
    with pytest.raises(Unusable, match=TEMPLATED):
        building.conversation(text, "prompt")
    with pytest.raises(Unfit, match=f"^{shapes.AMBIGUOUS}$"):
        written(trl.text, prompt(text))
    assert json.loads(written(tables.row, prompt(text))["prompt"]) == [{"role": "user", "content": text}]


def test_marks_margins_and_words_are_read_as_they_are_written() -> None:
    text = written(hh.row, prompt("Hi", "Hello", "Why?"))["chosen"]
    assert [(one.role, one.content) for one in building.transcript(text)] == [
        *(("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", " because"))
    ]
    assert building.is_transcript(text)
    assert [strength for strength, margin in conventions.MARGIN.items() if margin >= conventions.MUCH_BETTER] == [2]
    bad = judged(Verdict("both_bad"))
    for row in (*tables.both_bad(bad), *leaderboards.both_bad(bad)):
        assert row["winner"] in conventions.BOTH_BAD_WORDS


STRINGS = (trl.text, rewardbench.row, leaderboards.annotation)
ONE_TURN = (axolotl.intel, axolotl.bradley_terry)
ALTERNATING = (hh.row, llamafactory.alpaca, llamafactory.sharegpt)


def test_what_a_shape_cannot_hold_is_refused_and_never_bent() -> None:
    several, ordered = prompt("Hi", "Hello", "Why?"), prompt("Why?", system="Be short.")
    uneven = dataclasses.replace(prompt(), messages=(Message("user", "Hi"), Message("user", "Why?")))
    silent = prompt("Why?", system=" ")
    refused = {
        **{(write, several): shapes.SEVERAL_TURNS for write in (*STRINGS, *ONE_TURN)},
        **{(write, ordered): shapes.SYSTEM for write in (*STRINGS, hh.row)},
        **{(write, uneven): shapes.UNEVEN for write in (*STRINGS, *ONE_TURN, *ALTERNATING)},
        **{(write, silent): shapes.EMPTY_SYSTEM for write in (*STRINGS, *ONE_TURN, *ALTERNATING)},
    }
    strings = (trl.text, rewardbench.row, *ONE_TURN)
    refused |= {(write, prompt(" Human: hi")): shapes.AMBIGUOUS for write in strings}
    refused |= {(write, prompt("<|im_start|>user")): shapes.AMBIGUOUS for write in strings}
    for (write, about), reason in refused.items():
        with pytest.raises(Unfit, match=f"^{reason}$"):
            written(write, about)
    for write in (trl.explicit, trl.implicit, axolotl.chat, swift.row, llamafactory.v1, tables.row):
        for about in (several, ordered, uneven, silent):
            assert written(write, about)
