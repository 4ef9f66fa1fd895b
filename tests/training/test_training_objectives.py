"""Every formula against a second implementation in plain Python, against numbers others published, and by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_tui.training import objectives

numbers = st.floats(-4, 4, width=32)
garbage = st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -7.5])
quick = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Table:
    """Rows of numbers, several columns of them, and a mask; `spoilt` has garbage wherever the mask is 0."""

    columns: list[list[list[float]]]
    mask: list[list[int]]
    spoilt: list[list[list[float]]]

    def tensors(self) -> list[Tensor]:
        return [torch.tensor(column) for column in self.columns]

    def spoilt_tensors(self) -> list[Tensor]:
        return [torch.tensor(column) for column in self.spoilt]

    def counted(self, column: int) -> list[float]:
        return [
            value
            for row, marks in zip(self.columns[column], self.mask, strict=True)
            for value, mark in zip(row, marks, strict=True)
            if mark
        ]


@st.composite
def tables(draw: st.DrawFn, columns: int = 1, *, prefix: bool = False, least: int = 0) -> Table:
    """`prefix`: the counted tokens of a row come first, at least `least` of them."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    if prefix:
        lengths = [draw(st.integers(least, width)) for _ in range(rows)]
        mask = [[int(step < length) for step in range(width)] for length in lengths]
    else:
        mask = draw(st.lists(st.lists(st.integers(0, 1), min_size=width, max_size=width), min_size=rows, max_size=rows))
    grid = st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=rows, max_size=rows)
    clean = [draw(grid) for _ in range(columns)]
    spoilt = [
        [
            [value if mark else draw(garbage) for value, mark in zip(*pair, strict=True)]
            for pair in zip(c, mask, strict=True)
        ]
        for c in clean
    ]
    return Table(clean, mask, spoilt)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def variance(values: list[float]) -> float:
    centre = mean(values)
    return mean([(value - centre) ** 2 for value in values])


# -- masked means ---------------------------------------------------------------------------------


@quick
@given(tables())
def test_masked_mean_and_variance(table: Table) -> None:
    (values,), mask = table.tensors(), torch.tensor(table.mask)
    assert objectives.masked_mean(values, mask).item() == pytest.approx(mean(table.counted(0)), abs=1e-5)
    assert objectives.masked_variance(values, mask).item() == pytest.approx(variance(table.counted(0)), abs=1e-4)


@quick
@given(tables())
def test_bool_and_float_masks_are_the_same(table: Table) -> None:
    (values,), mask = table.tensors(), torch.tensor(table.mask)
    for function in (objectives.masked_mean, objectives.masked_variance, objectives.whiten):
        assert torch.equal(function(values, mask.bool()), function(values, mask.float()))


def test_the_mean_of_nothing_is_nought() -> None:
    assert objectives.masked_mean(torch.full((2, 2), math.nan), torch.zeros(2, 2)).item() == 0.0


@quick
@given(tables())
def test_whiten_against_a_second_implementation(table: Table) -> None:
    (values,), mask = table.tensors(), torch.tensor(table.mask)
    counted = table.counted(0)
    centre, scale = mean(counted), 1.0
    if len(counted) > 1:
        scale = 1 / math.sqrt(variance(counted) + 1e-8)
    whitened, scaled = objectives.whiten(values, mask), objectives.scale_to_unit_deviation(values, mask)
    for i, row in enumerate(table.columns[0]):
        for j, value in enumerate(row):
            wanted = (value - centre) * scale if table.mask[i][j] else 0.0
            # a nearly constant column has a scale of up to 10^4, and fp32's rounding with it
            close = 1e-4 + 2e-6 * scale
            assert whitened[i, j].item() == pytest.approx(wanted, rel=1e-3, abs=close)
            assert scaled[i, j].item() == pytest.approx(
                wanted + centre if table.mask[i][j] else 0.0, rel=1e-3, abs=close
            )


def test_whitening_is_that_of_the_2019_code() -> None:
    # nine rewards 1.2 … 2.0; TensorFlow's moments give the biased variance 0.0667, torch.var 0.0750 (blog, N details)
    values = torch.arange(12, 21).reshape(3, 3) / 10
    everywhere = torch.ones(3, 3)
    assert objectives.masked_variance(values, everywhere).item() == pytest.approx(0.0667, abs=5e-5)
    assert torch.var(values).item() == pytest.approx(0.0750, abs=5e-5)
    kept = objectives.scale_to_unit_deviation(values, everywhere)
    assert kept[0, 0].item() == pytest.approx(0.05080712, abs=1e-5)
    assert kept[0, 1].item() == pytest.approx(0.4381, abs=1e-4)
    assert kept[2, 2].item() == pytest.approx(2 * 1.6 - 0.05080712, abs=1e-5)


