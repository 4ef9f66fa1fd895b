"""Where a setting gets another value: a choice of a few, or a line to type that is checked with every key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import OptionList, Static, TextArea
from textual.widgets.option_list import Option

from rlhf_tui.app import keys
from rlhf_tui.app.settings_form import Change, ChangedMeanwhileError, Entry, SettingsForm
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean

#: Lines of a typed text in view, at most.
MOST = 6


class SettingDialog(ModalScreen[Change | None]):
    """A window over one setting. It hands back what it has stored; None: everything is as it was.

    It stays open with what was typed when something is wrong. What another program has written meanwhile is
    replaced only by a second ⏎, after that was said.
    """

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("dialog")
    HINT: ClassVar[str] = "⏎ store · esc leave unchanged"

    def __init__(self, entry: Entry, form: SettingsForm) -> None:
        super().__init__(classes="window")
        self.entry, self.form = entry, form
        self.seen = form.now(entry)

    def compose(self) -> ComposeResult:
        """What may be given, whether it can stand there, the command for it, and the explanation."""
        with Vertical(classes="dialog small editing") as box:
            box.border_title = Content(f"{self.entry.key}: {self.entry.kind}")
            box.border_subtitle = Content(self.HINT)
            yield self.compose_choice()
            yield Static("", markup=False, id="editing-verdict")
            yield Static(self.entry.info.explanation, markup=False, id="editing-meaning")

    def compose_choice(self) -> Widget:
        """What the value is given with."""
        raise NotImplementedError

    def action_close(self) -> None:
        """Leave everything as it is."""
        self.dismiss(None)

    def judge(self, new: Any) -> None:
        """Say what ⏎ would do."""
        entry = self.entry
        default = f"the default is {_one(entry, entry.info.default)}"
        if new == self.seen:
            said = tinted(
                "· as it is now" + (", which is the default." if new == entry.info.default else f"; {default}."),
                "quiet",
            )
        elif new == entry.info.default:
            said = tinted("✓ ⏎ brings it back to its default.", "good")
        else:
            said = tinted(f"✓ ⏎ stores it; {default}.", "good")
        self.tell(said, tinted(clean(self.form.command(entry, new)), "accent"))

    def tell(self, *said: Content | str) -> None:
        """Say something below the value."""
        self.query_one("#editing-verdict", Static).update(lines(*said))

    def complain(self, error: UserError, glyph: str = "✗") -> None:
        """Say what is wrong."""
        first = tinted(f"{glyph} {clean(error.what)}", "bad")
        self.tell(first, *(clean(part) for part in (error.why, error.todo) if part))

    def store(self, new: Any) -> None:
        """Store it and close, or say why that cannot be."""
        if new == self.seen:
            self.dismiss(None)
            return
        try:
            self.dismiss(self.form.store(self.entry, new, seen=self.seen))
        except ChangedMeanwhileError as error:
            self.seen = error.now
            error.todo = "⏎ once more stores yours over it; esc leaves it."
            self.complain(error, "‖")
        except UserError as error:
            self.complain(error)


class ChoiceOfFew(SettingDialog):
    """One of a few values."""

    HINT: ClassVar[str] = "↑↓ choose · ⏎ store · esc leave unchanged"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("j", "move(1)", "Down"),
        ("k", "move(-1)", "Up"),
        ("space", "take", "Take"),
    ]

    def compose_choice(self) -> Widget:
        """The values, with what each of them is."""
        width = max(map(len, self.entry.options)) + 2
        listed = OptionList(
            *(Option(self._line(value, width)) for value in self.entry.options), id="values", markup=False
        )
        listed.highlighted = self.entry.options.index(self.seen) if self.seen in self.entry.options else 0
        return listed

    def on_mount(self) -> None:
        """Choose at once."""
        self._list.focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what it would do."""
        self.judge(self.entry.options[event.option_index])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Store it."""
        self.store(self.entry.options[event.option_index])

    def action_move(self, by: int) -> None:
        """Another one."""
        self._list.action_cursor_down() if by > 0 else self._list.action_cursor_up()

    def action_take(self) -> None:
        """Store the lit one."""
        self._list.action_select()

    @property
    def _list(self) -> OptionList:
        return self.query_one("#values", OptionList)

    def _line(self, value: str, width: int) -> Content:
        notes = {"● now": value == self.seen, "the default": value == self.entry.info.default}
        return Content.assemble(
            value.ljust(width), tinted("  ".join(note for note, so in notes.items() if so), "quiet")
        )


class TypedValue(SettingDialog):
    """A number or a text, checked while it is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "Store", priority=True),
        Binding("ctrl+n", "new_line", "New line", priority=True),
    ]

    def compose_choice(self) -> Widget:
        """The line, which grows with the text."""
        self._start = clean(self.seen if self.entry.is_text else self.entry.spelt(self.seen))
        return TextArea(self._start, soft_wrap=True, compact=True, highlight_cursor_line=False, id="typed")

    def on_mount(self) -> None:
        """Type at once, at the end of what is there."""
        if self.entry.is_text:
            self.query_one(".dialog").border_subtitle = Content("⏎ store · ^n new line · esc leave unchanged")
        self._line.focus()
        self._line.move_cursor(self._line.document.end)
        self.call_after_refresh(self._typed)

    def on_resize(self) -> None:
        """The lines break elsewhere."""
        self.call_after_refresh(self._grow)

    def on_text_area_changed(self) -> None:
        """Check it."""
        self._typed()

    def action_new_line(self) -> None:
        """Begin another line of a text."""
        if self.entry.is_text:
            self._line.insert("\n")

    def action_take(self) -> None:
        """Store it, if it can stand there."""
        try:
            new = self._read()
        except UserError as error:
            self.complain(error)
        else:
            self.store(new)

    @property
    def _line(self) -> TextArea:
        return self.query_one("#typed", TextArea)

    def _read(self) -> Any:
        """What would be stored: what cannot be shown of a text stays in it until it is changed."""
        typed = self._line.text
        return self.seen if typed == self._start else self.form.check(self.entry, typed)

    def _typed(self) -> None:
        self._grow()
        typed = self._line.text
        if clean(typed) != typed:  # pasted: a terminal would obey it, or nobody could see it
            self._line.text = clean(typed)
            return
        try:
            new = self._read()
        except UserError as error:
            self.tell(tinted(f"✗ {clean(error.what)}", "bad"), clean(error.why))
            return
        self.judge(new)
        if new == self.seen and self.entry.is_text and new != self._start:
            self.tell(tinted("! Some of it cannot be shown; a change leaves that out.", "warn"))
        elif self.entry.is_text and typed != typed.strip() and new != self.seen:
            self.tell(tinted("! It begins or ends with a blank; ⏎ stores that, too.", "warn"))

    def _grow(self) -> None:
        self._line.styles.height = min(max(self._line.wrapped_document.height, 1), MOST)


def asking(entry: Entry, form: SettingsForm) -> Callable[[], SettingDialog]:
    """The window that fits a kind of setting."""
    return lambda: (ChoiceOfFew if entry.options else TypedValue)(entry, form)


def _one(entry: Entry, value: Any) -> str:
    return " ".join(clean(entry.spelt(value)).split())
