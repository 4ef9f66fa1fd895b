"""The verbs about judgements and raters: what they say, the one JSON document, and what they leave behind."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.preferences.records import Judged, Verdict, prefer, tied
from rlhf_tui.project import Project, create_project

PAIR = {"prompt": "Which?", "chosen": "The short one.", "rejected": "The one that never comes to an end."}
OTHER = {"prompt": "Why?", "chosen": "Because it is so.", "rejected": "Nobody can ever know that."}
EMPTY = {"prompt": "When?", "chosen": "", "rejected": "Never."}


def document(said: Any) -> Any:
    assert (said.code, said.err) == (0, ""), said
    return json.loads(said.out)


def judged(project: Project) -> list[Judged]:
    with project.store() as store:
        return store.judgements()


def lines(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def labelled(cli, prompted: Project) -> Project:
    """Ann has judged five of six pairs: three ordered, one tied, one both bad."""
    said = cli("label", "--plain", "--rater", "ann", "--project", prompted.root, stdin="f\nj\nd\n=\nx\n")
    assert said.code == 0, said
    return prompted


# -- import -----------------------------------------------------------------------------------------


def test_import_says_what_came_and_what_was_left_out(cli, project: Project, tmp_path: Path) -> None:
    file = lines(tmp_path / "pairs.jsonl.gz", PAIR, OTHER, EMPTY, PAIR)
    found = document(cli("labels", "import", file, "--rater", "ann", "--project", project.root, "--json"))
    assert (found["pairs"], found["duplicates"]) == (2, 1)
    assert sum(found["dropped"].values()) == 1
    assert [(one.rater.handle, one.verdict) for one in judged(project)] == [("ann", prefer(0))] * 2
    again = cli("labels", "import", file, "--rater", "ann", "--project", project.root)
    assert again.code == 0
    assert "Nothing new" in again.out
    assert len(judged(project)) == 2


def test_preview_imports_nothing(cli, project: Project, tmp_path: Path, tree) -> None:
    file = lines(tmp_path / "pairs.jsonl", PAIR, OTHER, EMPTY, PAIR)
    before = tree(tmp_path)
    said = cli("labels", "import", file, "--preview", "--project", project.root)
    assert said.code == 0
    assert "trl-text" in said.out
    for text in ("Which?", "The short one.", "The one that never comes to an end."):
        assert text in said.out
    seen = document(cli("labels", "import", file, "--preview", "--project", project.root, "--json"))
    assert seen["format"] == "trl-text"
    assert len(seen["first"]) == 3
    assert sum(seen["dropped"].values()) >= 1
    assert tree(tmp_path) == before


def test_a_split_of_another_name_is_noted(cli, project: Project, tmp_path: Path) -> None:
    file = lines(tmp_path / "pairs.jsonl", {**PAIR, "split": "fold 3"}, OTHER)
    note = "prompts in a split of another name than train, test and their like: the project decides"
    here = ("--project", project.root)
    seen = cli("labels", "import", file, "--preview", *here)
    assert f"\n  1 {note}\nNothing was imported." in seen.out
    assert document(cli("labels", "import", file, "--preview", *here, "--json"))["notes"] == {note: 1}
    assert cli("labels", "import", file, *here).out.endswith(f"\n  1 {note}\n")
    assert document(cli("labels", "import", file, *here, "--json"))["notes"] == {note: 1}


def test_a_table_is_read_by_its_columns(cli, project: Project, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("frage,gut,schlecht\nWhich?,This one.,That other one\n")
    columns = ["--map", "prompt=frage", "--map", "chosen=gut", "--map", "rejected=schlecht"]
    assert document(cli("labels", "import", file, *columns, "--project", project.root, "--json"))["pairs"] == 1
    (one,) = judged(project)
    assert (one.prompt.text, one.shown[0].text, one.shown[1].text) == ("Which?", "This one.", "That other one")


# -- export -----------------------------------------------------------------------------------------


def test_export_writes_the_file_and_its_manifest(cli, labelled: Project, tmp_path: Path) -> None:
    here = ("--project", labelled.root)
    found = document(cli("labels", "export", tmp_path / "out.jsonl", "--format", "trl", *here, "--json"))
    assert (found["file"], found["format"], found["rows"]) == (str(tmp_path / "out.jsonl"), "trl", 3)
    assert sum(found["left_out"].values()) == 2
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    assert json.loads(Path(found["manifest"]).read_text())["rows"] == 3
    said = cli("labels", "export", tmp_path / "out.jsonl", "--format", "trl", "--ties", "half", *here)
    assert said.out.startswith(f"trl: 5 rows in {tmp_path / 'out.jsonl'}, and its manifest.\n  left out: 1 (")


def test_what_goes_out_comes_in_again(cli, labelled: Project, tmp_path: Path) -> None:
    cli("labels", "export", tmp_path / "all.jsonl", "--project", labelled.root)
    other = create_project(tmp_path / "other")
    assert cli("labels", "import", tmp_path / "all.jsonl", "--project", other.root).code == 0
    assert [one.verdict for one in judged(other)] == [one.verdict for one in judged(labelled)]
    assert [[c.text for c in one.shown] for one in judged(other)] == [
        [c.text for c in one.shown] for one in judged(labelled)
    ]


def test_export_all_writes_every_format_that_can_hold_them(cli, labelled: Project, tmp_path: Path) -> None:
    said = document(cli("labels", "export", tmp_path / "all", "--format", "all", "--project", labelled.root, "--json"))
    written = {one["format"]: one for one in said if not one["skipped"]}
    assert {"rlhf-tui", "trl", "hh", "llamafactory-sharegpt", "openrlhf", "csv"} <= set(written)
    assert all(Path(one["file"]).is_file() and Path(one["manifest"]).is_file() for one in written.values())
    text = cli("labels", "export", tmp_path / "all", "--format", "all", "--project", labelled.root)
    assert text.code == 0
    assert f"rlhf-tui: 5 rows in {written['rlhf-tui']['file']}" in text.out


@pytest.fixture
def halved(cli, project: Project, tmp_path: Path) -> Project:
    """One judgement of a training prompt and two of one that is held out."""
    rows = [{**PAIR, "split": "train"}, {**OTHER, "split": "test"}, {**OTHER, "split": "test", "rejected": "No."}]
    assert cli("labels", "import", lines(tmp_path / "in.jsonl", *rows), "--project", project.root).code == 0
    return project


def test_export_of_a_split_leaves_the_other_out_and_says_what_is_held_out(cli, halved: Project, tmp_path: Path) -> None:
    target, here = tmp_path / "out.jsonl", ("--format", "trl", "--project", halved.root)
    both = cli("labels", "export", target, *here)
    assert "held-out prompts in it: 1; for training leave them out with '--split train'" in both.out
    found = document(cli("labels", "export", target, *here, "--json"))
    assert (found["split"], found["heldout_prompts"], found["rows"]) == ("all", 1, 3)
    train = cli("labels", "export", target, "--split", "train", *here)
    assert train.out.endswith("left out: 2 (about held-out prompts, which were not asked for)\n")
    found = document(cli("labels", "export", target, "--split", "train", *here, "--json"))
    assert (found["split"], found["heldout_prompts"], found["rows"]) == ("train", 0, 1)
    manifest = json.loads(Path(found["manifest"]).read_text())
    assert (manifest["split"], manifest["heldout_prompts"]) == ("train", 0)
    assert "--split train" not in cli("labels", "export", target, "--split", "heldout", *here).out
    found = document(cli("labels", "export", target, "--split", "heldout", *here, "--json"))
    assert (found["split"], found["heldout_prompts"], found["rows"]) == ("heldout", 1, 2)


def test_export_all_of_a_split(cli, halved: Project, tmp_path: Path) -> None:
    folder, here = tmp_path / "all", ("--format", "all", "--split", "train", "--project", halved.root, "--json")
    written = [one for one in document(cli("labels", "export", folder, *here)) if not one["skipped"]]
    assert len(written) > 10
    assert {one["heldout_prompts"] for one in written} == {0}
    assert "Why?" not in "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".parquet")


def test_export_of_an_unknown_split_is_refused(cli, halved: Project, tmp_path: Path) -> None:
    said = cli("labels", "export", tmp_path / "out.jsonl", "--split", "test", "--project", halved.root)
    assert (said.code, said.out) == (2, "")
    assert "The split cannot be 'test'." in said.err
    assert "train, heldout, all" in said.err
    assert not (tmp_path / "out.jsonl").exists()


def test_the_help_lists_the_formats(cli) -> None:
    from rlhf_tui.preferences.formats.readers import READERS as READ
    from rlhf_tui.preferences.formats.writers.registry import FORMATS as WRITTEN

    for verb, known in (("import", READ), ("export", WRITTEN)):
        said = re.sub(r"-\n\s+", "-", cli("labels", verb, "--help").out)  # wrapped at a hyphen
        listed = re.search(r"Formats: ([^.;]*)[.;]", said)
        assert listed is not None
        assert re.split(r",\s+", re.sub(r"\s+\([^)]*\)", "", listed[1])) == list(known)


# -- statistics -------------------------------------------------------------------------------------


def test_stats_of_everybody_and_of_one(cli, labelled: Project) -> None:
    cli("label", "--plain", "--rater", "bob", "--project", labelled.root, stdin="f\nf\n")
    everybody = document(cli("labels", "stats", "--project", labelled.root, "--json"))
    assert [(one["rater"], one["report"]["n"]) for one in everybody["raters"]] == [("ann", 5), ("bob", 2)]
    assert everybody["counts"]["judgements"] == 7
    one = document(cli("labels", "stats", "--rater", "bob", "--project", labelled.root, "--json"))
    assert [(each["rater"], each["report"]["n"]) for each in one["raters"]] == [("bob", 2)]
    assert one["counts"]["judgements"] == 2
    text = cli("labels", "stats", "--rater", "bob", "--project", labelled.root)
    assert text.code == 0
    assert "bob" in text.out
    assert "ann" not in text.out


def test_stats_of_a_project_without_judgements(cli, project: Project) -> None:
    said = cli("labels", "stats", "--project", project.root)
    assert said.code == 0
    assert document(cli("labels", "stats", "--project", project.root, "--json"))["raters"] == []


# -- raters -----------------------------------------------------------------------------------------


def test_raters_are_listed_with_what_they_did(cli, labelled: Project, project: Project) -> None:
    (ann,) = document(cli("labels", "raters", "--project", labelled.root, "--json"))
    assert (ann["rater"], ann["kind"], ann["judgements"], ann["consent"], ann["card"]) == ("ann", "human", 5, False, {})
    assert ann["exported_as"] == f"rater-{ann['uid'][:8]}"
    assert "ann              human       5 judgements  exported as rater-" in (
        cli("labels", "raters", "--project", labelled.root).out
    )


def test_a_card_consent_and_another_name(cli, labelled: Project) -> None:
    here = ("--project", labelled.root, "--json")
    cards = ("--card", "languages=en, de", "--card", "background=a = b", "--card", "age=40")
    assert document(cli("labels", "rater", "ann", *cards, *here))["card"] == {
        **{"languages": "en, de", "background": "a = b", "age": "40"}
    }
    changed = document(cli("labels", "rater", "ann", "--card", "age=", "--consent", "--rename", "anna", *here))
    assert changed["card"] == {"languages": "en, de", "background": "a = b"}
    assert (changed["rater"], changed["consent"], changed["exported_as"]) == ("anna", True, "anna")
    assert document(cli("labels", "raters", *here)) == [changed]
    assert document(cli("labels", "rater", "anna", *here)) == changed
    assert {one.rater.handle for one in judged(labelled)} == {"anna"}
    assert document(cli("labels", "rater", "anna", "--no-consent", *here))["exported_as"].startswith("rater-")


def test_a_change_that_cannot_be_whole_is_not_made(cli, labelled: Project) -> None:
    with labelled.store() as store:
        store.add_rater("bob")
    said = cli("labels", "rater", "ann", "--consent", "--card", "age=40", "--rename", "bob", "--project", labelled.root)
    assert (said.code, said.out) == (2, "")
    assert "There is a rater 'bob' already." in said.err
    ann, _ = document(cli("labels", "raters", "--project", labelled.root, "--json"))
    assert (ann["rater"], ann["consent"], ann["card"]) == ("ann", False, {})


# -- merge ------------------------------------------------------------------------------------------


def test_two_copies_become_one_without_loss_or_doubles(cli, labelled: Project, tmp_path: Path) -> None:
    shutil.copytree(labelled.root, tmp_path / "copy")
    copy = Project(tmp_path / "copy")
    cli("label", "--plain", "--rater", "bob", "--project", copy.root, stdin="f\n! wrong\nj\n=\n")
    cli("label", "--plain", "--rater", "ann", "--project", labelled.root, stdin="k\n")
    came = document(cli("labels", "merge", copy.root, "--project", labelled.root, "--json"))
    assert came == {"prompts": 0, "completions": 0, "judgements": 3, "raters": 1, "renamed": {}}
    both = judged(labelled)
    assert [one.verdict for one in both if one.rater.handle == "bob"] == [prefer(0), prefer(1), tied()]
    assert [one.verdict for one in both if one.rater.handle == "ann"] == [
        *(prefer(0), prefer(1), prefer(0, 2), tied(), Verdict("both_bad"), prefer(1, 2))
    ]
    again = cli("labels", "merge", copy.root / "preferences.db", "--project", labelled.root)
    assert again.code == 0
    assert again.out.startswith("Came over: 0 judgements")
    assert len(judged(labelled)) == len(both)


def test_another_person_of_the_same_name_gets_another_one(cli, labelled: Project, tmp_path: Path) -> None:
    other = create_project(tmp_path / "other")
    lines(tmp_path / "pairs.jsonl", PAIR)
    with other.store() as store:
        store.add_rater("ann")
    cli("prompts", "import", lines(tmp_path / "some.jsonl", {"prompt": "New?"}), "--project", other.root)
    said = cli("labels", "merge", other.root, "--project", labelled.root)
    assert said.code == 0
    assert "1 prompts" in said.out
    assert "Another 'ann' was here already: theirs is 'ann" in said.out
    assert len(document(cli("labels", "raters", "--project", labelled.root, "--json"))) == 2
