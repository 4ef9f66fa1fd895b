"""What the training tests share: roles on the tiny model, prompts, and sequences of many lengths."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rlhf_tui.model.heads import Reading
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.training.batching import Tokens
    from rlhf_tui.training.ppo import TrainPrompt

MEAN, DEVIATION = 0.3, 0.7  # of the made-up reward model
VOCABULARY = 370

Prompts = Callable[[int], "list[TrainPrompt]"]
FreshRoles = Callable[..., "Roles"]
Draw = Callable[..., "list[Tokens]"]


@pytest.fixture
def fresh_roles(tiny_folder: Path) -> FreshRoles:
    """Four roles on a freshly loaded model; the same numbers every time.

    An untrained model never ends a turn, so every eighth token does: completions have many lengths.
    """
    import torch

    from rlhf_tui.model.base import load_base
    from rlhf_tui.model.roles import Roles
    from rlhf_tui.settings import AdapterSettings, ModelSettings

    def make(
        *,
        layers: int = 0,
        endings: tuple[int, ...] = tuple(range(2, VOCABULARY, 8)),
        reading: Reading | None = None,
    ) -> Roles:
        base = load_base(ModelSettings(name=str(tiny_folder), quantisation="none", device="cpu"), lambda text: None)
        base = replace(base, chat=replace(base.chat, end_ids=endings))
        roles = Roles(base, AdapterSettings(rank=4, alpha=8, layers=layers), seed=3, reading=reading)
        roles.add("policy")
        roles.add("reward")
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in roles.parameters("reward"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        roles.copy("reward", "value")
        roles.head("value").normalise(MEAN, DEVIATION)
        return roles

    return make


@pytest.fixture
def prompts() -> Prompts:
    """Prompts of random ids, all different, 3 to 9 tokens long."""
    from rlhf_tui.training.ppo import TrainPrompt

    def make(count: int) -> list[TrainPrompt]:
        order = random.Random(count)
        return [
            TrainPrompt(f"prompt {n}", (n + 3, *order.choices(range(3, VOCABULARY), k=order.randint(2, 8))))
            for n in range(count)
        ]

    return make


@pytest.fixture
def draw_tokens() -> Draw:
    """Random sequences: prompts of 2 to 7 and responses of 1 to `longest` tokens."""
    from rlhf_tui.training.batching import Tokens

    def draw(count: int, *, longest: int = 9, seed: int = 0) -> list[Tokens]:
        order = random.Random(seed)
        ids = range(3, VOCABULARY)
        return [
            Tokens(
                tuple(order.choices(ids, k=order.randint(2, 7))), tuple(order.choices(ids, k=order.randint(1, longest)))
            )
            for _ in range(count)
        ]

    return draw
