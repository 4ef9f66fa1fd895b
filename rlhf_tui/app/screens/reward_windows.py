"""Windows over the Reward screen: the whole report, the largest disagreements, and what it would choose of n."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from rlhf_tui.app import keys, words
from rlhf_tui.app.screens.reward_page import page
from rlhf_tui.app.screens.reward_panels import disagreement, names_width
from rlhf_tui.app.widgets.options import Options
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.assessment.records import Disagreement, Preview, Report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean

#: From this width on, texts stand side by side: two, or three.
TWO, THREE = 76, 108


class ReportDialog(ModalScreen[None]):
    """The whole report, to scroll through."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,v,enter", "close", "Close"),
        ("j", "scroll(1)", "Down"),
        ("k", "scroll(-1)", "Up"),
        ("space", "page", "Page down"),
    ]

    def __init__(self, report: Report) -> None:
        super().__init__(classes="window")
        self._report = report

    def compose(self) -> ComposeResult:
        """A titled box around the text."""
        with VerticalScroll(classes="dialog tall reading", id="reading") as box:
            box.border_title = Content(f"Report on {clean(self._report.run)}")
            box.border_subtitle = Content("↑↓ PgUp PgDn scroll · y copy · esc close")
            yield Static("", markup=False, id="dialog-text")

    def on_mount(self) -> None:
        """Take the focus for scrolling."""
        self.query_one("#reading").focus()

    def on_resize(self) -> None:
        """The text is made for a width."""
        self.call_after_refresh(self._fill)

    def action_scroll(self, by: int) -> None:
        """A line up or down."""
        self.query_one("#reading").scroll_relative(y=by, animate=False)

    def action_page(self) -> None:
        """A page down."""
        self.query_one("#reading").scroll_page_down(animate=False)

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _fill(self) -> None:
        text = self.query_one("#dialog-text", Static)
        text.update(page(self._report, max(text.size.width, 20)))


