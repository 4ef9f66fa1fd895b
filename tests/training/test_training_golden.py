"""Published numbers, and the formulas of TRL 1.12 written down again: where they agree with ours, and where they can't.

The right-hand sides here were written from the papers and from reading TRL's PPO trainer (1.12, the last one that has
it); only the last tests import it, where it is installed. Published traces that need a certain model's weights (GPT-2's
first updates, the two losses in the tests of TRL 0.11) can't be had as numbers alone; of those the property that was
tested stands here.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_tui.training import objectives

FILL = 1.0  # what TRL puts in the place of a padded log-probability, in the old and the new ones


def randoms(seed: int, rows: int = 6, width: int = 9) -> tuple[dict[str, Tensor], Tensor]:
    """Random quantities of a padded batch, and its mask: row after row shorter, the first one full."""
    generator = torch.Generator().manual_seed(seed)
    names = ("old", "new", "reference", "values", "newer", "advantages", "returns", "rewards")
    made = {name: torch.randn(rows, width, generator=generator, dtype=torch.float64) for name in names}
    made["new"] = made["old"] + 0.3 * made["new"]
    made["scores"] = torch.randn(rows, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([max(1, width - row) for row in range(rows)])
    return made, torch.arange(width)[None] < lengths[:, None]


def trl_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def trl_whiten(values: Tensor, mask: Tensor, *, keep_mean: bool) -> Tensor:
    centre = trl_mean(values, mask)
    count = mask.sum()
    spread = trl_mean((values - centre) ** 2, mask) * count / (count - 1)  # Bessel's correction
    white = (values - centre) * torch.rsqrt(spread + 1e-8)
    return white + centre if keep_mean else white


def trl_advantages(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """Over the whole width; the caller has zeroed what is padding."""
    following, out = torch.zeros_like(rewards[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        ahead = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(values[:, 0])
        following = rewards[:, t] + gamma * ahead - values[:, t] + gamma * lam * following
        out.append(following)
    return torch.stack(out[::-1], dim=1)


def trl_policy_loss(new: Tensor, old: Tensor, gains: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Of one micro-batch, and its clip fraction."""
    ratio = (new - old).exp()
    free, held = -gains * ratio, -gains * ratio.clamp(1 - clip, 1 + clip)
    return trl_mean(torch.max(free, held), mask), trl_mean((held > free).double(), mask)


def ours(losses: Tensor, mask: Tensor, tokens: int) -> Tensor:
    return torch.where(mask, losses, 0.0).sum() / tokens


# -- published numbers ----------------------------------------------------------------------------


def test_published_per_token_kl() -> None:
    """'usually, he would' under GPT-2 before and after a step (Hugging Face, N implementation details, 2023)."""
    before = torch.tensor([-3.3213, -4.9980, -3.8690])
    after = torch.tensor([-3.6528, -5.0406, -3.2339])
    assert objectives.kl_k1(before, before).tolist() == [0.0, 0.0, 0.0]
    assert objectives.kl_k1(after, before).tolist() == pytest.approx([-0.3315, -0.0426, 0.6351], abs=5e-5)


def test_advantages_of_the_loop_are_those_of_the_scan() -> None:
    """(20, 40) uniform numbers, γ 1, λ 0.95, as lm-human-preference-details has it; here the scan is a matrix."""
    generator = torch.Generator().manual_seed(42)
    rewards, values = torch.rand(2, 20, 40, generator=generator, dtype=torch.float64)
    found, returns = objectives.advantages_and_returns(rewards, values, torch.ones(20, 40), gamma=1.0, gae_lambda=0.95)
    surprises = rewards - values + torch.nn.functional.pad(values[:, 1:], (0, 1))
    ahead = torch.arange(40)[:, None] - torch.arange(40)[None]  # source step minus target step
    weights = torch.where(ahead >= 0, 0.95 ** ahead.clamp(min=0).double(), 0.0)
    torch.testing.assert_close(found, surprises @ weights)
    torch.testing.assert_close(returns, found + values)


