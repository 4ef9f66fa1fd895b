"""Quick products against torch's own, with and without adapters, and everything as it was afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf_tui.model import linear
from rlhf_tui.model.base import Base
from rlhf_tui.model.linear import copied_bytes, has_kernel, product, quick_linears
from rlhf_tui.model.roles import Roles

MakeRoles = Callable[..., Roles]

needs_kernel = pytest.mark.skipif(not has_kernel(), reason="this torch has no oneDNN")


@torch.no_grad()
def logits(roles: Roles, ids: Tensor) -> Tensor:
    return roles.base.model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("steps", [0, 1000])
@pytest.mark.parametrize("role", ["policy", "reward", None])
def test_logits_stay_what_they_are(
    tiny_base: Base, make_roles: MakeRoles, ids: Tensor, steps: int, role: str | None
) -> None:
    roles = make_roles(tiny_base, "policy", "reward")
    before = [set(vars(module)) for module in tiny_base.model.modules()]
    weights = {name: value.clone() for name, value in tiny_base.model.state_dict().items()}
    with roles.acting(role) if role else roles.reference():  # type: ignore[arg-type]
        wanted = logits(roles, ids)
        with quick_linears(tiny_base.model, rows=2, steps=steps):
            found = logits(roles, ids)
        assert torch.equal(logits(roles, ids), wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert [set(vars(module)) for module in tiny_base.model.modules()] == before
    assert all(torch.equal(value, weights[name]) for name, value in tiny_base.model.state_dict().items())
    assert not any(layer.merged for _, layer in roles.lora_layers())


@needs_kernel
def test_adapters_cost_nothing_in_blocks(
    tiny_base: Base, make_roles: MakeRoles, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = make_roles(tiny_base, "policy")
    products: list[int] = []
    own = linear._product
    monkeypatch.setattr(linear, "_product", lambda *arguments: products.append(1) or own(*arguments))
    with roles.acting("policy"), quick_linears(tiny_base.model, rows=2, steps=1000):
        for _, layer in roles.lora_layers():
            monkeypatch.setattr(layer, "lora_A", None)
            monkeypatch.setattr(layer, "lora_B", None)
        logits(roles, ids)
        monkeypatch.undo()
    assert len(products) == 7 * 4 + 1  # every linear layer of the four, and the head


@needs_kernel
def test_a_large_model_is_not_copied(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [module for module in tiny_base.model.modules() if type(module) is torch.nn.Linear]
    assert copied_bytes(tiny_base.model) == sum(layer.weight.nbytes for layer in layers)
    monkeypatch.setattr(linear, "COPY_LIMIT", copied_bytes(tiny_base.model) - 1)
    assert copied_bytes(tiny_base.model) == 0
    with quick_linears(tiny_base.model, rows=2, steps=1000):
        assert all(not layer.forward.args[0].is_mkldnn for layer in layers)  # type: ignore[attr-defined]


def test_without_the_kernel_nothing_happens(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "has_kernel", lambda: False)
    before = [set(vars(module)) for module in tiny_base.model.modules()]
    with quick_linears(tiny_base.model, rows=2, steps=1000):
        assert [set(vars(module)) for module in tiny_base.model.modules()] == before
    assert copied_bytes(tiny_base.model) == 0


def test_an_error_inside_leaves_nothing_behind(tiny_base: Base, make_roles: MakeRoles, ids: Tensor) -> None:
    roles = make_roles(tiny_base, "policy")
    with roles.acting("policy"):
        wanted = logits(roles, ids)
        with pytest.raises(KeyError), quick_linears(tiny_base.model, rows=2, steps=1000):
            raise KeyError
        assert torch.equal(logits(roles, ids), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 16, 300])
def test_product_is_the_linear_layers_and_its_own_gradient(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    layer = torch.nn.Linear(24, 40).to(dtype).requires_grad_(False)
    x, pull = (torch.randn(rows, 2, width, generator=generator).to(dtype) for width in (24, 40))
    x.requires_grad_(True)
    wanted = layer(x)
    wanted.backward(pull)
    slack = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    with torch.no_grad():
        torch.testing.assert_close(product(x, layer.weight, layer.bias), wanted, **slack)
        torch.testing.assert_close(product(pull, layer.weight.T), x.grad, **slack)
