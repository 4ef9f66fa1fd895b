"""Open-Assistant's trees (oasst-data/oasst_data/schemas.py): a prompt, and its ranked replies under it.

One tree for each judgement, since a reply has one rank. Rank 0 is the best and no two replies share one: rankings
with ties are left out before they come here. There is no system message.
"""

from __future__ import annotations

from rlhf_tui.preferences.formats.writers.axolotl import ranking
from rlhf_tui.preferences.formats.writers.shapes import SYSTEM, Row, Unfit, alternating
from rlhf_tui.preferences.records import Judged

USE = (
    "oasst_data.read_message_trees(FILE). Open-Assistant's own trainers keep only trees of a named language: "
    "'lang' is null here, because it is not known."
)
_ROLES = {"user": "prompter", "assistant": "assistant"}


def tree(judged: Judged) -> Row:
    """The conversation as a tree of one branch, and the candidates as replies, best first. Raises Unfit."""
    system, turns = alternating(judged.prompt)
    if system:
        raise Unfit(SYSTEM)
    ranks = ranking(judged.verdict)
    best_first = sorted(zip(ranks, judged.shown, strict=True), key=lambda one: one[0])
    replies = [
        _node(f"{judged.uid}-{one.uid}", "assistant", one.text, []) | _made_by(one.model, place)
        for place, (_, one) in enumerate(best_first)
    ]
    for depth, turn in reversed(list(enumerate(turns))):
        replies = [_node(f"{judged.uid}-{depth}", _ROLES[turn.role], turn.content, replies)]
    return {"message_tree_id": judged.uid, "tree_state": "ready_for_export", "prompt": replies[0]}


def _node(message_id: str, role: str, text: str, replies: list[Row]) -> Row:
    return {
        "message_id": message_id,
        "text": text,
        "role": role,
        "lang": None,
        "review_result": True,
        "deleted": False,
        "synthetic": False,
        "replies": replies,
    }


def _made_by(model: str, rank: int) -> Row:
    return {"rank": rank, "synthetic": True, "model_name": model}
