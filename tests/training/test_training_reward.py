"""Training the reward model on the tiny model: it learns a taste, and nothing else moves it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Event, Memory, Metric, Progress
from rlhf_tui.settings import RewardSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens, pad, pooled
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.reward import Trained, train_reward

FreshRoles = Callable[..., Roles]
LIKED = 11  # the token whose presence is the taste
FAST = RewardSettings(
    epochs=6, patience=0, learning_rate=3e-3, head_learning_rate=1e-2, batch_pairs=16, head_start="zero"
)


def replace_settings(**changes: Any) -> RewardSettings:
    return FAST.model_copy(update=changes)


def fit(
    roles: Roles,
    train: Sequence[Pair],
    settings: RewardSettings = FAST,
    heldout: Sequence[Pair] = (),
    *,
    seed: int = 1,
    boundary: Callable[[], None] = lambda: None,
) -> tuple[Trained, list[Event]]:
    events: list[Event] = []
    trained = train_reward(roles, train, heldout, settings, seed=seed, emit=events.append, boundary=boundary)
    return trained, events


def tasteful_pairs(count: int, *, seed: int = 0, longest: int = 7) -> list[Pair]:
    """Random answers to random prompts; the better one has the liked token somewhere, the worse one never."""
    order = random.Random(seed)
    others = [token for token in range(3, 370) if token != LIKED]
    pairs = []
    for _ in range(count):
        prompt = tuple(order.choices(others, k=order.randint(2, 6)))
        answers = [order.choices(others, k=order.randint(2, longest)) for _ in range(2)]
        answers[0][order.randrange(len(answers[0]))] = LIKED
        pairs.append(Pair(*(Tokens(prompt, (*answer, 2)) for answer in answers), tie=False, strength=1, weight=1.0))
    return pairs


def metrics(events: Sequence[Event], name: str) -> list[float]:
    return [event.values[name] for event in events if isinstance(event, Metric) and name in event.values]


def raw_scores(roles: Roles, sequences: Sequence[Tokens]) -> torch.Tensor:
    return score_tokens(roles, sequences, MicroBatching(roles.base, 100_000, "off"))


def weights(roles: Roles) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in roles.parameters("reward")])


# -- learning -------------------------------------------------------------------------------------


def test_a_taste_is_learnt(fresh_roles: FreshRoles) -> None:
    trained, events = fit(fresh_roles(), tasteful_pairs(64), replace_settings(learning_rate=1e-2))
    assert (trained.train.gaps > 0).float().mean().item() > 0.95
    assert metrics(events, "accuracy")[0] < 0.8
    assert metrics(events, "loss")[-1] < 0.5 * metrics(events, "loss")[0]


@pytest.mark.parametrize("layers", [0, 2])
def test_a_simple_taste_reaches_pairs_it_has_never_seen(layers: int, fresh_roles: FreshRoles) -> None:
    """The taste: the better answer stops with the liked token."""
    train, heldout = (
        [
            replace(
                pair,
                chosen=Tokens(pair.chosen.prompt, (*pair.rejected.response, LIKED)),
                rejected=Tokens(pair.chosen.prompt, (*pair.rejected.response, 12)),
            )
            for pair in tasteful_pairs(count, seed=seed)
        ]
        for count, seed in ((64, 0), (32, 9))
    )
    trained, events = fit(fresh_roles(layers=layers), train, replace_settings(learning_rate=1e-2), heldout)
    assert (trained.train.gaps > 0).float().mean().item() > 0.9
    right = (trained.heldout.gaps > 0).float().mean().item()
    assert right > 0.8
    found = metrics(events, "heldout_accuracy")
    assert len(found) == FAST.epochs
    assert found[-1] == pytest.approx(right)
    nats = [math.log1p(math.exp(-gap)) for gap in trained.heldout.gaps.tolist()]
    assert metrics(events, "heldout_loss")[-1] == pytest.approx(sum(nats) / len(nats), abs=1e-5)


def test_what_training_returns_is_what_the_saved_weights_say(fresh_roles: FreshRoles) -> None:
    roles, pairs, heldout = fresh_roles(), tasteful_pairs(12), tasteful_pairs(5, seed=3)
    trained, _ = fit(roles, pairs, replace_settings(epochs=1), heldout)
    for kept, scores in ((pairs, trained.train), (heldout, trained.heldout)):
        for side, found in (("chosen", scores.chosen), ("rejected", scores.rejected)):
            again = raw_scores(roles, [getattr(pair, side) for pair in kept])
            assert torch.allclose(found, again, atol=1e-5)
    everything = torch.cat([trained.train.chosen, trained.train.rejected])
    assert trained.mean == pytest.approx(everything.mean().item(), abs=1e-6)
    assert trained.deviation == pytest.approx(everything.var(unbiased=False).sqrt().item(), abs=1e-6)


def test_ties_left_out_of_training_are_no_zeros_in_the_mean(fresh_roles: FreshRoles) -> None:
    """PPO subtracts this mean: it must be that of real scores."""
    roles, pairs = fresh_roles(), tasteful_pairs(12)
    pairs = [replace(pair, tie=index >= 6) for index, pair in enumerate(pairs)]
    with torch.no_grad():
        roles.head("reward").bias.add_(5.0)
    trained, _ = fit(roles, pairs, replace_settings(epochs=1, ties="drop"))
    for side, found in (("chosen", trained.train.chosen), ("rejected", trained.train.rejected)):
        real = raw_scores(roles, [getattr(pair, side) for pair in pairs])
        assert torch.allclose(found, real, atol=1e-5)
    both = torch.cat([trained.train.chosen, trained.train.rejected])
    assert trained.mean == pytest.approx(both.mean().item(), abs=1e-5)
    assert both.min() > 1


def test_dropped_ties_do_not_train(fresh_roles: FreshRoles) -> None:
    """The same order of the decided pairs, with and without ties beside them: the same weights."""
    pairs, prints = tasteful_pairs(6), []
    ties = [replace(pair, tie=True) for pair in tasteful_pairs(4, seed=5)]
    for train in (pairs, [*pairs, *ties]):
        roles = fresh_roles()
        fit(roles, train, replace_settings(epochs=1, ties="drop", batch_pairs=6))
        prints.append(weights(roles))
    assert torch.allclose(*prints, atol=1e-6)
    roles = fresh_roles()
    fit(roles, [*pairs, *ties], replace_settings(epochs=1, ties="half", batch_pairs=16))
    assert not torch.allclose(prints[0], weights(roles), atol=1e-4)


def test_a_tie_pulls_the_scores_together(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    pairs = [replace(pair, tie=True) for pair in tasteful_pairs(8)]
    sides = [[pair.chosen for pair in pairs], [pair.rejected for pair in pairs]]
    before = torch.sub(*(raw_scores(roles, side) for side in sides))
    trained, _ = fit(roles, pairs, replace_settings(epochs=20, centre=0.0))
    assert before.abs().mean() > 0.3
    assert trained.train.gaps.abs().mean() < 0.5 * before.abs().mean()


def test_much_better_asks_for_a_wider_gap(fresh_roles: FreshRoles) -> None:
    gaps = []
    for strength in (1, 2):
        roles = fresh_roles()
        pairs = [replace(pair, strength=strength) for pair in tasteful_pairs(16)]
        trained, _ = fit(roles, pairs, replace_settings(epochs=10, margin=3.0))
        gaps.append(trained.train.gaps.mean().item())
    assert gaps[1] > gaps[0] + 0.2


def test_a_heavy_pair_wins_against_light_ones(fresh_roles: FreshRoles) -> None:
    (pair,) = tasteful_pairs(1)
    against = replace(pair, chosen=pair.rejected, rejected=pair.chosen)
    gaps = []
    for weight in (10.0, 0.1):
        trained, _ = fit(fresh_roles(), [replace(pair, weight=weight), against], replace_settings(epochs=10))
        gaps.append(trained.train.gaps[0].item())
    assert gaps[0] > 0 > gaps[1]


# -- where the head starts ------------------------------------------------------------------------


def test_the_fit_before_training_orders_most_pairs_and_centres_the_scores(fresh_roles: FreshRoles) -> None:
    roles, pairs = fresh_roles(), tasteful_pairs(24)
    roles.renew("reward", 4)  # as it is made: it does nothing yet
    with torch.no_grad():
        roles.head("reward").weight.fill_(3.0)
    before = weights(roles)
    still = replace_settings(
        epochs=1,
        patience=1,
        learning_rate=1e-9,
        head_learning_rate=1e-9,
        weight_decay=0.0,
        batch_pairs=24,
        head_start="ridge",
    )
    trained, events = fit(roles, pairs, still, tasteful_pairs(4, seed=2))
    assert (trained.train.gaps > 0).float().mean() > 0.8
    assert trained.mean == pytest.approx(0.0, abs=1e-4)
    assert torch.allclose(before[:-33], weights(roles)[:-33], atol=1e-6)  # the adapter itself has not been fitted
    first = next(event for event in events if isinstance(event, Metric))
    assert first.step == 0
    assert set(first.values) == {"heldout_loss", "heldout_accuracy"}


def test_held_out_pairs_and_dropped_ties_are_no_part_of_the_fit(fresh_roles: FreshRoles) -> None:
    settings = replace_settings(epochs=1, head_start="ridge", ties="drop", batch_pairs=8)
    pairs, ties = tasteful_pairs(8), [replace(pair, tie=True) for pair in tasteful_pairs(4, seed=5)]
    found = []
    for train, heldout in ((pairs, []), (pairs, tasteful_pairs(9, seed=6)), ([*pairs, *ties], [])):
        roles = fresh_roles()
        fit(roles, train, settings, heldout)
        found.append(roles.head("reward").weight.clone())
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], found[2], atol=1e-5)


@pytest.mark.parametrize("start", ["zero", "ridge"])
def test_features_that_are_not_numbers_are_an_error_a_person_can_read(start: str, fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    with torch.no_grad():
        roles.parameters("reward")[0].fill_(math.nan)
    with pytest.raises(UserError):
        fit(roles, tasteful_pairs(4), replace_settings(head_start=start))


# -- what must not matter -------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "start"), [(0, "zero"), (2, "zero"), (2, "ridge")])
def test_the_size_of_a_micro_batch_changes_nothing(layers: int, start: Any, fresh_roles: FreshRoles) -> None:
    pairs = tasteful_pairs(12, longest=20)
    found = []
    for most in (64, 200, 100_000):
        roles = fresh_roles(layers=layers)
        before = weights(roles)
        settings = RewardSettings(epochs=1, batch_pairs=12, micro_batch_tokens=most, head_start=start)
        _, events = fit(roles, pairs, settings)
        assert len(metrics(events, "loss")) == 1
        if start == "ridge":  # its bias has no gradient, and Adam makes a whole step of rounding errors
            roles.head("reward").bias.data.zero_()
        found.append((weights(roles), metrics(events, "loss")[0], metrics(events, "grad_norm")[0]))
    assert (found[0][0] - before).abs().max() > 5e-5
    for after, loss, norm in found[1:]:
        assert torch.allclose(found[0][0], after, atol=1e-6, rtol=0)
        assert (loss, norm) == pytest.approx((found[0][1], found[0][2]), rel=1e-4)


def test_held_out_pairs_and_measuring_them_never_move_a_weight(fresh_roles: FreshRoles) -> None:
    prints = []
    for heldout in ((), tasteful_pairs(20, seed=4)):
        roles = fresh_roles()
        fit(roles, tasteful_pairs(20), replace_settings(epochs=2), heldout)
        prints.append(roles.fingerprint("reward"))
    assert prints[0] == prints[1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(fresh_roles: FreshRoles) -> None:
    prints = []
    for seed in (1, 1, 2):
        roles = fresh_roles()
        fit(roles, tasteful_pairs(20), replace_settings(epochs=1, batch_pairs=4), seed=seed)
        prints.append(roles.fingerprint("reward"))
    assert prints[0] == prints[1] != prints[2]


def test_no_other_role_moves(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    before = {role: roles.fingerprint(role) for role in ("policy", "value")}
    frozen = [p.clone() for n, p in roles.base.model.named_parameters() if "lora_" not in n]
    fit(roles, tasteful_pairs(8), replace_settings(epochs=1))
    assert before == {role: roles.fingerprint(role) for role in ("policy", "value")}
    now = [p for n, p in roles.base.model.named_parameters() if "lora_" not in n]
    assert all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))


def test_only_the_last_token_is_read_and_padding_gets_no_gradient(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles(layers=2)
    batch = pad([Tokens((5, 6), (7,)), Tokens((5, 6, 8), (9, 10, 11))], torch.device("cpu"))
    lower = roles.decoder.lower(batch.ids).requires_grad_(True)
    with roles.learning("reward"):
        roles.head("reward")(pooled(roles, lower, batch)).sum().backward()
    assert lower.grad is not None
    inside = torch.arange(batch.ids.shape[1]) <= batch.last[:, None]
    size = lower.grad.abs().sum(-1)
    assert (size[inside] > 0).all()
    assert (size[~inside] == 0).all()
    assert (~inside).sum() == 3


# -- measuring and failing ------------------------------------------------------------------------


def test_draws_count_half_and_cost_log_2(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    with torch.no_grad():
        roles.head("reward").weight.zero_()
        roles.head("reward").bias.zero_()
    _, events = fit(roles, tasteful_pairs(8), replace_settings(epochs=1, batch_pairs=8), tasteful_pairs(4, seed=2))
    first = next(event for event in events if isinstance(event, Metric))
    assert first.values["accuracy"] == 0.5
    assert first.values["margin"] == 0.0
    assert first.values["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_held_out_ties_are_no_part_of_the_accuracy(fresh_roles: FreshRoles) -> None:
    heldout = tasteful_pairs(6, seed=2)
    mixed = [*heldout, *(replace(pair, tie=True) for pair in tasteful_pairs(6, seed=3))]
    found = [
        metrics(fit(fresh_roles(), tasteful_pairs(8), replace_settings(epochs=1), kept)[1], "heldout_accuracy")
        for kept in (heldout, mixed, mixed[6:])
    ]
    assert found[0] == found[1]
    assert found[2] == []  # nothing was decided: no number is better than a made-up one


def test_every_step_is_reported_with_finite_numbers(fresh_roles: FreshRoles) -> None:
    _, events = fit(fresh_roles(), tasteful_pairs(10), replace_settings(epochs=3, batch_pairs=4))
    steps = [event for event in events if isinstance(event, Metric) and "loss" in event.values]
    assert [event.step for event in steps] == list(range(1, 10))
    for event in steps:
        assert set(event.values) == {"loss", "accuracy", "margin", "grad_norm", "lr"}
        assert all(math.isfinite(value) for value in event.values.values())
    progress = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert progress == [(done, 9) for done in range(10)]
    assert sum(isinstance(event, Memory) for event in events) == 1
    assert [round(rate / FAST.learning_rate, 3) for rate in metrics(events, "lr")][:2] == [0.5, 1.0]


def test_a_score_that_is_not_a_number_stops_before_any_weight_is_touched(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    with torch.no_grad():
        roles.head("reward").weight[0] = math.nan
    before = roles.fingerprint("reward")
    with pytest.raises(UserError, match="not a finite number") as caught:
        fit(roles, tasteful_pairs(4))
    assert "learning_rate" in caught.value.todo
    assert roles.fingerprint("reward") == before


def test_a_rate_too_small_to_move_anything_is_an_error(fresh_roles: FreshRoles) -> None:
    settings = replace_settings(learning_rate=1e-30, head_learning_rate=1e-30, weight_decay=0.0, epochs=1)
    with pytest.raises(UserError, match="did not move"):
        fit(fresh_roles(), tasteful_pairs(4), settings)


def test_under_a_head_of_zeros_the_adapter_has_until_the_second_step(fresh_roles: FreshRoles) -> None:
    """The gradient of the first step stops at the head; without weight decay the adapter then stays as it is."""
    for rate in (3e-3, 1e-30):
        roles = fresh_roles()
        with torch.no_grad():
            for parameter in roles.head("reward").parameters():
                parameter.zero_()
        settings = replace_settings(
            learning_rate=rate, weight_decay=0.0, epochs=1, batch_pairs=4, head_start="zero", warmup=0.0
        )
        if rate == 3e-3:
            fit(roles, tasteful_pairs(12), settings)
        else:
            with pytest.raises(UserError, match="The reward adapter did not move"):
                fit(roles, tasteful_pairs(12), settings)


def test_raising_between_steps_stops(fresh_roles: FreshRoles) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def boundary() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Enough

    events: list[Event] = []
    with pytest.raises(Enough):
        train_reward(
            fresh_roles(),
            tasteful_pairs(20),
            [],
            replace_settings(batch_pairs=4),
            seed=1,
            emit=events.append,
            boundary=boundary,
        )
    assert len(metrics(events, "loss")) == 2
