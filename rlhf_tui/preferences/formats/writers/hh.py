"""Transcripts as in Anthropic's hh-rlhf: every turn after '\\n\\nHuman: ' or '\\n\\nAssistant: ', two whole strings.

The format has no way to write a turn that holds such a mark itself, and no system message: both are left out.
"""

from __future__ import annotations

from rlhf_tui.preferences.formats.conventions import MARKS
from rlhf_tui.preferences.formats.writers.shapes import SYSTEM, Row, Unfit, alternating
from rlhf_tui.preferences.records import Judged, LabelledPair

HOLDS_A_MARK = "texts that hold '\\n\\nHuman:' or '\\n\\nAssistant:'"

USE = 'load_dataset("json", data_files="{file}"): chosen and rejected are whole transcripts, as in Anthropic/hh-rlhf.'


def row(pair: LabelledPair, judged: Judged) -> Row:
    """Both transcripts. Raises Unfit."""
    system, turns = alternating(pair.prompt)
    if system:
        raise Unfit(SYSTEM)
    texts = [*(turn.content for turn in turns), pair.chosen.text, pair.rejected.text]
    if any(mark in text for text in texts for mark in MARKS.values()):
        raise Unfit(HOLDS_A_MARK)
    prompt = "".join(f"{MARKS[turn.role]} {turn.content}" for turn in turns)
    chosen, rejected = (f"{prompt}{MARKS['assistant']} {side.text}" for side in (pair.chosen, pair.rejected))
    return {"chosen": chosen, "rejected": rejected}
