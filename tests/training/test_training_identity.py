"""Four roles on one base, in one PPO update: what is exactly equal, whoever the base is.

Every test runs on an fp32 base, on one in NF4 with double quantisation (through bitsandbytes, as on a card), and
where it says so in bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rlhf_tui.model import base as base_module
from rlhf_tui.model.base import Base, load_base
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.settings import AdapterSettings, ModelSettings, PpoSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.optimisation import adam
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.rollout import (
    Scoring,
    bare_experiences,
    evaluate_rollout,
    response_logprobs,
    response_values,
    sample_rollout,
)

Prompts = Callable[[int], list[TrainPrompt]]
Draw = Callable[..., list[Tokens]]
Make = Callable[..., Roles]
Kind = Literal["fp32", "bf16", "nf4"]
EVERYONE: tuple[Role, ...] = ("policy", "reward", "value")
SCORING = Scoring(0.3, 0.7)
SETTINGS = PpoSettings(
    updates=4,
    rollout_size=12,
    max_new_tokens=10,
    micro_batch_tokens=64,
    minibatches=1,
    temperature=0.8,
    policy_learning_rate=1e-3,
    value_learning_rate=1e-3,
    target_kl=0.0,
)
both = pytest.mark.parametrize("kind", ["fp32", "nf4"])


@pytest.fixture
def make(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Policy, reward and value on a fresh base of this kind; the same numbers every time."""

    def load(kind: Kind) -> Base:
        with monkeypatch.context() as patch:
            if kind == "bf16":
                patch.setattr(base_module, "choose_dtype", lambda device: torch.bfloat16)
            quantisation = "nf4" if kind == "nf4" else "none"
            settings = ModelSettings(name=str(tiny_folder), quantisation=quantisation, device="cpu")
            base = load_base(settings, lambda text: None)
        return replace(base, chat=replace(base.chat, end_ids=tuple(range(2, 370, 8))))

    def roles(kind: Kind, *, layers: int = 0, untouched: bool = True, reading: Reading | None = None) -> Roles:
        made = Roles(load(kind), AdapterSettings(rank=4, alpha=8, layers=layers), seed=3, reading=reading)
        for role in ("policy", "reward"):
            made.add(role)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for role in ("reward",) if untouched else ("reward", "policy"):
                for parameter in made.parameters(role):
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        made.copy("reward", "value")
        made.head("value").normalise(SCORING.mean, SCORING.deviation)
        return made

    return roles


def learner(roles: Roles, prompts: Sequence[TrainPrompt], **changes: Any) -> Ppo:
    settings = SETTINGS.model_copy(update=changes)
    return Ppo(roles, prompts, settings, SCORING, seed=11, emit=lambda event: None)


@torch.no_grad()
def outputs(roles: Roles, sequences: Sequence[Tokens], most: int = 100_000) -> dict[str, Tensor]:
    """What each role says of fixed sequences: per-token numbers end to end in the order of the sequences."""
    ways: dict[str, Callable[[Any], Tensor]] = {
        "policy": lambda one: response_logprobs(roles, one, 0.8)[0],
        "reference": lambda one: response_logprobs(roles, one, 0.8)[0],
        "value": lambda one: response_values(roles, one),
    }
    found: dict[str, Tensor] = {}
    experiences = bare_experiences(roles, sequences, [True] * len(sequences), most)
    for name, way in ways.items():
        rows: dict[int, Tensor] = {}
        with roles.reference() if name == "reference" else roles.acting(name):  # type: ignore[arg-type]
            for one in experiences:
                for member, own, mask in zip(one.members, way(one), one.mask, strict=True):
                    rows[member] = own[mask]
        found[name] = torch.cat([rows[index] for index in range(len(sequences))])
    return found | {"reward": score_tokens(roles, sequences, MicroBatching(roles.base, most, "off"))}


def same_but_for(role: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) == (name != role) for name in before)


# -- at the start ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "reading"), [(0, Reading()), (2, Reading()), (1, Reading(2, "mean"))])
@pytest.mark.parametrize("kind", ["fp32", "bf16", "nf4"])
def test_at_the_start_kl_is_nought_and_the_first_ratio_one(
    kind: Kind, layers: int, reading: Reading, make: Make, prompts: Prompts
) -> None:
    """Exactly, in the micro-batches of a real update; in bf16, too, because both passes have the same shape.

    With heads that read in the middle, layers that only the reward model changes are the base's own for the policy.
    """
    current = learner(make(kind, layers=layers, reading=reading), prompts(6))
    values = current.update()
    assert values["kl"] == values["kl_k3"] == 0.0
    assert values["first_deviation"] == 0.0
    assert values["ratio_max"] > 1.0 > values["ratio_min"]  # in the second epoch it has moved
    assert current.update()["first_deviation"] == 0.0


@both
@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_the_first_ratio_is_one_for_a_policy_that_has_moved(
    kind: Kind, checkpointing: str, make: Make, prompts: Prompts
) -> None:
    current = learner(make(kind, untouched=False), prompts(6), checkpointing=checkpointing)
    values = current.update()
    assert values["kl"] != 0.0
    assert values["first_deviation"] == 0.0


