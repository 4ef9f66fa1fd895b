"""The samples of a run to read in full: what the policy writes now, beside what it wrote first for the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.screen import ModalScreen

from rlhf_tui.app import keys, words
from rlhf_tui.app.overview import Watched
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.preferences.display import clean, hidden
from rlhf_tui.runs.events import Sample

#: From this width on, the two completions stand side by side.
SIDE_BY_SIDE = 76
_NAMES = {"kl": "KL", "gold": "second score"}


class SamplesDialog(ModalScreen[None]):
    """One sample at a time, newest first. New samples do not push away the one that is being read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,s,enter", "close", "Close"),
        ("down,j,left", "choose(1)", "Older"),
        ("up,k,right", "choose(-1)", "Newer"),
        ("home", "choose(-1000)", "Newest"),
        ("end", "choose(1000)", "Oldest"),
        ("pagedown,space", "scroll(1)", "Scroll the texts down"),
        ("pageup,b", "scroll(-1)", "Scroll the texts up"),
    ]

    def __init__(self, run: Watched, back: int = 0) -> None:
        super().__init__(classes="window")
        self._run = run
        samples = run.state.samples
        self._sample = samples[-1 - min(back, len(samples) - 1)] if samples else None

    def compose(self) -> ComposeResult:
        """The prompt, and below it both completions."""
        with Vertical(classes="dialog tall", id="samples") as box:
            box.border_subtitle = Content("↓ older ↑ newer · PgDn read on · esc close")
            yield TextPane("Prompt", id="sampled")
            with Container(id="sides"):
                yield TextPane("Now", id="now")
                yield TextPane("At the start", id="start")

    def on_mount(self) -> None:
        """Show the first one, and look for more every second."""
        self._arrange()
        self._fill()
        self.set_interval(1.0, self._count)

    def on_resize(self) -> None:
        """Side by side where there is room."""
        self._arrange()

    def action_choose(self, by: int) -> None:
        """An older sample (1) or a newer one (-1)."""
        samples = self._run.state.samples
        if samples:
            at = min(max(self._place() + by, 0), len(samples) - 1)
            self._sample = samples[-1 - at]
            self._fill()

    def action_scroll(self, by: int) -> None:
        """Both texts by most of a page."""
        for pane in self.query("#sides > .textpane").results(TextPane):
            pane.scroll_by(by * max(pane.size.height - 2, 1))

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _arrange(self) -> None:
        self.query_one("#sides").styles.layout = "horizontal" if self.app.size.width >= SIDE_BY_SIDE else "vertical"

    def _place(self) -> int:
        """How many samples are newer than the one shown."""
        samples = self._run.state.samples
        newer = (at for at, sample in enumerate(reversed(samples)) if sample is self._sample)
        return next(newer, max(len(samples) - 1, 0))

    def _count(self) -> None:
        """Which one of how many it is."""
        samples = self._run.state.samples
        if self._sample is None and samples:
            self._sample = samples[-1]
            return self._fill()
        title = "No samples yet"
        if self._sample:
            title = f"{heading(self._sample)} · {self._place() + 1} of {len(samples)}, newest first"
        self.query_one("#samples").border_title = Content(title)

    def _fill(self) -> None:
        self._count()
        sample = self._sample
        if sample is None:
            return
        first = self._run.state.first_for(sample)
        now, start = self.query_one("#now", TextPane), self.query_one("#start", TextPane)
        self.query_one("#sampled", TextPane).show(clean(sample.prompt), lost(sample.prompt))
        _read(now, sample, "Now")
        if first is sample:
            start.border_title = Content("At the start")
            start.show("This prompt has been drawn once: there is nothing earlier to compare with.", "")
        else:
            _read(start, first, "At the start")


def _read(pane: TextPane, sample: Sample, when: str) -> None:
    """A completion into its pane: when and what is left out above it, its numbers below."""
    pane.border_title = Content(", ".join(filter(None, (when, f"update {sample.step}", lost(sample.completion)))))
    pane.show(clean(sample.completion), measured(sample.values))


def heading(sample: Sample) -> str:
    """Which prompts it is of, in words."""
    return "Held-out sample" if sample.source == "heldout" else "Sample"


def measured(values: Mapping[str, float]) -> str:
    """'score 2.31 · KL 4.9 · length 96'."""
    return " · ".join(f"{_NAMES.get(name, name)} {words.number(value)}" for name, value in values.items())


def lost(text: str) -> str:
    """That something in the text is invisible, or would be obeyed by a terminal, and is left out."""
    count = hidden(text)
    return f"{words.plural(count, 'hidden sign')} left out" if count else ""
