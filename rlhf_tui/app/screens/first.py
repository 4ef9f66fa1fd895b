"""The first steps on a new machine: look at it, make something to look at, judge five pairs. Each may be left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from rlhf_tui import locate
from rlhf_tui.app.shelf import short
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted
from rlhf_tui.doctor import Check
from rlhf_tui.preferences.display import clean

#: The folder of the sample project, in the folder the app was started in.
SAMPLE = "rlhf-sample"
_TOLD = ("card", "memory", "disk")


class FirstSteps(Vertical):
    """What this is, and three steps, each with its number as its key."""

    def compose(self) -> ComposeResult:
        """Four panels."""
        yield Panel("", id="welcome")
        yield Panel("1  This machine", id="step-machine")
        yield Panel("2  Something to look at", id="step-sample")
        yield Panel("3  Five labels", id="step-label")

    def show(self, checks: Sequence[Check] | None, sample: Path, made: bool, *, brief: bool) -> None:
        """Fill them: what was found here, where the sample project is or would be, whether it is there.

        `brief`: in fewer lines.
        """
        self.query_one("#welcome", Panel).show(welcome(brief))
        self.query_one("#step-machine", Panel).show(machine_words(checks, brief))
        self.query_one("#step-sample", Panel).show(sample_words(sample, made))
        self.query_one("#step-label", Panel).show(label_words(made, brief))


def welcome(brief: bool) -> Content:
    """What the program does, and what to keep in mind."""
    what = Content("You compare answers; the model learns to answer your way.")
    keep = tinted("What it becomes is shaped by whoever did the rating: behaviour, not facts.", "quiet")
    return what if brief else lines(what, keep)


def machine_words(checks: Sequence[Check] | None, brief: bool) -> Content:
    """What was found on this machine, in a few lines or one."""
    if checks is None:
        return tinted("● Looking at it…", "accent")
    problems = [check for check in checks if check.status == "problem"]
    if problems:
        head = tinted(f"✗ Something will not work: {', '.join(check.name for check in problems)}.", "bad")
    else:
        head = tinted("✓ It can do this.", "good")
    details = Content.assemble(tinted("   1", "accent"), tinted(" all that was looked at", "quiet"))
    found = {check.name: check for check in checks}
    told = [Row(name, clean(found[name].found)) for name in _TOLD if name in found]
    top = Content.assemble(head, details)
    return top if brief else lines(top, rows(told))


def sample_words(sample: Path, made: bool) -> Content:
    """What the sample project is, and the demo."""
    demo = Content.assemble(tinted("d", "accent"), " starts the demo, the whole loop: ", tinted(starter(), "quiet"))
    if made:
        return lines(Content.assemble(tinted("✓ The sample project is ready", "good"), f" in {short(sample)}"), demo)
    where = tinted(f" in {short(sample)}, without a download", "quiet")
    return lines(Content.assemble(tinted("2", "accent"), " makes a sample project", where), demo)


def label_words(made: bool, brief: bool) -> Content:
    """What judging is."""
    what = Content.assemble(tinted("3", "accent"), " shows two answers at a time: say which is better")
    tail = "Five show how it goes; esc leads on." + ("" if made else " It makes the sample project first.")
    return what if brief else lines(what, tinted(tail, "quiet"))


def starter() -> str:
    """Whether the starter model must be fetched."""
    return "its model is already here" if starter_here() else "it fetches a model of 93 MB, once"


def starter_here() -> bool:
    """Whether the starter model is on this machine."""
    return (locate.starter_folder() / "config.json").is_file()
