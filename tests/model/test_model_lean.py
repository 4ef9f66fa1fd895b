"""Norms and gated blocks that keep less: the same values bit for bit, the same gradients, fewer tensors kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_tui.model import lean
from rlhf_tui.model.base import Base
from rlhf_tui.model.roles import Roles

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LONG = torch.randint(3, 64, (2, 20), generator=torch.Generator().manual_seed(3))


def tiny(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | more)).eval().requires_grad_(False)
    for module in model.modules():
        if getattr(module, "weight", None) is not None and module.weight.dim() == 1:
            nn.init.normal_(module.weight, mean=0.7, std=0.2)  # norms start at 1 or 0, where mistakes are hard to see
    return model


def replaced(model: nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


def values_and_gradients(model: Any) -> tuple[Tensor, Tensor]:
    leaf = model.get_input_embeddings()(LONG).detach().requires_grad_(True)
    hidden = model.get_decoder()(inputs_embeds=leaf, use_cache=False).last_hidden_state
    pull = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1)).to(hidden.dtype)
    (gradient,) = torch.autograd.grad((hidden * pull).sum(), leaf)
    return hidden.detach(), gradient


@pytest.mark.parametrize(
    ("kind", "more", "norms"),
    [
        ("llama", {}, 5),
        ("mistral", {}, 5),
        ("qwen2", {}, 5),
        ("qwen3", {"head_dim": 8}, 9),  # norms of queries and keys as well
        ("phi3", {}, 5),
        ("gemma", {"head_dim": 8}, 5),
        ("gemma2", {"head_dim": 8}, 9),
        ("gemma3_text", {"head_dim": 8}, 13),
        ("smollm3", {}, 5),
        ("granite", {"embedding_multiplier": 3.0}, 5),
        ("cohere", {}, 0),  # norms that subtract the mean
        ("gpt_neox", {}, 0),
        ("opt", {"word_embed_proj_dim": 32}, 0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_architecture_keeps_its_values_and_its_gradients(
    kind: str, more: dict[str, Any], norms: int, dtype: torch.dtype
) -> None:
    model = tiny(kind, **more).to(dtype)
    value, gradient = values_and_gradients(model)
    lean.install(model)
    assert replaced(model) == norms
    our_value, our_gradient = values_and_gradients(model)
    assert torch.equal(our_value, value)
    slack = 1e-5 if dtype == torch.float32 else 5e-2
    assert (our_gradient - gradient).abs().max() <= slack * gradient.abs().max()


def test_a_norm_that_is_something_else_is_left_alone() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(32), requires_grad=False), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)

    model = tiny("llama")
    model.model.norm = Odd()
    lean.install(model)
    assert "forward" not in vars(model.model.norm)
    assert replaced(model) == 4


def test_a_norm_that_learns_is_left_to_autograd() -> None:
    model = tiny("llama")
    lean.install(model)
    model.model.norm.weight.requires_grad_(True)
    model.get_decoder()(input_ids=LONG, use_cache=False).last_hidden_state.square().sum().backward()
    assert model.model.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "relu"])
def test_a_gated_block_gives_what_the_original_gives(
    fresh_base: Callable[[], Base], make_roles: Callable[..., Roles], act: str
) -> None:
    from transformers.activations import ACT2FN

    base = fresh_base()
    for layer in base.model.get_decoder().layers:
        layer.mlp.act_fn = ACT2FN[act]
    roles = make_roles(base)
    mlp = base.model.get_decoder().layers[1].mlp
    assert "forward" in vars(mlp)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, 32, generator=generator)
    pull = torch.randn(2, 5, 32, generator=generator)

    def outcome() -> list[Tensor]:
        leaf = x.clone().requires_grad_(True)
        learning = [parameter for parameter in mlp.parameters() if parameter.requires_grad]
        y = mlp(leaf)
        return [y.detach(), *torch.autograd.grad((y * pull).sum(), [leaf, *learning])]

    with roles.learning("value"):
        ours = outcome()
        for module in mlp.modules():
            vars(module).pop("forward", None)
        theirs = outcome()
    assert len(ours) == len(theirs) == 8
    assert torch.equal(ours[0], theirs[0]) or torch.allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-6)
    for our, their in zip(ours, theirs, strict=True):
        assert (our - their).abs().max() <= 2e-6 * their.abs().max()


def test_with_all_adapters_off_a_gated_block_is_the_base(tiny_base: Base, make_roles: Callable[..., Roles]) -> None:
    mlp = tiny_base.model.get_decoder().layers[1].mlp
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = mlp(x)
        roles = make_roles(tiny_base)
        with roles.reference():
            assert torch.equal(mlp(x), before)
        with roles.acting("policy"):
            assert not torch.equal(mlp(x), before)


def test_a_layer_keeps_neither_the_activation_nor_the_product(
    fresh_base: Callable[[], Base], make_roles: Callable[..., Roles], ids: Tensor
) -> None:
    """In numbers per token and layer: 2 of feed-forward width, where the original keeps 4."""

    def kept(roles: Roles) -> int:
        storages: dict[int, Tensor] = {}  # held, so that no address is used twice

        def keep(tensor: Tensor) -> Tensor:
            if tensor.shape[-1] == 64 and tensor.dim() > 1 and tensor.shape[0] in (2, 24):
                storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with roles.learning("policy"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            roles.decoder.upper(roles.decoder.lower(ids))
        return len(storages)

    roles = make_roles(fresh_base())
    assert kept(roles) == 4 * 2
    for module in roles.base.model.modules():
        vars(module).pop("forward", None)
    assert kept(roles) >= 4 * 4
