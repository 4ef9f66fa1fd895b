"""What the Model screen says: models and their licences, the memory stage by stage, the checks, the next key."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_tui import models
from rlhf_tui.app import model_rows
from rlhf_tui.app.model_rows import Unknown
from rlhf_tui.doctor import Check
from rlhf_tui.errors import UsageError
from rlhf_tui.fit import GIB
from rlhf_tui.models import FoundModel
from rlhf_tui.room import Fitting, Room, fitting, remedy
from rlhf_tui.settings import Settings
from rlhf_tui.shape import STARTER_SHAPE

HERE = FoundModel("starter", "SmolLM2", "cached", "starter", 134_515_008, 260 << 20, "apache-2.0", "/x")
THERE = FoundModel("o/m", "o/m", "to download", "hub")


def fitted(gib: float) -> Fitting:
    return fitting(Settings(), STARTER_SHAPE, Room("a card", round(gib * GIB), True), None)


@pytest.mark.parametrize("width", [36, 56, 76, 100, 150])
def test_a_line_of_a_model_fills_its_width_and_says_all_in_words(width: int) -> None:
    line = model_rows.model_line(HERE, width, lit=True, current=True)
    assert line.cell_length == width
    if width >= 56:
        assert "cached · in use" in line.plain
        assert "260M" in line.plain
    if width >= 76:
        assert "135M" in line.plain
        assert "apache-2.0" in line.plain
        other = model_rows.model_line(THERE, width, lit=False, current=False).plain
        assert "size ?" in other
        assert "not known" in other
        assert "to download" in other
        assert "in use" not in other


def test_a_hostile_name_is_only_text() -> None:
    bad = FoundModel("o/m", "o/\x1b[31m[bold]m", "gone", "hub", licence="\x1b]0;x\x07mit")
    assert "\x1b" not in model_rows.model_line(bad, 90, lit=False, current=False).plain
    assert "[bold]m" in model_rows.model_line(bad, 90, lit=False, current=False).plain


@pytest.mark.parametrize("width", [40, 56, 76, 100, 156])
def test_the_plan_names_every_stage_and_keeps_to_its_width(width: int) -> None:
    body = model_rows.plan_body(fitted(24), width, 8)
    rows = body.plain.split("\n")
    assert [row.split()[0] for row in rows[1:5]] == ["generate", "reward", "ppo", "compare"]
    assert all(len(row) <= width for row in rows)
    assert all("✓ fits" in row for row in rows[1:5])
    assert rows[5] == "Every stage fits."


def test_the_columns_add_up_to_the_peak() -> None:
    for stage in fitted(24).plan.stages:
        assert sum(model_rows._memory(stage.parts)) == stage.peak


def test_what_does_not_fit_says_what_is_missing_and_which_key_helps() -> None:
    found = fitted(1.5)
    text = model_rows.plan_body(found, 76, 20).plain
    assert remedy(found)
    assert "✗ -" in text
    assert "f " in text.split("\n")[5]
    for judged in found.verdicts:
        assert judged.fits or " ".join(judged.advice.split()) in " ".join(text.split())
    assert "no setting helps" in model_rows.plan_body(fitted(0.1), 90, 6).plain


def test_the_remedy_takes_the_lower_of_two_and_cures() -> None:
    found = fitted(1.5)
    lower = dict(one.split("=") for one in remedy(found))
    each = [dict(one.split("=") for one in judged.lower) for judged in found.verdicts]
    assert set(lower) == {key for one in each for key in one}
    for key, value in lower.items():
        if value.isdecimal():
            assert int(value) == min(int(one[key]) for one in each if key in one)
    settings = Settings.model_validate(
        {
            section: {key.partition(".")[2]: value for key, value in lower.items() if key.partition(".")[0] == section}
            for section in {key.partition(".")[0] for key in lower}
        }
    )
    assert fitting(settings, STARTER_SHAPE, found.room, None).fits


def test_a_plan_that_cannot_be_made_says_why() -> None:
    assert "counting" in model_rows.plan_body(None, 76, 6).plain
    assert "a asks the hub" in model_rows.plan_body(Unknown("o/m"), 76, 6).plain
    assert "no card here" in model_rows.plan_body(UsageError("There is no card here."), 76, 6).plain


def test_checks_say_in_words_what_is_wrong_and_what_is_not() -> None:
    checks = [
        Check("card", "note", "no NVIDIA card (none)", "Small models run on the CPU."),
        Check("memory", "ok", "23.5 GiB, 20 GiB free"),
        Check("disk", "problem", "full", "Free some."),
        Check("tmux", "note", "not installed"),
    ]
    rows = model_rows.checks_body(checks, 76, 4).plain.split("\n")
    assert rows[0] == "✗ problem: disk: full — Free some."
    assert rows[1].startswith("· note: card: no NVIDIA card")
    assert rows[2] == "✓ ok: memory 23.5 GiB"
    one = model_rows.checks_body(checks, 76, 1).plain
    assert "✗ problem: disk full" in one
    assert "· note: card no NVIDIA card" in one
    assert "looking" in model_rows.checks_body(None, 76, 1).plain


def test_the_next_step_depends_on_what_is_lit() -> None:
    def said(lit: FoundModel | None, current: FoundModel) -> str:
        return str(model_rows.next_words(lit, current, "Press 2."))

    assert said(HERE, HERE) == "Press 2."
    assert said(None, HERE).startswith("⏎ asks for a folder")
    assert "makes o/m this project's model" in said(THERE, HERE)
    assert "Only then ⏎ downloads it" in said(THERE, HERE)
    assert said(THERE, THERE).startswith("⏎ downloads o/m")
    assert "Nothing is downloaded before that" in said(THERE, THERE)
    half = FoundModel("o/m", "o/m", "partly here", "hub", size=10 << 20)
    assert "the rest of o/m (10M)" in said(half, half)


def test_a_typed_name_is_told_what_it_would_fetch(tmp_path: Path) -> None:
    assert model_rows.told("starter") == (False, "✓ SmolLM2-135M: already here")
    assert model_rows.told("o/m")[1].startswith("✓ fetched from the hub when")
    assert model_rows.told("nonsense")[0]
    (tmp_path / "m").mkdir()
    assert model_rows.told(str(tmp_path / "m"))[0]
    (tmp_path / "m" / "config.json").write_text("{}")
    assert model_rows.told(str(tmp_path / "m")) == (False, "✓ a model folder; nothing is fetched")
    assert models.stored_name(str(tmp_path / "m")) == str(tmp_path / "m")