def test_one_whitening_takes_the_mean_away_and_the_other_keeps_it() -> None:
    values = torch.tensor([[5.0, 6.0, 7.0, 100.0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    for function, centre in ((objectives.whiten, 0.0), (objectives.scale_to_unit_deviation, 6.0)):
        result = function(values, mask)
        assert objectives.masked_mean(result, mask).item() == pytest.approx(centre, abs=1e-6)
        assert objectives.masked_variance(result, mask).item() == pytest.approx(1.0, abs=1e-5)
        assert result[0, 3] == 0


def test_a_single_number_is_only_centred() -> None:
    values, mask = torch.tensor([[3.0, 9.0]]), torch.tensor([[1, 0]])
    assert objectives.whiten(values, mask).tolist() == [[0.0, 0.0]]
    assert objectives.scale_to_unit_deviation(values, mask).tolist() == [[3.0, 0.0]]


# -- masked positions never matter ----------------------------------------------------------------


@quick
@given(tables(2))
def test_garbage_under_the_mask_changes_no_mean(table: Table) -> None:
    mask = torch.tensor(table.mask)
    (values, returns), (bad, worse) = table.tensors(), table.spoilt_tensors()
    for function in (
        objectives.masked_mean,
        objectives.masked_variance,
        objectives.whiten,
        objectives.scale_to_unit_deviation,
    ):
        assert torch.equal(function(bad, mask), function(values, mask))
    explained = objectives.explained_variance(values, returns, mask)
    assert torch.equal(objectives.explained_variance(bad, worse, mask), explained)


@quick
@given(tables(2, prefix=True, least=1))
def test_garbage_under_the_mask_changes_no_reward_and_no_advantage(table: Table) -> None:
    mask = torch.tensor(table.mask)
    (rewards, values), (bad, worse) = table.tensors(), table.spoilt_tensors()
    scores = torch.linspace(-1, 1, len(mask))
    assert torch.equal(
        objectives.token_rewards(bad, scores, mask, kl_coefficient=0.1),
        objectives.token_rewards(rewards, scores, mask, kl_coefficient=0.1),
    )
    clean = objectives.advantages_and_returns(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    dirty = objectives.advantages_and_returns(bad, worse, mask, gamma=0.9, gae_lambda=0.8)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


# -- the reward model -----------------------------------------------------------------------------


def loss_of(
    chosen: float,
    rejected: float,
    *,
    tie: bool = False,
    margin: float = 0.0,
    smoothing: float = 0.0,
    centre: float = 0.0,
) -> float:
    return objectives.bradley_terry(
        torch.tensor([chosen]),
        torch.tensor([rejected]),
        ties=torch.tensor([float(tie)]),
        margins=torch.tensor([margin]),
        label_smoothing=smoothing,
        centre=centre,
    ).item()


@quick
@given(numbers, numbers, st.booleans(), st.floats(0, 2), st.floats(0, 0.49), st.floats(0, 1))
def test_bradley_terry_against_a_second_implementation(
    chosen: float, rejected: float, tie: bool, margin: float, smoothing: float, centre: float
) -> None:
    def nats(gap: float) -> float:
        return math.log1p(math.exp(-gap))

    if tie:
        wanted = 0.5 * nats(chosen - rejected) + 0.5 * nats(rejected - chosen)
    else:
        gap = chosen - rejected - margin
        wanted = (1 - smoothing) * nats(gap) + smoothing * nats(-gap)
    wanted += centre * (chosen + rejected) ** 2
    found = loss_of(chosen, rejected, tie=tie, margin=margin, smoothing=smoothing, centre=centre)
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_a_coin_costs_log_2() -> None:
    assert loss_of(1.5, 1.5) == pytest.approx(math.log(2), abs=1e-6)
    assert loss_of(1.5, 1.5, tie=True) == pytest.approx(math.log(2), abs=1e-6)


def test_a_tie_is_cheapest_at_equal_scores_and_knows_no_order_and_no_margin() -> None:
    costs = [loss_of(gap, 0.0, tie=True, margin=1.0) for gap in (-2.0, -0.5, 0.0, 0.5, 2.0)]
    assert min(costs) == costs[2]
    assert costs[0] == pytest.approx(costs[4])
    assert costs[1] == pytest.approx(costs[3])


def test_smoothing_puts_the_cheapest_gap_at_the_logit_of_its_target() -> None:
    gap = torch.tensor([math.log(0.9 / 0.1)], requires_grad=True)
    zero = torch.zeros(1)
    objectives.bradley_terry(gap, zero, ties=zero, margins=zero, label_smoothing=0.1, centre=0.0).backward()
    assert gap.grad is not None
    assert gap.grad.item() == pytest.approx(0.0, abs=1e-6)
    assert loss_of(9.0, 0.0, smoothing=0.1) > loss_of(math.log(9), 0.0, smoothing=0.1)


def test_a_margin_moves_the_gap_and_centring_pulls_the_sum_to_nought() -> None:
    assert loss_of(2.0, 0.0, margin=1.5) == pytest.approx(loss_of(0.5, 0.0), abs=1e-6)
    assert loss_of(3.0, 2.0, centre=0.01) == pytest.approx(loss_of(0.5, -0.5) + 0.25, abs=1e-5)


def test_hopeless_pairs_cost_a_finite_amount() -> None:
    assert loss_of(-500.0, 500.0) == pytest.approx(1000.0)
    assert loss_of(500.0, -500.0) == 0.0


# -- KL -------------------------------------------------------------------------------------------


@quick
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=6))
def test_both_estimators_have_the_kl_as_their_mean(logits: list[tuple[float, float]]) -> None:
    policy, reference = torch.tensor(logits, dtype=torch.float64).log_softmax(0).unbind(1)
    exact = sum(math.exp(p) * (p - q) for p, q in zip(policy.tolist(), reference.tolist(), strict=True))
    for estimate in (objectives.kl_k1, objectives.kl_k3):
        assert (policy.exp() * estimate(policy, reference)).sum().item() == pytest.approx(exact, abs=1e-9)


@quick
@given(numbers, numbers)
def test_k3_is_never_negative(new: float, old: float) -> None:
    estimate = objectives.kl_k3(torch.tensor(new), torch.tensor(old)).item()
    assert estimate >= 0
    assert estimate == pytest.approx(math.exp(old - new) - 1 - (old - new), rel=1e-4, abs=1e-5)


def test_estimators_are_nought_at_equality_and_signed_from_the_policys_side() -> None:
    same = torch.tensor([-1.25, -30.0])
    assert objectives.kl_k1(same, same).tolist() == [0.0, 0.0]
    assert objectives.kl_k3(same, same).tolist() == [0.0, 0.0]
    assert objectives.kl_k1(torch.tensor(-1.0), torch.tensor(-3.0)).item() == 2.0
    assert objectives.approximate_kl(torch.tensor(-1.0), torch.tensor(-3.0)).item() == 2.0


def test_far_apart_log_probabilities_stay_finite() -> None:
    far, near = torch.tensor(-500.0), torch.tensor(-1.0)
    assert math.isfinite(objectives.kl_k3(far, near).item())
    assert objectives.policy_ratio(near, far).item() == pytest.approx(math.exp(20))
    assert objectives.policy_ratio(far, near).item() == pytest.approx(math.exp(-20))


# -- rewards and advantages -----------------------------------------------------------------------


def test_the_score_comes_at_the_last_token_that_counts() -> None:
    kl = torch.tensor([[1.0, 2.0, 4.0], [1.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    rewards = objectives.token_rewards(kl, torch.tensor([10.0, 20.0]), mask, kl_coefficient=0.5)
    assert rewards.tolist() == [[-0.5, -1.0, 8.0], [19.5, 0.0, 0.0]]


def test_published_returns_of_torchtune() -> None:
    values, rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    _, returns = objectives.advantages_and_returns(rewards, values, torch.ones(1, 4), gamma=0.9, gae_lambda=0.95)
    assert returns[0].tolist() == pytest.approx([0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1.0])


@quick
@given(tables(2, prefix=True), st.floats(0.5, 1), st.floats(0, 1))
def test_advantages_are_the_discounted_sum_of_surprises(table: Table, gamma: float, lam: float) -> None:
    """The definition, eq. 16 of Schulman et al. (2016): A_t = Σ (γλ)^l δ_{t+l}, not the recursion."""
    (rewards, values), mask = table.tensors(), torch.tensor(table.mask)
    advantages, returns = objectives.advantages_and_returns(rewards, values, mask, gamma=gamma, gae_lambda=lam)
    for row, marks in enumerate(table.mask):
        length = sum(marks)
        r, v = table.columns[0][row][:length], [*table.columns[1][row][:length], 0.0]
        surprise = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        wanted = [math.fsum((gamma * lam) ** (u - t) * surprise[u] for u in range(t, length)) for t in range(length)]
        padding = [0.0] * (len(marks) - length)
        assert advantages[row].tolist() == pytest.approx(wanted + padding, abs=1e-4)
        assert returns[row].tolist() == pytest.approx(
            [a + b for a, b in zip(wanted, v, strict=False)] + padding, abs=1e-4
        )


def test_with_lambda_1_the_return_is_what_follows_whatever_the_values_say() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[7.0, -7.0, 0.5]])
    _, returns = objectives.advantages_and_returns(rewards, values, torch.ones(1, 3), gamma=1.0, gae_lambda=1.0)
    assert returns[0].tolist() == pytest.approx([6.0, 5.0, 3.0])


# -- PPO ------------------------------------------------------------------------------------------


def test_at_ratio_1_the_gradient_is_reinforces_published_numbers() -> None:
    # four equally likely actions, the second one taken: A·(1 - ¼) and -A·¼ (Hugging Face's RLOO post)
    logits = torch.zeros(4, requires_grad=True)
    logprob = logits.log_softmax(0)[1]
    objectives.policy_loss(logprob, logprob.detach(), torch.tensor(0.6995), clip=0.2).backward()
    assert logits.grad is not None
    assert (-logits.grad).tolist() == pytest.approx([-0.1749, 0.5246, -0.1749, -0.1749], abs=1e-4)


@quick
@given(st.lists(numbers, min_size=2, max_size=5), numbers)
def test_at_ratio_1_the_gradient_is_reinforces(start: list[float], advantage: float) -> None:
    gradients = []
    for loss in ("ppo", "reinforce"):
        logits = torch.tensor(start, requires_grad=True)
        logprob = logits.log_softmax(0)[-1]
        gain = torch.tensor(advantage)
        if loss == "ppo":
            objectives.policy_loss(logprob, logprob.detach(), gain, clip=0.2).backward()
        else:
            (-gain * logprob).backward()
        gradients.append(logits.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "learns"),
    [
        (1.1, 2.0, -2.2, True),  # inside the clip
        (1.5, 2.0, -2.4, False),  # good and already 20 % likelier: enough
        (0.5, 2.0, -1.0, True),  # good and less likely than before: push
        (0.5, -2.0, 1.6, False),  # bad and already 20 % less likely: enough
        (1.5, -2.0, 3.0, True),  # bad and likelier than before: push
        (0.9, -2.0, 1.8, True),
    ],
)
def test_policy_clip_by_hand(ratio: float, advantage: float, loss: float, learns: bool) -> None:
    new = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)
    old, gain = torch.tensor([-1.0]), torch.tensor([advantage])
    found = objectives.policy_loss(new, old, gain, clip=0.2)
    found.backward()
    assert new.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert (new.grad.item() != 0) == learns
    assert objectives.clipped(new.detach(), old, gain, clip=0.2).item() == float(not learns)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "learns"),
    [
        (1.25, 2.0, -2.5, True),  # between the two limits: still pushed
        (1.5, 2.0, -2.56, False),  # beyond the upper one
        (0.5, -2.0, 1.6, False),  # the lower one is where it was
        (2.5, -2.0, 5.0, True),
        (7.0, -2.0, 6.0, False),  # bad and seven times likelier: it costs no more than three times
        (7.0, 2.0, -2.56, False),  # the dual limit is for negative advantages only
    ],
)
def test_clip_higher_and_dual_clip_by_hand(ratio: float, advantage: float, loss: float, learns: bool) -> None:
    new = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)
    old, gain = torch.tensor([-1.0]), torch.tensor([advantage])
    found = objectives.policy_loss(new, old, gain, clip=0.2, clip_above=0.28, dual_clip=3.0)
    torch.autograd.backward(found.sum())
    assert new.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert (new.grad.item() != 0) == learns
    cut = objectives.clipped(new.detach(), old, gain, clip=0.2, clip_above=0.28, dual_clip=3.0)
    assert cut.item() == float(not learns)


