"""Before and after on the tiny model: no change is exactly no change, and a change is measured on both sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_tui.evaluation.compare import Comparison, compare
from rlhf_tui.evaluation.scoring import stepwise_scores
from rlhf_tui.model.base import load_base
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Event, Progress, Sample, Stage
from rlhf_tui.settings import AdapterSettings, CompareSettings, ModelSettings, PpoSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.features import score_tokens
from rlhf_tui.training.ppo import TrainPrompt
from rlhf_tui.training.rollout import Scoring

PPO = PpoSettings(max_new_tokens=8, temperature=1.0, micro_batch_tokens=128, rollout_size=5)
SCORING = Scoring(0.2, 0.5)
PROMPTS = [TrainPrompt(f"prompt {n}", tuple(range(20 + n, 24 + 2 * n))) for n in range(6)]
Roled = Callable[..., Roles]


@pytest.fixture
def roles_of(tiny_folder: Path) -> Roled:
    """Policy and reward on the tiny model; `change` is how far every number of the policy has moved."""

    def make(*, layers: int = 0, change: float = 0.0, reading: Reading | None = None) -> Roles:
        base = load_base(ModelSettings(name=str(tiny_folder), quantisation="none", device="cpu"), lambda text: None)
        base = replace(base, chat=replace(base.chat, end_ids=tuple(range(2, 375, 8))))
        roles = Roles(base, AdapterSettings(rank=4, alpha=8, layers=layers), seed=3, reading=reading)
        roles.add("policy")
        roles.add("reward")
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for role, size in (("reward", 0.2), ("policy", change)):
                for parameter in roles.parameters(role):
                    parameter.add_(size * torch.randn(parameter.shape, generator=generator))
        return roles

    return make


def measure(
    roles: Roles, *, seed: int = 5, scoring: Scoring = SCORING, kept: Path | None = None, **changes: Any
) -> tuple[Comparison, list[Event]]:
    events: list[Event] = []
    settings = CompareSettings(bootstrap=200).model_copy(update=changes)
    found = compare(
        roles, PROMPTS, settings, PPO, scoring, seed=seed, emit=events.append, boundary=lambda: None, kept=kept
    )
    return found, events


def texts(events: list[Event], source: str) -> list[str]:
    return [event.completion for event in events if isinstance(event, Sample) and event.source == source]


@pytest.mark.parametrize("layers", [0, 2])
def test_a_policy_that_is_the_reference_has_changed_nothing_exactly(layers: int, roles_of: Roled) -> None:
    found, events = measure(roles_of(layers=layers))
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert (found.length_low, found.length_high) == (0.0, 0.0)
    assert (found.kl, found.kl_low, found.kl_high) == (0.0, 0.0, 0.0)
    assert found.before == found.after
    assert texts(events, "before") == texts(events, "after")
    assert len(texts(events, "before")) == len(PROMPTS)
    assert len(set(texts(events, "before"))) > 1


@pytest.mark.parametrize("layers", [0, 2])
def test_a_policy_that_has_moved_is_seen_to_have_moved(layers: int, roles_of: Roled) -> None:
    found, events = measure(roles_of(layers=layers, change=0.3), samples_per_prompt=4)
    assert found.kl > 0.1
    assert found.kl_low <= found.kl <= found.kl_high
    assert found.low <= found.difference <= found.high
    assert found.low < found.high
    assert found.difference == pytest.approx(found.after.score - found.before.score, abs=1e-6)
    assert texts(events, "before") != texts(events, "after")
    assert (found.prompts, found.samples_per_prompt) == (6, 4)


def test_the_reference_side_knows_nothing_of_the_policy(roles_of: Roled) -> None:
    still, _ = measure(roles_of())
    moved, _ = measure(roles_of(change=0.3))
    assert still.before == moved.before
    assert still.after != moved.after


def test_a_larger_change_is_a_larger_kl(roles_of: Roled) -> None:
    found = [measure(roles_of(change=size), samples_per_prompt=4)[0].kl for size in (0.02, 0.05, 0.1)]
    assert 0 < found[0] < found[1] < found[2]


def test_samples_come_from_both_sides_with_their_scores(roles_of: Roled) -> None:
    _, events = measure(roles_of(change=0.3), samples_per_prompt=3)
    samples = [event for event in events if isinstance(event, Sample)]
    assert [(event.step, event.source) for event in samples] == [
        (step, source) for step in range(6) for source in ("before", "after")
    ]
    assert [event.prompt for event in samples[::2]] == [prompt.text for prompt in PROMPTS]
    assert all({"score", "length"} <= set(event.values) for event in samples)
    assert len({event.values["score"] for event in samples}) > 6
    counted = [event for event in events if isinstance(event, Progress)]
    for side in ("before", "after"):
        last = [event for event in counted if event.unit == f"completions {side}"][-1]
        assert (last.done, last.total) == (18, 18)


def test_scores_are_the_reward_models_normalised(roles_of: Roled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The means of both sides, from the completions themselves, scored again."""
    from rlhf_tui.evaluation import compare as room

    drawn: list[list[Tokens]] = []

    def recording(roles: Roles, sequences: list[Tokens], *others: Any) -> torch.Tensor:
        drawn.append(list(sequences))
        return stepwise_scores(roles, sequences, *others)

    monkeypatch.setattr(room, "stepwise_scores", recording)
    roles = roles_of(change=0.3)
    found, _ = measure(roles, samples_per_prompt=2)
    ends = set(roles.base.chat.end_ids)
    for sequences, side in zip(drawn, (found.before, found.after), strict=True):
        raw = score_tokens(roles, sequences, MicroBatching(roles.base, 100_000, "off")).tolist()
        assert side.score == pytest.approx(sum((one - 0.2) / 0.5 for one in raw) / 12, abs=1e-5)
        assert side.length == pytest.approx(sum(len(one.response) for one in sequences) / 12)
        assert side.eos_rate == pytest.approx(sum(one.response[-1] in ends for one in sequences) / 12)
        assert [one.prompt for one in sequences] == [prompt.ids for prompt in PROMPTS for _ in range(2)]
        assert side.score_low <= side.score <= side.score_high


