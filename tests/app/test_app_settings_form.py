"""The settings editor without a screen: what is listed, what a typed text would store, storing and undoing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlhf_tui import settings
from rlhf_tui.app.settings_form import Browsing, ChangedMeanwhileError, Entry, SettingsForm, entries, headed, sections
from rlhf_tui.cli import app as command_line
from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.project import Project
from rlhf_tui.runs.trust import untrusted

COMMENTED = """\
# mine
[model]
# why this one
name = "starter"  # for now

[ppo]
# short runs, for a start
updates = 12  # because
clip = 0.3
"""


def entry(key: str) -> Entry:
    return next(one for one in entries() if one.key == key)


@pytest.fixture
def form(project: Project) -> SettingsForm:
    project.config.write_text(COMMENTED)
    return SettingsForm(project)


# What is listed


def test_every_setting_is_listed_once_under_its_section() -> None:
    listed = Browsing().listed
    assert [one.key for one in listed] == [one.key for one in settings.catalogue()]
    heads = [line for line in headed(listed) if isinstance(line, str)]
    assert heads == list(sections())
    assert all(sections().values())


@pytest.mark.parametrize("section", [*settings.Settings.model_fields])
def test_it_opens_at_a_section(section: str) -> None:
    lit = Browsing(section).lit
    assert lit is not None
    assert lit.section == section


def test_the_cursor_stops_at_the_ends_and_sections_go_round() -> None:
    browsing = Browsing("ppo")
    browsing.move(-10_000)
    assert browsing.lit == entries()[0]
    browsing.turn_section(-1)
    assert browsing.lit is not None
    assert browsing.lit.key == "notify.on"
    browsing.move(10_000)
    assert browsing.lit == entries()[-1]
    browsing.turn_section(1)
    assert browsing.lit == entries()[0]


def test_words_are_found_in_names_and_explanations_and_a_name_is_lit_first() -> None:
    browsing = Browsing("model")
    browsing.begin_filter()
    browsing.narrow("KL budget")
    assert "guard.kl_budget" in [one.key for one in browsing.listed]
    assert "ppo.keep" not in [one.key for one in browsing.listed if "budget" not in one.info.explanation]
    browsing.narrow("clip")
    assert browsing.lit is not None
    assert "clip" in browsing.lit.key
    browsing.narrow("no such words")
    assert browsing.listed == []
    assert browsing.lit is None
    browsing.move(1)
    browsing.turn_section(1)
    browsing.widen()
    assert not browsing.narrowed
    assert len(browsing.listed) == len(entries())


def test_only_what_differs(form: SettingsForm) -> None:
    browsing = Browsing("model", form.differing)
    browsing.only_differing = True
    assert [one.key for one in browsing.listed] == ["ppo.updates", "ppo.clip"]
    form.store(entry("ppo.clip"), 0.2, seen=0.3)
    assert [one.key for one in browsing.listed] == ["ppo.updates"]
    form.store(entry("ppo.updates"), 50, seen=12)
    assert browsing.lit is None


# What a typed text would store


@pytest.mark.parametrize(
    ("key", "typed", "new"),
    [
        ("ppo.updates", " 20 ", 20),
        ("ppo.clip", "1e-1", 0.1),
        ("ppo.gamma", "1", 1.0),
        ("model.system_prompt", ' "as typed" ', ' "as typed" '),
        ("model.system_prompt", "", ""),
        ("model.system_prompt", "two\nlines", "two\nlines"),
        ("reward.ties", "drop", "drop"),
        ("notify.bell", "false", False),
    ],
)
def test_what_a_text_would_store(form: SettingsForm, key: str, typed: str, new: Any) -> None:
    assert form.check(entry(key), typed) == new


@pytest.mark.parametrize(
    ("key", "typed", "words"),
    [
        ("ppo.updates", "", "Nothing is typed yet"),
        ("ppo.updates", "0", "greater than or equal to 1"),
        ("ppo.updates", "many", "ppo.updates cannot be 'many'"),
        ("ppo.updates", "1.5", "integer"),
        ("ppo.dual_clip", "0.5", "it must be above 1"),
        ("reward.folds", "1", "one fold would leave nothing"),
        ("model.name", "", "at least 1 character"),
        ("notify.webhook", "http://example.org/x", "https"),
        ("notify.command", "say 'it", "quotation"),
        ("model.system_prompt", "\ud800", "half a character"),
        ("reward.ties", "both", "'half' or 'drop'"),
    ],
)
def test_what_is_wrong_is_said_as_config_set_says_it(form: SettingsForm, key: str, typed: str, words: str) -> None:
    before = form.project.config.read_text()
    with pytest.raises(UsageError) as caught:
        form.check(entry(key), typed)
    assert words in str(caught.value)
    if typed and "\ud800" not in typed:
        with pytest.raises(UsageError) as written:
            settings.write(form.project.config, key, settings.parse_value(key, typed))
        assert written.value.what == caught.value.what
    assert form.project.config.read_text() == before


# Storing


def test_storing_keeps_the_comments(form: SettingsForm) -> None:
    change = form.store(entry("ppo.updates"), 20, seen=12)
    assert (change.old, change.new) == (12, 20)
    assert form.project.config.read_text() == COMMENTED.replace("12", "20")
    assert form.now(entry("ppo.updates")) == 20


def test_a_reset_is_undone_to_the_byte_and_so_is_what_came_before(form: SettingsForm) -> None:
    form.store(entry("ppo.clip"), 0.4, seen=0.3)
    once = form.project.config.read_bytes()
    form.store(entry("ppo.updates"), 50, seen=12)
    assert not form.differs(entry("ppo.updates"))
    taken = form.undo()
    assert taken is not None
    assert (taken.entry.key, taken.new) == ("ppo.updates", 12)
    assert form.project.config.read_bytes() == once
    assert form.undo() is not None
    assert form.project.config.read_text() == COMMENTED
    assert form.undo() is None


def test_undo_leaves_what_another_program_has_written_since(form: SettingsForm) -> None:
    form.store(entry("ppo.updates"), 20, seen=12)
    settings.write(form.project.config, "ppo.clip", 0.5)
    assert form.undo() is not None
    assert form.now(entry("ppo.updates")) == 12
    assert form.now(entry("ppo.clip")) == 0.5
    form.store(entry("ppo.updates"), 20, seen=12)
    settings.write(form.project.config, "ppo.updates", 77)
    with pytest.raises(ChangedMeanwhileError, match="is 77 by now"):
        form.undo()
    assert form.project.settings().ppo.updates == 77


def test_what_another_program_has_changed_meanwhile_is_not_written_over(form: SettingsForm) -> None:
    settings.write(form.project.config, "ppo.updates", 77)
    with pytest.raises(ChangedMeanwhileError) as caught:
        form.store(entry("ppo.updates"), 20, seen=12)
    assert form.project.settings().ppo.updates == 77
    form.store(entry("ppo.updates"), 20, seen=caught.value.now)
    assert form.project.settings().ppo.updates == 20


def test_it_sees_that_the_file_is_another_one(form: SettingsForm) -> None:
    assert not form.look()
    settings.write(form.project.config, "ppo.clip", 0.5)
    assert form.look()
    assert form.now(entry("ppo.clip")) == 0.5
    form.project.config.unlink()
    assert form.look()
    assert not form.differing()


@pytest.mark.parametrize("content", [b"[ppo\nupdates = 3\n", b"[ppo]\nupdates = -3\n", b"\xff\xfe", b"[ppo]\nno = 1\n"])
def test_a_broken_file_is_told_and_left_alone_until_it_is_put_right(form: SettingsForm, content: bytes) -> None:
    form.project.config.write_bytes(content)
    assert form.look()
    assert not form.look()
    assert form.now(entry("ppo.updates")) is None
    for act in (form.require_changeable, lambda: form.store(entry("ppo.updates"), 20, seen=None)):
        with pytest.raises(UserError):
            act()
    assert form.project.config.read_bytes() == content
    form.project.config.write_text(COMMENTED)
    assert form.look()
    assert form.now(entry("ppo.updates")) == 12
    form.require_changeable()


def test_what_cannot_be_written_is_told_and_leaves_nothing_behind(
    form: SettingsForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    form.store(entry("ppo.updates"), 20, seen=12)
    before = form.project.config.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        form.store(entry("ppo.updates"), 30, seen=20)
    with pytest.raises(UserError, match="No space left"):
        form.undo()
    monkeypatch.undo()
    assert form.project.config.read_bytes() == before
    assert not list(form.project.root.glob("*.partial"))
    assert form.undo() is not None


def test_a_folder_that_is_read_only(form: SettingsForm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "writable", property(lambda self: False))
    with pytest.raises(UsageError, match="is read-only"):
        form.store(entry("ppo.updates"), 20, seen=12)
    assert form.project.config.read_text() == COMMENTED


def test_a_file_that_cannot_be_read(form: SettingsForm) -> None:
    form.project.config.unlink()
    os.mkdir(form.project.config)
    assert form.look()
    assert form.trouble is not None
    assert "cannot be read" in form.trouble.what


def test_a_program_typed_here_is_allowed_and_one_that_came_with_the_file_is_not(form: SettingsForm) -> None:
    command = entry("notify.command")
    form.project.config.write_text('[notify]\ncommand = "other"\n')
    form.look()
    assert not form.is_allowed(command)
    form.store(command, "mine --loud", seen="other")
    assert form.is_allowed(command)
    assert untrusted(form.project.settings().notify, form.project.root) == {}
    form.undo()
    assert not form.is_allowed(command)


# The command line


@pytest.mark.parametrize(
    ("key", "new"),
    [
        ("ppo.updates", 20),
        ("ppo.critic_warmup_updates", -1),
        ("ppo.adam_epsilon", 1e-6),
        ("notify.bell", False),
        ("reward.ties", "drop"),
        ("model.system_prompt", "Say 'it' \"so\"."),
        ("model.system_prompt", '"quoted"'),
        ("model.system_prompt", "'quoted'"),
        ("model.system_prompt", "--brief"),
        ("model.system_prompt", "two\nlines"),
        ("reward.raters", ""),
    ],
)
def test_the_command_stores_the_same(form: SettingsForm, key: str, new: Any) -> None:
    words = shlex.split(form.whole_command(entry(key), new))
    assert words[0] == "rlhf-tui"
    outcome = CliRunner().invoke(command_line, words[1:])
    assert outcome.exit_code == 0, outcome.output
    assert settings.value(form.project.settings(), key) == new
