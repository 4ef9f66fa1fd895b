"""Export, import into a fresh project, and the judgements are the same: for every format, with nasty texts.

What a format cannot hold is left out with a reason that is counted; nothing comes back bent.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import export_labels, import_labels, read_prompts
from rlhf_tui.preferences.formats.exporting import ExportReport
from rlhf_tui.preferences.formats.writers.registry import FORMATS
from rlhf_tui.preferences.formats.writers.sources import BOTH_BAD, NO_PAIR
from rlhf_tui.preferences.records import (
    ImportedCandidate,
    ImportedLabel,
    Judged,
    LabelledPair,
    Message,
    NewPrompt,
    Verdict,
    prefer,
    tied,
)
from rlhf_tui.preferences.store import Store

#: Formats whose rows are pairs. With their strength; and without.
STRONG = ("trl", "trl-implicit", "trl-text", "ms-swift", "openrlhf", "csv", "tsv", "parquet")
WEAK = (
    "hh", "llamafactory-alpaca", "llamafactory-sharegpt", "llamafactory-v1", "axolotl", "axolotl-intel", "axolotl-rm",
    "rewardbench", "arena", "alpacaeval",
)  # fmt: skip
#: Those that can hold every pair there is, whatever its texts.
EVERYTHING = (
    "trl",
    "trl-implicit",
    "ms-swift",
    "openrlhf",
    "llamafactory-v1",
    "axolotl",
    "arena",
    "csv",
    "tsv",
    "parquet",
)
WHOLE = ("rlhf-tui", "axolotl-nectar", "oasst")
MARKS = ("trl-unpaired", "llamafactory-kto")

NASTY = (
    "\n\nHuman: ", "\n\nAssistant:", "Human:", "\n", "\r\n", "\r", "\t", " ", '"', "'", ",", ";", "=1+1", "\\", "\\n",
    "[", "]", "[/b]", "[{", '{"role": "user", "content": "x"}', '[{"role": "user", "content": "x"}]',
    "<|im_start|>user", "[INST]", "<extra_id_1>User\n", "\x00", "\x1b[31m", "\x07", "\x1c", "\x85", "\u2028",
    "\u202e", "\u200d", "\ufeff", "漢字かな", "🙂👩\u200d👩\u200d👧", "e\u0301", "null", "nan", "0", "true", "data:",
    "#",
)  # fmt: skip

_characters = st.characters(exclude_categories=["Cs"])
texts = st.lists(st.sampled_from(NASTY) | st.text(_characters, max_size=8), min_size=1, max_size=4).map("".join)
spoken = texts.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Mostly one question; also longer ones, with a system message, and with turns that do not alternate."""
    roles = draw(
        st.sampled_from(
            [("user",)] * 4
            + [("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user")]
            + [("user", "user"), ("assistant", "user"), ("user", "system", "user")]
        )
    )
    return tuple(Message(role, draw(spoken if place == len(roles) - 1 else texts)) for place, role in enumerate(roles))


@st.composite
def verdicts(draw: st.DrawFn, kind: str, candidates: int) -> Verdict:
    if kind == "pair":
        return draw(st.sampled_from([prefer(0), prefer(1), prefer(0, 2), prefer(1, 2), tied(), Verdict("both_bad")]))
    if kind == "accept":
        return Verdict("accepted", accepted=tuple(draw(st.booleans()) for _ in range(candidates)))
    marks = [draw(st.integers(1, 5)) for _ in range(candidates)]
    if kind == "rate":
        return Verdict("rated", ratings=tuple(marks))
    levels = sorted(set(marks))
    return tied(candidates) if len(levels) == 1 else Verdict("ordered", ranks=tuple(levels.index(m) + 1 for m in marks))


@st.composite
def labels(draw: st.DrawFn) -> ImportedLabel:
    kind = draw(st.sampled_from(["pair", "pair", "rank", "rate", "accept"]))
    size = 2 if kind == "pair" else draw(st.integers(2, 4))
    answers = draw(st.lists(spoken, min_size=size, max_size=size, unique_by=str.strip))
    sides = tuple(ImportedCandidate(text, model=draw(st.sampled_from(["one", "two"]))) for text in answers)
    prompt = NewPrompt(draw(conversations()), "made up", draw(st.sampled_from(["train", "heldout"])))
    return ImportedLabel(
        prompt,
        sides,
        kind,
        draw(verdicts(kind, size)),
        note=draw(st.sampled_from(["", "a\nnote"])),
        flags=draw(st.sampled_from([(), ("private", "wrong")])),
        layout=draw(st.sampled_from(["file", "unordered", "side by side"])),
        latency_ms=draw(st.sampled_from([None, 0, 900])),
    )


