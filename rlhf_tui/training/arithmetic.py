"""How much arithmetic the phases of PPO are: floating-point operations, a multiplication and an addition each one.

Only what the mathematics asks for is counted: no padding, nothing that is computed a second time to save memory, no
gradient that nobody uses, and of attention the half that a causal mask leaves. Elementwise work is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_tui.shape import ModelShape


@dataclass(frozen=True)
class Work:
    """Sequences of `prompt` + `response` tokens through a model whose last `adapted` layers carry LoRA of `rank`."""

    shape: ModelShape
    rank: int
    adapted: int
    prompt: int
    response: int

    @property
    def length(self) -> int:
        return self.prompt + self.response

    def shared(self) -> int:
        """One sequence through the layers that carry no adapter."""
        return (self.shape.layers - self.adapted) * self._layer(self.length)

    def forward(self) -> int:
        """One sequence through the adapted layers, their adapters on."""
        return self.bare_forward() + 2 * self._lora() * self.length

    def bare_forward(self) -> int:
        """The same with all adapters off."""
        return self.adapted * self._layer(self.length)

    def logits(self) -> int:
        """The unembedding at the positions of the response."""
        return 2 * self.shape.vocabulary * self.shape.hidden * self.response

    def learning(self) -> int:
        """Forward and backward through the adapted layers.

        Backward: the gradient of the states takes as much as the forward pass, twice as much in attention (queries,
        keys, values and probabilities) and in the adapters (their own gradients come on top). The weights get none;
        neither does the input of the first adapted layer, from which only adapters hang.
        """
        shape = self.shape
        first = 2 * shape.hidden * (shape.query_width + 2 * shape.kv_width + 3 * self.rank) * self.length
        back = self.adapted * (self._layer(self.length) + self._attention(self.length)) - first
        return self.forward() + back + 4 * self._lora() * self.length

    def policy_learning(self) -> int:
        """That, with the log-probabilities and their gradient."""
        return self.learning() + 2 * self.logits()

    def prefill(self) -> int:
        """One prompt through all layers, with the logits of its last position."""
        states = self.shape.layers * self._layer(self.prompt) + 2 * self._lora() * self.prompt
        return states + 2 * self.shape.vocabulary * self.shape.hidden

    def decoding(self) -> float:
        """One token of one sequence, on average: every weight once, and attention to what came before."""
        context = self.prompt + self.response / 2
        shape = self.shape
        weights = shape.linear_parameters + self._lora() + shape.vocabulary * shape.hidden
        return 2 * weights + 4 * shape.layers * shape.query_width * context

    def decoding_bytes(self, weights: int, number: int, rows: int) -> float:
        """Bytes read for one token of each of `rows` sequences: `weights` of the base, the adapter, the cache."""
        cache = 2 * self.shape.layers * self.shape.kv_width * number * (self.prompt + self.response / 2)
        return weights + 4 * self._lora() + rows * cache

    def _layer(self, length: int) -> int:
        """One decoder layer for a whole sequence."""
        return 2 * self.shape.linear_parameters // self.shape.layers * length + self._attention(length)

    def _attention(self, length: int) -> int:
        """Scores and their sums over the values: 2 · 2 · d_q · T · T / 2 (causal)."""
        return 2 * self.shape.query_width * length * length

    def _lora(self) -> int:
        """Numbers in one adapter."""
        return self.shape.adapter_parameters(self.rank, self.adapted)