def test_advantages_take_no_notice_of_values_under_the_mask() -> None:
    """As in verl's tests: garbage behind the last token changes nothing."""
    made, mask = randoms(3)
    spoilt = torch.where(mask, made["values"], 1e6)
    clean = objectives.advantages_and_returns(made["rewards"], made["values"], mask, gamma=0.9, gae_lambda=0.8)
    dirty = objectives.advantages_and_returns(made["rewards"], spoilt, mask, gamma=0.9, gae_lambda=0.8)
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)


def test_losses_are_the_same_once_the_masked_places_are_cut_off() -> None:
    """The property of TRL 0.11's test of its losses (its numbers, 1.8226 and .1260, are those of one GPT-2)."""
    made, mask = randoms(4)
    tokens = int(mask.sum())
    whole = ours(objectives.policy_loss(made["new"], made["old"], made["advantages"], clip=0.2), mask, tokens)
    value = ours(objectives.value_loss(made["newer"], made["values"], made["returns"], clip=0.2), mask, tokens)
    flat = {name: column[mask] for name, column in made.items() if column.dim() == 2}
    everywhere = torch.ones(tokens, dtype=torch.bool)
    bare = objectives.policy_loss(flat["new"], flat["old"], flat["advantages"], clip=0.2)
    torch.testing.assert_close(ours(bare, everywhere, tokens), whole)
    bare = objectives.value_loss(flat["newer"], flat["values"], flat["returns"], clip=0.2)
    torch.testing.assert_close(ours(bare, everywhere, tokens), value)


def test_uneven_micro_batches_add_up_to_the_mean_over_tokens() -> None:
    """OpenRLHF's test of its aggregation: however a minibatch is cut, the sum of the parts is the token mean."""
    made, mask = randoms(5)
    losses, tokens = objectives.policy_loss(made["new"], made["old"], made["advantages"], clip=0.2), int(mask.sum())
    whole = losses[mask].mean()
    for cut in (1, 2, 4, 5):
        parts = [ours(losses[:cut], mask[:cut], tokens), ours(losses[cut:], mask[cut:], tokens)]
        torch.testing.assert_close(sum(parts), whole)


