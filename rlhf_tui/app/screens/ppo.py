"""Stage 4, PPO: before a run its plan, during and after it the charts, numbers, samples and alerts."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from rlhf_tui.app import keys, words
from rlhf_tui.app.appraisal import LEVELS as LEVELS_OF_REWARD
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.screens.ppo_heldout import HeldOutDialog
from rlhf_tui.app.screens.reward import heldout_result
from rlhf_tui.app.screens.stage import STATES, StageScreen, progress_body, state_line
from rlhf_tui.app.widgets.chart import Chart
from rlhf_tui.app.widgets.panel import Panel, Row, lines, rows, tinted
from rlhf_tui.preferences.display import clean
from rlhf_tui.settings import Settings

LEVELS = {"note": ("·", "quiet"), "warning": ("⚠", "warn"), "stop": ("✗", "bad")}

#: What the numbers panel of the large layout lists: metric and its words.
NUMBERS = (
    ("heldout_score", "held-out score"),
    ("gold_score", "second model"),
    ("heldout_kl", "held-out KL"),
    ("clip_fraction", "clip fraction"),
    ("approx_kl", "KL within update"),
    ("ratio_max", "ratio max"),
    ("kl_coefficient", "KL coefficient"),
    ("objective", "objective"),
    ("eos_rate", "EOS rate"),
    ("repetition", "repetition"),
    ("policy_grad_norm", "gradient, policy"),
    ("value_grad_norm", "gradient, value"),
    ("policy_lr", "learning rate"),
    ("tokens_per_second", "tokens a second"),
    ("seconds_sampling", "s sampling"),
    ("seconds_scoring", "s scoring"),
    ("seconds_update", "s updating"),
)


class PpoScreen(StageScreen):
    """The live view of a PPO run."""

    STAGE = "ppo"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("ppo")

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
            with Container(classes="charts two four-when-large"):
                yield Chart("score", "score")
                yield Chart("kl", "KL to the reference")
                yield Chart("length", "length")
                yield Chart("entropy", "entropy")
                yield Chart("policy_loss", "policy loss", classes="only-large")
                yield Chart("value_loss", "value loss", classes="only-large")
                yield Chart("explained_variance", "explained variance", rule=0.0, classes="only-large")
                yield Chart("clip_fraction", "clip fraction", classes="only-large")
            yield Panel("Run", id="progress", classes="only-large")
            yield Panel("Update", id="numbers", classes="not-large")
            with Container(classes="side-by-side below"):
                yield Panel("Numbers (last, mean of 20)", id="table", classes="only-large")
                yield Panel("Sample", id="sample")
                yield Panel("Alerts and checkpoints", id="news", classes="only-large")

    def show(self, view: Overview) -> None:
        """Fill whichever layout is up."""
        run = self.run_shown
        self.query_one("#plan").display = run is None
        self.query_one("#live").display = run is not None
        if run is None:
            self._show_plan(view)
        else:
            self._show_run(run, view)

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

    def _show_run(self, run: Watched, view: Overview) -> None:
        state = run.state
        for chart in self.query(Chart):
            chart.show(state.line(chart.metric), note=chart_note(chart.metric, run))
        numbers, progress = self.query_one("#numbers", Panel), self.query_one("#progress", Panel)
        glyph, word, _ = STATES[run.status]
        title = f"{glyph} {word}, update {state.step}" if state.step else f"{glyph} {word}"
        numbers.show(
            lambda width, _: lines(
                number_line(run), kept_line(run) or alert_line(run, width) or state_line(run, time.time())
            ),
            title=title,
        )
        progress.show(progress_body(run))
        self.query_one("#table", Panel).show(rows(number_rows(run)))
        sample = self.query_one("#sample", Panel)
        self._back = min(self._back, max(len(state.samples) - 1, 0))
        sample.show(
            lambda width, height: sample_text(run, self._back, width, height), title=sample_title(run, self._back)
        )
        self.query_one("#news", Panel).show(news(run))

    def action_browse(self, by: int) -> None:
        """Show an older (-1) or a newer (+1) sample."""
        self._back = max(self._back - by, 0)
        self.renew()

    def action_held_out(self) -> None:
        """How it fares on held-out prompts."""
        if self.run_shown is not None:
            self.rlhf.push_screen(HeldOutDialog(self.run_shown.state))

    def action_why(self) -> None:
        """The newest alert in full."""
        run = self.run_shown
        if run is None or not run.state.alerts:
            self.notify("No alerts.", timeout=2)
            return
        alert = run.state.alerts[-1].news
        self.rlhf.show_text(alert.message, [part for part in (alert.why, alert.remedy) if part])

    def command(self) -> str:
        """The same on the command line."""
        return "train ppo"


def plan_rows(settings: Settings) -> list[Row]:
    """What a run would do."""
    ppo = settings.ppo
    looks = f"{ppo.evaluate_prompts} prompts, every {ppo.evaluate_every}" if ppo.evaluate_every else "never"
    return [
        Row("updates", f"{ppo.updates}, saved every {ppo.save_every}"),
        Row("rollout", f"{ppo.rollout_size} completions"),
        Row("learning", f"{ppo.epochs} x {ppo.minibatches} steps a rollout"),
        Row("longest", f"{ppo.max_new_tokens} tokens, temp. {ppo.temperature:g}"),
        Row("learning rate", f"{ppo.policy_learning_rate:g}, value {ppo.value_learning_rate:g}"),
        Row("held-out", looks),
    ]


#: What is done about a serious alert (guard.action).
ACTIONS = {"stop": "stops, keeps the best", "rollback": "back to the best", "warn": "only warns"}


def leash_rows(settings: Settings) -> list[Row]:
    """What keeps the policy near its reference, and what is kept of it."""
    ppo, guard = settings.ppo, settings.guard
    steering = f"for {ppo.kl_target:g} nats" if ppo.kl_target else "fixed"
    best = ppo.keep == "best" and ppo.evaluate_every > 0
    return [
        Row("KL coefficient", f"{ppo.kl_coefficient:g}, {steering}"),
        Row("clip", f"±{ppo.clip:g}, value ±{ppo.value_clip:g}"),
        Row("skips above", f"{1.5 * ppo.target_kl:g} KL in an update" if ppo.target_kl else "never"),
        Row("score", f"±{ppo.score_clip:g}, no EOS: -{ppo.missing_eos_penalty:g}"),
        Row(f"past {guard.max_kl:g} nats", ACTIONS[guard.action]),
        Row("keeps", f"best within {guard.kl_budget:g} nats" if best else "the last policy"),
    ]


def readiness(view: Overview) -> Content:
    """What PPO builds on, with a mark for each."""
    missing = view.missing("ppo")
    labels = words.plural(view.counts.judgements, "judgement")
    kept = words.plural(view.counts.heldout, "held-out prompt")
    enough = view.counts.judgements >= 100
    return lines(
        tinted("⚠ no reward model yet", "warn") if missing else reward_model(view.run("reward")),
        tinted(f"✓ {labels}", "good") if enough else tinted(f"⚠ {labels}: few; 100 and more is usual", "warn"),
        tinted(f"✓ {kept}, kept for comparing", "good")
        if view.counts.heldout
        else tinted("⚠ no held-out prompts to compare on", "warn"),
    )


def reward_model(run: Watched | None) -> Content:
    """What the newest training said of its reward model: the verdict, or what an older version measured."""
    said = run.state.done.result if run and run.state.done else {}
    if said.get("verdict") in LEVELS_OF_REWARD and isinstance(said.get("headline"), str):
        mark, tone = LEVELS_OF_REWARD[said["verdict"]]
        return tinted(f"{mark} reward model: {clean(said['headline'])}", tone)
    result = heldout_result(run)
    there = "✓ a reward model is there"
    if "accuracy" in result:
        there += f": it agrees with {words.percent(result['accuracy'])} of the held-out judgements"
    return tinted(there, "good")


def chart_note(metric: str, run: Watched) -> str:
    """What stands in the lower border of a chart."""
    latest = run.state.latest
    if metric == "kl" and "kl_coefficient" in latest:
        return f"coefficient {words.number(latest['kl_coefficient'])}"
    if metric == "length" and "eos_rate" in latest:
        return f"ended {words.percent(latest['eos_rate'])}"
    if metric == "score" and run.state.step:
        return f"update {run.state.step}"
    return ""


def number_line(run: Watched) -> Content:
    """The numbers that tell whether learning is sane, in one line."""
    short = (
        ("clip_fraction", "clip"),
        ("explained_variance", "expl.var"),
        ("heldout_score", "held-out"),
        ("value_loss", "value"),
        ("eos_rate", "eos"),
        ("tokens_per_second", "tok/s"),
    )
    latest = run.state.latest
    parts = [
        Content.assemble(tinted(f"{label} ", "quiet"), words.number(latest[name]))
        for name, label in short
        if name in latest
    ]
    return Content("  ").join(parts) if parts else tinted("The first numbers come after the first update.", "quiet")


def number_rows(run: Watched) -> list[Row]:
    """Last value and recent mean of the numbers."""
    state = run.state
    return [
        Row(label, words.number(state.latest[name]), words.number(state.line(name).recent_mean()))
        for name, label in NUMBERS
        if name in state.latest
    ]


def alert_line(run: Watched, width: int) -> Content | None:
    """The newest alert that matters, or None."""
    for timed in reversed(run.state.alerts):
        if timed.news.level != "note":
            glyph, tone = LEVELS[timed.news.level]
            text = words.one_line(timed.news.message, max(width - 16, 10))
            return Content.assemble(tinted(f"{glyph} {_clock(timed.at)} {text}", tone), tinted("   w why", "quiet"))
    return None


def kept_line(run: Watched) -> Content | None:
    """Which policy a finished run has kept; None before its end, and for runs of older versions."""
    result = run.state.done.result if run.state.done else {}
    kept = result.get("kept")
    if not isinstance(kept, int):
        return None
    if kept == 0:
        return tinted("✗ Nothing beat the start: the policy that was kept is the base.", "warn")
    which = "the last" if kept == result.get("updates") else "the best"
    return tinted(f"✓ Kept: update {kept}, {which}.", "good")


def sample_title(run: Watched, back: int) -> str:
    """Which sample is shown."""
    samples = run.state.samples
    if not samples:
        return "Sample"
    shown = samples[-1 - back]
    which = "Held-out sample" if shown.source == "heldout" else "Sample"
    return f"{which}, update {shown.step}" + (f"  ({back} back)" if back else "")


def sample_text(run: Watched, back: int, width: int, height: int) -> Content:
    """One sample: the prompt with its numbers, then as much of the completion as fits."""
    samples = run.state.samples
    if not samples:
        return tinted("No samples yet.", "quiet")
    sample = samples[-1 - back]
    numbers = "  ".join(f"{name} {words.number(value)}" for name, value in sample.values.items())
    prompt = words.one_line(clean(sample.prompt), max(width - len(numbers) - 5, 10))
    head = Content.assemble(tinted("P ", "accent"), prompt, tinted("   " + numbers, "quiet"))
    if height < 3:
        return lines(head, Content.assemble(tinted("→ ", "quiet"), words.one_line(clean(sample.completion), width - 2)))
    return lines(head, "", *words.wrapped(clean(sample.completion), width)[: height - 2])


def news(run: Watched) -> Content:
    """Alerts and checkpoints, newest first."""
    state = run.state
    found: list[tuple[float, Content]] = []
    for alert in state.alerts:
        glyph, tone = LEVELS[alert.news.level]
        found.append((alert.at, tinted(f"{_clock(alert.at)} {glyph} {alert.news.message}", tone)))
    for saved in state.checkpoints:
        best = "  best" if saved.news.best else ""
        found.append((saved.at, Content(f"{_clock(saved.at)} ✓ saved update {saved.news.step}{best}")))
    if not found:
        return tinted("Nothing to report.", "quiet")
    return lines(*(line for _, line in sorted(found, key=lambda item: -item[0])))


def _clock(at: float) -> str:
    return time.strftime("%H:%M", time.localtime(at))
