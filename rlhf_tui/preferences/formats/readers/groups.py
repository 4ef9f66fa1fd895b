"""Several answers to one prompt: rankings, best of four, trees of replies, and marks.

Nectar's `answers`, our fixture's `completions`, Open-Assistant's trees and flat messages, lm-human-preferences
(Ziegler et al. 2019), HelpSteer, and summarize-from-feedback (Stiennon et al. 2020).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from rlhf_tui.errors import UserError
from rlhf_tui.preferences.formats.fields import (
    NO_PROMPT,
    UNDECIDED,
    Malformed,
    Unusable,
    is_missing,
    number,
    objects,
    text,
    words,
)
from rlhf_tui.preferences.formats.lines import Row
from rlhf_tui.preferences.formats.readers.building import (
    Context,
    Dropped,
    Found,
    Turns,
    ask,
    better,
    candidate,
    handle,
    prompt_of,
    ranked,
    rated,
    said,
)
from rlhf_tui.preferences.records import ImportedCandidate, Message

TOO_FEW = "fewer than two ranked answers"
UNRANKED_ONE = "a candidate without a rank, whose group is kept without it"
ORPHAN = "an answer whose conversation is not in the file"
TWICE = "a message that is in the file already"
NO_MARK = "a mark outside the scale"
#: What of a flat message is held until its tree is whole.
_KEPT = ("parent_id", "text", "role", "rank", "deleted", "model_name", "split")
_SPEAKER = re.compile(r"(?:\A|\n)<extra_id_1>(User|Assistant)\n")


# Rankings


def read_answers(row: dict[str, Any], context: Context) -> list[Found]:
    """Nectar: `answers` with `answer` and `rank`, 1 is best and equal ranks are tied."""
    return _ranking(row, context, objects(row, "answers"), "answer", "model")


def read_completions(row: dict[str, Any], context: Context) -> list[Found]:
    """`completions` with `text` and `rank`; the least rank is best."""
    return _ranking(row, context, objects(row, "completions"), "text", "model_name")


def _ranking(row: dict[str, Any], context: Context, answers: list[dict[str, Any]], key: str, model: str) -> list[Found]:
    prompt = ask(prompt_of(row, ("prompt", "messages")), context, row)
    ranks = [(number(answer.get("rank"), "rank"), answer) for answer in answers]
    placed = [(rank, candidate(words(answer, key), answer.get(model))) for rank, answer in ranks if rank is not None]
    if len(placed) < 2:
        raise Unusable(TOO_FEW)
    label = ranked(prompt, [one for _, one in placed], [rank for rank, _ in placed], rater=handle(row.get("rater")))
    return [label, *[Dropped(UNRANKED_ONE)] * (len(answers) - len(placed))]


# Open-Assistant


def read_tree(row: dict[str, Any], context: Context) -> list[Found]:
    """One ranking for each message of a tree with two or more ranked replies of the assistant.

    Where several replies stand and fewer than two are ranked, one judgement is missing, and counted.
    """
    root = row.get("prompt")
    root = root if isinstance(root, dict) else row
    if root.get("parent_id"):
        raise Unusable(ORPHAN)
    found = list(_rankings(root, context, row))
    reasons = [one.reason for one in found if isinstance(one, Dropped)]
    if len(reasons) == len(found):
        raise Unusable(reasons[0] if reasons else TOO_FEW)
    return found


def _rankings(root: dict[str, Any], context: Context, row: dict[str, Any]) -> Iterator[Found]:
    waiting: list[tuple[dict[str, Any], Turns]] = [(root, ())]
    while waiting:
        node, before = waiting.pop()
        path = (*before, _message(node))
        replies = objects(node, "replies") if node.get("replies") else []
        waiting += [(reply, path) for reply in reversed(replies)]
        if path[-1].role == "user":
            yield from _replies(path, replies, context, row)


def _message(node: dict[str, Any]) -> Message:
    role = {"prompter": "user", "assistant": "assistant"}.get(text(node, "role", ""))
    if role is None:
        raise Malformed("The 'role' of a message must be 'prompter' or 'assistant'.")
    return Message(role, text(node, "text", ""))


def _replies(path: Turns, replies: list[dict[str, Any]], context: Context, row: dict[str, Any]) -> list[Found]:
    """What was said of the replies to the last message of a path; nothing when there was no choice."""
    offered = [reply for reply in replies if _message(reply).role == "assistant" and not reply.get("deleted")]
    placed = [
        (rank, candidate(text(reply, "text", ""), reply.get("model_name")))
        for reply in offered
        if (rank := number(reply.get("rank"), "rank")) is not None
    ]
    if len(offered) < 2:
        return []
    if len(placed) < 2:
        return [Dropped(TOO_FEW)]
    if not path[-1].content.strip():
        return [Dropped(NO_PROMPT)]
    label = ranked(ask(path, context, row), [one for _, one in placed], [rank for rank, _ in placed])
    return [label, *[Dropped(UNRANKED_ONE)] * (len(offered) - len(placed))]


def grow_trees(rows: Iterable[Row]) -> Iterator[Row]:
    """Flat messages (as the hub has them) put under the messages they answer; trees pass as they are.

    Flat messages of one tree need not stand together, so all of them are held until the last row is read. A tree
    of them counts as the rows it is made of; a message that has no place in one is `Dropped`.
    """
    nodes: dict[str, tuple[int, dict[str, Any]]] = {}
    for row in rows:
        value = row.value
        if not isinstance(value, dict) or "replies" in value or not isinstance(value.get("message_id"), str):
            yield row
            continue
        if value["message_id"] in nodes:
            yield Row(row.number, Dropped(TWICE))
            continue
        kept: dict[str, Any] = {key: value.get(key) for key in _KEPT}
        nodes[value["message_id"]] = (row.number, kept | {"replies": []})
    roots = []
    for line, node in nodes.values():
        parent = node["parent_id"]
        if isinstance(parent, str) and parent in nodes:
            nodes[parent][1]["replies"].append(node)
        else:
            roots.append((line, node))
    grown = [Row(line, node, _messages_of(node)) for line, node in roots]
    yield from grown
    lost = len(nodes) - sum(tree.rows for tree in grown)
    if lost:  # they answer each other in a circle
        yield Row(next(iter(nodes.values()))[0], Dropped(ORPHAN), lost)


def _messages_of(node: dict[str, Any]) -> int:
    """How many messages a tree has, its root included."""
    count, waiting = 0, [node]
    while waiting:
        found = waiting.pop()
        waiting += found["replies"]
        count += 1
    return count


# Studies


def read_best_of(row: dict[str, Any], context: Context) -> list[Found]:
    """lm-human-preferences: of `sample0`, `sample1`, … the one numbered `best` is better than each other one.

    Nothing is known about the others among themselves, so these are pairs and not a ranking with a tie.
    """
    samples = sorted(key for key in row if re.fullmatch(r"sample\d+", key))
    best = number(row.get("best"), "best")
    if best is None:
        raise Unusable(UNDECIDED)
    if len(samples) < 2:
        raise Unusable(TOO_FEW)
    if best not in range(len(samples)):
        raise Malformed(f"'best' is {best:g}; it must be the number of a sample.")
    prompt = ask(said(_words(row, "query")), context, row)
    winner = ImportedCandidate(_words(row, samples[int(best)]))
    others = [ImportedCandidate(_words(row, key)) for place, key in enumerate(samples) if place != best]
    return [better(prompt, (winner, other), 0) for other in others]


def _words(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, list) and all(type(token) is int and token >= 0 for token in value):
        return _decoded(value) if value else ""
    return text(row, key, "")


def _decoded(tokens: list[int]) -> str:
    """GPT-2's tokens as text; the padding (50259) and the end of text lie outside its words."""
    try:
        encoding = import_module("tiktoken").get_encoding("gpt2")
    except ImportError:
        raise UserError(
            "The texts of this file are token numbers of GPT-2.",
            why="Turning them into words needs the package tiktoken.",
            todo="Install it with: pip install tiktoken.",
        ) from None
    except Exception as error:  # whatever its download of the vocabulary raises
        raise UserError(
            "The texts of this file are token numbers of GPT-2.",
            why=f"tiktoken could not load the vocabulary: {error}",
            todo="It downloads it once: try again with a network.",
        ) from error
    return str(encoding.decode([token for token in tokens if token < 50256]))


