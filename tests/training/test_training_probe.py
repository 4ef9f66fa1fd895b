"""The head's start is the minimum it says it is, in the units of the features, and its scores average to 0."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlhf_tui.assessment.bradley_terry import RIDGES
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import Features
from rlhf_tui.training.groups import Pair
from rlhf_tui.training.probe import head_start

SMOOTHING = 0.05


def problem(count: int, width: int, *, telling: float = 0.0) -> tuple[Features, list[Pair]]:
    """`telling`: by how many of its deviations the better one is larger in the first feature."""
    generator = torch.Generator().manual_seed(0)
    tokens = [Tokens((n // 2,), (3 + n % 2,)) for n in range(2 * count)]
    values = torch.randn(2 * count, width, generator=generator)
    values[::2, 0] += telling
    values = values * torch.linspace(0.1, 30, width) + 5
    pairs = [Pair(tokens[2 * n], tokens[2 * n + 1], n % 5 == 0, 1, 0.5 + n % 3) for n in range(count)]
    pairs[1] = Pair(pairs[1].chosen, pairs[1].rejected, False, 1, 1.0, smoothing=0.3)
    return Features({one: row for row, one in enumerate(tokens)}, values), pairs


def parts(features: Features, pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Gaps (pairs, width), targets and weights (pairs,)."""
    values = features.values.double()
    gaps = torch.stack([values[features.rows[one.chosen]] - values[features.rows[one.rejected]] for one in pairs])
    slips = [SMOOTHING if one.smoothing is None else one.smoothing for one in pairs]
    targets = [0.5 if one.tie else 1 - slip for one, slip in zip(pairs, slips, strict=True)]
    return gaps, torch.tensor(targets, dtype=torch.float64), torch.tensor([one.weight for one in pairs]).double()


def entropies(gaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Another library's cross-entropy, summed by weight."""
    own = torch.nn.functional.binary_cross_entropy_with_logits(gaps, targets, reduction="none")
    return (weights * own).sum()


def units(gaps: Tensor) -> Tensor:
    """What one of each feature counts as: its root mean square over the gaps, times √width."""
    return gaps.square().mean(0).sqrt() * gaps.shape[1] ** 0.5


def minimum(gaps: Tensor, targets: Tensor, weights: Tensor, unit: Tensor, ridge: float) -> Tensor:
    """The penalised fit in the plain, primal form, by a quasi-Newton method."""
    scaled = torch.zeros(gaps.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scaled], max_iter=500, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        value = entropies(gaps @ (scaled / unit), targets, weights) + ridge / 2 * scaled.square().sum()
        value.backward()
        return value

    optimiser.step(objective)
    return scaled.detach() / unit


def chosen_ridge(gaps: Tensor, targets: Tensor, weights: Tensor, unit: Tensor) -> float:
    """The ridge with the least loss on every third prompt left out in turn."""
    fold = torch.arange(len(gaps)) % 3  # each pair is of a prompt of its own
    losses = [
        sum(
            float(entropies(gaps[out] @ minimum(gaps[~out], targets[~out], weights[~out], unit, ridge), *rest))
            for out, rest in ((fold == part, (targets[fold == part], weights[fold == part])) for part in range(3))
        )
        for ridge in RIDGES
    ]
    return RIDGES[losses.index(min(losses))]


@pytest.mark.parametrize(("count", "width", "telling"), [(30, 4, 0.0), (30, 4, 2.0), (9, 20, 1.0)])
def test_it_is_the_minimum_at_the_ridge_that_cross_validation_chooses(count: int, width: int, telling: float) -> None:
    features, pairs = problem(count, width, telling=telling)
    weight, bias = head_start(features, pairs, SMOOTHING)
    gaps, targets, weights = parts(features, pairs)
    unit = units(gaps)
    ridge = chosen_ridge(gaps, targets, weights, unit)
    assert torch.allclose(weight * unit, minimum(gaps, targets, weights, unit, ridge) * unit, rtol=1e-4, atol=1e-4)
    scores = features.values.double() @ weight + bias
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-9)


def test_noise_is_shrunk_more_than_what_tells() -> None:
    ridges = []
    for telling in (0.0, 3.0):
        features, pairs = problem(30, 4, telling=telling)
        gaps, targets, weights = parts(features, pairs)
        ridges.append(chosen_ridge(gaps, targets, weights, units(gaps)))
    assert ridges[0] > ridges[1]


def test_a_feature_that_never_varies_is_no_division_by_zero() -> None:
    features, pairs = problem(10, 3)
    features.values[:, 1] = 4.0
    weight, bias = head_start(features, pairs, SMOOTHING)
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias)
