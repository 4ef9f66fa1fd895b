"""Windows of the labelling screen: what was answered, reasons to flag, who judges, a choice, a long text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from rlhf_tui.app import keys
from rlhf_tui.app.screens.label_panels import history_line
from rlhf_tui.app.widgets.options import Options
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.preferences.records import FLAGS, HistoryEntry, Rater

#: How many answers the history reads at once.
PAGE = 100


class ChoiceDialog(ModalScreen[str | None]):
    """One key chooses; esc leaves everything as it is."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("dialog")

    def __init__(self, title: str, choices: Mapping[str, str]) -> None:
        """`choices` is the key to press and what it chooses, in words."""
        super().__init__(classes="window")
        self._title, self._choices = title, choices

    def compose(self) -> ComposeResult:
        """Each choice with its key."""
        with Vertical(classes="dialog small") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("esc leave")
            listed = (Content.assemble(tinted(key, "accent"), f"  {said}") for key, said in self._choices.items())
            yield Static(lines(*listed), markup=False)

    def on_key(self, event: Key) -> None:
        """Choose."""
        if event.character in self._choices:
            event.stop()
            self.dismiss(event.character)

    def action_close(self) -> None:
        """Give up."""
        self.dismiss(None)


class FlagDialog(ModalScreen[tuple[str, ...] | None]):
    """Why something is wrong: digits set and unset reasons, enter takes them, esc leaves them as they were."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("dialog"), ("enter", "take", "Take")]

    def __init__(self, flags: Sequence[str]) -> None:
        super().__init__(classes="window")
        self._flags = set(flags)

    def compose(self) -> ComposeResult:
        """The reasons with their digits."""
        with Vertical(classes="dialog small") as box:
            box.border_title = Content("What is wrong with it?")
            box.border_subtitle = Content("1-6 set · ⏎ take · esc leave")
            yield Static(self._listed(), markup=False, id="reasons")

    def on_key(self, event: Key) -> None:
        """Set or unset a reason."""
        names = list(FLAGS)
        if event.character and event.character in "123456789"[: len(names)]:
            event.stop()
            self._flags ^= {names[int(event.character) - 1]}
            self.query_one("#reasons", Static).update(self._listed())

    def action_take(self) -> None:
        """Hand the reasons back, in the order of the list."""
        self.dismiss(tuple(name for name in FLAGS if name in self._flags))

    def action_close(self) -> None:
        """Give up."""
        self.dismiss(None)

    def _listed(self) -> Content:
        marks = {True: tinted("✓", "good"), False: tinted("·", "quiet")}
        return lines(
            *(
                Content.assemble(tinted(str(number), "accent"), " ", marks[name in self._flags], f" {said}")
                for number, (name, said) in enumerate(FLAGS.items(), 1)
            )
        )


class HistoryDialog(ModalScreen[int | None]):
    """Every answer of the rater, newest first: enter opens one again, * marks it as the known right one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,h", "close", "Close"),
        Binding("asterisk", "gold", "Gold", priority=True),
    ]

    def __init__(self, read: Callable[[int], list[HistoryEntry]], gold: Callable[[int], bool | None]) -> None:
        """`read` gives so many newest answers; `gold` marks one or unmarks it, and says which (None: it failed)."""
        super().__init__(classes="window")
        self._read, self._gold = read, gold
        self._entries: list[HistoryEntry] = []
        self._gilt: dict[int, bool] = {}

    def compose(self) -> ComposeResult:
        """The list in a titled box."""
        with Vertical(classes="dialog") as box:
            box.border_title = Content("Your answers, newest first")
            box.border_subtitle = Content("⏎ open again · * gold: known to be right · esc close")
            yield Options(id="entries", markup=False)

    def on_mount(self) -> None:
        """Fill the list."""
        self.query_one("#entries", OptionList).focus()
        self.call_after_refresh(self._more)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """At the end of the list, read on."""
        if event.option_index + 1 == len(self._entries):
            self._more()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open it again."""
        self.dismiss(self._entries[event.option_index].judgement_id)

    def action_gold(self) -> None:
        """Mark the answer as gold, or no longer."""
        listed = self.query_one("#entries", OptionList)
        if listed.highlighted is None or not self._entries:
            return
        entry = self._entries[listed.highlighted]
        now = self._gold(entry.judgement_id)
        if now is not None:
            self._gilt[entry.judgement_id] = now
            listed.replace_option_prompt_at_index(listed.highlighted, self._line(entry))

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _more(self) -> None:
        known = len(self._entries)
        fresh = self._read(known + PAGE)[known:]
        self._entries += fresh
        listed = self.query_one("#entries", OptionList)
        listed.add_options(Option(self._line(entry)) for entry in fresh)
        if not self._entries:
            listed.add_option(Option(tinted("No answer yet.", "quiet"), disabled=True))
        elif known == 0:
            listed.highlighted = 0

    def _line(self, entry: HistoryEntry) -> Content:
        gold = self._gilt.get(entry.judgement_id, entry.gold)
        width = self.query_one("#entries", OptionList).scrollable_content_region.width - 2
        return history_line(entry, gold, width)


class RaterDialog(ModalScreen[str | None]):
    """Who judges. Hands back what to do and for whom: 'take ada', 'card ada', 'consent ada', or 'new'."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("n", "new", "New"),
        ("e", "hand_back('card')", "Card"),
        ("c", "hand_back('consent')", "Consent"),
    ]

    def __init__(self, raters: Sequence[Rater], current: str) -> None:
        super().__init__(classes="window")
        self._raters, self._current = raters, current

    def compose(self) -> ComposeResult:
        """The people, and what their consent means."""
        with Vertical(classes="dialog small") as box:
            box.border_title = Content("Who judges?")
            box.border_subtitle = Content("⏎ take · n new · e card · c consent · esc close")
            yield Options(*(Option(self._line(rater)) for rater in self._raters), id="people", markup=False)
            yield Static(
                tinted("Without consent, exports call a rater by a number and leave the card out.", "quiet"),
                markup=False,
            )

    def on_mount(self) -> None:
        """Begin at who judges now."""
        listed = self.query_one("#people", OptionList)
        listed.focus()
        handles = [rater.handle for rater in self._raters]
        listed.highlighted = handles.index(self._current) if self._current in handles else 0

    def on_option_list_option_selected(self) -> None:
        """Take this rater."""
        self.action_hand_back("take")

    def action_hand_back(self, verb: str) -> None:
        """Do something for the rater under the cursor."""
        at = self.query_one("#people", OptionList).highlighted
        if at is not None:
            self.dismiss(f"{verb} {self._raters[at].handle}")

    def action_new(self) -> None:
        """A rater that is not in the list."""
        self.dismiss("new")

    def action_close(self) -> None:
        """Give up."""
        self.dismiss(None)

    def _line(self, rater: Rater) -> Content:
        here = tinted("✓ ", "good") if rater.handle == self._current else Content("  ")
        card = "card" if rater.card else "no card"
        consent = "may be named in exports" if rater.consent else f"in exports: {rater.public_name}"
        return Content.assemble("  ", here, tinted(f"{rater.handle:<16} "), tinted(f"{card:<8} {consent}", "quiet"))


