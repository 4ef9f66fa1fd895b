"""The shape of a model: the few numbers of its config.json that decide its memory. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_tui import hub
from rlhf_tui.errors import UsageError
from rlhf_tui.locate import STARTER_NAME, Location

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_BIASED_FAMILIES = ("qwen2",)  # families whose query, key and value have a bias although config.json does not say so


@dataclass(frozen=True)
class ModelShape:
    """What of a decoder-only model decides its memory. Sizes in numbers, not bytes."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """The embedding serves as unembedding too."""
    attention_bias: bool = False

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers, which quantisation shrinks: L · (2·d·d_q + 2·d·d_kv + 3·d·d_ff)."""
        return self.layers * self.hidden * (2 * self.query_width + 2 * self.kv_width + 3 * self.intermediate)

    @property
    def other_parameters(self) -> int:
        """Embeddings, norms and biases: these stay in the precision that the model computes in."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = (2 * self.layers + 1) * self.hidden
        biases = self.layers * (self.query_width + 2 * self.kv_width) if self.attention_bias else 0
        return embeddings + norms + biases

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, rank: int, layers: int) -> int:
        """Numbers in one LoRA adapter on every linear layer of the last `layers` decoder layers (0: all).

        r · (d_in + d_out) for each of q, k, v, o, gate, up and down (Hu et al., 2021).
        """
        ends = 7 * self.hidden + 2 * self.query_width + 2 * self.kv_width + 3 * self.intermediate
        return self.adapted(layers) * rank * ends

    def adapted(self, layers: int) -> int:
        """How many layers carry adapters under the setting `adapters.layers`."""
        return min(layers or self.layers, self.layers)


# its config.json: 134,515,008 parameters
STARTER_SHAPE = ModelShape(
    name=STARTER_NAME,
    layers=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate=1536,
    vocabulary=49152,
    tied=True,
)


def shape_of(location: Location, revision: str = "") -> ModelShape:
    """The shape of the model at `location`, from its config.json alone.

    The starter's is known before it is fetched; of a hub model only config.json is downloaded, when it
    is not cached. Raises UsageError when it cannot be had, or is not of a kind that the plan knows
    (a llama-like decoder without experts).
    """
    path = Path(location.path) / "config.json"
    if location.kind == "starter" and not path.is_file():
        return STARTER_SHAPE
    if location.kind == "hub":
        path = _hub_config(location.name, revision)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read.", why=str(error), todo="Name a folder that transformers' save_pretrained wrote."
        ) from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} is not a model's configuration.", why="It holds no JSON object.")
    return _shape(config, location.published_name)


def _hub_config(name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision or None)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision or None))
    except Exception as error:  # the hub's client has many: offline, gated, unknown, timed out …
        why, todo = hub.reason(name, error)
        what = f"The shape of {name!r} is not known on this machine and cannot be had from the hub."
        raise UsageError(what, why=why, todo=todo) from None


def _shape(outer: Mapping[str, Any], name: str) -> ModelShape:
    nested = outer.get("text_config")
    config: Mapping[str, Any] = {**outer, **nested} if isinstance(nested, Mapping) else outer
    if any(isinstance(config.get(key), int) and config[key] > 1 for key in _EXPERTS):
        raise UsageError(
            f"The plan does not know models with experts such as {name}.",
            todo="Choose a dense model, or try a short run and read the memory it reports.",
        )
    family = str(config.get("model_type", ""))
    heads, hidden = _size(config, "num_attention_heads", name), _size(config, "hidden_size", name)
    optional = {key: config[key] for key in ("num_key_value_heads", "head_dim") if config.get(key) is not None}
    defaults = {"num_key_value_heads": heads, "head_dim": hidden // heads}
    return ModelShape(
        name=name,
        layers=_size(config, "num_hidden_layers", name),
        hidden=hidden,
        heads=heads,
        kv_heads=_size(defaults | optional, "num_key_value_heads", name),
        head_dim=_size(defaults | optional, "head_dim", name),
        intermediate=_size(config, "intermediate_size", name),
        vocabulary=_size(config, "vocab_size", name),
        # a config.json that is silent means the family's default: tied for Gemma, untied for the rest
        tied=bool(config.get("tie_word_embeddings", family.startswith("gemma"))),
        attention_bias=bool(config.get("attention_bias", family in _BIASED_FAMILIES)),
    )


def _size(config: Mapping[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(
            f"The shape of {name} cannot be read from its config.json.",
            why=f"{key!r} is {value!r}; a whole number above 0 is needed." if key in config else f"It has no {key!r}.",
            todo="The plan knows llama-like decoders (Llama, Mistral, Qwen, SmolLM, Gemma, Phi-3 and their kin).",
        )
    return value
