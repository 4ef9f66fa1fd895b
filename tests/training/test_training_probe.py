"""The head's start: the only minimum of a convex problem, checked without trusting how it was found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlhf_tui.training.probe import ridge_bradley_terry, standardised


def problem(pairs: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    gaps = torch.randn(pairs, width, generator=generator)
    targets = torch.full((pairs,), 0.95)
    targets[::4] = 0.5
    return gaps, targets, 0.5 + torch.rand(pairs, generator=generator)


def objective(u: Tensor, gaps: Tensor, targets: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """As the docstring says, in its plain form."""
    scores = gaps.double() @ u
    losses = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.double(), reduction="none")
    return (weights.double() * losses).sum() + ridge / 2 * (u @ u)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0, 1000.0])
@pytest.mark.parametrize(("pairs", "width"), [(30, 5), (8, 40), (1, 3)])
def test_it_is_the_minimum(pairs: int, width: int, ridge: float) -> None:
    gaps, targets, weights = problem(pairs, width)
    u = ridge_bradley_terry(gaps, targets, weights, ridge=ridge).requires_grad_(True)
    assert u.shape == (width,)
    objective(u, gaps, targets, weights, ridge).backward()
    assert u.grad is not None
    assert u.grad.abs().max() < 1e-6 * max(1.0, ridge)
    least = float(objective(u.detach(), gaps, targets, weights, ridge))
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        other = u.detach() + 0.1 * torch.randn(width, generator=generator, dtype=torch.float64)
        assert float(objective(other, gaps, targets, weights, ridge)) > least


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_separable_pairs_with_wide_gaps_have_one_too(scale: float, ridge: float) -> None:
    """With little ridge and features that tell all, Newton's plain step overshoots."""
    generator = torch.Generator().manual_seed(3)
    gaps = scale * (torch.randn(40, 10, generator=generator) + 1)
    targets, weights = torch.full((40,), 0.95), torch.ones(40)
    u = ridge_bradley_terry(gaps, targets, weights, ridge=ridge).requires_grad_(True)
    objective(u, gaps, targets, weights, ridge).backward()
    assert u.grad is not None
    assert u.grad.abs().max() < 1e-4


def test_more_ridge_is_a_smaller_answer_and_ties_alone_are_none_at_all() -> None:
    gaps, targets, weights = problem(20, 6)
    sizes = [float(ridge_bradley_terry(gaps, targets, weights, ridge=ridge).norm()) for ridge in (1, 10, 100, 1000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.05 * sizes[0]
    ties = torch.full((20,), 0.5)
    assert float(ridge_bradley_terry(gaps, ties, weights, ridge=1.0).norm()) < 1e-9


def test_the_order_of_a_pair_is_all_that_a_sign_means() -> None:
    gaps, targets, weights = problem(20, 6)
    one = ridge_bradley_terry(gaps, targets, weights, ridge=1.0)
    assert torch.allclose(one, ridge_bradley_terry(-gaps, 1 - targets, weights, ridge=1.0))
    assert torch.allclose(one, -ridge_bradley_terry(-gaps, targets, weights, ridge=1.0))


def test_standardised_features_have_unit_deviation_and_constant_ones_no_infinite_scale() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    scaled, deviation = standardised(features)
    assert scaled.std(dim=0, unbiased=False)[0].item() == pytest.approx(1.0)
    assert torch.allclose(scaled * deviation, features.double())
    assert torch.isfinite(scaled).all()
