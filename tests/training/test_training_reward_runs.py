"""A reward model in training can be cut off anywhere, stops when held-out pairs say so, and is one of several."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_tui.errors import UserError
from rlhf_tui.model.base import load_base
from rlhf_tui.model.heads import Reading
from rlhf_tui.model.manifest import saved_reading
from rlhf_tui.model.roles import Roles
from rlhf_tui.runs.events import Event, Metric
from rlhf_tui.settings import AdapterSettings, ModelSettings, RewardSettings
from rlhf_tui.training.backoff import MicroBatching
from rlhf_tui.training.batching import Tokens
from rlhf_tui.training.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from rlhf_tui.training.features import base_features, invariance, score_tokens
from rlhf_tui.training.groups import Pair, candidates_of
from rlhf_tui.training.reward import RewardTrainer, Trained, train_reward

FreshRoles = Callable[..., Roles]
SETTINGS = RewardSettings(
    epochs=3, patience=0, learning_rate=3e-3, head_learning_rate=1e-2, batch_pairs=4, save_every=2
)


class Killed(Exception):
    """What a boundary raises to end a run."""


def tasteful(count: int, *, seed: int, slips: float = 0.0) -> list[Pair]:
    """The better answer ends with token 11, the worse with 12; so many are the wrong way round."""
    order = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = tuple(order.choices(range(20, 300), k=order.randint(2, 6)))
        body = tuple(order.choices(range(20, 300), k=order.randint(1, 7)))
        sides = [Tokens(prompt, (*body, 11)), Tokens(prompt, (*body, 12))]
        if order.random() < slips:
            sides.reverse()
        made.append(Pair(sides[0], sides[1], False, 1, 1.0))
    return made


def trainer_of(roles: Roles, events: list[Event], **changes: Any) -> RewardTrainer:
    return RewardTrainer(
        roles,
        tasteful(14, seed=1),
        tasteful(8, seed=2),
        SETTINGS.model_copy(update=changes),
        seed=5,
        emit=events.append,
    )


def run(trainer: RewardTrainer, folder: Path, *, stop_after: int | None = None) -> Trained | None:
    """Train with real checkpoints; `stop_after` so many steps the process is gone, without a last save."""

    def boundary(save: Callable[[], None]) -> None:
        if trainer.done == stop_after:
            raise Killed

    try:
        return trainer.run(save=lambda one: (save_checkpoint(one, folder), None)[1], boundary=boundary)
    except Killed:
        return None


def metrics(events: list[Event]) -> list[tuple[int, dict[str, float]]]:
    return [(event.step, dict(event.values)) for event in events if isinstance(event, Metric)]


# -- cut off and taken up -------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0, 3])
@pytest.mark.parametrize("killed_at", [1, 2, 3, 4, 5, 7, 8, 11, 12])
def test_cut_off_anywhere_it_comes_to_the_same_numbers_bit_for_bit(
    killed_at: int, patience: int, fresh_roles: FreshRoles, tmp_path: Path
) -> None:
    whole: list[Event] = []
    roles = fresh_roles(layers=2)
    roles.renew("reward", 9)
    wanted = run(trainer_of(roles, whole, patience=patience), tmp_path / "whole")
    assert wanted is not None
    weights = roles.fingerprint("reward")

    events: list[Event] = []
    roles = fresh_roles(layers=2)
    roles.renew("reward", 9)
    assert run(trainer_of(roles, events, patience=patience), tmp_path / "cut", stop_after=killed_at) is None
    again: list[Event] = []
    roles = fresh_roles(layers=2)
    roles.renew("reward", 9)
    second = trainer_of(roles, again, patience=patience)
    newest = newest_checkpoint(tmp_path / "cut", second.optimisers)
    assert (newest is None) == (killed_at == 1)
    if newest is not None:
        load_checkpoint(second, newest)
    found = run(second, tmp_path / "cut")
    assert found is not None
    assert roles.fingerprint("reward") == weights
    assert torch.equal(found.heldout.gaps, wanted.heldout.gaps)
    assert torch.equal(found.train.gaps, wanted.train.gaps)
    assert replace(found, train=wanted.train, heldout=wanted.heldout) == wanted
    joined = dict(metrics(events)) | dict(metrics(again))
    assert joined == dict(metrics(whole))


def test_a_back_off_and_the_best_epoch_survive_a_restart(fresh_roles: FreshRoles, tmp_path: Path) -> None:
    events: list[Event] = []
    first = trainer_of(fresh_roles(), events, patience=2)
    first.sizes.most_tokens, first.sizes.recompute, first.sizes.back_offs = 77, True, 3
    assert run(first, tmp_path, stop_after=5) is None
    second = trainer_of(fresh_roles(), events, patience=2)
    newest = newest_checkpoint(tmp_path, second.optimisers)
    assert newest is not None
    load_checkpoint(second, newest)
    assert (second.sizes.most_tokens, second.sizes.recompute, second.sizes.back_offs) == (77, True, 3)
    assert second.state()["best"] is not None
    assert second.tensors().keys() == first.tensors().keys() != set()


# -- when to stop ---------------------------------------------------------------------------------


def test_it_stops_when_held_out_pairs_get_worse_and_keeps_the_best_epoch(fresh_roles: FreshRoles) -> None:
    """Held-out pairs of the opposite taste: every epoch is worse than the one before."""
    against = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in tasteful(8, seed=2)]
    kept = {}
    for patience, epochs in ((0, 3), (1, 6), (2, 6)):
        roles = fresh_roles()
        roles.renew("reward", 9)
        events: list[Event] = []
        settings = SETTINGS.model_copy(update={"patience": patience, "epochs": epochs, "head_start": "zero"})
        trained = train_reward(
            roles, tasteful(14, seed=1), against, settings, seed=5, emit=events.append, boundary=lambda: None
        )
        losses = [values["heldout_loss"] for _, values in metrics(events) if "heldout_loss" in values]
        kept[patience] = trained
        if patience:
            assert trained.stopped_early
            assert trained.kept_epoch == 1 + losses.index(min(losses))
            assert trained.epochs == trained.kept_epoch + patience
            sides = candidates_of(against)
            scores = dict(zip(sides, score_tokens(roles, sides, MicroBatching(roles.base, 999, "off")), strict=True))
            for gap, pair in zip(trained.heldout.gaps, against, strict=True):
                assert float(gap) == pytest.approx(float(scores[pair.chosen] - scores[pair.rejected]), abs=1e-4)
            gaps = trained.heldout.gaps
            assert float(-torch.nn.functional.logsigmoid(gaps).mean()) == pytest.approx(min(losses), abs=1e-5)
    assert not kept[0].stopped_early
    assert kept[0].kept_epoch == kept[0].epochs == 3
    assert (kept[1].steps, kept[2].steps) == (2 * 4, 3 * 4)


def test_the_head_alone_is_kept_when_every_epoch_makes_it_worse(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    roles.renew("reward", 9)
    settings = SETTINGS.model_copy(update={"patience": 1, "learning_rate": 0.5, "head_learning_rate": 0.5})
    trained = train_reward(
        roles,
        tasteful(14, seed=1, slips=0.5),
        tasteful(8, seed=2),
        settings,
        seed=5,
        emit=lambda e: None,
        boundary=lambda: None,
    )
    assert trained.kept_epoch == 0
    matrices = [name for name in roles.adapter_state("reward") if "lora_B" in name]
    assert matrices
    assert all(not roles.adapter_state("reward")[name].any() for name in matrices)


def test_without_held_out_pairs_all_epochs_are_run(fresh_roles: FreshRoles) -> None:
    trained = train_reward(
        fresh_roles(), tasteful(6, seed=1), [], SETTINGS, seed=5, emit=lambda event: None, boundary=lambda: None
    )
    assert (trained.epochs, trained.kept_epoch, trained.stopped_early) == (3, 3, False)
    assert len(trained.heldout.gaps) == 0


# -- one of several -------------------------------------------------------------------------------


def test_an_adapter_that_starts_again_depends_on_its_seed_alone(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    prints = []
    for seed in (1, 1, 2):
        roles.renew("reward", seed)
        prints.append(roles.fingerprint("reward"))
        state = roles.adapter_state("reward")
        assert all(not tensor.any() for name, tensor in state.items() if "lora_B" in name)
        assert not roles.head("reward").weight.any()
        train_reward(roles, tasteful(6, seed=1), [], SETTINGS, seed=5, emit=lambda event: None, boundary=lambda: None)
    assert prints[0] == prints[1] != prints[2]


def test_starting_again_leaves_the_other_roles_alone(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    before = {role: roles.fingerprint(role) for role in ("policy", "value")}
    roles.renew("reward", 1)
    assert before == {role: roles.fingerprint(role) for role in ("policy", "value")}


# -- the same score whatever stands beside it -----------------------------------------------------


@pytest.mark.parametrize("reading", [Reading(), Reading(2, "mean"), Reading(3, "last")])
@pytest.mark.parametrize("layers", [0, 2])
def test_a_score_is_the_same_alone_in_any_batch_after_saving_and_after_others_trained(
    layers: int, reading: Reading, fresh_roles: FreshRoles, draw_tokens: Callable[..., list[Tokens]], tmp_path: Path
) -> None:
    roles = fresh_roles(layers=layers, reading=reading)
    train_reward(roles, tasteful(8, seed=1), [], SETTINGS, seed=5, emit=lambda event: None, boundary=lambda: None)
    sequences = draw_tokens(12, longest=30)

    def scores(of: Roles, most: int, order: list[Tokens]) -> list[float]:
        found = score_tokens(of, order, MicroBatching(of.base, most, "off"))
        by = dict(zip(order, found.tolist(), strict=True))
        return [by[one] for one in sequences]

    wanted = scores(roles, 1, sequences)
    assert max(wanted) - min(wanted) > 0.1
    for most in (40, 100, 100_000):
        for order in (sequences, sequences[::-1]):
            assert scores(roles, most, order) == pytest.approx(wanted, abs=1e-5)
    assert invariance(roles, sequences) < 1e-5
    roles.save("reward", tmp_path / "reward", {"of": "a test"})
    other = Roles(
        load_base(ModelSettings(name=roles.base.location.path, quantisation="none", device="cpu"), lambda text: None),
        AdapterSettings(rank=4, alpha=8, layers=layers),
        seed=8,
        reading=saved_reading(tmp_path / "reward", "reward"),
    )
    assert other.reading == reading
    assert other.load("reward", tmp_path / "reward") == {"of": "a test"}
    assert scores(other, 1, sequences) == wanted
    for role in ("policy", "value"):
        with torch.no_grad():
            for parameter in roles.parameters(role):  # type: ignore[arg-type]
                parameter.add_(0.5)
    assert scores(roles, 1, sequences) == wanted


def test_a_pad_token_taken_for_text_would_be_noticed(
    fresh_roles: FreshRoles, draw_tokens: Callable[..., list[Tokens]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classical fault: the score is read at the last place of the row, wherever the text ends."""
    from rlhf_tui.training import features

    def at_the_end(roles: Roles, lower: torch.Tensor, batch: Any) -> torch.Tensor:
        return roles.read(lower)[:, -1]

    roles, sequences = fresh_roles(), draw_tokens(6, longest=30)
    assert invariance(roles, sequences) < 1e-5
    monkeypatch.setattr(features, "pooled", at_the_end)
    assert invariance(roles, sequences) > 1e-2


