"""Data sets of the hub, through a stand-in for the library that fetches them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats import import_labels, preview, read_prompts
from rlhf_tui.preferences.formats.hub import HubName, parse_name
from rlhf_tui.preferences.store import Store

PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
Asked = list[tuple[str, str | None, str | None]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[Any]]], Asked]:
    """Puts a library in place that has one data set of these splits; tells what it was asked for."""

    def put(splits: dict[str, list[Any]]) -> Asked:
        asked: Asked = []

        def load_dataset(name: str, config: str | None, *, split: str | None) -> Any:
            asked.append((name, config, split))
            return splits if split is None else splits[split]

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return asked

    return put


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hub:Anthropic/hh-rlhf", HubName("Anthropic/hh-rlhf", None, None)),
        ("hub:a/b/test", HubName("a/b", None, "test")),
        ("hub:a/b@test", HubName("a/b", None, "test")),
        ("hub:a/b:en", HubName("a/b", "en", None)),
        ("hub:a/b.c:en-1/train[:100]", HubName("a/b.c", "en-1", "train[:100]")),
    ],
)
def test_names(source: str, name: HubName) -> None:
    assert parse_name(source) == name


@pytest.mark.parametrize("source", ["hub:", "hub:a", "hub:a/", "hub:/b", "hub:a/b:", "hub:a/b/", "hub:a b/c"])
def test_names_that_name_nothing(source: str) -> None:
    with pytest.raises(UsageError, match="names no data set"):
        preview(source)


def test_a_split_is_imported_and_prompts_remember_where_from(
    store: Store, hub: Callable[[dict[str, list[Any]]], Asked]
) -> None:
    asked = hub({"train": [PAIR], "test": [PAIR, {**PAIR, "rejected": "worse"}]})
    assert import_labels(store, "hub:a/b:en/test", heldout_fraction=0.2).pairs == 2
    assert asked == [("a/b", "en", "test")]
    assert [prompt.source for prompt in store.prompts()] == ["hub:a/b:en/test"]


def test_without_a_split_it_is_train_or_the_only_one(hub: Callable[[dict[str, list[Any]]], Asked]) -> None:
    hub({"test": [], "train": [PAIR]})
    assert preview("hub:a/b").rows == 1
    hub({"latest": [PAIR, PAIR]})
    assert preview("hub:a/b").rows == 2
    hub({"en": [PAIR], "de": [PAIR]})
    with pytest.raises(UsageError, match="several splits") as caught:
        preview("hub:a/b")
    assert "hub:a/b/en" in caught.value.todo


def test_a_bad_row_is_named_by_its_number(hub: Callable[[dict[str, list[Any]]], Asked]) -> None:
    hub({"train": [PAIR, {**PAIR, "chosen": 7}]})
    with pytest.raises(UsageError, match="hub:a/b, row 2 cannot be read"):
        preview("hub:a/b")


def test_prompts_come_from_the_hub_too(hub: Callable[[dict[str, list[Any]]], Asked]) -> None:
    hub({"train": [{"prompt": "one"}, {"prompt": "two"}]})
    assert [prompt.messages[0].content for prompt in read_prompts("hub:a/b")] == ["one", "two"]


def test_a_format_cannot_be_named_for_prompts_of_the_hub(hub: Callable[[dict[str, list[Any]]], Asked]) -> None:
    asked = hub({"train": [{"prompt": "one"}]})
    for format in ("csv", "jsonl", "nonsense"):
        with pytest.raises(UsageError, match=f"format '{format}' cannot be given for hub:a/b") as caught:
            read_prompts("hub:a/b", format=format)
        assert "Leave the format away" in caught.value.todo
    assert asked == []


def test_a_missing_library_and_a_missing_network_are_said_plainly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="cannot be read") as caught:
        import_labels(store, "hub:a/b", heldout_fraction=0.2)
    assert "rlhf-tui[hub]" in caught.value.todo

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match="cannot be read") as caught:
        import_labels(store, "hub:a/b", heldout_fraction=0.2)
    assert "ConnectionError: no route" in caught.value.why
    assert caught.value.exit_code == 1
    assert store.counts().prompts == 0
