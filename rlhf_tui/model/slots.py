"""A key and value cache made of slots: reserved once, written in place, read through views.

Every slot holds one sequence from column 0 on, so that a column is a position. Rows of different lengths live side by
side; what lies behind a row's length is old and masked out. While sampling, attention is done here: transformers makes
no mask, keys and values are not repeated for the query heads that share them, and nothing is concatenated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

ATTENTION = "rlhf_tui_slots"
_KNOWN = {"sliding_window", "softcap", "is_causal", "position_ids", "use_cache", "output_attentions"}


class NotSuited(Exception):
    """This architecture does something with its cache or its attention that slots do not know."""


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer: (slots, heads, columns, size) each."""

    is_sliding = False

    def __init__(self, state: Slots, window: int | None) -> None:
        super().__init__()
        # not a circle: the cache must be gone as soon as nobody samples, not when the collector comes by
        self._state = cast(Slots, weakref.proxy(state))
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve room for every slot; zeros, because a masked-out NaN would still spread."""
        slots, columns = self._state.rows, self._state.columns
        self.keys = key_states.new_zeros((slots, key_states.shape[1], columns, key_states.shape[-1]))
        self.values = value_states.new_zeros((slots, value_states.shape[1], columns, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new keys and values where they belong; returns what the queries may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        state = self._state
        state.window = self.window
        assert self.keys is not None
        assert self.values is not None
        if state.targets is not None:
            width = key_states.shape[2]
            self.keys[state.targets, :, :width] = key_states
            self.values[state.targets, :, :width] = value_states
            return key_states, value_states
        live, reach = state.live, state.reach
        self.keys[state.index[:live], :, state.lengths[:live]] = key_states[:, :, 0]
        self.values[state.index[:live], :, state.lengths[:live]] = value_states[:, :, 0]
        return self.keys[:live, :, :reach], self.values[:live, :, :reach]

    def copy(self, source: int, target: int, length: int) -> None:
        for store in (self.keys, self.values):
            if store is not None:
                store[target, :, :length] = store[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._state.reach, 0

    def get_seq_length(self) -> int:
        return 0 if self._state.targets is not None else self._state.reach - 1

    def get_max_length(self) -> int:
        return self._state.columns


class Slots(Cache):  # type: ignore[misc]
    """The cache of all layers, and where each slot stands.

    `lengths` (rows,) is how many tokens of each slot are in the cache, on the device; the first `live` slots are in
    use, and none of them is longer than `reach` - 1 before a step.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int) -> None:
        device = next(model.parameters()).device
        self.rows, self.columns = rows, columns
        self.live, self.reach = 0, 0
        self._targets: Tensor | None = None
        self.window: int | None = None
        self.index = torch.arange(rows, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._masks: dict[int | None, Tensor] = {}
        super().__init__(layers=[SlotLayer(self, window) for window in _windows(model)])

    @property
    def targets(self) -> Tensor | None:
        """The slots that the rows of a forward pass over prompts belong in; None in a step of decoding."""
        return self._targets

    def copy(self, source: int, target: int, length: int) -> None:
        """Give slot `target` the first `length` columns of slot `source`."""
        if source != target:
            for layer in self.layers:
                layer.copy(source, target, length)

    @contextmanager
    def filling(self, targets: Sequence[int]) -> Iterator[None]:
        """Inside, a forward pass over whole prompts (padded on the right) writes its rows into the slots `targets`."""
        self._targets = torch.tensor(list(targets), device=self.index.device)
        try:
            yield
        finally:
            self._targets = None

    def begin_step(self) -> None:
        """Call when `live`, `reach` or `lengths` has changed: the masks are made anew."""
        self._masks.clear()

    def mask(self, dtype: torch.dtype) -> Tensor:
        """What to add to the scores of this step's queries: (live, 1, 1, reach), 0 or -inf. For the present layer."""
        if self.window not in self._masks:
            columns = torch.arange(self.reach, device=self.lengths.device)
            last = self.lengths[: self.live, None]
            hidden = columns > last
            if self.window is not None and self.window <= self.reach:
                hidden |= columns <= last - self.window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            self._masks[self.window] = mask.masked_fill_(hidden, float("-inf"))[:, None, None]
        return self._masks[self.window]


def _windows(model: PreTrainedModel) -> list[int | None]:
    """How far each layer looks back (None: all the way). Raises NotSuited for layers that are no plain attention."""
    types = getattr(model.config.get_text_config(), "layer_types", None) or []
    if "chunked_attention" in types:
        raise NotSuited("chunked attention")
    windows: list[int | None] = []
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            windows.append(int(layer.sliding_window))
        elif type(layer) is DynamicLayer:
            windows.append(None)
        else:
            raise NotSuited(type(layer).__name__)
    return windows


_present: ContextVar[Slots] = ContextVar("the slots that are being sampled into")


@contextmanager
def attending(model: PreTrainedModel, slots: Slots) -> Iterator[None]:
    """Inside, the attention of `model` is the one below, on `slots`."""
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    before = [(config, config._attn_implementation) for config in configs.values() if _has_attention(config)]
    token = _present.set(slots)
    for config, _ in before:
        config._attn_implementation_internal = ATTENTION
    try:
        yield
    finally:
        for config, own in before:
            config._attn_implementation_internal = own
        _present.reset(token)


def _has_attention(config: Any) -> bool:
    return hasattr(config, "_attn_implementation_internal")


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query: (rows, heads, queries, size); key, value: (rows, fewer heads, columns, size).

    Returns (rows, queries, heads, size), and nothing for the weights.
    Raises NotSuited for anything that would change the scores and is not known here.
    """
    slots = _present.get()
    strange = [name for name, value in others.items() if value is not None and name not in _KNOWN]
    if strange or attention_mask is not None or sliding_window not in (None, slots.window):
        raise NotSuited(f"attention with {strange or 'a mask of its own'}")
    group = query.shape[1] // key.shape[1]
    if slots.targets is None:
        # one query a row: the heads that share keys become queries of one head
        packed = query.reshape(query.shape[0], key.shape[1], group, query.shape[-1])
        out = _attend(packed, key, value, slots.mask(query.dtype), scaling, softcap)
        return out.reshape(query.shape[0], 1, query.shape[1], value.shape[-1]), None
    mask = _causal(query, slots.window, always=softcap is not None)
    if mask is None:
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=group > 1
        )
    else:
        key, value = (store.repeat_interleave(group, dim=1) for store in (key, value))
        out = _attend(query, key, value, mask, scaling, softcap)
    return out.transpose(1, 2).contiguous(), None


def _causal(query: Tensor, window: int | None, *, always: bool) -> Tensor | None:
    """The mask of a whole prompt, (1, 1, queries, queries); None where plain causal attention will do, if it may."""
    width = query.shape[2]
    if not always and (window is None or window > width):
        return None
    place = torch.arange(width, device=query.device)
    row, column = place[:, None], place[None]
    hidden = (column > row) | (column <= row - (window or width))
    return torch.zeros((1, 1, width, width), dtype=query.dtype, device=query.device).masked_fill_(hidden, float("-inf"))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, softcap: float | None
) -> Tensor:
    """Softmax attention with an additive mask, and a soft cap on the scores where there is one (Gemma 2).

    On the CPU the products are spelt out: for one query a row that takes half the time of torch's kernel.
    """
    if softcap is None and query.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    scores = (query * (scaling if scaling is not None else query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return torch.softmax(scores + mask, dim=-1, dtype=torch.float32).to(query.dtype) @ value


AttentionInterface.register(ATTENTION, _attention)