@pytest.mark.parametrize("layers", [1, 2])
def test_the_kl_is_that_of_policy_and_base_wherever_the_score_is_read(
    layers: int, roles_of: Roled, tmp_path: Path
) -> None:
    """A reward adapter that lies lower than the policy's must not take part: checked by the model's own logits."""
    roles = roles_of(layers=layers, change=0.3, reading=Reading(2, "mean"))
    found, _ = measure(roles, kept=tmp_path, samples_per_prompt=1)
    answers = json.loads((tmp_path / "after-000000.json").read_text())["ids"]
    gaps = []
    for prompt, response in zip(PROMPTS, answers, strict=True):
        with roles.acting("policy"):
            tuned = plain_logprob(roles, prompt.ids, response)
        with roles.reference():
            gaps.append(tuned - plain_logprob(roles, prompt.ids, response))
    assert found.kl > 0.1
    assert found.kl == pytest.approx(sum(gaps) / len(gaps), abs=1e-4)


@torch.no_grad()
def plain_logprob(roles: Roles, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Of a whole response, by the model as it now answers, in one pass that shares nothing."""
    ids = torch.tensor([[*prompt, *response]])
    logprobs = roles.base.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    return float(logprobs[torch.arange(len(response)), torch.tensor(response)].sum())


def test_the_difference_is_in_units_of_the_reward_models_deviation(roles_of: Roled) -> None:
    roles = roles_of(change=0.3)
    narrow, _ = measure(roles, scoring=Scoring(0.2, 0.5))
    wide, _ = measure(roles, scoring=Scoring(-4.0, 1.0))
    assert wide.difference == pytest.approx(narrow.difference / 2, abs=1e-6)
    assert wide.before.score == pytest.approx(narrow.before.score / 2 + 4.2, abs=1e-5)


def test_the_same_seed_gives_the_same_comparison_and_another_seed_another(roles_of: Roled) -> None:
    roles = roles_of(change=0.2)
    assert measure(roles)[0] == measure(roles)[0] != measure(roles, seed=6)[0]


def test_measuring_moves_no_weight(roles_of: Roled) -> None:
    roles = roles_of(change=0.2)
    before = {role: roles.fingerprint(role) for role in ("policy", "reward")}
    measure(roles)
    assert before == {role: roles.fingerprint(role) for role in ("policy", "reward")}


def test_raising_between_the_sides_stops(roles_of: Roled) -> None:
    class Enough(Exception):
        pass

    def boundary() -> None:
        raise Enough

    events: list[Event] = []
    with pytest.raises(Enough):
        compare(roles_of(), PROMPTS, CompareSettings(), PPO, SCORING, seed=5, emit=events.append, boundary=boundary)
    assert {event.unit for event in events if isinstance(event, Progress)} == {"completions before"}


def test_it_can_be_stopped_between_the_passes_of_every_phase(roles_of: Roled) -> None:
    events: list[Event] = []
    heard: list[str] = []

    def boundary() -> None:
        heard.append(next(event.name for event in reversed(events) if isinstance(event, Stage)))

    settings = CompareSettings(samples_per_prompt=2, bootstrap=200)
    ppo = PPO.model_copy(update={"micro_batch_tokens": 64})
    compare(roles_of(), PROMPTS, settings, ppo, SCORING, seed=5, emit=events.append, boundary=boundary)
    phases = ("scoring before", "scoring after", "measuring the KL")
    assert min(heard.count(phase) for phase in phases) > 2


@pytest.mark.parametrize("layers", [0, 2])
def test_scores_given_a_pass_at_a_time_are_the_same_bits(layers: int, roles_of: Roled) -> None:
    roles = roles_of(layers=layers)
    sequences = [Tokens(prompt.ids, prompt.ids[: 1 + place]) for place, prompt in enumerate(PROMPTS)]
    sizes = MicroBatching(roles.base, 32, "off")
    assert torch.equal(stepwise_scores(roles, sequences, sizes, lambda: None), score_tokens(roles, sequences, sizes))
    assert stepwise_scores(roles, [], sizes, lambda: None).shape == (0,)


def test_the_result_is_plain_data(roles_of: Roled) -> None:
    found = measure(roles_of())[0].as_dict()
    assert json.loads(json.dumps(found)) == found
    assert set(found["before"]) == {"score", "score_low", "score_high", "length", "eos_rate"}
