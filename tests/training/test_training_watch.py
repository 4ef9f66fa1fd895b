"""What a PPO run is watched for: every alert with cause and remedy, once when it sets in, the same after a resume."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhf_tui.runs.events import Alert
from rlhf_tui.settings import GuardSettings, PpoSettings
from rlhf_tui.training.heldout import Evaluation
from rlhf_tui.training.watch import Watch

FINE = {
    "score": 0.1, "kl": 5.0, "entropy": 1.0, "eos_rate": 0.8, "length": 40.0, "repetition": 0.05, "saturation": 0.0,
}  # fmt: skip
CALM = Evaluation(update=0, score=0.0, kl=0.0, length=40.0, eos_rate=0.8, repetition=0.05, gold=0.0)


def watch(**guard: Any) -> Watch:
    """A watch after a first update with nothing to tell."""
    made = Watch(PpoSettings(max_new_tokens=99), GuardSettings(**guard))
    assert made.after_update(FINE) == []
    return made


def codes(alerts: list[Alert]) -> list[tuple[str, str]]:
    return [(alert.level, alert.code) for alert in alerts]


# -- one update -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"kl": 50.1}, ("stop", "kl-runaway")),
        ({"entropy": 0.09}, ("warning", "entropy-low")),
        ({"eos_rate": 0.39}, ("warning", "eos-drop")),
        ({"length": 101.0}, ("warning", "length-drift")),
        ({"length": 15.9}, ("warning", "length-drift")),
        ({"repetition": 0.41}, ("stop", "repetition")),
        ({"saturation": 0.51}, ("warning", "saturation")),
    ],
)
def test_each_limit_has_its_alert_with_cause_and_remedy(changes: dict[str, float], wanted: tuple[str, str]) -> None:
    (alert,) = watch().after_update(FINE | changes)
    assert (alert.level, alert.code) == wanted
    assert alert.message.endswith((".", ")."))
    assert alert.why
    assert alert.remedy


@pytest.mark.parametrize("changes", [{"entropy": 0.0}, {"eos_rate": 0.1}, {"length": 150.0}, {"saturation": 0.9}])
def test_warnings_are_serious_where_the_run_is_to_act_on_them(changes: dict[str, float]) -> None:
    (usual,) = watch().after_update(FINE | changes)
    (asked,) = watch(act_on="warnings").after_update(FINE | changes)
    assert (usual.level, asked.level) == ("warning", "stop")
    assert (usual.code, usual.message, usual.why, usual.remedy) == (asked.code, asked.message, asked.why, asked.remedy)
    made = Watch(PpoSettings(max_new_tokens=99), GuardSettings(act_on="warnings"))
    (note,) = made.after_update(FINE | {"eos_rate": 0.04})
    assert note.level == "note"  # what tells of no harm stays what it is


@pytest.mark.parametrize(
    "changes",
    [
        {"kl": 50.0}, {"kl": -3.0}, {"entropy": 0.1}, {"eos_rate": 0.4}, {"length": 100.0}, {"length": 16.0},
        {"repetition": 0.4}, {"saturation": 0.5},
    ],
)  # fmt: skip
def test_at_a_limit_nothing_is_said(changes: dict[str, float]) -> None:
    assert watch().after_update(FINE | changes) == []


def test_limits_can_be_turned_off() -> None:
    bad = {"entropy": 0.0, "eos_rate": 0.06, "length": 4000.0, "repetition": 1.0, "saturation": 1.0}
    off = watch(min_entropy=0.0, min_eos_rate=0.0, length_drift=1.0, max_repetition=1.0, max_saturation=1.0)
    assert off.after_update(FINE | bad) == []


def test_completions_that_never_end_are_noted_with_the_length_limit() -> None:
    made = Watch(PpoSettings(max_new_tokens=99), GuardSettings())
    (alert,) = made.after_update(FINE | {"eos_rate": 0.04})
    assert (alert.level, alert.code) == ("note", "never-ends")
    assert "99 tokens" in alert.why
    assert "ppo.max_new_tokens" in alert.remedy


def test_a_base_that_repeats_itself_is_given_room() -> None:
    """0.6 in the first update: half of what is left to 1 is the limit, so that the base is not blamed on the policy."""
    made = Watch(PpoSettings(), GuardSettings(max_repetition=0.4))
    assert made.after_update(FINE | {"repetition": 0.6}) == []
    assert made.repetition_limit == pytest.approx(0.8)
    assert made.after_update(FINE | {"repetition": 0.79}) == []
    assert codes(made.after_update(FINE | {"repetition": 0.81})) == [("stop", "repetition")]


# -- once -----------------------------------------------------------------------------------------


def test_an_alert_comes_when_it_sets_in_and_again_only_after_it_was_gone() -> None:
    made = watch()
    low = FINE | {"entropy": 0.01}
    told = [codes(made.after_update(low if index in (0, 1, 2, 4, 9) else FINE)) for index in range(11)]
    once = [("warning", "entropy-low")]
    assert told == [once, [], [], [], [], [], [], [], [], once, []]


def test_after_a_rollback_it_may_be_told_again_at_once() -> None:
    made = watch()
    far = FINE | {"kl": 60.0}
    assert codes(made.after_update(far)) == [("stop", "kl-runaway")]
    assert made.after_update(far) == []
    made.forget()
    assert codes(made.after_update(far)) == [("stop", "kl-runaway")]


# -- evaluations ----------------------------------------------------------------------------------


def evaluated(made: Watch, training: float, update: int = 0, **changes: Any) -> list[tuple[str, str]]:
    """Two updates with this score in training, then an evaluation."""
    for _ in range(2):
        assert made.after_update(FINE | {"score": training}) == []
    return codes(made.after_evaluation(Evaluation(**(CALM.as_dict() | {"update": update} | changes))))


def fresh(**guard: Any) -> Watch:
    made = Watch(PpoSettings(), GuardSettings(**guard))
    assert made.after_evaluation(CALM) == []
    return made


@pytest.mark.parametrize(("name", "code"), [("score", "heldout-falls"), ("gold", "gold-falls")])
def test_a_score_that_falls_twice_while_training_rises_is_serious(name: str, code: str) -> None:
    made = fresh()
    assert evaluated(made, 0.3, **{name: 0.4}) == []
    assert evaluated(made, 0.6, **{name: -0.2}) == []  # once is chance
    assert evaluated(made, 0.9, **{name: -0.2}) == [("stop", code)]
    assert evaluated(made, 1.2, **{name: -0.9}) == []  # told already


def test_two_falls_with_a_recovery_between_them_are_none() -> None:
    made = fresh()
    for training, score in ((0.3, 0.4), (0.6, -0.2), (0.9, 0.1), (1.2, -0.2)):
        assert evaluated(made, training, score=score) == []


def test_without_a_rise_in_training_it_is_a_warning_with_another_remedy() -> None:
    made = fresh()
    evaluated(made, 0.5, score=0.5)
    evaluated(made, 0.2, score=-0.5)
    for _ in range(2):
        made.after_update(FINE | {"score": -0.3})
    (alert,) = made.after_evaluation(Evaluation(**(CALM.as_dict() | {"score": -0.6})))
    assert (alert.level, alert.code) == ("warning", "heldout-worse")
    assert "ppo.policy_learning_rate" in alert.remedy


def test_against_the_start_the_first_update_is_the_score_in_training() -> None:
    """The evaluation before the first update has no score in training; the first update is by the same policy."""
    made = fresh()
    assert made.after_update(FINE | {"score": 0.5}) == []
    evaluated(made, 0.2, score=-0.6)  # the mean of 0.5, 0.2 and 0.2: below 0.5
    assert evaluated(made, 0.4, score=-0.6) == [("warning", "heldout-worse")]


def test_falls_can_be_turned_off() -> None:
    made = fresh(heldout_fall=0.0)
    for training in (0.3, 0.6, 0.9):
        assert evaluated(made, training, score=-3.0, gold=-3.0) == []


def test_a_policy_over_the_budget_is_noted() -> None:
    made = fresh(kl_budget=15.0)
    assert evaluated(made, 0.1, kl=15.0) == []
    assert evaluated(made, 0.1, kl=15.1) == [("note", "kl-budget")]


# -- going on -------------------------------------------------------------------------------------


def test_a_watch_that_was_put_away_tells_the_same() -> None:
    """At every place, through JSON as a checkpoint keeps it."""

    def script(cut: int) -> list[list[tuple[str, str]]]:
        made, told = Watch(PpoSettings(), GuardSettings()), []
        for step in range(24):
            if step == cut:
                state = json.loads(json.dumps(made.state()))
                made = Watch(PpoSettings(), GuardSettings())
                made.resume(state)
            values = FINE | {
                "score": step / 10,
                "entropy": 0.05 if step % 9 < 3 else 1.0,
                "length": 40.0 + 8 * step,
                "kl": 2.5 * step,
            }
            told.append(codes(made.after_update(values)))
            if step % 4 == 0:
                found = Evaluation(step, 0.5 - step / 12, 2.5 * step, 40.0, 0.8, 0.05, gold=step / 8 if step < 9 else 0)
                told.append(codes(made.after_evaluation(found)))
        return told

    whole = script(-1)
    assert {code for alerts in whole for _, code in alerts} == {
        "entropy-low", "length-drift", "kl-budget", "heldout-falls", "gold-falls", "kl-runaway",
    }  # fmt: skip
    for cut in range(1, 24):
        assert script(cut) == whole
