"""A run that was cut off goes on bit for bit; a damaged checkpoint is passed over."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from rlhf_tui.errors import DiskError, UserError
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.runs.events import Alert, Event, Metric, Progress
from rlhf_tui.settings import GuardSettings, PpoSettings, RunSettings
from rlhf_tui.training import guards
from rlhf_tui.training.checkpoint import (
    best_facts,
    keep_best,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    signed,
)
from rlhf_tui.training.guards import NotFinite
from rlhf_tui.training.ppo import LEARNING, Ppo, TrainPrompt
from rlhf_tui.training.ppo_run import PpoRun
from rlhf_tui.training.rollout import Scoring

FreshRoles = Callable[..., Roles]
Prompts = Callable[[int], list[TrainPrompt]]
SETTINGS = PpoSettings(
    updates=4,
    rollout_size=4,
    max_new_tokens=5,
    micro_batch_tokens=64,
    temperature=1.0,
    policy_learning_rate=1e-3,
    value_learning_rate=1e-3,
    kl_target=3.0,
    kl_horizon=50,
)


class Stopped(Exception):
    """What a boundary raises to end a run."""


def learner(roles: Roles, prompts: Sequence[TrainPrompt], **changes: Any) -> Ppo:
    settings = SETTINGS.model_copy(update=changes)
    return Ppo(roles, prompts, settings, Scoring(0.3, 0.7), seed=11, emit=lambda event: None)


def train(
    current: Ppo,
    folder: Path,
    *,
    guard: GuardSettings = GuardSettings(),  # noqa: B008 (frozen)
    stop_after: int | None = None,
    save_when_stopping: bool = True,
    resume: str = "",
) -> tuple[str, list[Event]]:
    """Run with real checkpoints. `stop_after`: the boundary saves and raises once so many updates are done.

    `resume`: the checkpoint from which it goes on, if any.
    """
    events: list[Event] = []
    run = PpoRun(current, guard, emit=events.append, checkpoints=folder)
    if resume:
        load_checkpoint(run, folder / resume)

    def boundary(save: Callable[[], None]) -> None:
        if current.done == stop_after:
            if save_when_stopping:
                save()
            raise Stopped

    def save(run: PpoRun) -> None:
        save_checkpoint(run, folder)

    try:
        return run.run(save=save, boundary=boundary).ended, events
    except Stopped:
        return "stopped", events


def measured(events: Sequence[Event]) -> dict[int, dict[str, float]]:
    """The metrics of every update, but for those that a clock made."""
    clocks = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")
    return {
        event.step: {name: value for name, value in event.values.items() if name not in clocks}
        for event in events
        if isinstance(event, Metric)
    }


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [0, 2])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(
    layers: int, fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    whole = learner(fresh_roles(layers=layers), prompts(5))
    ended, events = train(whole, tmp_path / "whole")
    assert ended == "finished"
    wanted = measured(events)
    assert sorted(wanted) == [1, 2, 3, 4]

    first = learner(fresh_roles(layers=layers), prompts(5))
    ended, events = train(first, tmp_path / "cut", stop_after=2)
    assert ended == "stopped"
    assert measured(events) == {1: wanted[1], 2: wanted[2]}

    second = learner(fresh_roles(layers=layers), prompts(5))
    checkpoint = newest_checkpoint(tmp_path / "cut", LEARNING)
    assert checkpoint is not None
    ended, events = train(second, tmp_path / "cut", resume=checkpoint.name)
    assert first.kl_coefficient != SETTINGS.kl_coefficient
    assert ended == "finished"
    assert measured(events) == {3: wanted[3], 4: wanted[4]}
    for role in LEARNING:
        assert second.roles.fingerprint(role) == whole.roles.fingerprint(role)


def test_without_its_optimisers_it_would_not_be_the_same(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    """The test above can fail: forget Adam's memory and the next weights are others."""
    prints = []
    current = learner(fresh_roles(layers=2), prompts(5))
    current.update()
    current.update()
    save_checkpoint(current, tmp_path)
    for forget in (False, True):
        again = learner(fresh_roles(layers=2), prompts(5))
        load_checkpoint(again, tmp_path / "step-000002")
        if forget:
            for optimiser in again.optimisers.values():
                optimiser.state.clear()
        again.update()
        prints.append(again.roles.fingerprint("policy"))
    assert prints[0] != prints[1]


