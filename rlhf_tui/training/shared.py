"""The layers below all adapters give the same for every role, epoch and model of a run: they run once a sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf_tui.model.roles import Roles
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Batch, Tokens, micro_batches, pad

_KEPT_BYTES = 512 * 2**20


class SharedLayers:
    """Runs sequences through the shared layers, and on the CPU keeps what they give, as far as that takes little.

    On a card there is no room to keep it, and without shared layers there is nothing to keep. Where padding was,
    what is kept has zeros: with causal attention no token sees what follows it.
    """

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._kept: dict[Tokens, Tensor] = {}
        self._room = _KEPT_BYTES if roles.base.device.type == "cpu" and roles.shares_layers else 0

    def keep(
        self, sequences: Sequence[Tokens], most_tokens: int, *, progress: Callable[[int], None] = lambda done: None
    ) -> None:
        """Run these now, in batches that depend on them alone: what is kept is then the same after a restart."""
        config = self._roles.base.model.config.get_text_config()
        fresh: list[Tokens] = []
        for one in dict.fromkeys(sequences):
            size = len(one) * config.hidden_size * self._roles.base.dtype.itemsize
            if one not in self._kept and size <= self._room:
                fresh.append(one)
                self._room -= size
        sizes = MicroBatching(self._roles.base, most_tokens, "off")
        lengths = [len(one) for one in fresh]
        longest = max(lengths, default=0)

        def run() -> None:
            done = 0
            for members in micro_batches(lengths, sizes.most_tokens):
                _, lower = self.run([fresh[index] for index in members])
                for row, index in enumerate(members):
                    self._kept[fresh[index]] = lower[row, : lengths[index]].clone()
                done += len(members)
                progress(done)

        sizes.survive(run, lambda: (max(sizes.most_tokens, longest), longest))

    @torch.no_grad()
    def run(self, sequences: Sequence[Tokens]) -> tuple[Batch, Tensor]:
        """The sequences padded together, and what the layers above need of them."""
        batch = pad(sequences, self._roles.base.device)
        if all(one in self._kept for one in sequences):
            return batch, torch.nn.utils.rnn.pad_sequence([self._kept[one] for one in sequences], batch_first=True)
        return batch, self._roles.reader.lower(batch.ids)
