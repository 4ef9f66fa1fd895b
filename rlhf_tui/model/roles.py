"""Several roles on one base: who is active, who learns, and proof that nobody else moved.

Every role is a LoRA adapter on the shared base; 'reward' and 'value' have a scalar head as well.
The reference is no copy: it is the base with all adapters off. This is the only place that
switches adapters. After every switch the table role → requires_grad → optimiser is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf_tui.errors import UserError
from rlhf_tui.model import lean, lora
from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import Decoder, SplitDecoder, decoder_for, runs_in_part
from rlhf_tui.model.heads import Reading, ScalarHead
from rlhf_tui.model.manifest import ADAPTER_FILE, HEAD_FILE, WITH_HEAD, read_manifest, write_manifest
from rlhf_tui.settings import AdapterSettings
from rlhf_tui.swap import replacing

Role = Literal["policy", "reward", "value", "gold"]
_READING = tuple(field.name for field in fields(Reading))


class RoleTableError(RuntimeError):
    """A role that should be frozen learns, or the other way round: a bug, never a user's mistake."""


class Roles:
    """The adapters and heads on one base model."""

    def __init__(self, base: Base, settings: AdapterSettings, *, seed: int, reading: Reading | None = None) -> None:
        """`reading`: where the roles with a head read; their adapters lie right below. None: at the model's end.

        Raises UserError when this model's stack cannot be left where they read.
        """
        self.base = base
        self._settings = settings
        self._seed = seed
        self._peft: PeftModel | None = None
        self._heads: dict[str, ScalarHead] = {}
        self._optimisers: dict[str, torch.optim.Optimizer] = {}
        self._learning: str | None = None
        self._layers_adapted: list[BaseTunerLayer] = []
        self._named: list[tuple[str, nn.Parameter]] = []
        depth = base.model.config.get_text_config().num_hidden_layers
        self._depth, self._adapted = depth, min(settings.layers or depth, depth)
        self.reading = reading_of(base, reading or Reading())
        self._decoder: Decoder | None = None
        self._reader: Decoder | None = None
        linear = (name for name, module in base.model.get_decoder().named_modules() if isinstance(module, nn.Linear))
        self._targets = sorted({name.rpartition(".")[2] for name in linear})

    # -- coming to be -------------------------------------------------------------------------

    def add(self, role: Role) -> None:
        """A new adapter that does nothing yet (B = 0), and for a role with a head one that gives 0.

        The first numbers depend on the seed and the role alone, not on which roles came before.
        """
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{role}".encode()).digest()[:4], "big")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self._peft is None:
                self._peft = get_peft_model(self.base.model, self._config(role), adapter_name=role)
            else:
                self._peft.add_adapter(role, self._config(role))
            self._quicken()
        # Kept: walking through all modules at every switch takes longer than the switch.
        self._layers_adapted = [layer for _, layer in self.lora_layers()]
        self._named = list(self.base.model.named_parameters())
        if role in WITH_HEAD:
            self._heads[role] = ScalarHead(self.base.model.config.get_text_config().hidden_size, self.base.device)
        self._rest()

    def _quicken(self) -> None:
        """Let adapted layers, norms and gated blocks give the same in fewer passes, keeping less for the gradient."""
        for _, layer in self.lora_layers():
            if isinstance(layer, LoraLayer):
                lora.install(layer)
        lean.install(self.base.model)

    def renew(self, role: Role, seed: int) -> None:
        """Start `role` again with first numbers that depend on `seed` alone; its optimiser is forgotten."""
        self._optimisers.pop(role, None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _, layer in self.lora_layers():
                layer.reset_lora_parameters(role, init_lora_weights=True)
        if role in self._heads:
            self._heads[role] = ScalarHead(self.base.model.config.get_text_config().hidden_size, self.base.device)
        self._rest()

    def load(self, role: Role, folder: Path) -> dict[str, Any]:
        """The adapter (and head) saved in `folder`, and the facts that were saved with it.

        Raises UserError when a file is missing or damaged (never falls back to a random head), or
        when it was made with another base model or other adapter settings.
        """
        self._require_same(read_manifest(folder, role), folder)
        self.add(role)
        return self.restore(role, folder)

    def restore(self, role: Role, folder: Path) -> dict[str, Any]:
        """Like `load`, for a role that exists already: its parameters keep their place in the optimisers."""
        manifest = read_manifest(folder, role)
        self._require_same(manifest, folder)
        self._write_adapter(role, load_file(folder / ADAPTER_FILE))
        if role in WITH_HEAD:
            self._heads[role].load_state_dict(load_file(folder / HEAD_FILE))
        facts: dict[str, Any] = manifest["facts"]
        return facts

    def copy(self, source: Role, target: Role) -> None:
        """Give `target` the adapter and the head of `source`."""
        if target not in self.names:
            self.add(target)
        self._write_adapter(target, self.adapter_state(source))
        if source in self._heads and target in self._heads:
            self._heads[target].load_state_dict(self._heads[source].state_dict())

    def _layers(self, role: str) -> range:
        """The layers that the adapter of `role` changes: those right below where it is read."""
        last = self.reading.layer or self._depth if role in WITH_HEAD else self._depth
        return range(max(0, last - self._adapted), last)

    def _config(self, role: str) -> LoraConfig:
        layers = self._layers(role)
        wanted = list(layers) if len(layers) < self._depth else None
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self._settings.rank,
            lora_alpha=self._settings.alpha,
            lora_dropout=0.0,
            target_modules=self._targets,
            layers_to_transform=wanted,
            base_model_name_or_path=self.base.location.published_name,
        )

    # -- acting and learning ------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._peft.peft_config) if self._peft is not None else ()

    @property
    def decoder(self) -> Decoder:
        """The whole stack, for policy and reference; the layers below the policy's adapter run once for both."""
        if self._decoder is None:
            self._decoder = decoder_for(self.base.model, self._layers("policy").start)
        return self._decoder

    @property
    def reader(self) -> Decoder:
        """The stack as far as roles with a head read it; the layers below their adapters run once for all of them.

        Where they read at the model's end this is `decoder`.
        """
        if not self.reading.layer:
            return self.decoder
        if self._reader is None:
            self._reader = decoder_for(self.base.model, self._layers("reward").start)
        return self._reader

    @property
    def shares_layers(self) -> bool:
        """Whether there are layers that run once for all roles with a head."""
        return isinstance(self.reader, SplitDecoder)

    def lower(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids: (batch, length) → what `decoder.upper` needs, and what `read` needs.

        Layers that lie below both run once.
        """
        seen = self.reader.lower(ids)
        if isinstance(self.reader, SplitDecoder) and isinstance(self.decoder, SplitDecoder):
            return self.decoder.lower_from(self.reader, seen), seen
        return self.decoder.lower(ids), seen

    def read(self, lower: Tensor) -> Tensor:
        """What `lower` gives for it → hidden state (batch, length, hidden) where roles with a head are read."""
        return self.reader.upper(lower, self.reading.layer or None)

    def head(self, role: Role) -> ScalarHead:
        return self._heads[role]

    @contextmanager
    def acting(self, role: Role) -> Iterator[None]:
        """Inside, the model answers as `role`; nothing requires a gradient."""
        self._activate(role)
        try:
            yield
        finally:
            self._rest()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the model is the base as it was: all adapters off."""
        self._require_peft()
        for layer in self._layers_adapted:
            layer.enable_adapters(False)
        self._check()
        try:
            yield
        finally:
            for layer in self._layers_adapted:
                layer.enable_adapters(True)
            self._rest()

    @contextmanager
    def learning(self, role: Role) -> Iterator[None]:
        """Inside, the model answers as `role`, and this role's parameters alone require gradients."""
        self._activate(role)
        for parameter in self.parameters(role):
            parameter.requires_grad_(True)
        self._learning = role
        self._check()
        try:
            yield
        finally:
            self._rest()

    def adapter(self, role: Role) -> list[nn.Parameter]:
        """The matrices of the adapter of `role`, in module order."""
        return [parameter for name, parameter in self._named if f".{role}." in name]

    def parameters(self, role: Role) -> list[nn.Parameter]:
        """All parameters of `role`: its adapter in module order, then its head."""
        head = self._heads.get(role)
        return self.adapter(role) + (list(head.parameters()) if head is not None else [])

    def reaches(self, role: Role) -> bool:
        """Whether a gradient comes as far as the adapter of `role`: a head of zeros lets none through."""
        head = self._heads.get(role)
        return head is None or bool(head.weight.any())

    def enlist(self, role: Role, optimiser: torch.optim.Optimizer) -> None:
        """Say which optimiser moves `role`. Raises RoleTableError when it holds other parameters than the role's."""
        held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        if not held or held != {id(parameter) for parameter in self.parameters(role)}:
            raise RoleTableError(f"the optimiser of {role!r} does not hold exactly the parameters of {role!r}")
        self._optimisers[role] = optimiser

    def fingerprint(self, role: Role) -> str:
        """SHA-256 over the adapter and head of `role`: two equal ones mean that nothing moved."""
        return _fingerprint(self.parameters(role))

    def adapter_fingerprint(self, role: Role) -> str:
        """The same over the adapter alone: a head that moves on top of one that stands still does not hide it."""
        return _fingerprint(self.adapter(role))

    def _activate(self, role: str) -> None:
        """Let `role` answer, and nothing learn."""
        if role not in self.names:
            raise RoleTableError(f"there is no role {role!r}")
        self._require_peft().active_adapter = role
        self._rest()

    def _rest(self) -> None:
        self._learning = None
        role = self._require_peft().active_adapter
        for layer in self._layers_adapted:
            layer.set_adapter(role, inference_mode=True)
        for head in self._heads.values():
            head.requires_grad_(False)
        self._check()

    def _check(self) -> None:
        learning = set()
        for name, parameter in self._named:
            if parameter.requires_grad:
                learning.add(next((role for role in self.names if f".{role}." in name), f"base ({name})"))
        learning |= {role for role, head in self._heads.items() if any(p.requires_grad for p in head.parameters())}
        wanted = {self._learning} if self._learning else set()
        if learning != wanted:
            raise RoleTableError(f"these learn: {sorted(learning)}; these should: {sorted(wanted)}")
        for role, optimiser in self._optimisers.items():
            if any(p.requires_grad != (role == self._learning) for g in optimiser.param_groups for p in g["params"]):
                raise RoleTableError(f"the optimiser of {role!r} holds parameters of another role")

    def _require_peft(self) -> PeftModel:
        if self._peft is None:
            raise RoleTableError("no role has been added yet")
        return self._peft

    # -- keeping ------------------------------------------------------------------------------

    def adapter_state(self, role: Role) -> dict[str, Tensor]:
        """The adapter of `role` under PEFT's file names, fp32, on the CPU."""
        state = get_peft_model_state_dict(self._require_peft(), adapter_name=role, save_embedding_layers=False)
        return {name: tensor.detach().float().cpu().contiguous() for name, tensor in state.items()}

    def lora_layers(self) -> Iterator[tuple[str, BaseTunerLayer]]:
        """Every adapted layer of the base model, by name."""
        for name, module in self.base.model.named_modules():
            if isinstance(module, BaseTunerLayer):
                yield name, module

    def save(self, role: Role, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the adapter and head of `role` to `folder`, whole or not at all, with hashes and `facts`."""
        with replacing(folder) as beside:
            config = self._config(role)
            config.inference_mode = True
            # PEFT turns this into a set, and the order of a set differs from run to run
            config.target_modules = self._targets
            config.save_pretrained(str(beside))
            save_file(self.adapter_state(role), beside / ADAPTER_FILE, metadata={"format": "pt"})
            if role in self._heads:
                save_file({k: v.cpu() for k, v in self._heads[role].state_dict().items()}, beside / HEAD_FILE)
            write_manifest(beside, role, self._layout(role), facts)

    def _write_adapter(self, role: Role, state: Mapping[str, Tensor]) -> None:
        try:
            outcome = set_peft_model_state_dict(self._require_peft(), dict(state), adapter_name=role)
        except RuntimeError as error:
            raise UserError(
                f"The {role} adapter does not fit this model.",
                why=str(error).splitlines()[-1].strip(),
                todo=f"Train the {role} adapter again on this model.",
            ) from None
        left = [key for key in outcome.missing_keys if f".{role}." in key]
        if left or outcome.unexpected_keys:
            raise UserError(
                f"The {role} adapter does not fit this model.",
                why=f"{len(left)} tensors are missing and {len(outcome.unexpected_keys)} are unknown.",
                todo=f"Train the {role} adapter again on this model.",
            )

    def _layout(self, role: str) -> dict[str, Any]:
        layout: dict[str, Any] = {
            "base": self.base.location.published_name,
            "quantisation": self.base.quantisation,
            "rank": self._settings.rank,
            "alpha": self._settings.alpha,
            "layers": len(self._layers(role)),
        }
        return layout | asdict(self.reading) if role in WITH_HEAD else layout

    def _require_same(self, manifest: Mapping[str, Any], folder: Path) -> None:
        role = str(manifest["role"])
        for name, current in self._layout(role).items():
            saved = manifest["layout"].get(name)
            if saved != current and name in _READING:
                raise UserError(
                    f"The {role} adapter in {folder} is read elsewhere than the others here.",
                    why=f"It was made with {name} = {saved!r}; here it is {current!r}.",
                    todo="Train the reward model again, and then PPO: both are read at the same place.",
                )
            if saved != current:
                raise UserError(
                    f"The adapter in {folder} was made with {name} = {saved!r}, and the settings now say {current!r}.",
                    todo="Set it back, or train that stage again with the new setting.",
                )


def _fingerprint(parameters: Iterable[nn.Parameter]) -> str:
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def reading_of(base: Base, reading: Reading) -> Reading:
    """The same, 0 in place of a layer at or beyond this model's end. Raises UserError when it has no list of them."""
    if reading.layer in range(1, base.model.config.get_text_config().num_hidden_layers):
        if not runs_in_part(base.model):
            raise UserError(
                f"This model cannot be read after layer {reading.layer}.",
                why=f"{type(base.model).__name__} does not keep its layers in a list.",
                todo="Set reward.layer to a number beyond its layers, such as 1000: it is then read at its end.",
            )
        return reading
    return replace(reading, layer=0)
