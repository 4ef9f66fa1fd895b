"""Loss scaling, for cards that compute in fp16: gradients too small for its range are lifted into it for a while.

Micikevicius et al., 2018, Mixed precision training, section 3.2, by torch.amp.GradScaler. A step whose gradients
overflow is skipped and the scale is halved; after a while without, it is doubled. Each role that learns has a scale of
its own: policy and value have losses of unlike size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_tui.model.base import Base
from rlhf_tui.runs.events import Alert

START = 2.0**16
GROWS_AFTER = 200  # steps without overflow; torch's 2000 are more than most runs here have
TOLD_AFTER = 8  # steps skipped in a row: the search for the scale, from START, rarely takes more


@dataclass(frozen=True)
class Step:
    """What became of a step of an optimiser."""

    norm: float
    """of the gradient, before it was clipped; not finite when no step was taken"""
    taken: bool
    hopeless: bool
    """not taken, and no lower scale would help"""


class Scaling:
    """The loss scale of one role. Where the base does not compute in fp16 it does nothing, and not a bit changes."""

    def __init__(self, base: Base) -> None:
        self.on = base.dtype == torch.float16
        self._device = base.device.type
        self._scaler = self._fresh()
        self.skipped = 0
        """steps skipped in a row, up to now"""

    @property
    def scale(self) -> float:
        return float(self._scaler.get_scale())

    def scaled(self, loss: Tensor) -> Tensor:
        """What to go backwards from in place of `loss`."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def step(self, optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], most_norm: float) -> Step:
        """Bring the gradients back to their size, clip their norm to `most_norm`, take the step, drop them.

        No step is taken when they are not finite.
        """
        before = self.scale
        if self.on:
            self._scaler.unscale_(optimiser)
        norm = float(nn.utils.clip_grad_norm_(parameters, most_norm))
        taken = math.isfinite(norm)
        if taken:
            self._scaler.step(optimiser)
        self._scaler.update()
        optimiser.zero_grad(set_to_none=True)
        self.skipped = 0 if taken else self.skipped + 1
        return Step(norm, taken, hopeless=not taken and (before <= 1.0 or self.scale == before))

    # -- what a checkpoint holds --------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that decides the next step, as JSON; nothing where it does nothing."""
        return self._scaler.state_dict() | {"skipped": self.skipped} if self.on else {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Be as another one was when it gave `state`; half a step that was under way is forgotten."""
        self._scaler = self._fresh()
        self.skipped = int(state.get("skipped", 0))
        if self.on and state:
            self._scaler.load_state_dict({name: value for name, value in state.items() if name != "skipped"})

    def _fresh(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self._device, init_scale=START, growth_interval=GROWS_AFTER, enabled=self.on)


def skipped_alert(role: str, scaling: Scaling) -> Alert:
    """That the search for the scale of `role` takes long."""
    return Alert(
        "warning",
        "loss-scale",
        f"The last {scaling.skipped} steps of the {role} were skipped: its gradients overflow.",
        why=f"This card computes in fp16, whose range is small. The loss scale is lowered at each such step (now "
        f"{scaling.scale:g}) and the {role} stays as it is meanwhile.",
        remedy=f"If it goes on, lower the learning rate of the {role}; some models overflow in fp16 whatever is done: "
        "then choose another model, or a card with bf16.",
    )
