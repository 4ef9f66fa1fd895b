"""A run around its updates: which policy is best, what follows from alerts, and that a resumed one ends the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_tui.errors import UserError
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import Alert, Checkpoint, Event, Memory, Metric, Sample, Stage
from rlhf_tui.settings import GuardSettings, PpoSettings
from rlhf_tui.training import ppo
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.checkpoint import best_facts, load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.guards import NotFinite
from rlhf_tui.training.heldout import Evaluation, Heldout
from rlhf_tui.training.optimisation import adam
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.ppo_run import Outcome, PpoRun
from rlhf_tui.training.rollout import Judge, Scoring

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
SMALL = PpoSettings(
    updates=6, rollout_size=4, max_new_tokens=5, micro_batch_tokens=64, temperature=1.0, policy_learning_rate=1e-3,
    value_learning_rate=1e-3, epochs=1, kl_coefficient=0.1, evaluate_every=2, evaluate_prompts=3, save_every=3,
)  # fmt: skip
FINE = {
    "score": 0.1, "kl": 5.0, "entropy": 1.0, "eos_rate": 0.8, "length": 40.0, "repetition": 0.05, "saturation": 0.0,
}  # fmt: skip
CLOCKS = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")


class Stopped(Exception):
    """What a boundary raises to end a run."""


# -- a run whose numbers are written down beforehand ----------------------------------------------


class Scripted:
    """Stands for a learner: every update moves all weights by its number and gives the numbers of the script."""

    def __init__(self, roles: Roles, settings: PpoSettings, numbers: dict[int, dict[str, float] | Exception]) -> None:
        self.roles, self.settings, self.numbers = roles, settings, numbers
        self.done, self.kl_coefficient, self.critic_warmup = 0, settings.kl_coefficient, 0
        self.optimisers = {role: adam(roles, role, adapter_rate=0.01, head_rate=0.01) for role in LEARNING}
        self.taken: list[int] = []

    def skips(self, role: str) -> bool:
        return False

    def update(self) -> dict[str, float]:
        self.done += 1
        self.taken.append(self.done)
        with torch.no_grad():
            for role in LEARNING:
                for parameter in self.roles.parameters(role):
                    parameter.add_(0.01 * self.done)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    optimiser.state[parameter] = {"exp_avg": torch.ones_like(parameter)}
        found = self.numbers.get(self.done, {})
        if isinstance(found, Exception):
            raise found
        return FINE | found

    def state(self) -> dict[str, Any]:
        return {"kl_coefficient": self.kl_coefficient}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def resume(self, done: int, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        self.done, self.kl_coefficient = done, state["kl_coefficient"]


class Looks:
    """Stands for the held-out prompts."""

    has_second_opinion = True

    def __init__(self, numbers: dict[int, dict[str, float]]) -> None:
        self.numbers, self.updates = numbers, list[int]()

    def evaluate(self, update: int) -> Evaluation:
        self.updates.append(update)
        found = {"score": 0.0, "kl": 0.0, "length": 40.0, "eos_rate": 0.8, "repetition": 0.05}
        return Evaluation(update=update, **(found | self.numbers.get(update, {})))

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing to resume")


class Play:
    """A scripted run, and what came of it."""

    def __init__(
        self,
        roles: Roles,
        folder: Path,
        script: dict[int, dict[str, float] | Exception] | None = None,
        looks: dict[int, dict[str, float]] | None = None,
        *,
        guard: GuardSettings = GuardSettings(),  # noqa: B008 (frozen)
        **changes: Any,
    ) -> None:
        self.events: list[Event] = []
        self.learner = Scripted(roles, SMALL.model_copy(update=changes), script or {})
        self.looks = Looks(looks or {})
        self.prints = {0: roles.fingerprint("policy")}
        self.saved: list[int] = []
        self.run = PpoRun(
            self.learner,
            guard,
            emit=self._hear,
            checkpoints=folder,
            heldout=self.looks,  # type: ignore[arg-type]
        )

    def go(self) -> Outcome:
        return self.run.run(save=lambda run: self.saved.append(run.done), boundary=lambda save: None)

    @property
    def alerts(self) -> list[tuple[str, str]]:
        return [(event.level, event.code) for event in self.events if isinstance(event, Alert)]

    @property
    def bests(self) -> list[int]:
        return [event.step for event in self.events if isinstance(event, Checkpoint) and event.best]

    def policy(self) -> str:
        return self.learner.roles.fingerprint("policy")

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Metric):
            self.prints[self.learner.done] = self.policy()


def far(kl: float = 60.0) -> dict[str, float]:
    return {"kl": kl}


def test_it_looks_before_the_first_update_now_and_then_and_at_the_end(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(fresh_roles(), tmp_path, updates=5)
    assert play.go().ended == "finished"
    assert play.looks.updates == [0, 2, 4, 5]
    assert play.saved == [3, 5]


def test_the_best_within_the_budget_is_kept(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    looks = {2: {"score": 0.5, "kl": 8.0}, 4: {"score": 0.9, "kl": 15.1}, 6: {"score": 0.5, "kl": 15.0}}
    play = Play(fresh_roles(), tmp_path, looks=looks)
    outcome = play.go()
    assert play.bests == [0, 2]  # 4 is too far, 6 only as good
    assert (outcome.kept, outcome.updates) == (2, 6)
    assert play.policy() == play.prints[2] != play.prints[6]
    assert [one.update for one in (outcome.start, outcome.best, outcome.end) if one] == [0, 2, 6]
    assert "+0.50 deviations over the start" in outcome.why
    assert best_facts(LEARNING, tmp_path) == play.looks.evaluate(2).as_dict()


def test_one_that_repeats_itself_is_not_the_best(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    looks = {2: {"score": 0.5}, 4: {"score": 0.9, "repetition": 0.41}}
    assert Play(fresh_roles(), tmp_path, looks=looks).go().kept == 2


def test_with_a_second_reward_model_the_smaller_gain_counts(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    gains = {0: (1.0, 0.2), 2: (1.5, 0.6), 4: (4.0, 0.3), 6: (1.3, 3.0)}  # smaller gain: 0, 0.4, 0.1, 0.3
    looks = {update: {"score": score, "gold": gold} for update, (score, gold) in gains.items()}
    outcome = Play(fresh_roles(), tmp_path, looks=looks).go()
    assert outcome.kept == 2
    assert "two reward models" in outcome.why


def test_when_nothing_beats_the_start_it_says_so_and_keeps_the_base(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(fresh_roles(), tmp_path, looks={2: {"score": -0.1}, 4: {"score": 0.0}, 6: {"score": -0.2}})
    outcome = play.go()
    assert outcome.kept == 0
    assert "Nothing within 15 nats beat the start" in outcome.why
    assert play.policy() == play.prints[0]


def test_the_last_one_is_kept_on_request_or_where_nothing_is_evaluated(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    looks = {2: {"score": 0.5}}
    for changes, bests in (({"keep": "last"}, [0, 2]), ({"evaluate_every": 0}, [])):
        play = Play(fresh_roles(), tmp_path, looks=looks, **changes)
        outcome = play.go()
        assert (outcome.kept, play.bests) == (6, bests)
        assert play.policy() == play.prints[6]


def test_the_memory_of_the_first_evaluation_is_measured_before_that_of_an_update(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    """Once: a later one takes no more, and what an update takes is not its."""
    run, events = real(fresh_roles(), prompts, tmp_path, GuardSettings(action="warn"), updates=2, evaluate_every=1)
    carry_out(run, tmp_path)
    order = [event.phase for event in events if isinstance(event, Memory)]
    assert order == ["evaluation", "sampling", "scoring", "update"]
    told = [event for event in events if isinstance(event, Memory | Stage)]
    names = [event.phase if isinstance(event, Memory) else event.name for event in told]
    assert names[: names.index("evaluation") + 1] == ["evaluating", "evaluation"]


# -- what follows from alerts ---------------------------------------------------------------------


def test_stop_ends_the_run_measures_the_end_and_keeps_the_best(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(fresh_roles(), tmp_path, {3: far()}, {2: {"score": 0.5}, 3: {"score": 0.9, "kl": 60.0}})
    outcome = play.go()
    assert (outcome.ended, outcome.updates, outcome.kept) == ("kl-runaway", 3, 2)
    assert play.alerts == [("stop", "kl-runaway"), ("note", "kl-budget")]
    assert play.looks.updates == [0, 2, 3]
    assert play.saved == [3]
    assert [(one.update, one.code) for one in outcome.alerts] == [(3, "kl-runaway"), (3, "kl-budget")]
    assert play.policy() == play.prints[2]


def test_warn_only_says_so_once(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(fresh_roles(), tmp_path, {step: far() for step in (2, 3, 4)}, guard=GuardSettings(action="warn"))
    assert play.go().ended == "finished"
    assert play.alerts == [("warning", "kl-runaway")]


@pytest.mark.parametrize("action", ["stop", "rollback", "warn"])
def test_what_may_be_wanted_is_a_warning_whatever_the_action(
    action: Any, fresh_roles: FreshRoles, tmp_path: Path
) -> None:
    odd = {"entropy": 0.01, "eos_rate": 0.2, "length": 400.0, "saturation": 0.9}
    looks = {update: {"score": 0.5} for update in (2, 4, 6)}
    play = Play(fresh_roles(), tmp_path, dict.fromkeys((3, 4), odd), looks, guard=GuardSettings(action=action))
    outcome = play.go()
    assert (outcome.ended, outcome.updates, outcome.rollbacks) == ("finished", 6, 0)
    assert play.alerts == [("warning", code) for code in ("entropy-low", "length-drift", "eos-drop", "saturation")]


def test_rollback_goes_on_from_the_best_twice_and_then_stops(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(
        fresh_roles(), tmp_path, {3: far(), 5: far(), 8: far()}, {update: {"score": 0.5} for update in (2, 4, 6, 8)},
        guard=GuardSettings(action="rollback"), updates=12,
    )  # fmt: skip
    seen: list[tuple[Any, ...]] = []
    for one in play.learner.optimisers["policy"].param_groups:
        assert one["peak"] == 0.01

    def boundary(save: Callable[[], None]) -> None:
        if play.learner.done in (3, 5):
            groups = [group for role in LEARNING for group in play.learner.optimisers[role].param_groups]
            moved = any(optimiser.state for optimiser in play.learner.optimisers.values())
            seen.append((play.policy(), play.learner.kl_coefficient, {group["peak"] for group in groups}, moved))

    outcome = play.run.run(save=lambda run: play.saved.append(run.done), boundary=boundary)
    assert seen == [(play.prints[2], 0.2, {0.005}, False), (play.prints[2], 0.4, {0.0025}, False)]
    assert (outcome.ended, outcome.updates, outcome.rollbacks, outcome.kept) == ("kl-runaway", 8, 2, 2)
    assert play.alerts == [("warning", "kl-runaway"), ("note", "rolled-back")] * 2 + [("stop", "kl-runaway")]
    assert play.learner.taken == list(range(1, 9))
    assert play.saved == [3, 5, 8]


def test_without_a_best_policy_a_rollback_is_a_stop(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    play = Play(fresh_roles(), tmp_path, {3: far()}, guard=GuardSettings(action="rollback"), evaluate_every=0)
    outcome = play.go()
    assert (outcome.ended, outcome.kept, outcome.rollbacks) == ("kl-runaway", 3, 0)


@pytest.mark.parametrize("action", ["stop", "warn", "rollback"])
def test_numbers_that_are_not_finite(action: Any, fresh_roles: FreshRoles, tmp_path: Path) -> None:
    broken = NotFinite("Update 3 gave nan.", why="Too far.", todo="Lower it.")
    looks = {update: {"score": 0.5} for update in (2, 4, 6)}
    play = Play(fresh_roles(), tmp_path, {3: broken}, looks, guard=GuardSettings(action=action))
    if action == "warn":
        with pytest.raises(NotFinite):
            play.go()
        return
    outcome = play.go()
    assert outcome.kept == 2
    assert play.policy() == play.prints[2]
    if action == "stop":
        assert (outcome.ended, play.alerts) == ("nan", [("stop", "nan")])
        assert 3 not in play.saved  # these weights are worth nothing
    else:
        assert (outcome.ended, play.alerts) == ("finished", [("warning", "nan"), ("note", "rolled-back")])


def test_numbers_that_are_not_finite_with_nothing_to_keep_are_an_error(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    for changes in ({}, {"keep": "last"}, {"evaluate_every": 0}):
        play = Play(fresh_roles(), tmp_path, {1: NotFinite("Update 1 gave nan.")}, **changes)
        with pytest.raises(UserError, match="gave nan"):
            play.go()


# -- going on -------------------------------------------------------------------------------------


def real(
    roles: Roles, prompts: Prompts, folder: Path, guard: GuardSettings, *, judge: Judge | None = None, **changes: Any
) -> tuple[PpoRun, list[Event]]:
    """A real learner with held-out prompts, and a second opinion that dislikes what the first one likes."""
    events: list[Event] = []
    settings = SMALL.model_copy(update=changes)
    learner = Ppo(roles, prompts(5), settings, Scoring(0.3, 0.7), seed=11, emit=events.append, judge=judge)
    heldout = Heldout(
        roles, prompts(7)[-settings.evaluate_prompts :], learner.explore, seed=11, emit=events.append,
        gold=lambda sequences: [float(sum(one.response) % 17) for one in sequences],
    )  # fmt: skip
    return PpoRun(learner, guard, emit=events.append, checkpoints=folder, heldout=heldout), events


def carry_out(run: PpoRun, folder: Path, *, stop_after: int = -1) -> Outcome | None:
    def boundary(save: Callable[[], None]) -> None:
        if run.done == stop_after:
            save()
            raise Stopped

    try:
        return run.run(save=lambda current: save_checkpoint(current, folder), boundary=boundary)  # type: ignore[func-returns-value]
    except Stopped:
        return None


def told(events: Sequence[Event]) -> list[Any]:
    """Numbers, alerts and samples, without what a clock made."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, Metric):
            found.append((event.step, {key: value for key, value in event.values.items() if key not in CLOCKS}))
        elif isinstance(event, Alert | Sample):
            found.append(event)
    return found