# -- on a quantised base --------------------------------------------------------------------------


def test_the_same_training_on_nf4_with_double_quantisation(tiny_folder: Path) -> None:
    """A taste is learnt on the 4-bit base, nothing of the base moves, and the score is the same in any batch."""
    base = load_base(ModelSettings(name=str(tiny_folder), quantisation="nf4", device="cpu"), lambda text: None)
    assert base.quantisation == "nf4"
    assert getattr(base.model, "is_loaded_in_4bit", False)
    assert base.model.config.quantization_config.bnb_4bit_use_double_quant
    roles = Roles(base, AdapterSettings(rank=4, alpha=8), seed=3)
    roles.add("policy")
    roles.add("reward")
    frozen = {name: p.clone() for name, p in base.model.named_parameters() if "lora_" not in name}
    policy = roles.fingerprint("policy")
    heldout = tasteful(16, seed=2)
    trained = train_reward(
        roles,
        tasteful(48, seed=1),
        heldout,
        SETTINGS.model_copy(update={"epochs": 5, "learning_rate": 1e-2, "batch_pairs": 8}),
        seed=5,
        emit=lambda event: None,
        boundary=lambda: None,
    )
    assert (trained.heldout.gaps > 0).float().mean() > 0.8
    assert roles.fingerprint("policy") == policy
    for name, parameter in base.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(parameter, frozen[name]), name
    assert invariance(roles, candidates_of(heldout)[:8]) < 1e-4


