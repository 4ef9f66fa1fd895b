"""Stage 3, Reward: a model learns the rater's taste, and is held against two rules that know nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from rlhf_tui.app import keys, words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.screens.stage import StageScreen, progress_body
from rlhf_tui.app.widgets.chart import Chart
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted
from rlhf_tui.settings import Settings


class RewardScreen(StageScreen):
    """Training curves, the held-out result beside its baselines, and whose taste it is."""

    STAGE = "reward"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("reward")

    def compose_body(self) -> ComposeResult:
        """Progress, charts, then the result beside the setup."""
        yield Panel("Training", id="progress")
        with Container(classes="charts two"):
            yield Chart("loss", "train loss")
            yield Chart("accuracy", "train accuracy", rule=0.5)
            yield Chart("heldout_loss", "held-out loss", classes="only-large")
            yield Chart("heldout_accuracy", "held-out accuracy", rule=0.5, classes="only-large")
            yield Chart("margin", "margin", rule=0.0, classes="only-large")
            yield Chart("grad_norm", "gradient norm", classes="only-large")
        with Container(classes="side-by-side facts"):
            yield Panel("Held-out pairs", id="result")
            yield Panel("Setup", id="setup")
        yield Panel("Whose taste", id="taste")

    def show(self, view: Overview) -> None:
        """Fill the panels and charts."""
        run = self.run_shown
        panel = self.query_one("#progress", Panel)
        panel.show(progress_body(run) if run else before_start(view))
        for chart in self.query(Chart):
            if run:
                chart.show(run.state.line(chart.metric), note=heldout_note(chart.metric, run))
        result = self.query_one("#result", Panel)
        result.show(heldout(run), note=f"n = {heldout_result(run)['n']}" if "n" in heldout_result(run) else "")
        if view.settings:
            self.query_one("#setup", Panel).show(rows(setup_rows(view, view.settings)))
        self.query_one("#taste", Panel).show(taste(view))

    def command(self) -> str:
        """The same on the command line."""
        return "train reward"


def before_start(view: Overview) -> Content:
    """What to press when nothing has been trained."""
    missing = view.missing("reward")
    if missing:
        return tinted(str(missing).replace("\n", " "), "warn")
    return Content(f"Press ⏎ to train on {words.plural(view.counts.teaching, 'judgement')}.")


def heldout_result(run: Watched | None) -> Mapping[str, Any]:
    """The 'heldout' part of a finished run's result, or nothing."""
    done = run.state.done if run else None
    found = done.result.get("heldout") if done else None
    return found if isinstance(found, Mapping) else {}


def heldout_note(metric: str, run: Watched) -> str:
    """The newest held-out value, for the border of the chart of the training value."""
    latest = run.state.latest.get(f"heldout_{metric}", math.nan)
    return f"held-out {words.number(latest)}" if math.isfinite(latest) else ""


def heldout(run: Watched | None) -> Content:
    """Accuracy on held-out pairs with its interval, beside the two baselines, and what it means in words."""
    result = heldout_result(run)
    if not result:
        latest = run.state.latest if run else {}
        if run and run.alive and "heldout_accuracy" in latest:
            return rows([Row("accuracy so far", words.percent(latest["heldout_accuracy"]))])
        return tinted("Shown when the training is over.", "quiet")
    accuracy, low, high = (_float(result, name) for name in ("accuracy", "low", "high"))
    shorter, longer = _float(result, "shorter"), _float(result, "longer")
    return lines(
        rows(
            [
                Row("accuracy", words.percent(accuracy), f"{low * 100:.0f} to {words.percent(high)} (95 %)"),
                Row("'shorter'", words.percent(shorter), "always the shorter"),
                Row("'longer'", words.percent(longer), "always the longer"),
            ]
        ),
        verdict(low, high, shorter, longer),
    )


def verdict(low: float, high: float, shorter: float, longer: float) -> Content:
    """Accuracy against chance and against the better of the two length rules, in words."""
    if not low > 0.5:
        return tinted("⚠ Not clearly better than a coin", "warn")
    rule, share = ("shorter", shorter) if shorter >= longer else ("longer", longer)
    if low > share:
        return tinted("✓ Beats a coin and both length rules", "good")
    if high < share:
        return tinted(f"⚠ Worse than always the {rule} one", "warn")
    return tinted(f"⚠ Beats a coin, not clearly '{rule}'", "warn")


def setup_rows(view: Overview, settings: Settings) -> list[Row]:
    """What the training is told."""
    reward = settings.reward
    return [
        Row("judgements", f"{view.counts.teaching}", f"{view.counts.ties} ties"),
        Row("epochs", f"{reward.epochs}", f"{reward.batch_pairs} a step"),
        Row("learning rate", f"{reward.learning_rate:g}", f"head {reward.head_learning_rate:g}"),
        Row("smoothing", f"{reward.label_smoothing:g}", "of the labels"),
    ]


def taste(view: Overview) -> Content:
    """The first truth, with the names of those who rated."""
    who = ", ".join(f"{rater.handle} ({rater.kind})" for rater in view.raters) or "nobody yet"
    return lines("The behaviour you see is shaped by whoever did the rating.", rows([Row("rated by", who)]))


def _float(result: Mapping[str, Any], name: str) -> float:
    found = result.get(name)
    return float(found) if isinstance(found, int | float) else float("nan")
