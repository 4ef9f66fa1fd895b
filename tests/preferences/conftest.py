"""A small store to judge in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_tui.preferences.queue import next_task
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Presentation, Store

Filled = Callable[..., Store]


def ask(text: str, split: str | None = None) -> NewPrompt:
    return NewPrompt((Message("user", text),), "test", split)


class Sitting:
    """One rater at one terminal."""

    def __init__(self, store: Store, handle: str = "me") -> None:
        self.store = store
        self.rater = store.add_rater(handle).id
        self.session = store.start_session(self.rater, columns=80, rows=24)

    def show(self, task_id: int | None = None) -> Presentation:
        task = task_id or next_task(self.store, self.rater)
        assert task is not None
        return self.store.present(task, rater_id=self.rater, session_id=self.session, layout="side by side")

    def answer(self, outcome: str = "ordered", *, task_id: int | None = None, side: str = "left") -> Presentation:
        shown = self.show(task_id)
        winner = getattr(shown, side).id if outcome == "ordered" else None
        self.store.judge(shown.id, outcome=outcome, winner_id=winner, latency_ms=900)
        return shown


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "preferences.db", name="test", seed=7) as opened:
        yield opened


@pytest.fixture
def fill(store: Store) -> Filled:
    """Adds `prompts` prompts with `per_prompt` different completions each, and their pair tasks."""

    def filled(prompts: int = 4, per_prompt: int = 2, split: str | None = None) -> Store:
        store.add_prompts([ask(f"Question {number}?", split) for number in range(prompts)], heldout_fraction=0.25)
        model = store.add_model("starter", "base", sha="abc")
        how = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=64, system_prompt="")
        for prompt in store.prompts():
            store.add_completions(
                NewCompletion(prompt.id, model, how, f"{prompt.text} answer {k}", 5, "eos", k)
                for k in range(per_prompt)
            )
            store.make_pair_tasks(prompt.id)
        return store

    return filled


@pytest.fixture
def sit() -> type[Sitting]:
    """Sits a rater down: `sit(store, handle)`."""
    return Sitting
