"""Candidates on screen: panes that scroll together, side by side, one above the other, or one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.reactive import reactive
from textual.strip import Strip

from rlhf_tui.app import words
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.textpane import TextPane

#: The most candidates a task may have.
MOST = 6
#: From this width on texts stand side by side; a pane is at least so wide and so high, borders included.
COLUMNS, ROWS = 36, 7
#: A pane of a pair may be lower before only one of them is opened.
LOWEST = 5


@dataclass(frozen=True)
class Arrangement:
    """How so many panes stand: `columns` beside each other, or `folded`: one open, the others one line each."""

    columns: int
    folded: bool = False

    @property
    def name(self) -> str:
        """What the store keeps of it."""
        return "one-at-a-time" if self.folded else "stacked" if self.columns == 1 else "side-by-side"


def arrangement(count: int, width: int, height: int, *, stacked: bool) -> Arrangement:
    """The best way to show `count` panes in `width` x `height` characters; `stacked` when the user wants it so.

    As many rows as are needed for panes wide enough to read; where that makes them too low, one at a time.
    """
    if count == 1:
        return Arrangement(1)
    widest = 1 if stacked else max(width // COLUMNS, 1)
    rows = -(-count // widest)
    columns = -(-count // rows)
    lowest = LOWEST if count == 2 else ROWS
    return Arrangement(columns, folded=height // rows < lowest)


class Candidate(TextPane):
    """One candidate. `standing` in its upper border says what has been said of it so far."""

    lit: reactive[bool] = reactive(False, toggle_class="lit", init=False)
    folded: reactive[bool] = reactive(False, toggle_class="folded", layout=True)
    #: Where it would be scrolled to if it were long enough: a shorter text waits at its end for the others.
    wanted = 0
    _called, _standing = "", ""

    def name_it(self, name: str, standing: str = "") -> None:
        """Set the name and the standing."""
        self._called, self._standing = name, standing
        self._write_label()

    def watch_lit(self) -> None:
        """The lit one has a sign, too."""
        self._write_label()

    @property
    def _label(self) -> str:
        standing = f"  {self._standing}" if self._standing else ""
        return f"{'▶ ' if self.lit else ''}{self._called}{standing}"

    def _write_label(self) -> None:
        mark = tinted("▶ ", "accent") if self.lit else ""
        standing = f"  {self._standing}" if self._standing else ""
        self.border_title = Content.assemble(mark, tinted(self._called, "strong"), standing)
        if self.folded:
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """A folded candidate shows its name and its beginning on one line."""
        if not self.folded:
            return super().render_line(y)
        begin = words.one_line(self.text[:400], max(self.size.width - len(self._label) - 3, 0))
        line = [Segment(f"{self._label}   ", self._styles[""]), Segment(begin, self._styles["quiet"])]
        return Strip(line).adjust_cell_length(self.size.width, self._styles[""])


class Candidates(Container):
    """The panes of a task. All are made once: the next task only fills them.

    `lit` is the place of the pane that marks, zoom and single scrolling are about. None is lit before the
    rater lights one: a frame around A would be an invitation.
    """

    can_focus = False

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.panes = [Candidate(id=f"candidate-{place}") for place in range(MOST)]
        self.count = 0
        self.lit: int | None = None
        self.zoomed = False
        self.stacked = False
        self._arranged: tuple[int, Arrangement, bool, int | None] | None = None

    def compose(self) -> ComposeResult:
        """All panes there can be."""
        yield from self.panes

    @property
    def shown(self) -> Sequence[Candidate]:
        """The panes that hold a candidate now."""
        return self.panes[: self.count]

    @property
    def arrangement(self) -> Arrangement:
        """How the panes stand now."""
        return self.arranged(max(self.count, 1))

    def arranged(self, count: int) -> Arrangement:
        """How so many panes would stand."""
        return arrangement(count, self.size.width, self.size.height, stacked=self.stacked)

    def fill(self, texts: Sequence[tuple[str, str]], *, lit: int | None = None) -> None:
        """Show the candidates: (cleaned text, facts) of each."""
        self.count = len(texts)
        self.lit, self.zoomed = lit, False
        self.arrange_panes()
        for pane, (text, facts) in zip(self.panes, texts, strict=False):
            pane.show(text, facts)
            pane.wanted = 0

    def light(self, place: int | None) -> None:
        """Light up one pane."""
        self.lit = place
        self.arrange_panes()

    def step(self, by: int) -> None:
        """Light up the next pane or the one before."""
        first = 0 if self.arrangement.folded else -1 if by > 0 else 0
        self.light(((first if self.lit is None else self.lit) + by) % max(self.count, 1))

    def zoom(self) -> None:
        """Only the lit one; then the next; after the last all again."""
        if not self.zoomed:
            self.zoomed, self.lit = True, self.lit or 0
        elif self.lit is not None and self.lit + 1 < self.count:
            self.lit += 1
        else:
            self.zoomed, self.lit = False, None
        self.arrange_panes()

    def stack(self) -> None:
        """One above the other, or as the room allows again."""
        self.stacked = not self.stacked
        self.arrange_panes()

    def scroll_all(self, by: int) -> None:
        """Scroll all by so many lines and keep them in step, however long each is."""
        panes = [pane for pane in self.shown if not pane.folded]
        for pane in panes:
            if pane.top != min(max(pane.wanted, 0), pane.reach):  # was scrolled alone
                pane.wanted = pane.top
        if any(min(max(pane.wanted + by, 0), pane.reach) != pane.top for pane in panes):
            for pane in panes:
                pane.wanted += by
                pane.scroll_to_line(pane.wanted)

    def scroll_pages(self, by: int) -> None:
        """Scroll all by so many pages."""
        heights = [pane.size.height for pane in self.shown if pane.display and not pane.folded]
        self.scroll_all(by * max(min(heights, default=1) - 1, 1))

    def scroll_to_end(self, by: int) -> None:
        """Scroll each to its beginning (-1) or its end (1)."""
        for pane in self.shown:
            pane.wanted = pane.reach if by > 0 else 0
            pane.scroll_to_line(pane.wanted)

    def scroll_lit(self, by: int) -> None:
        """Scroll only the lit one; the first is lit when none is."""
        if self.lit is None:
            self.light(0)
        self.panes[self.lit or 0].scroll_by(by)

    def on_resize(self) -> None:
        """The best arrangement may be another one now."""
        self.arrange_panes()

    def arrange_panes(self) -> None:
        """Show, hide, fold and light the panes. Lays the screen out anew only when something differs."""
        how = self.arrangement
        wanted = (self.count, how, self.zoomed, self.lit)
        if wanted == self._arranged:
            return
        self._arranged = wanted
        self.styles.layout = "vertical" if how.folded or self.zoomed else "grid"
        self.styles.grid_size_columns = how.columns
        for place, pane in enumerate(self.panes):
            here = place == (self.lit or 0)
            pane.display = place < self.count and (here or not self.zoomed)
            pane.folded = how.folded and not self.zoomed and not here
            last = place == self.count - 1
            pane.styles.column_span = how.columns - place % how.columns if last else 1
            pane.lit = place == self.lit and self.count > 1 and not self.zoomed
