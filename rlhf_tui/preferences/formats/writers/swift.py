"""ms-swift's rows (docs/source_en/Customization/Custom-dataset.md, section RLHF, August 2026)."""

from __future__ import annotations

from rlhf_tui.preferences.formats.conventions import MARGIN
from rlhf_tui.preferences.formats.writers.shapes import Row, answer, conversation
from rlhf_tui.preferences.records import Judged, LabelledPair

USE = (
    "swift rlhf --rlhf_type dpo --dataset {file}  # or rm, orpo, cpo, simpo. With 'rm' the 'margin' column is "
    "subtracted inside the loss; other types ignore it. For kto export 'llamafactory-kto': its rows are the same."
)


def row(pair: LabelledPair, judged: Judged) -> Row:
    """The conversation that ends with the better answer, and the worse one beside it."""
    return {
        "messages": [*conversation(pair.prompt.messages), answer(pair.chosen.text)],
        "rejected_response": pair.rejected.text,
        "margin": MARGIN[pair.strength],
    }
