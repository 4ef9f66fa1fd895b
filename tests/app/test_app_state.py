"""The view model of a run: what its events add up to, however the journal is cut into reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rlhf_tui.app.state import PROMPTS, SAMPLES, Pace, RunState, tidied
from rlhf_tui.runs.events import (
    Alert,
    Checkpoint,
    Done,
    Event,
    Launch,
    Memory,
    Metric,
    Progress,
    Sample,
    Stage,
    Stamped,
    encode,
)
from rlhf_tui.runs.journal import JournalReader

LAUNCH = Launch("ppo-0001", "ppo", 1, "box", "0.1")


def fold(*events: Event, start: float = 1000.0, step: float = 10.0) -> RunState:
    state = RunState()
    for index, event in enumerate(events):
        state.apply(Stamped(start + index * step, event))
    return state


def summary(state: RunState) -> dict[str, object]:
    """Everything about a state that a screen could show."""
    return {
        "launch": state.launch,
        "started": state.started,
        "heard": state.heard,
        "stage": state.stage,
        "progress": state.progress,
        "left": repr(state.pace.left(state.heard)),
        "step": state.step,
        "latest": repr(sorted(state.latest.items())),
        "series": {name: repr([vars(b) for b in line.buckets]) for name, line in state.series.items()},
        "samples": list(state.samples),
        "comparisons": {key: (c.before, c.after) for key, c in state.comparisons.items()},
        "memory": state.memory,
        "alerts": list(state.alerts),
        "checkpoints": list(state.checkpoints),
        "done": state.done,
    }


def test_every_kind_of_event_lands_where_it_belongs() -> None:
    state = fold(
        LAUNCH,
        Stage("update", "1: sampling"),
        Metric(1, {"score": 0.5, "kl": math.nan}),
        Progress(1, 4, "updates"),
        Sample(1, "Why?", "Because.", {"score": 0.5}, "policy"),
        Memory("update", 5, 6),
        Alert("warning", "code", "message"),
        Checkpoint(1, "checkpoints/step-000001", best=True),
        Done("finished", result={"n": 1}),
    )
    assert state.launch == LAUNCH
    assert state.started == 1000.0
    assert state.heard == 1080.0
    assert state.stage == Stage("update", "1: sampling")
    assert state.step == 1
    assert state.latest["score"] == 0.5
    assert math.isnan(state.latest["kl"])
    assert state.line("score").latest == 0.5
    assert len(state.line("never reported")) == 0
    assert [sample.completion for sample in state.samples] == ["Because."]
    assert state.memory == Memory("update", 5, 6)
    assert state.alerts[0].at == 1060.0
    assert state.checkpoints[0].news.best
    assert state.done is not None
    assert state.done.result == {"n": 1}


def test_before_and_after_are_gathered_by_prompt() -> None:
    state = fold(
        Sample(0, "A?", "a1", source="before"),
        Sample(0, "A?", "a2", source="after"),
        Sample(0, "B?", "b1", source="before"),
    )
    assert [(c.prompt, len(c.before), len(c.after)) for c in state.comparisons.values()] == [("A?", 1, 1), ("B?", 1, 0)]
    assert not state.samples


def test_a_new_launch_takes_the_end_back_and_keeps_the_curves() -> None:
    state = fold(LAUNCH, Metric(1, {"score": 1.0}), Done("stopped"), LAUNCH, Metric(2, {"score": 2.0}))
    assert state.done is None
    assert state.started == 1000.0
    assert [bucket.mean for bucket in state.line("score").buckets] == [1.0, 2.0]


def test_a_pause_is_no_stage_and_does_not_spoil_the_pace() -> None:
    state = fold(
        LAUNCH, Stage("update", "2"), Progress(1, 9, "u"), Progress(2, 9, "u"), Stage("paused"), Stage("resumed")
    )
    assert state.stage == Stage("update", "2")
    assert math.isnan(state.pace.seconds_each)


def test_steps_that_are_done_again_after_a_resume_show_once() -> None:
    def update(step: int) -> list[Event]:
        return [
            Metric(step, {"score": step / 10}),
            Sample(step, "Why?", f"Because {step}.", {}, "policy"),
            Sample(step, "How?", f"So {step}.", {}, "heldout"),
            Checkpoint(step, "checkpoints/best", best=True),
            Alert("warning", "kl-high", f"KL is {step}."),
        ]

    whole = fold(LAUNCH, *update(1), *update(2), *update(3), *update(4))
    cut = fold(LAUNCH, *update(1), *update(2), *update(3), LAUNCH, Stage("resumed"), *update(2), *update(3), *update(4))
    twice = fold(LAUNCH, *update(1), LAUNCH, *update(1)[:2], LAUNCH, *update(1), *update(2), *update(3), *update(4))
    for state in (cut, twice):
        assert list(state.samples) == list(whole.samples)
        assert [one.news for one in state.checkpoints] == [one.news for one in whole.checkpoints]
        assert [one.news for one in state.alerts] == [one.news for one in whole.alerts]
        assert [vars(one) for one in state.line("score").buckets] == [vars(one) for one in whole.line("score").buckets]


def test_samples_are_bounded() -> None:
    state = fold(*(Sample(i, "p", str(i), source="policy") for i in range(SAMPLES + 7)))
    assert len(state.samples) == SAMPLES
    assert state.samples[-1].completion == str(SAMPLES + 6)


def test_pace_and_what_is_left() -> None:
    pace = Pace()
    assert math.isnan(pace.left(0.0))
    for done in range(5):
        pace.add(100.0 + 8 * done, Progress(done, 10, "updates"))
    assert pace.seconds_each == 8.0
    assert pace.left(132.0) == 48.0
    assert pace.left(142.0) == 38.0
    assert pace.left(1e9) == 0.0


@pytest.mark.parametrize("other", [Progress(1, 10, "updates"), Progress(6, 20, "updates"), Progress(6, 10, "steps")])
def test_another_count_starts_the_pace_afresh(other: Progress) -> None:
    pace = Pace()
    pace.add(0.0, Progress(4, 10, "updates"))
    pace.add(5.0, Progress(5, 10, "updates"))
    pace.add(6.0, other)
    assert math.isnan(pace.seconds_each)


def test_any_cut_of_the_journal_gives_the_same_state(tmp_path: Path, ppo_events: list[Event]) -> None:
    events = [LAUNCH, *ppo_events, Done("finished", result={"n": 1})]
    whole = b"".join(encode(event, 1000.0 + index) for index, event in enumerate(events))
    path = tmp_path / "events.jsonl"

    def folded(cuts: list[int]) -> dict[str, object]:
        path.unlink(missing_ok=True)
        reader, state, at = JournalReader(path), RunState(), 0
        for cut in [*cuts, len(whole)]:
            with path.open("ab") as file:
                file.write(whole[at:cut])
            at = cut
            for stamped in reader.read():
                state.apply(stamped)
        return summary(state)

    expected = folded([])
    assert expected["done"] == Done("finished", result={"n": 1})
    for cut in range(0, len(whole), 97):
        assert folded([cut]) == expected
    assert folded(list(range(0, len(whole), 333))) == expected


def drawn(step: int, prompt: str, source: str = "policy") -> Sample:
    return Sample(step, prompt, f"at {step}", {}, source)


def test_the_first_completion_for_a_prompt_outlives_the_samples() -> None:
    first, held = drawn(1, "Why?"), drawn(1, "Why?", "heldout")
    others = [drawn(step, f"Other {step}?") for step in range(2, SAMPLES + 20)]
    state = fold(LAUNCH, first, held, *others, newest := drawn(99, "Why?"))
    assert first not in state.samples
    assert state.first_for(newest) is first
    assert state.first_for(drawn(100, "Why?", "heldout")) is held
    unseen = drawn(100, "Never drawn?")
    assert state.first_for(unseen) is unseen


def test_first_completions_are_bounded() -> None:
    state = fold(LAUNCH, *(drawn(step, f"Prompt {step}?") for step in range(1, PROMPTS + 50)))
    assert len(state.firsts) == PROMPTS


def test_a_resumed_run_forgets_the_first_completions_that_it_repeats() -> None:
    kept, lost, again = drawn(1, "Kept?"), drawn(5, "Lost?"), drawn(4, "Lost?")
    state = fold(LAUNCH, kept, lost, LAUNCH, again)
    assert state.first_for(drawn(9, "Kept?")) is kept
    assert state.first_for(drawn(9, "Lost?")) is again


def test_news_know_after_which_step_they_came() -> None:
    state = fold(LAUNCH, Metric(7, {"score": 1.0}), Alert("note", "code", "message"), Checkpoint(7, "checkpoints/x"))
    assert [state.alerts[0].step, state.checkpoints[0].step] == [7, 7]


def test_the_first_value_of_a_series_stays_known_when_values_are_merged() -> None:
    state = fold(*(Metric(step, {"length": math.nan if step == 1 else float(step)}) for step in range(1, 3000)))
    assert state.line("length").first == 2.0
    assert state.line("length").points_per_bucket == 8


def test_texts_of_a_run_are_made_safe_where_they_come_in_and_nothing_else_is_touched() -> None:
    bad, good = "a\x1b[31mb\u202ec", "a[31mbc"
    error = {"what": bad, "why": "", "todo": bad}
    told = tidied(Alert("warning", "code", bad, bad, bad))
    assert told == Alert("warning", "code", good, good, good)
    assert tidied(Stage(bad, bad)) == Stage(good, good)
    assert tidied(Memory(bad, 1, 2, planned=3)) == Memory(good, 1, 2, planned=3)
    assert tidied(Metric(1, {bad: 2.0})) == Metric(1, {good: 2.0})
    done = tidied(Done("failed", bad, error, {"path": bad, "parts": [bad, {"n": 1}]}))
    assert done == Done(
        "failed", good, {"what": good, "why": "", "todo": good}, {"path": good, "parts": [good, {"n": 1}]}
    )
    for clean in (Stage("update", "3: sampling"), Metric(1, {"score": 0.1}), Done("finished"), Sample(1, bad, bad)):
        assert tidied(clean) is clean  # a sample's screens say what of it is hidden
