"""Chunked log-probabilities and entropies against the plain formula, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_tui.model import logprobs as module
from rlhf_tui.model.base import Base
from rlhf_tui.model.logprobs import CHUNK, Unembedding, token_logprobs, unembedding_of

WIDTH, VOCABULARY = 6, 17


def case(positions: int, seed: int, *, bias: bool = False, softcap: float | None = None) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, WIDTH, generator=generator)
    targets = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) / WIDTH**0.5
    offset = torch.randn(VOCABULARY, generator=generator) if bias else None
    return hidden, targets, Unembedding(weight, offset, softcap)


def plain(hidden: Tensor, targets: Tensor, head: Unembedding, temperature: float) -> tuple[Tensor, Tensor]:
    """The textbook formula, all logits at once."""
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    everything = torch.log_softmax(logits / temperature, dim=-1)
    return everything[torch.arange(len(targets)), targets], -(everything.exp() * everything).sum(-1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    positions=st.integers(1, 12),
    chunk=st.integers(1, 14),
    seed=st.integers(0, 2**31),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 0.7, 3.0, 30.0]),
    temperature=st.floats(0.25, 3.0),
)
def test_values_and_gradients_equal_the_plain_formula(
    positions: int, chunk: int, seed: int, bias: bool, softcap: float | None, temperature: float
) -> None:
    hidden, targets, head = case(positions, seed, bias=bias, softcap=softcap)
    factors = torch.randn(positions, generator=torch.Generator().manual_seed(seed + 1))
    one, other = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()

    logprobs, entropies = token_logprobs(one, targets, head, temperature=temperature, chunk=chunk)
    expected, expected_entropies = plain(other, targets, head, temperature)
    (logprobs * factors).sum().backward()
    (expected * factors).sum().backward()

    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("chunk", range(1, 12))
def test_every_chunk_size_gives_the_same(chunk: int) -> None:
    hidden, targets, head = case(10, 3, bias=True, softcap=5.0)
    whole = token_logprobs(hidden, targets, head, temperature=0.7, chunk=10)
    cut = token_logprobs(hidden, targets, head, temperature=0.7, chunk=chunk)
    torch.testing.assert_close(cut[0], whole[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cut[1], whole[1], rtol=1e-6, atol=1e-6)


def test_the_default_chunk_is_crossed_without_a_seam() -> None:
    hidden, targets, head = case(CHUNK + 3, 4)
    logprobs, entropies = token_logprobs(hidden, targets, head, temperature=1.0)
    expected, expected_entropies = plain(hidden, targets, head, 1.0)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(entropies, expected_entropies, rtol=1e-5, atol=2e-5)


def test_logits_never_exist_for_more_positions_than_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = module._logits

    def counted(hidden: Tensor, head: Unembedding) -> Tensor:
        seen.append(hidden.shape[0])
        return real(hidden, head)

    monkeypatch.setattr(module, "_logits", counted)
    hidden, targets, head = case(10, 5)
    logprobs, _ = token_logprobs(hidden.requires_grad_(), targets, head, temperature=1.0, chunk=4)
    logprobs.sum().backward()
    assert seen == [4, 4, 2]  # once: the backward pass does not need them again


def test_large_logits_stay_finite() -> None:
    hidden, targets, head = case(5, 6)
    hidden = (1e4 * hidden).requires_grad_()
    logprobs, entropies = token_logprobs(hidden, targets, head, temperature=1.0)
    logprobs.sum().backward()
    assert torch.isfinite(logprobs).all()
    assert torch.isfinite(entropies).all()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_sixteen_bit_hidden_states_give_fp32_numbers_and_a_16_bit_gradient() -> None:
    hidden, targets, head = case(8, 7)
    rounded = Unembedding(head.weight.bfloat16())
    leaf = hidden.bfloat16().requires_grad_()
    logprobs, entropies = token_logprobs(leaf, targets, rounded, temperature=1.0, chunk=3)
    logprobs.sum().backward()
    assert logprobs.dtype == entropies.dtype == torch.float32
    assert leaf.grad is not None
    assert leaf.grad.dtype == torch.bfloat16
    expected, _ = plain(leaf.detach().float(), targets, Unembedding(rounded.weight.float()), 1.0)
    torch.testing.assert_close(logprobs, expected, rtol=0.02, atol=0.05)


def test_no_positions_give_no_numbers_and_a_gradient_of_zeros() -> None:
    hidden = torch.zeros(0, WIDTH, requires_grad=True)
    _, _, head = case(1, 0)
    logprobs, entropies = token_logprobs(hidden, torch.zeros(0, dtype=torch.long), head, temperature=1.0)
    assert logprobs.shape == entropies.shape == (0,)
    assert logprobs.dtype == entropies.dtype == torch.float32
    logprobs.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, WIDTH)


def test_gradients_flow_through_the_logprobs_alone() -> None:
    hidden, targets, head = case(6, 8)
    weight = nn.Parameter(head.weight)
    one, other = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    logprobs, entropies = token_logprobs(one, targets, Unembedding(weight), temperature=1.0)
    assert logprobs.requires_grad
    assert not entropies.requires_grad
    (logprobs.sum() + 100 * entropies.sum()).backward()
    plain(other, targets, Unembedding(head.weight), 1.0)[0].sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=2e-5)
    assert weight.grad is None


def test_uniform_logits_have_the_largest_entropy() -> None:
    head = Unembedding(torch.zeros(VOCABULARY, WIDTH))
    logprobs, entropies = token_logprobs(torch.ones(3, WIDTH), torch.tensor([0, 5, 16]), head, temperature=0.5)
    expected = torch.full((3,), float(torch.log(torch.tensor(float(VOCABULARY)))))
    torch.testing.assert_close(entropies, expected)
    torch.testing.assert_close(logprobs, -expected)


# -- what is read off a model ------------------------------------------------------------------


def tiny(kind: str, **more: Any) -> Any:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | more)).eval()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 8}),
        ("phi3", {}),
        ("phi", {"num_key_value_heads": 4}),  # its head has a bias
        ("gemma", {"head_dim": 8}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 0.05}),
        ("gemma3_text", {"head_dim": 8}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.0625}),
        ("gpt_neox", {}),
        ("olmo", {}),
        ("smollm3", {}),
    ],
)
def test_the_unembedding_of_a_model_is_what_the_model_does_or_is_refused(kind: str, more: dict[str, Any]) -> None:
    model = tiny(kind, **more)
    ids = torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(0))
    try:
        head = unembedding_of(model)
    except TypeError:
        return
    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        expected = model(input_ids=ids).logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        logprobs, _ = token_logprobs(hidden.flatten(0, 1), ids.flatten(), head, temperature=1.0)
    torch.testing.assert_close(logprobs, expected.flatten(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2"])
def test_the_common_architectures_are_not_refused(kind: str) -> None:
    unembedding_of(tiny(kind, head_dim=8))


def test_a_head_that_is_no_plain_linear_layer_is_refused(tiny_base: Base) -> None:
    tiny_base.model.lm_head = nn.Sequential(tiny_base.model.lm_head)
    with pytest.raises(TypeError, match="Sequential"):
        unembedding_of(tiny_base.model)
