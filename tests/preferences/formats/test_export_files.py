"""Exports from a real store: what lands in the folder, what is left out and why, and what happens when it fails."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rlhf_tui
from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats.exporting import ExportReport, export_all, export_labels
from rlhf_tui.preferences.formats.writers.registry import FORMATS
from rlhf_tui.preferences.records import (
    ImportedCandidate,
    ImportedLabel,
    Message,
    NewPrompt,
    Prompt,
    Verdict,
    prefer,
    tied,
)
from rlhf_tui.preferences.store import Store

TEXTS = ("first", "second", "third")


def label(kind: str, verdict: Verdict, texts: tuple[str, ...], question: str, **known: Any) -> ImportedLabel:
    prompt = NewPrompt((Message("user", question),), "book.txt", "train", ("licence:CC0-1.0",))
    return ImportedLabel(prompt, tuple(ImportedCandidate(text) for text in texts), kind, verdict, **known)


#: One of each kind. In pairs: 1, 1 tie, none, 3, 3 with a tie among them, 3, 1.
LABELS = (
    label("pair", prefer(0, 2), TEXTS[:2], "much better"),
    label("pair", tied(), TEXTS[:2], "tie"),
    label("pair", Verdict("both_bad"), TEXTS[:2], "bad"),
    label("rank", Verdict("ordered", ranks=(2, 3, 1)), TEXTS, "ranking"),
    label("rank", Verdict("ordered", ranks=(1, 2, 2)), TEXTS, "ranking with a tie"),
    label("rate", Verdict("rated", ratings=(5, 3, 2)), TEXTS, "ratings"),
    label("accept", Verdict("accepted", accepted=(True, False)), TEXTS[:2], "accepted"),
)
PAIRS, TIED = 12, 2


@pytest.fixture
def judged(store: Store) -> Store:
    rater = store.add_rater("Ada", card={"languages": ["en"]})
    for one in LABELS:
        store.import_judgement(one, rater_id=rater.id, heldout_fraction=0.0)
    return store


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def manifest_of(report: ExportReport) -> dict[str, Any]:
    assert report.manifest is not None
    found: dict[str, Any] = json.loads(report.manifest.read_text("utf-8"))
    return found


def test_a_pair_format_expands_everything_that_holds_a_pair(judged: Store, tmp_path: Path) -> None:
    report = export_labels(judged, tmp_path / "out.jsonl", format="trl")
    rows = lines(tmp_path / "out.jsonl")
    assert report.rows == len(rows) == PAIRS - TIED
    assert report.left_out == {"ties": TIED, "judgements that all answers are bad": 1}
    asked = [row["prompt"][0]["content"] for row in rows]
    assert {name: asked.count(name) for name in asked} == {
        "much better": 1,
        "ranking": 3,
        "ranking with a tie": 2,
        "ratings": 3,
        "accepted": 1,
    }
    best = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows[1:4]}
    assert best == {("third", "first"), ("third", "second"), ("first", "second")}


def test_ties_are_dropped_halved_or_kept(judged: Store, tmp_path: Path) -> None:
    halved = export_labels(judged, tmp_path / "half.jsonl", format="trl", ties="half")
    assert halved.rows == PAIRS + TIED
    both = [row for row in lines(tmp_path / "half.jsonl") if row["prompt"][0]["content"] == "tie"]
    assert [(row["chosen"][0]["content"], row["margin"]) for row in both] == [("first", 0.0), ("second", 0.0)]
    weights = manifest_of(halved)["pairs_by_weight"]
    assert weights == {"1": 2, "0.5": 2 + 3 + 2 + 3, "0.25": 2}
    kept = export_labels(judged, tmp_path / "kept.jsonl", format="arena")
    assert kept.rows == PAIRS + 1  # and the vote that both are bad
    winners = [row["winner"] for row in lines(tmp_path / "kept.jsonl")]
    assert (winners.count("tie"), winners.count("tie (bothbad)")) == (TIED, 1)
    dropped = export_labels(judged, tmp_path / "kept.jsonl", format="arena", ties="drop")
    assert (dropped.rows, dropped.left_out) == (PAIRS - TIED + 1, {"ties": TIED})


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_cannot_be_done_with_ties_is_refused_and_the_able_formats_named(
    judged: Store, tmp_path: Path, name: str
) -> None:
    for ties in {"drop", "half", "keep"} - set(FORMATS[name].ties):
        with pytest.raises(UsageError) as refused:
            export_labels(judged, tmp_path / "out.jsonl", format=name, ties=ties)
        able = refused.value.todo.partition("formats ")[2].rstrip(".").split(", ")
        assert able == [other for other, known in FORMATS.items() if ties in known.ties]
        assert "rlhf-tui" in able if ties == "keep" else "trl" in able
    with pytest.raises(UsageError, match="'maybe'"):
        export_labels(judged, tmp_path / "out.jsonl", format=name, ties="maybe")
    assert list(tmp_path.glob("out*")) == []


def test_only_answers_called_good_or_bad_go_into_unpaired_formats(judged: Store, tmp_path: Path) -> None:
    report = export_labels(judged, tmp_path / "out.jsonl", format="trl-unpaired")
    marks = {
        (row["prompt"][0]["content"], row["completion"][0]["content"]): row["label"]
        for row in lines(tmp_path / "out.jsonl")
    }
    assert marks == {
        ("bad", "first"): False,
        ("bad", "second"): False,
        ("ratings", "first"): True,
        ("ratings", "third"): False,
        ("accepted", "first"): True,
        ("accepted", "second"): False,
    }
    assert report.left_out == {
        "preferences: they call no answer good or bad by itself": 4,
        "ratings of 3: neither good nor bad": 1,
    }
    assert manifest_of(report)["judgements"] == 3


def test_rankings_stay_whole_where_the_format_has_rankings(judged: Store, tmp_path: Path) -> None:
    nectar = export_labels(judged, tmp_path / "n.jsonl", format="axolotl-nectar")
    assert [len(row["answers"]) for row in lines(tmp_path / "n.jsonl")] == [2, 2, 3, 3, 3]
    assert nectar.left_out == {"judgements that rank nothing": 2}
    oasst = export_labels(judged, tmp_path / "o.jsonl", format="oasst")
    assert [len(row["prompt"]["replies"]) for row in lines(tmp_path / "o.jsonl")] == [2, 3, 3]
    assert oasst.left_out == {"ties": 2, "judgements that rank nothing": 2}


def test_our_own_format_holds_every_judgement_and_drops_ties_only_when_told(judged: Store, tmp_path: Path) -> None:
    assert export_labels(judged, tmp_path / "out.jsonl").rows == len(LABELS)
    told = export_labels(judged, tmp_path / "out.jsonl", ties="drop")
    assert (told.rows, told.left_out) == (len(LABELS) - 2, {"ties": 2})


def test_skipped_undone_and_repeated_answers_stay_out(store: Store, fill: Any, sit: Any, tmp_path: Path) -> None:
    fill(prompts=3)
    me = sit(store)
    first = me.judge(prefer(0))
    me.judge(Verdict("skip"))
    me.judge(Verdict("discard"))
    again = store.present(
        first.task_id, rater_id=me.rater, session_id=me.session, layout="stacked", purpose="repeat", selection="repeat"
    )
    store.judge(again.id, prefer(0), latency_ms=1)
    report = export_labels(store, tmp_path / "out.jsonl")
    assert (report.rows, report.left_out) == (1, {"repeats, asked to see how consistent a rater is": 1})
    (row,) = lines(tmp_path / "out.jsonl")
    assert [one["text"] for one in row["candidates"]] == [one.text for one in first.shown]
    assert row["ranks"] == [1, 2]
    assert row["candidates"][0]["generation"]["max_new_tokens"] == 64
    store.undo(me.rater)
    store.undo(me.rater)
    store.undo(me.rater)
    store.undo(me.rater)
    with pytest.raises(UsageError, match="no judgement"):
        export_labels(store, tmp_path / "out.jsonl")
    assert len(lines(tmp_path / "out.jsonl")) == 1


def test_the_manifest_says_what_the_file_is(judged: Store, tmp_path: Path) -> None:
    report = export_labels(judged, tmp_path / "out.jsonl", format="trl")
    assert report.manifest == tmp_path / "out.jsonl.manifest.json"
    manifest = manifest_of(report)
    assert manifest["version"] == rlhf_tui.__version__
    assert manifest["sha256"] == hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()
    assert manifest["snapshot_sha256"] == judged.snapshot_hash()
    assert (manifest["file"], manifest["format"], manifest["ties"]) == ("out.jsonl", "trl", "drop")
    assert (manifest["rows"], manifest["pairs"], manifest["judgements"]) == (10, 10, 5)
    assert manifest["rows_by_split"] == {"train": 10}
    assert manifest["left_out"] == dict(report.left_out)
    assert manifest["guidelines"] == [{"version": None, "sha256": None, "judgements": 5}]
    assert manifest["prompts"] == [{"source": "book.txt", "licence": "CC0-1.0", "prompts": 5}]
    assert "out.jsonl" in manifest["how_to_use"]
    assert "RewardTrainer" in manifest["how_to_use"]


def test_an_export_is_of_one_moment_and_keeps_nobody_waiting(
    judged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, prompts = judged.snapshot_hash(), judged.prompts
    with Store.open(tmp_path / "preferences.db", patience=0.0) as other:

        def meanwhile() -> list[Prompt]:
            late = label("pair", prefer(0), TEXTS[:2], "late")
            assert other.import_judgement(late, rater_id=1, heldout_fraction=0.0) == "added"
            return prompts()

        monkeypatch.setattr(judged, "prompts", meanwhile)
        report = export_labels(judged, tmp_path / "out.jsonl")
    assert report.rows == len(LABELS)
    assert manifest_of(report)["snapshot_sha256"] == before != judged.snapshot_hash()
    monkeypatch.undo()
    assert export_labels(judged, tmp_path / "out.jsonl").rows == len(LABELS) + 1


def test_the_manifest_names_the_guidelines_that_were_on_screen(
    store: Store, fill: Any, sit: Any, tmp_path: Path
) -> None:
    fill(prompts=3)
    me = sit(store)
    me.judge(prefer(0))
    old = store.set_guideline("Short answers.")
    me.judge(prefer(0))
    new = store.set_guideline("Long answers.")
    me.judge(prefer(0))
    report = export_labels(store, tmp_path / "out.jsonl")
    assert manifest_of(report)["guidelines"] == [
        {"version": None, "sha256": None, "judgements": 1},
        {"version": 1, "sha256": old.sha256, "judgements": 1},
        {"version": 2, "sha256": new.sha256, "judgements": 1},
    ]
    assert [row.get("guideline") for row in lines(tmp_path / "out.jsonl")] == [None, old.sha256, new.sha256]


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_person_who_has_not_agreed_is_named_nowhere(judged: Store, tmp_path: Path, name: str) -> None:
    rater = judged.rater("Ada")
    assert rater is not None
    target = tmp_path / "secret"
    report = export_labels(judged, target, format=name)
    assert report.manifest is not None
    for path in (target, report.manifest):
        assert b"Ada" not in path.read_bytes()
        assert b"languages" not in path.read_bytes()
    judged.set_consent(rater.id, True)
    manifest = manifest_of(export_labels(judged, target, format=name))
    if name != "trl-prompts":
        (named,) = manifest["raters"]
        assert (named["name"], named["kind"], named["card"]) == ("Ada", "human", {"languages": ["en"]})
        assert named["judgements"] == manifest["judgements"] > 0


def test_gz_is_packed_the_same_every_time(judged: Store, tmp_path: Path) -> None:
    export_labels(judged, tmp_path / "plain.jsonl", format="hh")
    report = export_labels(judged, tmp_path / "out.jsonl.gz", format="hh")
    packed = (tmp_path / "out.jsonl.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "plain.jsonl").read_bytes()
    assert packed[4:8] == b"\0\0\0\0"  # no time in it
    assert manifest_of(report)["sha256"] == hashlib.sha256(packed).hexdigest()
    export_labels(judged, tmp_path / "again.jsonl.gz", format="hh")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == packed
    with pytest.raises(UsageError, match="not written compressed"):
        export_labels(judged, tmp_path / "out.json.gz", format="llamafactory-sharegpt")
    with pytest.raises(UsageError, match="not written compressed"):
        export_labels(judged, tmp_path / "out.parquet.gz", format="parquet")


def test_the_ending_decides_between_a_list_and_lines(judged: Store, tmp_path: Path) -> None:
    export_labels(judged, tmp_path / "out.json", format="trl")
    export_labels(judged, tmp_path / "out.jsonl", format="trl")
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == lines(tmp_path / "out.jsonl")
    export_labels(judged, tmp_path / "ae.jsonl", format="alpacaeval")
    assert len(lines(tmp_path / "ae.jsonl")) == PAIRS


def test_llamafactory_gets_its_entry_beside_whatever_is_there(judged: Store, tmp_path: Path) -> None:
    index = tmp_path / "dataset_info.json"
    index.write_text('{"mine": {"file_name": "mine.json"}}')
    export_labels(judged, tmp_path / "pref.sharegpt.json", format="llamafactory-sharegpt")
    export_labels(judged, tmp_path / "kto.json", format="llamafactory-kto")
    report = export_labels(judged, tmp_path / "kto.json", format="llamafactory-kto")
    found = json.loads(index.read_text())
    assert list(found) == ["mine", "pref_sharegpt", "kto"]
    assert found["mine"] == {"file_name": "mine.json"}
    assert found["pref_sharegpt"] == {
        "file_name": "pref.sharegpt.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    }
    assert "dataset: kto" in manifest_of(report)["how_to_use"]
    with pytest.raises(UsageError, match="list of files"):
        export_labels(judged, index, format="llamafactory-kto")
    index.write_text('{"kto": {"file_name": "somebody elses.json"}}')
    with pytest.raises(UsageError, match="for another file"):
        export_labels(judged, tmp_path / "kto.json", format="llamafactory-kto")
    for damaged in ("{", "[]", "\xff"):
        index.write_bytes(damaged.encode("latin-1"))
        with pytest.raises(UsageError, match="dataset_info"):
            export_labels(judged, tmp_path / "new.json", format="llamafactory-kto")
        assert index.read_bytes() == damaged.encode("latin-1")
    assert not (tmp_path / "new.json").exists()


def test_export_all_writes_every_format_that_can_hold_something(judged: Store, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "all"
    reports = export_all(judged, folder)
    assert [report.format for report in reports] == list(FORMATS)
    assert all(report.rows and not report.skipped for report in reports)
    names = {path.name for path in folder.iterdir()}
    expected = {known.file for known in FORMATS.values()}
    assert names == expected | {f"{name}.manifest.json" for name in expected} | {"dataset_info.json"}
    assert len(json.loads((folder / "dataset_info.json").read_text())) == 3
    alone = tmp_path / "alone.jsonl"
    for report in reports:
        if report.path.suffix == ".jsonl":
            export_labels(judged, alone, format=report.format)
            assert alone.read_bytes() == report.path.read_bytes()


def test_export_all_says_what_it_skipped_and_bends_ties_only_where_it_must(store: Store, tmp_path: Path) -> None:
    rater = store.add_rater("me").id
    store.import_judgement(label("pair", tied(), TEXTS[:2], "tie"), rater_id=rater, heldout_fraction=0.0)
    reports = {report.format: report for report in export_all(store, tmp_path, ties="half")}
    assert (reports["trl"].rows, reports["csv"].rows, reports["rlhf-tui"].rows) == (2, 2, 1)
    assert reports["rlhf-tui"].path.exists()
    skipped = {name for name, report in reports.items() if report.skipped}
    assert skipped == {"trl-unpaired", "llamafactory-kto", "oasst"}
    assert "1 ties" in reports["oasst"].skipped
    assert not reports["oasst"].path.exists()
    assert reports["oasst"].manifest is None
    with pytest.raises(UsageError, match="'never'"):
        export_all(store, tmp_path, ties="never")


def test_nothing_to_write_is_said_with_its_reasons(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no judgement"):
        export_labels(store, tmp_path / "out.jsonl", format="trl")
    rater = store.add_rater("me").id
    store.import_judgement(LABELS[2], rater_id=rater, heldout_fraction=0.0)
    with pytest.raises(UsageError, match="has a place") as refused:
        export_labels(store, tmp_path / "out.jsonl", format="trl")
    assert "1 judgements that all answers are bad" in refused.value.why
    assert list(tmp_path.glob("*out*")) == []


def test_an_unknown_format_is_named_with_the_nearest(judged: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="llamafactory-kto"):
        export_labels(judged, tmp_path / "out", format="llamafactory-kot")


def test_a_file_that_cannot_be_written_leaves_everything_as_it_was(judged: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        export_labels(judged, tmp_path / "absent" / "out.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export_labels(judged, tmp_path / "file" / "out.jsonl")
    with pytest.raises(UserError, match="cannot be made"):
        export_all(judged, tmp_path / "file")
    target = tmp_path / "old.jsonl"
    target.write_text("old")
    (tmp_path / "old.jsonl.manifest.json").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        export_labels(judged, target)
    assert target.read_text() == "old"
    with pytest.raises(UsageError, match="no name"):
        export_labels(judged, Path("/"))
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow over 300 bytes: writing fails half-way, really, as on a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("name", ["rlhf-tui", "llamafactory-sharegpt", "csv", "parquet"])
def test_a_write_that_breaks_off_keeps_the_old_file(judged: Store, tmp_path: Path, name: str) -> None:
    target = tmp_path / "out.dat"
    target.write_text("old")
    with small_files(), pytest.raises(UserError, match="cannot be written"):
        export_labels(judged, target, format=name)
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir() if "out.dat" in path.name} == {"out.dat"}


def test_an_existing_file_is_replaced_whole(judged: Store, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("x" * 10_000)
    export_labels(judged, target, format="hh")
    assert all(set(row) == {"chosen", "rejected"} for row in lines(target))


NASTY = 'a,"b"\r\nc\rd\te;=SUM(A1)\x00\x1b[31m\u202e漢字🙂\u2028\u0085 '


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_tables_keep_texts_exactly(store: Store, tmp_path: Path, delimiter: str) -> None:
    rater = store.add_rater("me").id
    store.import_judgement(label("pair", prefer(1), ("x", NASTY), NASTY), rater_id=rater, heldout_fraction=0.0)
    name = "csv" if delimiter == "," else "tsv"
    export_labels(store, tmp_path / "out", format=name)
    with (tmp_path / "out").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream, delimiter=delimiter)
    assert (row["prompt"], row["answer_a"], row["answer_b"]) == (NASTY, "x", NASTY)
    assert (row["winner"], row["strength"], row["weight"]) == ("b", "1", "1.0")


def test_parquet_has_typed_columns_and_texts_exactly(store: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rater = store.add_rater("me").id
    store.import_judgement(label("pair", prefer(1), ("x", NASTY), NASTY), rater_id=rater, heldout_fraction=0.0)
    report = export_labels(store, tmp_path / "out.parquet", format="parquet")
    (row,) = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (row["prompt"], row["answer_a"], row["answer_b"]) == (NASTY, "x", NASTY)
    assert (row["winner"], row["strength"], row["weight"]) == ("b", 1, 1.0)
    assert manifest_of(report)["sha256"] == hashlib.sha256((tmp_path / "out.parquet").read_bytes()).hexdigest()


def test_parquet_without_pyarrow_is_said_plainly(
    judged: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow"):
        export_labels(judged, tmp_path / "out.parquet", format="parquet")
    reports = {report.format: report for report in export_all(judged, tmp_path / "all")}
    assert "pyarrow" in reports["parquet"].skipped
    assert reports["csv"].rows == PAIRS + 1