@quick
@given(numbers, numbers, numbers, st.floats(0.05, 0.5), st.floats(0.05, 0.9), st.floats(1.5, 5))
def test_the_limits_against_a_second_implementation(
    new: float, old: float, gain: float, below: float, above: float, dual: float
) -> None:
    ratio = math.exp(new - old)
    loss = max(-gain * ratio, -gain * min(max(ratio, 1 - below), 1 + above))
    if gain < 0:
        loss = min(loss, -gain * dual)
    found = objectives.policy_loss(
        torch.tensor(new), torch.tensor(old), torch.tensor(gain), clip=below, clip_above=above, dual_clip=dual
    )
    assert found.item() == pytest.approx(loss, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("gap", "advantage", "loss", "gradient"),
    [
        (19.0, -1.0, math.exp(19), math.exp(19)),  # inside the limit: the formula as it is
        (25.0, -1.0, math.exp(20), 0.0),  # beyond it the value is held and nothing is learnt
        (500.0, -1.0, math.exp(20), 0.0),
        (25.0, 1.0, -1.2, 0.0),  # the policy's own clip comes first
        (-19.0, 1.0, -math.exp(-19), -math.exp(-19)),
        (-25.0, 1.0, -math.exp(-20), 0.0),
        (-math.inf, 1.0, -math.exp(-20), 0.0),  # a token that has become impossible
    ],
)
def test_the_limit_of_the_log_ratio_in_value_and_gradient(
    gap: float, advantage: float, loss: float, gradient: float
) -> None:
    new = torch.tensor([gap - 1.0], requires_grad=True)
    found = objectives.policy_loss(new, torch.tensor([-1.0]), torch.tensor([advantage]), clip=0.2)
    torch.autograd.backward(found.sum())
    assert new.grad is not None
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert new.grad.item() == pytest.approx(gradient, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "learns"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.81, True),  # moved less than the clip
        (1.5, 1.0, 2.0, 0.5 * 0.64, False),  # moved too far towards the target: the clipped error counts
        (0.5, 1.0, 2.0, 0.5 * 2.25, True),  # moved away: the true error is the larger one
        (3.0, 1.0, 1.1, 0.5 * 1.9**2, True),  # overshot
        (0.5, 1.0, 0.0, 0.5 * 0.64, False),
    ],
)
def test_value_clip_by_hand(value: float, old: float, target: float, loss: float, learns: bool) -> None:
    current = torch.tensor([value], requires_grad=True)
    found = objectives.value_loss(current, torch.tensor([old]), torch.tensor([target]), clip=0.2)
    found.backward()
    assert current.grad is not None
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert (current.grad.item() != 0) == learns


