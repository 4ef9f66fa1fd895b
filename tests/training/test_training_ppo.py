"""PPO with its real micro-batching on the tiny model: what is exactly equal, what moves, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import Event, Sample
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import objectives, ppo, rollout
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Batch, Tokens, pad
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.ppo_metrics import Tally, describe, repeated
from rlhf_tui.training.rollout import (
    Rollout,
    Scoring,
    bare_experiences,
    evaluate_rollout,
    means_so_far,
    response_logprobs,
    response_values,
    shaped_scores,
)

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
Draw = Callable[..., list[Tokens]]
SCORING = Scoring(0.3, 0.7)  # that of the roles in conftest.py
SMALL = PpoSettings(
    updates=4,
    rollout_size=16,
    max_new_tokens=10,
    micro_batch_tokens=64,
    temperature=1.0,
    policy_learning_rate=1e-3,
    value_learning_rate=1e-3,
)


def small(**changes: Any) -> PpoSettings:
    return SMALL.model_copy(update=changes)


def learner(
    roles: Roles,
    prompts: Sequence[TrainPrompt],
    settings: PpoSettings,
    *,
    emit: Callable[[Event], None] = lambda e: None,
) -> Ppo:
    return Ppo(roles, prompts, settings, SCORING, seed=11, emit=emit)


def weights(roles: Roles, role: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in roles.parameters(role)])


@torch.no_grad()
def outputs(roles: Roles, sequences: Sequence[Tokens]) -> dict[str, Tensor]:
    """What each role says of fixed sequences, in their order."""
    (one,) = bare_experiences(roles, sequences, [True] * len(sequences), 100_000)
    with roles.acting("policy"):
        policy = response_logprobs(roles, one, 1.0)[0]
    with roles.reference():
        reference = response_logprobs(roles, one, 1.0)[0]
    with roles.acting("value"):
        value = response_values(roles, one)
    order = torch.tensor(one.members).argsort()
    found = {"policy": policy[order], "reference": reference[order], "value": value[order]}
    return found | {"reward": score_tokens(roles, sequences, MicroBatching(roles.base, 100_000, "off"))}


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every ratio that the policy loss has used, in order."""
    seen: list[Tensor] = []
    real = objectives.policy_loss

    def recording(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, **limits: float) -> Tensor:
        seen.append(objectives.policy_ratio(logprobs, old_logprobs).detach())
        return real(logprobs, old_logprobs, advantages, **limits)

    monkeypatch.setattr(objectives, "policy_loss", recording)
    return seen


def count_steps(learner: Ppo) -> dict[str, int]:
    """How often each optimiser steps from now on."""
    counts = dict.fromkeys(LEARNING, 0)
    for role in LEARNING:

        def counting(*_: Any, role: Any = role) -> None:
            counts[role] += 1

        learner.optimisers[role].register_step_post_hook(counting)
    return counts


