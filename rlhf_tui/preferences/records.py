"""What the store gives and takes: plain frozen records, no behaviour beyond reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "heldout")
ROLES = ("system", "user", "assistant")

#: What a rater is asked: which of two is better, the order of several, a mark for each, yes or no for each.
KINDS = ("pair", "rank", "rate", "accept")
#: What a rater can say. `skip` comes back in the next sitting, `discard` never.
OUTCOMES = ("ordered", "tie", "both_bad", "rated", "accepted", "skip", "discard")
#: Outcomes that say something about the candidates.
DECIDED = ("ordered", "tie", "both_bad", "rated", "accepted")
#: Why a rater may flag a task, and how it is said.
FLAGS = {
    "wrong": "factually wrong",
    "unsafe": "unsafe or offensive",
    "private": "personal data",
    "broken": "cut off or garbled",
    "language": "wrong language",
    "prompt": "the prompt is bad",
}


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
    edited_from: int | None = None


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
    edited_from: int | None = None


@dataclass(frozen=True)
class Guideline:
    """The written taste the rater judges by. The same text is the same version."""

    id: int
    version: int
    body_md: str
    sha256: str


@dataclass(frozen=True)
class Rater:
    """Who judges. `kind` is 'human', 'import', 'rule' or 'model'; the card is self-declared.

    Without `consent` neither the handle nor the card of a person leaves the project: what others get to see is
    `public_name` and `public_card`.
    """

    id: int
    uid: str
    handle: str
    kind: str
    card: Mapping[str, Any] = field(default_factory=dict)
    consent: bool = False

    @property
    def is_public(self) -> bool:
        """Whether handle and card may leave the project: a person must have agreed; a file, rule or model is nobody."""
        return self.consent or self.kind != "human"

    @property
    def public_name(self) -> str:
        """What exports call this rater: the handle, or for a person who has not agreed a stable pseudonym."""
        return self.handle if self.is_public else f"rater-{self.uid[:8]}"

    @property
    def public_card(self) -> dict[str, Any]:
        """What exports say of this rater: the card, or nothing of a person who has not agreed."""
        return dict(self.card) if self.is_public else {}


@dataclass(frozen=True)
class Verdict:
    """What a rater said of K candidates, each list in the order of the candidates it is about.

    'ordered': `ranks` (1 is best, equal ranks are tied), and for a pair `strength` 1 (better) or 2 (much
    better). 'tie': all ranks are 1. 'rated': `ratings`, 1 to 5. 'accepted': `accepted`. 'both_bad' (all
    are bad), 'skip' and 'discard' hold nothing more.
    """

    outcome: str
    ranks: tuple[int, ...] = ()
    ratings: tuple[int, ...] = ()
    accepted: tuple[bool, ...] = ()
    strength: int = 0


def prefer(place: int, strength: int = 1) -> Verdict:
    """The verdict that of a pair the candidate at `place` (0 or 1) is better (strength 2: much better)."""
    return Verdict("ordered", ranks=(1, 2) if place == 0 else (2, 1), strength=strength)


def tied(candidates: int = 2) -> Verdict:
    """The verdict that all candidates are equally good."""
    return Verdict("tie", ranks=(1,) * candidates)


@dataclass(frozen=True)
class Presentation:
    """What a rater sees: the same order every time this rater is shown this task for this purpose.

    `purpose` is 'label', or 'repeat' when the rater has answered the task before, in the reverse order.
    `selection` says why it was chosen (see `Fact`); it is not for the rater's eyes.
    """

    id: int
    task_id: int
    kind: str
    purpose: str
    selection: str
    prompt: Prompt
    shown: tuple[Completion, ...]


@dataclass(frozen=True)
class HistoryEntry:
    """One answer for the history list; the verdict is in the order of the candidates on screen."""

    judgement_id: int
    task_id: int
    kind: str
    purpose: str
    verdict: Verdict
    prompt: str
    note: str
    flags: tuple[str, ...]
    gold: bool
    selection: str
    at: str


@dataclass(frozen=True)
class Judged:
    """One active judgement with everything it is about; the verdict is in the order of `shown`.

    `latency_ms` None: imported, time unknown. `layout` 'unordered': the file did not keep the order.
    """

    id: int
    uid: str
    task_id: int
    kind: str
    purpose: str
    prompt: Prompt
    shown: tuple[Completion, ...]
    verdict: Verdict
    note: str
    flags: tuple[str, ...]
    rater: Rater
    layout: str
    latency_ms: int | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One active judgement without its texts: what the statistics read.

    `shown` are completion ids and `characters` the lengths of their texts, in the order on screen; both are
    empty for a skip or a discard, which say nothing about the candidates.
    `predicted`: the reward model's probability, before the answer, that the first of a pair is better.
    `selection` says why the task was chosen: 'random', 'active', 'gold', 'repeat', 'edit' or 'import'.
    """

    judgement_id: int
    task_id: int
    prompt_id: int
    rater: str
    kind: str
    purpose: str
    selection: str
    verdict: Verdict
    shown: tuple[int, ...]
    characters: tuple[int, ...]
    layout: str
    latency_ms: int | None
    predicted: float | None
    created_at: str