@pytest.mark.parametrize("action", ["warn", "rollback", "stop"])
def test_a_run_that_was_cut_off_has_the_same_evaluations_and_the_same_end(
    action: Any, fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    """Evaluations, alerts, rollbacks, the kept policy and the result are those of the whole run."""
    guard = GuardSettings(action=action, max_kl=0.02, kl_budget=3.0)
    changes = {"policy_learning_rate": 0.01, "kl_coefficient": 0.01}
    whole, events = real(fresh_roles(layers=2), prompts, tmp_path / "whole", guard, **changes)
    wanted = carry_out(whole, tmp_path / "whole")
    assert wanted is not None
    assert (wanted.rollbacks > 0) == (action == "rollback")
    assert any(one.code == "kl-runaway" for one in wanted.alerts)
    for cut in {"warn": (0, 3), "rollback": (2, 4, 5), "stop": (1,)}[action]:
        folder = tmp_path / f"cut-{cut}"
        first, before = real(fresh_roles(layers=2), prompts, folder, guard, **changes)
        assert carry_out(first, folder, stop_after=cut) is None
        second, after = real(fresh_roles(layers=2), prompts, folder, guard, **changes)
        newest = newest_checkpoint(folder, LEARNING)
        assert newest is not None
        load_checkpoint(second, newest)
        found = carry_out(second, folder)
        assert found == wanted
        assert told(before) + told(after) == told(events)
        for role in LEARNING:
            assert second.roles.fingerprint(role) == whole.roles.fingerprint(role)


def test_a_run_that_had_ended_ends_at_once(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    """The last checkpoint was written, but the process died before it could say so."""
    guard = GuardSettings(max_kl=0.02)
    whole, _ = real(fresh_roles(), prompts, tmp_path, guard, policy_learning_rate=0.01)
    wanted = carry_out(whole, tmp_path)
    assert wanted is not None
    assert wanted.ended == "kl-runaway"
    again, events = real(fresh_roles(), prompts, tmp_path, guard, policy_learning_rate=0.01)
    load_checkpoint(again, tmp_path / f"step-{wanted.updates:06d}")
    assert carry_out(again, tmp_path) == wanted
    assert told(events) == []
    assert again.roles.fingerprint("policy") == whole.roles.fingerprint("policy")


def test_a_lost_best_policy_is_told_and_searched_again(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    first, _ = real(fresh_roles(), prompts, tmp_path, GuardSettings())
    assert carry_out(first, tmp_path, stop_after=3) is None
    (tmp_path / "best" / "value" / "head.safetensors").unlink()
    second, events = real(fresh_roles(), prompts, tmp_path, GuardSettings())
    load_checkpoint(second, tmp_path / "step-000003")
    outcome = carry_out(second, tmp_path)
    assert outcome is not None
    assert next(event.code for event in events if isinstance(event, Alert)) == "best-lost"
    assert outcome.kept >= 4


def test_the_outcome_is_plain_data(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    found = Play(fresh_roles(), tmp_path, {3: far()}, {2: {"score": 0.5}}).go().as_dict()
    assert json.loads(json.dumps(found)) == found | {"alerts": list(found["alerts"])}
    assert {"ended", "updates", "kept", "why", "start", "best", "end", "alerts", "rollbacks"} == set(found)


# -- adapters that stand still --------------------------------------------------------------------


@pytest.mark.parametrize("role", LEARNING)
def test_an_adapter_that_stands_still_under_a_head_that_moves_is_found(
    role: Role, fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detached right below the heads, states carry no gradient to the adapter, and only the value's head learns."""
    cut = {"policy": "response_logprobs", "value": "response_values"}[role]
    roles = fresh_roles()
    run, _ = real(roles, prompts, tmp_path, GuardSettings())
    decoder, whole = roles.decoder, getattr(ppo, cut)

    def detached(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(decoder, "upper", lambda lower, layers=None: upper(lower, layers).detach().requires_grad_())
            return whole(*arguments)

    upper = decoder.upper
    monkeypatch.setattr(ppo, cut, detached)
    before = roles.fingerprint(role)
    with pytest.raises(UserError, match=f"The {role} adapter did not move"):
        run.run(save=lambda current: None, boundary=lambda save: None)
    assert run.done == 1
    assert (roles.fingerprint(role) != before) == (role == "value")


def test_an_adapter_under_a_head_of_zeros_has_until_its_second_step(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    """No gradient passes such a head: the first step moves the head alone, and that is no alarm."""
    for rate, updates in ((1e-3, 6), (1e-60, 2)):
        roles = fresh_roles()
        with torch.no_grad():
            for parameter in roles.head("value").parameters():
                parameter.zero_()
        run, _ = real(
            roles, prompts, tmp_path, GuardSettings(), critic_warmup_updates=0, minibatches=1, evaluate_every=0,
            value_learning_rate=1e-3,
        )  # fmt: skip
        run.optimisers["value"].param_groups[0]["peak"] = rate
        if rate == 1e-3:
            assert run.run(save=lambda current: None, boundary=lambda save: None).ended == "finished"
        else:
            with pytest.raises(UserError, match="The value adapter did not move"):
                run.run(save=lambda current: None, boundary=lambda save: None)
        assert run.done == updates


# -- a reward model that can be cheated -----------------------------------------------------------


def hacked(
    roles: Roles, asked: Sequence[TrainPrompt], folder: Path, *, gold: Judge | None, updates: int, **guard: Any
) -> tuple[PpoRun, Heldout]:
    """A run whose judge pays for length, and whose guards look at nothing but scores and length."""
    settings = PpoSettings(
        updates=updates, rollout_size=24, max_new_tokens=20, micro_batch_tokens=4096, temperature=1.0, minibatches=1,
        policy_learning_rate=0.02, value_learning_rate=0.02, kl_coefficient=0.0, missing_eos_penalty=0.0,
        evaluate_every=2, evaluate_prompts=32, score_clip=10.0, warmup_updates=0,
    )  # fmt: skip

    def proxy(sequences: Sequence[Tokens]) -> list[float]:
        return [float(len(one.response)) for one in sequences]

    events: list[Event] = []
    learner = Ppo(roles, asked[:8], settings, Scoring(6.0, 5.0), seed=3, emit=events.append, judge=proxy)
    heldout = Heldout(roles, asked[8:40], learner.explore, seed=3, emit=events.append, gold=gold)
    limits = GuardSettings(max_kl=1e4, kl_budget=1e4, length_drift=1.3, max_repetition=1.0, **guard)
    return PpoRun(learner, limits, emit=events.append, checkpoints=folder, heldout=heldout), heldout


def test_a_reward_for_length_is_found_out_and_the_policy_is_from_before_the_hack(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    """What is wanted is about 7 tokens: the second opinion rises, then falls."""

    def gold(sequences: Sequence[Tokens]) -> list[float]:
        return [-abs(len(one.response) - 7.0) for one in sequences]

    run, heldout = hacked(fresh_roles(layers=2), prompts(40), tmp_path, gold=gold, updates=60)
    outcome = run.run(save=lambda current: None, boundary=lambda save: None)
    assert outcome.ended == "gold-falls"
    assert outcome.updates < 60
    assert "no-gold" not in {one.code for one in outcome.alerts}
    assert "length-drift" in {one.code for one in outcome.alerts}
    assert outcome.best is not None
    assert outcome.end is not None
    assert outcome.end.gold is not None
    assert outcome.end.score > outcome.best.score  # by the judge alone the hack would have been offered
    assert outcome.end.gold < -0.5
    assert outcome.best.gold is not None
    assert outcome.best.gold >= 0.0
    assert outcome.kept == outcome.best.update < outcome.updates
    assert outcome.best.length < 12 < outcome.end.length
    again = heldout.evaluate(outcome.kept)
    assert again == outcome.best  # the roles are those of that policy


def test_without_a_second_opinion_the_hack_goes_on_and_the_run_has_said_so_at_its_start(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    run, _ = hacked(fresh_roles(layers=2), prompts(40), tmp_path, gold=None, updates=16)
    outcome = run.run(save=lambda current: None, boundary=lambda save: None)
    assert outcome.ended == "finished"
    assert outcome.start is not None
    assert outcome.best is not None
    assert outcome.best.length > 1.5 * outcome.start.length  # by the judge alone the best one is of the hack
    told = outcome.alerts[0]
    assert (told.update, told.level, told.code) == (0, "note", "no-gold")
    assert [one.code for one in outcome.alerts].count("no-gold") == 1


def test_without_a_second_opinion_warnings_that_are_acted_on_end_the_hack(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    run, _ = hacked(fresh_roles(layers=2), prompts(40), tmp_path, gold=None, updates=16, act_on="warnings")
    outcome = run.run(save=lambda current: None, boundary=lambda save: None)
    assert outcome.ended == "length-drift"
    assert outcome.updates < 16
    assert outcome.kept <= outcome.updates