# -- features -------------------------------------------------------------------------------------


def test_features_are_the_bases_own_whatever_the_adapters_say(fresh_roles: FreshRoles) -> None:
    roles = fresh_roles()
    pairs = tasteful(5, seed=1)
    sizes = MicroBatching(roles.base, 64, "off")
    with roles.reference():
        found = base_features(roles.base, candidates_of(pairs), [Reading()], sizes)[Reading()]
    stack = roles.base.model.get_decoder()
    with torch.no_grad(), roles.reference():
        for pair in pairs:
            ids = torch.tensor([pair.chosen.prompt + pair.chosen.response])
            wanted = stack(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
            assert torch.allclose(found.of([pair.chosen])[0], wanted, atol=1e-5)
    gaps = found.gaps(pairs)
    assert torch.equal(gaps[2], found.of([pairs[2].chosen])[0] - found.of([pairs[2].rejected])[0])


def test_the_shared_layers_run_once_a_sequence(fresh_roles: FreshRoles) -> None:
    """For all epochs, the features and the held-out pairs together."""
    roles, ran = fresh_roles(layers=2), 0
    below, pairs = roles.decoder.lower, tasteful(20, seed=1)

    def counted(ids: torch.Tensor) -> torch.Tensor:
        nonlocal ran
        ran += len(ids)
        return below(ids)

    roles.decoder.lower = counted  # type: ignore[method-assign]
    trainer = trainer_of(roles, [])
    trainer.run(save=lambda training: None, boundary=lambda save: None)
    known = candidates_of([*trainer._train, *trainer._heldout])
    assert trainer.done > len(pairs) // 16 > 0
    assert ran == len(known)


def test_gradient_checkpointing_gives_the_same_weights(fresh_roles: FreshRoles) -> None:
    found = []
    for choice in ("off", "on"):
        roles = fresh_roles(layers=2)
        trained = trainer_of(roles, [], checkpointing=choice).run(
            save=lambda training: None, boundary=lambda save: None
        )
        assert trained.checkpointing == (choice == "on")
        found.append(roles.parameters("reward"))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_no_pair_to_learn_from_is_an_error(fresh_roles: FreshRoles) -> None:
    ties = [replace(pair, tie=True) for pair in tasteful(3, seed=1)]
    roles, dropping = fresh_roles(), SETTINGS.model_copy(update={"ties": "drop"})
    with pytest.raises(UserError, match="no pair to learn from"):
        train_reward(roles, ties, [], dropping, seed=1, emit=lambda e: None, boundary=lambda: None)
