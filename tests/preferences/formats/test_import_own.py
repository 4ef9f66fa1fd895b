"""Our own lines: whole or not at all, once, by the right person, and as they were."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats import import_labels, preview
from rlhf_tui.preferences.records import Verdict, prefer, tied
from rlhf_tui.preferences.store import Store

ORDERED: dict[str, Any] = {
    "prompt": "Why is the sky blue?",
    "split": "heldout",
    "tags": ["question"],
    "kind": "pair",
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
    "ranks": [1, 2],
    "strength": 2,
    "note": "short",
    "flags": ["broken"],
    "rater": "demo",
    "layout": "side by side",
    "latency_ms": 4200,
}
TIE = {"prompt": "Hi", "candidates": [{"text": "Hello."}, {"text": "Hi!"}], "outcome": "tie"}
BAD = {"messages": [{"role": "user", "content": "Sing"}], "candidates": [{"text": "la"}, {"text": "lo"}],
       "outcome": "both_bad"}  # fmt: skip
THREE = [{"text": "a"}, {"text": "b"}, {"text": "c"}]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def changed(**fields: Any) -> dict[str, Any]:
    return {**ORDERED, **fields}


def without(*keys: str, **fields: Any) -> dict[str, Any]:
    return {key: value for key, value in changed(**fields).items() if key not in keys}


def list_everything(store: Store) -> list[str]:
    connection = sqlite3.connect(store.database.path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_a_line_of_ours_becomes_prompt_candidates_and_judgement(store: Store, tmp_path: Path) -> None:
    store.add_rater("demo", kind="model", card={"who": "a language model"})
    report = import_labels(store, write(tmp_path / "l.jsonl", ORDERED, TIE, BAD), heldout_fraction=0.2)
    assert (report.pairs, report.ties, report.both_bad, report.duplicates, report.rows) == (1, 1, 1, 0, 3)
    assert (report.comparisons, report.dropped, report.format) == (1, {}, "rlhf-tui")
    ordered, tie, bad = store.judgements()
    assert (ordered.prompt.split, ordered.prompt.tags) == ("heldout", ("question",))
    assert (ordered.verdict, ordered.note, ordered.flags) == (prefer(0, 2), "short", ("broken",))
    assert (ordered.rater.handle, ordered.layout, ordered.latency_ms) == ("demo", "side by side", 4200)
    left = ordered.shown[0]
    assert (left.model, left.n_tokens, left.finish_reason, left.seed) == ("starter", 7, "eos", 3)
    assert left.generation_id is not None
    assert store.generation(left.generation_id).system_prompt == "Be brief."
    assert (tie.verdict, tie.rater.handle) == (tied(), "imported")
    assert (bad.verdict, bad.prompt.text) == (Verdict("both_bad"), "Sing")
    assert {rater.handle: rater.kind for rater in store.raters()} == {"demo": "model", "imported": "import"}


@pytest.mark.parametrize(
    ("fields", "verdict", "kind"),
    [
        ({"kind": "rank", "outcome": "ordered", "ranks": [2, 1, 2]}, Verdict("ordered", ranks=(2, 1, 2)), "rankings"),
        ({"kind": "rank", "outcome": "tie", "ranks": [1, 1, 1]}, tied(3), "rankings"),
        ({"kind": "rank", "outcome": "both_bad"}, Verdict("both_bad"), "rankings"),
        ({"kind": "rate", "outcome": "rated", "ratings": [1, 5, 3]}, Verdict("rated", ratings=(1, 5, 3)), "ratings"),
        ({"kind": "accept", "outcome": "accepted", "accepted": [True, False, False]},
         Verdict("accepted", accepted=(True, False, False)), "acceptances"),
    ],
)  # fmt: skip
def test_every_kind_of_judgement(
    store: Store, tmp_path: Path, fields: dict[str, Any], verdict: Verdict, kind: str
) -> None:
    report = import_labels(
        store, write(tmp_path / "l.jsonl", {"prompt": "q", "candidates": THREE, **fields}), heldout_fraction=0.2
    )
    assert getattr(report, kind) == getattr(store.counts(), kind) == 1
    (judged,) = store.judgements()
    assert ([one.text for one in judged.shown], judged.verdict) == (["a", "b", "c"], verdict)


def test_marks_of_ours_are_never_put_together(tmp_path: Path) -> None:
    one = {"prompt": "q", "candidates": [{"text": "a"}], "kind": "rate", "outcome": "rated", "ratings": [5]}
    path = write(tmp_path / "l.jsonl", one, {**one, "candidates": [{"text": "b"}]})
    assert [len(label.candidates) for label in preview(path).labels] == [1, 1]


def test_lines_of_the_first_version_still_read(store: Store, tmp_path: Path) -> None:
    old = without("kind", "ranks", "flags", "layout", "latency_ms", better=1)
    (label,) = preview(write(tmp_path / "l.jsonl", old)).labels
    assert (label.kind, label.verdict, label.layout) == ("pair", prefer(1, 2), "file")
    demo = files("rlhf_tui.demo").joinpath("pairs.jsonl")
    lines = demo.read_text(encoding="utf-8").splitlines()
    (tmp_path / "demo.jsonl").write_text("\n".join(lines), encoding="utf-8")
    report = import_labels(store, tmp_path / "demo.jsonl", heldout_fraction=0.2)
    assert report.rows == len(lines) > 200
    assert report.pairs + report.ties + report.both_bad + sum(report.dropped.values()) == len(lines)
    assert set(report.dropped) <= {"identical candidates"}


def test_undecided_tasks_are_counted(tmp_path: Path) -> None:
    skipped = without("ranks", "strength", outcome="skip")
    path = write(tmp_path / "l.jsonl", ORDERED, skipped, {**skipped, "outcome": "discard"})
    assert preview(path).dropped == {"skipped by the rater": 1, "discarded by the rater": 1}


def test_an_order_that_nobody_saw_is_not_taken_for_one(tmp_path: Path) -> None:
    rows = [changed(layout="unordered"), changed(layout="stacked"), without("layout"), changed(layout=None)]
    seen = preview(write(tmp_path / "l.jsonl", *rows), rows=4)
    assert [label.layout for label in seen.labels] == ["unordered", "stacked", "file", "file"]


# Once


def test_importing_again_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, TIE, BAD, ORDERED)
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 1
    before = list_everything(store)
    again = import_labels(store, path, heldout_fraction=0.2)
    assert (again.pairs, again.ties, again.both_bad, again.duplicates, again.comparisons) == (0, 0, 0, 4, 0)
    assert list_everything(store) == before


def test_another_answer_to_the_same_pair_is_kept_and_the_newer_holds(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, changed(ranks=[2, 1]))
    report = import_labels(store, path, heldout_fraction=0.2)
    assert (report.pairs, report.changed) == (2, 1)
    (pair,) = store.pairs()
    assert pair.chosen.text == "As an AI, I …"
    assert store.database.number("SELECT COUNT(*) FROM judgement") == 2
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 2


def test_swapped_candidates_are_the_same_pair(store: Store, tmp_path: Path) -> None:
    swapped = changed(candidates=ORDERED["candidates"][::-1], ranks=[2, 1])
    report = import_labels(store, write(tmp_path / "l.jsonl", ORDERED, swapped), heldout_fraction=0.2)
    assert (report.pairs, report.duplicates) == (1, 1)


def test_a_known_prompt_keeps_its_split_and_that_is_said(store: Store, tmp_path: Path) -> None:
    first = import_labels(store, write(tmp_path / "a.jsonl", ORDERED), heldout_fraction=0.2)
    other = changed(split="train", candidates=[{"text": "x"}, {"text": "y"}])
    second = import_labels(store, write(tmp_path / "b.jsonl", other, TIE), heldout_fraction=0.2)
    assert (first.split_conflicts, second.split_conflicts) == (0, 1)
    assert (len(store.pairs("heldout")), store.counts().pairs) == (2, 2)
    both = write(tmp_path / "c.jsonl", {**TIE, "prompt": "New", "split": "train"},
                 {**BAD, "messages": [{"role": "user", "content": "New"}], "split": "heldout"})  # fmt: skip
    assert import_labels(store, both, heldout_fraction=0.2).split_conflicts == 1


# Raters


def test_the_rater_of_the_file_wins_over_the_default(store: Store, tmp_path: Path) -> None:
    import_labels(store, write(tmp_path / "l.jsonl", ORDERED, TIE), rater="friend", heldout_fraction=0.2)
    assert [judged.rater.handle for judged in store.judgements()] == ["demo", "friend"]


def test_a_rater_is_known_by_uid_whatever_the_file_calls_them(store: Store, tmp_path: Path) -> None:
    me = store.add_rater("me")
    rows = [changed(rater="rater-12345678", rater_uid=me.uid), {**TIE, "rater": "me"}]
    import_labels(store, write(tmp_path / "l.jsonl", *rows), heldout_fraction=0.2)
    assert {judged.rater.id for judged in store.judgements()} == {me.id}
    assert len(store.raters()) == 1


def test_one_person_under_two_names_is_one(store: Store, tmp_path: Path) -> None:
    me = "abcdef0123456789"
    rows = [changed(rater="ada", rater_uid=me), {**TIE, "rater": "ada l.", "rater_uid": me}]
    rows += [{**BAD, "rater": "ada", "rater_uid": me}]
    import_labels(store, write(tmp_path / "l.jsonl", *rows), heldout_fraction=0.2)
    (ada,) = store.raters()
    assert (ada.handle, ada.uid) == ("ada", me)
    assert [judged.rater.id for judged in store.judgements()] == [ada.id] * 3
    again = write(tmp_path / "l.jsonl", {**TIE, "prompt": "Ho", "rater": "somebody", "rater_uid": me})
    import_labels(store, again, heldout_fraction=0.2)
    assert [rater.handle for rater in store.raters()] == ["ada"]


def test_two_people_of_one_name_stay_two(store: Store, tmp_path: Path) -> None:
    store.add_rater("me")
    path = write(tmp_path / "l.jsonl", changed(rater="me", rater_uid="abcdef0123456789"))
    import_labels(store, path, heldout_fraction=0.2)
    assert {rater.handle: rater.kind for rater in store.raters()} == {"me": "human", "me (abcdef01)": "import"}
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 1


def test_imported_judgements_are_not_undone(store: Store, tmp_path: Path) -> None:
    import_labels(store, write(tmp_path / "l.jsonl", ORDERED), heldout_fraction=0.2)
    rater = store.rater("demo")
    assert rater is not None
    assert store.undo(rater.id) is None


# Damage


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps({"a": 1}), "outcome"),
        (json.dumps(changed(candidates=[{"text": "x"}])), "1 candidates"),
        (json.dumps(changed(candidates=THREE, ranks=[1, 2, 3])), "'candidates'"),
        (json.dumps(changed(candidates=[{"text": "x"}, {"txt": "y"}])), "'text'"),
        (json.dumps(changed(candidates=[{"text": "x"}, "y"])), "objects"),
        (json.dumps(changed(candidates=[{"text": "x", "seed": 2**70}, {"text": "y"}])), "'seed'"),
        (json.dumps(changed(candidates=[{"text": "x", "generation": {}}, {"text": "y"}])), "max_new_tokens"),
        (json.dumps(changed(candidates=[{"text": "x", "generation": {"max_new_tokens": 1, "temperature": 10**400}},
                                        {"text": "y"}])), "temperature"),
        (json.dumps(changed(outcome="better")), "outcome"),
        (json.dumps(changed(outcome=["tie"])), "outcome"),
        (json.dumps(changed(outcome=None)), "missing"),
        (json.dumps(changed(outcome="tie")), "'tie'"),
        (json.dumps(without("ranks", outcome="tie", better=0)), "'better'"),
        (json.dumps(without("ranks")), "'ranks' is missing"),
        (json.dumps(without("ranks", better=2)), "'better'"),
        (json.dumps(changed(ranks=[1, 3])), "ranks"),
        (json.dumps(changed(ranks=[1, True])), "'ranks'"),
        (json.dumps(changed(ranks=[1, 2, 3])), "ranks"),
        (json.dumps(changed(kind="guess")), "'kind'"),
        (json.dumps(changed(kind="rate")), "no answer to a task of kind 'rate'"),
        (json.dumps(without("ranks", kind="rate", outcome="rated", ratings=[6, 1])), "1 to 5"),
        (json.dumps(without("ranks", kind="accept", outcome="accepted", accepted=[1, 0])), "true and false"),
        (json.dumps(changed(flags=["rude"])), "'rude'"),
        (json.dumps(changed(strength=3)), "strength"),
        (json.dumps(changed(split="test")), "split"),
        (json.dumps(changed(tags="x")), "tags"),
        (json.dumps(changed(rater=" ")), "rater"),
        (json.dumps(changed(prompt=" ")), "prompt"),
        (json.dumps(changed(latency_ms="fast")), "latency_ms"),
        (json.dumps(changed(layout=7)), "'layout'"),
        (json.dumps(changed(layout=" ")), "'layout'"),
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


def test_damage_far_behind_the_first_rows_leaves_nothing(store: Store, tmp_path: Path) -> None:
    before = list_everything(store)
    rows = [{**TIE, "prompt": f"q{number}", "rater": f"r{number}"} for number in range(300)]
    path = write(tmp_path / "l.jsonl", *rows)
    with path.open("a") as file:
        file.write('{"prompt": "cut off')
    with pytest.raises(UsageError, match="line 301"):
        import_labels(store, path, heldout_fraction=0.2)
    assert list_everything(store) == before


def test_an_error_in_the_database_half_way_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.add_rater("demo", kind="model")
    before = list_everything(store)
    path = write(tmp_path / "l.jsonl", *[{**TIE, "prompt": f"q{k} " + "x" * 4000} for k in range(40)])
    store.database.rows(f"PRAGMA max_page_count = {store.database.number('PRAGMA page_count') + 20}")
    with pytest.raises(UserError, match="cannot grow"):
        import_labels(store, path, heldout_fraction=0.2)
    assert list_everything(store) == before


def test_a_file_without_any_judgement_is_an_error_that_says_why(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"prompt": "q", "chosen": "a", "rejected": "a"})
    for look in (lambda: preview(path), lambda: import_labels(store, path, heldout_fraction=0.2)):
        with pytest.raises(UsageError, match="no usable judgement") as caught:
            look()
        assert "identical candidates (1)" in caught.value.why
    assert store.raters() == []


def test_a_preview_changes_nothing_and_says_what_an_import_would(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", ORDERED, TIE, BAD, changed(candidates=[{"text": "x"}, {"text": "x"}]), ORDERED)
    seen = preview(path, rows=2)
    assert (seen.rows, seen.kinds, seen.comparisons) == (5, {"pairs": 2, "ties": 1, "both_bad": 1}, 2)
    assert seen.dropped == {"identical candidates": 1}
    assert [label.verdict for label in seen.labels] == [prefer(0, 2), tied()]
    report = import_labels(store, path, heldout_fraction=0.2)
    assert (report.pairs + report.duplicates, report.dropped) == (2, seen.dropped)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "\ud83d"},
        {"tags": ["\udc00"]},
        {"note": "\ud83d"},
        {"rater": "\ud83d"},
        {"layout": "\ud83d"},
        {"rater_uid": "\ud83d"},
        {"candidates": [{"text": "a", "model": "\ud83d"}, {"text": "b"}]},
        {"candidates": [{"text": "a", "finish_reason": "\ud83d"}, {"text": "b"}]},
    ],
)
def test_half_a_character_anywhere_is_counted_and_stores_nothing(
    store: Store, tmp_path: Path, fields: dict[str, Any]
) -> None:
    report = import_labels(store, write(tmp_path / "l.jsonl", TIE, changed(**fields)), heldout_fraction=0.2)
    assert (report.ties, report.pairs) == (1, 0)
    assert report.dropped == {"half a character (a lone surrogate)": 1}
    assert store.counts().prompts == 1


def test_no_field_whatever_it_holds_breaks_more_than_its_row(
    unbreakable: Callable[[str, dict[str, Any]], None],
) -> None:
    unbreakable("rlhf-tui", ORDERED)
