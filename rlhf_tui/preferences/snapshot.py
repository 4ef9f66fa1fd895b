"""The labels of one run, held still: which pairs it learns from, which it is measured on, and in which folds.

A run takes a snapshot once, when it starts, and reads it again when it is resumed: judgements given
meanwhile do not enter. It holds names (uids) and marks; the texts stay in the store, where they never change.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Literal

import msgspec

from rlhf_tui.errors import UsageError, UserError, nearest
from rlhf_tui.preferences.consistency import consistency
from rlhf_tui.preferences.formats.writers.files import replacing
from rlhf_tui.preferences.identity import number
from rlhf_tui.preferences.reading import as_pairs
from rlhf_tui.preferences.records import Judged, LabelledPair, Prompt, Rater
from rlhf_tui.preferences.store import Store

Ties = Literal["half", "drop"]
Split = Literal["train", "heldout"]

VERSION = 1
#: The fold of what is held out: it is in none.
NO_FOLD = -1
#: However unsure a rater is, the labels keep a direction: at one half they would say nothing.
MOST_SMOOTHING = 0.4

#: Why a judgement gives no row; ties of training prompts, where they are dropped, are counted in pairs.
OTHER_RATERS = "judgements of other raters"
REPEATS = "repeats"
SKIPPED = "skipped"
DISCARDED = "discarded"
BOTH_BAD = "judgements that all answers are bad"
NO_PAIR = "judgements that prefer nothing"
TIES = "ties of training prompts"

_SILENT = {"skip": SKIPPED, "discard": DISCARDED, "both_bad": BOTH_BAD}


@dataclass(frozen=True, slots=True)
class Row:
    """One pair. `judgement`, `prompt`, `better` and `worse` are uids, `judgement_id` is of this project's store.

    `strength` is 1 (better), 2 (much better) or 0 (tie: `better` and `worse` are arbitrary then); `weight` is
    1/(k-1) of k candidates judged together. `rater` is the public name and `smoothing` how often a label of
    theirs is taken to be a slip. `fold` counts from 0; -1 for what is held out. `better_first`: the better
    candidate stood first on screen; None for a tie and where the order is not known.
    """

    judgement: str
    judgement_id: int
    prompt: str
    better: str
    worse: str
    tie: bool
    strength: int
    weight: float
    rater: str
    smoothing: float
    split: Split
    fold: int
    better_first: bool | None


@dataclass(frozen=True)
class Snapshot:
    """The pairs of a run, in the order of judging, and how they were chosen.

    `labels` is the hash of all active judgements (`Store.snapshot_hash`), `raters` the public names of those
    that were asked for (empty: all), `folds` how many there are, never more than training prompts.
    `left_out` says how much is not here and why.
    """

    labels: str
    raters: tuple[str, ...]
    ties: Ties
    folds: int
    rows: tuple[Row, ...]
    left_out: Mapping[str, int]

    @property
    def hash(self) -> str:
        """SHA-256 over all of it: what a run records as what it was trained on."""
        return hashlib.sha256(b"".join(_lines(self, ""))).hexdigest()


def take(store: Store, *, raters: Sequence[str] = (), ties: Ties, folds: int, smoothing: float, seed: int) -> Snapshot:
    """The pairs that the active judgements imply now, all read at one moment.

    `raters` are handles; none means everybody. `ties` 'drop' leaves ties of training prompts out; those of
    held-out prompts stay, because nothing is learnt from them. Training prompts are dealt to `folds` folds of
    about as many pairs each, to the same ones for the same prompts and `seed`. A rater whose repeats are enough
    to show how reliable they are is smoothed by that (at most MOST_SMOOTHING), the others by `smoothing`.

    Raises UsageError for an unknown rater; UserError when no training pair is left, or when a judged
    prompt stands in both splits (white space aside); ValueError for fewer than two folds or a smoothing outside [0, ½).
    """
    if folds < 2 or not 0.0 <= smoothing < 0.5:
        raise ValueError(f"{folds} folds, smoothing {smoothing}")
    left_out: Counter[str] = Counter()
    with store.database.reading():
        asked = [_require(store, handle) for handle in raters]
        pairs = list(_pairs(store.judgements(), {rater.id for rater in asked}, ties, left_out))
        judging = {judged.rater.id for judged, _ in pairs}
        slips = {rater_id: _slips(store, rater_id, smoothing) for rater_id in judging}
        labels = store.snapshot_hash()
    prompts = [judged.prompt for judged, _ in pairs]
    _require_apart(prompts)
    dealt = _dealt((prompt for prompt in prompts if prompt.split == "train"), folds, seed)
    if not dealt:
        raise _nothing(left_out, heldout=len(pairs))
    return Snapshot(
        labels=labels,
        raters=tuple(sorted({rater.public_name for rater in asked})),
        ties=ties,
        folds=max(dealt.values()) + 1,
        rows=tuple(_row(judged, pair, slips, dealt) for judged, pair in pairs),
        left_out=dict(sorted(left_out.items())),
    )


def _require(store: Store, handle: str) -> Rater:
    found = store.rater(handle)
    if found is None:
        known = [rater.handle for rater in store.raters()]
        raise UsageError(
            f"There is no rater {handle!r}.",
            why=nearest(handle, known) or (f"They are: {', '.join(known)}." if known else "Nobody has judged yet."),
            todo="Name raters of this project in reward.raters, or none to learn from all of them.",
        )
    return found


def _pairs(
    judgements: Iterable[Judged], raters: Collection[int], ties: Ties, left_out: Counter[str]
) -> Iterator[tuple[Judged, LabelledPair]]:
    """Every pair with its judgement; what gives none is counted in `left_out`. `raters` empty: all of them."""
    for judged in judgements:
        reason = _silence(judged, raters)
        found = [] if reason else list(as_pairs([judged]))
        if not found:
            left_out[reason or NO_PAIR] += 1
        for pair in found:
            if pair.tie and ties == "drop" and judged.prompt.split == "train":
                left_out[TIES] += 1
            else:
                yield judged, pair


def _silence(judged: Judged, raters: Collection[int]) -> str:
    """Why a judgement has no say; empty when it has."""
    if raters and judged.rater.id not in raters:
        return OTHER_RATERS
    return REPEATS if judged.purpose == "repeat" else _SILENT.get(judged.verdict.outcome, "")


def _slips(store: Store, rater_id: int, otherwise: float) -> float:
    """How often a label of this rater is not what they mean, going by their repeats when there are enough."""
    reliability = consistency(store.facts(rater_id)).ceiling
    if reliability.value is None or not reliability.enough:
        return float(otherwise)
    return min(1.0 - reliability.value, MOST_SMOOTHING)


def _row(judged: Judged, pair: LabelledPair, slips: Mapping[int, float], folds: Mapping[str, int]) -> Row:
    known = judged.layout != "unordered" and not pair.tie
    places = {candidate.id: place for place, candidate in enumerate(judged.shown)}
    heldout = judged.prompt.split == "heldout"
    return Row(
        judgement=judged.uid,
        judgement_id=judged.id,
        prompt=judged.prompt.uid,
        better=pair.chosen.uid,
        worse=pair.rejected.uid,
        tie=pair.tie,
        strength=pair.strength,
        weight=pair.weight,
        rater=judged.rater.public_name,
        smoothing=slips[judged.rater.id],
        split="heldout" if heldout else "train",
        fold=NO_FOLD if heldout else folds[judged.prompt.uid],
        better_first=places[pair.chosen.id] < places[pair.rejected.id] if known else None,
    )


# Prompts apart


def _conversation(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    """What makes two prompts the same to a model: their messages, white space aside."""
    return tuple((message.role, " ".join(message.content.split())) for message in prompt.messages)


def _require_apart(prompts: Iterable[Prompt]) -> None:
    """Raises UserError when one conversation is in both splits: it would be measured on what was learnt by heart."""
    splits: dict[tuple[tuple[str, str], ...], str] = {}
    for prompt in prompts:
        if splits.setdefault(_conversation(prompt), prompt.split) != prompt.split:
            raise UserError(
                f"A prompt is both for training and held out: {shorten(prompt.text, 60, placeholder='…')!r}.",
                why="The two differ in white space only: what is measured on the one was learnt from the other.",
                todo="Discard what was judged about one of the two: open it from the history of 'rlhf-tui label'. "
                "If it was imported, clean the file and import it into a new project.",
            )


def _dealt(prompts: Iterable[Prompt], folds: int, seed: int) -> dict[str, int]:
    """The fold of each prompt, by uid, given the prompt of every pair.

    The prompts with most pairs are dealt first, each to the fold that has fewest; a stable hash decides between
    equals. Prompts that differ in white space only stay together.
    """
    groups: dict[tuple[tuple[str, str], ...], Counter[str]] = defaultdict(Counter)
    for prompt in prompts:
        groups[_conversation(prompt)][prompt.uid] += 1
    in_turn = sorted(groups.values(), key=lambda group: (-group.total(), number("fold", seed, min(group)), min(group)))
    sizes = [0] * folds
    found: dict[str, int] = {}
    for group in in_turn:
        smallest = sizes.index(min(sizes))
        sizes[smallest] += group.total()
        found |= dict.fromkeys(group, smallest)
    return found


def _nothing(left_out: Mapping[str, int], *, heldout: int) -> UserError:
    there = {"pairs of held-out prompts": heldout, **left_out}
    listed = ", ".join(f"{count} {what}" for what, count in there.items() if count)
    cure = ", or set reward.ties to 'half'" if left_out.get(TIES) else ""
    return UserError(
        "There is no judged pair to learn from.",
        why=f"There are only: {listed}." if listed else "Nothing has been judged yet.",
        todo=f"Judge pairs of training prompts with 'rlhf-tui label'{cure}.",
    )


# On disk


@dataclass(frozen=True)
class _Versioned:
    """The one field that every version of the first line has."""

    v: int


@dataclass(frozen=True)
class _Header:
    """The first line of the file: everything but the rows."""

    v: int
    labels: str
    raters: tuple[str, ...]
    ties: Ties
    folds: int
    left_out: dict[str, int]
    sha256: str


def _lines(snapshot: Snapshot, sha256: str) -> Iterator[bytes]:
    """The lines of the file, in bytes that are always the same for the same snapshot."""
    header = _Header(
        VERSION,
        snapshot.labels,
        snapshot.raters,
        snapshot.ties,
        snapshot.folds,
        dict(sorted(snapshot.left_out.items())),
        sha256,
    )
    for part in (header, *snapshot.rows):
        yield msgspec.json.encode(part) + b"\n"


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot as JSON lines, a header and then the rows, whole or not at all.

    Raises UserError when it cannot be written.
    """
    try:
        with replacing(path) as (file,):
            file.writelines(_lines(snapshot, snapshot.hash))
    except UserError as error:
        todo = "Check the disk and the folder's rights."
        raise UserError("The snapshot of the labels cannot be written.", why=error.why, todo=todo) from None


def read(path: Path) -> Snapshot:
    """The snapshot at `path`. Raises UserError when it cannot be read, is damaged, or of a newer version."""
    try:
        first, *rest = path.read_bytes().splitlines()
        version = msgspec.json.decode(first, type=_Versioned).v
        if version > VERSION:  # before the rest, which may be called otherwise there
            raise UserError(
                f"{path} was written by a newer rlhf-tui.",
                why=f"It is of version {version}; this program reads version {VERSION}.",
                todo="Update rlhf-tui, or start a new run.",
            )
        header = msgspec.json.decode(first, type=_Header)
        rows = tuple(msgspec.json.decode(line, type=Row) for line in rest)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read.",
            why=error.strerror or str(error),
            todo="Check that it is there and that you may read it, or start a new run.",
        ) from None
    except (ValueError, msgspec.MsgspecError):  # half a line, other bytes, no line at all
        raise _damaged(path) from None
    snapshot = Snapshot(header.labels, header.raters, header.ties, header.folds, rows, header.left_out)
    if snapshot.hash != header.sha256:
        raise _damaged(path)
    return snapshot


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged.",
        why="It is not what this run wrote: its hash does not fit.",
        todo="Restore it from a backup, or start a new run: that takes the labels as they are now.",
    )
