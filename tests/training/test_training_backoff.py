"""Running out of memory at any forward pass is survived, and the numbers stay those of enough memory."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.decoder import WholeDecoder, recomputing, states_after
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Event, Metric
from rlhf_tui.settings import RewardSettings
from rlhf_tui.training import features
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import base_features, score_tokens
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.reward import Trained, train_reward

FreshRoles = Callable[..., Roles]
MIDDLE = Reading(2, "mean")
SETTINGS = RewardSettings(epochs=2, patience=0, learning_rate=1e-3, batch_pairs=6, micro_batch_tokens=4096)


def pairs(count: int, *, seed: int) -> list[Pair]:
    order = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = tuple(order.choices(range(3, 300), k=order.randint(2, 6)))
        sides = [Tokens(prompt, tuple(order.choices(range(3, 300), k=order.randint(2, 12)))) for _ in range(2)]
        made.append(Pair(sides[0], sides[1], False, 1, 1.0))
    return made


class Allocator:
    """A decoder that pretends to have room for so many tokens in a forward pass (with gradients, and without)."""

    def __init__(self, roles: Roles, room: int, *, recomputed: int = 0) -> None:
        self._inner, self._room, self._recomputed = roles.decoder, room, recomputed
        self._layers = roles.base.model.get_decoder().layers
        self.failures = 0

    def lower(self, ids: Tensor) -> Tensor:
        return self._inner.lower(ids)

    def upper(self, lower: Tensor, layers: int | None = None) -> Tensor:
        again = "forward" in vars(self._layers[0])  # gradient checkpointing is on
        room = max(self._room, self._recomputed) if again or not torch.is_grad_enabled() else self._room
        if lower.shape[0] * lower.shape[1] > room:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._inner.upper(lower, layers)


def train(roles: Roles, settings: RewardSettings = SETTINGS) -> tuple[Trained, list[dict[str, float]], Tensor]:
    events: list[Event] = []
    trained = train_reward(
        roles, pairs(18, seed=1), pairs(6, seed=2), settings, seed=3, emit=events.append, boundary=lambda: None
    )
    # without the bias: the fit leaves it without a gradient, and Adam makes a whole step of rounding errors
    weights = torch.cat([parameter.detach().flatten() for parameter in roles.parameters("reward")[:-1]])
    return trained, [event.values for event in events if isinstance(event, Metric)], weights


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("room", [40, 90, 160, 200])
def test_whatever_the_room_the_result_is_that_of_enough_memory(room: int, layers: int, fresh_roles: FreshRoles) -> None:
    roles = fresh_roles(layers=layers)
    enough, wanted, weights = train(roles)
    assert enough.back_offs == 0
    roles = fresh_roles(layers=layers)
    allocator = Allocator(roles, room)
    roles._decoder = allocator
    little, found, same = train(roles)
    assert allocator.failures > 0
    assert little.back_offs > 0
    assert not little.checkpointing
    assert torch.allclose(weights, same, atol=5e-5, rtol=0)  # of steps of 1e-3
    for one, other in zip(wanted, found, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)
    assert torch.allclose(enough.heldout.gaps, little.heldout.gaps, atol=1e-4)


def test_when_a_single_candidate_does_not_fit_layers_are_run_again(fresh_roles: FreshRoles) -> None:
    _, wanted, weights = train(fresh_roles())
    roles = fresh_roles()
    roles._decoder = Allocator(roles, 12, recomputed=4096)
    little, found, same = train(roles)
    assert little.checkpointing
    assert torch.allclose(weights, same, atol=5e-5, rtol=0)  # of steps of 1e-3
    for one, other in zip(wanted, found, strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("checkpointing", ["auto", "off"])
def test_when_nothing_is_left_to_try_it_says_what_would_help(checkpointing: Any, fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    roles._decoder = Allocator(roles, 5)
    with pytest.raises(UserError, match="single forward pass") as caught:
        train(roles, SETTINGS.model_copy(update={"checkpointing": checkpointing}))
    assert "Tried to allocate" in caught.value.why
    assert "rlhf-tui fit" in caught.value.todo


def test_scoring_and_reading_features_survive_too(fresh_roles: FreshRoles, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(model: Any, ids: Tensor, layers: Any) -> dict[int, Tensor]:
        if ids.numel() > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return states_after(model, ids, layers)

    roles = fresh_roles()
    sequences = [side for pair in pairs(10, seed=4) for side in (pair.chosen, pair.rejected)]
    plenty = MicroBatching(roles.base, 10_000, "off")
    wanted = (
        score_tokens(roles, sequences, plenty),
        base_features(roles.base, sequences, [MIDDLE], plenty)[MIDDLE].values,
    )
    roles._decoder = Allocator(roles, 40)
    sizes = MicroBatching(roles.base, 10_000, "off")
    assert torch.allclose(score_tokens(roles, sequences, sizes), wanted[0], atol=1e-5)
    assert sizes.back_offs > 0
    assert sizes.most_tokens <= 40
    monkeypatch.setattr(features, "states_after", scarce)
    sizes = MicroBatching(roles.base, 10_000, "off")
    found = base_features(roles.base, sequences, [MIDDLE], sizes)[MIDDLE].values
    assert torch.allclose(found, wanted[1], atol=1e-5)
    assert 0 < sizes.most_tokens <= 40


def test_other_errors_are_not_taken_for_a_lack_of_memory(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    sizes = MicroBatching(roles.base, 100, "auto")

    def broken() -> None:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        sizes.survive(broken, lambda: (100, 10))
    assert sizes.back_offs == 0


# -- gradient checkpointing -----------------------------------------------------------------------


def test_recomputing_keeps_less_and_gives_the_same_gradients(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    ids = torch.arange(3, 63)[None]
    decoder, gradients, kept = WholeDecoder(roles.base.model), [], []
    for again in (False, True):
        held: list[int] = []

        def pack(tensor: Tensor, held: list[int] = held) -> Tensor:
            held.append(tensor.numel())
            return tensor

        with roles.learning("reward"):
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                if again:
                    with recomputing(roles.base.model):
                        loss = roles.head("reward")(decoder.upper(ids)[:, -1]).sum()
                        kept.append(sum(held))
                        loss.backward()
                else:
                    loss = roles.head("reward")(decoder.upper(ids)[:, -1]).sum()
                    kept.append(sum(held))
                    loss.backward()
            gradients.append([p.grad.clone() for p in roles.parameters("reward") if p.grad is not None])
            for parameter in roles.parameters("reward"):
                parameter.grad = None
    assert kept[1] < 0.3 * kept[0]
    assert len(gradients[0]) == len(gradients[1]) > 2
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert all("forward" not in vars(layer) for layer in roles.base.model.get_decoder().layers)


def test_recomputing_changes_nothing_where_no_gradient_is_recorded(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    ids = torch.arange(3, 23)[None]
    with torch.no_grad(), roles.acting("reward"):
        plain = roles.decoder.upper(roles.decoder.lower(ids))
        with recomputing(roles.base.model):
            assert torch.equal(roles.decoder.upper(roles.decoder.lower(ids)), plain)


# -- numbers that are not finite ------------------------------------------------------------------


def test_a_base_that_overflows_is_named_as_the_cause(fresh_roles: FreshRoles) -> None:
    for start in ("zero", "ridge"):
        roles = fresh_roles()
        with torch.no_grad():
            roles.base.model.get_decoder().norm.weight.fill_(math.inf)
        with pytest.raises(UserError, match="base model itself") as caught:
            train(roles, SETTINGS.model_copy(update={"head_start": start}))
        assert "float32" in caught.value.why


def test_a_broken_weight_is_named_as_the_cause(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    with torch.no_grad():
        roles.parameters("reward")[0][0, 0] = math.nan
    with pytest.raises(UserError, match="weight of its adapter or head is not a finite number"):
        train(roles)


def test_a_step_that_is_too_large_is_named_as_the_cause(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    with torch.no_grad():  # finite, and yet its square is not
        roles.head("reward").weight.fill_(3e38)
    with pytest.raises(UserError, match="gradient is not a finite number") as caught:
        train(roles, SETTINGS.model_copy(update={"head_start": "zero"}))
    assert "learning_rate" in caught.value.todo
