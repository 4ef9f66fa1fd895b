"""Stage 4, PPO: before a run its plan, during and after it the charts, numbers, samples and alerts."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container

from rlhf_tui.app import keys
from rlhf_tui.app.overview import BROKEN, Overview, Watched
from rlhf_tui.app.screens.ppo_charts import ChartKeys, read_line
from rlhf_tui.app.screens.ppo_heldout import HeldOutDialog, best_update
from rlhf_tui.app.screens.ppo_live import (
    USUAL,
    alert_line,
    chart_note,
    kept_line,
    levels,
    news,
    number_line,
    number_rows,
    run_settings,
    sample_text,
    sample_title,
)
from rlhf_tui.app.screens.ppo_plan import leash_rows, plan_rows, readiness
from rlhf_tui.app.screens.ppo_samples import SamplesDialog
from rlhf_tui.app.screens.ppo_windows import NewsDialog, alerts, kept
from rlhf_tui.app.screens.stage import StageScreen, progress_lines, state_line, state_of
from rlhf_tui.app.widgets.chartgrid import Charted, ChartGrid
from rlhf_tui.app.widgets.panel import Panel, lines, rows


class PpoScreen(ChartKeys, StageScreen):
    """The live view of a PPO run."""

    STAGE = "ppo"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("ppo", "charts")

    def __init__(self) -> None:
        super().__init__()
        self._back = 0

    def compose_body(self) -> ComposeResult:
        """Two layouts: the plan while there is no run, the charts once there is one."""
        with Container(id="plan", classes="page"):
            with Container(classes="side-by-side facts"):
                yield Panel("Plan", id="setup")
                yield Panel("The leash", id="leash")
            yield Panel("Before you start", id="ready")
            yield Panel("Next", id="next")
        with Container(id="live", classes="page"):
            yield ChartGrid(USUAL, id="curves")
            yield Panel("Run", id="progress", classes="only-large")
            yield Panel("Update", id="numbers", classes="not-large")
            with Container(classes="side-by-side below"):
                yield Panel("Numbers (last, mean of 20)", id="table", classes="only-large")
                yield Panel("Sample", id="sample")
                yield Panel("Alerts and checkpoints", id="news", classes="only-large")

    @property
    def has_charts(self) -> bool:
        """Charts come with the first run."""
        return self.run_shown is not None

    def show(self, view: Overview) -> None:
        """Fill whichever layout is up."""
        run = self.run_shown
        self.query_one("#plan").display = run is None
        self.query_one("#live").display = run is not None
        if run is None:
            self._show_plan(view)
        else:
            self._show_run(run)

    def _show_plan(self, view: Overview) -> None:
        if view.settings:
            self.query_one("#setup", Panel).show(rows(plan_rows(view.settings)))
            self.query_one("#leash", Panel).show(rows(leash_rows(view.settings)))
        self.query_one("#ready", Panel).show(readiness(view))
        missing = view.missing("ppo")
        self.query_one("#next", Panel).show(
            str(missing).replace("\n", " ")
            if missing
            else "Press ⏎ to start. The run survives closing this window; 'rlhf-tui' finds it again."
        )

    def _show_run(self, run: Watched) -> None:
        state, settings = run.state, run_settings(run)
        self.grid.show(
            Charted(
                state.series,
                notes=lambda name: chart_note(name, run),
                levels=lambda name: levels(name, settings, state),
                best=best_update(state),
            )
        )
        self._show_numbers(run)
        self.query_one("#table", Panel).show(rows(number_rows(run)))
        sample = self.query_one("#sample", Panel)
        self._back = min(self._back, max(len(state.samples) - 1, 0))
        sample.show(
            lambda width, height: sample_text(run, self._back, width, height), title=sample_title(run, self._back)
        )
        self.query_one("#news", Panel).show(news(run))

    def _show_numbers(self, run: Watched) -> None:
        """The newest numbers and alert; while a chart is lit, what all charts say at the cursor."""
        grid, state = self.grid, run.state
        glyph, word, _ = state_of(run)
        title = f"{glyph} {word}, update {state.step}" if state.step else f"{glyph} {word}"
        read = grid.readout() if grid.lit else ""
        note = self.beside(grid.range_words())
        self.query_one("#numbers", Panel).show(
            lambda width, _: lines(
                read_line(read, width) if read else number_line(run, width),
                kept_line(run)
                or (None if run.status in BROKEN else alert_line(run, width))
                or state_line(run, time.time()),
            ),
            title=title,
            note=note,
        )
        self.query_one("#progress", Panel).show(
            lambda width, _: (
                lines(read_line(read, width), state_line(run, time.time()))
                if read
                else lines(*filter(None, (progress_lines(run, time.time(), width), kept_line(run))))
            ),
            note=note,
        )

    def leaf(self, by: int) -> None:
        """Show an older (-1) or a newer (+1) sample."""
        self._back = max(self._back - by, 0)
        self.renew()

    def action_samples(self) -> None:
        """The samples in full, now and at the start."""
        if run := self._run_or_say():
            self.app.push_screen(SamplesDialog(run, self._back))

    def action_held_out(self) -> None:
        """How it fares on held-out prompts."""
        if run := self._run_or_say():
            self.app.push_screen(HeldOutDialog(run.state))

    def action_why(self) -> None:
        """All alerts in full."""
        if run := self._run_or_say():
            self.app.push_screen(NewsDialog(f"Alerts of {run.name}, newest first", run, alerts))

    def action_kept(self) -> None:
        """The checkpoints, where the time goes, and memory."""
        if run := self._run_or_say():
            self.app.push_screen(NewsDialog(f"Checkpoints, time and memory of {run.name}", run, kept))

    def _run_or_say(self) -> Watched | None:
        run = self.run_shown
        if run is None:
            self.notify("No PPO run has been started yet.", timeout=3)
        return run

    def command(self) -> str:
        """The same on the command line."""
        return "train ppo"