def test_loading_brings_back_every_number(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(), prompts(5))
    current.update()
    folder = save_checkpoint(current, tmp_path)
    assert folder == tmp_path / "step-000001"
    other = learner(fresh_roles(), prompts(5))
    load_checkpoint(other, folder)
    for role in LEARNING:
        assert other.roles.fingerprint(role) == current.roles.fingerprint(role)
        states = [one.optimisers[role].state_dict()["state"] for one in (current, other)]
        assert states[0].keys() == states[1].keys()
        assert len(states[0]) == len(current.roles.parameters(role))
        for index, slots in states[0].items():
            assert all(torch.equal(tensor, states[1][index][name]) for name, tensor in slots.items())
    assert other.roles.fingerprint("reward") == current.roles.fingerprint("reward")


# -- keeping --------------------------------------------------------------------------------------


def test_the_newest_two_are_kept(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(layers=2), prompts(5), save_every=1, epochs=1)
    train(current, tmp_path)
    assert saved(tmp_path) == ["step-000003", "step-000004"]
    newest = newest_checkpoint(tmp_path, LEARNING)
    assert newest is not None
    assert newest.name == "step-000004"


def test_more_are_kept_when_the_settings_say_so(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(layers=2), prompts(5))
    for step in range(1, 9):
        current.done = step
        save_checkpoint(current, tmp_path, RunSettings(keep_checkpoints=1, keep_every=3))
    assert saved(tmp_path) == ["step-000003", "step-000006", "step-000008"]
    current.done = 9
    save_checkpoint(current, tmp_path, RunSettings(keep_checkpoints=3))
    assert saved(tmp_path) == ["step-000006", "step-000008", "step-000009"]


def test_a_damaged_one_pushes_no_good_one_out(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(layers=2), prompts(5))

    def save(step: int, settings: RunSettings) -> None:
        current.done = step
        save_checkpoint(current, tmp_path, settings)

    for step in (3, 4, 6):
        save(step, RunSettings())
    _flip(tmp_path / "step-000006" / "optimisers.safetensors")
    found = newest_checkpoint(tmp_path, LEARNING)
    assert found == tmp_path / "step-000004"
    save(5, RunSettings(keep_checkpoints=1))  # a damaged one with a higher number is no reason to drop this one
    assert saved(tmp_path) == ["step-000005"]
    save(6, RunSettings())
    _flip(tmp_path / "step-000006" / "optimisers.safetensors")
    save(7, RunSettings())  # of two to keep, the damaged one is none
    assert saved(tmp_path) == ["step-000005", "step-000007"]


