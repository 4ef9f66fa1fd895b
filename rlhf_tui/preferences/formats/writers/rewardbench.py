"""RewardBench's own pairs (`rewardbench --dataset FILE --load_json`, rewardbench/utils.py, January 2026).

It wraps the prompt as one user message; what it makes of lists of messages depends on the version of the
`datasets` library, so only strings are written. The names of the models are columns of its own data set.
"""

from __future__ import annotations

from rlhf_tui.preferences.formats.writers.shapes import Row, plain, unmistakable
from rlhf_tui.preferences.records import Judged, LabelledPair

USE = "rewardbench --model=MODEL --dataset={file} --load_json"


def row(pair: LabelledPair, judged: Judged) -> Row:
    """Prompt and both answers as strings, and who wrote them. Raises Unfit for more than one user message."""
    return {
        "prompt": unmistakable(plain(pair.prompt)),
        "chosen": pair.chosen.text,
        "chosen_model": pair.chosen.model,
        "rejected": pair.rejected.text,
        "rejected_model": pair.rejected.model,
    }
