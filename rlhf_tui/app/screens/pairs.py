"""Stage 2, Pairs: prompts become candidates, candidates become pairs, people judge them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from rlhf_tui.app import keys, words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.screens.dialogs import WritingDialog
from rlhf_tui.app.screens.prompts_window import PromptsWindow, add_prompts, by_hand
from rlhf_tui.app.screens.stage import StageScreen, progress_body
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.records import Added
from rlhf_tui.project import require_writable
from rlhf_tui.settings import Settings


class PairsScreen(StageScreen):
    """Counts, the sampling settings, the run that samples, and its newest candidates."""

    STAGE = "pairs"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("pairs")

    def compose_body(self) -> ComposeResult:
        """Facts on top, the run below, the newest candidates with the remaining space."""
        with Container(classes="side-by-side facts"):
            yield Panel("Prompts and labels", id="counts")
            yield Panel("Sampling", id="sampling")
        yield Panel("Generate", id="progress")
        yield Panel("Last candidates", id="latest", classes="grows")
        yield Panel("Next", id="next")

    def show(self, view: Overview) -> None:
        """Fill the panels."""
        self.query_one("#counts", Panel).show(rows(count_rows(view)))
        if view.settings:
            self.query_one("#sampling", Panel).show(rows(sampling_rows(view.settings)))
        run = self.run_shown
        panel = self.query_one("#progress", Panel)
        if run:
            panel.show(progress_body(run), note=self.beside(""))
        else:
            panel.show(tinted("No candidates have been generated in this project.", "quiet"))
        latest = self.query_one("#latest", Panel)
        latest.show(lambda width, height: latest_candidates(run, view.counts.prompts, width, height))
        self.query_one("#next", Panel).show(next_words(view))

    def action_label(self) -> None:
        """Open the labelling screen."""
        self.rlhf.open_label()

    def action_import_prompts(self) -> None:
        """Open the window that imports prompts."""
        if self._may_write():
            self.app.push_screen(PromptsWindow(self.overview.project, Path.cwd()), self._tell)

    def action_write_prompt(self) -> None:
        """Write one prompt by hand."""
        if self._may_write():
            self.app.push_screen(WritingDialog("Write a prompt", ""), self._add_written)

    def _may_write(self) -> bool:
        try:
            require_writable(self.overview.project)
        except UserError as error:
            self.rlhf.show_error(error)
            return False
        return True

    def _add_written(self, text: str | None) -> None:
        if not text or not text.strip():
            return
        outcome = add_prompts(self.overview.project, [by_hand(text)])
        if isinstance(outcome, UserError):
            self.rlhf.show_error(outcome)
        else:
            self._tell(outcome)

    def _tell(self, added: Added | None) -> None:
        """Say what was added, and show the new counts."""
        if added is None:
            return
        self.rlhf.look()
        self.renew()
        counts = self.overview.counts
        told = f"Now {counts.train:,} for training and {counts.heldout:,} held out."
        self.notify(told, title=added_words(added), markup=False, timeout=6)

    def command(self) -> str:
        """The same on the command line."""
        return "generate"


def count_rows(view: Overview) -> list[Row]:
    """How many prompts, candidates, pairs and judgements there are."""
    counts = view.counts
    return [
        Row("prompts", f"{counts.prompts:,}", f"{counts.heldout} held out"),
        Row("candidates", f"{counts.completions:,}", near_identical(counts.near_duplicates)),
        Row("to judge", words.plural(counts.pairs_waiting, "pair"), tone="accent" if counts.pairs_waiting else ""),
        Row("judgements", f"{counts.judgements:,}", f"{counts.ties} ties, {counts.both_bad} both bad"),
        Row("raters", ", ".join(f"{rater.handle} ({rater.kind})" for rater in view.raters) or "nobody yet"),
    ]


def sampling_rows(settings: Settings) -> list[Row]:
    """How candidates are sampled."""
    sampling = settings.generate
    return [
        Row("prompts used", f"at most {sampling.prompts}" if sampling.prompts else "all"),
        Row("per prompt", f"{sampling.per_prompt} candidates"),
        Row("temperature", f"{sampling.temperature:g}", f"top-p {sampling.top_p:g}"),
        Row("longest", f"{sampling.max_new_tokens} tokens"),
        Row("second voice", words.one_line(sampling.variant_system_prompt, 60) or "none"),
    ]


def added_words(added: Added) -> str:
    """How many prompts are new, and how many were known."""
    if not added.added:
        return "That prompt is here already." if added.duplicates == 1 else "All of them were here already."
    known = f", {added.duplicates:,} were there already" if added.duplicates else ""
    return f"{words.plural(added.added, 'prompt')} added{known}."


def latest_candidates(run: Watched | None, prompts: int, width: int, height: int) -> Content:
    """The newest completions, newest first, a line each, below a line for the prompt that they answer."""
    if not prompts:
        return tinted("Nothing here yet: a model needs prompts to answer.", "quiet")
    if run is None or not run.state.samples:
        return tinted("Nothing here yet: press ⏎ to generate candidates for the prompts.", "quiet")
    found: list[Content] = []
    prompt = None
    for sample in reversed(run.state.samples):
        headed = sample.prompt == prompt
        if len(found) + (1 if headed else 2) > max(height, 2):
            break
        if not headed:
            prompt = sample.prompt
            found.append(Content.assemble(tinted("P ", "accent"), words.one_line(clean(prompt), width - 2)))
        found.append(Content.assemble(tinted("→ ", "quiet"), words.one_line(clean(sample.completion), width - 2)))
    return lines(*found)


def near_identical(count: int) -> str:
    """How many candidates nobody is shown."""
    return f"{count:,} near-identical left out" if count else ""


def next_words(view: Overview) -> Content | str:
    """What to press now."""
    counts = view.counts
    if not counts.prompts and not view.problem:
        return "Press i to import prompts from a file, or w to write one. Then ⏎ generates candidates."
    missing = view.missing("pairs")
    if missing:
        return str(missing).replace("\n", " ")
    if counts.pairs_waiting:
        waiting = words.plural(counts.pairs_waiting, "pair")
        more = " Generation goes on meanwhile." if view.live else ""
        return f"{waiting} can be judged now: press l.{more}"
    if counts.judgements:
        return f"All pairs are judged ({counts.judgements}). Press 3 to train the reward model, or ⏎ for more pairs."
    return "Press ⏎ to generate candidates."
