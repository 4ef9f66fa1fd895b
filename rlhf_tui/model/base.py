"""Loading the one base model that every role sits on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from rlhf_tui.errors import UserError
from rlhf_tui.locate import Location, cannot_load, require
from rlhf_tui.model.chat import Chat, chat_for
from rlhf_tui.model.logprobs import reproduces_logits
from rlhf_tui.model.starter import ensure_starter
from rlhf_tui.settings import ModelSettings

Quantisation = Literal["nf4", "int8", "none"]


@dataclass(frozen=True)
class Base:
    """A frozen causal language model, its chat format, and what was decided when it was loaded."""

    model: PreTrainedModel
    chat: Chat
    device: torch.device
    dtype: torch.dtype
    quantisation: Quantisation
    location: Location


def choose_device(wish: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to run on. Raises UserError when CUDA is asked for and there is none."""
    if wish == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no CUDA card that this PyTorch can use.",
            todo="Set model.device to 'auto' or 'cpu', or install the CUDA build of PyTorch.",
        )
    if wish == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_dtype(device: torch.device) -> torch.dtype:
    """bf16 on cards that have it, fp16 on older ones, fp32 on the CPU (where 16-bit is many times slower)."""
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def choose_quantisation(wish: Literal["auto", "nf4", "int8", "none"], device: torch.device) -> Quantisation:
    """What 'auto' means: 4-bit where memory is scarce (a card), unquantised on the CPU."""
    if wish == "auto":
        return "nf4" if device.type == "cuda" else "none"
    return wish


def load_base(settings: ModelSettings, report: Callable[[str], None]) -> Base:
    """Load the base model that `settings` name; nothing in it requires a gradient.

    `report` is told what is going on. Raises UsageError for an unknown model or a missing chat
    template, UserError when the model cannot be loaded.
    """
    location = require(settings.name, settings.revision)
    path = str(ensure_starter(report)) if location.kind == "starter" else location.path
    device = choose_device(settings.device)
    dtype = choose_dtype(device)
    quantisation = choose_quantisation(settings.quantisation, device)
    report(
        f"loading {location.published_name} ({quantisation if quantisation != 'none' else _name(dtype)}, {device.type})"
    )
    revision = (settings.revision or None) if location.kind == "hub" else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
        model, report_of_loading = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            revision=revision,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
            **_quantisation_arguments(quantisation, dtype),
        )
        if report_of_loading["missing_keys"]:
            raise ValueError(f"Weights are missing: {sorted(report_of_loading['missing_keys'])[:3]}")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise cannot_load(settings.name, error) from error
    # what adapters and cards will say they belong to: never a local path
    model.name_or_path = model.config._name_or_path = location.published_name
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            # on a CPU with AVX-512 BF16 it would repack its weights in the first forward pass, into a
            # form that lets no gradient through and cannot be dequantised
            layer.support_avx512bf16_for_cpu = False
    model.requires_grad_(False)
    model.eval()
    if device.type == "cpu" and quantisation != "none":
        _let_go_of_the_file(model)
    if not reproduces_logits(model):
        raise UserError(
            f"The model {settings.name!r} cannot be used.",
            why=f"{type(model).__name__} changes its logits in a way that is not known here.",
            todo="Choose a model of another family, such as Llama, Qwen, Mistral, Gemma or SmolLM.",
        )
    chat = chat_for(
        tokenizer,
        end_ids=_end_ids(model, tokenizer),
        template=settings.chat_template,
        system_prompt=settings.system_prompt,
    )
    return Base(model, chat, device, dtype, quantisation, location)


def _let_go_of_the_file(model: PreTrainedModel) -> None:
    """Copy what is not quantised: as views of the mapped file, embeddings and norms would keep all of it resident."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()


def _quantisation_arguments(quantisation: Quantisation, dtype: torch.dtype) -> dict[str, Any]:
    if quantisation == "none":
        return {}
    # it repeats its message about casting on every linear call
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if quantisation == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Every id that ends a turn: the tokenizer's EOS first, then those of the generation settings."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = named if isinstance(named, list) else [named]
    return [token for token in [tokenizer.eos_token_id, *listed] if token is not None]


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