# -- where TRL 1.12 is right ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_policy_loss_and_clip_fraction_of_one_micro_batch(seed: int) -> None:
    made, mask = randoms(seed)
    old, gains, tokens = made["old"], made["advantages"], int(mask.sum())
    gradients = []
    for who in ("ours", "theirs"):
        new = made["new"].clone().requires_grad_()
        if who == "ours":
            loss = ours(objectives.policy_loss(new, old, gains, clip=0.2), mask, tokens)
            share = ours(objectives.clipped(new.detach(), old, gains, clip=0.2), mask, tokens)
        else:
            theirs, fraction = trl_policy_loss(
                new.masked_fill(~mask, FILL), old.masked_fill(~mask, FILL), gains, mask, 0.2
            )
            torch.testing.assert_close(loss, theirs)
            torch.testing.assert_close(share.double(), fraction)
            loss = theirs
        torch.autograd.backward(loss)
        gradients.append(new.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(share) > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_value_loss_of_one_micro_batch(seed: int) -> None:
    made, mask = randoms(seed)
    old, wanted, tokens = made["values"], made["returns"], int(mask.sum())
    gradients = []
    for who in ("ours", "theirs"):
        new = made["newer"].clone().requires_grad_()
        if who == "ours":
            loss = ours(objectives.value_loss(new, old, wanted, clip=0.2), mask, tokens)
        else:
            held = torch.clamp(new, old - 0.2, old + 0.2)
            theirs = 0.5 * trl_mean(torch.max((new - wanted) ** 2, (held - wanted) ** 2), mask)
            torch.testing.assert_close(loss, theirs)
            loss = theirs
        torch.autograd.backward(loss)
        gradients.append(new.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("seed", range(5))
def test_rewards_advantages_and_returns_of_completions_that_fill_the_width(seed: int) -> None:
    """Without padding TRL puts the score on the last token, as we do; k1, k3 and GAE are the same."""
    made, _ = randoms(seed)
    mask = torch.ones_like(made["old"], dtype=torch.bool)
    log_ratio = made["reference"] - made["old"]
    torch.testing.assert_close(objectives.kl_k1(made["old"], made["reference"]), -log_ratio)
    torch.testing.assert_close(objectives.kl_k3(made["old"], made["reference"]), log_ratio.exp() - 1 - log_ratio)
    rewards = 0.05 * log_ratio
    rewards[:, -1] += made["scores"]
    found = objectives.token_rewards(-log_ratio, made["scores"], mask, kl_coefficient=0.05)
    torch.testing.assert_close(found, rewards)
    theirs = trl_advantages(rewards, made["values"], 0.98, 0.95)
    advantages, returns = objectives.advantages_and_returns(found, made["values"], mask, gamma=0.98, gae_lambda=0.95)
    torch.testing.assert_close(advantages, theirs)
    torch.testing.assert_close(returns, theirs + made["values"])


def test_whitening_differs_by_bessels_correction_alone() -> None:
    """TRL divides by n - 1, the code of 2019 by n (C5 of our notes); both keep or take away the mean alike."""
    made, mask = randoms(6)
    count = int(mask.sum())
    for ours_, keep in ((objectives.whiten, False), (objectives.scale_to_unit_deviation, True)):
        found, theirs = ours_(made["rewards"], mask), trl_whiten(made["rewards"], mask, keep_mean=keep)
        centre = trl_mean(made["rewards"], mask) if keep else 0.0
        scaled = (theirs - centre) * math.sqrt(count / (count - 1)) + centre
        torch.testing.assert_close(found, torch.where(mask, scaled, 0.0), atol=1e-7, rtol=1e-6)


# -- where it is not ------------------------------------------------------------------------------


def test_a_mean_of_micro_batch_means_is_not_the_mean_over_tokens() -> None:
    """TRL averages masked means of micro-batches: a short completion's tokens count more (D2). Ours never do."""
    made, mask = randoms(7, rows=2, width=8)
    mask[1, 1:] = False  # eight tokens beside one
    per_token = objectives.policy_loss(made["new"], made["old"], made["advantages"], clip=0.2)
    columns = [made[name] for name in ("new", "old", "advantages")]
    rows = [trl_policy_loss(*(c[row : row + 1] for c in columns), mask[row : row + 1], 0.2)[0] for row in (0, 1)]
    theirs = torch.stack(rows).mean()
    weights = [1 / 16] * 8 + [1 / 2]  # of the nine tokens in their mean; 1/9 each would be right
    torch.testing.assert_close(theirs, (per_token[mask] * torch.tensor(weights, dtype=torch.float64)).sum())
    token_mean = sum(ours(per_token[r], mask[r], 9) for r in (0, 1))
    torch.testing.assert_close(token_mean, per_token[mask].mean())
    assert abs(float(theirs - token_mean)) > 0.05


def test_unmasked_statistics_are_diluted_by_padding() -> None:
    """TRL's approxkl and ratio are means over padding, too: the more of it, the calmer the run looks (I2)."""
    made, mask = randoms(8)
    padded_new, padded_old = made["new"].masked_fill(~mask, FILL), made["old"].masked_fill(~mask, FILL)
    diluted = 0.5 * ((padded_new - padded_old) ** 2).mean()
    found = trl_mean(objectives.approximate_kl(made["new"], made["old"]), mask)
    torch.testing.assert_close(diluted / found, mask.double().mean())
    ratio = (padded_new - padded_old).exp().mean() - 1
    true = trl_mean(objectives.policy_ratio(made["new"], made["old"]), mask) - 1
    torch.testing.assert_close(ratio / true, mask.double().mean())


def test_a_score_after_the_end_is_worth_lambda_of_it_until_a_value_there_has_learnt_it() -> None:
    """TRL puts the score of a completion that ended one place behind its last token, with a value of its own (B2).

    With λ = 1, or once that value predicts the score, its returns are ours; before, the last token gets λ of it.
    """
    score, values = 2.0, torch.tensor([[0.1, -0.2, 0.3, 0.0]], dtype=torch.float64)
    behind = torch.tensor([[0.0, 0.0, 0.0, score]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0]])
    rewards = objectives.token_rewards(
        torch.zeros(1, 4, dtype=torch.float64), torch.tensor([score]), mask, kl_coefficient=0.0
    )
    assert rewards.tolist() == [[0.0, 0.0, score, 0.0]]
    for lam, learnt, same in ((1.0, 0.0, True), (0.95, score, True), (0.95, 0.0, False)):
        values[0, 3] = learnt
        theirs = trl_advantages(behind, values, 1.0, lam)[0, :3]
        advantages, _ = objectives.advantages_and_returns(rewards, values, mask, gamma=1.0, gae_lambda=lam)
        assert torch.allclose(advantages[0, :3], theirs) == same
        if not same:
            assert float(advantages[0, 2] - theirs[2]) == pytest.approx(0.05 * score)


def test_one_token_has_no_deviation() -> None:
    """TRL's correction divides by n - 1 = 0 there, and the update is NaN; ours is centred and goes on (C5)."""
    one, mask = torch.tensor([[1.5, 9.0]]), torch.tensor([[True, False]])
    assert not torch.isfinite(trl_whiten(one, mask, keep_mean=False)[mask]).all()
    assert objectives.whiten(one, mask).tolist() == [[0.0, 0.0]]


def test_a_whitening_with_its_switch_the_wrong_way_round_keeps_the_mean() -> None:
    """torchtune adds the mean when asked to shift it away, and its advantages keep theirs (C6): hence two functions."""
    made, mask = randoms(9)
    rewards = made["rewards"] + 3.0
    inverted = trl_whiten(rewards, mask, keep_mean=True)  # what its whiten(shift_mean=True) computes
    assert abs(float(trl_mean(inverted, mask))) > 2.0
    assert float(trl_mean(objectives.whiten(rewards, mask), mask)) == pytest.approx(0.0, abs=1e-9)
    assert not (objectives.whiten(rewards, mask)[mask] > 0).all()


def test_without_a_limit_one_token_makes_the_loss_infinite() -> None:
    """TRL's ratio has no limit: 100 nats are infinity in fp32. Ours stays at e^20 and learns nothing there."""
    new, old, gain = torch.tensor([99.0]), torch.tensor([-1.0]), torch.tensor([-1.0])
    theirs, _ = trl_policy_loss(new, old, gain, torch.tensor([True]), 0.2)
    assert math.isinf(float(theirs))
    assert math.isfinite(float(objectives.policy_loss(new, old, gain, clip=0.2)))


# -- beside the package itself, where it is installed (extra 'bench') ------------------------------


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TRL's PPO module. What it imports beside may be missing as well: then it is as if it were not there."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    return pytest.importorskip("trl.experimental.ppo.ppo_trainer", exc_type=ImportError)


@pytest.mark.parametrize("seed", range(5))
def test_masked_mean_and_variance_are_those_of_the_package(trl: Any, seed: int) -> None:
    made, mask = randoms(seed)
    values = made["values"]
    torch.testing.assert_close(objectives.masked_mean(values, mask), trl.masked_mean(values, mask))
    plain = trl.masked_var(values, mask, unbiased=False)
    torch.testing.assert_close(objectives.masked_variance(values, mask), plain)


@pytest.mark.parametrize("seed", range(5))
def test_whitening_is_that_of_the_package_but_for_bessels_correction(trl: Any, seed: int) -> None:
    made, mask = randoms(seed)
    values, count = made["values"], int(mask.sum())
    theirs, kept = (trl.masked_whiten(values, mask, shift_mean=shift)[mask] for shift in (True, False))
    torch.testing.assert_close(objectives.whiten(values, mask)[mask], theirs * math.sqrt(count / (count - 1)))
    centre = trl.masked_mean(values, mask)
    found = objectives.scale_to_unit_deviation(values, mask)[mask]
    torch.testing.assert_close(found - centre, (kept - centre) * math.sqrt(count / (count - 1)))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_down_here_of_the_package_is_what_it_does(trl: Any, seed: int) -> None:
    made, mask = randoms(seed)
    values = made["values"]
    assert torch.equal(trl_mean(values, mask), trl.masked_mean(values, mask))
    for keep in (True, False):
        torch.testing.assert_close(
            trl_whiten(values, mask, keep_mean=keep), trl.masked_whiten(values, mask, shift_mean=not keep)
        )
