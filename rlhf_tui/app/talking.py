"""What a chat looks like: both conversations as text, and the state of the model in words. Free of widgets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.preferences.display import clean
from rlhf_tui.runs.ending import Ending
from rlhf_tui.runs.events import Sample
from rlhf_tui.runs.folder import Status
from rlhf_tui.runs.mailbox import ANSWERING, BASE, READY, Conversation, Speaking

#: Said once, on the screen and by the command line.
CAPTION = "RLHF tunes behaviour, not facts."
TITLES = {"base": "base", "policy": "tuned"}


@dataclass(frozen=True)
class SideText:
    """One conversation: its text, and which parts of it are quiet."""

    text: str
    quiet: tuple[tuple[int, int], ...]


def side_text(talk: Conversation, side: str, speaking: Speaking) -> SideText:
    """What `side` was asked and has said, the newest last."""
    parts: list[tuple[str, bool]] = []
    for one in talk.exchanges:
        if one.question.fresh and one.number > 1:
            parts.append(("── begun afresh ──", True))
        parts.append((f"you: {clean(one.question.text)}", True))
        sample = one.answers.get(side)
        if sample is not None:
            parts.append((_answer(sample), False))
            facts = answer_facts(sample)
            if facts:
                parts.append((facts, True))
        elif (speaking.number, speaking.side) == (one.number, side):
            parts.append((f"{clean(speaking.text)}▌", False))
        else:
            parts.append(("…", True))
        parts.append(("", False))
    text, quiet = "", []
    for part, is_quiet in parts[:-1]:
        if is_quiet:
            quiet.append((len(text), len(text) + len(part)))
        text += part + "\n"
    return SideText(text.rstrip("\n"), tuple(quiet))


def _answer(sample: Sample) -> str:
    if "too_long" in sample.values:
        return "(not answered: longer than model.max_prompt_tokens)"
    cut = "" if sample.values.get("ended", 1.0) else " …"
    return (clean(sample.completion) or "(nothing)") + cut


def answer_facts(sample: Sample) -> str:
    """The score of an answer, where there is a reward model, and how long it is."""
    score, length = (sample.values.get(name, math.nan) for name in ("score", "length"))
    parts = [] if math.isnan(score) else [f"score {score:+.2f}"]
    if not math.isnan(length):
        parts.append(words.plural(int(length), "token"))
        if not sample.values.get("ended", 1.0):
            parts.append("cut off at the limit")
    if forgotten := sample.values.get("forgotten"):
        parts.append(f"without the first {words.plural(int(forgotten), 'question')}: model.max_prompt_tokens")
    return " · ".join(parts)


def state_words(status: Status | None, talk: Conversation | None, end: Ending | None, busy: str) -> Content:
    """What the model is doing; `busy`: what the app is doing about it."""
    if busy:
        return tinted(f"● {busy}…", "accent")
    if status is None or talk is None:
        return tinted("○ not loaded", "quiet")
    doing = talk.doing
    match status:
        case "queued":
            return tinted(clean(f"○ QUEUED {doing.detail}".rstrip()), "warn")
        case "paused":
            return tinted("‖ PAUSED", "warn")
        case "running" if doing.name == READY:
            return tinted("○ waits for a question", "good")
        case "running" if doing.name == ANSWERING:
            who = "the base" if doing.detail == BASE else "the tuned model"
            return tinted(f"● {who} answers…", "accent")
        case "running" | "new":
            return tinted(clean(f"● {doing.name or 'starting'}…"), "accent")
        case "finished":
            return tinted("✓ ended: nobody looked for a while", "quiet")
        case "stopped":
            return tinted("■ stopped", "warn")
        case _:
            return tinted(clean(f"✗ {end.what if end else status}"), "bad")


def hint(status: Status | None, alone: bool, fresh: bool) -> str:
    """The line above the question: what to know now."""
    if fresh:
        return "The next question begins afresh: what was said is forgotten."
    if status is None:
        return f"{CAPTION} The first question loads the model."
    if status not in ("running", "queued", "paused", "new"):
        return f"{CAPTION} The next question begins a new chat."
    if alone:
        return f"{CAPTION} There is no tuned model yet."
    return f"{CAPTION} Both: same settings, same random numbers."
