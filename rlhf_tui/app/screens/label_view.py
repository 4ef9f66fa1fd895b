"""The face of the labelling screen: the prompt, the candidates, the lines and panels around them. No decisions."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from rlhf_tui.app import formatted, ordering, worddiff, words
from rlhf_tui.app.screens import label_draft, label_panels
from rlhf_tui.app.screens.label_aside import Aside
from rlhf_tui.app.screens.label_draft import Draft
from rlhf_tui.app.screens.label_panels import Progress
from rlhf_tui.app.widgets.board import Board
from rlhf_tui.app.widgets.candidate import Candidate, Candidates
from rlhf_tui.app.widgets.panel import lines, rows, tinted
from rlhf_tui.app.widgets.status import Ends
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.records import Fact, Presentation

#: Lines of the prompt in view, at most, by the rows of the terminal.
PROMPT_LINES = ((0, 1), (22, 3), (30, 5), (40, 8))
#: From so many rows on there is room to leave the prompt as high as one has needed: nothing jumps.
STEADY = 30
#: Texts longer than this together are formatted only after they are on screen.
AT_ONCE = 4_000


class LabelView(Container):
    """Everything between the top of the screen and the line of keys."""

    can_focus = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.candidates = Candidates(id="candidates")
        self.asked = TextPane("Prompt", id="asked")
        self.look = ""  # '', 'markdown' or 'diff'
        self._prompt_lines = 1
        self._shown: Presentation | None = None

    def compose(self) -> ComposeResult:
        """Two lines of facts; the prompt, the candidates, the answer; at the side what has been said so far."""
        yield Ends(id="head")
        yield Ends(id="facts")
        with Container(id="label-main"):
            with Container(id="label-body"):
                yield self.asked
                yield self.candidates
                yield Static("", id="label-empty", markup=False)
                yield Board("Your answer", id="answer")
            with Container(id="label-side"):
                yield Board("Progress", id="progress")
                yield Board("You", id="you")
                yield Board("Last answers", id="history")

    def on_resize(self, event: Resize) -> None:
        """The prompt gets as many lines as the terminal can spare."""
        self._prompt_lines = 0  # whatever it had before
        self.call_after_refresh(self._fit_prompt)

    def show_task(self, shown: Presentation, draft: Draft) -> None:
        """Show what is to be judged, from its beginning."""
        self._shown = shown
        self.set_class(False, "nothing")
        text, quiet, last_turn = label_panels.asked(shown.prompt)
        self.asked.show(text, quiet=quiet, begin=last_turn)
        self._fit_prompt()
        self.candidates.fill(
            [(clean(one.text), label_panels.facts(one)) for one in shown.shown], lit=0 if draft.marks else None
        )
        self.show_standing(draft)
        self.call_after_refresh(self._count_hidden, shown)
        if self.look == "markdown" and sum(len(one.text) for one in shown.shown) > AT_ONCE:
            self.call_after_refresh(self.dress)
        elif self.look:
            self.dress()

    def show_nothing(self, why: Content) -> None:
        """Say why there is nothing to judge."""
        self.set_class(True, "nothing")
        self.query_one("#label-empty", Static).update(why)

    def show_standing(self, draft: Draft) -> None:
        """What has been said of each candidate so far, in its border."""
        names = ordering.names(draft.kind, self.candidates.count)
        for place, (name, pane) in enumerate(zip(names, self.candidates.shown, strict=True)):
            pane.name_it(name, label_draft.standing(draft, place))

    def show_lines(self, progress: Progress, rater: str, guideline: str, key: str) -> None:
        """The two lines on top."""
        self.query_one("#head", Ends).show(label_panels.where(progress, rater), Content(label_panels.pace(progress)))
        self.query_one("#facts", Ends).show(
            Content.assemble(tinted(f"[{key}] ", "accent"), tinted(guideline or "no guideline yet", "quiet")),
            tinted("blind: order is shuffled, sources hidden", "quiet"),
        )

    def show_answer(self, keys: Content | None, remarks: Content, aside: Aside) -> None:
        """The panel of the answer: its keys, what was said last, and a nudge if there is one."""
        you = label_panels.yourself(aside.report)
        self.screen.set_class(bool(aside.nudge), "nudged")

        def body(width: int, height: int) -> Content:
            nudge = [tinted(line, "warn") for line in words.wrapped(aside.nudge, width)] if aside.nudge else []
            said = [keys or Content(""), label_panels.ends(remarks, you, width), *nudge]
            return lines(*said[: max(height, 1)])

        self.query_one("#answer", Board).show(body)

    def show_side(self, progress: Progress, given: list[Fact], aside: Aside, rater: str) -> None:
        """The panels of a large terminal."""
        self.query_one("#progress", Board).show(
            lambda width, _: label_panels.progress_panel(progress, aside.skipped, aside.today, width)
        )
        self.query_one("#history", Board).show(lambda _, height: label_panels.last_answers(given, height))
        if aside.report:
            self.query_one("#you", Board).show(
                rows(label_panels.statistics(aside.report)), title=f"You ({clean(rater)})"
            )

    def dress(self) -> None:
        """Show the texts plain, formatted, or with their own words marked, as `look` says."""
        panes = self.candidates.shown
        for pane in panes:
            short = len(pane.text) <= formatted.LONGEST
            pane.format_with(formatted.markdown_lines if self.look == "markdown" and short else None)
            pane.mark(self._own_words(pane) if self.look == "diff" else ())

    def _count_hidden(self, shown: Presentation) -> None:
        """Say how much of each text cannot be seen."""
        if shown is not self._shown:
            return
        for pane, one in zip(self.candidates.shown, shown.shown, strict=True):
            pane.tell(label_panels.facts_and_hidden(one))

    def _own_words(self, pane: Candidate) -> list[tuple[int, int]]:
        """The words that the other of a pair, or of several the lit one (else the first), does not have."""
        panes = self.candidates.shown
        against = panes[self.candidates.lit or 0]
        if len(panes) == 2:
            against = panes[1 - panes.index(pane)]
        return worddiff.only_here(pane.text, against.text) if against is not pane else []

    def _fit_prompt(self) -> None:
        """As high as the prompt needs. A change lays the screen out anew."""
        most = max(lines for rows, lines in PROMPT_LINES if self.app.size.height >= rows)
        least = self._prompt_lines if self.app.size.height >= STEADY else 1
        wanted = min(max(self.asked.height_of_text, least), most)
        if wanted != self._prompt_lines:
            self._prompt_lines = wanted
            self.asked.styles.height = wanted + 2
