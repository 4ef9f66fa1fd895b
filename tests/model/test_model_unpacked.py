"""An unpacked copy of 4-bit weights is the same model, is gone afterwards, and is timed as it is used."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor

from rlhf_tui.model import base as base_module
from rlhf_tui.model import generation, unpacked
from rlhf_tui.model.base import Base
from rlhf_tui.model.generation import Sampling, projected_seconds, sample
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.unpacked import multiplying_with, packed_bytes, unpacked_bytes

Load = Callable[..., Base]
MakeRoles = Callable[..., Roles]
PROMPTS = [[5, 6, 7], [8] * 9, [9, 10]]
LINEAR = 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)  # numbers in the linear layers of the blocky model


@pytest.fixture
def nf4(blocky_folder: Path, load: Load) -> Base:
    return load(blocky_folder, quantisation="nf4")


@torch.no_grad()
def logits(base: Base, ids: Tensor) -> Tensor:
    return base.model(input_ids=ids, use_cache=False).logits


def forwards(base: Base) -> list[bool]:
    return ["forward" in vars(module) for module in base.model.modules()]


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.float16, 1e-2)])
@pytest.mark.parametrize("role", ["policy", None])
def test_the_copy_gives_the_logits_of_the_4_bit_layers(
    blocky_folder: Path,
    load: Load,
    make_roles: MakeRoles,
    ids: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    slack: float,
    role: str | None,
) -> None:
    monkeypatch.setattr(base_module, "choose_dtype", lambda device: dtype)
    base = load(blocky_folder, quantisation="nf4")
    roles = make_roles(base, "policy")
    before = forwards(base)
    with roles.acting("policy") if role else roles.reference():
        wanted = logits(base, ids)
        with multiplying_with(base.model, "copy", rows=2):
            asked = [0]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Linear4bit, "forward", lambda *_: asked.__setitem__(0, 1))
                found = logits(base, ids)
        assert torch.equal(logits(base, ids), wanted)
    assert asked == [0]  # no 4-bit product is left
    assert found.dtype == wanted.dtype
    assert (found - wanted).abs().max() <= slack * wanted.abs().max()
    assert forwards(base) == before


def test_its_size_is_known_beforehand(nf4: Base, tiny_base: Base) -> None:
    assert unpacked_bytes(nf4.model) == 4 * LINEAR
    assert packed_bytes(nf4.model) == LINEAR // 2
    assert unpacked_bytes(tiny_base.model) == packed_bytes(tiny_base.model) == 0


def test_the_copy_is_gone_afterwards_also_after_a_fault(nf4: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    own = unpacked.in_blocks

    def watched(weight: Tensor, rows: int) -> Tensor:
        copy = own(weight, rows)
        made.append(weakref.ref(copy))
        return copy

    monkeypatch.setattr(unpacked, "in_blocks", watched)
    before = forwards(nf4)

    def broken() -> None:
        with multiplying_with(nf4.model, "copy", rows=2):
            assert len(made) == 7 * 4
            assert all(one() is not None for one in made)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    gc.collect()
    assert all(one() is None for one in made)
    assert forwards(nf4) == before


def test_a_fault_while_it_is_made_leaves_the_layers_alone(nf4: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [3]

    def out_of_memory(weight: Tensor, rows: int) -> Tensor:
        left[0] -= 1
        if not left[0]:
            raise torch.OutOfMemoryError("no memory left")
        return weight

    monkeypatch.setattr(unpacked, "in_blocks", out_of_memory)
    before = forwards(nf4)
    with pytest.raises(torch.OutOfMemoryError), multiplying_with(nf4.model, "copy", rows=2):
        pass
    assert forwards(nf4) == before


def test_samples_are_those_of_the_4_bit_layers(nf4: Base) -> None:
    """In fp32, where the roundings of the two do not reach a draw."""
    plain, copied = (
        sample(nf4.model, PROMPTS, Sampling(12, 1.0), end_ids=(), rows=2, seed=3, weights=weights)
        for weights in unpacked.WEIGHTS
    )
    assert plain == copied


def test_what_is_timed_is_the_step_and_the_making(nf4: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 1 at a step of 4-bit layers, 0.25 at one of a copy, and 5 for a copy."""
    clock, own = [0.0], unpacked._unpacked

    def made(layer: Any, rows: int) -> Any:
        clock[0] += 5 / 28
        return own(layer, rows)

    advance = generation._Crew.advance

    def advanced(crew: Any) -> int:
        layer = nf4.model.get_decoder().layers[0].mlp.gate_proj
        clock[0] += 0.25 if "forward" in vars(layer) else 1.0
        return advance(crew)

    monkeypatch.setattr(unpacked, "_unpacked", made)
    monkeypatch.setattr(generation._Crew, "advance", advanced)
    monkeypatch.setattr(generation.time, "perf_counter", lambda: clock[0])
    seconds = {
        weights: projected_seconds(nf4.model, PROMPTS, Sampling(20, 1.0), steps=100, weights=weights)
        for weights in unpacked.WEIGHTS
    }
    assert seconds == pytest.approx({"quantised": 100.0, "copy": 5 + 25.0})


def test_no_copy_is_made_for_completions_that_are_too_short_to_time(nf4: Base) -> None:
    seconds = [
        projected_seconds(nf4.model, PROMPTS, Sampling(6, 1.0), steps=6, weights=weights)
        for weights in unpacked.WEIGHTS
    ]
    assert seconds == [0.0, math.inf]
