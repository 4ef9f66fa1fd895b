"""How a PPO run fares on held-out prompts: the scores against how far the policy has gone, in a window.

Against √KL the score that is optimised rises, and what is really wanted rises and then falls (Gao et al., 2023): the
picture that shows a reward model being exploited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from rlhf_tui.app import keys, scatter, words
from rlhf_tui.app.glyphs import ascii_wanted
from rlhf_tui.app.plot import LINE
from rlhf_tui.app.scatter import POINT, Frame, Point
from rlhf_tui.app.screens.reward_panels import wrapped
from rlhf_tui.app.state import RunState
from rlhf_tui.app.widgets.panel import lines, tinted

GUTTER = 7
SCORE, GOLD, KEPT = "●", "◆", "★"
ASCII = {SCORE: "o", GOLD: "x", KEPT: "*"}
_TONES = {LINE: "quiet", POINT: "accent"}
_MOST_ROWS = 40


@dataclass(frozen=True)
class Evaluated:
    """One evaluation on held-out prompts. Scores in deviations of the base's own completions, KL in nats."""

    update: int
    root_kl: float
    score: float
    gold: float
    """NaN without a second reward model"""
    length: float
    eos_rate: float


def evaluations(state: RunState) -> list[Evaluated]:
    """Every evaluation of the run, oldest first (neighbours are averaged in very long runs)."""
    names = ("heldout_root_kl", "heldout_score", "gold_score", "heldout_length", "heldout_eos_rate")
    found: dict[str, dict[int, float]] = {
        name: {bucket.last: bucket.mean for bucket in state.line(name).buckets} for name in names
    }
    updates = sorted(found["heldout_score"].keys() & found["heldout_root_kl"].keys())
    return [Evaluated(update, *(found[name].get(update, math.nan) for name in names)) for update in updates]


def best_update(state: RunState) -> int | None:
    """The update whose policy was the best one so far, or None."""
    best = [saved.news.step for saved in state.checkpoints if saved.news.best]
    return best[-1] if best else None


def reading(found: Sequence[Evaluated], best: int | None) -> str:
    """The picture in words."""
    if not found:
        return "Nothing has been measured on held-out prompts yet (ppo.evaluate_every)."
    first, last = found[0], found[-1]
    moved = last.score - first.score
    said = f"Held-out score {_signed(first.score)} → {_signed(last.score)} at {last.root_kl**2:.1f} nats."
    if best is not None:
        said += f" Best within the KL budget: update {best}."
    if math.isnan(last.gold):
        return said + " Set reward.ensemble = 2 and train again for a second reward model's opinion."
    peak = max(found, key=lambda one: one.gold)
    fallen = peak.gold - last.gold
    if moved > 0 and fallen > 0.25 and peak is not last:
        return said + (
            f" The second reward model has fallen by {fallen:.2f} since update {peak.update}: what is learnt since "
            "then pleases the first one's mistakes."
        )
    went = f"{_signed(first.gold)} → {_signed(last.gold)}"
    agrees = (moved > 0) == (last.gold > first.gold)
    return said + f" The second reward model {'agrees' if agrees else 'does not agree'}: {went}."


def picture(found: Sequence[Evaluated], best: int | None, width: int, height: int) -> Content:
    """Both scores against √KL, with the best policy marked."""
    plain = ascii_wanted()
    golds = [one for one in found if not math.isnan(one.gold)]
    values = [one.score for one in found] + [one.gold for one in golds]
    far = max(one.root_kl for one in found)
    bottom, top = math.floor(2 * min(values)) / 2, math.ceil(2 * max(values)) / 2
    frame = Frame(0.0, max(far, 0.1), bottom, max(top, bottom + 0.5))
    marks = [(one.root_kl, one.gold, GOLD) for one in golds]
    marks += [(one.root_kl, one.score, KEPT if one.update == best else SCORE) for one in found]
    points = [Point(x, y, y, y, ASCII[mark] if plain else mark) for x, y, mark in marks]
    across, down = max(width - GUTTER, 8), max(height - 1, 2)
    draw = scatter.draw_ascii if plain else scatter.draw
    scene = draw(points, [(one.root_kl, one.score) for one in found], frame, across, down)
    drawn = []
    for at, (row, kinds) in enumerate(zip(scene.rows, scene.kinds, strict=True)):
        value = frame.top if at == 0 else frame.bottom if at == down - 1 else None
        label = "" if value is None else f"{value:+.1f}"
        cells = [tinted(text, _TONES.get(kind, "")) for text, kind in zip(row, kinds, strict=True)]
        drawn.append(Content.assemble(tinted(f"{label:>{GUTTER - 1}} ", "quiet"), *cells))
    end = f"{frame.right:.1f}"
    room = max(across - len(end) - 1, 0)
    axis = f"{'':{GUTTER}}0{words.one_line('√KL to the reference', max(room - 2, 0)).center(room)}{end}"
    return lines(*drawn, tinted(axis, "quiet"))


