"""What importing prompts would do, counted and said before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content

from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.words import one_line, plural
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.records import NewPrompt
from rlhf_tui.preferences.store import Store
from rlhf_tui.preferences.texts import choose_split, prompt_uid


@dataclass(frozen=True)
class Foreseen:
    """What `Store.add_prompts` would do with some prompts.

    `heldout` of the `new` ones would be held out; `here` are in the project already, `repeated` stand in the
    file more than once. `first`: the beginnings of some of the new ones.
    """

    new: int
    heldout: int
    here: int
    repeated: int
    first: tuple[str, ...]


def foresee(store: Store, rows: Sequence[NewPrompt], heldout_fraction: float) -> Foreseen:
    """Count without writing anything."""
    known = {prompt.uid for prompt in store.prompts()}
    return count(rows, known, seed=store.seed, heldout_fraction=heldout_fraction)


def count(rows: Sequence[NewPrompt], known: set[str], *, seed: int, heldout_fraction: float) -> Foreseen:
    """Count for a project that knows the prompts with these uids. The splits are those the store will choose."""
    met: set[str] = set()
    heldout = here = repeated = 0
    first: list[str] = []
    for row in rows:
        identity = prompt_uid(row.messages)
        if identity in met:
            repeated += 1
        elif identity in known:
            here += 1
        else:
            heldout += (row.split or choose_split(identity, seed, heldout_fraction)) == "heldout"
            first += [row.messages[-1].content] if len(first) < 3 else []
        met.add(identity)
    return Foreseen(len(rows) - here - repeated, heldout, here, repeated, tuple(first))


def foreseen_words(seen: Foreseen, width: int) -> Content:
    """What would be added, in words, with the beginnings of the first prompts."""
    left_out = [f"{seen.here:,} here already"] if seen.here else []
    left_out += [f"{seen.repeated:,} twice in the file"] if seen.repeated else []
    tail = tinted(f"left out: {', '.join(left_out)}" if left_out else "", "quiet")
    if not seen.new:
        return lines(tinted("· Nothing new in it.", "warn"), tail)
    split = f": {seen.new - seen.heldout:,} for training, {seen.heldout:,} held out"
    told = Content.assemble(tinted("✓ ", "good"), tinted(plural(seen.new, "new prompt"), "strong"), split)
    shown = [tinted("  " + one_line(clean(text), max(width - 2, 8)), "quiet") for text in seen.first]
    return lines(told, *([tail] if left_out else []), *shown)
