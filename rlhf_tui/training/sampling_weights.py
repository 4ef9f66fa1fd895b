"""Which weights a run samples with: the 4-bit ones or an unpacked copy, timed once and kept, so that a resumed run does
the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from rlhf_tui.model.base import Base
from rlhf_tui.model.unpacked import WEIGHTS, Weights, unpacked_bytes

Wish = Literal["auto", "quantised", "copy"]
_OF_THE_FREE = 0.9  # of the memory that is free on a card, a copy takes no more


class SamplingWeights:
    """The choice of a run. Without 4-bit layers there is none."""

    def __init__(self, base: Base, wish: Wish, room: int) -> None:
        """`room`: bytes that a copy may take when nobody has asked for it: what the update needs more than sampling."""
        self._base, self._wish, self._room = base, wish, room
        self.chosen: Weights | None = None
        """None: not yet"""
        self.seconds: dict[str, float] = {}
        """what an update's sampling takes with each, when it was timed"""

    def choose(self, seconds: Callable[[Weights], float]) -> Weights:
        """What to sample with. `seconds` is asked at most once of each, when there is a choice."""
        if self.chosen is None:
            self.chosen = self._decided(seconds)
        return self.chosen

    def give_up(self) -> bool:
        """Do without a copy from now on, for want of memory. Whether there was one to do without."""
        had = self.chosen != "quantised"
        self.chosen = "quantised"
        return had

    def _decided(self, seconds: Callable[[Weights], float]) -> Weights:
        size = unpacked_bytes(self._base.model)
        if size == 0 or self._wish != "auto":
            return "copy" if size and self._wish == "copy" else "quantised"
        if size > self._free():
            return "quantised"
        self.seconds = {weights: seconds(weights) for weights in WEIGHTS}
        return min(WEIGHTS, key=lambda weights: self.seconds[weights])

    def _free(self) -> int:
        """Bytes that a copy may take."""
        if self._base.device.type != "cuda":
            return self._room
        return min(self._room, int(_OF_THE_FREE * torch.cuda.mem_get_info(self._base.device)[0]))

    def state(self) -> dict[str, Any]:
        """The choice, as JSON."""
        return {"chosen": self.chosen, "seconds": self.seconds}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Choose as the one that gave `state` has chosen."""
        self.chosen, self.seconds = state["chosen"], dict(state["seconds"])


def told(weights: SamplingWeights) -> str:
    """The choice and what it rests on, in a few words."""
    quantised, copy = (weights.seconds[one] for one in WEIGHTS)
    taken = "an unpacked copy" if weights.chosen == "copy" else "the 4-bit weights"
    return f"4-bit weights {quantised:.1f} s an update, an unpacked copy {copy:.1f} s: {taken} from now on"
