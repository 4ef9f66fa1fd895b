"""Loss scaling: a step that overflows is skipped, gradients that would underflow move the adapters, and fp32 sees none
of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model import base as base_module
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert, Event, Metric
from rlhf_tui.settings import GuardSettings, PpoSettings, RewardSettings
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.checkpoint import load_checkpoint, save_checkpoint
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.guards import NotFinite
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.ppo_run import PpoRun
from rlhf_tui.training.reward import RewardTrainer
from rlhf_tui.training.rollout import Scoring
from rlhf_tui.training.scaling import START, TOLD_AFTER, Scaling
from rlhf_tui.training.undo import Undo

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
SETTINGS = PpoSettings(
    updates=6, rollout_size=4, max_new_tokens=5, micro_batch_tokens=64, temperature=1.0, policy_learning_rate=1e-3,
    value_learning_rate=1e-3, evaluate_every=0, save_every=1, warmup_updates=0, target_kl=0.0,
)  # fmt: skip


@pytest.fixture
def half_roles(fresh_roles: FreshRoles, monkeypatch: pytest.MonkeyPatch) -> FreshRoles:
    """Roles on a base that computes in fp16, as on a card without bf16."""

    def make(**options: Any) -> Roles:
        with monkeypatch.context() as patch:
            patch.setattr(base_module, "choose_dtype", lambda device: torch.float16)
            return fresh_roles(**options)

    return make


def learner(roles: Roles, prompts: list[TrainPrompt], events: list[Event] | None = None, **changes: Any) -> Ppo:
    emit = (lambda event: None) if events is None else events.append
    return Ppo(roles, prompts, SETTINGS.model_copy(update=changes), Scoring(0.3, 0.7), seed=11, emit=emit)


def weights(roles: Roles, *names: str) -> list[Tensor]:
    return [p.detach().clone() for name in names for p in roles.parameters(name)]  # type: ignore[arg-type]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def overflowing(monkeypatch: pytest.MonkeyPatch, one: Scaling, steps: int) -> None:
    """Make the gradients of the next so many steps of this role overflow, as one of its matrices' would."""
    plain, left = one.step, [steps]

    def step(optimiser: Any, parameters: Any, most_norm: float) -> Any:
        if left[0]:
            left[0] -= 1
            parameters[0].grad.view(-1)[0] = math.inf
        return plain(optimiser, parameters, most_norm)

    monkeypatch.setattr(one, "step", step)


def fp16(base: Any) -> Any:
    return dataclasses.replace(base, dtype=torch.float16)


# -- one role -------------------------------------------------------------------------------------


@pytest.fixture
def one(tiny_base: Any) -> tuple[Scaling, torch.nn.Parameter, torch.optim.SGD]:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    return Scaling(fp16(tiny_base)), parameter, torch.optim.SGD([parameter], lr=0.1)


def test_an_overflow_skips_the_step_and_halves_the_scale(one: Any) -> None:
    scaling, parameter, optimiser = one
    scaling.scaled((parameter * torch.tensor([math.inf, 1.0])).sum()).backward()
    found = scaling.step(optimiser, [parameter], 1.0)
    assert not found.taken
    assert not found.hopeless
    assert torch.equal(parameter.detach(), torch.tensor([1.0, 2.0]))
    assert parameter.grad is None
    assert scaling.scale == START / 2
    assert scaling.skipped == 1


def test_gradients_are_brought_back_before_they_are_clipped(one: Any) -> None:
    scaling, parameter, optimiser = one
    scaling.scaled((parameter * torch.tensor([3.0, 4.0])).sum()).backward()
    found = scaling.step(optimiser, [parameter], 1.0)
    assert found.norm == pytest.approx(5.0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.0 - 0.06, 2.0 - 0.08]))
    assert scaling.skipped == 0


def test_no_scale_helps_when_the_loss_itself_is_broken(one: Any) -> None:
    scaling, parameter, optimiser = one
    hopeless = []
    while not (hopeless and hopeless[-1]):
        scaling.scaled(parameter.sum() * math.nan).backward()
        hopeless.append(scaling.step(optimiser, [parameter], 1.0).hopeless)
    assert len(hopeless) == 17  # 2^16, … 2, and 1, where the gradient is what it is


def test_after_a_while_without_overflow_the_scale_is_doubled(one: Any) -> None:
    scaling, parameter, optimiser = one
    for _ in range(200):
        scaling.scaled(parameter.sum()).backward()
        assert scaling.scale == START
        scaling.step(optimiser, [parameter], 1.0)
    assert scaling.scale == 2 * START


def test_its_state_is_json_and_decides_what_comes_next(one: Any, tiny_base: Any) -> None:
    scaling, parameter, optimiser = one
    for factor in (math.inf, math.inf, 1.0, 1.0, math.inf):
        scaling.scaled((parameter * factor).sum()).backward()
        scaling.step(optimiser, [parameter], 1.0)
    other = Scaling(fp16(tiny_base))
    other.resume(json.loads(json.dumps(scaling.state())))
    assert other.state() == scaling.state()
    assert (other.scale, other.skipped) == (START / 8, 1)