class ReadingDialog(ModalScreen[None]):
    """A long text in a window of its own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,enter,o", "close", "Close"),
        ("up,k", "scroll(-1)", "Up"),
        ("down,j", "scroll(1)", "Down"),
        ("pageup", "page(-1)", "Page up"),
        ("pagedown,space", "page(1)", "Page down"),
    ]

    def __init__(self, title: str, text: str, *, quiet: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(classes="window")
        self._title, self._text, self._quiet = title, text, quiet

    def compose(self) -> ComposeResult:
        """The text in a titled box."""
        yield TextPane(self._title, id="long-text", classes="dialog")

    def on_mount(self) -> None:
        """Show the text from its beginning."""
        self.query_one(TextPane).show(self._text, "↑↓ scroll · esc close", quiet=self._quiet)

    def action_scroll(self, by: int) -> None:
        """Some lines up or down."""
        self.query_one(TextPane).scroll_by(by)

    def action_page(self, by: int) -> None:
        """A page up or down."""
        pane = self.query_one(TextPane)
        pane.scroll_by(by * max(pane.size.height - 1, 1))

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)


def card_text(card: Mapping[str, object]) -> str:
    """A card as lines to edit; an empty one comes with what may be said."""
    return "\n".join(f"{name}: {said}" for name, said in card.items()) or "languages: \nbackground: \n"


def card_from(text: str) -> dict[str, str]:
    """The card that lines 'name: what' say; lines that say nothing are left out."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): said.strip() for name, _, said in pairs if name.strip() and said.strip()}
