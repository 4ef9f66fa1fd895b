"""What the doctor found, in words: a line for each check, why it matters, and what to do. Free of widgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.widgets.panel import lines, list_line, tinted
from rlhf_tui.doctor import Check
from rlhf_tui.preferences.display import clean

#: A check's status as glyph and word, and its tone.
MARKS = {"ok": ("✓ ok", "good"), "note": ("· note", "warn"), "problem": ("✗ problem", "bad")}

#: Why each thing that is looked at matters.
MATTERS = {
    "python": "The program and the libraries of the model need a Python that they have been tried on.",
    "memory": "Without a card the model is computed here; with one, it passes through here when it is loaded. "
    "A run that finds too little is ended by the system, without a word.",
    "cpu cores": "Without a card they do all the work, and twice as many are nearly twice as fast. "
    "With a card they hardly matter.",
    "disk": "Every checkpoint holds the adapters and their optimisers, and a merged export is as large as the whole "
    "model. A full disk pauses a run.",
    "torch": "It computes the model. Which build is installed decides whether a card can be used.",
    "transformers": "It reads the model and its tokenizer, whatever their make.",
    "peft": "It is the form in which adapters are written, so that other programs can load them.",
    "bitsandbytes": "It holds the base in 4 bits: a model of 8 billion parameters then needs about 6 GiB, not 16.",
    "textual": "It draws this screen.",
    "safetensors": "Weights are read and written with it; unlike pickled files they cannot run code.",
    "card": "It makes training 10 to 100 times faster. Its memory decides how large a model may be: "
    "'rlhf-tui fit' says which.",
    "terminal": "In a small one two answers are shown one above the other instead of side by side.",
    "colours": "They mark what is good and what is not. The words beside them say the same.",
    "glyphs": "Charts are drawn in braille dots; without them they are drawn in plain signs, and coarser.",
    "tmux": "Runs go on when the terminal closes. With tmux, the app is still open when you come back.",
    "starter model": "The demo and the sample project use it: small enough for a machine without a card.",
    "project": "One writer at a time, kept by locks of the file system. Where they do not hold, two programs "
    "could write to one file.",
    "settings": "Nothing can be started as long as the file of settings cannot be read.",
    "notify": "A project that came from elsewhere may name a program to run, or an address to write to. "
    "Nobody but you decides whether it may.",
}


def row(check: Check, width: int, *, lit: bool) -> Content:
    """A check in the list: glyph and word, its name, what was found."""
    mark, tone = MARKS[check.status]
    parts: list[Content | str] = [
        tinted(mark.ljust(11), tone),
        tinted(check.name.ljust(15), "strong" if lit else ""),
        words.one_line(clean(check.found), 400),
    ]
    return list_line(parts, width, lit=lit)


def about(check: Check) -> Content:
    """Everything about a check: what was found, why it matters, what to do."""
    mark, tone = MARKS[check.status]
    todo = clean(check.advice) or ("Nothing." if check.status == "ok" else "")
    told = [
        ("found", clean(check.found), ""),
        ("why it matters", MATTERS.get(check.name, ""), "quiet"),
        ("to do", todo, "" if check.status == "ok" else tone),
    ]
    shown = [item for item in told if item[1]]
    parts = [Content.assemble(tinted(f"{label}  ", "accent"), tinted(said, shade)) for label, said, shade in shown]
    return lines(tinted(mark, tone), *parts)


def brief_about(check: Check) -> Callable[[int, int], Content]:
    """The same for a panel: what must be done goes first where not everything fits."""

    def body(width: int, height: int) -> Content:
        whole = about(check)
        room = sum(len(words.wrapped(line.plain, width)) for line in whole.split("\n"))
        if room <= height:
            return whole
        kept = [part for part in whole.split("\n") if not part.plain.startswith("found")]
        return lines(*kept[:1], *reversed(kept[1:]))

    return body


def summary(checks: Sequence[Check] | None) -> Content:
    """The whole examination in a few words."""
    if checks is None:
        return tinted("● looking…", "accent")
    problems, notes = (sum(check.status == status for check in checks) for status in ("problem", "note"))
    if problems:
        return tinted(f"✗ {words.plural(problems, 'problem')} · {words.plural(notes, 'note')}", "bad")
    return tinted(f"✓ it can do this · {words.plural(notes, 'note')}" if notes else "✓ it can do this", "good")


def worst(checks: Sequence[Check]) -> int:
    """The place of the first check that asks for something: a problem, else a note, else the first of all."""
    for status in ("problem", "note"):
        for place, check in enumerate(checks):
            if check.status == status:
                return place
    return 0
