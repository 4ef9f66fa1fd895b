"""What stands on the PPO screen while there is a run: notes and levels of its charts, numbers, news, one sample."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.overview import Watched
from rlhf_tui.app.plot import Level
from rlhf_tui.app.state import RunState
from rlhf_tui.app.widgets.chartgrid import Usual
from rlhf_tui.app.widgets.panel import Row, lines, tinted
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.display import clean

#: The charts of a run, the most telling first.
USUAL = Usual(
    (
        "score",
        "heldout_score",
        "kl",
        "length",
        "entropy",
        "gold_score",
        "policy_loss",
        "value_loss",
        "explained_variance",
        "clip_fraction",
    ),
    if_measured=frozenset({"heldout_score", "gold_score"}),
)
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
    ("update_tokens_per_second", "… in updates"),
    ("seconds_sampling", "s sampling"),
    ("seconds_scoring", "s scoring"),
    ("seconds_update", "s updating"),
)


Section = Mapping[str, Any]


def run_settings(run: Watched) -> Mapping[str, Section]:
    """What the run was made with, section by section; nothing when its record cannot be read."""
    try:
        return run.folder.record.settings
    except UserError:
        return {}


def levels(name: str, settings: Mapping[str, Section], state: RunState) -> tuple[Level, ...]:
    """The limits of a number: the KL budget, and where the guard would speak up."""
    guard, ppo = settings.get("guard", {}), settings.get("ppo", {})
    first = state.line(name).first  # NaN until there is a value: such a level is in no picture
    warns = "limit" if guard.get("act_on") == "warnings" else "warns"
    found: list[tuple[str, float | None, float]] = []  # word, setting, times
    match name:
        case "kl":
            found = [("target", ppo.get("kl_target") or None, 1.0), ("budget", guard.get("kl_budget"), 1.0)]
            found += [("limit", guard.get("max_kl"), 1.0)]
        case "heldout_kl":
            found = [("budget", guard.get("kl_budget"), 1.0)]
        case "heldout_root_kl":
            found = [("budget", guard.get("kl_budget", 0.0) ** 0.5 or None, 1.0)]
        case "entropy":
            found = [(warns, guard.get("min_entropy") or None, 1.0)]
        case "repetition" | "heldout_repetition":
            found = [("limit", guard.get("max_repetition"), 1.0)]
        case "saturation":
            found = [(warns, guard.get("max_saturation"), 1.0)]
        case "eos_rate":
            found = [(warns, guard.get("min_eos_rate") or None, first)]
        case "length" if guard.get("length_drift", 1.0) > 1:
            found = [(warns, guard["length_drift"], first), (warns, 1 / guard["length_drift"], first)]
        case "approx_kl":
            found = [("skips", ppo.get("target_kl") or None, 1.5)]
        case "explained_variance" | "heldout_score":
            return (Level(0.0, always=name == "explained_variance"),)
    return tuple(
        Level(share * times, f"{word} {words.number(share * times)}", told=word != "warns")
        for word, share, times in found
        if share
    )


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


def number_line(run: Watched, width: int) -> Content:
    """The numbers that tell whether learning is sane, as many as fit into one line."""
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
    if not parts:
        return tinted("The first numbers come after the first update.", "quiet")
    while len(parts) > 1 and sum(part.cell_length + 2 for part in parts) - 2 > width:
        parts.pop()
    return Content("  ").join(parts)


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
            text = words.one_line(timed.news.message, max(width - 18, 10))
            return Content.assemble(tinted(f"{glyph} {_clock(timed.at)} {text}", tone), tinted("   w more", "quiet"))
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
    return tinted(f"✓ Kept: update {kept}, {which}. 5: what changed on held-out prompts.", "good")


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
