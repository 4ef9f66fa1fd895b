"""A stage in a few lines of text, for a terminal too small for panels and charts. Pure text, no widgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.overview import Overview, Watched
from rlhf_tui.app.widgets.panel import tinted
from rlhf_tui.preferences.display import clean

#: The smallest terminal that panels are drawn in.
COLUMNS, ROWS = 60, 16


def too_small(columns: int, rows: int) -> bool:
    """Whether a terminal has no room for panels."""
    return columns < COLUMNS or rows < ROWS


def summary(view: Overview, stage: str, how_it_goes: Callable[[Watched], Content]) -> Content:
    """How the stage's run goes, the numbers that matter, and what to do next: the most important first."""
    run = view.run(stage)
    told: list[Content] = [how_it_goes(run)] if run else []
    told += [Content(clean(line)) for line in _NUMBERS[stage](view, run)]
    missing = view.missing(stage)
    alive = run is not None and run.alive
    told.append(Content(f"{missing.what} {missing.todo}") if missing and not alive else Content(view.next_step()))
    told.append(tinted(f"Panels and charts take {COLUMNS} columns and {ROWS} lines.", "quiet"))
    return Content("\n").join(told)


def _model(view: Overview, run: Watched | None) -> Iterator[str]:
    if view.settings:
        yield f"Base model: {view.settings.model.name}"


def _pairs(view: Overview, run: Watched | None) -> Iterator[str]:
    counts = view.counts
    yield f"{words.plural(counts.prompts, 'prompt')}, {words.plural(counts.judgements, 'judgement')}"
    yield f"{words.plural(counts.pairs_waiting, 'pair')} to judge"


def _reward(view: Overview, run: Watched | None) -> Iterator[str]:
    heldout = _result(run, "heldout")
    if "accuracy" in heldout:
        yield (
            f"accuracy {words.percent(heldout['accuracy'])} of {heldout.get('n', '?')} held-out pairs "
            f"({heldout.get('low', math.nan) * 100:.0f} to {words.percent(heldout.get('high', math.nan))})"
        )
    elif run:
        yield _latest(run, {"heldout_accuracy": "accuracy", "loss": "loss"})


def _ppo(view: Overview, run: Watched | None) -> Iterator[str]:
    if run:
        yield _latest(run, {"score": "score", "kl": "KL", "length": "length"})
        if run.state.alerts:
            yield f"⚠ {run.state.alerts[-1].news.message}"


def _compare(view: Overview, run: Watched | None) -> Iterator[str]:
    before, after, whole = _result(run, "before"), _result(run, "after"), _result(run)
    if "score" in before and "score" in after:
        yield f"score {words.number(before['score'])} → {words.number(after['score'])}"
        yield f"KL {words.number(whole.get('kl', math.nan))}"


def _export(view: Overview, run: Watched | None) -> Iterator[str]:
    if path := _result(run).get("path"):
        yield f"written to {path}"


_NUMBERS: Mapping[str, Callable[[Overview, Watched | None], Iterator[str]]] = {
    "model": _model,
    "pairs": _pairs,
    "reward": _reward,
    "ppo": _ppo,
    "compare": _compare,
    "export": _export,
}


def _result(run: Watched | None, part: str = "") -> Mapping[str, Any]:
    """What a finished run found, or a part of it; nothing before it has."""
    result = run.state.done.result if run and run.state.done else {}
    found = result.get(part) if part else result
    return found if isinstance(found, Mapping) else {}


def _latest(run: Watched, names: Mapping[str, str]) -> str:
    """The newest values of some metrics, as far as there are any."""
    known = run.state.latest
    return "  ".join(f"{said} {words.number(known[name])}" for name, said in names.items() if name in known)
