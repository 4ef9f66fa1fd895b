"""What the tests of the model room share: roles on a tiny base, everything they answer, and one step of training."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from rlhf_tui.model.base import Base, load_base
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.settings import AdapterSettings, ModelSettings

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

ALL_ROLES: tuple[Role, ...] = ("policy", "reward", "value")

MakeRoles = Callable[..., Roles]
Observe = Callable[[Roles], dict[str, Tensor]]
Step = Callable[[Roles, Role], None]


@pytest.fixture(scope="session")
def blocky_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untied 4-layer Llama of 64 channels: whole quantisation blocks in every row."""
    folder = tmp_path_factory.mktemp("blocky") / "blocky-llama"
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.15,
        rope_parameters={"rope_type": "default", "rope_theta": 54321.0},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def fresh_base(tiny_base: Base) -> Callable[[], Base]:
    """Makes as many untouched copies of the tiny base as a test needs."""
    return lambda: dataclasses.replace(tiny_base, model=copy.deepcopy(tiny_base.model))


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny-llama"))


@pytest.fixture(scope="session")
def load() -> Callable[..., Base]:
    """Load a folder; keyword arguments are model settings."""

    def loaded(folder: Path, **settings: str) -> Base:
        return load_base(ModelSettings(name=str(folder), **{"quantisation": "none"} | settings), lambda text: None)

    return loaded


@pytest.fixture(scope="session")
def numbers() -> Callable[[Any], Tensor]:
    """The weight of a linear layer as fp32, whatever it is stored in; the layer stays as it is."""

    def read(layer: Any) -> Tensor:
        weight = layer.weight.detach()
        if weight.is_floating_point():
            return weight.float()
        if isinstance(layer, bitsandbytes.nn.Linear8bitLt):
            scales = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
            return weight.float() * scales[:, None] / 127
        return bitsandbytes.functional.dequantize_4bit(weight.data, layer.weight.quant_state).float()

    return read


@pytest.fixture(scope="session")
def nudge() -> Callable[[Roles], None]:
    """Moves every number of every role away from where it starts."""

    @torch.no_grad()
    def nudged(roles: Roles) -> None:
        for number, name in enumerate(roles.names):
            generator = torch.Generator().manual_seed(1000 + number)
            for parameter in roles.parameters(name):  # type: ignore[arg-type]
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))

    return nudged


@pytest.fixture(scope="session")
def make_roles(nudge: Callable[[Roles], None]) -> MakeRoles:
    """Roles on a base, with every adapter already moved away from zero unless `untouched`."""

    def make(
        base: Base, *names: Role, layers: int = 0, rank: int = 4, alpha: int = 8, seed: int = 0, untouched: bool = False
    ) -> Roles:
        roles = Roles(base, AdapterSettings(rank=rank, alpha=alpha, layers=layers), seed=seed)
        for name in names or ALL_ROLES:
            roles.add(name)
        if not untouched:
            nudge(roles)
        return roles

    return make


@pytest.fixture(scope="session")
def ids() -> Tensor:
    """Two rows of token ids."""
    return torch.randint(3, 260, (2, 12), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def observe(ids: Tensor) -> Observe:
    """Everything that the roles answer: logits of policy and reference, scores, values."""

    @torch.no_grad()
    def observed(roles: Roles) -> dict[str, Tensor]:
        answers: dict[str, Tensor] = {}
        with roles.reference():
            answers["reference"] = roles.base.model(input_ids=ids).logits
        for name in roles.names:
            with roles.acting(name):  # type: ignore[arg-type]
                if name == "policy":
                    answers[name] = roles.base.model(input_ids=ids).logits
                else:
                    hidden = roles.decoder.upper(roles.decoder.lower(ids))
                    answers[name] = roles.head(name)(hidden)  # type: ignore[arg-type]
        return answers

    return observed


@pytest.fixture(scope="session")
def step(ids: Tensor) -> Step:
    """One optimiser step of one role."""

    def stepped(roles: Roles, role: Role) -> None:
        optimiser = torch.optim.Adam(roles.parameters(role), lr=1e-2)
        roles.enlist(role, optimiser)
        with roles.learning(role):
            hidden = roles.decoder.upper(roles.decoder.lower(ids))
            outcome = roles.base.model.lm_head(hidden) if role == "policy" else roles.head(role)(hidden)
            outcome.square().mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return stepped
