"""One ordinary checkpoint from base and policy adapter.

The very weights that were used are dequantised, the adapter is added in fp32, and the sum is
rounded once. Merging into 4-bit weights and rounding again would undo most of the tuning: 65 to
98 % of it was measured to be lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Int8Params
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.training.ppo import TrainPrompt

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SHARD_BYTES = 2 * 2**30
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Check:
    """The merged model against the model that was tuned, on a few prompts."""

    kl: float
    """mean KL(tuned ‖ merged) over positions, in nats"""
    top1: float
    """share of positions at which both would choose the same token"""
    positions: int


def merged_bytes(roles: Roles, dtype: str) -> int:
    """How many bytes the merged weights will take on disk."""
    width = torch.finfo(DTYPES[dtype]).bits // 8
    return sum(shape.numel() * width for _, shape in _shapes(roles))


def write_merged(
    roles: Roles, folder: Path, dtype: str, report: Callable[[str], None], boundary: Callable[[], None]
) -> None:
    """Write weights, configuration and tokenizer of base + policy into the existing, empty `folder`.

    One tensor at a time is held in fp32, with a `boundary` after each, which may raise to stop. Raises UserError when a
    weight does not fit the number format.
    """
    shards: list[dict[str, str]] = []
    held: dict[str, Tensor] = {}
    size = total = 0
    for name, tensor in merged_tensors(roles, "policy"):
        rounded = _round(name, tensor, DTYPES[dtype])
        if held and size + rounded.nbytes > SHARD_BYTES:
            shards.append(_write_shard(folder, len(shards), held))
            held, size = {}, 0
        held[name] = rounded
        size, total = size + rounded.nbytes, total + rounded.nbytes
        boundary()
    shards.append(_write_shard(folder, len(shards), held))
    _name_shards(folder, shards, total)
    report("writing configuration and tokenizer")
    _write_configuration(roles, folder, DTYPES[dtype])
    write_tokenizer(roles, folder)


def merged_tensors(roles: Roles, role: Role) -> Iterator[tuple[str, Tensor]]:
    """Every weight of base + adapter under its name in the base model, in fp32 on the CPU; tied ones once."""
    adapted = {name: layer for name, layer in roles.lora_layers() if isinstance(layer, LoraLayer)}
    model: Any = roles.base.model
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if ".lora_" in name:
            continue
        layer = adapted.get(owner.removesuffix(".base_layer"))
        if layer is None or leaf != "weight":
            yield name.replace(".base_layer.", "."), _plain(model, owner, parameter)
            continue
        weight = _plain(model, owner, parameter)
        yield f"{owner.removesuffix('.base_layer')}.weight", weight + _delta(layer, role).cpu()


def check_merged(roles: Roles, folder: Path, prompts: Sequence[TrainPrompt], boundary: Callable[[], None]) -> Check:
    """Load the merged checkpoint as a stranger would, in fp32, and compare it with the tuned model.

    There is a `boundary` after each prompt, which may raise to stop.
    """
    device = roles.base.device
    merged = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": device})
    divergences, same = [], []
    with torch.no_grad(), roles.acting("policy"):
        for prompt in prompts:
            ids = torch.tensor([prompt.ids], device=device)
            tuned = roles.base.model(input_ids=ids).logits[0].float().log_softmax(-1)
            other = merged(input_ids=ids).logits[0].float().log_softmax(-1)
            divergences.append((tuned.exp() * (tuned - other)).sum(-1).clamp(min=0))
            same.append((tuned.argmax(-1) == other.argmax(-1)).float())
            boundary()
    return Check(float(torch.cat(divergences).mean()), float(torch.cat(same).mean()), torch.cat(same).numel())


def _plain(model: Any, owner: str, parameter: Any) -> Tensor:
    """The weight as fp32 on the CPU; one that is stored in 4 or 8 bits as the numbers it stands for."""
    if parameter.is_floating_point():
        floating: Tensor = parameter.detach().float().cpu()
        return floating
    layer = model.get_submodule(owner)
    if isinstance(parameter, Int8Params):
        # not PEFT's function: on the CPU it leaves the layer without its scales
        scales = parameter.SCB if layer.state.SCB is None else layer.state.SCB
        scaled: Tensor = parameter.detach().float().cpu() * (scales.float().cpu() / 127)[:, None]
        return scaled
    plain: Tensor = dequantize_4bit(parameter.data, parameter.quant_state)
    return plain.detach().float().cpu()


def _delta(layer: LoraLayer, role: Role) -> Tensor:
    """scaling · B @ A in fp32."""
    first, second = layer.lora_A[role].weight.detach().float(), layer.lora_B[role].weight.detach().float()
    delta: Tensor = layer.scaling[role] * (second @ first)
    return delta


def _shapes(roles: Roles) -> Iterator[tuple[str, torch.Size]]:
    adapted = {name: layer for name, layer in roles.lora_layers() if isinstance(layer, LoraLayer)}
    for name, parameter in roles.base.model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        layer = adapted.get(owner.removesuffix(".base_layer"))
        if ".lora_" in name:
            continue
        if layer is not None and leaf == "weight":
            yield name, torch.Size((layer.out_features, layer.in_features))
        else:
            state = getattr(parameter, "quant_state", None)  # 4 bits are stored in another shape
            yield name, parameter.shape if state is None else torch.Size(state.shape)


def _round(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = tensor.to(dtype).contiguous()
    if not torch.isfinite(rounded).all():
        raise UserError(
            f"The weight {name} does not fit {str(dtype).removeprefix('torch.')}.",
            why=f"Its largest value is {float(tensor.abs().max()):.4g}.",
            todo="Set export.dtype to bf16.",
        )
    return rounded


def _write_shard(folder: Path, number: int, tensors: dict[str, Tensor]) -> dict[str, str]:
    name = f"shard-{number:05d}.safetensors"
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return dict.fromkeys(tensors, name)


def _name_shards(folder: Path, shards: Sequence[dict[str, str]], total: int) -> None:
    """Give the shards the names that transformers looks for, now that their number is known."""
    if len(shards) == 1:
        (folder / "shard-00000.safetensors").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards):
        final = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number:05d}.safetensors").rename(folder / final)
        weight_map |= dict.fromkeys(shard, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_configuration(roles: Roles, folder: Path, dtype: torch.dtype) -> None:
    roles.base.model.config.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for leftover in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(leftover, None)
    config["dtype"] = config["torch_dtype"] = str(dtype).removeprefix("torch.")
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        # transformers 5 writes rope_theta only inside rope_parameters; version 4 and others read it
        # from the top and fall back to 10000 without a word
        config["rope_theta"] = rope["rope_theta"]
        scaled = {key: value for key, value in rope.items() if key != "rope_theta"}
        config["rope_scaling"] = None if rope.get("rope_type") == "default" else scaled
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if roles.base.model.generation_config is not None:
        roles.base.model.generation_config.save_pretrained(folder)


def write_tokenizer(roles: Roles, folder: Path) -> None:
    """Write the tokenizer with the chat template that was used, in the two places where readers look."""
    tokenizer, chat = roles.base.chat.tokenizer, roles.base.chat
    tokenizer.save_pretrained(str(folder))
    (folder / "chat_template.jinja").write_text(chat.template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the former is unknown before transformers 5
    for leftover in ("backend", "is_local", "local_files_only", "name_or_path"):
        config.pop(leftover, None)
    config["chat_template"] = chat.template  # older readers look only here
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
