"""Taking an update back: learning roles and their optimisers as they were before it, kept in main memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.training.scaling import Scaling


class Undo:
    """Adapters, heads, optimiser states and loss scales at the moment of its making.

    12 bytes a parameter, never on the card.
    """

    def __init__(
        self, roles: Roles, optimisers: Mapping[Role, torch.optim.Optimizer], scaling: Mapping[Role, Scaling]
    ) -> None:
        self._roles, self._optimisers, self._scaling = roles, optimisers, scaling
        self._scales = {role: one.state() for role, one in scaling.items()}
        self._kept = {
            role: [self._copy_of(role, parameter) for parameter in roles.parameters(role)] for role in optimisers
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Be as then, bit for bit. Gradients are dropped; learning rates are not touched."""
        for role, scale in self._scales.items():
            self._scaling[role].resume(scale)
        for role, kept in self._kept.items():
            states = self._optimisers[role].state
            for parameter, (value, slots) in zip(self._roles.parameters(role), kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None
                if not slots:  # it had not taken a step yet
                    states.pop(parameter, None)
                for name, slot in slots.items():
                    states[parameter][name].copy_(slot)

    def _copy_of(self, role: Role, parameter: torch.nn.Parameter) -> tuple[Tensor, dict[str, Tensor]]:
        slots = self._optimisers[role].state.get(parameter, {})
        return _kept(parameter), {name: _kept(slot) for name, slot in slots.items()}


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
