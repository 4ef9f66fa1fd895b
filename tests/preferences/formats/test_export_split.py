"""What is held out stays recognisable: it can be left out of any export, and is announced where it is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats.exporting import ExportReport, export_all, export_labels
from rlhf_tui.preferences.formats.writers.registry import FORMATS
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Message, NewPrompt, Verdict, prefer
from rlhf_tui.preferences.store import Store

HELDOUT = "about held-out prompts, which were not asked for"
TRAINING = "about training prompts, which were not asked for"


@pytest.fixture
def judged(store: Store) -> Store:
    """Three prompts for training and two held out, each with a pair and with ratings; one more that nobody judged."""
    rater = store.add_rater("Ada").id
    sides = (ImportedCandidate("first"), ImportedCandidate("second"))
    for name, split in (("a", "train"), ("b", "train"), ("c", "train"), ("d", "heldout"), ("e", "heldout")):
        prompt = NewPrompt((Message("user", f"prompt {name}"),), "book.txt", split)
        for kind, verdict in (("pair", prefer(0)), ("rate", Verdict("rated", ratings=(5, 1)))):
            label = ImportedLabel(prompt, sides, kind, verdict)
            store.import_judgement(label, rater_id=rater, heldout_fraction=0.0)
    store.add_prompts([NewPrompt((Message("user", "prompt f"),), "book.txt", "heldout")], heldout_fraction=0.0)
    return store


def manifest_of(report: ExportReport) -> dict[str, Any]:
    assert report.manifest is not None
    found: dict[str, Any] = json.loads(report.manifest.read_text("utf-8"))
    return found


def holds(path: Path) -> set[str]:
    """Which of the prompts a file holds, whatever its format."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        content = json.dumps(parquet.read_table(path).to_pylist()).encode()
    return {name for name in "abcdef" if f"prompt {name}".encode() in content}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_holds_the_split_that_was_asked_for_and_says_which(
    judged: Store, tmp_path: Path, name: str
) -> None:
    unjudged = {"f"} if name == "trl-prompts" else set()
    target = tmp_path / FORMATS[name].file
    for split, prompts, heldout in (
        ("train", {"a", "b", "c"}, 0),
        ("heldout", {"d", "e"} | unjudged, 2 + len(unjudged)),
        ("all", {"a", "b", "c", "d", "e"} | unjudged, 2 + len(unjudged)),
    ):
        report = export_labels(judged, target, format=name, split=split)
        manifest = manifest_of(report)
        assert holds(target) == prompts
        assert (report.split, report.heldout) == (split, heldout)
        assert (manifest["split"], manifest["heldout_prompts"]) == (split, heldout)
        rows = manifest["rows_by_split"]
        assert set(rows) == ({"train", "heldout"} if split == "all" else {split})
        assert sum(rows.values()) == report.rows
        said = f"held-out prompts in this file: {heldout} of {len(prompts)}"
        assert (said in manifest["how_to_use"]) == ("held-out" in manifest["how_to_use"]) == (heldout > 0)
    assert manifest_of(export_labels(judged, target, format=name))["split"] == "all"


def test_the_warning_says_how_many_and_what_to_do_and_spoils_no_configuration(judged: Store, tmp_path: Path) -> None:
    use = manifest_of(export_labels(judged, tmp_path / "out.jsonl", format="axolotl"))["how_to_use"]
    clean = manifest_of(export_labels(judged, tmp_path / "out.jsonl", format="axolotl", split="train"))["how_to_use"]
    assert use.startswith(clean)
    warning = use.removeprefix(clean).strip()
    assert warning.startswith("# Attention: held-out prompts in this file: 2 of 5.")
    assert "--split train" in warning
    assert "\n" not in warning


def test_what_was_not_asked_for_is_counted(judged: Store, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    assert export_labels(judged, target, format="rlhf-tui", split="train").left_out == {HELDOUT: 4}
    assert export_labels(judged, target, format="rlhf-tui", split="heldout").left_out == {TRAINING: 6}
    assert export_labels(judged, target, format="trl-prompts", split="train").left_out == {HELDOUT: 3}
    assert export_labels(judged, target, format="rlhf-tui").left_out == {}
    kto = export_labels(judged, target, format="trl-unpaired", split="train")
    assert kto.left_out == {HELDOUT: 4, "preferences: they call no answer good or bad by itself": 3}


def test_repeats_of_the_other_split_are_not_counted(store: Store, fill: Any, sit: Any, tmp_path: Path) -> None:
    fill(prompts=1, split="train")
    me = sit(store)
    first = me.judge(prefer(0))
    again = store.present(
        first.task_id, rater_id=me.rater, session_id=me.session, layout="stacked", purpose="repeat", selection="repeat"
    )
    store.judge(again.id, prefer(0), latency_ms=1)
    other = ImportedLabel(
        NewPrompt((Message("user", "q"),), "x", "heldout"),
        (ImportedCandidate("a"), ImportedCandidate("b")),
        "pair",
        prefer(0),
    )
    store.import_judgement(other, rater_id=me.rater, heldout_fraction=0.0)
    repeats = "repeats, asked to see how consistent a rater is"
    assert export_labels(store, tmp_path / "o", split="heldout").left_out == {TRAINING: 1}
    assert export_labels(store, tmp_path / "o", split="train").left_out == {HELDOUT: 1, repeats: 1}


def test_all_formats_at_once_take_the_split_too(judged: Store, tmp_path: Path) -> None:
    reports = export_all(judged, tmp_path / "all", split="train")
    assert all(report.rows and not report.skipped for report in reports)
    for report in reports:
        assert (report.split, report.heldout, holds(report.path)) == ("train", 0, {"a", "b", "c"})


def test_a_split_with_nothing_in_it_is_said_and_nothing_is_written(store: Store, tmp_path: Path) -> None:
    label = ImportedLabel(
        NewPrompt((Message("user", "q"),), "x", "train"),
        (ImportedCandidate("a"), ImportedCandidate("b")),
        "pair",
        prefer(0),
    )
    for what, format in (("prompt", "trl-prompts"), ("judgement", "trl")):
        with pytest.raises(UsageError, match=f"no {what} to export") as caught:
            export_labels(store, tmp_path / "out", format=format, split="heldout")
        assert caught.value.todo
    store.import_judgement(label, rater_id=store.add_rater("me").id, heldout_fraction=0.0)
    for what, format in (("prompt", "trl-prompts"), ("judgement", "trl")):
        with pytest.raises(UsageError, match=f"no {what} to export of the split 'heldout'") as caught:
            export_labels(store, tmp_path / "out", format=format, split="heldout")
        assert "The other split has 1." in caught.value.why
    skipped = export_all(store, tmp_path / "all", split="heldout")
    assert all(report.skipped and report.split == "heldout" for report in skipped)
    assert list(tmp_path.glob("*out*")) == list((tmp_path / "all").iterdir()) == []


def test_an_unknown_split_is_refused_before_anything_is_made(judged: Store, tmp_path: Path) -> None:
    for export in (export_labels, export_all):
        with pytest.raises(UsageError, match="split cannot be 'held-out'") as caught:
            export(judged, tmp_path / "new", split="held-out")
        assert "Did you mean 'heldout'?" in caught.value.why
        assert "train, heldout, all" in caught.value.todo
    assert not (tmp_path / "new").exists()
