"""Loading the base: what was decided, what was refused, and that storage in 4 or 8 bits changes no promise."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Gemma2Config, Gemma2ForCausalLM

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.model import base as module
from rlhf_tui.model.base import Base, choose_device, choose_dtype, choose_quantisation
from rlhf_tui.model.roles import Role, Roles

ALL_ROLES: tuple[Role, ...] = ("policy", "reward", "value")

Load = Callable[..., Base]
MakeRoles = Callable[..., Roles]


# -- what is decided ---------------------------------------------------------------------------


def test_auto_on_the_cpu_is_unquantised_fp32(tiny_folder: Path, load: Load) -> None:
    base = load(tiny_folder, quantisation="auto", device="cpu")
    assert base.quantisation == "none"
    assert base.dtype == torch.float32
    assert base.device == torch.device("cpu")
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}


def test_auto_on_a_card_is_nf4_and_a_wish_is_a_wish() -> None:
    assert choose_quantisation("auto", torch.device("cuda")) == "nf4"
    assert choose_quantisation("auto", torch.device("cpu")) == "none"
    for wish in ("nf4", "int8", "none"):
        assert choose_quantisation(wish, torch.device("cpu")) == wish  # type: ignore[arg-type]


def test_cuda_without_a_card_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="CUDA") as caught:
        choose_device("cuda")
    assert "model.device" in caught.value.todo
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_sixteen_bits_on_a_card_depend_on_what_it_can_do(
    monkeypatch: pytest.MonkeyPatch, has: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert choose_dtype(torch.device("cuda")) == dtype
    assert choose_dtype(torch.device("cpu")) == torch.float32


def test_a_loaded_base_is_frozen_silent_and_nameless(tiny_folder: Path, load: Load) -> None:
    base = load(tiny_folder)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    assert base.model.name_or_path == base.model.config._name_or_path == "tiny-llama"
    assert base.chat.end_ids == (base.chat.tokenizer.eos_token_id,)


def test_the_weights_are_those_of_the_folder(tiny_folder: Path, load: Load) -> None:
    stored = load_file(tiny_folder / "model.safetensors")
    loaded = dict(load(tiny_folder).model.named_parameters())
    assert set(loaded) == set(stored) - {"lm_head.weight"}
    assert all(torch.equal(loaded[name], stored[name]) for name in loaded)


def test_attention_is_the_fastest_that_the_architecture_allows(tiny_folder: Path, tiny_copy: Path, load: Load) -> None:
    """Gemma 2 bounds its attention scores, which torch's fused attention cannot: it loads with the plain one."""
    assert load(tiny_folder).model.config._attn_implementation == "sdpa"
    vocabulary = load(tiny_folder).model.config.vocab_size
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8}
    heads = {"num_key_value_heads": 2, "num_hidden_layers": 2, "sliding_window": 8}
    torch.manual_seed(0)
    wanted = Gemma2ForCausalLM(Gemma2Config(vocab_size=vocabulary, **shape, **heads)).eval()
    wanted.save_pretrained(tiny_copy)
    found = load(tiny_copy).model
    assert found.config._attn_implementation == "eager"
    ids = torch.arange(3, 33)[None]
    with torch.no_grad():
        found_logits = found(ids).logits
        wanted.set_attn_implementation("eager")
        assert torch.allclose(found_logits, wanted(ids).logits, atol=1e-5)


def test_end_ids_of_the_generation_settings_are_heeded(tiny_copy: Path, load: Load) -> None:
    path = tiny_copy / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"eos_token_id": [0, 2, 5]}))
    assert load(tiny_copy).chat.end_ids == (2, 0, 5)


def test_the_settings_of_the_chat_reach_it(tiny_folder: Path, load: Load, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}|{% endfor %}")
    base = load(tiny_folder, chat_template=str(template), system_prompt="be short")
    assert base.chat.template == template.read_text()
    assert base.chat.system_prompt == "be short"


def test_loading_says_what_and_how(tiny_folder: Path) -> None:
    told: list[str] = []
    module.load_base(module.ModelSettings(name=str(tiny_folder), quantisation="none"), told.append)
    assert told == ["loading tiny-llama (fp32, cpu)"]


# -- what is refused ---------------------------------------------------------------------------


def test_an_unknown_name_is_a_usage_error(load: Load) -> None:
    with pytest.raises(UsageError, match="no-such-model") as caught:
        load(Path("no-such-model"))
    assert "starter" in caught.value.todo


