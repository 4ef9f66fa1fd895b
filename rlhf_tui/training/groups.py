"""Judged pairs as the reward model reads them: every candidate of a prompt runs once, for all its pairs.

All comparisons of one prompt belong to one batch element (Stiennon et al., 2020; Ouyang et al., 2022): a candidate
that stands in several pairs is encoded once and moves the model once an epoch, not once for each pair.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_tui.model.roles import Roles
from rlhf_tui.training.batching import Tokens, micro_batches, pooled
from rlhf_tui.training.shared import SharedLayers


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, the better one first (a tie has no order)."""

    chosen: Tokens
    rejected: Tokens
    tie: bool
    strength: int
    """1 better, 2 much better"""
    weight: float
    smoothing: float | None = None
    """share of this rater's judgements taken to be slips; None: what the settings say"""


@dataclass(frozen=True)
class Group:
    """The pairs of one prompt: their numbers, and their candidates, each once."""

    members: tuple[int, ...]
    candidates: tuple[Tokens, ...]

    @property
    def longest(self) -> int:
        return max(len(one) for one in self.candidates)


def grouped(pairs: Sequence[Pair], members: Iterable[int]) -> list[Group]:
    """These pairs by prompt, in the order in which each prompt first comes."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for index in members:
        by_prompt.setdefault(pairs[index].chosen.prompt, []).append(index)
    return [Group(tuple(group), candidates_of([pairs[i] for i in group])) for group in by_prompt.values()]


def candidates_of(pairs: Iterable[Pair]) -> tuple[Tokens, ...]:
    """The candidates of these pairs, each once, in order of appearance."""
    return tuple(dict.fromkeys(side for pair in pairs for side in (pair.chosen, pair.rejected)))


def dealt(groups: Sequence[Group], batch_pairs: int, seed: int) -> list[list[Group]]:
    """Optimiser batches of at least `batch_pairs` pairs (the last one may have fewer); no group is ever cut."""
    batches: list[list[Group]] = []
    held = batch_pairs
    for group in random.Random(seed).sample(list(groups), len(groups)):
        if held >= batch_pairs:
            batches.append([])
            held = 0
        batches[-1].append(group)
        held += len(group.members)
    return batches


def fits(groups: Sequence[Group], most_tokens: int) -> list[list[Group]]:
    """Groups put together into forward passes of at most `most_tokens`, similar lengths side by side."""
    cut = micro_batches([one.longest for one in groups], most_tokens, [len(one.candidates) for one in groups])
    return [[groups[index] for index in members] for members in cut]


class _Rows:
    """Some candidates in one forward pass, padded together."""

    def __init__(self, roles: Roles, shared: SharedLayers, sequences: Sequence[Tokens]) -> None:
        self._roles, self._shared, self._sequences = roles, shared, sequences

    def scores(self) -> Tensor:
        """Scores of the active reward role. → (rows,)"""
        batch, lower = self._shared.run(self._sequences)
        scores: Tensor = self._roles.head("reward")(pooled(self._roles, lower, batch))
        return scores


class Chunk:
    """Some groups that go through the model together: in one forward pass, or a single large group in several."""

    def __init__(
        self,
        roles: Roles,
        shared: SharedLayers,
        pairs: Sequence[Pair],
        groups: Sequence[Group],
        *,
        smoothing: float,
        most_tokens: int,
    ) -> None:
        device = roles.base.device
        self.members = [index for group in groups for index in group.members]
        parts = parts_of(groups, most_tokens)
        self.sequences = [one for part in parts for one in part]
        row = {one: number for number, one in enumerate(self.sequences)}
        mine = [pairs[index] for index in self.members]
        self.better = torch.tensor([row[pair.chosen] for pair in mine], device=device)
        self.worse = torch.tensor([row[pair.rejected] for pair in mine], device=device)
        self.ties = torch.tensor([float(pair.tie) for pair in mine], device=device)
        self.extra = torch.tensor([float(max(0, pair.strength - 1)) for pair in mine], device=device)
        self.weights = torch.tensor([pair.weight for pair in mine], device=device)
        self.smoothing = torch.tensor(
            [smoothing if pair.smoothing is None else pair.smoothing for pair in mine], device=device
        )
        self._parts = [_Rows(roles, shared, part) for part in parts]

    def scores(self) -> Tensor:
        """Scores of the candidates by the active reward role, in the order of `sequences`. → (candidates,)"""
        return torch.cat([part.scores() for part in self._parts])

    def learn(self, loss_of: Callable[[Tensor], Tensor], scaled: Callable[[Tensor], Tensor]) -> Tensor:
        """Add the gradient of `scaled(loss_of(scores))` to the active role's parameters; → the scores, (candidates,).

        A group that needs several forward passes goes through twice: first all scores without gradients, then each
        part again, backwards from the loss's gradient at its scores. The gradient is the same (Gao et al., 2021,
        Scaling deep contrastive learning batch size under memory limited setup).
        """
        if len(self._parts) == 1:
            scores = self.scores()
            torch.autograd.backward(scaled(loss_of(scores)))
            return scores.detach()
        with torch.no_grad():
            pieces = [part.scores() for part in self._parts]
        scores = torch.cat(pieces).requires_grad_(True)
        (at_scores,) = torch.autograd.grad(scaled(loss_of(scores)), scores)
        for part, gradient in zip(self._parts, torch.split(at_scores, [len(piece) for piece in pieces]), strict=True):
            torch.autograd.backward(part.scores(), gradient)
        return scores.detach()


def parts_of(groups: Sequence[Group], most_tokens: int) -> list[list[Tokens]]:
    """The candidates of these groups, cut into forward passes of at most `most_tokens`, or of one candidate."""
    candidates = [one for group in groups for one in group.candidates]
    if len(candidates) * max(group.longest for group in groups) <= most_tokens:
        return [candidates]
    return [[candidates[i] for i in part] for part in micro_batches([len(one) for one in candidates], most_tokens)]
