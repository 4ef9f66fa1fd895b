"""Before the first update one pass of the largest size shows what does not fit, and leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert, Event, Stage
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import ppo
from rlhf_tui.training.batching import micro_batches
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.rehearsal import largest_pass, rehearse
from rlhf_tui.training.rollout import Scoring, deal

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
EVERY_TOKEN = tuple(range(2, 370))
SETTINGS = PpoSettings(
    updates=4, rollout_size=12, max_new_tokens=30, micro_batch_tokens=64, temperature=1.0, policy_learning_rate=1e-3,
    value_learning_rate=1e-3,
)  # fmt: skip
LONGEST = 39  # tokens of the longest prompt, 9, and the longest completion
CLOCKS = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")


def learner(roles: Roles, prompts: Prompts, events: list[Event] | None = None, **changes: Any) -> Ppo:
    asked = [TrainPrompt("the longest", tuple(range(3, 12))), *prompts(5)]
    emit = events.append if events is not None else lambda event: None
    return Ppo(roles, asked, SETTINGS.model_copy(update=changes), Scoring(0.3, 0.7), seed=11, emit=emit)


def update(current: Ppo) -> dict[str, float]:
    return {name: value for name, value in current.update().items() if name not in CLOCKS}


def prints(roles: Roles) -> dict[str, str]:
    return {role: roles.fingerprint(role) for role in LEARNING}


def cramp(current: Ppo, room: int) -> list[int]:
    """Let no pass with gradients have more than `room` tokens; returns the sizes that were tried."""
    tried: list[int] = []
    decoder = current.roles.decoder
    upper = decoder.upper

    def cramped(lower: Tensor, layers: int | None = None) -> Tensor:
        if torch.is_grad_enabled():
            tried.append(lower.shape[0] * lower.shape[1])
            if tried[-1] > room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return upper(lower, layers)

    decoder.upper = cramped  # type: ignore[method-assign]
    return tried


@pytest.mark.parametrize(
    ("rows", "hands", "longest", "most", "wanted"),
    [
        (12, 2, 39, 64, (2, 32)),  # shorter ones fill a pass better than one of full length
        (12, 2, 32, 64, (2, 32)),
        (12, 2, 39, 38, (1, 39)),  # what cannot be divided stands alone
        (5, 2, 10, 1000, (3, 10)),  # never more rows than a minibatch has
    ],
)
def test_the_largest_pass_is_as_large_as_a_micro_batch_can_be(
    rows: int, hands: int, longest: int, most: int, wanted: tuple[int, int]
) -> None:
    settings = PpoSettings(rollout_size=rows, minibatches=hands)
    assert largest_pass(settings, longest, most) == wanted


def test_no_pass_of_an_update_is_larger_by_as_much_as_a_token_a_row() -> None:
    order = random.Random(0)
    for _ in range(300):
        settings = PpoSettings(rollout_size=order.randint(2, 40), minibatches=order.randint(1, 6))
        longest, most = order.randint(4, 60), order.randint(64, 400)
        lengths = [order.randint(2, longest) for _ in range(settings.rollout_size)]
        rows, width = largest_pass(settings, longest, most)
        assert width <= longest
        for hand in deal(len(lengths), settings.minibatches, order):
            own = [lengths[row] for row in hand]
            for group in micro_batches(own, most):
                assert len(group) * max(own[place] for place in group) < rows * width + rows + len(group)


@pytest.mark.parametrize("layers", [0, 2])
def test_what_would_not_fit_later_shows_before_the_first_sample(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    """Every completion is one token long, so that no pass of the update itself would have met the limit."""
    events: list[Event] = []
    current = learner(fresh_roles(layers=layers, endings=EVERY_TOKEN), prompts, events)
    tried = cramp(current, 62)
    found = update(current)
    assert tried[0] == 64
    assert max(tried[1:]) <= 62
    assert current.sizes.most_tokens == LONGEST
    told = [
        event.name if isinstance(event, Stage) else event.code for event in events if isinstance(event, Stage | Alert)
    ]
    assert told[:3] == ["rehearsal", "out-of-memory", "sampling"]
    other = learner(fresh_roles(layers=layers, endings=EVERY_TOKEN), prompts, micro_batch_tokens=LONGEST)
    assert found == update(other)
    assert prints(current.roles) == prints(other.roles)


def test_one_completion_of_full_length_that_does_not_fit_ends_the_run_before_it_begins(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    current = learner(fresh_roles(endings=EVERY_TOKEN), prompts, checkpointing="off")
    cramp(current, LONGEST - 1)
    with pytest.raises(UserError, match=f"single forward pass of {LONGEST} tokens") as caught:
        current.update()
    assert "ppo.max_new_tokens" in caught.value.todo


@pytest.mark.parametrize("room", [10**6, 50, 1])
def test_it_leaves_no_trace_whether_it_fits_or_not(room: int, fresh_roles: FreshRoles, prompts: Prompts) -> None:
    roles = fresh_roles(layers=2)
    current = learner(roles, prompts, checkpointing="off")
    before, chances = prints(roles), torch.get_rng_state()
    cramp(current, room)
    try:
        rehearse(roles, current.settings, current.sizes, 9)
    except UserError:
        assert room == 1
    assert prints(roles) == before
    assert torch.equal(torch.get_rng_state(), chances)
    assert all(own.grad is None for role in LEARNING for own in roles.parameters(role))
    assert not any(optimiser.state for optimiser in current.optimisers.values())


def test_an_update_is_the_same_with_it_and_without(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    current = learner(fresh_roles(), prompts, events)
    found = [update(current), update(current)]
    assert [event.name for event in events if isinstance(event, Stage)].count("rehearsal") == 1
    monkeypatch.setattr(ppo, "rehearse", lambda *_: None)
    other = learner(fresh_roles(), prompts)
    assert [update(other), update(other)] == found
    assert prints(current.roles) == prints(other.roles)
