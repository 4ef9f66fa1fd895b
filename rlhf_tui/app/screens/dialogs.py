"""Windows in front of a screen: text to read, a question, a line to type, a text to write, the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from rlhf_tui.app import glossary, keys
from rlhf_tui.app.widgets.panel import lines, tinted
from rlhf_tui.errors import UserError


class TextDialog(ModalScreen[None]):
    """Something to read, in a window that scrolls. Esc, q and enter close it."""

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("dialog"), ("q,enter,question_mark", "close", "Close")]

    def __init__(self, title: str, body: Content | str, *, fresh: Callable[[], Content | str] | None = None) -> None:
        super().__init__(classes="window")
        self._title = title
        self._body = body
        self._fresh = fresh

    def compose(self) -> ComposeResult:
        """A titled box around the text."""
        with VerticalScroll(classes="dialog", id="reading") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("↑↓ scroll · y copy · esc close")
            yield Static(self._body, markup=False, id="dialog-text")

    def on_mount(self) -> None:
        """Take the focus for scrolling; a text that can grow is renewed every second."""
        self.query_one("#reading").focus()
        if self._fresh:
            self.query_one("#reading", VerticalScroll).scroll_end(animate=False)
            self.set_interval(1.0, self._renew)

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _renew(self) -> None:
        if self._fresh:
            self.query_one("#dialog-text", Static).update(self._fresh())


class ConfirmDialog(ModalScreen[bool]):
    """A question that y or enter answers with yes, and n or esc with no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y,enter", "answer(True)", "Yes"),
        ("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, title: str, question: str) -> None:
        super().__init__(classes="window")
        self._title = title
        self._question = question

    def compose(self) -> ComposeResult:
        """The question and the keys that answer it."""
        with Vertical(classes="dialog small") as box:
            box.border_title = Content(self._title)
            yield Static(self._question, markup=False)
            yield Static(lines("", Content.assemble(tinted("y", "accent"), " yes   ", tinted("n", "accent"), " no")))

    def action_answer(self, yes: bool) -> None:
        """Answer."""
        self.dismiss(yes)


class LineDialog(ModalScreen[str | None]):
    """One line to type; enter takes it, esc gives up."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("dialog")

    def __init__(self, title: str, *, start: str = "", hint: str = "") -> None:
        super().__init__(classes="window")
        self._title, self._start, self._hint = title, start, hint

    def compose(self) -> ComposeResult:
        """The line."""
        with Vertical(classes="dialog small") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("⏎ take · esc leave")
            yield Input(self._start, placeholder=self._hint, select_on_focus=False, id="line")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the line."""
        self.dismiss(event.value)

    def action_close(self) -> None:
        """Give up."""
        self.dismiss(None)


class WritingDialog(ModalScreen[str | None]):
    """A text of several lines to read and to change; ctrl+s stores it, esc leaves it as it was.

    What has been written is given up only after a question.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("dialog"), ("ctrl+s", "store", "Store")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(classes="window")
        self._title, self._text, self._start = title, text, text

    def compose(self) -> ComposeResult:
        """An editor in a titled box."""
        with Vertical(classes="dialog") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content("^s store · esc leave unchanged")
            yield TextArea(self._text, soft_wrap=True, show_line_numbers=False, id="writing")

    def on_mount(self) -> None:
        """Type at once."""
        self._start = self._writing.text  # with the ends of lines that the editor gives it
        self._writing.focus()

    @property
    def unstored(self) -> str:
        """What to say of a text that has been written here and would be lost; nothing where there is none."""
        texts = [area.text for area in self.query(TextArea)]  # none before it is drawn
        lost = any(text.strip() and text != self._start for text in texts)
        return "It is not stored: ^s does that." if lost else ""

    def action_store(self) -> None:
        """Hand the text back."""
        self.dismiss(self._writing.text)

    def action_close(self) -> None:
        """Give up, after a question if there is something to lose."""
        if self.unstored:
            self.app.push_screen(give_up_dialog(self.unstored), self._give_up)
        else:
            self.dismiss(None)

    def _give_up(self, yes: bool | None) -> None:
        if yes:
            self.dismiss(None)

    @property
    def _writing(self) -> TextArea:
        return self.query_one("#writing", TextArea)


def give_up_dialog(unstored: str) -> ConfirmDialog:
    """Whether what was begun may be lost; `unstored` says of it why it would be."""
    return ConfirmDialog("Give up what you wrote", f"{unstored} Give it up? n goes on with it.")


def error_dialog(error: UserError) -> TextDialog:
    """What happened, why, and what to do."""
    parts = [Content.styled(error.what, "bold")]
    parts += [Content(part) for part in (error.why, error.todo) if part]
    return TextDialog("That did not work", Content("\n\n").join(parts))


def help_dialog(screen: str, title: str, keymap: keys.Keymap, *, lit: str = "") -> TextDialog:
    """Every key of a screen; before them what the number means whose chart is `lit`."""
    listed = keys.help_rows(screen, keymap)
    width = max(len(key) for key, _ in listed) + 2
    body = [Content.assemble(tinted(key.ljust(width), "accent"), text) for key, text in listed]
    tail = tinted("Hold shift while dragging to select text with the mouse.", "quiet")
    return TextDialog(f"Keys: {title}", lines(*_about(lit), *body, "", tail))


def _about(metric: str) -> list[Content | str]:
    """What a number means, what is healthy, and what to do when it is not."""
    said = glossary.explained(metric)
    if not said:
        return []
    told = [Content.assemble(tinted(f"{heading}: ", "quiet"), text) for heading, text in said]
    return [Content.styled(glossary.label(metric), "bold"), *told, ""]