def read_marks(row: dict[str, Any], context: Context) -> list[Found]:
    """HelpSteer: `helpfulness` from 0 to 4 becomes a rating from 1 to 5; the other four marks are not kept."""
    mark = number(row.get("helpfulness"), "helpfulness")
    if mark is None:
        raise Unusable(UNDECIDED)
    if not 0 <= mark <= 4:
        raise Unusable(NO_MARK)
    prompt = ask(_marked_turns(text(row, "prompt", "")), context, row)
    return [rated(prompt, candidate(words(row, "response")), round(mark) + 1)]


def _marked_turns(value: str) -> Turns:
    """HelpSteer2 separates the turns of a conversation by '<extra_id_1>User' and '<extra_id_1>Assistant'."""
    first, *rest = _SPEAKER.split(value)
    found = list(said(first)) if first else []
    for role, content in zip(rest[::2], rest[1::2], strict=True):
        found.append(Message(role.lower(), content))
    return tuple(found)


def read_summaries(row: dict[str, Any], context: Context) -> list[Found]:
    """summarize-from-feedback: `choice` of two `summaries`; confidence goes from 1 (surely the first) to 9."""
    summaries, info = objects(row, "summaries"), row.get("info")
    choice = number(row.get("choice"), "choice")
    if len(summaries) != 2 or not isinstance(info, dict) or choice not in (0, 1):
        raise Malformed("It needs 'info', two 'summaries' and a 'choice' of 0 or 1.")
    extra = row.get("extra")
    confidence = number(extra.get("confidence"), "confidence") if isinstance(extra, dict) else None
    sure = confidence is not None and (confidence <= 2 if choice == 0 else confidence >= 8)
    notes = [
        f"{place}: {one['note']}" for place, one in zip(("first", "second"), summaries, strict=True) if one.get("note")
    ]
    return [
        better(
            ask(said(_post(info)), context, row),
            [candidate(text(one, "text", ""), one.get("policy")) for one in summaries],
            int(choice),
            strength=2 if sure else 1,
            rater=handle(row.get("worker")),
            note="; ".join(notes),
        )
    ]


def _post(info: dict[str, Any]) -> str:
    """The prompt as the study's models saw it (its code's `format_str`, without the open end of a line)."""
    if not is_missing(info.get("article")):
        return f"Article:\n\n{text(info, 'article')}\n\nTL;DR:"
    parts = [("SUBREDDIT: r/", "subreddit"), ("TITLE: ", "title"), ("POST: ", "post")]
    filled = [f"{name}{text(info, key)}" for name, key in parts if not is_missing(info.get(key))]
    return "\n\n".join((*filled, "TL;DR:")) if filled else ""
