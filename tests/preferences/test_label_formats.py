"""Judgements from and to files: whole or not at all, once, and the same after a round trip."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats import ImportReport, export_labels, import_labels
from rlhf_tui.preferences.store import Message, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]

ORDERED = {
    "prompt": "Why is the sky blue?",
    "split": "heldout",
    "tags": ["question"],
    "candidates": [
        {
            "text": "Air scatters blue light most.",
            "n_tokens": 7,
            "finish_reason": "eos",
            "model": "starter",
            "seed": 3,
            "generation": {"temperature": 0.9, "top_p": 1.0, "max_new_tokens": 64, "system_prompt": "Be brief."},
        },
        {"text": "As an AI, I …"},
    ],
    "outcome": "ordered",
    "better": 0,
    "strength": 2,
    "note": "short",
    "rater": "demo",
}
TIE = {"prompt": "Hi", "candidates": [{"text": "Hello."}, {"text": "Hi!"}], "outcome": "tie"}
BAD = {"messages": [{"role": "user", "content": "Sing"}], "candidates": [{"text": "la"}, {"text": "lo"}],
       "outcome": "both_bad"}  # fmt: skip


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def list_everything(store: Store) -> list[str]:
    connection = sqlite3.connect(store.database.path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


# Our own format


def test_a_line_of_ours_becomes_prompt_candidates_and_judgement(store: Store, tmp_path: Path) -> None:
    store.add_rater("demo", kind="model", card={"who": "a language model"})
    report = import_labels(store, write(tmp_path / "l.jsonl", ORDERED, TIE, BAD), heldout_fraction=0.2)
    assert report == ImportReport(pairs=1, ties=1, both_bad=1, duplicates=0)
    ordered, tie, bad = store.judgements()
    assert (ordered.prompt.split, ordered.prompt.tags) == ("heldout", ("question",))
    assert (ordered.outcome, ordered.strength, ordered.note, ordered.rater) == ("ordered", 2, "short", "demo")
    assert (ordered.left.model, ordered.left.n_tokens, ordered.left.finish_reason, ordered.left.seed) == (
        "starter", 7, "eos", 3)  # fmt: skip
    assert ordered.left.generation_id is not None
    assert store.generation(ordered.left.generation_id).system_prompt == "Be brief."
    assert ordered.winner_id == ordered.left.id
    assert (tie.outcome, tie.winner_id, tie.rater) == ("tie", None, "imported")
    assert (bad.outcome, bad.prompt.text) == ("both_bad", "Sing")
    assert {rater.handle: rater.kind for rater in store.raters()} == {"demo": "model", "imported": "import"}


def test_importing_again_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, TIE, BAD, ORDERED)
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 1
    before = list_everything(store)
    assert import_labels(store, path, heldout_fraction=0.2) == ImportReport(0, 0, 0, duplicates=4)
    assert list_everything(store) == before


def test_labels_of_the_same_file_hash_the_same_in_two_projects(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, {**TIE, "split": "train"})
    hashes = set()
    for name in ("a", "b"):
        with Store.create(tmp_path / f"{name}.db", name=name, seed=1) as store:
            import_labels(store, path, heldout_fraction=0.2)
            hashes.add(store.snapshot_hash())
    assert len(hashes) == 1


def test_another_answer_to_the_same_pair_is_kept_and_the_newer_holds(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, {**ORDERED, "better": 1})
    report = import_labels(store, path, heldout_fraction=0.2)
    assert (report.pairs, report.changed) == (2, 1)
    (pair,) = store.pairs()
    assert pair.chosen.text == "As an AI, I …"
    assert store.database.number("SELECT COUNT(*) FROM judgement") == 2
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 2


def test_swapped_candidates_are_the_same_pair(store: Store, tmp_path: Path) -> None:
    swapped = {**ORDERED, "candidates": ORDERED["candidates"][::-1], "better": 1}  # type: ignore[index]
    report = import_labels(store, write(tmp_path / "l.jsonl", ORDERED, swapped), heldout_fraction=0.2)
    assert (report.pairs, report.duplicates) == (1, 1)


def test_the_rater_of_the_file_wins_over_the_default(store: Store, tmp_path: Path) -> None:
    import_labels(store, write(tmp_path / "l.jsonl", ORDERED, TIE), rater="friend", heldout_fraction=0.2)
    assert [judged.rater for judged in store.judgements()] == ["demo", "friend"]


def test_a_known_prompt_keeps_its_split(store: Store, tmp_path: Path) -> None:
    import_labels(store, write(tmp_path / "a.jsonl", ORDERED), heldout_fraction=0.2)
    other = {**ORDERED, "split": "train", "candidates": [{"text": "x"}, {"text": "y"}]}
    import_labels(store, write(tmp_path / "b.jsonl", other), heldout_fraction=0.2)
    assert (len(store.pairs("heldout")), len(store.pairs("train"))) == (2, 0)


def test_imported_judgements_are_not_undone(store: Store, tmp_path: Path) -> None:
    import_labels(store, write(tmp_path / "l.jsonl", ORDERED), heldout_fraction=0.2)
    rater = store.rater("demo")
    assert rater is not None
    assert store.undo(rater.id) is None


def changed(**fields: Any) -> dict[str, Any]:
    return {**ORDERED, **fields}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps({"a": 1}), "candidates"),
        (json.dumps(changed(candidates=[{"text": "x"}])), "list of two"),
        (json.dumps(changed(candidates=[{"text": "x"}, {"txt": "y"}])), "'text'"),
        (json.dumps(changed(candidates=[{"text": "x"}, "y"])), "object"),
        (json.dumps(changed(candidates=[{"text": "x", "seed": 2**70}, {"text": "y"}])), "'seed'"),
        (json.dumps(changed(candidates=[{"text": "x", "generation": {}}, {"text": "y"}])), "max_new_tokens"),
        (json.dumps(changed(candidates=[{"text": "x", "generation": {"max_new_tokens": 1, "temperature": 10**400}},
                                        {"text": "y"}])), "temperature"),
        (json.dumps(changed(outcome="better")), "outcome"),
        (json.dumps(changed(outcome=["tie"])), "outcome"),
        (json.dumps(changed(outcome=None)), "missing"),
        (json.dumps(changed(outcome="tie")), "'better'"),
        (json.dumps(changed(better=None)), "'better'"),
        (json.dumps(changed(better=2)), "'better'"),
        (json.dumps(changed(strength=3)), "strength"),
        (json.dumps(changed(split="test")), "split"),
        (json.dumps(changed(tags="x")), "tags"),
        (json.dumps(changed(rater=" ")), "rater"),
        (json.dumps(changed(prompt=" ")), "prompt"),
        (json.dumps(changed(prompt="\ud83d")), "half a character"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named_and_nothing_changes(store: Store, tmp_path: Path, line: str, why: str) -> None:
    import_labels(store, write(tmp_path / "first.jsonl", TIE), heldout_fraction=0.2)
    before = list_everything(store)
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(ORDERED) + "\n\n" + line + "\n")
    with pytest.raises(UsageError, match="line 3") as caught:
        import_labels(store, path, heldout_fraction=0.2)
    assert why in str(caught.value)
    assert list_everything(store) == before


def test_an_error_in_the_database_half_way_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.add_rater("demo", kind="model")
    before = list_everything(store)
    path = write(tmp_path / "l.jsonl", *[{**TIE, "prompt": f"q{k} " + "x" * 4000} for k in range(40)])
    store.database.rows(f"PRAGMA max_page_count = {store.database.number('PRAGMA page_count') + 20}")
    with pytest.raises(UserError, match="cannot grow"):
        import_labels(store, path, heldout_fraction=0.2)
    assert list_everything(store) == before


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b'{"a": 1}\n', "line 1"), (b'{"a":\n\xff"}', "line 2")],
)
def test_files_that_are_no_labels(store: Store, tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=what):
        import_labels(store, path, heldout_fraction=0.2)


def test_a_missing_file_and_an_unknown_format(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        import_labels(store, tmp_path / "absent.jsonl", heldout_fraction=0.2)
    with pytest.raises(UsageError, match="trl"):
        import_labels(store, write(tmp_path / "l.jsonl", TIE), format="tlr", heldout_fraction=0.2)


# TRL


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
        {"prompt": "q", "chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
    ],
)
def test_trl_rows_in_every_shape_are_the_same_pair(store: Store, tmp_path: Path, row: dict[str, Any]) -> None:
    assert import_labels(store, write(tmp_path / "t.jsonl", row), heldout_fraction=0.2).pairs == 1
    (pair,) = store.pairs()
    assert (pair.prompt.messages, pair.chosen.text, pair.rejected.text) == ((Message("user", "q"),), "good", "bad")
    assert (pair.tie, pair.strength) == (False, 1)


def test_trl_rows_without_a_pair_are_counted_not_guessed(store: Store, tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": " ", "rejected": "bad"},
        {"prompt": "q", "chosen": "same", "rejected": "same "},
        {"chosen": "good", "rejected": "bad"},
        {"chosen": [user("q"), assistant("a"), user("r"), assistant("b")],
         "rejected": [user("q"), assistant("c"), user("r"), assistant("d")]},
        {"chosen": [user("q"), user("r")], "rejected": [user("q"), user("s")]},
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]},
        {"prompt": [], "chosen": "a", "rejected": "b"},
    ]  # fmt: skip
    report = import_labels(store, write(tmp_path / "t.jsonl", *rows), heldout_fraction=0.2)
    assert (report.pairs, report.duplicates) == (1, 1)
    assert report.dropped == {
        "an empty candidate": 1,
        "identical candidates": 2,
        "no prompt": 2,
        "different prompts": 1,
        "no answer": 1,
    }


def test_a_file_without_any_pair_is_an_error_that_says_why(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no usable pair") as caught:
        import_labels(store, write(tmp_path / "t.jsonl", {"chosen": "a", "rejected": "b"}), heldout_fraction=0.2)
    assert "no prompt (1)" in caught.value.why
    assert store.raters() == []


# Export


def test_export_and_import_elsewhere_give_the_same_pairs(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill(prompts=6)
    me = sit(store)
    for outcome in ("ordered", "tie", "both_bad", "skip", "ordered"):
        me.answer(outcome, side="right")
    assert export_labels(store, tmp_path / "out.jsonl", format="rlhf-tui") == 4
    with Store.create(tmp_path / "other.db", name="other", seed=99) as other:
        report = import_labels(other, tmp_path / "out.jsonl", heldout_fraction=0.2)
        assert report == ImportReport(pairs=2, ties=1, both_bad=1, duplicates=0)
        export_labels(other, tmp_path / "again.jsonl", format="rlhf-tui")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    # The project knows its own labels again.
    before = store.judgements(), store.counts()
    assert import_labels(store, tmp_path / "out.jsonl", heldout_fraction=0.2).duplicates == 4
    assert (store.judgements(), store.counts()) == before


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(texts, texts, texts, st.sampled_from([0, 1, None])).filter(lambda r: r[1].strip() != r[2].strip()),
        min_size=1,
        max_size=6,
    )
)
def test_any_text_survives_the_round_trip(tmp_path: Path, rows: list[tuple[str, str, str, int | None]]) -> None:
    for old in tmp_path.glob("*.db"):
        old.unlink()
    lines = [
        {"prompt": prompt, "split": "train", "candidates": [{"text": a}, {"text": b}]}
        | ({"outcome": "tie"} if better is None else {"outcome": "ordered", "better": better})
        for prompt, a, b, better in rows
    ]
    with (
        Store.create(tmp_path / "a.db", name="a", seed=1) as one,
        Store.create(tmp_path / "b.db", name="b", seed=2) as two,
    ):
        import_labels(one, write(tmp_path / "in.jsonl", *lines), heldout_fraction=0.2)
        export_labels(one, tmp_path / "out.jsonl", format="rlhf-tui")
        import_labels(two, tmp_path / "out.jsonl", heldout_fraction=0.2)

        def said(store: Store) -> list[tuple[Any, ...]]:
            return [
                (j.prompt.messages, j.left.text, j.right.text, j.outcome, j.winner_id == j.left.id)
                for j in store.judgements()
            ]

        assert said(one) == said(two)


def test_trl_export_is_explicit_messages_and_leaves_ties_out(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill()
    me = sit(store)
    shown = me.answer(side="right")
    me.answer("tie")
    me.answer("both_bad")
    assert export_labels(store, tmp_path / "t.jsonl", format="trl") == 1
    assert json.loads((tmp_path / "t.jsonl").read_text()) == {
        "prompt": [user(shown.prompt.text)],
        "chosen": [assistant(shown.right.text)],
        "rejected": [assistant(shown.left.text)],
    }
    assert import_labels(store, tmp_path / "t.jsonl", rater="me", heldout_fraction=0.2).duplicates == 1


def test_export_that_cannot_be_done_leaves_nothing(fill: Filled, sit: Sit, tmp_path: Path) -> None:
    store = fill()
    with pytest.raises(UsageError, match="no judgement"):
        export_labels(store, tmp_path / "x.jsonl", format="trl")
    sit(store).answer()
    with pytest.raises(UserError, match="cannot be written"):
        export_labels(store, tmp_path / "absent" / "x.jsonl", format="trl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        export_labels(store, tmp_path / "folder", format="trl")
    with pytest.raises(UsageError, match="unknown"):
        export_labels(store, tmp_path / "x.jsonl", format="csv")
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith("preferences.db")) == ["folder"]