def legend(found: Sequence[Evaluated]) -> Content:
    """What the marks mean."""
    plain = ascii_wanted()
    score, gold, kept = (ASCII[mark] if plain else mark for mark in (SCORE, GOLD, KEPT))
    said = f"{score} held-out score   {kept} the best policy"
    if any(not math.isnan(one.gold) for one in found):
        said += f"   {gold} second reward model"
    return tinted(said, "quiet")


def table(found: Sequence[Evaluated], best: int | None) -> Content:
    """The numbers, newest first."""
    head = f"{'update':>6} {'√KL':>6} {'score':>7} {'second':>7} {'length':>7} {'ended':>6}"
    listed = [
        f"{one.update:>6} {one.root_kl:>6.2f} {_signed(one.score):>7} {_or_dash(one.gold):>7} {one.length:>7.1f} "
        f"{_percent(one.eos_rate):>6}" + ("  best" if one.update == best else "")
        for one in reversed(found[-_MOST_ROWS:])
    ]
    return lines(tinted(head, "quiet"), *listed)


def _or_dash(value: float) -> str:
    return "–" if math.isnan(value) else _signed(value)


def _signed(value: float) -> str:
    """Two digits with a sign; never a negative zero."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else words.percent(value)


class HeldOutDialog(ModalScreen[None]):
    """Picture, reading and numbers of all evaluations so far; it grows while the run goes on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings("dialog"),
        ("q,h,enter", "close", "Close"),
        ("j", "scroll(1)", "Down"),
        ("k", "scroll(-1)", "Up"),
    ]

    def __init__(self, state: RunState) -> None:
        super().__init__(classes="window")
        self._state = state
        self._shown = -1

    def compose(self) -> ComposeResult:
        """A titled box around picture and numbers."""
        with VerticalScroll(classes="dialog tall reading", id="reading") as box:
            box.border_title = Content("On held-out prompts")
            box.border_subtitle = Content("↑↓ scroll · esc close")
            yield Static("", markup=False, id="dialog-text")

    def on_mount(self) -> None:
        """Take the focus for scrolling, and look for news every second."""
        self.query_one("#reading").focus()
        self.set_interval(1.0, self._renew)

    def on_resize(self) -> None:
        """The picture is made for a width."""
        self._shown = -1
        self.call_after_refresh(self._renew)

    def action_scroll(self, by: int) -> None:
        """A line up or down."""
        self.query_one("#reading").scroll_relative(y=by, animate=False)

    def action_close(self) -> None:
        """Close the window."""
        self.dismiss(None)

    def _renew(self) -> None:
        if self._shown == self._state.revision:
            return
        self._shown = self._state.revision
        text = self.query_one("#dialog-text", Static)
        height = max(self.query_one("#reading").size.height - 9, 6)
        text.update(body(self._state, max(text.size.width, 20), height))


def body(state: RunState, width: int, height: int) -> Content:
    """What the window shows in so many characters; the picture takes `height` lines."""
    found, best = evaluations(state), best_update(state)
    said = [Content(line) for line in wrapped(reading(found, best), width)]
    if not found:
        return lines(*said)
    return lines(*said, "", picture(found, best, width, height), legend(found), "", table(found, best))