def test_it_does_nothing_where_the_base_does_not_compute_in_fp16(tiny_base: Any) -> None:
    scaling = Scaling(tiny_base)
    loss = torch.ones((), requires_grad=True) * 2
    assert not scaling.on
    assert scaling.scaled(loss) is loss
    assert scaling.state() == {}
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([math.nan, 1.0])
    assert scaling.step(torch.optim.SGD([parameter]), [parameter], 1.0).hopeless


# -- PPO ------------------------------------------------------------------------------------------


def test_scaling_changes_a_run_in_fp32_by_rounding_alone(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    """And not at all when the scale is a power of two: then bringing the gradients back is exact."""
    found = []
    for scaled in (False, True):
        roles = fresh_roles()
        current = learner(roles, prompts(4))
        if scaled:
            current.scaling = {role: Scaling(fp16(roles.base)) for role in LEARNING}
        values = [current.update() for _ in range(2)]
        found.append((values, weights(roles, *LEARNING)))
    (plain, theirs), (lifted, ours) = found
    assert lifted[1].pop("skipped_steps") == 0
    assert lifted[1]["policy_loss"] == pytest.approx(plain[1]["policy_loss"], rel=1e-5, abs=1e-7)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_an_overflow_of_one_role_leaves_the_other_alone(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = fresh_roles()
    current = learner(roles, prompts(4), epochs=1, minibatches=1)
    current.scaling = {role: Scaling(fp16(roles.base)) for role in LEARNING}
    overflowing(monkeypatch, current.scaling["policy"], 1)
    policy, value = weights(roles, "policy"), weights(roles, "value")
    values = current.update()
    assert same(policy, weights(roles, "policy"))
    assert not same(value, weights(roles, "value"))
    assert values["skipped_steps"] == 1
    assert (values["policy_loss_scale"], values["value_loss_scale"]) == (START / 2, START)
    assert "policy_grad_norm" not in values
    assert values["value_grad_norm"] > 0


def test_a_run_in_fp16_is_its_own_sampler_at_first_and_learns(half_roles: FreshRoles, prompts: Prompts) -> None:
    roles = half_roles()
    before = weights(roles, *LEARNING)
    values = [learner(roles, prompts(4)).update()]
    assert values[0]["first_deviation"] == 0.0  # the same forward pass, in fp16 too
    assert all(p.dtype == torch.float32 for role in LEARNING for p in roles.parameters(role))
    assert not same(before, weights(roles, *LEARNING))
    assert "policy_loss_scale" in values[0]


def test_a_run_in_fp16_is_taken_up_exactly(half_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    def made() -> tuple[Ppo, PpoRun]:
        current = learner(half_roles(), prompts(4))
        return current, PpoRun(current, GuardSettings(), emit=lambda event: None, checkpoints=tmp_path)

    def numbers(current: Ppo) -> dict[str, float]:
        found = current.update()
        return {name: value for name, value in found.items() if "second" not in name}

    straight, run = made()
    for one in straight.scaling.values():  # so high that something overflows on the way
        one.resume(one.state() | {"scale": 2.0**34})
    first = straight.update()
    assert first["skipped_steps"] > 0
    folder = save_checkpoint(run, tmp_path)
    wanted = [numbers(straight) for _ in range(2)]
    resumed, other = made()
    load_checkpoint(other, folder)
    assert [numbers(resumed) for _ in range(2)] == wanted
    assert same(weights(straight.roles, *LEARNING), weights(resumed.roles, *LEARNING))
    assert {r: s.state() for r, s in resumed.scaling.items()} == {r: s.state() for r, s in straight.scaling.items()}


def test_taking_an_update_back_takes_the_scale_back(half_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(half_roles(), prompts(4))
    one = current.scaling["value"]
    one.resume(one.state() | {"scale": 2.0**40})
    before, undo = one.state(), Undo(current.roles, current.optimisers, current.scaling)
    current.update()
    assert one.state() != before
    undo.restore()
    assert one.state() == before
    assert current.update()["skipped_steps"] > 0  # and nothing of a step that was under way is in the way


def test_skipped_steps_are_no_adapter_that_does_not_move(
    half_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are told when they become too many, and when they are over the adapter must move."""
    events: list[Event] = []
    current = learner(half_roles(), prompts(4), events, epochs=1, minibatches=1, updates=TOLD_AFTER + 2)
    overflowing(monkeypatch, current.scaling["policy"], TOLD_AFTER)
    frozen = weights(current.roles, "policy")
    moved: list[bool] = []
    run = PpoRun(current, GuardSettings(action="warn"), emit=events.append, checkpoints=tmp_path)
    run.run(
        save=lambda one: None, boundary=lambda save: moved.append(not same(frozen, weights(current.roles, "policy")))
    )
    assert moved == [False] * TOLD_AFTER + [True] * 2
    told = [event for event in events if isinstance(event, Alert) and event.code == "loss-scale"]
    assert [event.message for event in told] == [
        f"The last {TOLD_AFTER} steps of the policy were skipped: its gradients overflow."
    ]
    assert "fp16" in told[0].why
    assert "learning rate" in told[0].remedy


def test_an_adapter_that_does_not_move_is_found_after_skipped_steps(
    half_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    current = learner(half_roles(), prompts(4), epochs=1, minibatches=1)
    monkeypatch.setattr(current.optimisers["policy"], "step", lambda: None)
    overflowing(monkeypatch, current.scaling["policy"], 2)
    run = PpoRun(current, GuardSettings(), emit=lambda event: None, checkpoints=tmp_path)
    with pytest.raises(UserError, match="The policy adapter did not move"):
        run.run(save=lambda one: None, boundary=lambda save: None)
    assert current.done == 3


def test_a_gradient_that_no_scale_helps_ends_the_run(
    half_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = learner(half_roles(), prompts(4), epochs=10)
    overflowing(monkeypatch, current.scaling["policy"], 1000)
    with pytest.raises(NotFinite, match="gradient of the policy is not finite, however far") as caught:
        current.update()
    assert "fp16" in caught.value.why


# -- the reward model -----------------------------------------------------------------------------


def trainer(roles: Roles, events: list[Event], **changes: Any) -> RewardTrainer:
    settings = {
        "epochs": 2, "patience": 0, "batch_pairs": 2, "learning_rate": 1e-2, "head_learning_rate": 1e-12,
        "weight_decay": 0.0, "warmup": 0.0, "centre": 0.0, "label_smoothing": 0.0, "head_start": "zero",
    }  # fmt: skip
    pairs = [Pair(Tokens((5, n), (9, 11)), Tokens((5, n), (9, 12)), False, 1, 1.0) for n in range(20, 28)]
    return RewardTrainer(roles, pairs, [], RewardSettings(**(settings | changes)), seed=1, emit=events.append)


def losses(events: list[Event]) -> list[float]:
    return [event.values["loss"] for event in events if isinstance(event, Metric)]


def run(one: RewardTrainer) -> None:
    one.run(save=lambda trainer: None, boundary=lambda save: None)


def test_a_reward_model_learns_in_fp16_what_would_underflow(
    half_roles: FreshRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is so small that the gradient at the hidden states is below fp16's smallest number, 6e-8."""

    def tiny_headed() -> Roles:
        roles = half_roles()
        roles.head("reward").weight.data.mul_(3e-8 / roles.head("reward").weight.abs().max())
        return roles

    events: list[Event] = []
    roles = tiny_headed()
    before = weights(roles, "reward")
    run(trainer(roles, events))
    assert not same(before, weights(roles, "reward"))
    assert all("loss_scale" in event.values for event in events if isinstance(event, Metric))

    with monkeypatch.context() as patch:
        patch.setattr("rlhf_tui.training.scaling.START", 1.0)
        with pytest.raises(UserError, match="did not move"):
            run(trainer(tiny_headed(), []))


def test_a_reward_model_in_fp16_gets_better(half_roles: FreshRoles) -> None:
    events: list[Event] = []
    run(trainer(half_roles(), events, epochs=4))
    assert losses(events)[-1] < 0.5 * losses(events)[0]


def test_a_reward_model_in_fp16_is_taken_up_exactly(half_roles: FreshRoles, tmp_path: Path) -> None:
    def begun() -> tuple[RewardTrainer, list[Event]]:
        events: list[Event] = []
        one = trainer(half_roles(), events)
        one.scaling.resume(one.scaling.state() | {"scale": 2.0**30})
        return one, events

    whole, events = begun()
    kept: list[Path] = []

    def boundary(save: Callable[[], None]) -> None:
        if whole.done == 3:
            kept.append(save_checkpoint(whole, tmp_path))

    whole.run(save=lambda one: None, boundary=boundary)
    assert any(event.values["skipped_steps"] for event in events if isinstance(event, Metric))
    resumed, again = begun()
    load_checkpoint(resumed, kept[0])
    run(resumed)
    assert losses(again) == losses(events)[3:]
    assert same(weights(whole.roles, "reward"), weights(resumed.roles, "reward"))
    assert whole.scaling.state() == resumed.scaling.state()


def test_skipped_steps_of_a_reward_model_are_told_and_it_must_move_after_them(
    half_roles: FreshRoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    one = trainer(half_roles(), events, epochs=4)
    overflowing(monkeypatch, one.scaling, TOLD_AFTER)
    run(one)
    assert [event.code for event in events if isinstance(event, Alert)] == ["loss-scale"]

    stuck = trainer(half_roles(), [], learning_rate=1e-30)
    overflowing(monkeypatch, stuck.scaling, 2)
    with pytest.raises(UserError, match="did not move"):
        run(stuck)
    assert stuck.done == 2
