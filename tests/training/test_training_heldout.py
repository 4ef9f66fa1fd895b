"""Held-out evaluation on the tiny model: the same draws every time, nought at the start, a second opinion in units."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Event, Metric, Sample
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.guards import NotFinite
from rlhf_tui.training.heldout import Heldout, gold_judge
from rlhf_tui.training.ppo import Ppo, TrainPrompt
from rlhf_tui.training.ppo_metrics import repeated
from rlhf_tui.training.rollout import Judge, Scoring

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
Draw = Callable[..., list[Tokens]]
SCORING = Scoring(0.3, 0.7)
SETTINGS = PpoSettings(
    updates=4, rollout_size=8, max_new_tokens=8, micro_batch_tokens=64, temperature=1.0, policy_learning_rate=1e-3,
    value_learning_rate=1e-3, score_clip=1.0, missing_eos_penalty=0.5,
)  # fmt: skip


def learner(roles: Roles, prompts: Sequence[TrainPrompt], judge: Judge | None = None, **changes: Any) -> Ppo:
    settings = SETTINGS.model_copy(update=changes)
    return Ppo(roles, prompts, settings, SCORING, seed=11, emit=lambda event: None, judge=judge)


def heldout(
    current: Ppo, prompts: Sequence[TrainPrompt], *, gold: Judge | None = None
) -> tuple[Heldout, list[Event], list[Tokens]]:
    """With what it emits, and the completions it draws."""
    events: list[Event] = []
    drawn: list[Tokens] = []

    def explore(prompts: Sequence[Sequence[int]], seed: int) -> Any:
        rollout = current.explore(prompts, seed)
        drawn[:] = rollout.sequences
        return rollout

    return Heldout(current.roles, prompts, explore, seed=11, emit=events.append, gold=gold), events, drawn


def test_at_the_start_kl_is_nought_and_the_same_draws_come_again(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(5))
    looking, events, drawn = heldout(current, prompts(6))
    first = looking.evaluate(0)
    before = list(drawn)
    second = looking.evaluate(0)
    assert first == second
    assert before == drawn
    assert (first.kl, first.gold) == (0.0, None)
    assert first.metrics()["heldout_root_kl"] == 0.0
    assert [event.values for event in events if isinstance(event, Metric)] == [first.metrics()] * 2
    assert len({one.response for one in drawn}) > 1


def test_the_numbers_are_those_of_the_completions(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(5))
    looking, _, drawn = heldout(current, prompts(6))
    found = looking.evaluate(0)
    ends = set(current.roles.base.chat.end_ids)
    ended = [one.response[-1] in ends for one in drawn]
    raw = score_tokens(current.roles, drawn, MicroBatching(current.roles.base, 100_000, "off")).tolist()
    wanted = [
        min(1.0, max(-1.0, (one - 0.3) / 0.7)) - (0.0 if end else 0.5) for one, end in zip(raw, ended, strict=True)
    ]
    assert [one.prompt for one in drawn] == [prompt.ids for prompt in prompts(6)]
    assert found.score == pytest.approx(statistics.fmean(wanted), abs=1e-5)
    assert found.length == statistics.fmean(len(one.response) for one in drawn)
    assert found.eos_rate == pytest.approx(statistics.fmean(ended))
    assert found.repetition == pytest.approx(statistics.fmean(repeated(one.response) for one in drawn))


def test_a_policy_that_has_moved_is_seen_to_have_moved(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(5), policy_learning_rate=0.05, kl_coefficient=0.0)
    looking, _, _ = heldout(current, prompts(6))
    start = looking.evaluate(0)
    current.update()
    current.update()
    moved = looking.evaluate(2)
    assert moved.kl > 0.1
    assert moved.metrics()["heldout_root_kl"] == pytest.approx(moved.kl**0.5)
    assert moved.score != start.score


def test_looking_changes_nothing_of_what_is_learnt(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    found = []
    for looks in (False, True):
        current = learner(fresh_roles(layers=2), prompts(5))
        looking, _, _ = heldout(current, prompts(4), gold=lambda sequences: [float(len(one)) for one in sequences])
        for number in range(2):
            if looks:
                looking.evaluate(number)
            current.update()
        found.append([current.roles.fingerprint(role) for role in ("policy", "value", "reward")])
    assert found[0] == found[1]


def test_two_samples_of_the_same_prompts_come_with_every_evaluation(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(5))
    looking, events, drawn = heldout(current, prompts(6), gold=lambda sequences: [1.0] * len(sequences))
    for update in (0, 5):
        looking.evaluate(update)
    samples = [event for event in events if isinstance(event, Sample)]
    assert [(one.step, one.prompt, one.source) for one in samples] == [
        (update, f"prompt {number}", "heldout") for update in (0, 5) for number in (0, 1)
    ]
    assert [one.completion for one in samples[:2]] == [current.roles.base.chat.text(one.response) for one in drawn[:2]]
    assert set(samples[0].values) == {"score", "kl", "length", "gold"}


def test_the_second_opinion_is_in_units_of_the_first_evaluation(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(5))
    raw = iter(([1.0, 3.0, 5.0, 7.0], [4.0, 4.0, 8.0, 8.0], [6.0] * 4))
    looking, _, _ = heldout(current, prompts(4), gold=lambda sequences: next(raw))
    assert looking.evaluate(0).gold == pytest.approx(0.0)
    assert looking.evaluate(5).gold == pytest.approx(2 / 5**0.5)  # mean 4, deviation √5
    again, _, _ = heldout(current, prompts(4), gold=lambda sequences: next(raw))
    again.resume(looking.state())
    assert again.evaluate(10).gold == pytest.approx(2 / 5**0.5)


def test_scores_that_do_not_differ_have_the_unit_one(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    raw = iter(([2.0] * 3, [3.5] * 3))
    looking, _, _ = heldout(learner(fresh_roles(), prompts(5)), prompts(3), gold=lambda sequences: next(raw))
    assert [looking.evaluate(0).gold, looking.evaluate(1).gold] == [0.0, 1.5]


@pytest.mark.parametrize("layers", [0, 2])
def test_the_gold_role_scores_as_a_reward_model_does(layers: int, fresh_roles: FreshRoles, draw_tokens: Draw) -> None:
    """As the reward role on the same weights, whatever the size of a pass; and then it does not move with it."""
    roles, sequences = fresh_roles(layers=layers), draw_tokens(11)
    roles.copy("reward", "gold")
    wanted = score_tokens(roles, sequences, MicroBatching(roles.base, 100_000, "off")).tolist()
    for size in (16, 64, 100_000):
        judge = gold_judge(roles, MicroBatching(roles.base, size, "off"))
        assert list(judge(sequences)) == pytest.approx(wanted, abs=1e-5)
    with torch.no_grad():
        for parameter in roles.parameters("reward"):
            parameter.add_(0.1)
    assert list(judge(sequences)) == pytest.approx(wanted, abs=1e-5)


def test_a_broken_judge_is_refused(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    looking, events, _ = heldout(
        learner(fresh_roles(), prompts(5)), prompts(3), gold=lambda s: [1.0, float("nan"), 2.0]
    )
    with pytest.raises(NotFinite, match="gold_score"):
        looking.evaluate(0)
    assert not [event for event in events if isinstance(event, Metric)]


def test_repetition_against_a_plain_count() -> None:
    order = random.Random(3)
    for length in (0, 1, 3, 4, 5, 30):
        for _ in range(20):
            tokens = order.choices(range(3), k=length)
            seen: list[list[int]] = []
            again = 0
            for start in range(length - 3):
                again += tokens[start : start + 4] in seen
                seen.append(tokens[start : start + 4])
            assert repeated(tokens) == pytest.approx(again / (length - 3) if length > 3 else 0.0)
    assert repeated([7] * 8) == 0.8  # the first of five runs is new
