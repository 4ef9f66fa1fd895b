"""The settings editor: every setting of the project, what it means, and another value for it.

What is listed and what is stored is decided in `app.settings_form`; what is said, in `settings_panels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from rlhf_tui.app import keys
from rlhf_tui.app.screens import settings_panels
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.settings_dialogs import asking
from rlhf_tui.app.settings_form import Browsing, Change, Entry, SettingsForm, headed
from rlhf_tui.app.widgets.board import Board
from rlhf_tui.app.widgets.listing import Listing
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.app.widgets.status import Ends, KeyLine
from rlhf_tui.errors import UserError

if TYPE_CHECKING:
    from rlhf_tui.app.app import RlhfApp

#: Lines that a turn of the wheel moves the cursor.
WHEEL = 2
_BEGINNING = "Each change is written to rlhf.toml at once, and can be taken back."

#: The line of keys while words are typed: letters are no keys then.
_WHILE_TYPING = [("⏎", "To the list"), ("esc", "All settings")]


class SettingsScreen(Screen[None]):
    """All settings in sections, the lit one explained."""

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("settings")
    keys_named = "settings"
    AUTO_FOCUS = ""  # keys work on the list until words are to be typed

    def __init__(self, form: SettingsForm, section: str = "") -> None:
        """`section` is where the list is opened."""
        super().__init__()
        self.form = form
        self.browsing = Browsing(section, form.differing)
        self._said = tinted(_BEGINNING, "quiet")

    def compose(self) -> ComposeResult:
        """Two lines, the list and the lit setting, the line of keys."""
        yield Ends(id="head")
        yield Static("", markup=False, id="said")
        with Container(id="finding"):
            yield Static("Find", markup=False, id="finding-label")
            yield Input(placeholder="words of its name or of what it means", compact=True, id="needle")
        with Container(id="settings"):
            yield Listing(id="settings-list")
            yield Board("", id="setting")
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        """Show it, and look at the file twice a second: another program may write to it."""
        self.query_one("#finding").display = False
        self._show_section()
        self.set_interval(0.5, self._look)

    def on_resize(self) -> None:
        """Lines are cut to the width."""
        self.call_after_refresh(self.show)

    def on_screen_resume(self) -> None:
        """A window has closed; the terminal may have another size by now."""
        self.show()
        self.call_after_refresh(self.show)

    @property
    def rlhf(self) -> RlhfApp:
        """The app, typed."""
        return cast("RlhfApp", self.app)

    def command_line(self) -> str:
        """The command that stores the lit setting as it is now."""
        lit = self.browsing.lit
        if lit is None or self.form.settings is None:
            return f"rlhf-tui config show --project {self.form.shell_root}"
        return self.form.whole_command(lit, self.form.now(lit))

    def show(self) -> None:
        """Everything as it is now."""
        if not self.is_mounted:
            return
        form, browsing, lit = self.form, self.browsing, self.browsing.lit
        width = self.app.size.width
        self.query_one("#head", Ends).show(*settings_panels.head(form))
        self.query_one("#said", Static).update(
            settings_panels.remarks(form, self.rlhf.overview, self._said, max(width - 2, 10))
        )
        self._show_list(list(headed(browsing.listed)), lit)
        board = self.query_one("#setting", Board)
        board.show(
            settings_panels.about(lit, form, browsing),
            title=lit.key if lit else "Nothing listed",
            note=settings_panels.command_hint(lit, form, self._key("app.copy")),
        )
        live = self.rlhf.overview.live is not None
        typing = self.query_one("#needle").has_focus
        self.query_one(KeyLine).show(
            _WHILE_TYPING if typing else keys.footer("settings", width, live=live, keymap=self.rlhf.keymap)
        )

    def _show_list(self, shown: list[str | Entry], lit: Entry | None) -> None:
        def line(at: int, width: int) -> Content:
            item = shown[at]
            if isinstance(item, str):
                return settings_panels.heading(item, width)
            return settings_panels.row(item, self.form, width, lit=item == lit)

        listing = self.query_one("#settings-list", Listing)
        listing.show([isinstance(item, str) for item in shown], shown.index(lit) if lit else None, line)
        title, note = settings_panels.place(self.browsing)
        listing.border_title, listing.border_subtitle = Content(title), Content(note)

    # What keys do

    def action_move(self, by: int) -> None:
        """So many settings up or down."""
        self.browsing.move(by)
        self.show()

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self.action_move(by * self.query_one("#settings-list", Listing).page)

    def action_far(self, by: int) -> None:
        """To the first, or the last."""
        self.action_move(by * len(self.browsing.listed))

    def action_turn_section(self, by: int) -> None:
        """To the section after, or before."""
        self.browsing.turn_section(by)
        self._show_section()

    def action_filter(self) -> None:
        """Type what the settings listed are to say."""
        self.browsing.begin_filter()
        self.query_one("#finding").display = True
        self.query_one("#needle").focus()
        self.call_after_refresh(self.show)

    def action_differing(self) -> None:
        """List only what differs from the defaults, or all."""
        self.browsing.only_differing = not self.browsing.only_differing
        self.show()

    def action_read(self) -> None:
        """All about the lit setting, in a window."""
        if self.browsing.lit:
            lit = self.browsing.lit
            self.app.push_screen(TextDialog(lit.key, settings_panels.whole(lit, self.form)))

    def action_change(self) -> None:
        """Give the lit setting another value."""
        lit = self.browsing.lit
        if lit is None or not self._changeable():
            return
        if lit.is_switch:
            self._store(lit, not self.form.now(lit))
        else:
            self.app.push_screen(asking(lit, self.form)(), self._stored)

    def action_reset(self) -> None:
        """Give the lit setting its default again."""
        lit = self.browsing.lit
        if lit is None or not self._changeable():
            return
        if self.form.differs(lit):
            self._store(lit, lit.info.default)
        else:
            self._say(tinted(f"· {lit.key} has its default already.", "quiet"))

    def action_undo(self) -> None:
        """Take the last change back."""
        try:
            taken = self.form.undo()
        except UserError as error:
            self.rlhf.show_error(error)
            return
        if taken is None:
            self._say(tinted("· Nothing has been changed here yet.", "quiet"))
            return
        self.browsing.light(taken.entry.key)
        self._told(settings_panels.taken_back(taken))

    def action_back(self) -> None:
        """One layer out: of the filter, or of the settings."""
        if self.browsing.narrowed:
            self._widen()
        else:
            self.dismiss(None)

    # What happens

    def _show_section(self) -> None:
        """The section of the lit setting from its heading on."""
        lit = self.browsing.lit
        if lit:
            self.query_one("#settings-list", Listing).bring_to_top(
                list(headed(self.browsing.listed)).index(lit.section)
            )
        self.show()

    def on_input_changed(self, event: Input.Changed) -> None:
        """List what says it."""
        self.browsing.narrow(event.value)
        self._show_section()

    def on_input_submitted(self) -> None:
        """The list stays narrow; keys work on it again."""
        self._leave_needle()

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        """Light what was clicked; what is lit already is changed."""
        item = list(headed(self.browsing.listed))[event.at]
        if isinstance(item, Entry):
            if item == self.browsing.lit:
                self.action_change()
            self.browsing.light(item.key)
            self.show()

    def on_listing_turned(self, event: Listing.Turned) -> None:
        """The cursor goes along with the wheel."""
        self.action_move(event.by * WHEEL)

    def _look(self) -> None:
        """The file may be another one, and a run may have begun or ended."""
        if self.form.look():
            self._say(tinted("! Another program has changed rlhf.toml; this is how it is now.", "warn"))
        elif self.is_current:
            self.show()

    def _changeable(self) -> bool:
        return self._guarded(self.form.require_changeable)

    def _store(self, entry: Entry, new: Any) -> None:
        stored: list[Change] = []
        if self._guarded(lambda: stored.append(self.form.store(entry, new, seen=self.form.now(entry)))):
            self._stored(stored[0])

    def _stored(self, change: Change | None) -> None:
        if change is not None:
            self._told(settings_panels.stored(change, self._key("settings.undo")))
            if change.remark:
                self.rlhf.show_error(change.remark)

    def _told(self, said: Content) -> None:
        """Say what was done, and let the rest of the app see it."""
        self._say(said)
        self.rlhf.look()

    def _say(self, said: Content) -> None:
        self._said = said
        self.show()

    def _guarded(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except UserError as error:
            self.rlhf.show_error(error)
            self.show()
            return False
        return True

    def _widen(self) -> None:
        self.browsing.widen()
        needle = self.query_one("#needle", Input)
        with self.prevent(Input.Changed):
            needle.value = ""
        self._leave_needle()
        self.show()

    def _leave_needle(self) -> None:
        needle = self.query_one("#needle", Input)
        self.query_one("#finding").display = bool(needle.value)
        self.set_focus(None)
        self.show()

    def _key(self, action: str) -> str:
        return keys.key_of("settings", action, self.rlhf.keymap)
