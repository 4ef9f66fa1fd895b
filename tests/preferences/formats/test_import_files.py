"""How files are read before anybody looks at what they say: lines, lists, packing, and where the damage is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import import_labels, lines, preview
from rlhf_tui.preferences.formats.sources import kind_of, open_source
from rlhf_tui.preferences.store import Store

PAIR = {"prompt": "Why is the sky blue?", "chosen": "Air scatters blue.", "rejected": "It is not."}


def rows(path: Path) -> list[tuple[int, Any]]:
    return [(row.number, row.value) for row in lines.json_rows(path)]


def place(folder: Path, content: bytes, name: str = "x.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# Shapes


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"a": 1}\n{"a": 2}', [(1, {"a": 1}), (2, {"a": 2})]),
        (b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n', [(1, {"a": 1}), (3, {"a": 2})]),
        ('{"a": "x\u2028y\x85z"}\n"b"\n'.encode(), [(1, {"a": "x\u2028y\x85z"}), (2, "b")]),
        (b"[]", []),
        (b" [ ] \n", []),
        (b'[{"a": 1}, {"a": 2}]', [(1, {"a": 1}), (1, {"a": 2})]),
        (b'\xef\xbb\xbf[\r\n {"a": 1},\r\n\r\n {"a":\r\n 2}\r\n]\r\n', [(2, {"a": 1}), (4, {"a": 2})]),
        (b'{\n "a": 1\n}\n', [(1, {"a": 1})]),
        (b'\n \n{\n "a": 1}', [(3, {"a": 1})]),
        (b'"a"\n7\n', [(1, "a"), (2, 7)]),
        (b"", []),
        (b"\n \r\n", []),
    ],
)
def test_lines_lists_and_single_values(tmp_path: Path, content: bytes, found: list[tuple[int, Any]]) -> None:
    assert rows(place(tmp_path, content)) == found
    assert rows(place(tmp_path, gzip.compress(content, mtime=0), "x.jsonl.gz")) == found


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b'{"a": 1}\n{"a": 2\n{"a": 3}\n', 2, "not JSON"),
        (b'{"a": 1}\n\n{"a": \xff}\n', 3, "not UTF-8"),
        (b'[\n{"a": 1},\n{"a": 2\n{"a": 3}\n]', 4, "not JSON"),
        (b'[\n{"a": 1}\n{"a": 2}\n]', 3, "comma"),
        (b'[\n{"a": 1},\n', 3, "not JSON"),
        (b'[\n{"a": 1},\n{"a": "begun', 3, "not JSON"),
        (b'[\n{"a": 1},\n]\n', 3, "not JSON"),
        (b'[\n{"a": 1}\n]\n{"b": 1}\n', 4, "more after its end"),
        (b'[\n{"a": 1},\n{"a": nothing}\n]', 3, "not JSON"),
        (b'[\n{"a": 1},\n{"a": \xff}\n]', 3, "not UTF-8"),
        (b"[" * 100_000, 1, "not JSON"),
        (b'{\n"a": 1\n', 3, "not JSON"),
        (b'{"a":\n1}\n', 1, "not JSON"),
        (b"[1]\n[2]\n", 2, "more after its end"),
        ('{"a": 1}\n'.encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_damage_is_named_by_its_line(tmp_path: Path, content: bytes, line: int, why: str) -> None:
    with pytest.raises(UsageError, match=rf"x\.jsonl, line {line} cannot be read") as caught:
        rows(place(tmp_path, content))
    assert why in caught.value.why


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listed=st.lists(values, max_size=6), indent=st.sampled_from([None, 0, 2]), window=st.sampled_from([1, 7, 2**18]))
def test_a_list_is_decoded_piece_by_piece_as_json_would_whole(
    tmp_path: Path, listed: list[Any], indent: int | None, window: int
) -> None:
    path = place(tmp_path, json.dumps(listed, indent=indent, ensure_ascii=False).encode("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", window)
        assert [value for _, value in rows(path)] == listed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(listed=st.lists(values, min_size=1, max_size=6), cut=st.integers(1, 40), window=st.sampled_from([1, 2**18]))
def test_a_list_that_was_cut_off_is_never_taken_for_whole(
    tmp_path: Path, listed: list[Any], cut: int, window: int
) -> None:
    whole = json.dumps(listed, indent=1, ensure_ascii=False).encode("utf-8")
    path = place(tmp_path, whole[: max(1, len(whole) - cut)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", window)
        with pytest.raises(UsageError, match="line"):
            rows(path)


# Packing and size


def test_a_packed_file_that_ends_too_soon_or_is_damaged_says_where(store: Store, tmp_path: Path) -> None:
    content = "".join(json.dumps({**PAIR, "chosen": f"Answer {n}, {n * 7919}."}) + "\n" for n in range(3000)).encode()
    packed = gzip.compress(content, mtime=0)
    for broken in (packed[: len(packed) // 2], packed[:-8] + bytes(8), packed[:2000] + b"\0" * 200 + packed[2200:]):
        with pytest.raises(UsageError, match="line") as caught:
            import_labels(store, place(tmp_path, broken, "x.jsonl.gz"), heldout_fraction=0.2)
        assert "gzip" in caught.value.why or "not JSON" in caught.value.why or "UTF-8" in caught.value.why
        assert store.counts().judgements == store.counts().prompts == 0


def test_a_line_or_value_that_unpacks_to_too_much_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 2**20)
    long = b'{"prompt": "' + b"x" * 3 * 2**20 + b'"}'
    for content in (b"[1]\n" + long, b"1\n" + long, b"1\n" + b" " * 2**22):
        with pytest.raises(UsageError, match=r"line [12]") as caught:
            rows(place(tmp_path, gzip.compress(content, mtime=0), "bomb.jsonl.gz"))
        assert "longer than 1 MiB" in caught.value.why or "more after" in caught.value.why
    many = b"[" + b",\n".join([b'"' + b"y" * 2**19 + b'"'] * 8) + b"]"
    assert len(rows(place(tmp_path, many))) == 8
    spread = b'["' + b"\\n\n".join([b"y" * 2**18] * 8) + b'"]'
    with pytest.raises(UsageError, match="line 1"):
        rows(place(tmp_path, spread))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", b""),
        ("x.jsonl", b"\n \n"),
        ("x.json", b"[]"),
        ("x.csv", b""),
        ("x.csv", b"\n \n"),
        ("x.csv", b"prompt,chosen,rejected\n"),
    ],
)
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(UsageError, match="is empty"):
        preview(place(tmp_path, content, name))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file") as caught:
        preview(tmp_path / "absent.jsonl")
    assert caught.value.todo == "Check the name. Nothing was imported."
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match="cannot be read") as caught:
        preview(tmp_path / "folder.jsonl")
    assert caught.value.todo == "Name a file that you may read. Nothing was imported."


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"),
        ("a.NDJSON.gz", "jsonl"),
        ("a.Csv", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.parquet", "parquet"),
        ("a.txt", "txt"),
        ("a.gz", None),
        ("a.xlsx", None),
    ],
)
def test_what_a_name_says(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind
    assert open_source(name).kind == (kind or "jsonl")


def test_a_file_packed_or_not_holds_the_same(tmp_path: Path) -> None:
    content = (json.dumps(PAIR) + "\n").encode()
    plain = preview(place(tmp_path, content, "a.jsonl"))
    packed = preview(place(tmp_path, gzip.compress(content, mtime=0), "b"))
    assert plain.labels[0].candidates == packed.labels[0].candidates
    assert (plain.labels[0].prompt.source, packed.labels[0].prompt.source) == ("a.jsonl", "b")
