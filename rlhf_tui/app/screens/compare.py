"""Stage 5, Compare: what changed on prompts that were never trained on, in numbers, words and samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from rlhf_tui.app import keys, keytable, words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.screens.stage import STATES, StageScreen, progress_body
from rlhf_tui.app.state import Comparison
from rlhf_tui.app.widgets.candidate import Candidate
from rlhf_tui.app.widgets.panel import Panel, lines, tinted
from rlhf_tui.preferences.display import clean
from rlhf_tui.runs.events import Sample

#: From this width on the rows of the table have their whole names.
ROOMY = 72
_BRIEFLY = {"length (tokens)": "tokens", "ended by itself": "ended", "KL to the base (nats)": "KL"}


class CompareScreen(StageScreen):
    """Before and after, side by side."""

    STAGE = "compare"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("compare")

    def __init__(self) -> None:
        super().__init__()
        self._at = 0
        self._shown: tuple[object, ...] = ()

    def compose_body(self) -> ComposeResult:
        """The table, then the samples, then what to make of it."""
        yield Panel("Before and after", id="table")
        yield Panel("Prompt", id="prompt")
        with Container(classes="side-by-side grows"):
            yield Candidate("before", id="before")
            yield Candidate("after", id="after")
        yield Panel("What it says", id="verdict")

    def show(self, view: Overview) -> None:
        """Fill the table and the samples."""
        run = self.run_shown
        result = run.state.done.result if run and run.state.done else {}
        table = self.query_one("#table", Panel)
        if run is None:
            table.show(before_start(view), title="Before and after", note="")
        elif run.alive or not result:
            table.show(progress_body(run), title="Measuring", note="")
        else:
            table.show(
                lambda width, _: before_after(result, width),
                title=table_title(result),
                note=f"{run.name} {STATES[run.status][1]}",
            )
        on = "6: write the model · t: talk to it" if result else ""
        self.query_one("#verdict", Panel).show(lines(verdict(result), two_truths(view)), note=on)
        self._show_samples(run)

    def _show_samples(self, run: Watched | None) -> None:
        """Put the chosen prompt's completions side by side, without disturbing the scroll when nothing changed."""
        found = list(run.state.comparisons.values()) if run else []
        self._at = min(max(self._at, 0), max(len(found) - 1, 0))
        chosen = found[self._at] if found else Comparison("")
        key = (self._at, len(found), chosen.prompt, len(chosen.before), len(chosen.after))
        if key == self._shown:
            return
        self._shown = key
        prompt = self.query_one("#prompt", Panel)
        text = clean(chosen.prompt) if found else tinted("Samples appear here while the comparison runs.", "quiet")
        prompt.show(text, title=f"Prompt {self._at + 1} of {len(found)}" if found else "Prompt")
        for side, samples in (("before", chosen.before), ("after", chosen.after)):
            self.query_one(f"#{side}", Candidate).show(*side_text(samples))

    @property
    def there(self) -> Sequence[keytable.When]:
        """Prompts to turn to, once some have been answered."""
        run = self.run_shown
        return ("shown",) if run is not None and run.state.comparisons else ()

    def action_browse(self, by: int) -> None:
        """Show another prompt."""
        self._at = max(self._at + by, 0)
        self.renew()

    def command(self) -> str:
        """The same on the command line."""
        return "compare"


def before_start(view: Overview) -> Content:
    """What to press when nothing has been compared."""
    missing = view.missing("compare")
    if missing:
        return tinted(str(missing).replace("\n", " "), "warn")
    return Content(f"Press ⏎ to compare both models on {words.plural(view.counts.heldout, 'held-out prompt')}.")


def table_title(result: Mapping[str, Any]) -> str:
    """The title of the table with the number of prompts."""
    count = result.get("prompts")
    return f"Before and after, {count} held-out prompts" if count else "Before and after"


def before_after(result: Mapping[str, Any], width: int) -> Content:
    """The table: score and length with the interval of their change, share that ended, KL with its interval.

    Where the room is narrow, rows have short names.
    """
    before, after = _part(result, "before"), _part(result, "after")
    ended = _number(after, "eos_rate") - _number(before, "eos_rate")
    grid: tuple[tuple[str, ...], ...] = (
        ("", "before", "after", "change", "95 % interval"),
        ("score", *_both("score", before, after), words.signed(_number(result, "difference")), _interval(result)),
        (
            "length (tokens)",
            *_both("length", before, after),
            words.signed(_number(after, "length") - _number(before, "length")),
            _interval(result, "length_"),
        ),
        (
            "ended by itself",
            words.percent(_number(before, "eos_rate")),
            words.percent(_number(after, "eos_rate")),
            f"{ended * 100:+.0f} pt" if _known(ended) else "-",
            "",
        ),
        ("KL to the base (nats)", "0", words.number(_number(result, "kl")), "", _interval(result, "kl_", words.number)),
    )
    if width < ROOMY:
        grid = tuple((_BRIEFLY.get(name, name), *rest) for name, *rest in grid)
    first = max(len(name) for name, *_ in grid)
    return lines(*(_table_line(row, first, header=index == 0) for index, row in enumerate(grid)))


def verdict(result: Mapping[str, Any]) -> Content:
    """The interval of the change in one sentence."""
    low, high = _number(result, "low"), _number(result, "high")
    if not _known(low, high):
        return tinted("The verdict comes with the numbers.", "quiet")
    first, last = _number(_part(result, "before"), "length"), _number(_part(result, "after"), "length")
    length = ""
    if _known(first, last) and first > 0:
        change = (last - first) / first
        direction = "longer" if change > 0 else "shorter"
        length = f" Answers are {words.percent(abs(change))} {direction}." if abs(change) >= 0.05 else ""
    if low > 0:
        return tinted(f"✓ The score rose: the whole interval lies above 0.{length}", "good")
    if high < 0:
        return tinted(f"✗ The score fell: the whole interval lies below 0.{length}", "bad")
    return tinted(f"⚠ No clear change: the interval contains 0.{length}", "warn")


def two_truths(view: Overview) -> Content:
    """Whose taste this is, and what tuning does not do."""
    who = ", ".join(rater.handle for rater in view.raters) or "nobody yet"
    return lines(
        f"The behaviour you see is shaped by whoever did the rating ({who}).",
        "RLHF tunes behaviour, not facts.",
    )


def side_text(samples: list[Sample]) -> tuple[str, str]:
    """The completions of one side as one text, and what stands in the lower border."""
    texts = [clean(sample.completion) for sample in samples]
    scores = [sample.values["score"] for sample in samples if "score" in sample.values]
    facts = f"score {', '.join(words.number(score) for score in scores)}" if scores else ""
    return "\n\n— another sample —\n\n".join(texts), facts


def _table_line(row: Sequence[str], first: int, *, header: bool) -> Content:
    label, before, after, change, interval = row
    text = f"{label:<{first}} {before:>8} {after:>8} {change:>9}   {interval}"
    return tinted(text, "quiet" if header else "")


def _both(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    return words.number(_number(before, name)), words.number(_number(after, name))


def _interval(result: Mapping[str, Any], prefix: str = "", write: Callable[[float], str] = words.signed) -> str:
    """The interval `prefix`low to `prefix`high, or nothing when the result has none."""
    low, high = _number(result, f"{prefix}low"), _number(result, f"{prefix}high")
    return f"{write(low)} to {write(high)}" if _known(low, high) else ""


def _part(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = result.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(part: Mapping[str, Any], name: str) -> float:
    found = part.get(name)
    return float(found) if isinstance(found, int | float) else math.nan


def _known(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)
