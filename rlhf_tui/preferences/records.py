"""What the store gives and takes: plain frozen records, no behaviour beyond reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "heldout")
OUTCOMES = ("ordered", "tie", "both_bad", "skip")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `role` is 'system', 'user' or 'assistant'."""

    role: str
    content: str


@dataclass(frozen=True)
class NewPrompt:
    """A prompt to add. `split` None lets the store choose by a stable hash."""

    messages: tuple[Message, ...]
    source: str
    split: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A stored prompt: a conversation that ends with the user's turn."""

    id: int
    uid: str
    messages: tuple[Message, ...]
    split: str
    source: str
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The last user message: what the completions answer."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True)
class Added:
    """How many prompts were new, and how many were there already."""

    added: int
    duplicates: int


@dataclass(frozen=True)
class Generation:
    """How completions were sampled."""

    id: int
    temperature: float
    top_p: float
    max_new_tokens: int
    system_prompt: str


@dataclass(frozen=True)
class NewCompletion:
    """A completion to add."""

    prompt_id: int
    model_id: int
    generation_id: int | None
    text: str
    n_tokens: int | None = None
    finish_reason: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """A stored text that a model (or a person) wrote to a prompt, exactly as it was written."""

    id: int
    uid: str
    prompt_id: int
    text: str
    n_tokens: int | None
    finish_reason: str | None
    model: str
    seed: int | None
    generation_id: int | None = None


@dataclass(frozen=True)
class Guideline:
    """The written taste the rater judges by. The same text is the same version."""

    id: int
    version: int
    body_md: str
    sha256: str


@dataclass(frozen=True)
class Rater:
    """Who judges. `kind` is 'human', 'import', 'rule' or 'model'; the card is self-declared."""

    id: int
    uid: str
    handle: str
    kind: str
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Presentation:
    """What a rater sees: the same sides every time this rater is shown this task."""

    id: int
    task_id: int
    prompt: Prompt
    left: Completion
    right: Completion


@dataclass(frozen=True)
class HistoryEntry:
    """One recent answer, for the list beside the labelling screen. `winner` is 'left', 'right' or None."""

    judgement_id: int
    task_id: int
    outcome: str
    winner: str | None
    strength: int
    prompt: str
    note: str


@dataclass(frozen=True)
class Judged:
    """One active judgement with everything it is about. `latency_ms` None: imported, time unknown."""

    id: int
    uid: str
    task_id: int
    prompt: Prompt
    left: Completion
    right: Completion
    outcome: str
    winner_id: int | None
    strength: int
    note: str
    rater: str
    layout: str
    latency_ms: int | None


@dataclass(frozen=True)
class LabelledPair:
    """What training reads: `chosen` is better than `rejected`, or equal to it when `tie`.

    `strength` is 1 (better), 2 (much better) or 0 (tie).
    """

    prompt: Prompt
    chosen: Completion
    rejected: Completion
    tie: bool
    strength: int
    weight: float
    rater: str
    judgement_id: int


@dataclass(frozen=True)
class Counts:
    """The state of the store at a glance; judgements are the active ones.

    `judgements` = `pairs` (ordered) + `ties` + `both_bad`; skipped tasks are counted beside them.
    `raters` have at least one judgement. `pairs_waiting`: tasks nobody (or, for one rater, this
    rater) has decided.
    """

    prompts: int
    train: int
    heldout: int
    completions: int
    pairs_waiting: int
    judgements: int
    pairs: int
    ties: int
    both_bad: int
    skipped: int
    raters: int


@dataclass(frozen=True)
class ImportedCandidate:
    """One side of an imported pair. `generation` is (temperature, top_p, max_new_tokens, system_prompt)."""

    text: str
    n_tokens: int | None = None
    finish_reason: str | None = None
    model: str = "imported"
    seed: int | None = None
    generation: tuple[float, float, int, str] | None = None


@dataclass(frozen=True)
class ImportedLabel:
    """One judgement read from a file. `better` is 0 or 1 when the outcome is 'ordered'.

    `rater` None: the file does not say. `layout` 'file': the candidates stand as the rater saw
    them; 'unordered': the file does not keep sides.
    """

    prompt: NewPrompt
    candidates: tuple[ImportedCandidate, ImportedCandidate]
    outcome: str
    better: int | None
    strength: int = 1
    note: str = ""
    rater: str | None = None
    layout: str = "file"
