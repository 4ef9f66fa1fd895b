"""What a terminal would obey never reaches it, whatever was put on a screen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.color import Color
from textual.widgets import Static

from rlhf_tui.app.harmless import HarmlessFilter, harmless

OBEYED = [*map(chr, range(0x20)), "\x7f", *map(chr, range(0x80, 0xA0)), *"\u202a\u202b\u202c\u202d\u202e\u2066\u2069"]


def test_every_character_that_is_obeyed_is_taken_out() -> None:
    for char in OBEYED:
        assert char not in harmless(f"a{char}b")
    assert harmless("\x1b]0;title\x07text") == "]0;titletext"
    assert harmless("⣿ Größe 漢字 ▶ 👍") == "⣿ Größe 漢字 ▶ 👍"


@given(st.text(alphabet=st.characters(codec=None)))
def test_the_width_stays_and_it_can_be_written(text: str) -> None:
    shown = harmless(text)
    assert cell_len(shown) == cell_len(text)
    shown.encode("utf-8")
    assert harmless(shown) == shown


def test_what_is_for_the_terminal_itself_stays() -> None:
    control = Segment("\x1b[?25l", None, [(1,)])  # type: ignore[list-item]
    style = Style(bold=True)
    found = HarmlessFilter().apply([control, Segment("a\x1bb", style), Segment("c")], Color(0, 0, 0))
    assert found[0] is control
    assert [(segment.text, segment.style) for segment in found[1:]] == [("ab", style), ("c", None)]


async def test_a_widget_that_forgot_to_clean_its_text_does_no_harm() -> None:
    class Careless(App[None]):
        def compose(self) -> ComposeResult:
            yield Static("\x1b[31mred\u202e \x07bell", markup=False)

        def get_line_filters(self) -> list[HarmlessFilter]:  # type: ignore[override]
            return [HarmlessFilter()]

    app = Careless()
    async with app.run_test() as pilot:
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        text = "".join(segment.text for strip in strips for segment in strip)
        assert "red" in text
        assert not set(OBEYED) & set(text)