several = st.lists(labels(), min_size=1, max_size=8, unique_by=lambda label: label.prompt.messages)
check = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def project(found: list[ImportedLabel]) -> Iterator[tuple[Store, Store, Path]]:
    """A project with these judgements, a fresh one, and a place for files."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (
            Store.create(place / "a.db", name="a", seed=1) as full,
            Store.create(place / "b.db", name="b", seed=2) as fresh,
        ):
            rater = full.add_rater("Ada").id
            with full.transaction():
                for label in found:
                    full.import_judgement(label, rater_id=rater, heldout_fraction=0.0)
            yield full, fresh, place / "out"


def moved(full: Store, fresh: Store, target: Path, name: str, **how: Any) -> ExportReport | None:
    """Export and import; None when there is nothing the format can hold, which is said and not written."""
    try:
        report = export_labels(full, target, format=name, **how)
    except UsageError:
        assert not target.exists()
        return None
    import_labels(fresh, target, format=name, heldout_fraction=0.0)
    return report


def pairs_of(store: Store, *, strong: bool) -> set[tuple[object, ...]]:
    """What pairs say, whoever said it: a tie is the same both ways round."""

    def content(pair: LabelledPair) -> tuple[object, ...]:
        sides = pair.chosen.text, pair.rejected.text
        said = frozenset(sides) if pair.tie else sides
        return (pair.prompt.messages, said, pair.strength if strong else pair.tie)

    return {content(pair) for pair in store.pairs()}


def bad_of(store: Store) -> set[tuple[object, ...]]:
    """The prompts and answers of judgements that all answers are bad."""
    return {
        (judged.prompt.messages, frozenset(one.text for one in judged.shown))
        for judged in store.judgements()
        if judged.verdict.outcome == "both_bad"
    }


LEADING = ImportedLabel(
    NewPrompt((Message("user", "  Why?\n"),), "made up"),
    (ImportedCandidate(" a\n\nHuman: b"), ImportedCandidate(' "c"\r\n,')),
    "pair",
    prefer(1, 2),
)

LONG = ImportedLabel(
    NewPrompt((Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?")), "made up"),
    tuple(ImportedCandidate(text) for text in "abc"),
    "rank",
    Verdict("ordered", ranks=(3, 1, 2)),
)


@pytest.mark.parametrize("name", STRONG + WEAK)
@check
@given(found=several)
@example(found=[LEADING, LONG])
def test_pairs_come_back_or_are_counted(name: str, found: list[ImportedLabel]) -> None:
    with project(found) as (full, fresh, target):
        report = moved(full, fresh, target, name)
        before, after = (pairs_of(store, strong=name in STRONG) for store in (full, fresh))
        assert after <= before
        missing = dict(report.left_out) if report else {}
        if report is None:
            assert name not in EVERYTHING or all(pair.tie for pair in full.pairs())
            assert after == set()
            return
        empty = missing.pop(NO_PAIR, 0) + missing.pop(BOTH_BAD, 0)
        assert sum(missing.values()) == len(before) - len(after)
        pairless = len(full.judgements()) - len({pair.judgement_id for pair in full.pairs()})
        if name in ("arena", "csv", "tsv", "parquet"):
            assert bad_of(fresh) == bad_of(full)
            pairless -= len(bad_of(full))
        assert empty == pairless
        if name in EVERYTHING:
            assert set(missing) <= {"ties"}
        if "keep" in FORMATS[name].ties:
            assert "ties" not in missing


@pytest.mark.parametrize("name", WHOLE)
@check
@given(found=several)
@example(found=[LEADING, LONG])
def test_whole_judgements_come_back_or_are_counted(name: str, found: list[ImportedLabel]) -> None:
    with project(found) as (full, fresh, target):
        report = moved(full, fresh, target, name)
        if report is None:
            assert name != "rlhf-tui"
            return
        before, after = (pairs_of(store, strong=name == "rlhf-tui") for store in (full, fresh))
        assert after <= before
        came = {judged.prompt.messages for judged in fresh.judgements()}
        assert sum(report.left_out.values()) == len(full.judgements()) - len(came)
        assert after == {pair for pair in before if pair[0] in came}


@check
@given(found=several)
def test_our_own_format_brings_everything_back(found: list[ImportedLabel]) -> None:
    def texts_of(judged: Judged) -> list[tuple[str, str]]:
        return [(one.text, one.model) for one in judged.shown]

    def told(store: Store) -> list[tuple[object, ...]]:
        return [
            (judged.prompt.messages, judged.prompt.split, judged.kind, judged.verdict, judged.note, judged.flags,
             judged.layout, judged.latency_ms, texts_of(judged))
            for judged in store.judgements()
        ]  # fmt: skip

    with project(found) as (full, fresh, target):
        moved(full, fresh, target, "rlhf-tui")
        assert told(fresh) == told(full)
        (rater,) = fresh.raters()
        (ada,) = full.raters()
        assert (rater.uid, rater.handle) == (ada.uid, ada.public_name)
        again = import_labels(fresh, target, heldout_fraction=0.0)
        assert again.duplicates == len(found)
        assert len(fresh.judgements()) == len(found)


def test_what_does_not_come_back_is_in_the_file_and_said(
    store: Store, fill: Callable[..., Store], sit: Callable[..., Any], tmp_path: Path
) -> None:
    fill(prompts=1)
    guideline = store.set_guideline("Short answers.")
    sit(store).judge(prefer(0))
    (here,) = store.judgements()
    report = export_labels(store, tmp_path / "out.jsonl")
    (row,) = [json.loads(line) for line in report.path.read_text("utf-8").splitlines()]
    assert (row["created_at"], row["guideline"], row["layout"]) == (here.created_at, guideline.sha256, "side by side")
    with Store.create(tmp_path / "b.db", name="b", seed=2) as fresh:
        fresh.set_guideline("Long answers.")
        import_labels(fresh, report.path, heldout_fraction=0.0)
        (there,) = fresh.judgements()
        assert (there.layout, there.latency_ms) == (here.layout, here.latency_ms)
        assert there.created_at > here.created_at
        again = export_labels(fresh, tmp_path / "again.jsonl")
    assert report.manifest is not None
    assert again.manifest is not None
    use = json.loads(report.manifest.read_text("utf-8"))["how_to_use"]
    assert "All but the time of judging and the guideline comes back" in use
    assert "labels merge" in use
    # Nobody judged by the guideline that happens to be in force where a file is read.
    assert "guideline" not in json.loads((tmp_path / "again.jsonl").read_text("utf-8"))
    told = json.loads(again.manifest.read_text("utf-8"))["guidelines"]
    assert told == [{"version": None, "sha256": None, "judgements": 1}]


@pytest.mark.parametrize("name", MARKS)
@check
@given(found=several)
def test_good_and_bad_answers_come_back(name: str, found: list[ImportedLabel]) -> None:
    with project(found) as (full, fresh, target):
        report = moved(full, fresh, target, name)
        after = {
            (judged.prompt.messages, one.text, good)
            for judged in fresh.judgements()
            for one, good in zip(judged.shown, judged.verdict.accepted, strict=True)
        }
        marks = {
            (label.prompt.messages, one.text, good)
            for label in found
            for one, good in zip(label.candidates, _good(label), strict=True)
            if good is not None
        }
        assert after <= marks
        if name == "trl-unpaired":
            assert after == marks
        assert len(after) == (report.rows if report else 0)


def _good(label: ImportedLabel) -> tuple[bool | None, ...]:
    verdict = label.verdict
    if verdict.outcome == "both_bad":
        return (False, False)
    by_mark = {1: False, 2: False, 3: None, 4: True, 5: True}
    return verdict.accepted or tuple(by_mark[mark] for mark in verdict.ratings) or (None,) * len(label.candidates)


@check
@given(found=several)
def test_prompts_come_back(found: list[ImportedLabel]) -> None:
    with project(found) as (full, _, target):
        export_labels(full, target, format="trl-prompts")
        assert {prompt.messages for prompt in read_prompts(target, format="jsonl")} == {
            label.prompt.messages for label in found
        }


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"trl-prompts"}))
def test_a_compressed_or_plain_file_needs_no_format_named(tmp_path: Path, name: str) -> None:
    """Looking at the file is enough to read it again, packed or not."""
    known = FORMATS[name]
    plain = NewPrompt((Message("user", "Why?"),), "made up")
    rated = NewPrompt((Message("user", "How?"),), "made up")
    sides = (ImportedCandidate("because"), ImportedCandidate("don't know"))
    found = [
        ImportedLabel(plain, sides, "pair", prefer(0)),
        ImportedLabel(rated, sides, "rate", Verdict("rated", ratings=(5, 1))),
    ]
    with project(found) as (full, fresh, _):
        target = tmp_path / (known.file if known.plain else f"{known.file}.gz")
        export_labels(full, target, format=name)
        import_labels(fresh, target, heldout_fraction=0.0)
        if name in MARKS:
            assert {judged.verdict.accepted for judged in fresh.judgements()} == {(True, False)}
        else:
            assert pairs_of(fresh, strong=False) == pairs_of(full, strong=False)
