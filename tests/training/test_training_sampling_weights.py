"""What a run samples with is timed once, kept with it, and given up before rows are when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_tui.model.base import Base, load_base
from rlhf_tui.model.roles import Roles
from rlhf_tui.model.unpacked import Weights, multiplying_with, unpacked_bytes
from rlhf_tui.runs.events import Alert, Event, Stage
from rlhf_tui.settings import AdapterSettings, GuardSettings, ModelSettings, PpoSettings
from rlhf_tui.training import ppo as module
from rlhf_tui.training.checkpoint import load_checkpoint, save_checkpoint
from rlhf_tui.training.ppo import Ppo, TrainPrompt
from rlhf_tui.training.ppo_run import PpoRun
from rlhf_tui.training.rollout import Scoring
from rlhf_tui.training.sampling_weights import SamplingWeights, Wish

Prompts = Callable[[int], list[TrainPrompt]]
FreshRoles = Callable[..., Roles]
SETTINGS = PpoSettings(
    updates=4, rollout_size=6, sampling_rows=4, max_new_tokens=8, micro_batch_tokens=64, temperature=1.0, epochs=1,
    minibatches=1, policy_learning_rate=1e-3, evaluate_every=0,
)  # fmt: skip
PLENTY = 1 << 30


@pytest.fixture
def fresh(tiny_folder: Path) -> Callable[[], Base]:
    settings = ModelSettings(name=str(tiny_folder), quantisation="nf4", device="cpu")
    return lambda: load_base(settings, lambda text: None)


@pytest.fixture
def nf4(fresh: Callable[[], Base]) -> Base:
    return fresh()


def timed(copy: float) -> Callable[[Weights], float]:
    """Says that sampling with the 4-bit weights takes 2 s."""
    return lambda weights: {"quantised": 2.0, "copy": copy}[weights]


def never(weights: Weights) -> float:
    raise AssertionError(f"{weights} was timed")


# -- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("copy", "chosen"), [(1.0, "copy"), (3.0, "quantised"), (2.0, "quantised")])
def test_auto_takes_what_is_faster_and_times_it_once(nf4: Base, copy: float, chosen: str) -> None:
    weights = SamplingWeights(nf4, "auto", PLENTY)
    assert weights.choose(timed(copy)) == chosen
    assert weights.seconds == {"quantised": 2.0, "copy": copy}
    assert weights.choose(never) == chosen


@pytest.mark.parametrize(("wish", "room"), [("quantised", PLENTY), ("copy", 0), ("auto", 0)])
def test_nothing_is_timed_where_there_is_no_choice(nf4: Base, wish: Wish, room: int) -> None:
    weights = SamplingWeights(nf4, wish, room)
    assert weights.choose(never) == ("copy" if wish == "copy" else "quantised")
    assert weights.seconds == {}


def test_a_copy_must_fit_into_the_room_there_is(nf4: Base) -> None:
    size = unpacked_bytes(nf4.model)
    assert SamplingWeights(nf4, "auto", size).choose(timed(1.0)) == "copy"
    assert SamplingWeights(nf4, "auto", size - 1).choose(never) == "quantised"


@pytest.mark.parametrize("wish", ["auto", "copy"])
def test_a_base_that_is_not_in_4_bit_has_nothing_to_unpack(tiny_base: Base, wish: Wish) -> None:
    assert SamplingWeights(tiny_base, wish, PLENTY).choose(never) == "quantised"


# -- in a run -------------------------------------------------------------------------------------


def learner(base: Base, prompts: list[TrainPrompt], events: list[Event], wish: Wish = "auto", **changes: Any) -> Ppo:
    roles = Roles(replace(base, chat=replace(base.chat, end_ids=())), AdapterSettings(rank=4, alpha=8), seed=3)
    for role in ("policy", "reward"):
        roles.add(role)  # type: ignore[arg-type]
    roles.head("reward").weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    roles.copy("reward", "value")
    settings = SETTINGS.model_copy(update={"sampling_weights": wish, **changes})
    weights = SamplingWeights(base, wish, PLENTY)
    return Ppo(roles, prompts, settings, Scoring(0.0, 1.0), seed=7, emit=events.append, weights=weights)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Makes a copy the faster one by a made-up clock; what was timed: weights, rows, steps."""
    found: list[tuple[str, int, int]] = []

    def projected(model: Any, prompts: Any, sampling: Any, *, steps: int, weights: Weights) -> float:
        found.append((weights, len(prompts), steps))
        return timed(1.0)(weights)

    monkeypatch.setattr(module, "projected_seconds", projected)
    return found