@quick
@given(tables(2))
def test_explained_variance_against_a_second_implementation(table: Table) -> None:
    (values, returns), mask = table.tensors(), torch.tensor(table.mask)
    spread = variance(table.counted(1))
    found = objectives.explained_variance(values, returns, mask).item()
    if spread < 1e-2:  # the quotient amplifies rounding
        return
    errors = [r - v for v, r in zip(table.counted(0), table.counted(1), strict=True)]
    assert found == pytest.approx(1 - variance(errors) / spread, rel=1e-3, abs=1e-3)


def test_explained_variance_of_perfect_and_constant_values() -> None:
    returns, mask = torch.tensor([1.0, 2.0, 4.0]), torch.ones(3)
    assert objectives.explained_variance(returns, returns, mask).item() == 1.0
    assert objectives.explained_variance(torch.full((3,), 5.0), returns, mask).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("kl", "wanted"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 0.5)),  # 10 % above; 50 of 100 episodes
        (60.0, 0.1 * (1 + 0.2 * 0.5)),  # clipped at +20 %
        (5.4, 0.1 * (1 - 0.1 * 0.5)),
        (-3.0, 0.1 * (1 - 0.2 * 0.5)),  # clipped at -20 %, negative estimates too
    ],
)
def test_adaptive_kl_coefficient_by_hand(kl: float, wanted: float) -> None:
    found = objectives.adapt_kl_coefficient(0.1, kl, target=6.0, horizon=100, episodes=50)
    assert found == pytest.approx(wanted)
