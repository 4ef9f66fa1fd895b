"""What the rows of a format are made of: pairs, whole judgements, good and bad answers, or prompts.

Rows are made one at a time while they are written. What has no place in a format is counted by its reason,
in rows that are not there: a judgement that holds no pair counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rlhf_tui.preferences.formats.writers.own import line
from rlhf_tui.preferences.formats.writers.shapes import Row, Unfit
from rlhf_tui.preferences.reading import as_pairs, preferences
from rlhf_tui.preferences.records import Completion, Generation, Judged, LabelledPair, Prompt, Verdict

TIES = "ties"
BOTH_BAD = "judgements that all answers are bad"
NO_PAIR = "judgements that prefer nothing"
PREFERENCES = "preferences: they call no answer good or bad by itself"
MIDDLING = "ratings of 3: neither good nor bad"

GOOD, BAD = 4, 2  # ratings from here up, and from here down


@dataclass(frozen=True)
class Material:
    """What there is to write of a split ('all': of both): decided judgements that are no repeats, and prompts.

    `guidelines` is, by judgement, the (version, sha256) of the guideline that was on screen. `repeats` is how many
    of them there are; the others are judgements and prompts of the split that was not asked for.
    """

    judged: tuple[Judged, ...]
    prompts: tuple[Prompt, ...]
    generations: Mapping[int, Generation]
    guidelines: Mapping[int, tuple[int, str]]
    repeats: int
    split: str
    other_judgements: int
    other_prompts: int


@dataclass
class Tally:
    """What was written and what was not; filled while rows are made.

    `judgements`, `prompts` (with their rows) and `heldout` (prompts) hold ids.
    """

    ties: str
    left_out: Counter[str] = field(default_factory=Counter)
    weights: Counter[float] = field(default_factory=Counter)
    judgements: set[int] = field(default_factory=set)
    prompts: Counter[int] = field(default_factory=Counter)
    heldout: set[int] = field(default_factory=set)

    def wrote(self, prompt: Prompt, judged: Judged | None = None) -> None:
        """Count one row about a prompt, made from a judgement."""
        self.prompts[prompt.id] += 1
        if prompt.split == "heldout":
            self.heldout.add(prompt.id)
        if judged is not None:
            self.judgements.add(judged.id)


Rows = Callable[[Material, Tally], Iterator[Row]]


def pairs_of(write: Callable[[LabelledPair, Judged], Row], *, bad: Callable[[Judged], list[Row]] | None = None) -> Rows:
    """One row a pair; every judgement expanded. `bad` makes the rows of one that all answers are bad."""

    def rows(material: Material, tally: Tally) -> Iterator[Row]:
        for judged in material.judged:
            if judged.verdict.outcome == "both_bad" and bad is not None:
                for row in bad(judged):
                    tally.wrote(judged.prompt, judged)
                    yield row
                continue
            found = list(as_pairs([judged]))
            if not found:
                tally.left_out[BOTH_BAD if judged.verdict.outcome == "both_bad" else NO_PAIR] += 1
            for pair in _settled(found, tally):
                try:
                    row = write(pair, judged)
                except Unfit as reason:
                    tally.left_out[str(reason)] += 1
                    continue
                tally.weights[pair.weight] += 1
                tally.wrote(judged.prompt, judged)
                yield row

    return rows


def _settled(pairs: list[LabelledPair], tally: Tally) -> Iterator[LabelledPair]:
    """The pairs with each tie kept, dropped, or turned into two opposite halves."""
    for pair in pairs:
        if not pair.tie or tally.ties == "keep":
            yield pair
        elif tally.ties == "half":
            half = replace(pair, tie=False, weight=pair.weight / 2)
            yield half
            yield replace(half, chosen=pair.rejected, rejected=pair.chosen)
        else:
            tally.left_out[TIES] += 1


def judgements_of(write: Callable[[Judged], Row]) -> Rows:
    """One row a judgement that ranks, whole."""

    def tied(verdict: Verdict) -> bool:
        return any(strength == 0 for _, _, strength in preferences(verdict))

    return _whole(lambda judged, _: write(judged), tied)


def own_lines() -> Rows:
    """One row a judgement, with everything known of it."""

    def write(judged: Judged, material: Material) -> Row:
        _, sha256 = material.guidelines.get(judged.id, (0, None))
        return line(judged, material.generations, sha256)

    def tied(verdict: Verdict) -> bool:
        return len(set(verdict.ranks)) < len(verdict.ranks)  # equal ratings are no tie, they are ratings

    return _whole(write, tied)


def _whole(write: Callable[[Judged, Material], Row], tied: Callable[[Verdict], bool]) -> Rows:
    def rows(material: Material, tally: Tally) -> Iterator[Row]:
        for judged in material.judged:
            if tally.ties == "drop" and tied(judged.verdict):
                tally.left_out[TIES] += 1
                continue
            try:
                row = write(judged, material)
            except Unfit as reason:
                tally.left_out[str(reason)] += 1
                continue
            tally.wrote(judged.prompt, judged)
            yield row

    return rows


def marks_of(write: Callable[[Prompt, Completion, bool], Row]) -> Rows:
    """One row for each answer that was called good or bad: accepted or not, rated high or low, or all bad."""

    def rows(material: Material, tally: Tally) -> Iterator[Row]:
        for judged in material.judged:
            marks = _marks(judged.verdict, len(judged.shown))
            if not marks:
                tally.left_out[PREFERENCES] += 1
            for completion, good in zip(judged.shown, marks, strict=bool(marks)):
                if good is None:
                    tally.left_out[MIDDLING] += 1
                    continue
                try:
                    row = write(judged.prompt, completion, good)
                except Unfit as reason:
                    tally.left_out[str(reason)] += 1
                    continue
                tally.wrote(judged.prompt, judged)
                yield row

    return rows


def _marks(verdict: Verdict, candidates: int) -> tuple[bool | None, ...]:
    """Whether each answer is good; None: neither. Empty: the verdict does not say."""
    if verdict.outcome == "both_bad":
        return (False,) * candidates
    if verdict.outcome == "rated":
        return tuple(True if rating >= GOOD else False if rating <= BAD else None for rating in verdict.ratings)
    return verdict.accepted


def prompts_of(write: Callable[[Prompt], Row]) -> Rows:
    """One row a prompt, judged or not."""

    def rows(material: Material, tally: Tally) -> Iterator[Row]:
        for prompt in material.prompts:
            tally.wrote(prompt)
            yield write(prompt)

    return rows
