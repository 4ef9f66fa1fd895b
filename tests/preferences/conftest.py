"""A small store to judge in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.preferences.queue import Offer, Queue, Rules
from rlhf_tui.preferences.records import prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Presentation, Store, Verdict

Filled = Callable[..., Store]


def ask(text: str, split: str | None = None) -> NewPrompt:
    return NewPrompt((Message("user", text),), "test", split)


class Sitting:
    """One rater at one terminal, offered what the queue offers."""

    def __init__(self, store: Store, handle: str = "me", **rules: Any) -> None:
        self.store = store
        self.who = store.add_rater(handle)
        self.rater = self.who.id
        self.session = store.start_session(self.rater, columns=80, rows=24)
        self.queue = Queue(store, self.who, Rules(**rules))

    def show(self, task_id: int | None = None) -> Presentation:
        offer = self.queue.next() if task_id is None else Offer(task_id, "label", "random")
        assert offer is not None
        return self.store.present(
            offer.task_id,
            rater_id=self.rater,
            session_id=self.session,
            layout="side by side",
            purpose=offer.purpose,
            selection=offer.selection,
        )

    def judge(self, verdict: Verdict, task_id: int | None = None) -> Presentation:
        shown = self.show(task_id)
        self.store.judge(shown.id, verdict, latency_ms=900)
        self.queue.refresh(shown.task_id, shown.purpose)
        return shown

    def answer(self, outcome: str = "ordered", *, task_id: int | None = None, place: int = 0) -> Presentation:
        """Answer a pair: the candidate at `place` is better, or the outcome named."""
        verdict = {"ordered": prefer(place), "tie": tied()}.get(outcome, Verdict(outcome))
        return self.judge(verdict, task_id)


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
            store.make_tasks(prompt.id)
        return store

    return filled


@pytest.fixture
def sit() -> type[Sitting]:
    """Sits a rater down: `sit(store, handle)`."""
    return Sitting