class DisagreementsDialog(ModalScreen[None]):
    """Where rater and model part ways most: read both texts, and judge again with enter.

    `counting` says which judgements still count; it reads the store, so it is asked in a thread. `judge` opens
    one of them for labelling; when that is over, this window is on top again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,d", "close", "Close"),
        ("j", "choose(1)", "Down"),
        ("k", "choose(-1)", "Up"),
        Binding("pagedown,space", "scroll(1)", "Scroll the texts down", priority=True),
        Binding("pageup", "scroll(-1)", "Scroll the texts up", priority=True),
    ]

    class Counted(Message):
        """Which judgements of the list still count."""

        def __init__(self, active: frozenset[int]) -> None:
            super().__init__()
            self.active = active

    def __init__(
        self, found: Sequence[Disagreement], counting: Callable[[], frozenset[int]], judge: Callable[[int], None]
    ) -> None:
        super().__init__(classes="window")
        self._found, self._counting, self._judge = found, counting, judge
        self._settled: set[int] = set()
        self._opened: int | None = None

    def compose(self) -> ComposeResult:
        """The list, and below it the texts of the one under the cursor."""
        with Vertical(classes="dialog tall") as box:
            box.border_title = Content("Largest disagreements: times the model's usual gap")
            box.border_subtitle = Content("⏎ judge again · ↑↓ choose · PgDn read on · esc close")
            yield Options(id="listed", markup=False)
            yield TextPane("Prompt", id="disputed")
            with Container(id="sides"):
                yield TextPane(id="theirs")
                yield TextPane(id="contrary")

    def on_mount(self) -> None:
        """Fill the list once there is a width."""
        self.query_one("#listed", OptionList).focus()
        self.call_after_refresh(self._fill)

    def on_resize(self) -> None:
        """Lines are cut to the width."""
        self.query_one("#sides").styles.layout = "horizontal" if self.app.size.width >= TWO else "vertical"
        self.call_after_refresh(self._fill)

    def on_screen_resume(self) -> None:
        """Something may have been judged again."""
        self.run_worker(self._count, thread=True, exclusive=True, group="counting")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show its texts."""
        one = self._found[event.option_index]
        self.query_one("#disputed", TextPane).show(clean(one.prompt_text))
        theirs, models = self.query_one("#theirs", TextPane), self.query_one("#contrary", TextPane)
        model = "The model" if one.kind == "heldout" else "An untaught model"
        theirs.border_title = Content(f"{clean(one.rater)} prefers this")
        models.border_title = Content(f"{model} prefers this")  # by how much stands in the list
        theirs.show(clean(one.better_text))
        models.show(clean(one.worse_text))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Judge it again."""
        self._opened = event.option_index
        self._judge(self._found[event.option_index].judgement_id)

    def on_disagreements_dialog_counted(self, event: Counted) -> None:
        """Mark what has been judged again; if that was just now, go on to the next."""
        self._settled = {one.judgement_id for one in self._found} - event.active
        self._fill()
        opened, self._opened = self._opened, None
        if opened is not None and self._found[opened].judgement_id in self._settled:
            after = [*range(opened + 1, len(self._found)), *range(opened)]
            waiting = (at for at in after if self._found[at].judgement_id not in self._settled)
            self.query_one("#listed", OptionList).highlighted = next(waiting, opened)

    def action_choose(self, by: int) -> None:
        """Move the cursor."""
        listed = self.query_one("#listed", OptionList)
        listed.action_cursor_down() if by > 0 else listed.action_cursor_up()

    def action_scroll(self, by: int) -> None:
        """Scroll both texts by most of a page."""
        for pane in self.query("#theirs, #contrary").results(TextPane):
            pane.scroll_by(by * max(pane.size.height - 1, 1))

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _count(self) -> None:
        try:
            self.post_message(self.Counted(self._counting()))
        except (UserError, sqlite3.Error):
            return  # the list does without its marks; judging again says what is wrong

    def _fill(self) -> None:
        listed = self.query_one("#listed", OptionList)
        width = max(listed.scrollable_content_region.width - 2, 20)
        names = names_width(self._found)
        said = [
            disagreement(one, names, width, done="✓ judged again" if one.judgement_id in self._settled else "")
            for one in self._found
        ]
        if listed.option_count:
            for at, line in enumerate(said):
                listed.replace_option_prompt_at_index(at, line)
        else:
            listed.add_options(Option(line) for line in said)
            listed.highlighted = 0 if said else None


class BestOfDialog(ModalScreen[None]):
    """What the reward model would choose of 1, 4 and 16 completions, beside each other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,b,enter", "close", "Close"),
        ("left", "browse(-1)", "Prompt before"),
        ("right", "browse(1)", "Next prompt"),
        ("up,k", "scroll(-1)", "Up"),
        ("down,j", "scroll(1)", "Down"),
        ("pageup", "page(-1)", "Page up"),
        ("pagedown,space", "page(1)", "Page down"),
    ]

    def __init__(self, previews: Sequence[Preview]) -> None:
        """`previews`: at least one."""
        super().__init__(classes="window")
        self._previews, self._at = previews, 0

    def compose(self) -> ComposeResult:
        """The prompt, the choices, and what to make of them."""
        with Vertical(classes="dialog tall") as box:
            box.border_title = Content("Best of n: what the reward model would choose")
            yield TextPane(id="disputed")
            with Container(id="sides"):
                for _ in range(max(len(one.choices) for one in self._previews)):
                    yield TextPane(classes="choice")
            yield Static("", markup=False, id="lesson")

    def on_mount(self) -> None:
        """Show the first."""
        self.action_browse(0)

    def on_resize(self) -> None:
        """Beside each other where there is room."""
        self.query_one("#sides").styles.layout = "horizontal" if self.app.size.width >= THREE else "vertical"

    def action_browse(self, by: int) -> None:
        """Another prompt."""
        self._at = (self._at + by) % len(self._previews)
        one = self._previews[self._at]
        prompt = self.query_one("#disputed", TextPane)
        prompt.border_title = Content(f"Prompt {self._at + 1} of {len(self._previews)}")
        prompt.show(clean(one.prompt_text))
        most = max(choice.n for choice in one.choices)
        self.query_one("#lesson", Static).update(tinted(_LESSON.format(most=most), "quiet"))
        other = "←→ another prompt · " if len(self._previews) > 1 else ""
        self.query_one(".dialog").border_subtitle = Content(f"{other}↑↓ scroll · esc close")
        panes = self.query(".choice").results(TextPane)
        before: dict[str, int] = {}
        for at, pane in enumerate(panes):
            pane.display = at < len(one.choices)
            if pane.display:
                choice = one.choices[at]
                same = before.setdefault(choice.text, choice.n)
                text = clean(choice.text) if same == choice.n else f"The same as best of {same}."
                pane.border_title = Content(f"best of {choice.n}" if choice.n > 1 else "the first one")
                facts = f"score {choice.score:+.2f} · {words.plural(choice.tokens, 'token')}"
                pane.show(text, facts, quiet=[(0, len(text))] if same != choice.n else ())

    def action_scroll(self, by: int) -> None:
        """All choices by a line."""
        for pane in self.query(".choice").results(TextPane):
            pane.scroll_by(by)

    def action_page(self, by: int) -> None:
        """All choices by most of a page."""
        for pane in self.query(".choice").results(TextPane):
            pane.scroll_by(by * max(pane.size.height - 1, 1))

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)


_LESSON = "PPO pulls towards the best of {most}. If you like that less than the first one, do not start PPO."
