"""The decoding step on slots: prompts go in once, then every live slot gets a token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_tui.model.draw import Sampling, draw
from rlhf_tui.model.linear import quick_linears
from rlhf_tui.model.slots import NotSuited, Slots, attending

PREFILL_TOKENS = 1024  # of prompts in one forward pass: enough to keep the processor busy, little to hold


class Stepper:
    """What the device holds of the slots besides the cache: the next input, and the numbers that decide.

    A slot's last prompt token is not part of its prefill: it is the input of the first step, so that every token is
    made in the same way and the prefill needs no logits.
    """

    def __init__(self, model: PreTrainedModel, slots: Slots, sampling: Sampling) -> None:
        device = slots.index.device
        self.model, self.slots, self.sampling = model, slots, sampling
        self.inputs = torch.zeros(slots.rows, dtype=torch.long, device=device)
        self.made = torch.zeros(slots.rows, dtype=torch.long, device=device)
        self.chances = torch.zeros((slots.rows, sampling.max_new_tokens), dtype=torch.float64, device=device)

    def prefill(self, prompts: Sequence[Sequence[int]], targets: Sequence[int]) -> None:
        """Run each prompt but its last token into its slot, a few at a time. Longest first costs least padding."""
        start = 0
        while start < len(prompts):
            width = max(1, len(prompts[start]) - 1)
            part = slice(start, start + max(1, PREFILL_TOKENS // width))
            prefill(self.model, self.slots, [prompt[:-1] for prompt in prompts[part]], targets[part])
            start = part.stop

    def start(self, slot: int, prompt: Sequence[int], chances: Tensor) -> None:
        """The cache of `slot` holds the prompt but its last token: sampling may begin."""
        self.inputs[slot] = prompt[-1]
        self.slots.lengths[slot] = len(prompt) - 1
        self.made[slot] = 0
        self.chances[slot] = chances.to(self.chances.device)

    def move(self, source: int, target: int, length: int) -> None:
        """Slot `target` goes on with what slot `source` was doing."""
        self.slots.copy(source, target, length)
        for store in (self.inputs, self.made, self.chances, self.slots.lengths):
            store[target] = store[source]

    def step(self) -> Tensor:
        """One more token for every live slot. → (live,) on the device"""
        slots, live = self.slots, slice(0, self.slots.live)
        logits = forward(self.model, slots, self.inputs[live])
        uniform = self.chances[live].gather(1, self.made[live, None])[:, 0]
        tokens = draw(logits, self.sampling, uniform)
        self.inputs[live] = tokens
        self.made[live] += 1
        slots.lengths[live] += 1
        return tokens


def prefill(model: PreTrainedModel, slots: Slots, prompts: Sequence[Sequence[int]], targets: Sequence[int]) -> None:
    """Write the keys and values of `prompts` into the slots `targets`, in one forward pass."""
    width = max(len(prompt) for prompt in prompts)
    if width == 0:
        return
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(list(prompt), dtype=torch.long)
    positions = torch.arange(width, device=slots.index.device).expand(len(prompts), -1)
    with slots.filling(targets):
        model.get_decoder()(
            input_ids=ids.to(slots.index.device), position_ids=positions, past_key_values=slots, use_cache=True
        )


def forward(model: PreTrainedModel, slots: Slots, tokens: Tensor) -> Tensor:
    """The logits after one more token in every live slot. tokens: (live,) → (live, vocabulary)"""
    slots.begin_step()
    output = model(
        input_ids=tokens[:, None],
        position_ids=slots.lengths[: slots.live, None],
        past_key_values=slots,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


_SUITED: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def suits_slots(model: PreTrainedModel) -> bool:
    """Whether slots give this model's own logits, tried once for each model on two short sequences."""
    if model not in _SUITED:
        try:
            _SUITED[model] = _reproduces(model)
        except torch.OutOfMemoryError:
            raise
        except (NotSuited, TypeError, ValueError, AttributeError, LookupError, NotImplementedError, RuntimeError):
            _SUITED[model] = False
    return _SUITED[model]


@torch.no_grad()
def _reproduces(model: PreTrainedModel) -> bool:
    """Two sequences of unlike lengths, half of them prefilled, the rest given token by token."""
    device, size = next(model.parameters()).device, model.config.get_text_config().vocab_size
    rows = [[(7 * place + 3) % size for place in range(9)], [(5 * place + 1) % size for place in range(6)]]
    before = (5, 2)
    wanted = [model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0].float() for row in rows]
    slots = Slots(model, 2, 9)
    with attending(model, slots), quick_linears(model, rows=2, steps=0):
        prefill(model, slots, [row[:count] for row, count in zip(rows, before, strict=True)], [0, 1])
        slots.lengths += torch.tensor(before, device=device)
        slots.live = 2
        for turn in range(4):
            slots.reach = max(before) + turn + 1
            tokens = [row[count + turn] for row, count in zip(rows, before, strict=True)]
            found = forward(model, slots, torch.tensor(tokens, device=device)).float()
            slots.lengths += 1
            for own, row, count in zip(wanted, found, before, strict=True):
                slack = 1e-4 if model.dtype == torch.float32 else 5e-2
                if not bool((row - own[count + turn]).abs().max() <= slack * own.abs().max().clamp(min=1.0)):
                    return False
    return True
