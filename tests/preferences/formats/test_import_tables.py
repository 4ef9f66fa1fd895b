"""Tables: what their columns are, by usual names or a mapping; and rows that do not fit their header."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats import Preview, import_labels, preview, read_prompts, tables
from rlhf_tui.preferences.formats.readers.columns import guess
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Store


def separated(rows: list[list[Any]], delimiter: str = ",", newline: str = "\r\n") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator=newline).writerows(rows)
    return stream.getvalue().encode("utf-8")


def table(folder: Path, *rows: list[Any], name: str = "t.csv", **how: Any) -> Path:
    path = folder / name
    path.write_bytes(separated(list(rows), **how))
    return path


def look(folder: Path, *rows: list[Any], mapping: dict[str, str] | None = None) -> Preview:
    return preview(table(folder, *rows), mapping=mapping, rows=100)


HEADER = ["prompt", "chosen", "rejected"]
NASTY = ['two\nlines, "quoted"', "a;b\tc", "x\u2028y\x00z"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", separated([HEADER, NASTY])),
        ("t.csv", b"\xef\xbb\xbf\r\n" + separated([HEADER, NASTY, [], [" ", "", ""]])),
        ("t.csv", separated([HEADER, NASTY], ";", "\n")),
        ("t.tsv", separated([HEADER, NASTY], "\t", "\n")),
        ("t.csv.gz", gzip.compress(separated([HEADER, NASTY]), mtime=0)),
    ],
)
def test_separated_values_in_every_dress(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    seen = preview(tmp_path / name)
    (label,) = seen.labels
    assert seen.format == name.split(".")[1]
    assert [label.prompt.messages[0].content, *(one.text for one in label.candidates)] == NASTY


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("prompt,chosen,rejected\na,b,c\nd,e\n", 3, "2 fields, the first line has 3"),
        ('prompt,chosen,rejected\n"a\nb",c,d\nd,e,f,g\n', 4, "4 fields"),
        ('prompt,chosen,rejected\na,b,c\n"d,e,f\ng\n', 3, "unexpected end"),
        ('prompt,chosen,rejected\na,"b"x,c\n', 2, "expected after"),
        ("prompt,chosen,prompt\na,b,c\n", 1, "Two columns"),
    ],
)
def test_rows_that_do_not_fit_are_named_and_nothing_is_imported(
    store: Store, tmp_path: Path, content: str, line: int, why: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UsageError, match=f"line {line} cannot be read") as caught:
        import_labels(store, tmp_path / "t.csv", heldout_fraction=0.2)
    assert why in caught.value.why
    assert store.counts().prompts == 0


def test_cells_that_are_not_utf8_name_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"prompt,chosen,rejected\na,b,c\nd,caf\xe9,f\n")
    with pytest.raises(UsageError, match="line 3"):
        preview(tmp_path / "t.csv")


# What the columns are


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        ("prompt chosen rejected", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
        ("Question Chosen Rejected", {"prompt": "Question", "chosen": "Chosen", "rejected": "Rejected"}),
        ("instruction input chosen rejected",
         {"prompt": "instruction", "input": "input", "chosen": "chosen", "rejected": "rejected"}),
        ("prompt a b winner", {"prompt": "prompt", "a": "a", "b": "b", "winner": "winner"}),
        ("query response_a response_b preference rater",
         {"prompt": "query", "a": "response_a", "b": "response_b", "winner": "preference", "rater": "rater"}),
        ("prompt answer1 answer2 choice model_1 model_2",
         {"prompt": "prompt", "a": "answer1", "b": "answer2", "winner": "choice", "model_a": "model_1",
          "model_b": "model_2"}),
        ("prompt completion label", {"prompt": "prompt", "completion": "completion", "label": "label"}),
        ("question answer score note",
         {"prompt": "question", "completion": "answer", "rating": "score", "note": "note"}),
        ("prompt chosen rejected tie strength model",
         {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "tie": "tie", "strength": "strength"}),
        ("prompt a b winner tie model_a model_b",
         {"prompt": "prompt", "a": "a", "b": "b", "winner": "winner", "model_a": "model_a", "model_b": "model_b"}),
        ("prompt completion rating strength model",
         {"prompt": "prompt", "completion": "completion", "rating": "rating", "model": "model"}),
        ("prompt text", None),
        ("chosen rejected", None),
        ("a b c", None),
    ],
)  # fmt: skip
def test_usual_names_are_guessed(columns: str, mapping: dict[str, str] | None) -> None:
    assert guess(columns.split()) == mapping


def test_a_mapping_reads_any_names_and_everything_beside(tmp_path: Path) -> None:
    seen = look(
        tmp_path,
        ["frage", "gut", "schlecht", "wer", "wie", "bemerkung", "sys", "teil"],
        ["q", "x", "y", "ada", "2", "short", "s", "heldout"],
        mapping={"prompt": "frage", "chosen": "gut", "rejected": "schlecht", "rater": "wer", "strength": "wie",
                 "note": "bemerkung", "system": "sys", "split": "teil"},
    )  # fmt: skip
    (label,) = seen.labels
    assert [(m.role, m.content) for m in label.prompt.messages] == [("system", "s"), ("user", "q")]
    assert (label.verdict, label.rater, label.note, label.prompt.split) == (prefer(0, 2), "ada", "short", "heldout")
    assert (seen.format, seen.why, seen.mapping["rater"]) == ("csv", "you gave a mapping", "wer")


@pytest.mark.parametrize(
    ("mapping", "why", "todo"),
    [
        ({"promt": "frage"}, "Did you mean 'prompt'?", "Ours are prompt, chosen"),
        ({"prompt": "fragen", "chosen": "gut", "rejected": "schlecht"}, "Did you mean 'frage'?", "that is there"),
        ({"prompt": "frage", "chosen": "gut"}, "prompt, chosen, rejected", "Add what is missing"),
        ({"prompt": "frage", "chosen": "gut", "rejected": "schlecht", "winner": "gut"}, "Read beside them are input",
         "Leave winner=gut away"),
        ({"prompt": "frage", "a": "gut", "b": "schlecht", "winner": "frage", "tie": "gut"}, "strength, model_a",
         "Leave tie=gut away"),
        ({"prompt": "frage", "completion": "gut", "rating": "schlecht", "strength": "gut"}, "split, model",
         "Leave strength=gut away"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_right_is_refused_with_what_to_do(
    tmp_path: Path, mapping: dict[str, str], why: str, todo: str
) -> None:
    with pytest.raises(UsageError) as caught:
        look(tmp_path, ["frage", "gut", "schlecht"], ["q", "x", "y"], mapping=mapping)
    assert why in caught.value.why
    assert todo in caught.value.todo
    assert "Nothing was imported" in caught.value.todo


def test_a_mapping_also_reads_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"frage": "q", "gut": "x", "schlecht": "y"}))
    seen = preview(path, mapping={"prompt": "frage", "chosen": "gut", "rejected": "schlecht"})
    assert (seen.format, seen.labels[0].verdict) == ("table", prefer(0))


@pytest.mark.parametrize(
    ("winner", "verdict"),
    [
        ("a", prefer(0)), ("A", prefer(0)), ("model_b", prefer(1)), ("left", prefer(0)), ("2", prefer(1)),
        ("1.0", prefer(0)), ("tie", tied()), ("0", tied()), ("both_bad", Verdict("both_bad")),
        ("tie (bothbad)", Verdict("both_bad")), ("answer_b", prefer(1)),
    ],
)  # fmt: skip
def test_the_words_for_a_winner(tmp_path: Path, winner: str, verdict: Verdict) -> None:
    seen = look(tmp_path, ["prompt", "answer_a", "answer_b", "winner"], ["q", "x", "y", winner], ["q", "x", "z", ""])
    (label,) = seen.labels
    assert (label.verdict, [one.text for one in label.candidates]) == (verdict, ["x", "y"])
    assert seen.dropped == {"no answer given by the rater": 1}


def test_a_tie_beside_chosen_and_rejected_is_one(tmp_path: Path) -> None:
    rows = [["q", "x", "y", "true"], ["q", "x", "z", "no"], ["q", "v", "w", ""]]
    seen = look(tmp_path, [*HEADER, "tie"], *rows)
    assert [label.verdict for label in seen.labels] == [tied(), prefer(0), prefer(0)]
    assert {label.layout for label in seen.labels} == {"unordered"}


def test_winners_that_may_mean_either_are_not_guessed(tmp_path: Path) -> None:
    header = ["prompt", "a", "b", "winner"]
    with pytest.raises(UsageError, match="not clear who won"):
        look(tmp_path, header, ["q", "x", "y", 0], ["r", "x", "y", 1])
    assert look(tmp_path, header, ["q", "x", "y", 0], ["r", "x", "y", 2]).kinds == {"pairs": 1, "ties": 1}
    with pytest.raises(UsageError, match=r"line 3.*\n.*'maybe'"):
        look(tmp_path, header, ["q", "x", "y", "a"], ["r", "x", "y", "maybe"])


def test_ratings_and_labels_of_one_prompt_are_one_task(tmp_path: Path) -> None:
    seen = look(
        tmp_path, ["prompt", "completion", "rating", "rater"],
        ["q", "x", 5, "ada"], ["q", "y", "2.0", "ada"], ["q", "x", 1, "bob"], ["q", "z", 9, "bob"],
        ["q", "z", "", "bob"],
    )  # fmt: skip
    assert [(label.kind, label.rater, label.verdict.ratings) for label in seen.labels] == [
        ("rate", "ada", (5, 2)),
        ("rate", "bob", (1,)),
    ]
    assert seen.dropped == {"a mark outside the scale": 1, "no answer given by the rater": 1}
    seen = look(
        tmp_path,
        ["prompt", "completion", "label"],
        ["q", "x", "TRUE"],
        ["q", "y", "no"],
        ["r", "y", "0"],
        ["r", "z", ""],
    )
    assert [(label.kind, label.verdict.accepted) for label in seen.labels] == [
        ("accept", (True, False)),
        ("accept", (False,)),
    ]
    assert seen.dropped == {"no answer given by the rater": 1}


def test_cells_may_hold_messages_as_json_but_text_is_never_taken_for_them(tmp_path: Path) -> None:
    prompt = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                         {"role": "user", "content": "q"}])  # fmt: skip
    chosen = json.dumps([{"role": "assistant", "content": "x"}])
    (label,) = look(tmp_path, HEADER, [prompt, chosen, "[1, 2]"]).labels
    assert [message.content for message in label.prompt.messages] == ["a", "b", "q"]
    assert [one.text for one in label.candidates] == ["x", "[1, 2]"]


def test_tables_of_known_data_sets_need_no_mapping(tmp_path: Path) -> None:
    seen = look(
        tmp_path,
        ["id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"],
        [1, "m", "n", '["q"]', '["x"]', '["y"]', 0, 1],
    )  # fmt: skip
    assert (seen.format, seen.labels[0].verdict) == ("arena", prefer(1))
    seen = look(tmp_path, ["prompt", "response", "helpfulness"], ["q", "x", "3"], ["q", "y", "4"])
    assert (seen.format, seen.labels[0].verdict) == ("helpsteer", Verdict("rated", ratings=(4, 5)))


# Parquet


def test_parquet_with_texts_or_with_messages(tmp_path: Path, store: Store) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    message = [{"role": "user", "content": "q"}]
    rows = [
        {"prompt": message, "chosen": [{"role": "assistant", "content": f"x{n}"}],
         "rejected": [{"role": "assistant", "content": f"y{n}"}]} for n in range(700)
    ]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=100)
    assert preview(tmp_path / "t.parquet").format == "trl"
    assert import_labels(store, tmp_path / "t.parquet", heldout_fraction=0.2).pairs == 700
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress((tmp_path / "t.parquet").read_bytes(), mtime=0))
    assert import_labels(store, tmp_path / "t.parquet.gz", heldout_fraction=0.2).duplicates == 700
    columns = [{"frage": "q", "gut": "x", "schlecht": None if n else "y"} for n in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(columns), tmp_path / "u.parquet")
    mapping = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    seen = preview(tmp_path / "u.parquet", mapping=mapping)
    assert (seen.format, seen.kinds, seen.dropped) == ("parquet", {"pairs": 1}, {"an empty candidate": 2})
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "p"}, {"prompt": "q"}]), tmp_path / "p.parquet")
    assert len(read_prompts(tmp_path / "p.parquet")) == 2


def test_damaged_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    with pytest.raises(UsageError, match="cannot be read"):
        preview(tmp_path / "t.parquet")
    monkeypatch.setattr(tables, "_LARGEST", 1000)
    (tmp_path / "t.parquet.gz").write_bytes(gzip.compress(bytes(10_000), mtime=0))
    with pytest.raises(UsageError, match="too large"):
        preview(tmp_path / "t.parquet.gz")


def test_parquet_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="cannot be read") as caught:
        preview(tmp_path / "t.parquet")
    assert "rlhf-tui[parquet]" in caught.value.todo
    assert caught.value.exit_code == 1
