"""Adapters computed in one piece give what PEFT gives, in value and in every gradient."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig
from peft.tuners.lora import Linear as PeftLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf_tui.model import lora
from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import recomputing
from rlhf_tui.model.roles import Role, Roles

RANK, IN, OUT = 4, 24, 40
ROLES: tuple[Role, ...] = ("policy", "reward", "value")


def linear(bias: bool, dtype: torch.dtype = torch.float32, **options: Any) -> PeftLinear:
    """A PEFT layer with adapters 'one' and 'two', neither of them zero, 'one' active."""
    torch.manual_seed(1)
    base = nn.Linear(IN, OUT, bias=bias).to(dtype).requires_grad_(False)
    config = LoraConfig(r=RANK, lora_alpha=12, **options)
    layer = PeftLinear(base, "one", config, r=RANK, lora_alpha=12)
    layer.update_layer("two", RANK, lora_alpha=6, config=config)
    for parameter in (*layer.lora_A.parameters(), *layer.lora_B.parameters()):
        nn.init.normal_(parameter, std=0.3)
    layer.set_adapter("one")
    return layer.eval()


def outcome(layer: nn.Module, x: Tensor, pull: Tensor) -> list[Tensor]:
    """The output, the gradient of the input, and the gradients of whatever learns."""
    leaf = x.clone().requires_grad_(True)
    learning = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    y = layer(leaf)
    return [y.detach(), *torch.autograd.grad((y * pull).sum(), [leaf, *learning])]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(ours: list[Tensor], theirs: list[Tensor], slack: float) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == their.dtype
        assert our.shape == their.shape
        assert (our - their).abs().max() <= slack * their.abs().max()


@pytest.mark.parametrize("shape", [(7,), (1,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_what_peft_gives(shape: tuple[int, ...], bias: bool) -> None:
    layer = linear(bias)
    x, pull = draw(*shape, IN), draw(*shape, OUT, seed=1)
    theirs = outcome(layer, x, pull)
    lora.install(layer)
    assert lora.applicable(layer, x) is not None
    ours = outcome(layer, x, pull)
    assert len(ours) == 4  # output, input, A, B
    assert_same(ours, theirs, 1e-6)


def test_a_layer_gives_the_formula_written_out() -> None:
    layer = linear(bias=True)
    lora.install(layer)
    x, pull = draw(5, IN).double(), draw(5, OUT, seed=1).double()
    w, bias = layer.base_layer.weight.double(), layer.base_layer.bias.double()
    a, b = layer.lora_A["one"].weight.double(), layer.lora_B["one"].weight.double()
    merged = w + 3.0 * b @ a  # α / r = 12 / 4
    expected = [x @ merged.T + bias, pull @ merged, (3.0 * pull @ b).T @ x, 3.0 * pull.T @ (x @ a.T)]
    found = outcome(layer, x.float(), pull.float())
    for our, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(our.double(), wanted, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "PRECISIONS", (torch.float64,))
    layer = linear(bias=True).double()
    lora.install(layer)
    a, b = layer.lora_A["one"].weight, layer.lora_B["one"].weight

    def product(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        made: Tensor = lora._Product.apply(x, lora.Adapted(layer.base_layer, 3.0), a, b)
        return made

    x = draw(3, IN).double().requires_grad_(True)
    assert torch.autograd.gradcheck(product, (x, a.detach().requires_grad_(True), b.detach().requires_grad_(True)))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])  # 8 and 11 bits
def test_16_bits_are_as_close_to_the_truth_as_peft_is(dtype: torch.dtype, most: float) -> None:
    exact = linear(bias=True)
    layer = linear(bias=True, dtype=dtype)
    layer.base_layer.load_state_dict(exact.base_layer.state_dict())
    exact.base_layer.load_state_dict(layer.base_layer.state_dict())  # rounded in both
    x, pull = draw(64, IN, dtype=dtype), draw(64, OUT, seed=1, dtype=dtype)
    truth = outcome(exact, x.float(), pull.float())
    theirs = outcome(layer, x, pull)
    lora.install(layer)
    ours = outcome(layer, x, pull)
    for our, their, true in zip(ours, theirs, truth, strict=True):
        assert our.dtype == their.dtype
        off, peft_off = ((one.float() - true).abs().mean() / true.abs().mean() for one in (our, their))
        assert off < most
        assert off < 4 * max(float(peft_off), most / 4)


def test_only_what_is_asked_for_is_computed_and_kept() -> None:
    layer = linear(bias=False)
    lora.install(layer)
    x = draw(6, IN)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x)
    assert sorted(tuple(one.shape) for one in kept) == sorted([(6, IN), (6, RANK), (RANK, IN), (OUT, RANK)])
    y.sum().backward()  # x wants no gradient
    assert x.grad is None
    assert layer.lora_A["one"].weight.grad is not None
    assert layer.base_layer.weight.grad is None
    with torch.no_grad():
        assert not layer(x).requires_grad


def test_switching_turning_off_and_merging_are_respected() -> None:
    ours, theirs = linear(bias=True), linear(bias=True)
    lora.install(ours)
    x = draw(6, IN)
    seen = []
    for change in (
        lambda layer: layer.set_adapter("two"),
        lambda layer: layer.set_adapter(["one", "two"]),
        lambda layer: layer.enable_adapters(False),
        lambda layer: layer.enable_adapters(True),
        lambda layer: layer.set_adapter("one"),
        lambda layer: layer.merge(),
        lambda layer: layer.unmerge(),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(ours)
            change(theirs)
        found = ours(x)
        torch.testing.assert_close(found, theirs(x), rtol=1e-5, atol=1e-5)
        seen.append(found.detach())
    assert not torch.allclose(seen[0], seen[1])
    torch.testing.assert_close(seen[2], ours.base_layer(x), rtol=1e-5, atol=1e-5)  # merged since, and back
    assert not torch.allclose(seen[2], seen[4])


@pytest.mark.parametrize(
    ("why", "options"),
    [("dropout", {"lora_dropout": 0.5}), ("bias", {"lora_bias": True}), ("variant", {"use_dora": True})],
)
def test_what_is_not_known_is_left_to_peft(why: str, options: dict[str, Any]) -> None:
    layer = linear(bias=True, **options)
    x = draw(6, IN)
    expected = layer(x)
    lora.install(layer)
    assert lora.applicable(layer, x) is None
    assert torch.equal(layer(x), expected)


def test_other_precisions_and_learning_bases_are_left_to_peft() -> None:
    layer = linear(bias=False)
    lora.install(layer)
    assert lora.applicable(layer, draw(2, IN, dtype=torch.float16)) is None
    assert lora.applicable(layer, draw(2, IN, dtype=torch.bfloat16)) is None  # the base is fp32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert lora.applicable(layer, draw(2, IN)) is None
    layer.base_layer.weight.requires_grad_(True)
    assert lora.applicable(layer, draw(2, IN)) is None
    layer(draw(2, IN)).sum().backward()
    assert layer.base_layer.weight.grad is not None


# -- whole models --------------------------------------------------------------------------------


@contextmanager
def original(model: nn.Module) -> Iterator[None]:
    """Inside, every module computes as transformers and PEFT wrote it."""
    ours = [(module, vars(module).pop("forward")) for module in model.modules() if "forward" in vars(module)]
    try:
        yield
    finally:
        for module, forward in ours:
            module.forward = forward


def learnt(roles: Roles, role: Role, ids: Tensor) -> list[Tensor]:
    with roles.learning(role):
        hidden = roles.decoder.upper(roles.decoder.lower(ids))
        pull = draw(*hidden.shape, seed=9, dtype=hidden.dtype)
        (hidden * pull).sum().backward()
        adapter = [p for p in roles.parameters(role) if p.grad is not None]
        gradients = [parameter.grad for parameter in adapter]
        for parameter in adapter:
            parameter.grad = None
    return [hidden.detach(), *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("role", ROLES)
def test_a_model_learns_what_it_would_learn_with_peft(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor, role: Role, layers: int
) -> None:
    roles = make_roles(tiny_base, layers=layers)
    ours = learnt(roles, role, ids)
    assert len(ours) == 1 + (layers or 4) * 7 * 2
    with original(tiny_base.model):
        theirs = learnt(roles, role, ids)
    assert_same(ours, theirs, 2e-6)


def test_recomputing_gives_the_same_gradients(tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor) -> None:
    roles = make_roles(tiny_base)
    expected = learnt(roles, "policy", ids)
    with recomputing(tiny_base.model):
        found = learnt(roles, "policy", ids)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("quantisation", ["nf4", "int8"])
def test_a_quantised_model_learns_what_it_would_learn_with_peft(
    load: Callable[..., Base], blocky_folder: Path, make_roles: Callable[..., Roles], ids: Tensor, quantisation: str
) -> None:
    roles = make_roles(load(blocky_folder, quantisation=quantisation))
    layer = next(layer for _, layer in roles.lora_layers() if isinstance(layer, LoraLayer))
    with roles.acting("policy"):
        taken = lora.applicable(layer, torch.zeros(1, 64)) is not None
    assert taken == isinstance(layer.base_layer, Linear4bit) == (quantisation == "nf4")
    ours = learnt(roles, "policy", ids)
    with original(roles.base.model):
        theirs = learnt(roles, "policy", ids)
    assert_same(ours, theirs, 5e-6)


def test_a_copied_model_computes_with_its_own_adapters(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor
) -> None:
    roles = make_roles(tiny_base, "policy")
    with torch.no_grad(), roles.acting("policy"):
        before = tiny_base.model(input_ids=ids).logits
        twin = copy.deepcopy(tiny_base.model)
        for name, parameter in tiny_base.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        assert torch.equal(twin(input_ids=ids).logits, before)
        assert not torch.equal(tiny_base.model(input_ids=ids).logits, before)
