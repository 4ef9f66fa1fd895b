"""The user's own keys: read from a file that is theirs, refused in words when they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhf_tui.app import keyfile, keytable
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.keyfile import key_file, listing, load_keymap
from rlhf_tui.cli import app
from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project


def test_without_a_file_the_keys_are_ours(tmp_path: Path) -> None:
    assert load_keymap(tmp_path / "keys.toml") == {}
    assert not any(one.own for one in listing({}))


def test_every_action_is_listed_once() -> None:
    listed = [one.id for one in listing({})]
    assert listed == [action.id for group in keytable.REGISTRY.values() for action in group]
    assert len(set(listed)) == len(listed)


def test_a_key_of_ones_own_is_listed_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('label.left = "a"\n[label]\nright = "l"\n'.replace("[label]\nright", "label.right"))
    listed = {one.id: one for one in listing(load_keymap(path))}
    assert (listed["label.left"].keys, listed["label.left"].own) == ("a", True)
    assert (listed["label.right"].keys, listed["label.right"].own) == ("l", True)
    assert not listed["label.tie"].own


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label.left = ", "cannot be read"),
        ("label.left = 3", "must be a text"),
        ('label.lft = "a"', "'label.lft'"),
        ('label.left = "x"', "two things"),
        ('label.left = "ctrl+z"', "ctrl+z"),
    ],
)
def test_a_file_that_cannot_be_names_itself(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_keymap(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.todo


def test_the_file_is_the_users_and_the_verb_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keyfile.platformdirs, "user_config_path", lambda name: tmp_path / name)
    key_file().parent.mkdir()
    key_file().write_text('label.tie = "t"')
    outcome = CliRunner().invoke(app, ["config", "keys", "--json"])
    document = json.loads(outcome.stdout)
    assert document["file"] == str(tmp_path / "rlhf-tui" / "keys.toml")
    (tie,) = [one for one in document["keys"] if one["id"] == "label.tie"]
    assert tie == {"id": "label.tie", "keys": "t", "help": "Both are equally good.", "own": True}


async def test_the_key_works_in_the_app(prompted: Project, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('label.skip = "t"')
    opened = RlhfApp(prompted, start="label", keymap=load_keymap(path))
    async with opened.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.6)  # a pair takes no answer in its first 0.3 s
        await pilot.press("s")
        await pilot.press("t")
        await pilot.pause()
    with prompted.store() as store:
        assert [one.verdict.outcome for one in store.judgements()] == ["skip"]
