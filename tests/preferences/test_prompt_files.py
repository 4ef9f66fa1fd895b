"""Reading prompts from the files people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError
from rlhf_tui.preferences.formats import read_prompts
from rlhf_tui.preferences.store import Message, NewPrompt


@pytest.mark.parametrize("name", ["p.txt", "p.txt.gz"])
def test_a_text_file_has_one_prompt_a_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = "\ufeffFirst, with é\r\n\n  Second\u2028still second \n".encode()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert read_prompts(path) == [
        NewPrompt((Message("user", "First, with é"),), name),
        NewPrompt((Message("user", "Second\u2028still second"),), name),
    ]


SHAPES = [
    ("plain", "plain"),
    ({"prompt": "p"}, "p"),
    ({"text": " t\n"}, " t\n"),
    ({"question": "q"}, "q"),
    ({"instruction": "i"}, "i"),
    ({"instruction": "i", "input": ""}, "i"),
    ({"instruction": "i", "input": "about"}, "i\nabout"),
    ({"instruction": "i", "instances": [{"input": "about", "output": "o"}]}, "i\nabout"),
    ({"turns": ["first", "second"]}, "first"),
    ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}, "u"),
    ({"prompt": [{"role": "user", "content": "u"}]}, "u"),
]


@pytest.mark.parametrize(("value", "text"), SHAPES)
def test_json_lines_in_every_known_shape(tmp_path: Path, value: Any, text: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(value))
    (prompt,) = read_prompts(path)
    assert prompt.messages[-1] == Message("user", text)
    assert (prompt.source, prompt.split, prompt.tags) == ("p.jsonl", None, ())


def test_a_json_list_in_every_known_shape(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps([value for value, _ in SHAPES], indent=2))
    assert [prompt.messages[-1].content for prompt in read_prompts(path)] == [text for _, text in SHAPES]


def test_a_table_has_the_same_as_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('id,prompt,split\n1,"What,\nnow?",train\n2,Why?,heldout\n')
    (tmp_path / "p.tsv").write_text("instruction\tinput\nSay\tthis\nSing\t\n")
    assert [(p.messages[0].content, p.split) for p in read_prompts(tmp_path / "p.csv")] == [
        ("What,\nnow?", "train"),
        ("Why?", "heldout"),
    ]
    assert [prompt.messages[0].content for prompt in read_prompts(tmp_path / "p.tsv")] == ["Say\nthis", "Sing"]


def test_split_tags_and_kind_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "p", "split": "heldout", "tags": ["a", "b"], "kind": "advice"}))
    (prompt,) = read_prompts(path)
    assert (prompt.split, prompt.tags) == ("heldout", ("a", "b", "advice"))


def test_the_format_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts"
    path.write_text('{"prompt": "p"}\n')
    assert [prompt.messages[0].content for prompt in read_prompts(path, format="jsonl")] == ["p"]
    assert [prompt.messages[0].content for prompt in read_prompts(path, format="txt")] == ['{"prompt": "p"}']
    with pytest.raises(UsageError, match="not a known kind"):
        read_prompts(path)
    with pytest.raises(UsageError, match="jsonl"):
        read_prompts(path, format="jsonk")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("[]", "is empty"),
        ('"ok"\n{"prompt": 3}\n', "line 2.*\n.*'prompt'"),
        ('"ok"\n\n{"other": 3}\n', "line 3.*\n.*other"),
        ('"ok"\n{"prompt": "x"\n', "line 2.*\n.*not JSON"),
        ('["ok",\n{"prompt": 3}]', "line 2.*\n.*'prompt'"),
        ('["ok",\n{"prompt": "x"]', "line 2.*\n.*not JSON"),
        ('"ok"\n7\n', "line 2.*\n.*object or a text"),
        ('"ok"\n" "\n', "line 2.*\n.*not empty"),
        ('{"turns": []}', "line 1"),
        ('{"messages": "x"}', "line 1.*\n.*list of messages"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 1.*\n.*end with a user"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "line 1.*\n.*messages like"),
        ('{"prompt": "x", "split": "test"}', "line 1.*\n.*train, heldout"),
        ('{"prompt": "x", "tags": [1]}', "line 1.*\n.*'tags'"),
        ('"\\ud83d"', "line 1.*\n.*half a character"),
        ("[" * 100_000, "line 1.*\n.*not JSON"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=what) as caught:
        read_prompts(path)
    assert caught.value.exit_code == 2


def test_missing_folder_and_wrong_encoding(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_prompts(tmp_path / "absent.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_prompts(tmp_path / "folder.txt")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(UsageError, match="line 2"):
        read_prompts(tmp_path / "latin.txt")
