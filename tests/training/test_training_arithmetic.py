"""The count of operations against torch's own counter on a real model, and by hand where the counter is blind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rlhf_tui.model import linear
from rlhf_tui.shape import ModelShape
from rlhf_tui.training.arithmetic import Work

SMALL = ModelShape("small", 3, 8, 2, 1, 6, 20, 50, True)


class Counter(TorchDispatchMode):
    """Adds up torch's own formulas for every product that is computed, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = self.batched = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket
        plain = {torch.ops.aten.addmm_: torch.ops.aten.addmm}.get(name, name)
        if plain in flop_registry:
            count = flop_registry[plain](*args, **(kwargs or {}), out_val=out)
            self.batched += count if plain is torch.ops.aten.bmm else 0
            self.linear += count if plain is not torch.ops.aten.bmm else 0
        return out


def counted(run: Any) -> tuple[int, int]:
    """Operations of the linear layers and of attention, as torch counts them (attention: the whole square)."""
    with Counter() as counter:
        run()
    return counter.linear, counter.batched


@pytest.fixture
def tiny(fresh_roles: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Roles on the tiny model with what the counter knows (plain attention, torch's products), two of four adapted."""
    monkeypatch.setattr(linear, "has_kernel", lambda: False)
    roles = fresh_roles(layers=2)
    roles.base.model.set_attn_implementation("eager")
    return roles


@pytest.fixture
def work(tiny: Any) -> Work:
    config = tiny.base.model.config
    shape = ModelShape(
        "tiny",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.hidden_size // config.num_attention_heads,
        config.intermediate_size,
        config.vocab_size,
        True,
    )
    return Work(shape, rank=4, adapted=2, prompt=5, response=7)


def attention(work: Work, layers: int) -> int:
    """By hand: scores and sums, each multiplied and added for every pair of tokens in order."""
    return layers * 2 * 2 * work.shape.query_width * work.length**2 // 2


def test_the_forward_pass_is_what_torch_counts(tiny: Any, work: Work) -> None:
    ids = torch.arange(12)[None]
    with torch.no_grad(), tiny.reference():
        lower = tiny.decoder.lower(ids)
        linear, square = counted(lambda: tiny.decoder.upper(lower))
        below, _ = counted(lambda: tiny.decoder.lower(ids))
    rotary = 2 * 12 * 4  # of the angles: frequencies times places, once in each part
    assert square // 2 in range(attention(work, 2), attention(work, 2) + rotary)
    assert work.bare_forward() == linear + attention(work, 2)
    assert work.shared() == below + attention(work, 2)
    with torch.no_grad(), tiny.acting("policy"):
        adapted, _ = counted(lambda: tiny.decoder.upper(lower))
    assert work.forward() == adapted + attention(work, 2)


def test_learning_is_what_torch_counts(tiny: Any, work: Work) -> None:
    ids = torch.arange(12)[None]
    with tiny.learning("policy"):
        lower = tiny.decoder.lower(ids)
        linear, square = counted(lambda: torch.autograd.backward(tiny.decoder.upper(lower).sum()))
    assert work.learning() == linear + 3 * attention(work, 2)
    assert square // 2 >= 3 * attention(work, 2)


def test_logits_prefill_and_decoding_by_hand() -> None:
    work = Work(SMALL, rank=2, adapted=3, prompt=4, response=6)
    layer = 8 * 12 + 2 * 8 * 6 + 12 * 8 + 3 * 8 * 20
    adapter = 3 * 2 * (8 + 12 + 2 * (8 + 6) + 12 + 8 + 3 * (8 + 20))
    assert work.logits() == 2 * 6 * 8 * 50
    assert work.policy_learning() == work.learning() + 2 * work.logits()
    assert work.prefill() == 2 * 4 * (3 * layer + adapter) + 3 * 4 * 12 * 16 // 2 + 2 * 8 * 50
    # the tokens seen by the six that are sampled: 4 + (0 … 6) / 2 on average
    assert work.decoding() == 2 * (3 * layer + adapter + 8 * 50) + 3 * 4 * 12 * 7
    assert work.decoding_bytes(1000, 2, rows=3) == 1000 + 4 * adapter + 3 * (2 * 3 * 6 * 2 * 7)


def test_nothing_is_shared_when_all_layers_are_adapted() -> None:
    work = Work(SMALL, rank=2, adapted=3, prompt=4, response=6)
    assert work.shared() == 0
    assert replace(work, adapted=1).shared() == 2 * work.bare_forward() // 3