def test_an_unknown_hub_id_is_a_usage_error(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    with pytest.raises(UsageError, match="nobody/no-such-model") as caught:
        load(Path("nobody/no-such-model"))
    assert "no route" in caught.value.why


def test_a_folder_without_a_model_is_a_usage_error(load: Load, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(UsageError, match="holds no model") as caught:
        load(tmp_path)
    assert "config.json" in caught.value.why


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def garble(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def reshape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))


def forget_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def forget_one_weight(folder: Path) -> None:
    """transformers fills a missing weight with random numbers and says so in a warning only."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def forget_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def unknown_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no_such_kind"}))


def another_kind(folder: Path) -> None:
    """A model that is no language model."""
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        garble,
        reshape,
        forget_weights,
        forget_one_weight,
        forget_tokenizer,
        break_config,
        unknown_kind,
        another_kind,
    ],
)
def test_a_broken_model_is_a_user_error(tiny_copy: Path, load: Load, damage: Callable[[Path], None]) -> None:
    damage(tiny_copy)
    with pytest.raises(UserError) as caught:
        load(tiny_copy)
    assert "tiny-llama" in caught.value.what
    assert caught.value.why
    assert caught.value.todo


# -- 4 and 8 bits ------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantisation", "bits"), [("nf4", 4), ("int8", 8)])
def test_a_quantised_base_carries_roles_as_any_other(
    blocky_folder: Path,
    load: Load,
    make_roles: MakeRoles,
    ids: Tensor,
    observe: Callable[[Roles], dict[str, Tensor]],
    step: Callable[[Roles, Role], None],
    nudge: Callable[[Roles], None],
    quantisation: str,
    bits: int,
) -> None:
    base = load(blocky_folder, quantisation=quantisation)
    assert base.quantisation == quantisation
    assert getattr(base.model, f"is_loaded_in_{bits}bit")
    stored = base.model.model.layers[0].mlp.up_proj.weight
    assert not stored.is_floating_point()
    assert stored.nbytes == 128 * 64 * bits // 8
    frozen = {name: p.clone() for name, p in base.model.named_parameters()}
    with torch.no_grad():
        untouched = base.model(input_ids=ids).logits

    roles = make_roles(base, untouched=True)
    at_0 = observe(roles)
    assert torch.equal(at_0["policy"], untouched)
    assert torch.equal(at_0["reference"], untouched)
    nudge(roles)
    for moving in ALL_ROLES:
        before = observe(roles)
        step(roles, moving)
        after = observe(roles)
        for name in after:
            assert torch.equal(before[name], after[name]) == (name != moving), (moving, name)
    for name, parameter in base.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name.replace(".base_layer", "")]), name


def dequantised(base: Base, plain: Base, numbers: Callable[[Any], Tensor]) -> Base:
    """`plain` with the numbers that the quantised weights of `base` stand for."""
    for name, layer in base.model.named_modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.is_floating_point():
            plain.model.get_submodule(name).weight.data = numbers(layer).clone()
    return plain


@pytest.mark.parametrize(("quantisation", "tolerance"), [("nf4", 1e-5), ("int8", 0.1)])
def test_logits_and_gradients_are_those_of_the_numbers_that_are_stored(
    blocky_folder: Path,
    load: Load,
    make_roles: MakeRoles,
    ids: Tensor,
    numbers: Callable[[Any], Tensor],
    quantisation: str,
    tolerance: float,
) -> None:
    """Also after a forward pass without gradients (int8 rounds the activations as well)."""
    base = load(blocky_folder, quantisation=quantisation)
    pair = (base, dequantised(base, load(blocky_folder), numbers))
    logits, gradients = [], []
    for one in pair:
        roles = make_roles(one, "policy")
        with torch.no_grad(), roles.acting("policy"):
            one.model(input_ids=ids)
        with roles.learning("policy"):
            logits.append(one.model(input_ids=ids).logits)
            logits[-1].log_softmax(-1)[..., 7].sum().backward()
            gradients.append([parameter.grad for parameter in roles.parameters("policy")])
    assert distance(logits[0], logits[1]) < tolerance
    for got, expected in zip(*gradients, strict=True):
        assert distance(got, expected) < 3 * tolerance


@pytest.mark.parametrize("quantisation", ["nf4", "int8"])
def test_stored_numbers_read_the_same_before_and_after_use(
    blocky_folder: Path, load: Load, ids: Tensor, numbers: Callable[[Any], Tensor], quantisation: str
) -> None:
    """Exporting reads them back after training."""
    base = load(blocky_folder, quantisation=quantisation)
    layer = base.model.model.layers[1].mlp.up_proj
    before = numbers(layer).clone()
    with torch.no_grad():
        base.model(input_ids=ids)
    assert torch.equal(numbers(layer), before)


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


def test_a_quantised_base_is_close_to_the_unquantised_one(blocky_folder: Path, load: Load, ids: Tensor) -> None:
    with torch.no_grad():
        plain = load(blocky_folder).model(input_ids=ids).logits
        nf4, int8 = (
            distance(load(blocky_folder, quantisation=quantisation).model(input_ids=ids).logits, plain)
            for quantisation in ("nf4", "int8")
        )
    assert 0 < int8 < nf4 < 0.8  # random weights suffer more than trained ones


def test_nothing_is_made_wider_than_it_was_loaded(
    blocky_folder: Path, load: Load, make_roles: MakeRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT's usual preparation makes embeddings and norms fp32, which costs gigabytes on a real model."""
    monkeypatch.setattr(module, "choose_dtype", lambda device: torch.bfloat16)
    base = load(blocky_folder, quantisation="nf4")
    make_roles(base)
    for name, parameter in base.model.named_parameters():
        if parameter.is_floating_point():
            assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name
    assert base.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert base.model.get_output_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no list of mapped files")
def test_the_file_of_a_quantised_model_does_not_stay_in_memory(blocky_folder: Path, load: Load) -> None:
    base = load(blocky_folder, quantisation="nf4")
    gc.collect()
    assert str(blocky_folder) not in Path("/proc/self/maps").read_text()
    assert base.model.get_input_embeddings().weight.shape[1] == 64
