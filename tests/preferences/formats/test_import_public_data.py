"""Real files that people publish import fully. They are not in the repository: skipped where they are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import import_labels, preview, read_prompts
from rlhf_tui.preferences.store import Store

DATA = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")


@pytest.mark.parametrize(
    ("name", "format"),
    [("en_100_tree.jsonl", "oasst"), ("en_100_message.jsonl", "oasst"), ("rankings.jsonl", "rankings")],
)
def test_open_assistant_rankings_are_212_groups_and_754_pairs(store: Store, name: str, format: str) -> None:
    path = DATA / "oasst_en_100_ranked" / name
    report = import_labels(store, path, heldout_fraction=0.2)
    assert (report.format, report.rankings, report.comparisons) == (format, 212, 754)
    # Of the trees, 42 messages have answers that nobody ranked; two of them have several, a choice nobody made.
    unranked = {"a candidate without a rank, whose group is kept without it": 1, "fewer than two ranked answers": 2}
    assert report.dropped == ({} if format == "rankings" else unranked)
    assert (store.counts().rankings, len(store.pairs())) == (212, 754)
    sizes = [len(judged.shown) for judged in store.judgements()]
    assert {size: sizes.count(size) for size in set(sizes)} == {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1}
    assert import_labels(store, path, heldout_fraction=0.2).duplicates == 212


def test_the_three_shapes_of_open_assistant_say_the_same(store: Store) -> None:
    folder = DATA / "oasst_en_100_ranked"
    import_labels(store, folder / "en_100_tree.jsonl", heldout_fraction=0.2)
    before = store.snapshot_hash()
    for name in ("en_100_message.jsonl", "rankings.jsonl"):
        assert import_labels(store, folder / name, heldout_fraction=0.2).duplicates == 212
    assert store.snapshot_hash() == before


@pytest.mark.parametrize(
    ("name", "format", "kind"),
    [
        ("dpo_en_demo.json", "llamafactory-sharegpt", "pairs"),
        ("kto_en_demo.json", "llamafactory-kto", "acceptances"),
        ("v1_dpo_demo.jsonl", "llamafactory-v1", "pairs"),
    ],
)
def test_the_fixtures_of_llama_factory_import_fully(store: Store, name: str, format: str, kind: str) -> None:
    report = import_labels(store, DATA / "format_fixtures" / name, heldout_fraction=0.2)
    assert (report.format, report.dropped) == (format, {})
    assert getattr(report, kind) == report.rows == store.counts().judgements >= 10


def test_its_index_is_no_data() -> None:
    with pytest.raises(UsageError, match="holds no judgements"):
        preview(DATA / "format_fixtures" / "dataset_info.json")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mt_bench_80.jsonl", 80),
        ("oasst_en_100.jsonl", 100),
        ("oasst_prompt_lottery_250.jsonl", 250),
        ("self_instruct_seed_tasks.jsonl", 175),
        ("self_instruct_user_oriented_252.jsonl", 252),
        ("vicuna_80.jsonl", 80),
    ],
)
def test_every_set_of_prompts_reads(name: str, count: int) -> None:
    assert len(read_prompts(DATA / "prompts" / name)) == count
    with pytest.raises(UsageError, match="holds prompts"):
        preview(DATA / "prompts" / name)
