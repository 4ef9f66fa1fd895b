"""What others' files agree on and both readers and writers must know: marks, beginnings, margins, words.

Each stands here once, so that what is written for a trainer is what would be read back from it.
"""

from __future__ import annotations

#: How each turn of a transcript begins, as hh-rlhf writes it; and how the whole of it begins.
MARKS = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
TRANSCRIPT = MARKS["user"].lstrip()

#: How a prompt begins that is already inside a chat template.
TEMPLATES = ("<|im_start|>", "<|start_header_id|>", "<|begin_of_text|>", "<s>[INST]", "[INST]", "<start_of_turn>")

#: By strength: the 'margin' of a reward loss, for a tie, better and much better. The scale of TRL's example of
#: Llama 2's small margins (docs/source/paper_index.md, 'significantly better' 1, 'better' 2/3).
MARGIN = {0: 0.0, 1: 2.0 / 3.0, 2: 1.0}
#: A margin from here up is 'much better'.
MUCH_BETTER = MARGIN[2]

#: That neither of two answers is any good, as our tables say it, as FastChat's battles do, and in all words for it.
BOTH_BAD = "both_bad"
BATTLE_BOTH_BAD = "tie (bothbad)"
BOTH_BAD_WORDS = (BOTH_BAD, BATTLE_BOTH_BAD, "both bad", "bothbad", "neither")