@both
def test_before_anything_is_learnt_advantages_do_not_know_of_the_price_of_kl(
    kind: Kind, make: Make, prompts: Prompts
) -> None:
    roles = make(kind)
    sequences, ended = sample_rollout(roles, [one.ids for one in prompts(8)], SETTINGS, seed=1)
    free, dear = (
        evaluate_rollout(roles, sequences, ended, SETTINGS, SCORING, kl_coefficient=price) for price in (0.0, 9.0)
    )
    for one, other in zip(free.experiences, dear.experiences, strict=True):
        assert torch.equal(one.advantages, other.advantages)


# -- who moves ------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("role", EVERYONE)
def test_a_role_that_learns_leaves_all_others_bit_for_bit(
    kind: Kind, role: Role, make: Make, prompts: Prompts, draw_tokens: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles, sequences = make(kind, untouched=False), draw_tokens(6)
    before = outputs(roles, sequences)
    if role == "reward":
        optimiser = adam(roles, "reward", adapter_rate=1e-2, head_rate=1e-2)
        (one,) = bare_experiences(roles, sequences, [True] * 6, 100_000)
        with roles.learning("reward"):
            hidden = roles.decoder.upper(one.lower)[torch.arange(6), one.batch.last]
            torch.autograd.backward(roles.head("reward")(hidden).square().sum())
            optimiser.step()
    else:
        current = learner(roles, prompts(6))
        other = {"policy": "_value_step", "value": "_policy_step"}[role]
        monkeypatch.setattr(current, other, lambda *_: 0.0)
        current.update()
    assert same_but_for(role, before, outputs(roles, sequences))


@both
def test_after_every_switch_of_an_update_the_table_of_roles_is_right(
    kind: Kind, make: Make, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who requires a gradient is nobody, or exactly the parameters of one learning role and its optimiser."""
    roles = make(kind)
    current = learner(roles, prompts(6))
    owners = {
        frozenset(id(p) for group in optimiser.param_groups for p in group["params"]): role
        for role, optimiser in current.optimisers.items()
    }
    heads = [p for role in ("reward", "value") for p in roles.head(role).parameters()]  # type: ignore[arg-type]
    seen: list[str] = []
    real = roles._check

    def looking() -> None:
        real()
        learns = frozenset(id(p) for p in [*roles.base.model.parameters(), *heads] if p.requires_grad)
        seen.append(owners[learns] if learns else "nobody")

    monkeypatch.setattr(roles, "_check", looking)
    current.update()
    assert set(seen) == {"nobody", "policy", "value"}
    assert seen[-1] == "nobody"
    assert seen.count("policy") == seen.count("value") == 2 + 1  # epochs, and the rehearsal before the first update


@both
def test_an_update_moves_every_matrix_of_the_learning_roles_and_no_number_of_the_base(
    kind: Kind, make: Make, prompts: Prompts
) -> None:
    roles = make(kind)
    own = {id(p) for role in EVERYONE for p in roles.parameters(role)}
    base = {name: p.detach().clone() for name, p in roles.base.model.named_parameters() if id(p) not in own}
    start = {role: [p.detach().clone() for p in roles.parameters(role)] for role in EVERYONE}
    learner(roles, prompts(6)).update()
    for role in EVERYONE:
        moved = [not torch.equal(old, new) for old, new in zip(start[role], roles.parameters(role), strict=True)]
        assert all(moved) if role in LEARNING else not any(moved)
    for name, parameter in roles.base.model.named_parameters():
        assert id(parameter) in own or torch.equal(parameter, base[name]), name


@both
def test_the_fingerprint_changes_and_what_is_saved_answers_the_same(
    kind: Kind, make: Make, prompts: Prompts, draw_tokens: Draw, tmp_path: Path
) -> None:
    roles, sequences = make(kind), draw_tokens(5)
    start = {role: roles.fingerprint(role) for role in EVERYONE}
    learner(roles, prompts(6)).update()
    for role in EVERYONE:
        assert (roles.fingerprint(role) != start[role]) == (role in LEARNING)
        roles.save(role, tmp_path / role, {})
    other = make(kind)
    for role in EVERYONE:
        other.restore(role, tmp_path / role)
        assert other.fingerprint(role) == roles.fingerprint(role)
    found, again = outputs(roles, sequences), outputs(other, sequences)
    assert all(torch.equal(found[name], again[name]) for name in found)


# -- padding and company --------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
@both
def test_neither_padding_nor_company_changes_a_number(kind: Kind, layers: int, make: Make, draw_tokens: Draw) -> None:
    """Alone, in micro-batches, or all together with the longest: the same to fp32's rounding."""
    roles, sequences = make(kind, layers=layers, untouched=False), draw_tokens(9, longest=20)
    alone, some, together = (outputs(roles, sequences, most) for most in (1, 60, 100_000))
    for name, wanted in alone.items():
        torch.testing.assert_close(some[name], wanted, atol=3e-5, rtol=1e-4)
        torch.testing.assert_close(together[name], wanted, atol=3e-5, rtol=1e-4)
