"""A pass as large as any that a run of PPO can come to, before its first update: what does not fit shows at once.

Completions grow while a policy learns. Without this, a run whose first ones are short would run out of memory hours
later, where nobody sits beside it any more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.rollout import bare_experiences, response_logprobs, response_values


def rehearse(roles: Roles, settings: PpoSettings, sizes: MicroBatching, longest_prompt: int) -> None:
    """Policy and value go forward and backward once, at the largest; `sizes` is smaller when that did not fit.

    Nothing is drawn and nothing learnt: the gradients are dropped, and the optimisers are not asked. Raises UserError
    when not even one completion of full length fits.
    """
    longest = longest_prompt + settings.max_new_tokens

    def shape() -> tuple[int, int]:
        return largest_pass(settings, longest, sizes.most_tokens)

    def size() -> tuple[int, int]:
        rows, width = shape()
        return rows * width, longest

    sizes.survive(lambda: _pass(roles, settings, sizes, *shape()), size)


def largest_pass(settings: PpoSettings, longest: int, most_tokens: int) -> tuple[int, int]:
    """Rows and width of the largest micro-batch there can be, with sequences of at most `longest` tokens."""
    hand = -(-settings.rollout_size // settings.minibatches)
    rows = max(1, min(hand, -(-most_tokens // longest)))
    return rows, longest if rows == 1 else min(longest, most_tokens // rows)


def _pass(roles: Roles, settings: PpoSettings, sizes: MicroBatching, rows: int, width: int) -> None:
    response = min(settings.max_new_tokens, width - 1)
    sequence = Tokens((0,) * (width - response), (0,) * response)
    (one,) = bare_experiences(roles, [sequence] * rows, [True] * rows, rows * width)
    asked: dict[Role, Callable[[], Tensor]] = {
        "policy": lambda: response_logprobs(roles, one, settings.temperature)[0],
        "value": lambda: response_values(roles, one),
    }
    # what Adam keeps is there from the first step on, in every pass but the first
    moments = [[torch.empty_like(own), torch.empty_like(own)] for role in asked for own in roles.parameters(role)]
    for role, answer in asked.items():
        try:
            with roles.learning(role), sizes.forward():
                torch.autograd.backward(answer().sum())
        finally:
            for own in roles.parameters(role):
                own.grad = None
    del moments