# -- what is exact at the start -------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_at_the_first_update_kl_is_nought_and_every_first_ratio_is_one(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts, ratios: list[Tensor]
) -> None:
    roles = fresh_roles(layers=layers)
    assert roles.shares_layers == (layers == 2)
    current = learner(roles, prompts(6), small(minibatches=1, epochs=2))
    values = current.update()
    assert values["kl"] == 0.0
    assert values["kl_k3"] == 0.0
    assert values["first_deviation"] == 0.0
    assert len(ratios) % 2 == 0
    assert len(ratios) > 4  # several micro-batches
    first, second = ratios[: len(ratios) // 2], ratios[len(ratios) // 2 :]
    assert all((ratio == 1.0).all() for ratio in first)
    assert any((ratio != 1.0).any() for ratio in second)
    assert values["ratio_max"] == pytest.approx(max(float(ratio.max()) for ratio in ratios))


@pytest.mark.parametrize("layers", [0, 2])
def test_the_first_ratio_is_one_in_later_updates_too(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts, ratios: list[Tensor]
) -> None:
    current = learner(fresh_roles(layers=layers), prompts(6), small(minibatches=1, epochs=1))
    for _ in range(3):
        values = current.update()
        assert values["first_deviation"] == 0.0
    assert values["kl_k3"] > 0
    assert all((ratio == 1.0).all() for ratio in ratios)


def test_a_micro_batch_of_another_shape_would_be_noticed(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of the first ratio looks at real numbers: spoil the old ones and the update is refused."""
    real = ppo.evaluate_rollout

    def spoilt(*arguments: Any, **named: Any) -> Rollout:
        result = real(*arguments, **named)
        result.experiences[0].logprobs = result.experiences[0].logprobs + 1e-3
        return result

    monkeypatch.setattr(ppo, "evaluate_rollout", spoilt)
    with pytest.raises(UserError, match="does not reproduce"):
        learner(fresh_roles(), prompts(6), small(minibatches=1)).update()


def test_the_value_of_a_state_starts_as_the_normalised_score_of_what_is_there(
    fresh_roles: FreshRoles, draw_tokens: Draw
) -> None:
    roles, sequences = fresh_roles(), draw_tokens(6)
    values = outputs(roles, sequences)["value"]
    for row, one in enumerate(sequences):
        parts = [Tokens(one.prompt, one.response[:t]) for t in range(len(one.response))]
        raw = score_tokens(roles, parts, MicroBatching(roles.base, 100_000, "off"))
        wanted = (raw - SCORING.mean) / SCORING.deviation
        assert torch.allclose(values[row, : len(parts)], wanted, atol=1e-5)


@pytest.mark.parametrize("reading", [Reading(0, "mean"), Reading(2, "mean"), Reading(2, "last")])
def test_so_does_it_wherever_a_score_is_read(fresh_roles: FreshRoles, draw_tokens: Draw, reading: Reading) -> None:
    roles, sequences = fresh_roles(layers=2, reading=reading), draw_tokens(6)
    ended = [True] * len(sequences)
    rollout = evaluate_rollout(roles, sequences, ended, small(), SCORING, kl_coefficient=0.1)
    sizes = MicroBatching(roles.base, 100_000, "off")
    for experience in rollout.experiences:
        for row, member in enumerate(experience.members):
            one = sequences[member]
            parts = [Tokens(one.prompt, one.response[:t]) for t in range(1, len(one.response))]
            if parts:
                wanted = (score_tokens(roles, parts, sizes) - SCORING.mean) / SCORING.deviation
                assert torch.allclose(experience.values[row, 1 : len(one.response)], wanted, atol=1e-5)


def test_means_so_far_are_means_of_the_response_alone() -> None:
    states = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    found = means_so_far(states)
    assert torch.equal(found[:, 0], states[:, 0])
    for step in range(1, 5):
        assert torch.allclose(found[:, step], states[:, 1 : step + 1].mean(dim=1), atol=1e-6)
    assert means_so_far(states[:, :1]).shape == (3, 1, 4)


@pytest.mark.parametrize("before", ["reward", "value", "policy"])
def test_no_role_that_was_active_before_bends_the_layers_that_are_shared(
    fresh_roles: FreshRoles, draw_tokens: Draw, before: Role
) -> None:
    """Reward and value have their adapters among the layers that policy and reference share."""
    sequences = draw_tokens(6)
    ended = [True] * len(sequences)
    fresh = fresh_roles(layers=1, reading=Reading(2, "mean"))
    with fresh.reference():
        plain = [fresh.base.model.get_decoder()(input_ids=pad([one], fresh.base.device).ids) for one in sequences]
    roles = fresh_roles(layers=1, reading=Reading(2, "mean"))
    with roles.acting(before):
        pass
    for one in bare_experiences(roles, sequences, ended, 100_000):
        with roles.reference(), torch.no_grad():
            hidden = roles.decoder.upper(one.lower)
        for row, member in enumerate(one.members):
            length = len(sequences[member])
            wanted = plain[member].last_hidden_state[0].detach()
            assert torch.allclose(hidden[row, :length], wanted, atol=1e-5)


# -- a rollout ------------------------------------------------------------------------------------


def test_a_rollout_is_what_its_parts_say(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """Rewards, returns and advantages of every completion, computed again one at a time."""
    roles, sequences = fresh_roles(layers=2), draw_tokens(9)
    with torch.no_grad():
        for parameter in roles.parameters("policy"):
            parameter.add_(0.05)
    ended = [index % 3 != 0 for index in range(9)]
    settings = small(gamma=0.97, gae_lambda=0.9, missing_eos_penalty=0.5, score_clip=1.0)
    result = evaluate_rollout(roles, sequences, ended, settings, SCORING, kl_coefficient=0.3)
    found = outputs(roles, sequences)
    wanted, returns = [], []
    for row, one in enumerate(sequences):
        length = len(one.response)
        score = min(1.0, max(-1.0, (float(found["reward"][row]) - 0.3) / 0.7)) - (0.0 if ended[row] else 0.5)
        kl = (found["policy"] - found["reference"])[row, :length].tolist()
        rewards = [-0.3 * nats for nats in kl]
        rewards[-1] += score
        values = [*found["value"][row, :length].tolist(), 0.0]
        running, backwards = 0.0, []
        for t in reversed(range(length)):
            running = rewards[t] + 0.97 * values[t + 1] - values[t] + 0.97 * 0.9 * running
            backwards.append(running)
        wanted.append(backwards[::-1])
        returns.append([a + v for a, v in zip(wanted[-1], values, strict=False)])
        assert float(result.rows(lambda e: e.scores)[row]) == pytest.approx(score, abs=1e-5)
    every = [value for row in wanted for value in row]
    centre = sum(every) / len(every)
    scale = math.sqrt(sum((value - centre) ** 2 for value in every) / len(every))
    for one in result.experiences:
        for place, row in enumerate(one.members):
            length = len(sequences[row].response)
            whitened = [(value - centre) / scale for value in wanted[row]]
            assert one.advantages[place, :length].tolist() == pytest.approx(whitened, abs=1e-3)
            assert one.returns[place, :length].tolist() == pytest.approx(returns[row], abs=1e-4)
            assert (one.advantages[place, length:] == 0).all()
    assert sorted(i for one in result.experiences for i in one.members) == list(range(9))
    assert len(result.experiences) > 1


def test_scores_are_normalised_clipped_and_less_for_a_missing_end() -> None:
    raw = torch.tensor([0.3, 1.0, 100.0, -100.0, 100.0])
    ended = torch.tensor([True, True, True, True, False])
    found = shaped_scores(raw, ended, small(score_clip=2.0, missing_eos_penalty=0.75), SCORING)
    assert found.tolist() == pytest.approx([0.0, 1.0, 2.0, -2.0, 1.25])


def test_saturation_is_the_share_of_scores_at_the_limit(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """Of the reward model's own scores: the penalty for a missing end is not counted."""
    roles, sequences = fresh_roles(), draw_tokens(5)
    raw = [0.3, 0.3 + 0.7 * 2, 9.0, -9.0, 0.3 + 0.7 * 1.9]
    settings = small(score_clip=2.0, missing_eos_penalty=1.0)
    result = evaluate_rollout(
        roles, sequences, [False] * 5, settings, SCORING, kl_coefficient=0.1, judge=lambda sequences: raw
    )
    assert result.rows(lambda e: e.scores).tolist() == pytest.approx([-1.0, 1.0, 1.0, -3.0, 0.9], abs=1e-5)
    assert result.rows(lambda e: e.saturated).tolist() == [0, 1, 1, 1, 0]
    assert describe(result, 0.1, settings)["saturation"] == pytest.approx(0.6)


def test_repetition_is_the_share_of_runs_that_were_there_before() -> None:
    assert repeated((1, 2, 3)) == 0.0
    assert repeated((1, 2, 3, 4, 5)) == 0.0
    assert repeated((7,) * 8) == pytest.approx(4 / 5)  # five runs, all the same
    assert repeated((1, 2, 3, 4, 1, 2, 3, 4)) == pytest.approx(1 / 5)


def test_token_rewards_can_be_scaled_over_the_whole_rollout(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """ppo.reward_scaling: (r - mean) / deviation + mean over all tokens; returns show it with γ = λ = 1."""
    roles, sequences = fresh_roles(), draw_tokens(7)
    with torch.no_grad():
        for parameter in roles.parameters("policy"):
            parameter.add_(0.05)
        for parameter in roles.head("value").parameters():
            parameter.zero_()
    found = {}
    for scaling in ("off", "rollout"):
        settings = small(gamma=1.0, gae_lambda=1.0, reward_scaling=scaling)
        result = evaluate_rollout(roles, sequences, [True] * 7, settings, SCORING, kl_coefficient=0.3)
        rewards = []
        for one in result.experiences:
            ahead = torch.cat([one.returns, torch.zeros(len(one.returns), 1)], dim=1)
            rewards.append((ahead[:, :-1] - ahead[:, 1:])[one.mask])
        found[scaling] = torch.cat(rewards)
    plain, scaled = found["off"].double(), found["rollout"].double()
    wanted = (plain - plain.mean()) / plain.std(unbiased=False) + plain.mean()
    assert abs(float(plain.std(unbiased=False)) - 1) > 0.1
    torch.testing.assert_close(scaled, wanted, atol=1e-4, rtol=1e-4)


def test_sampled_ids_are_kept_as_they_are(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    """Never decoded and encoded again; an end of turn only at the end, and only where the row says so."""
    roles, asked = fresh_roles(), prompts(24)
    sequences, ended = rollout.sample_rollout(roles, [one.ids for one in asked], SMALL, seed=3)
    assert [one.prompt for one in sequences] == [one.ids for one in asked]
    assert 0 < sum(ended) < len(ended)
    ends = set(roles.base.chat.end_ids)
    for one, stopped in zip(sequences, ended, strict=True):
        assert (one.response[-1] in ends) == stopped
        assert not ends & set(one.response[:-1])
        assert stopped or len(one.response) == SMALL.max_new_tokens


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_what_samples_is_what_is_scored(temperature: float, fresh_roles: FreshRoles, prompts: Prompts) -> None:
    """Over many samples the mean of -log p is the entropy; with top-p or another temperature it is not."""
    roles, asked = fresh_roles(layers=2), prompts(8) * 64
    settings = small(temperature=temperature, max_new_tokens=4, micro_batch_tokens=4096)
    sequences, ended = rollout.sample_rollout(roles, [one.ids for one in asked], settings, seed=7)
    result = evaluate_rollout(roles, sequences, ended, settings, SCORING, kl_coefficient=0.0)
    surprise = torch.cat([(-one.logprobs - one.entropies)[one.mask] for one in result.experiences])
    assert len(surprise) > 1000
    assert abs(float(surprise.mean())) < 3 * float(surprise.std()) / math.sqrt(len(surprise))


# -- what an update moves -------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_moving_the_policy_leaves_every_other_role_bit_for_bit(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts, draw_tokens: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles, sequences = fresh_roles(layers=layers), draw_tokens(6)
    current = learner(roles, prompts(6), SMALL)
    monkeypatch.setattr(current, "_value_step", lambda *_: None)
    before = outputs(roles, sequences)
    current.update()
    after = outputs(roles, sequences)
    assert not torch.equal(before["policy"], after["policy"])
    assert all(torch.equal(before[role], after[role]) for role in ("reference", "value", "reward"))


def test_moving_the_value_leaves_every_other_role_bit_for_bit(
    fresh_roles: FreshRoles, prompts: Prompts, draw_tokens: Draw
) -> None:
    roles, sequences = fresh_roles(), draw_tokens(6)
    current = learner(roles, prompts(6), small(critic_warmup_updates=2))
    before, head = outputs(roles, sequences), roles.head("value").weight.clone()
    values = current.update()
    after = outputs(roles, sequences)
    assert not torch.equal(before["value"], after["value"])
    assert not torch.equal(head, roles.head("value").weight)
    assert all(torch.equal(before[role], after[role]) for role in ("policy", "reference", "reward"))
    assert "policy_loss" not in values  # nothing was learnt, so nothing is claimed
    current.update()
    assert torch.equal(before["policy"], outputs(roles, sequences)["policy"])
    current.update()
    assert not torch.equal(before["policy"], outputs(roles, sequences)["policy"])


def test_an_update_reports_finite_numbers_under_the_names_of_the_charts(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    events: list[Event] = []
    current = learner(fresh_roles(layers=2), prompts(6), SMALL, emit=events.append)
    for number in (1, 2):
        values = current.update()
        assert current.done == number
        assert all(math.isfinite(value) for value in values.values())
        names = (
            "score score_raw kl kl_k3 kl_coefficient objective length eos_rate entropy approx_kl clip_fraction "
            "ratio_mean ratio_min ratio_max repetition saturation tokens first_deviation policy_loss value_loss "
            "explained_variance policy_grad_norm value_grad_norm length_max score_std "
            "policy_lr value_lr tokens_per_second update_tokens_per_second "
            "seconds_sampling seconds_scoring seconds_update"
        )
        assert set(names.split()) <= set(values)
        assert 0 < values["entropy"] < math.log(375)
        assert 0 <= values["clip_fraction"] <= 1
        assert 0 < values["eos_rate"] < 1
        assert 1 <= values["length"] <= values["length_max"] <= 10
        assert values["tokens"] == pytest.approx(16 * values["length"])
        assert 0 < values["ratio_min"] <= values["ratio_mean"] <= values["ratio_max"]
        assert 0 <= values["repetition"] < 1
        learnt = SMALL.epochs * values["tokens"]
        assert values["update_tokens_per_second"] * values["seconds_update"] == pytest.approx(learnt)
        assert values["objective"] == pytest.approx(values["score"] - 0.05 * values["kl"], abs=1e-5)
    samples = [event for event in events if isinstance(event, Sample)]
    assert [event.step for event in samples] == [1, 1, 2, 2]
    assert all(event.source == "policy" and event.prompt.startswith("prompt ") for event in samples)


@pytest.mark.parametrize("minibatches", [1, 2])
def test_the_size_of_a_micro_batch_changes_memory_and_not_the_result(
    minibatches: int, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    """As the setting promises; with everything in one micro-batch there are as many optimiser steps as without."""
    found = []
    for most in (64, 100_000):
        roles = fresh_roles(layers=2)
        start = {role: weights(roles, role) for role in LEARNING}
        current = learner(roles, prompts(6), small(minibatches=minibatches, micro_batch_tokens=most, target_kl=0.0))
        steps = count_steps(current)
        values = current.update()
        found.append((steps, values["score"], {role: weights(roles, role) - start[role] for role in LEARNING}))
    assert found[0][0] == found[1][0] == {"policy": 2 * minibatches, "value": 2 * minibatches}
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    for role in LEARNING:
        moved = found[0][2][role]
        assert moved.abs().max() > 1e-4
        assert torch.allclose(moved, found[1][2][role], atol=1e-6, rtol=1e-2)


def test_short_and_long_completions_count_by_their_tokens(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """The gradient of a minibatch is the sum over all tokens by their number, not a mean of micro-batches' means."""
    gradients = []
    for most in (64, 100_000):
        roles = fresh_roles(layers=2)
        current = learner(roles, [], small(max_grad_norm=1000.0))
        result = evaluate_rollout(
            roles, draw_tokens(12, longest=40), [True] * 12, small(micro_batch_tokens=most), SCORING, kl_coefficient=0.1
        )
        taken: list[Tensor] = []
        current.optimisers["policy"].register_step_pre_hook(
            lambda *_, kept=taken, held=roles: kept.extend(
                p.grad.flatten().clone() for p in held.parameters("policy") if p.grad is not None
            )
        )
        current._policy_step(result.experiences, Tally(SMALL))
        gradients.append(torch.cat(taken))
        assert (len(result.experiences) > 4) == (most == 64)
    assert gradients[0].abs().max() > 1e-3
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


# -- stopping early, adapting ---------------------------------------------------------------------


def test_the_rest_of_an_update_is_skipped_once_the_policy_has_moved_enough(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    for target, wanted in ((0.0, 6), (1e-12, 2), (100.0, 6)):
        current = learner(fresh_roles(), prompts(6), small(minibatches=2, epochs=3, target_kl=target))
        steps = count_steps(current)
        values = current.update()
        assert steps == {"policy": wanted, "value": 6}
        assert math.isfinite(values["approx_kl"])


def test_the_kl_target_moves_the_coefficient(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(6), small(kl_target=5.0, kl_horizon=160, policy_learning_rate=1e-2))
    wanted = 0.05
    for number in range(3):
        assert current.kl_coefficient == pytest.approx(wanted)
        values = current.update()
        assert values["kl_coefficient"] == pytest.approx(wanted)  # the one that the rewards were made with
        error = min(0.2, max(-0.2, values["kl"] / 5.0 - 1))
        assert number or error == -0.2
        wanted *= 1 + error * 16 / 160
    fixed = learner(fresh_roles(), prompts(6), small(kl_target=0.0))
    fixed.update()
    assert fixed.kl_coefficient == 0.05


def test_learning_rates_rise_and_fall(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(6), small(updates=4, warmup_updates=1, value_learning_rate=2e-3, epochs=1))
    found = [current.update() for _ in range(4)]
    assert [values["policy_lr"] for values in found] == pytest.approx([0.5e-3, 1e-3, 2e-3 / 3, 1e-3 / 3])
    assert [values["value_lr"] for values in found] == pytest.approx([1e-3, 2e-3, 4e-3 / 3, 2e-3 / 3])


def test_while_the_value_warms_up_the_policy_waits_and_then_rises(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    """A value that starts from the base has three updates to itself; the policy's warm-up begins after them."""
    settings = small(updates=6, warmup_updates=1, epochs=1, value_start="base", minibatches=1)
    roles = fresh_roles()
    start = weights(roles, "policy")
    current = learner(roles, prompts(6), settings)
    assert current.critic_warmup == 3
    rates = []
    for number in range(5):
        values = current.update()
        rates.append(values["policy_lr"])
        assert torch.equal(weights(roles, "policy"), start) == (number < 3)
        assert ("policy_loss" in values) == (number >= 3)
        assert values["value_lr"] > 0
    assert rates == pytest.approx([0.0, 0.0, 0.0, 0.5e-3, 1e-3])


LIMITS = {"clip": 0.15, "clip_above": 0.28, "dual_clip": 3.0}


@pytest.mark.parametrize(
    ("name", "changes", "wanted"),
    [
        ("policy_loss", LIMITS, LIMITS),
        ("clipped", LIMITS, LIMITS),  # what the clip fraction counts
        ("value_loss", {"value_clip": 0.37}, {"clip": 0.37}),
    ],
)
def test_limits_are_those_of_the_settings(
    name: str, changes: dict[str, float], wanted: dict[str, float],
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[dict[str, float]] = []
    real = getattr(objectives, name)

    def recording(*tensors: Tensor, **limits: float) -> Tensor:
        seen.append(limits)
        found: Tensor = real(*tensors, **limits)
        return found

    monkeypatch.setattr(objectives, name, recording)
    learner(fresh_roles(), prompts(6), small(**changes)).update()
    assert len(seen) >= 4  # of every step
    assert all(one == wanted for one in seen)


def test_the_gradient_of_policy_and_value_is_clipped_and_divided_as_the_settings_say(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    """Adam's first moment after one step is a tenth of the clipped gradient."""
    current = learner(fresh_roles(), prompts(6), small(max_grad_norm=1e-3, adam_epsilon=3e-4, minibatches=1, epochs=1))
    found = current.update()
    for role, optimiser in current.optimisers.items():
        assert found[f"{role}_grad_norm"] > 1e-3
        assert {group["eps"] for group in optimiser.param_groups} == {3e-4}
        moments = torch.cat([state["exp_avg"].flatten() for state in optimiser.state.values()])
        assert float(moments.norm()) == pytest.approx(1e-4, rel=1e-3)


def test_exploring_draws_and_scores_as_an_update_does_and_learns_nothing(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    roles = fresh_roles()
    current, asked = learner(roles, prompts(6), SMALL), [one.ids for one in prompts(6)]
    before = {role: roles.fingerprint(role) for role in roles.names}
    once, again, other = current.explore(asked, 5), current.explore(asked, 5), current.explore(asked, 6)
    assert once.sequences == again.sequences != other.sequences
    assert torch.equal(once.rows(lambda e: e.scores), again.rows(lambda e: e.scores))
    ended = [bool(flag) for flag in once.rows(lambda e: e.ended)]
    plain = evaluate_rollout(roles, once.sequences, ended, SMALL, SCORING, kl_coefficient=0.0)
    assert torch.equal(once.rows(lambda e: e.scores), plain.rows(lambda e: e.scores))
    assert {role: roles.fingerprint(role) for role in roles.names} == before
    assert current.done == 0


# -- prompts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(6, 4), (3, 7), (4, 4), (5, 2)])
def test_every_prompt_is_used_once_a_lap(
    count: int, size: int, fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    class Asked(Exception):
        pass

    def only_ask(roles: Roles, wanted: Sequence[tuple[int, ...]], *_: Any, **__: Any) -> None:
        assert len(wanted) == size
        asked.extend(wanted)
        raise Asked

    monkeypatch.setattr(ppo, "sample_rollout", only_ask)
    known = prompts(count)
    current = learner(fresh_roles(), known, small(rollout_size=size))
    for done in range(2 * count):
        current.done = done
        with pytest.raises(Asked):
            current.update()
    laps = [asked[start : start + count] for start in range(0, len(asked) - count + 1, count)]
    everyone = sorted(prompt.ids for prompt in known)
    assert all(sorted(lap) == everyone for lap in laps)
    assert len({tuple(lap) for lap in laps}) > 1  # in another order


# -- it learns ------------------------------------------------------------------------------------


@pytest.fixture
def bandit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Roles, Callable[[Batch], Tensor]], None]]:
    """Put a rule in the place of the reward model's hidden state; its head then hands the rule's number on."""

    def install(roles: Roles, rule: Callable[[Batch], Tensor]) -> None:
        with torch.no_grad():
            roles.head("reward").weight.zero_()
            roles.head("reward").bias.zero_()
            roles.head("reward").weight[0] = 1.0
            roles.head("value").weight.zero_()
            roles.head("value").bias.zero_()

        def hidden(roles: Roles, lower: Tensor, batch: Batch) -> Tensor:
            made = torch.zeros(len(batch.ids), roles.head("reward").weight.shape[0])
            made[:, 0] = rule(batch)
            return made

        monkeypatch.setattr(rollout, "pooled", hidden)

    return install


def share_of_even_tokens(batch: Batch) -> Tensor:
    steps = torch.arange(batch.ids.shape[1])
    response = (steps >= batch.prompt_lengths[:, None]) & (steps < batch.lengths[:, None])
    return (response & (batch.ids % 2 == 0)).sum(-1) / response.sum(-1)


def test_a_rule_is_summed_over_the_response_alone() -> None:
    batch = pad([Tokens((4, 4), (3, 6)), Tokens((5,), (8, 10, 12))], torch.device("cpu"))
    assert share_of_even_tokens(batch).tolist() == [0.5, 1.0]


EAGER = small(
    updates=10,
    rollout_size=32,
    max_new_tokens=2,
    temperature=0.5,
    micro_batch_tokens=256,
    policy_learning_rate=3e-2,
    value_learning_rate=3e-2,
    kl_coefficient=0.01,
    missing_eos_penalty=0.0,
    target_kl=0.0,
)


def run_bandit(
    roles: Roles, prompts: Sequence[TrainPrompt], scoring: Scoring, **changes: Any
) -> list[dict[str, float]]:
    settings = EAGER.model_copy(update=changes)
    current = Ppo(roles, prompts, settings, scoring, seed=11, emit=lambda event: None)
    return [current.update() for _ in range(settings.updates)]


@pytest.mark.parametrize("layers", [0, 2])
def test_the_policy_learns_to_do_what_is_rewarded(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts, bandit: Callable[..., None]
) -> None:
    """Tokens with an even id are good. By chance about half of them are; the optimum is all of them."""
    roles = fresh_roles(layers=layers, endings=(2,))
    bandit(roles, share_of_even_tokens)
    found = run_bandit(roles, prompts(2), Scoring(0.5, 0.25))
    assert found[0]["score_raw"] < 0.7
    assert sum(values["score_raw"] for values in found[-3:]) / 3 > 0.85
    assert found[-1]["kl"] > 0.5
    assert found[-1]["entropy"] < found[0]["entropy"]


def test_without_a_reward_for_it_nothing_of_the_kind_is_learnt(
    fresh_roles: FreshRoles, prompts: Prompts, bandit: Callable[..., None]
) -> None:
    """The same run with the opposite reward goes the other way: it is the reward that teaches."""
    roles = fresh_roles(layers=2, endings=(2,))
    bandit(roles, lambda batch: 1 - share_of_even_tokens(batch))
    found = run_bandit(roles, prompts(2), Scoring(0.5, 0.25))
    assert sum(1 - values["score_raw"] for values in found[-3:]) / 3 < 0.2


def test_a_high_price_on_kl_keeps_the_policy_near(
    fresh_roles: FreshRoles, prompts: Prompts, bandit: Callable[..., None]
) -> None:
    reached = []
    for price in (0.0, 5.0):
        roles = fresh_roles(layers=2, endings=(2,))
        bandit(roles, share_of_even_tokens)
        reached.append(run_bandit(roles, prompts(2), Scoring(0.5, 0.25), kl_coefficient=price)[-1]["kl_k3"])
    assert 0 < reached[1] < 0.7 * reached[0]


def test_a_penalty_for_not_ending_makes_it_end(
    fresh_roles: FreshRoles, prompts: Prompts, bandit: Callable[..., None]
) -> None:
    roles = fresh_roles(layers=2)
    bandit(roles, lambda batch: torch.zeros(len(batch.ids)))
    found = run_bandit(roles, prompts(2), Scoring(0.0, 1.0), missing_eos_penalty=2.0, max_new_tokens=3)
    for values in found:
        assert values["score"] == pytest.approx(-2.0 * (1 - values["eos_rate"]), abs=1e-5)
    assert found[0]["eos_rate"] < 0.6
    assert sum(values["eos_rate"] for values in found[-3:]) / 3 > found[0]["eos_rate"] + 0.4