def test_the_best_and_strangers_are_never_tidied_away(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    current = learner(fresh_roles(layers=2), prompts(5))
    keep_best(current.roles, LEARNING, {"update": 0}, tmp_path)
    (tmp_path / "step-by-step").mkdir()
    for current.done in (1, 2, 3, 4):
        save_checkpoint(current, tmp_path)
    assert saved(tmp_path) == ["best", "step-000003", "step-000004", "step-by-step"]


@pytest.mark.parametrize("name", ["step-000002", "best"])
def test_killed_between_two_renamings_the_old_one_is_found_again(
    name: str, fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    current = learner(fresh_roles(layers=2), prompts(5))
    for current.done in (1, 2):
        save_checkpoint(current, tmp_path)
    keep_best(current.roles, LEARNING, {"update": 1}, tmp_path)
    (tmp_path / name).rename(tmp_path / f"{name}.old")
    (tmp_path / f"{name}.partial").mkdir()
    newest = newest_checkpoint(tmp_path, LEARNING)
    assert newest == tmp_path / "step-000002"
    assert best_facts(LEARNING, tmp_path) == {"update": 1}
    assert saved(tmp_path) == ["best", "step-000001", "step-000002"]


@pytest.mark.parametrize("during", ["the policy", "the optimisers", "the state"])
def test_a_full_disk_leaves_the_one_before_and_no_half(
    during: str, made: Path, fresh_roles: FreshRoles, prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the libraries say it: safetensors by a text alone, the rest by an OSError."""
    current = learner(fresh_roles(layers=2), prompts(5))
    load_checkpoint(current, made / "step-000002")
    current.done = 3

    def full(*arguments: object, **named: object) -> None:
        if during == "the state":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    where = {"the policy": "rlhf_tui.model.roles.save_file", "the optimisers": "rlhf_tui.training.checkpoint.save_file"}
    monkeypatch.setattr(where.get(during, "pathlib.Path.write_text"), full)
    with pytest.raises(DiskError, match="the checkpoint of step 3 could not be kept") as caught:
        save_checkpoint(current, made)
    assert "No space left" in caught.value.why
    assert saved(made) == ["step-000001", "step-000002"]
    assert newest_checkpoint(made, LEARNING) == made / "step-000002"


def test_saving_twice_at_the_same_update_leaves_one(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(), prompts(5))
    current.update()
    for _ in range(2):
        save_checkpoint(current, tmp_path)
    assert saved(tmp_path) == ["step-000001"]
    load_checkpoint(current, tmp_path / "step-000001")


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, LEARNING) is None
    assert newest_checkpoint(tmp_path / "nowhere", LEARNING) is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink], ids=["cut short", "one bit", "gone"])
@pytest.mark.parametrize(
    "file",
    ["optimisers.safetensors", "policy/adapter_model.safetensors", "value/head.safetensors", "policy/manifest.json"],
)
def test_a_damaged_newest_checkpoint_is_passed_over(file: str, damage: Callable[[Path], None], made: Path) -> None:
    damage(made / "step-000002" / file)
    newest = newest_checkpoint(made, LEARNING)
    assert newest is not None
    assert newest.name == "step-000001"


def test_what_is_damaged_and_what_is_used_instead_is_said(made: Path) -> None:
    _flip(made / "step-000002" / "value" / "head.safetensors")
    heard: list[Event] = []
    newest_checkpoint(made, LEARNING, heard.append)
    (alert,) = heard
    assert isinstance(alert, Alert)
    assert (alert.level, alert.code) == ("warning", "checkpoint-damaged")
    assert "step-000002 is damaged" in alert.message
    assert "value/head.safetensors" in alert.why
    assert "goes on from step-000001" in alert.remedy
    (made / "step-000001" / "state.json").unlink()
    heard.clear()
    assert newest_checkpoint(made, LEARNING, heard.append) is None
    assert [event.remedy for event in heard if isinstance(event, Alert)] == [
        "There is none before it: the run begins anew."
    ] * 2


def test_nothing_is_said_when_all_is_well(made: Path) -> None:
    heard: list[Event] = []
    newest_checkpoint(made, LEARNING, heard.append)
    assert heard == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "\0" * 300, "[]", "null", '{"v": 1}', '{"v": 1, "done": 2, "own": {}, "files": []}'],
    ids=["empty", "cut", "zeros", "list", "null", "no files", "files a list"],
)
def test_a_damaged_state_is_passed_over(text: str, made: Path) -> None:
    (made / "step-000002" / "state.json").write_text(text)
    newest = newest_checkpoint(made, LEARNING)
    assert newest is not None
    assert newest.name == "step-000001"


def test_a_state_that_forgot_a_file_is_passed_over(made: Path) -> None:
    path = made / "step-000002" / "state.json"
    state = json.loads(path.read_text())
    del state["files"]["value/head.safetensors"]
    (made / "step-000002" / "value" / "head.safetensors").unlink()
    path.write_text(json.dumps(signed(state)))
    newest = newest_checkpoint(made, LEARNING)
    assert newest is not None
    assert newest.name == "step-000001"


@pytest.mark.parametrize("place", [("own", "kl_coefficient"), ("own", "rows"), ("done",)], ids="/".join)
def test_a_digit_that_flipped_in_the_state_is_noticed(place: tuple[str, ...], made: Path) -> None:
    path = made / "step-000002" / "state.json"
    state = json.loads(path.read_text())
    inner = state["own"] if len(place) > 1 else state
    inner[place[-1]] += 1
    path.write_text(json.dumps(state))
    heard: list[Event] = []
    newest = newest_checkpoint(made, LEARNING, heard.append)
    assert newest is not None
    assert newest.name == "step-000001"
    assert [event.why for event in heard if isinstance(event, Alert)] == ["Not as it was written: state.json."]


def test_a_checkpoint_of_another_version_is_said_to_be_one(
    made: Path, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    path = made / "step-000002" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (state | {"v": 2}).items() if name != "sha256"}))
    heard: list[Event] = []
    assert newest_checkpoint(made, LEARNING, heard.append) == made / "step-000001"
    (alert,) = (event for event in heard if isinstance(event, Alert))
    assert "written by another version" in alert.message
    assert "format is 2" in alert.why
    with pytest.raises(UserError, match="another version"):
        load_checkpoint(learner(fresh_roles(), prompts(5)), made / "step-000002")


def test_a_hash_knows_what_json_makes_of_a_state() -> None:
    """Numbers as keys, tuples and values that are no numbers come back as something else, and mean the same."""
    state = {"by": {10: 1.0, 9: 0.1 + 0.2}, "two": (1, math.inf), "none": math.nan, "said": "Grüße"}
    read = json.loads(json.dumps(signed(state)))
    assert signed(read)["sha256"] == read["sha256"]
    assert signed(read | {"said": "Gruesse"})["sha256"] != read["sha256"]


def test_when_all_are_damaged_there_is_none_and_loading_one_says_what_is_wrong(
    made: Path, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    for name in ("step-000001", "step-000002"):
        _flip(made / name / "optimisers.safetensors")
    assert newest_checkpoint(made, LEARNING) is None
    current = learner(fresh_roles(), prompts(5))
    before = current.roles.fingerprint("policy")
    with pytest.raises(UserError, match="damaged") as caught:
        load_checkpoint(current, made / "step-000002")
    assert "optimisers.safetensors" in caught.value.why
    assert current.roles.fingerprint("policy") == before


def test_what_a_killed_writer_left_behind_is_no_checkpoint_and_in_nobodys_way(
    made: Path, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    (made / "step-000002").rename(made / "step-000002.partial")
    newest = newest_checkpoint(made, LEARNING)
    assert newest is not None
    assert newest.name == "step-000001"
    current = learner(fresh_roles(layers=2), prompts(5))
    load_checkpoint(current, newest)
    current.update()
    save_checkpoint(current, made)
    assert saved(made) == ["step-000001", "step-000002"]


@pytest.fixture
def made(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> Path:
    """A folder with the checkpoints of updates 1 and 2."""
    current = learner(fresh_roles(layers=2), prompts(5), epochs=1, rollout_size=2, max_new_tokens=2)
    for _ in range(2):
        current.update()
        save_checkpoint(current, tmp_path)
    return tmp_path


# -- the loop around the updates ------------------------------------------------------------------


def test_saves_come_at_their_number_and_at_the_end(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    current = learner(fresh_roles(), prompts(5), updates=5, save_every=2, epochs=1)
    at: list[int] = []
    events: list[Event] = []
    run = PpoRun(current, GuardSettings(), emit=events.append, checkpoints=tmp_path)
    outcome = run.run(save=lambda ppo: at.append(ppo.done), boundary=lambda save: None)
    assert outcome.ended == "finished"
    assert at == [2, 4, 5]
    assert [(event.done, event.total) for event in events if isinstance(event, Progress)] == [(n, 5) for n in range(6)]


def test_a_boundary_that_raises_stops_between_updates(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    current = learner(fresh_roles(), prompts(5))
    ended, events = train(current, tmp_path, stop_after=1, save_when_stopping=False)
    assert ended == "stopped"
    assert current.done == 1
    assert list(measured(events)) == [1]
    assert not list(tmp_path.iterdir())


def test_leaving_the_reference_too_far_ends_the_run_with_a_checkpoint(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    current = learner(
        fresh_roles(), prompts(5), updates=30, policy_learning_rate=0.1, kl_coefficient=0.0, kl_target=0.0,
        target_kl=0.0, warmup_updates=0,
    )  # fmt: skip
    ended, events = train(current, tmp_path, guard=GuardSettings(max_kl=2.0))
    assert ended == "kl-runaway"
    assert 1 < current.done < 30
    alerts = [event for event in events if isinstance(event, Alert) and event.level == "stop"]
    assert [alert.code for alert in alerts] == ["kl-runaway"]
    assert measured(events)[current.done]["kl"] > 2.0
    assert all(values["kl"] <= 2.0 for step, values in measured(events).items() if step < current.done)
    assert saved(tmp_path)[-1] == f"step-{current.done:06d}"


def test_a_policy_that_does_not_move_is_found_after_the_first_update(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    for changes, role in (({"policy_learning_rate": 1e-60}, "policy"), ({"value_learning_rate": 1e-60}, "value")):
        current = learner(fresh_roles(), prompts(5), **changes)
        with pytest.raises(UserError, match=f"The {role} adapter did not move") as caught:
            train(current, tmp_path)
        assert f"ppo.{role}_learning_rate" in caught.value.todo
        assert current.done == 1


def test_a_policy_held_back_by_the_critics_warm_up_is_no_alarm(
    fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path
) -> None:
    current = learner(fresh_roles(), prompts(5), critic_warmup_updates=2)
    assert train(current, tmp_path)[0] == "finished"
    late = learner(fresh_roles(), prompts(5), critic_warmup_updates=2, policy_learning_rate=1e-60)
    with pytest.raises(UserError, match="did not move"):
        train(late, tmp_path)
    assert late.done == 3


def test_a_poisoned_reward_model_stops_the_run(fresh_roles: FreshRoles, prompts: Prompts, tmp_path: Path) -> None:
    roles = fresh_roles()
    with torch.no_grad():
        roles.head("reward").bias.fill_(math.nan)
    current = learner(roles, prompts(5))
    before = roles.fingerprint("policy")
    with pytest.raises(UserError, match="not finite"):
        train(current, tmp_path)
    assert roles.fingerprint("policy") == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("role", LEARNING)
def test_a_gradient_that_is_not_finite_ends_the_update_before_its_step(
    role: Role, fresh_roles: FreshRoles, prompts: Prompts
) -> None:
    """The loss is finite, and so are all metrics: only the gradient tells."""
    roles = fresh_roles()
    current, before = learner(roles, prompts(5)), roles.fingerprint(role)
    with roles.learning(role):
        roles.adapter(role)[-1].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NotFinite, match=f"Update 1 .*: {role} gradient"):
        current.update()
    assert roles.fingerprint(role) == before


# -- the guards themselves ------------------------------------------------------------------------


def test_finite_numbers_pass_and_others_are_named() -> None:
    guards.require_finite({"kl": 0.0, "score": -1e30}, 3)
    with pytest.raises(UserError, match=r"Update 3 .*: entropy, kl, score") as caught:
        guards.require_finite({"score": math.inf, "kl": math.nan, "entropy": -math.inf, "length": 2.0}, 3)
    assert "ppo.policy_learning_rate" in caught.value.todo


def test_equal_fingerprints_are_an_error() -> None:
    guards.require_moved("a", "b", "policy")
    with pytest.raises(UserError, match="The value adapter did not move"):
        guards.require_moved("a", "a", "value")


@pytest.mark.parametrize(
    ("dtype", "fine", "wrong"),
    [(torch.float32, 5e-5, 1e-3), (torch.bfloat16, 0.05, 0.2), (torch.float16, 0.02, 0.1)],
)
def test_the_first_ratio_must_be_one_as_far_as_the_number_format_allows(
    dtype: torch.dtype, fine: float, wrong: float
) -> None:
    guards.require_first_ratio_one(0.0, dtype)
    guards.require_first_ratio_one(fine, dtype)
    for deviation in (wrong, math.inf, math.nan):
        with pytest.raises(UserError, match="does not reproduce"):
            guards.require_first_ratio_one(deviation, dtype)
