"""The decoder in two parts gives what the whole one gives, or is not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import SplitDecoder, WholeDecoder, decoder_for, runs_in_part, states_after
from rlhf_tui.model.roles import Roles

WINDOWED = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}


def tiny(kind: str, **more: Any) -> Any:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | more)).eval()


# longer than every window
LONG = torch.randint(3, 64, (2, 40), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_split_equals_whole_bit_for_bit_with_adapters_on_the_last_layers(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor, layers: int
) -> None:
    roles = make_roles(tiny_base, layers=layers)
    split, whole = SplitDecoder(tiny_base.model, 4 - layers), WholeDecoder(tiny_base.model)
    answers = []
    for role in ("policy", "reward", "value"):
        with torch.no_grad(), roles.acting(role):  # type: ignore[arg-type]
            answers.append(split.upper(split.lower(ids)))
            assert torch.equal(answers[-1], whole.upper(whole.lower(ids)))
    assert not torch.equal(answers[0], answers[1])  # the adapters do something
    with torch.no_grad(), roles.reference():
        assert torch.equal(split.upper(split.lower(ids)), whole.upper(ids))


def test_what_the_lower_part_gives_is_the_same_for_every_role(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor
) -> None:
    roles = make_roles(tiny_base, layers=2)
    assert isinstance(roles.decoder, SplitDecoder)
    with roles.acting("policy"):
        one = roles.decoder.lower(ids)
    with roles.acting("value"):
        assert torch.equal(one, roles.decoder.lower(ids))
    with roles.reference():
        assert torch.equal(one, roles.decoder.lower(ids))


def test_gradients_through_the_split_are_those_through_the_whole(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor
) -> None:
    roles = make_roles(tiny_base, layers=2)
    gradients = []
    for decoder in (SplitDecoder(tiny_base.model, 2), WholeDecoder(tiny_base.model)):
        with roles.learning("policy"):
            lower = decoder.lower(ids)
            assert not lower.requires_grad
            decoder.upper(lower).square().sum().backward()
            gradients.append([parameter.grad for parameter in roles.parameters("policy")])
            for parameter in roles.parameters("policy"):
                parameter.grad = None
    for split, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-6)
        assert split.abs().sum() > 0


@pytest.mark.parametrize("layers", [0, 2])
def test_padding_on_the_right_changes_nothing(
    tiny_base: Base, make_roles: Callable[..., Roles], ids: Tensor, layers: int
) -> None:
    roles = make_roles(tiny_base, layers=layers)
    with torch.no_grad(), roles.acting("policy"):
        alone = roles.decoder.upper(roles.decoder.lower(ids[:1, :7]))
        for width, filler in ((8, 2), (12, 0), (40, 5)):
            padded = torch.full((3, width), filler)
            padded[1, :7] = ids[0, :7]
            hidden = roles.decoder.upper(roles.decoder.lower(padded))
            torch.testing.assert_close(hidden[1:2, :7], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("mistral", {}),
        ("mistral", {"sliding_window": 16}),
        ("qwen2", {}),
        ("qwen2", WINDOWED),
        ("qwen3", {"head_dim": 8}),
        ("qwen3", {"head_dim": 8, **WINDOWED}),
        ("phi3", {}),
        ("gemma", {"head_dim": 8}),
        ("gemma2", {"head_dim": 8}),
        ("gemma2", {"head_dim": 8, "sliding_window": 16}),  # every second layer sees 16 tokens only
        ("gemma3_text", {"head_dim": 8, "sliding_window": 16}),
        (
            "gemma3_text",
            {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2},
        ),
        ("gpt_oss", {"head_dim": 8, "sliding_window": 16, "num_local_experts": 2, "num_experts_per_tok": 1}),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}),
        ("cohere2", {"head_dim": 8, "sliding_window": 16}),
        ("granite", {"embedding_multiplier": 3.0}),
        ("gpt_neox", {}),
        ("opt", {"word_embed_proj_dim": 32}),
    ],
)
def test_whatever_is_chosen_equals_the_whole_forward(kind: str, more: dict[str, Any], shared: int) -> None:
    model = tiny(kind, **more)
    chosen = decoder_for(model, shared)
    with torch.no_grad():
        expected = model.get_decoder()(input_ids=LONG, use_cache=False).last_hidden_state
        assert torch.equal(chosen.upper(chosen.lower(LONG)), expected)
        assert torch.equal(model.get_decoder()(input_ids=LONG, use_cache=False).last_hidden_state, expected)
        if runs_in_part(model):
            the_first_layers_are_those_of_the_whole(model, chosen, shared)
            assert torch.equal(model.get_decoder()(input_ids=LONG, use_cache=False).last_hidden_state, expected)


def the_first_layers_are_those_of_the_whole(model: Any, chosen: Any, shared: int) -> None:
    """Left after 2 or 3 layers: transformers' own hidden state there, each divided by its root mean square."""
    states = model.get_decoder()(input_ids=LONG, use_cache=False, output_hidden_states=True).hidden_states
    found = states_after(model, LONG, {0, 2, 3})
    assert sorted(found) == [0, 2, 3]
    assert torch.equal(found[0], states[-1])
    for layers in (2, 3):
        wanted = torch.nn.functional.rms_norm(states[layers], states[layers].shape[-1:], eps=1e-6)
        assert torch.allclose(found[layers], wanted, atol=1e-5)
        if layers > shared:
            assert torch.allclose(chosen.upper(chosen.lower(LONG), layers), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_the_common_architectures_are_split(kind: str) -> None:
    assert isinstance(decoder_for(tiny(kind), 2), SplitDecoder)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("granite", {"embedding_multiplier": 3.0}),  # scales its embeddings inside the stack
        ("gpt_neox", {}),  # calls its last norm otherwise
        ("opt", {"word_embed_proj_dim": 32}),  # adds positions inside the stack
    ],
)
def test_the_split_is_refused_where_it_would_be_wrong(kind: str, more: dict[str, Any]) -> None:
    assert isinstance(decoder_for(tiny(kind, **more), 2), WholeDecoder)


def test_without_shared_layers_there_is_nothing_to_split() -> None:
    assert isinstance(decoder_for(tiny("llama"), 0), WholeDecoder)


def test_roles_say_whether_they_share_layers(fresh_base: Callable[[], Base], make_roles: Callable[..., Roles]) -> None:
    assert make_roles(fresh_base(), layers=2).shares_layers
    assert not make_roles(fresh_base(), layers=0).shares_layers
    assert not make_roles(fresh_base(), layers=9).shares_layers


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(("part", "broken"), [("lower", 0), ("upper", 3)])
def test_the_stack_is_whole_again_after_an_exception(part: str, broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    stack = model.get_decoder()
    layers, norm = stack.layers, stack.norm
    split = SplitDecoder(model, 2)
    expected = split.upper(split.lower(LONG))
    lower = split.lower(LONG)

    def interrupted(*args: Any, **kwargs: Any) -> Tensor:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(layers[broken], "forward", interrupted)
        with pytest.raises(Interrupted):
            split.lower(LONG) if part == "lower" else split.upper(lower)
    assert stack.layers is layers
    assert stack.norm is norm
    assert len(stack.layers) == stack.config.num_hidden_layers == 4
    assert torch.equal(split.upper(split.lower(LONG)), expected)
