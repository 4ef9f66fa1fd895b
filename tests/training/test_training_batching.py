"""Cutting sequences into micro-batches, and that neither padding nor company changes any number."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_tui.model.heads import Pooling, Reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import PASS_TOKENS, Batch, Tokens, micro_batches, pad, pooled
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.optimisation import adam, cosine, linear, set_rate
from rlhf_tui.training.rollout import bare_experiences, deal, response_logprobs, response_values

CPU = torch.device("cpu")
FreshRoles = Callable[..., Roles]
Draw = Callable[..., list[Tokens]]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 120))
def test_micro_batches_hold_every_index_once_within_the_limit_longest_first(lengths: list[int], most: int) -> None:
    groups = micro_batches(lengths, most)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= most
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)


def test_micro_batches_by_hand() -> None:
    assert micro_batches([3, 9, 4, 4], 8) == [[1], [2, 3], [0]]
    assert micro_batches([], 8) == []


def test_groups_are_filled_as_far_as_the_limit_goes() -> None:
    assert micro_batches([5] * 7, 15) == [[0, 1, 2], [3, 4, 5], [6]]


def test_lengths_that_are_far_apart_are_not_padded_to_each_other() -> None:
    assert micro_batches([400, 40, 380, 30], 2048) == [[0, 2], [1, 3]]
    assert micro_batches([400, 390, 380, 370], 2048) == [[0, 1, 2, 3]]  # 60 tokens of padding cost less than a pass


def work_of(groups: Sequence[Sequence[int]], lengths: Sequence[int], rows: Sequence[int]) -> int:
    return sum(PASS_TOKENS + max(lengths[i] for i in group) * sum(rows[i] for i in group) for group in groups)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 600), st.integers(1, 3)), min_size=1, max_size=8), st.integers(300, 2500))
def test_no_other_cut_is_less_work(given_rows: list[tuple[int, int]], most: int) -> None:
    """Beside every way to cut the lengths, in their order, into groups within the limit."""
    lengths, rows = [length for length, _ in given_rows], [height for _, height in given_rows]
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    least = math.inf
    for mask in range(2 ** (len(order) - 1)):
        ends = [at + 1 for at in range(len(order) - 1) if mask >> at & 1]
        cut = [order[start:end] for start, end in itertools.pairwise([0, *ends, len(order)])]
        if all(len(group) == 1 or work_of([group], lengths, rows) - PASS_TOKENS <= most for group in cut):
            least = min(least, work_of(cut, lengths, rows))
    assert work_of(micro_batches(lengths, most, rows), lengths, rows) == least


def test_padding_by_hand() -> None:
    batch = pad([Tokens((5, 6), (7,)), Tokens((8,), (9, 10, 11))], CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 0], [8, 9, 10, 11]]
    assert batch.last.tolist() == [2, 3]
    positions, mask = batch.before_response(3)
    # the token at index i is predicted from i - 1: row 0's only one from 1, row 1's three from 0, 1 and 2
    assert positions.tolist() == [[1, 0, 0], [0, 1, 2]]
    assert mask.tolist() == [[True, False, False], [True, True, True]]


# -- padding and company --------------------------------------------------------------------------


def scores_of(roles: Roles, sequences: Sequence[Tokens], most: int) -> list[Tensor]:
    return list(score_tokens(roles, sequences, MicroBatching(roles.base, most, "off"))[:, None])


def logprobs_of(roles: Roles, sequences: Sequence[Tokens], most: int) -> list[Tensor]:
    return responses(roles, sequences, most, lambda one: response_logprobs(roles, one, 0.8)[0], "policy")


def entropies_of(roles: Roles, sequences: Sequence[Tokens], most: int) -> list[Tensor]:
    return responses(roles, sequences, most, lambda one: response_logprobs(roles, one, 0.8)[1], "policy")


def values_of(roles: Roles, sequences: Sequence[Tokens], most: int) -> list[Tensor]:
    return responses(roles, sequences, most, lambda one: response_values(roles, one), "value")


@torch.no_grad()
def responses(roles: Roles, sequences: Sequence[Tokens], most: int, measure: Callable, role: str) -> list[Tensor]:
    """A per-token quantity of every response, padding cut off; it must be 0 there."""
    found: dict[int, Tensor] = {}
    with roles.acting(role):  # type: ignore[arg-type]
        for one in bare_experiences(roles, sequences, [True] * len(sequences), most):
            table = measure(one)
            assert (table[~one.mask] == 0).all()
            found |= {member: table[row][one.mask[row]] for row, member in enumerate(one.members)}
    return [found[index] for index in range(len(sequences))]


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("quantity", [scores_of, logprobs_of, entropies_of, values_of])
def test_a_sequence_alone_in_a_batch_and_with_longer_neighbours_is_the_same(
    quantity: Callable, layers: int, fresh_roles: FreshRoles, draw_tokens: Draw
) -> None:
    roles = fresh_roles(layers=layers)
    sequences = [*draw_tokens(10), Tokens((5, 9, 20), tuple(range(40, 100)))]
    alone = [quantity(roles, [one], 64)[0] for one in sequences]
    assert [len(one) for one in alone] == [1 if quantity is scores_of else len(one.response) for one in sequences]
    for most in (70, 200, 100_000):
        for single, together in zip(alone, quantity(roles, sequences, most), strict=True):
            assert torch.allclose(single, together, atol=1e-5, rtol=1e-5)
    assert len({round(float(one[-1]), 4) for one in alone}) > 5  # and they are not all one number


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("layers", [0, 2])
def test_no_result_depends_on_the_pad_id(
    layers: int, pooling: Pooling, fresh_roles: FreshRoles, draw_tokens: Draw
) -> None:
    roles = fresh_roles(layers=layers, reading=Reading(pooling=pooling))
    batch = pad(draw_tokens(8), CPU)
    inside = torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    padded = ~inside
    assert padded.any()
    results = []
    with torch.no_grad(), roles.acting("reward"):
        for filling in (0, 2, 77, 300):  # 2 is the end of turn
            ids = torch.where(padded, filling, batch.ids)
            other = Batch(ids, batch.prompt_lengths, batch.lengths)
            results.append(pooled(roles, roles.reader.lower(ids), other))
    assert all(torch.equal(results[0], one) for one in results[1:])


def test_log_probabilities_are_those_of_the_plain_model(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """At temperature T, of each sampled token given everything before it: read off the model's own logits."""
    roles = fresh_roles()
    sequences = draw_tokens(4)
    with torch.no_grad(), roles.acting("policy"):
        ours = logprobs_of(roles, sequences, 10_000)
        for one, found in zip(sequences, ours, strict=True):
            logits = roles.base.model(torch.tensor([one.prompt + one.response])).logits[0].float() / 0.8
            table = logits.log_softmax(-1)
            wanted = [table[len(one.prompt) - 1 + t, token] for t, token in enumerate(one.response)]
            assert torch.allclose(found, torch.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("quantity", ["logprobs", "values"])
def test_what_comes_after_the_last_needed_position_gets_no_gradient(
    quantity: str, fresh_roles: FreshRoles, draw_tokens: Draw
) -> None:
    """The last token predicts nothing that was sampled; neither it nor the padding may pull at the weights."""
    roles = fresh_roles(layers=2)
    (one,) = bare_experiences(roles, draw_tokens(6), [True] * 6, 100_000)
    one.seen = one.lower = one.lower.clone().requires_grad_(True)
    with roles.learning("policy" if quantity == "logprobs" else "value"):
        result = response_logprobs(roles, one, 1.0)[0] if quantity == "logprobs" else response_values(roles, one)
        result.square().sum().backward()
    assert one.lower.grad is not None
    size = one.lower.grad.abs().sum(-1)
    needed = torch.arange(size.shape[1]) < one.batch.last[:, None]
    assert (size[needed] > 0).all()
    assert (size[~needed] == 0).all()


# -- minibatches, rates ---------------------------------------------------------------------------


def test_dealing_gives_every_row_to_one_minibatch_of_nearly_equal_size() -> None:
    hands = deal(13, 4, random.Random(1))
    assert sorted(row for hand in hands for row in hand) == list(range(13))
    assert sorted(len(hand) for hand in hands) == [3, 3, 3, 4]
    assert deal(13, 4, random.Random(1)) == hands
    assert deal(13, 4, random.Random(2)) != hands
    assert [len(hand) for hand in deal(2, 4, random.Random(1))] == [1, 1]


def test_micro_batches_are_cut_within_the_rows_that_are_asked_for(fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    sequences = draw_tokens(12, longest=30)
    found = bare_experiences(fresh_roles(), sequences, [True] * 12, 64, [7, 2, 11, 5])
    assert sorted(row for one in found for row in one.members) == [2, 5, 7, 11]
    for one in found:
        for row, member in enumerate(one.members):
            length = len(sequences[member])
            assert tuple(one.batch.ids[row, :length].tolist()) == sequences[member].prompt + sequences[member].response


def test_schedules_by_hand() -> None:
    assert [linear(step, 5, 1) for step in range(5)] == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])
    assert [linear(step, 4, 0) for step in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert [cosine(step, 4, 0) for step in range(4)] == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert [cosine(step, 6, 2) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(0, 80))
def test_a_schedule_never_reaches_nought_before_the_end_and_never_passes_its_peak(steps: int, warmup: int) -> None:
    for schedule in (linear, cosine):
        assert all(0 < schedule(step, steps, warmup) <= 1 for step in range(steps))


def test_each_group_of_an_optimiser_keeps_its_own_peak(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    optimiser = adam(roles, "reward", adapter_rate=0.01, head_rate=0.1)
    assert set_rate(optimiser, 0.5) == pytest.approx(0.005)
    assert set_rate(optimiser, 0.25) == pytest.approx(0.0025)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.0025, 0.025])
    held = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in roles.parameters("reward")}
    assert {id(p) for p in roles.head("reward").parameters()} == {id(p) for p in optimiser.param_groups[1]["params"]}
