"""Roles: who answers, who learns, and that nobody else moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import UnitNorm, states_after
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.manifest import saved_reading
from rlhf_tui.model.roles import Role, Roles, RoleTableError, reading_of
from rlhf_tui.settings import AdapterSettings

ALL_ROLES: tuple[Role, ...] = ("policy", "reward", "value")

FreshBase = Callable[[], Base]
MakeRoles = Callable[..., Roles]
Observe = Callable[[Roles], dict[str, Tensor]]
Step = Callable[[Roles, Role], None]


def learners(roles: Roles) -> set[str]:
    """Who requires a gradient, read off the parameters themselves."""
    found = set()
    for name, parameter in roles.base.model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            found.add(parts[-2] if "lora_A" in parts or "lora_B" in parts else "base")
    for role in roles.names:
        if role != "policy" and any(parameter.requires_grad for parameter in roles.head(role).parameters()):  # type: ignore[arg-type]
            found.add(role)
    return found


def everything(roles: Roles) -> Iterator[Tensor]:
    yield from roles.base.model.parameters()
    for role in ("reward", "value"):
        yield from roles.head(role).parameters()  # type: ignore[arg-type]


# -- step 0 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_at_step_0_policy_and_reference_are_the_base_bit_for_bit(
    tiny_base: Base, make_roles: MakeRoles, observe: Observe, ids: Tensor, layers: int
) -> None:
    with torch.no_grad():
        base = tiny_base.model(input_ids=ids).logits
    answers = observe(make_roles(tiny_base, layers=layers, untouched=True))
    assert torch.equal(answers["policy"], base)
    assert torch.equal(answers["reference"], base)


def test_at_step_0_in_bf16_policy_and_reference_are_equal_bit_for_bit(
    load: Callable[..., Base],
    tiny_folder: object,
    monkeypatch: pytest.MonkeyPatch,
    make_roles: MakeRoles,
    observe: Observe,
) -> None:
    monkeypatch.setattr("rlhf_tui.model.base.choose_dtype", lambda device: torch.bfloat16)
    roles = make_roles(load(tiny_folder), untouched=True)
    answers = observe(roles)
    assert answers["policy"].dtype == torch.bfloat16
    assert torch.equal(answers["policy"], answers["reference"])
    assert {parameter.dtype for role in ALL_ROLES for parameter in roles.parameters(role)} == {torch.float32}


def test_heads_start_at_0(tiny_base: Base, make_roles: MakeRoles, observe: Observe) -> None:
    answers = observe(make_roles(tiny_base, untouched=True))
    for role in ("reward", "value"):
        assert torch.equal(answers[role], torch.zeros(2, 12))


def test_first_numbers_of_a_role_do_not_depend_on_the_order(fresh_base: FreshBase, make_roles: MakeRoles) -> None:
    one = make_roles(fresh_base(), "policy", "reward", "value", untouched=True)
    torch.rand(7)  # nor on what else was drawn
    other = make_roles(fresh_base(), "value", "policy", "reward", untouched=True)
    alone = make_roles(fresh_base(), "reward", untouched=True)
    assert {one.fingerprint(role) == other.fingerprint(role) for role in ALL_ROLES} == {True}
    assert alone.fingerprint("reward") == one.fingerprint("reward")
    another_seed = make_roles(fresh_base(), "reward", seed=1, untouched=True)
    assert another_seed.fingerprint("reward") != one.fingerprint("reward")


def test_adding_a_role_draws_nothing_from_the_global_generator(tiny_base: Base, make_roles: MakeRoles) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    make_roles(tiny_base, untouched=True)
    assert torch.equal(torch.rand(3), expected)


def test_adding_a_role_leaves_the_others_as_they_are(tiny_base: Base, make_roles: MakeRoles, observe: Observe) -> None:
    roles = make_roles(tiny_base, "policy", "reward")
    before = observe(roles)
    roles.add("value")
    after = observe(roles)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_with_two_layers_only_the_last_two_carry_adapters(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base, layers=2)
    layers = {int(name.split("layers.")[1].split(".")[0]) for name, _ in roles.lora_layers()}
    assert layers == {2, 3}
    learnable = [name for name, _ in tiny_base.model.named_parameters() if "lora_" in name]
    assert len(learnable) == 3 * 2 * 7 * 2  # roles x layers x linear layers x (A, B)
    assert not any("layers.0." in name or "layers.1." in name for name in learnable)


def test_every_linear_layer_of_the_decoder_carries_an_adapter_and_nothing_else_does(
    tiny_base: Base, make_roles: MakeRoles
) -> None:
    roles = make_roles(tiny_base, "policy")
    adapted = {name.rpartition(".")[2] for name, _ in roles.lora_layers()}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(list(roles.lora_layers())) == 4 * 7


# -- one learns, nobody else moves -------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("moving", ALL_ROLES)
def test_a_step_of_one_role_leaves_all_others_bit_identical(
    tiny_base: Base, make_roles: MakeRoles, observe: Observe, step: Step, moving: Role, layers: int
) -> None:
    roles = make_roles(tiny_base, layers=layers)
    before, prints = observe(roles), {role: roles.fingerprint(role) for role in ALL_ROLES}
    step(roles, moving)
    after = observe(roles)
    assert set(after) == {"reference", *ALL_ROLES}
    for name in after:
        assert torch.equal(before[name], after[name]) == (name != moving), name
    for role in ALL_ROLES:
        assert (roles.fingerprint(role) == prints[role]) == (role != moving), role


def test_all_roles_learn_in_turn_and_the_base_never_moves(
    tiny_base: Base, make_roles: MakeRoles, observe: Observe, step: Step
) -> None:
    roles = make_roles(tiny_base)
    frozen = {name: p.clone() for name, p in tiny_base.model.named_parameters() if "lora_" not in name}
    reference = observe(roles)["reference"]
    for role in ALL_ROLES * 2:
        step(roles, role)
    assert torch.equal(observe(roles)["reference"], reference)
    now = dict(tiny_base.model.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in frozen.items())


def test_every_parameter_of_a_role_gets_a_gradient(tiny_base: Base, make_roles: MakeRoles, ids: Tensor) -> None:
    roles = make_roles(tiny_base)
    with roles.learning("value"):
        roles.head("value")(roles.decoder.upper(roles.decoder.lower(ids))).square().mean().backward()
    for parameter in roles.parameters("value"):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    others = {id(parameter) for parameter in roles.parameters("value")}
    assert all(parameter.grad is None for parameter in everything(roles) if id(parameter) not in others)


def test_parameters_of_the_roles_are_apart(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    held = [{id(parameter) for parameter in roles.parameters(role)} for role in ALL_ROLES]
    assert [len(one) for one in held] == [4 * 7 * 2, 4 * 7 * 2 + 2, 4 * 7 * 2 + 2]
    assert len(set.union(*held)) == sum(len(one) for one in held)


def test_the_fingerprint_changes_with_a_single_number(tiny_base: Base, make_roles: MakeRoles, observe: Observe) -> None:
    roles = make_roles(tiny_base)
    before = roles.fingerprint("reward")
    observe(roles)
    with roles.learning("policy"):
        pass
    assert roles.fingerprint("reward") == before
    with torch.no_grad():
        roles.head("reward").bias.add_(1e-6)
    assert roles.fingerprint("reward") != before


# -- the table of who learns -------------------------------------------------------------------


def test_the_table_is_right_after_every_switch(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    assert learners(roles) == set()
    switches: list[tuple[AbstractContextManager[None], set[str]]] = [
        *((roles.acting(role), set[str]()) for role in ALL_ROLES),
        *((roles.learning(role), {str(role)}) for role in ALL_ROLES),
        (roles.reference(), set[str]()),
        *((roles.learning(role), {str(role)}) for role in reversed(ALL_ROLES)),
        (roles.reference(), set[str]()),
        (roles.acting("reward"), set[str]()),
    ]
    for context, expected in switches:
        with context:
            assert learners(roles) == expected
        assert learners(roles) == set()


def test_the_table_is_right_after_add(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base, "policy", untouched=True)
    assert learners(roles) == set()
    roles.add("reward")
    assert learners(roles) == set()


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("context", ["acting", "learning", "reference"])
def test_an_exception_inside_leaves_nobody_learning(
    tiny_base: Base, make_roles: MakeRoles, observe: Observe, context: str
) -> None:
    roles = make_roles(tiny_base)
    before = observe(roles)
    entered = {
        "acting": lambda: roles.acting("value"),
        "learning": lambda: roles.learning("value"),
        "reference": roles.reference,
    }[context]
    with pytest.raises(Interrupted), entered():
        raise Interrupted
    assert learners(roles) == set()
    after = observe(roles)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_switching_away_in_the_middle_of_learning_is_noticed(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    with pytest.raises(RoleTableError), roles.learning("policy"), roles.reference():
        pass


def test_only_the_learning_role_keeps_a_graph(tiny_base: Base, make_roles: MakeRoles, ids: Tensor) -> None:
    roles = make_roles(tiny_base)
    with roles.acting("policy"):
        assert not tiny_base.model(input_ids=ids).logits.requires_grad
    with roles.reference():
        assert not tiny_base.model(input_ids=ids).logits.requires_grad
    with roles.learning("policy"):
        assert tiny_base.model(input_ids=ids).logits.requires_grad


def test_enlist_refuses_other_parameters(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    policy = roles.parameters("policy")
    wrong = {
        "another role's": roles.parameters("value"),
        "one too few": policy[:-1],
        "one too many": [*policy, roles.head("value").bias],
        "the adapter without its head": roles.parameters("reward")[:-2],
    }
    for why, parameters in wrong.items():
        role: Role = "reward" if "head" in why else "policy"
        with pytest.raises(RoleTableError, match=role):
            roles.enlist(role, torch.optim.SGD(parameters, lr=0.1))
    roles.enlist("policy", torch.optim.SGD(policy, lr=0.1))
    roles.enlist("reward", torch.optim.SGD([{"params": p} for p in roles.parameters("reward")], lr=0.1))
    with roles.learning("policy"):
        pass


def test_an_emptied_optimiser_is_refused(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    optimiser = torch.optim.SGD(roles.parameters("policy"), lr=0.1)
    optimiser.param_groups[0]["params"] = []
    with pytest.raises(RoleTableError):
        roles.enlist("policy", optimiser)


def test_a_base_weight_that_learns_is_noticed(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    tiny_base.model.model.norm.weight.requires_grad_(True)
    with pytest.raises(RoleTableError, match=r"base \(model.norm.weight\)"), roles.learning("policy"):
        pass


def test_a_frozen_number_of_the_learning_role_is_noticed(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    roles.enlist("policy", torch.optim.SGD(roles.parameters("policy"), lr=0.1))
    with roles.learning("policy"):
        roles.parameters("policy")[0].requires_grad_(False)
        with pytest.raises(RoleTableError, match="policy"):
            roles._check()


def test_an_optimiser_that_was_given_more_later_is_noticed(tiny_base: Base, make_roles: MakeRoles) -> None:
    roles = make_roles(tiny_base)
    optimiser = torch.optim.SGD(roles.parameters("policy"), lr=0.1)
    roles.enlist("policy", optimiser)
    optimiser.add_param_group({"params": roles.parameters("reward")})
    with pytest.raises(RoleTableError, match="policy"), roles.learning("policy"):
        pass


def test_nothing_can_act_before_a_role_is_added(tiny_base: Base, make_roles: MakeRoles) -> None:
    empty = Roles(tiny_base, make_roles(tiny_base, "policy", untouched=True)._settings, seed=0)
    assert empty.names == ()
    with pytest.raises(RoleTableError, match="no role"), empty.reference():
        pass


# -- copies and heads --------------------------------------------------------------------------


@pytest.mark.parametrize("already", [True, False])
def test_a_copy_answers_the_same_and_is_then_independent(
    tiny_base: Base, make_roles: MakeRoles, observe: Observe, step: Step, already: bool
) -> None:
    roles = make_roles(tiny_base, *(ALL_ROLES if already else ALL_ROLES[:2]))
    before = observe(roles)
    roles.copy("reward", "value")
    answers = observe(roles)
    assert torch.equal(answers["value"], answers["reward"])
    assert torch.equal(answers["reward"], before["reward"])
    assert torch.equal(answers["policy"], before["policy"])
    assert learners(roles) == set()

    step(roles, "value")
    later = observe(roles)
    assert torch.equal(later["reward"], answers["reward"])
    assert not torch.equal(later["value"], answers["value"])
    step(roles, "reward")
    assert torch.equal(observe(roles)["value"], later["value"])


def test_a_normalised_head_gives_standard_scores(tiny_base: Base, make_roles: MakeRoles, observe: Observe) -> None:
    roles = make_roles(tiny_base)
    raw = observe(roles)["reward"]
    roles.head("reward").normalise(float(raw.mean()), float(raw.std()))
    scores = observe(roles)["reward"]
    torch.testing.assert_close(scores, (raw - raw.mean()) / raw.std(), rtol=1e-4, atol=1e-5)


def test_heads_compute_in_fp32(tiny_base: Base, make_roles: MakeRoles) -> None:
    head = make_roles(tiny_base).head("reward")
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    score = head(hidden)
    assert score.shape == (2, 5)
    assert score.dtype == torch.float32
    expected = (hidden.float() * head.weight).sum(-1) + head.bias
    torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-5)


# -- heads that read in the middle ----------------------------------------------------------------


def test_adapters_lie_right_below_where_their_role_is_read(tiny_base: Base) -> None:
    roles = Roles(tiny_base, AdapterSettings(rank=4, alpha=8, layers=2), seed=3, reading=Reading(3, "mean"))
    for role in ("policy", "reward", "value"):
        roles.add(role)  # type: ignore[arg-type]
    found = {
        role: {int(name.split(".layers.")[1].split(".")[0]) for name in roles.adapter_state(role)}  # type: ignore[arg-type]
        for role in roles.names
    }
    assert found == {"policy": {2, 3}, "reward": {1, 2}, "value": {1, 2}}


def test_what_lies_above_does_not_count(tiny_base: Base, ids: Tensor) -> None:
    roles = Roles(tiny_base, AdapterSettings(rank=4, alpha=8), seed=3, reading=Reading(2, "last"))
    roles.add("reward")
    with torch.no_grad(), roles.acting("reward"):
        before = roles.read(roles.reader.lower(ids))
        tiny_base.model.get_decoder().layers[2].mlp.down_proj.weight.add_(1.0)
        assert torch.equal(roles.read(roles.reader.lower(ids)), before)
        tiny_base.model.get_decoder().layers[1].mlp.down_proj.base_layer.weight.add_(1.0)
        assert not torch.equal(roles.read(roles.reader.lower(ids)), before)


def test_policy_and_heads_each_share_the_layers_below_their_own_adapters(tiny_base: Base, ids: Tensor) -> None:
    roles = Roles(tiny_base, AdapterSettings(rank=4, alpha=8, layers=1), seed=3, reading=Reading(2, "mean"))
    for role in ("policy", "reward"):
        roles.add(role)  # type: ignore[arg-type]
    with torch.no_grad(), roles.reference():
        states = states_after(tiny_base.model, ids, {1, 2, 3})
    for decoder, below in ((roles.decoder, 3), (roles.reader, 1)):
        made = decoder.lower(ids)
        assert torch.allclose(UnitNorm()(made), states[below], atol=1e-5)
    with torch.no_grad(), roles.acting("reward"):  # it does nothing yet
        assert torch.allclose(roles.read(roles.reader.lower(ids)), states[2], atol=1e-5)
    at_the_end = Roles(tiny_base, AdapterSettings(rank=4, alpha=8, layers=1), seed=3)
    assert at_the_end.reader is at_the_end.decoder


@pytest.mark.parametrize(
    ("reading", "runs"),
    [
        (Reading(2, "mean"), [1, 1, 1, 0]),  # the first layer for both, the next two for the policy
        (Reading(1, "mean"), [1, 1, 1, 0]),  # nothing lies below the heads' adapter
        (Reading(), [1, 1, 1, 0]),
    ],
)
def test_layers_below_policy_and_heads_run_once_for_both(
    tiny_base: Base, ids: Tensor, reading: Reading, runs: list[int]
) -> None:
    roles = Roles(tiny_base, AdapterSettings(rank=4, alpha=8, layers=1), seed=3, reading=reading)
    for role in ("policy", "reward"):
        roles.add(role)  # type: ignore[arg-type]
    with roles.reference():
        wanted = roles.decoder.lower(ids), roles.reader.lower(ids)
        counts = [0] * 4
        hooks = [
            layer.register_forward_hook(lambda *_, place=place: counts.__setitem__(place, counts[place] + 1))
            for place, layer in enumerate(tiny_base.model.get_decoder().layers)
        ]
        found = roles.lower(ids)
        for hook in hooks:
            hook.remove()
    assert all(torch.equal(own, other) for own, other in zip(found, wanted, strict=True))
    assert counts == runs


@pytest.mark.parametrize("layer", [0, 4, 1000])
def test_a_layer_at_or_beyond_the_end_is_the_end(layer: int, tiny_base: Base) -> None:
    assert reading_of(tiny_base, Reading(layer, "mean")) == Reading(0, "mean")


def test_a_reward_model_that_reads_elsewhere_is_refused(tiny_base: Base, tmp_path: Path) -> None:
    settings = AdapterSettings(rank=4, alpha=8, layers=1)
    roles = Roles(tiny_base, settings, seed=3, reading=Reading(2, "mean"))
    roles.add("reward")
    roles.save("reward", tmp_path / "reward", {})
    assert saved_reading(tmp_path / "reward", "reward") == Reading(2, "mean")
    other = Roles(tiny_base, settings, seed=3)
    with pytest.raises(UserError, match="layer = 2"):
        other.load("reward", tmp_path / "reward")
