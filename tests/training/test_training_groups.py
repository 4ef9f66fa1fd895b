"""Every candidate of a prompt runs once for all its pairs, and nothing else changes by it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_tui.model.roles import Roles
from rlhf_tui.training import objectives
from rlhf_tui.training.batching import Batch, Tokens, micro_batches, pad, pool
from rlhf_tui.training.groups import Chunk, Pair, candidates_of, dealt, fits, grouped, parts_of
from rlhf_tui.training.shared import SharedLayers

FreshRoles = Callable[..., Roles]


def ranking(prompt: tuple[int, ...], size: int, *, seed: int) -> list[Pair]:
    """All pairs of `size` candidates in a random order of merit, each of weight 1/(size-1)."""
    order = random.Random(seed)
    ranked = [Tokens(prompt, (*order.choices(range(3, 300), k=order.randint(1, 9)), 3 + rank)) for rank in range(size)]
    return [Pair(a, b, False, 1, 1 / (size - 1)) for a, b in itertools.combinations(ranked, 2)]


def some_pairs() -> list[Pair]:
    pairs = [pair for n, size in enumerate((2, 3, 4, 2, 5)) for pair in ranking((7, 8, 9 + n), size, seed=n)]
    pairs[0] = Pair(pairs[0].chosen, pairs[0].rejected, True, 0, 0.5, smoothing=0.2)
    return random.Random(1).sample(pairs, len(pairs))


def test_a_group_has_each_candidate_of_a_prompt_once_and_all_its_pairs() -> None:
    pairs = some_pairs()
    groups = grouped(pairs, range(len(pairs)))
    assert sorted(len(group.candidates) for group in groups) == [2, 2, 3, 4, 5]
    assert sorted(index for group in groups for index in group.members) == list(range(len(pairs)))
    for group in groups:
        assert len({pairs[index].chosen.prompt for index in group.members}) == 1
        assert set(group.candidates) == set(candidates_of([pairs[index] for index in group.members]))


@given(st.lists(st.integers(2, 6), min_size=1, max_size=12), st.integers(1, 20), st.integers(0, 5))
def test_batches_hold_every_group_once_and_enough_pairs(sizes: list[int], batch_pairs: int, seed: int) -> None:
    pairs = [pair for n, size in enumerate(sizes) for pair in ranking((n + 3,), size, seed=n)]
    groups = grouped(pairs, range(len(pairs)))
    batches = dealt(groups, batch_pairs, seed)
    assert sorted(group.members for batch in batches for group in batch) == sorted(group.members for group in groups)
    counts = [[len(group.members) for group in batch] for batch in batches]
    for count in counts:
        assert sum(count[:-1]) < batch_pairs  # none is larger than it must be
    for count in counts[:-1]:
        assert sum(count) >= batch_pairs
    assert batches == dealt(groups, batch_pairs, seed)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), min_size=1, max_size=20), st.integers(1, 200))
def test_forward_passes_stay_within_the_limit_or_stand_alone(shapes: list[tuple[int, int]], most: int) -> None:
    lengths, rows = [length for length, _ in shapes], [row for _, row in shapes]
    cut = micro_batches(lengths, most, rows)
    assert sorted(index for members in cut for index in members) == list(range(len(shapes)))
    for members in cut:
        size = sum(rows[i] for i in members) * max(lengths[i] for i in members)
        assert size <= most or len(members) == 1
    longest = [max(lengths[i] for i in members) for members in cut]
    assert longest == sorted(longest, reverse=True)


def test_the_loss_of_a_group_and_its_gradient_are_those_of_its_pairs_one_by_one(fresh_roles: FreshRoles) -> None:
    """Shared candidates, and large groups in several passes: the sums and gradients of each pair on its own."""
    roles, pairs = fresh_roles(), some_pairs()
    together, alone = [grouped(pairs, range(len(pairs)))], [grouped(pairs, [n]) for n in range(len(pairs))]
    found = []
    for parts, most in ((together, 10_000), (alone, 10_000), (together, 30), (together, 1)):
        for parameter in roles.parameters("reward"):
            parameter.grad = None
        total = 0.0
        with roles.learning("reward"):
            for part in parts:
                chunk = Chunk(roles, SharedLayers(roles), pairs, part, smoothing=0.05, most_tokens=most)

                def loss_of(scores: torch.Tensor, chunk: Chunk = chunk) -> torch.Tensor:
                    losses = objectives.bradley_terry(
                        scores[chunk.better],
                        scores[chunk.worse],
                        ties=chunk.ties,
                        margins=chunk.extra,
                        label_smoothing=chunk.smoothing,
                        centre=0.01,
                    )
                    return (chunk.weights * losses).sum()

                total += float(loss_of(chunk.learn(loss_of, lambda loss: loss)))
        gradients = torch.cat([p.grad.flatten() for p in roles.parameters("reward") if p.grad is not None])
        found.append((total, gradients))
    assert found[0][1].abs().max() > 1e-3
    for total, gradients in found[1:]:
        assert total == pytest.approx(found[0][0], rel=1e-5)
        assert torch.allclose(found[0][1], gradients, atol=1e-5, rtol=1e-4)


def test_a_raters_own_smoothing_counts_and_others_take_the_settings() -> None:
    gap = torch.tensor([1.0, 1.0])
    both = objectives.bradley_terry(
        gap,
        torch.zeros(2),
        ties=torch.zeros(2),
        margins=torch.zeros(2),
        label_smoothing=torch.tensor([0.05, 0.3]),
        centre=0.0,
    )
    for one, share in zip(both, (0.05, 0.3), strict=True):
        alone = objectives.bradley_terry(
            gap[:1], gap[:1] * 0, ties=gap[:1] * 0, margins=gap[:1] * 0, label_smoothing=share, centre=0.0
        )
        assert float(one) == pytest.approx(float(alone), abs=1e-7)
    assert both[1] > both[0]


def test_forward_passes_of_groups_keep_candidates_together() -> None:
    pairs = some_pairs()
    groups = grouped(pairs, range(len(pairs)))
    for most in (16, 60, 10_000):
        parts = fits(groups, most)
        for part in parts:
            cut = parts_of(part, most)
            assert sorted(len(one) for piece in cut for one in piece) == sorted(
                len(one) for group in part for one in group.candidates
            )
            assert all(len(piece) * max(map(len, piece)) <= most or len(piece) == 1 for piece in cut)
            assert len(cut) == 1 or len(part) == 1  # only a group that is too large alone is ever cut
        assert sorted(g.members for part in parts for g in part) == sorted(g.members for g in groups)


# -- pooling --------------------------------------------------------------------------------------


def test_the_mean_is_over_the_response_alone_and_the_last_is_its_last_token() -> None:
    batch: Batch = pad(
        [Tokens((50, 60), (1, 2, 9)), Tokens((70,), (5,)), Tokens((8, 8, 8), (4, 6))], torch.device("cpu")
    )
    hidden = torch.stack([batch.ids.float(), 2 * batch.ids.float()], dim=-1)
    assert pool(hidden, batch, "mean").tolist() == [[4.0, 8.0], [5.0, 10.0], [5.0, 10.0]]
    assert pool(hidden, batch, "last").tolist() == [[9.0, 18.0], [5.0, 10.0], [6.0, 12.0]]
