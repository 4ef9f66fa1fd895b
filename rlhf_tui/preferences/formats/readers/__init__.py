"""One reader for each format that judgements come in: a function from a row to the judgements it holds.

`building` has what they share; `own` is our line, `columns` reads any table by a mapping, and the rest are
families: `preferred` (chosen and rejected), `unpaired` (thumbs), `votes`, `groups` (rankings, trees, marks)
and `tools` (what labelling tools write).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rlhf_tui.preferences.formats.lines import Row
from rlhf_tui.preferences.formats.readers import columns, groups, own, preferred, tools, unpaired, votes
from rlhf_tui.preferences.formats.readers.building import Context, Found
from rlhf_tui.preferences.formats.sources import TABLES


def as_they_are(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, unchanged."""
    return iter(rows)


def take_any(rows: list[dict[str, Any]], context: Context) -> None:
    """No check of the first rows."""


@dataclass(frozen=True)
class Reader:
    """How a format is read. `read` raises Malformed and Unusable.

    `gathered`: rows that follow each other, of one prompt and one rater, with one candidate each, are one task.
    `prepare` may put rows together; `check` looks at the first rows and raises UsageError for the whole file.
    """

    read: Callable[[dict[str, Any], Context], list[Found]]
    gathered: bool = False
    prepare: Callable[[Iterable[Row]], Iterator[Row]] = as_they_are
    check: Callable[[list[dict[str, Any]], Context], None] = take_any


_TABLE = Reader(columns.read, gathered=True, check=columns.check_winners)

READERS: dict[str, Reader] = {
    "rlhf-tui": Reader(own.read),
    "trl": Reader(preferred.read_with(preferred.PROMPT_KEYS)),
    "trl-implicit": Reader(preferred.read_with(())),
    "trl-text": Reader(preferred.read_with(preferred.PROMPT_KEYS)),
    "trl-unpaired": Reader(unpaired.read, gathered=True),
    "hh": Reader(preferred.read_transcripts),
    "llamafactory-alpaca": Reader(preferred.read_alpaca),
    "llamafactory-sharegpt": Reader(preferred.read_with(("conversations", "messages"))),
    "llamafactory-kto": Reader(unpaired.read, gathered=True),
    "llamafactory-v1": Reader(preferred.read_whole),
    "axolotl": Reader(preferred.read_with(("messages",))),
    "axolotl-intel": Reader(preferred.read_with(("question", *preferred.PROMPT_KEYS))),
    "axolotl-nectar": Reader(groups.read_answers),
    "axolotl-rm": Reader(preferred.read_with(("input",))),
    "ms-swift": Reader(preferred.read_beside),
    "openrlhf": Reader(preferred.read_with(preferred.PROMPT_KEYS)),
    "rewardbench": Reader(preferred.read_with(preferred.PROMPT_KEYS)),
    "arena": Reader(votes.read_battle),
    "alpacaeval": Reader(votes.read_annotation),
    "oasst": Reader(groups.read_tree, prepare=groups.grow_trees),
    "rankings": Reader(groups.read_completions),
    "summarize": Reader(groups.read_summaries),
    "ziegler": Reader(groups.read_best_of),
    "shp": Reader(votes.read_comments),
    "helpsteer": Reader(groups.read_marks, gathered=True),
    "pandalm": Reader(votes.read_annotators),
    "label-studio": Reader(tools.read_task, check=tools.check_task),
    "potato": Reader(tools.read_item, check=tools.check_item),
    **dict.fromkeys((*TABLES, "table"), _TABLE),
}
