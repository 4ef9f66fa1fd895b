"""Running out of memory in any phase of PPO costs time and never the step, nor a bit of the result."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Alert, Event, Memory, Stage
from rlhf_tui.settings import PpoSettings
from rlhf_tui.training import objectives, ppo
from rlhf_tui.training.backoff import RowsInFlight
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.rollout import Scoring
from rlhf_tui.training.undo import Undo

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
SCORING = Scoring(0.3, 0.7)  # that of the roles in conftest.py
SETTINGS = PpoSettings(
    updates=4,
    rollout_size=12,
    max_new_tokens=8,
    micro_batch_tokens=64,
    temperature=1.0,
    policy_learning_rate=1e-3,
    value_learning_rate=1e-3,
    target_kl=0.0,
)
REHEARSED = 2  # passes with gradients before the first update: of policy and value, of the largest size
CLOCKS = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")


def learner(roles: Roles, prompts: Sequence[TrainPrompt], events: list[Event] | None = None, **changes: Any) -> Ppo:
    settings = SETTINGS.model_copy(update=changes)
    emit = events.append if events is not None else lambda event: None
    return Ppo(roles, prompts, settings, SCORING, seed=11, emit=emit)


def update(current: Ppo) -> dict[str, float]:
    """The metrics of an update, but for those that a clock made."""
    return {name: value for name, value in current.update().items() if name not in CLOCKS}


def prints(roles: Roles) -> dict[str, str]:
    return {role: roles.fingerprint(role) for role in LEARNING}


class Allocator:
    """A decoder that pretends to have room for so many tokens in a forward pass: with gradients, without, recomputed.

    It is strict only from forward pass number `after` (counted with gradients) on, as if something else had filled
    the card meanwhile.
    """

    def __init__(self, current: Ppo, *, kept: int = 10**9, scored: int = 10**9, recomputed: int = 0, after: int = 0):
        self._inner, self._sizes = current.roles.decoder, current.sizes
        self._kept, self._scored, self._recomputed, self._after = kept, scored, recomputed, after
        self.passes = self.failures = 0
        current.roles._decoder = self

    def lower(self, ids: Tensor) -> Tensor:
        return self._inner.lower(ids)

    def upper(self, lower: Tensor, layers: int | None = None) -> Tensor:
        learns = torch.is_grad_enabled()
        self.passes += learns
        room = self._scored if not learns else max(self._kept, self._recomputed * self._sizes.recompute)
        if lower.shape[0] * lower.shape[1] > room and self.passes >= self._after:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._inner.upper(lower, layers)


def count_runs(current: Ppo) -> dict[tuple[str, bool, str], int]:
    """How often the last layer is run from now on: by whom, whether `sizes` say to run it again, and in which pass."""
    runs: dict[tuple[str, bool, str], int] = {}

    def counting(*_: Any) -> None:
        if torch.is_grad_enabled():
            going = "forward" if torch._C._current_graph_task_id() == -1 else "backward"
            key = (str(current.roles._learning), current.sizes.recompute, going)
            runs[key] = runs.get(key, 0) + 1

    # a part of the layer: what runs the layer again does not pass by the hooks of the layer itself
    current.roles.base.model.get_decoder().layers[-1].mlp.register_forward_pre_hook(counting)
    return runs


@pytest.mark.parametrize(("layers", "room"), [(0, 20), (2, 40)])
def test_scoring_goes_on_in_smaller_passes(room: int, layers: int, fresh_roles: FreshRoles, prompts: Prompts) -> None:
    events: list[Event] = []
    current = learner(fresh_roles(layers=layers), prompts(6), events)
    allocator = Allocator(current, scored=room)
    found = update(current)
    assert 0 < allocator.failures == current.sizes.back_offs
    size = current.sizes.most_tokens
    assert size <= room
    other = learner(fresh_roles(layers=layers), prompts(6), micro_batch_tokens=size)
    assert found == update(other)
    assert prints(current.roles) == prints(other.roles)
    (alert,) = [event for event in events if isinstance(event, Alert)]
    assert (alert.level, alert.code) == ("note", "out-of-memory")
    assert f"ppo.micro_batch_tokens={size}" in alert.remedy


@pytest.mark.parametrize(("after", "layers"), [(1, 0), (2, 2), (7, 0), (10, 2), (13, 0)])
def test_an_update_that_has_begun_is_taken_back_and_done_again(
    after: int, layers: int, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    """Whether the first pass does not fit or one after several steps, policy and value end as with less at a time."""
    current = learner(fresh_roles(layers=layers), prompts(6))
    allocator = Allocator(current, kept=40, after=after + REHEARSED)
    found = update(current)
    assert 0 < allocator.failures == current.sizes.back_offs
    size = current.sizes.most_tokens
    assert size <= 40
    other = learner(fresh_roles(layers=layers), prompts(6), micro_batch_tokens=size)
    assert found == update(other)
    assert found["first_deviation"] == 0.0
    assert prints(current.roles) == prints(other.roles)
    assert update(current) == update(other)  # Adam's moments are the same, too
    assert prints(current.roles) == prints(other.roles)


@pytest.mark.parametrize("after", [1, 10])
def test_in_a_later_update_the_moments_of_adam_are_put_back(
    after: int, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    current, other = learner(fresh_roles(), prompts(6)), learner(fresh_roles(), prompts(6))
    assert update(current) == update(other)
    allocator = Allocator(current, kept=40, after=after)
    found = update(current)
    assert allocator.failures > 0
    other.sizes.most_tokens = current.sizes.most_tokens
    assert found == update(other)
    assert prints(current.roles) == prints(other.roles)
    assert update(current) == update(other)


def test_when_one_completion_does_not_fit_layers_are_run_again(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    events: list[Event] = []
    current = learner(fresh_roles(), prompts(6), events)
    Allocator(current, kept=12, recomputed=10**6)
    runs = count_runs(current)
    found = update(current)
    assert current.sizes.recompute
    assert {again for _, again, going in runs if going == "backward"} == {True}
    for role in LEARNING:
        assert runs[role, True, "backward"] == runs[role, True, "forward"] > 0
    other = learner(fresh_roles(), prompts(6), micro_batch_tokens=current.sizes.most_tokens, checkpointing="on")
    assert found == update(other)
    assert prints(current.roles) == prints(other.roles)
    (alert,) = [event for event in events if isinstance(event, Alert)]
    assert "run again" in alert.message


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_layers_are_run_again_in_the_backward_pass_when_the_settings_ask_for_it(
    checkpointing: str, layers: int, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    current = learner(fresh_roles(layers=layers), prompts(6), checkpointing=checkpointing)
    runs = count_runs(current)
    current.update()
    again = checkpointing == "on"
    for role in LEARNING:
        forward = runs[role, again, "forward"]
        assert forward > 0
        assert runs.get((role, again, "backward"), 0) == forward * again


@pytest.mark.parametrize("checkpointing", ["auto", "off"])
def test_when_nothing_is_left_to_try_it_says_what_would_help(
    checkpointing: str, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    current = learner(fresh_roles(), prompts(6), checkpointing=checkpointing)
    Allocator(current, kept=3)
    with pytest.raises(UserError, match="single forward pass") as caught:
        current.update()
    assert "Tried to allocate" in caught.value.why
    assert "ppo.max_new_tokens" in caught.value.todo
    assert current.done == 0


def test_sampling_goes_on_with_fewer_rows(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    real = ppo.sample_rollout

    def cramped(*arguments: Any, rows: int, **named: Any) -> Any:
        tried.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*arguments, rows=rows, **named)

    other = learner(fresh_roles(), prompts(6), sampling_rows=3)
    wanted = [update(other), update(other)]
    monkeypatch.setattr(ppo, "sample_rollout", cramped)
    events: list[Event] = []
    current = learner(fresh_roles(), prompts(6), events)
    assert [update(current), update(current)] == wanted
    assert tried == [64, 6, 3, 3]  # of 12 completions, 64 at a time are all
    assert prints(current.roles) == prints(other.roles)
    (alert,) = [event for event in events if isinstance(event, Alert)]
    assert "ppo.sampling_rows=3 " in alert.remedy


def test_when_not_even_one_completion_can_be_sampled_it_says_so(fresh_roles: FreshRoles) -> None:
    rows = RowsInFlight(fresh_roles().base, 4)
    tried: list[int] = []

    def work(most: int) -> None:
        tried.append(most)
        raise MemoryError

    with pytest.raises(UserError, match="single completion") as caught:
        rows.survive(work, 100)
    assert tried == [4, 2, 1]
    assert "ppo.max_new_tokens" in caught.value.todo


@pytest.mark.parametrize("phase", ["sample_rollout", "evaluate_rollout", "response_values"])
def test_other_errors_are_not_taken_for_a_lack_of_memory(
    phase: str, fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    current = learner(fresh_roles(), prompts(6))
    monkeypatch.setattr(ppo, phase, broken)
    with pytest.raises(RuntimeError, match="something else"):
        current.update()
    assert current.sizes.back_offs == current.rows.back_offs == 0


def test_what_was_learnt_about_sizes_is_in_the_checkpoint(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    current = learner(fresh_roles(), prompts(6))
    current.rows.most, current.rows.back_offs = 3, 4
    Allocator(current, kept=12, recomputed=10**6)
    current.update()
    state = current.state()
    other = learner(fresh_roles(), prompts(6))
    other.resume(1, state, {})
    assert other.state() == state
    assert (other.rows.most, other.sizes.most_tokens, other.sizes.recompute) == (3, current.sizes.most_tokens, True)


def test_a_judge_is_asked_once_however_often_memory_runs_out(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    asked: list[int] = []

    def judge(sequences: Sequence[Any]) -> list[float]:
        asked.append(len(sequences))
        return [float(len(one.response)) for one in sequences]

    current = Ppo(fresh_roles(), prompts(6), SETTINGS, SCORING, seed=11, emit=lambda event: None, judge=judge)
    Allocator(current, kept=40, after=7)
    values = current.update()
    assert current.sizes.back_offs > 0
    assert asked == [12]
    assert values["score_raw"] == pytest.approx(values["length"])


# -- what is measured and told --------------------------------------------------------------------


def test_memory_is_measured_by_phase_in_the_first_update_and_after_a_change_of_sizes(
    fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    events: list[Event] = []
    current = learner(fresh_roles(), prompts(6), events)
    phases = []
    for number in range(4):
        if number == 2:
            current.sizes.most_tokens = 30
        events.clear()
        current.update()
        phases.append([event.phase for event in events if isinstance(event, Memory)])
    everything = ["sampling", "scoring", "update"]
    assert phases == [everything, [], everything, []]


def test_sampling_tells_how_far_it_is_a_few_times(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    events: list[Event] = []
    learner(fresh_roles(), prompts(6), events).update()
    told = [event for event in events if isinstance(event, Stage)]
    assert [event.name for event in told[-2:]] == ["scoring", "learning"]
    details = [event.detail for event in told if event.name == "sampling"]
    assert details[0] == "update 1 of 4"
    assert details[-1] == "update 1 of 4, 12 of 12 completions"
    assert len(details) <= 9


# -- taking back ----------------------------------------------------------------------------------


def test_undo_restores_weights_and_moments_bit_for_bit(fresh_roles: FreshRoles, prompts: Prompts) -> None:
    roles = fresh_roles()
    current = learner(roles, prompts(6))

    def everything() -> list[Tensor]:
        own = [parameter for role in LEARNING for parameter in roles.parameters(role)]
        moments = [slot for o in current.optimisers.values() for s in o.state.values() for slot in s.values()]
        return [tensor.detach().clone() for tensor in (*own, *moments)]

    fresh = everything()
    undo = Undo(roles, current.optimisers, current.scaling)
    current.update()
    assert len(everything()) > len(fresh)
    undo.restore()
    assert len(everything()) == len(fresh)  # moments that were not there are gone again
    assert all(torch.equal(one, other) for one, other in zip(everything(), fresh, strict=True))

    current.update()
    stepped = everything()
    undo = Undo(roles, current.optimisers, current.scaling)
    current.update()
    assert not all(torch.equal(one, other) for one, other in zip(everything(), stepped, strict=True))
    undo.restore()
    assert all(torch.equal(one, other) for one, other in zip(everything(), stepped, strict=True))
    assert all(parameter.grad is None for role in LEARNING for parameter in roles.parameters(role))


def test_the_cache_of_keys_and_values_is_gone_before_anything_is_scored(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the garbage collector: it may come late, and the cache is as large as all that is learnt."""
    caches: list[weakref.ref[Any]] = []
    made, scored = Cache.__init__, ppo.evaluate_rollout

    def counting(self: Cache, *arguments: Any, **named: Any) -> None:
        caches.append(weakref.ref(self))
        made(self, *arguments, **named)

    def looking(*arguments: Any, **named: Any) -> Any:
        assert caches
        assert all(cache() is None or not any(_held(layer) for layer in cache().layers) for cache in caches)
        return scored(*arguments, **named)

    current = learner(fresh_roles(), prompts(6))
    monkeypatch.setattr(Cache, "__init__", counting)
    monkeypatch.setattr(ppo, "evaluate_rollout", looking)
    gc.collect()
    gc.disable()
    try:
        current.update()
    finally:
        gc.enable()


def test_memory_is_given_back_between_sampling_and_scoring_and_after_the_update(
    fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noting(place: Any, name: str) -> None:
        real = getattr(place, name)

        def noted(*arguments: Any, **named: Any) -> Any:
            order.append(name)
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, noted)

    current = learner(fresh_roles(), prompts(6))
    current.update()
    for name in ("sample_rollout", "evaluate_rollout", "release", "describe"):
        noting(ppo, name)
    noting(objectives, "value_loss")
    current.update()
    calls = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert calls == ["sample_rollout", "release", "evaluate_rollout", "value_loss", "release", "describe"]


def _held(layer: Any) -> bool:
    return getattr(layer, "keys", None) is not None and layer.keys.numel() > 0
