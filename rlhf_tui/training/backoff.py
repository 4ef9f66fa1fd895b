"""How much goes through the model at a time: less after memory ran out, and the result stays the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from rlhf_tui.errors import UserError, is_out_of_memory
from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import recomputing
from rlhf_tui.runs.events import Alert
from rlhf_tui.training.memory import release

Result = TypeVar("Result")


class MicroBatching:
    """The size of a forward pass, and whether layers are run again for the backward pass.

    After an out-of-memory the size is halved, down to what cannot be divided; then, with `checkpointing` 'auto',
    gradient checkpointing is turned on. Neither changes what is computed: the loss is summed over micro-batches.
    """

    def __init__(self, base: Base, most_tokens: int, checkpointing: Literal["auto", "on", "off"]) -> None:
        self._base = base
        self._may_recompute = checkpointing == "auto"
        self.most_tokens = most_tokens
        self.recompute = checkpointing == "on"
        self.back_offs = 0

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Inside, layers are run again for the backward pass if need be."""
        if not self.recompute:
            yield
            return
        with recomputing(self._base.model):
            yield

    def survive(self, work: Callable[[], Result], size: Callable[[], tuple[int, int]]) -> Result:
        """The result of `work`, tried again with less at a time for as long as it runs out of memory.

        `work` starts afresh each time and reads `most_tokens`; `size` tells the tokens of its largest forward pass
        and of the largest part that cannot be divided. Raises UserError when nothing is left to try.
        """
        return _until_it_fits(self._base, work, lambda reason: self._shrink(*size(), reason))

    def _shrink(self, used: int, least: int, reason: str) -> None:
        self.back_offs += 1
        if used > least:
            self.most_tokens = max(least, used // 2)
        elif self._may_recompute and not self.recompute:
            self.recompute = True
        else:
            raise UserError(
                f"The memory is not enough for a single forward pass of {least} tokens.",
                why=reason,
                todo="Lower model.max_prompt_tokens, ppo.max_new_tokens or adapters.rank, choose a smaller model or "
                "quantisation, or close what else uses the card; 'rlhf-tui fit' shows what needs how much.",
            )


class RowsInFlight:
    """How many completions are sampled at the same time: half as many after memory ran out.

    A completion is the same whoever is sampled beside it, so that this changes memory and speed only.
    """

    def __init__(self, base: Base, most: int, spare: Callable[[], bool] = lambda: False) -> None:
        """`spare`: gives up what else takes memory, before rows are; whether there was something."""
        self._base, self._spare = base, spare
        self.most = most
        self.back_offs = 0

    def survive(self, work: Callable[[int], Result], rows: int) -> Result:
        """The result of `work(most)`, tried again with fewer of the `rows` at a time while it runs out of memory.

        Raises UserError when not even one completion fits.
        """
        return _until_it_fits(
            self._base, lambda: work(self.most), lambda reason: self._shrink(min(self.most, rows), reason)
        )

    def _shrink(self, used: int, reason: str) -> None:
        if self._spare():
            return
        if used <= 1:
            raise UserError(
                "The memory is not enough to sample a single completion.",
                why=reason,
                todo="Lower ppo.max_new_tokens or model.max_prompt_tokens, choose a smaller model or quantisation, "
                "or close what else uses the card; 'rlhf-tui fit' shows what needs how much.",
            )
        self.back_offs += 1
        self.most = used // 2


def _until_it_fits(base: Base, work: Callable[[], Result], shrink: Callable[[str], None]) -> Result:
    """The result of `work`, tried again after `shrink` (which is told why) for as long as memory runs out."""
    while True:
        try:
            return work()
        except Exception as error:
            reason = _why(error)
        # Outside the handler: the error's traceback holds the tensors that were in the way.
        gc.collect()
        release(base.device)
        shrink(reason)


def _why(error: Exception) -> str:
    """The first line of an out-of-memory; any other error is raised again."""
    if not is_out_of_memory(error):
        raise error
    return f"{type(error).__name__}: {error}".splitlines()[0]


_HARMLESS = "Nothing is lost, and nothing but the speed changes."


def less_at_a_time(phase: str, rows: int, tokens: int, recompute: bool) -> Alert:
    """That memory ran out in a phase of PPO, and with what it goes on."""
    again = " Layers are run again for the backward pass." if recompute else ""
    return Alert(
        "note",
        "out-of-memory",
        f"Memory ran out in {phase}: from now on {rows} completions are sampled at a time, and a forward pass has "
        f"{tokens} tokens at most.{again}",
        why=_HARMLESS,
        remedy=f"ppo.sampling_rows={rows} and ppo.micro_batch_tokens={tokens} start with that.",
    )


def without_a_copy() -> Alert:
    """That memory ran out while a copy of 4-bit weights was there, which is given up."""
    return Alert(
        "note",
        "out-of-memory",
        "Memory ran out in sampling: from now on it does without an unpacked copy of the weights.",
        why=_HARMLESS,
        remedy="ppo.sampling_weights=quantised starts with that.",
    )
