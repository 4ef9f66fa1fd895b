"""Settings that do not exist are refused with the reason, wherever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_tui import settings
from rlhf_tui.errors import UsageError


@pytest.mark.parametrize("key", sorted(settings.REFUSED))
def test_what_would_break_the_maths_is_refused_with_the_reason(key: str, tmp_path: Path) -> None:
    """On the command line and in the file alike; and none of these names is a setting."""
    assert key not in {item.key for item in settings.catalogue()}
    section, _, name = key.partition(".")
    file = tmp_path / "rlhf.toml"
    with pytest.raises(UsageError) as told:
        settings.load(file, [f"{key}=0.9"])
    file.write_text(f"[{section}]\n{name} = 0.9\n")
    with pytest.raises(UsageError) as read:
        settings.load(file)
    for error in (told.value, read.value):
        assert key in error.what
        assert error.why == settings.REFUSED[key]
        assert error.todo


@pytest.mark.parametrize(("limit", "fits"), [(0, True), (0.5, False), (1, False), (1.5, True), (3, True)])
def test_the_dual_clip_lies_above_one_or_is_off(limit: float, fits: bool, tmp_path: Path) -> None:
    if fits:
        assert settings.load(tmp_path / "none", [f"ppo.dual_clip={limit}"]).ppo.dual_clip == limit
        return
    with pytest.raises(UsageError, match="above 1"):
        settings.load(tmp_path / "none", [f"ppo.dual_clip={limit}"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("plain words", "plain words"),
        ("'plain words'", "plain words"),
        ('""', ""),
        ("'/a b/tell' 'me and you'", "'/a b/tell' 'me and you'"),
        ('say "it\'s done"', 'say "it\'s done"'),
        ("'", "'"),
    ],
)
def test_one_pair_of_quotes_around_a_text_is_taken_off_and_no_other(given: str, meant: str) -> None:
    assert settings.parse_override(f"model.system_prompt={given}") == ("model.system_prompt", meant)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[ppo]\nupdates = 3\n", ""),
        ("[ppo]\nupdates = 3  # mine\n", "[ppo]\nupdates = 50  # mine\n"),
        ("[ppo]\n# why so few\nupdates = 3\n", "[ppo]\n# why so few\n"),
        ("[ppo]\nupdates = 3\nepochs = 2\n", "[ppo]\nepochs = 2\n"),
        ("ppo.updates = 3\nppo.epochs = 2\n", "ppo.epochs = 2\n"),
        ("ppo = {updates = 3}\n", ""),
    ],
)
def test_a_value_that_returns_to_its_default_goes_and_comments_stay(before: str, after: str, tmp_path: Path) -> None:
    file = tmp_path / "rlhf.toml"
    file.write_text(before)
    assert settings.write(file, "ppo.updates", 50).ppo.updates == settings.Settings().ppo.updates == 50
    assert file.read_text() == after


def test_bounds_are_written_as_a_person_types_them() -> None:
    bounds = {item.key: item.bounds for item in settings.catalogue()}
    assert not [key for key, said in bounds.items() if "e+" in said]
    assert any("1000000" in said for said in bounds.values())
