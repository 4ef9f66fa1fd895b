"""Where the reward model reads is chosen by what the labels say, and is the same for all who read after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base, load_base
from rlhf_tui.model.heads import Reading
from rlhf_tui.settings import ModelSettings, RewardSettings
from rlhf_tui.stages import reward_reading
from rlhf_tui.stages.reward_labels import Labelled, Labels
from rlhf_tui.stages.reward_reading import LEAST_PAIRS, Choice, choose_reading, read_choice, readings, write_choice
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair

WORDS, MEANING, END = Reading(1, "mean"), Reading(3, "mean"), Reading(0, "last")


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return load_base(ModelSettings(name=str(tiny_folder), quantisation="none", device="cpu"), lambda text: None)


def labels(pairs: int, *, folds: int = 5) -> Labels:
    """Pairs of made-up tokens, a prompt each; the better one of number n has the id 2n, the worse one 2n + 1."""
    train = [
        Labelled(
            row=SimpleNamespace(tie=False, smoothing=0.05, weight=1.0, fold=n % folds),  # type: ignore[arg-type]
            pair=Pair(Tokens((n,), (2 * n,)), Tokens((n,), (2 * n + 1,)), False, 1, 1.0),
            prompt_text="",
            better=None,  # type: ignore[arg-type]
            worse=None,  # type: ignore[arg-type]
        )
        for n in range(pairs)
    ]
    return Labels(snapshot=None, train=tuple(train), heldout=(), too_long=0, ceiling=None)  # type: ignore[arg-type]


def features(of: Labels, telling: float, *, seed: int = 1) -> Features:
    """Noise, and in the first number `telling` more of what the rater likes for the better one."""
    sequences = [side for one in of.train for side in (one.pair.chosen, one.pair.rejected)]
    values = torch.randn(len(sequences), 6, generator=torch.Generator().manual_seed(seed))
    values[::2, 0] += telling
    return Features({one: row for row, one in enumerate(sequences)}, values)


@pytest.mark.parametrize("best", [WORDS, MEANING, END])
def test_the_place_that_knows_the_taste_is_found(best: Reading) -> None:
    given = labels(60)
    seen = {one: features(given, 2.0 if one == best else 0.3) for one in (MEANING, WORDS, END)}
    choice = choose_reading(given, seen)
    assert choice.reading == best
    assert sum(gap > 0 for gap in choice.gaps) > 50


def test_with_too_few_labels_the_first_is_taken() -> None:
    for given in (labels(LEAST_PAIRS - 1), labels(60, folds=1)):
        seen = {MEANING: features(given, 0.0), WORDS: features(given, 3.0)}
        assert choose_reading(given, seen).reading == MEANING


def test_choosing_among_many_places_flatters_no_coin() -> None:
    """Noise for features: the best of fourteen places looks clever on the pairs it was chosen by, and is not."""
    told, flattered, count = 0.0, 0.0, 40
    for seed in range(12):
        given = labels(count)
        seen = {Reading(layer, "mean"): features(given, 0.0, seed=100 * seed + layer) for layer in range(14)}
        choice = choose_reading(given, seen)
        told += sum(gap > 0 for gap in choice.gaps) / count / 12
        alone = choose_reading(given, {choice.reading: seen[choice.reading]})
        flattered += sum(gap > 0 for gap in alone.gaps) / count / 12
    assert flattered > 0.57
    assert abs(told - 0.5) < 0.03


def test_a_place_whose_states_are_no_numbers_is_not_chosen() -> None:
    given = labels(60)
    broken = features(given, 2.0)
    broken.values[3] = float("nan")
    assert choose_reading(given, {WORDS: broken, MEANING: features(given, 1.0)}).reading == MEANING


def test_many_pairs_do_not_make_the_choice_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_reading, "MOST_PAIRS", 40)
    given = labels(90)
    steps: list[int] = []
    choice = choose_reading(given, {WORDS: features(given, 0.0), MEANING: features(given, 2.0)}, steps.append)
    assert choice.reading == MEANING
    assert len(choice.gaps) == 90
    assert steps == [1, 2]


def test_a_choice_is_kept_for_the_run(tmp_path: Path) -> None:
    path = tmp_path / "reading.json"
    assert read_choice(path) is None
    choice = Choice(MEANING, (0.1 + 0.2, -1e-17, 3.0))
    write_choice(path, choice)
    assert read_choice(path) == choice
    path.write_text("{")
    with pytest.raises(UserError, match="Remove it"):
        read_choice(path)


def test_what_the_settings_say_is_not_chosen_again(base: Base) -> None:
    assert readings(RewardSettings(layer=3, pooling="last"), base) == [Reading(3, "last")]
    assert readings(RewardSettings(layer=1000, pooling="mean"), base) == [Reading(0, "mean")]
    assert {one.pooling for one in readings(RewardSettings(layer=2), base)} == {"last", "mean"}
    everywhere = readings(RewardSettings(), base)
    assert everywhere[0] == Reading(3, "mean")  # two thirds of four layers
    assert {one.layer for one in everywhere} == {0, 1, 2, 3}
    assert len(everywhere) == len(set(everywhere)) == 8


def test_a_model_that_keeps_its_layers_elsewhere_is_read_at_its_end(base: Base) -> None:
    decoder: Any = SimpleNamespace(blocks=[])
    model: Any = SimpleNamespace(config=base.model.config, get_decoder=lambda: decoder)
    strange = replace(base, model=model)
    assert {one.layer for one in readings(RewardSettings(), strange)} == {0}
    with pytest.raises(UserError, match="cannot be read after layer 2") as caught:
        readings(RewardSettings(layer=2), strange)
    assert "reward.layer" in caught.value.todo