@dataclass(frozen=True)
class LabelledPair:
    """What training reads: `chosen` is better than `rejected`, or equal to it when `tie`.

    `strength` is 1 (better), 2 (much better) or 0 (tie). K candidates judged together give up to
    K(K-1)/2 pairs of weight 1/(K-1) each, so that a long ranking does not drown the rest.
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
    """The state of the store at a glance; judgements are the active ones that are no repeats.

    `judgements` are the decided ones: of pairs `pairs` (those with a better side), `ties` and `both_bad`, and
    `rankings`, `ratings` and `acceptances`. How many pairs training reads is another number: `Store.pairs`.
    Skipped and discarded tasks are counted beside them. `raters` have at least one judgement.
    `pairs_waiting`: pairs nobody (or, for one rater, this rater) has decided.
    `near_duplicates`: completions that are offered to nobody because they are too like another one.
    """

    prompts: int
    train: int
    heldout: int
    completions: int
    near_duplicates: int
    pairs_waiting: int
    judgements: int
    pairs: int
    ties: int
    both_bad: int
    rankings: int
    ratings: int
    acceptances: int
    repeats: int
    skipped: int
    discarded: int
    raters: int

    @property
    def teaching(self) -> int:
        """Judgements that a reward model can learn from."""
        return self.pairs + self.ties + self.rankings + self.ratings + self.acceptances


@dataclass(frozen=True)
class ImportedCandidate:
    """One candidate of an imported judgement. `generation` is (temperature, top_p, max_new_tokens, system_prompt)."""

    text: str
    n_tokens: int | None = None
    finish_reason: str | None = None
    model: str = "imported"
    seed: int | None = None
    generation: tuple[float, float, int, str] | None = None


@dataclass(frozen=True)
class ImportedLabel:
    """One judgement read from a file; the verdict is in the order of the candidates.

    `kind` is one of KINDS: 'pair' has two candidates, 'rank' two or more, 'rate' and 'accept' one or more.
    `rater` None: the file does not say; `rater_uid` is ours, where the file has it. `layout` 'file': the
    candidates stand as the rater saw them; 'unordered': the file does not keep the order.
    """

    prompt: NewPrompt
    candidates: tuple[ImportedCandidate, ...]
    kind: str
    verdict: Verdict
    note: str = ""
    flags: tuple[str, ...] = ()
    rater: str | None = None
    rater_uid: str | None = None
    layout: str = "file"
    latency_ms: int | None = None


@dataclass(frozen=True)
class Merged:
    """What came from another copy of the project. `renamed`: raters whose handle was taken here, old to new."""

    prompts: int
    completions: int
    judgements: int
    raters: int
    renamed: Mapping[str, str]