def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sampled with from now on."""
    found: list[str] = []
    plain = module.sample_rollout

    def watched(*arguments: Any, weights: str, **named: Any) -> Any:
        found.append(weights)
        return plain(*arguments, weights=weights, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sample_rollout", watched)
    return found


def test_a_run_times_both_on_the_rows_of_an_update_and_says_so(
    nf4: Base, prompts: Prompts, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    current = learner(nf4, prompts(5), events)
    taken = used(monkeypatch)
    current.explore([(5, 6, 7)], seed=1)  # an evaluation of one prompt comes first
    current.update()
    assert asked == [("quantised", 4, 12), ("copy", 4, 12)]
    assert taken == ["copy", "copy"]
    told = [event.detail for event in events if isinstance(event, Stage) and "4-bit" in event.detail]
    assert told == ["4-bit weights 2.0 s an update, an unpacked copy 1.0 s: an unpacked copy from now on"]


def test_both_really_run(nf4: Base, prompts: Prompts) -> None:
    current = learner(nf4, prompts(5), [])
    current.update()
    assert current.weights.chosen in ("quantised", "copy")
    assert all(seconds > 0 for seconds in current.weights.seconds.values())
    assert set(current.weights.seconds) == {"quantised", "copy"}


def test_the_update_is_the_same_with_either(fresh: Callable[[], Base], prompts: Prompts) -> None:
    """The old log-probabilities come from the 4-bit layers: the first ratio is 1, whatever was sampled with."""
    rounds = []
    for wish in ("quantised", "copy"):
        current = learner(fresh(), prompts(5), [], wish)  # type: ignore[arg-type]
        values = current.update()
        rounds.append(values)
        assert values["first_deviation"] == 0.0
    for name in ("tokens", "length", "kl", "policy_loss", "value_loss", "score"):
        assert rounds[0][name] == pytest.approx(rounds[1][name], rel=1e-3, abs=1e-5), name


def test_a_resumed_run_chooses_as_the_first_did(
    fresh: Callable[[], Base],
    prompts: Prompts,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def run(current: Ppo) -> PpoRun:
        return PpoRun(current, GuardSettings(), emit=lambda event: None, checkpoints=tmp_path)

    def numbers(current: Ppo) -> dict[str, float]:
        return {name: value for name, value in current.update().items() if "second" not in name}

    first = learner(fresh(), prompts(5), [])
    first.update()
    folder = save_checkpoint(run(first), tmp_path)
    wanted = numbers(first)
    second = learner(fresh(), prompts(5), [])
    load_checkpoint(run(second), folder)
    asked.clear()
    taken = used(monkeypatch)
    assert numbers(second) == wanted
    assert (taken, asked) == (["copy"], [])
    assert json.loads(json.dumps(second.weights.state())) == first.weights.state()


def test_when_memory_runs_out_the_copy_goes_before_any_row_does(
    nf4: Base, prompts: Prompts, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    current = learner(nf4, prompts(5), events)
    plain = module.sample_rollout

    def short(*arguments: Any, weights: str, **named: Any) -> Any:
        if weights == "copy":
            raise torch.OutOfMemoryError("no memory left")
        return plain(*arguments, weights="quantised", **named)

    monkeypatch.setattr(module, "sample_rollout", short)
    current.update()
    assert current.weights.chosen == "quantised"
    assert (current.rows.most, current.rows.back_offs) == (4, 0)
    told = [event for event in events if isinstance(event, Alert)]
    assert [event.code for event in told] == ["out-of-memory"]
    assert "without an unpacked copy" in told[0].message
    assert told[0].remedy == "ppo.sampling_weights=quantised starts with that."
    current.update()
    assert len([event for event in events if isinstance(event, Alert)]) == 1


def test_a_copy_that_cannot_even_be_timed_is_not_taken(
    nf4: Base, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def projected(*arguments: Any, weights: Weights, **named: Any) -> float:
        if weights == "copy":
            raise torch.OutOfMemoryError("no memory left")
        return 1.0

    monkeypatch.setattr(module, "projected_seconds", projected)
    current = learner(nf4, prompts(5), [])
    current.update()
    assert (current.weights.chosen, current.rows.most) == ("quantised", 4)


def test_the_layers_are_the_4_bit_ones_again_when_sampling_is_over(nf4: Base, prompts: Prompts) -> None:
    current = learner(nf4, prompts(5), [], "copy")
    current.update()
    with multiplying_with(nf4.model, "quantised", rows=1):
        assert unpacked_bytes(nf4.model) > 0  # which counts those that have no copy
