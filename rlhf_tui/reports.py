"""Results as plain text: what a stage came to, how a run fares, what the judgements look like."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlhf_tui.app.appraisal import LEVELS
from rlhf_tui.assessment.records import Report
from rlhf_tui.bench_report import bench_text
from rlhf_tui.doctor import Check
from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.peaks import beside_plan
from rlhf_tui.preferences.display import clean
from rlhf_tui.preferences.project_report import ProjectReport
from rlhf_tui.preferences.report_text import project_text, rater_text
from rlhf_tui.runs.ending import ending
from rlhf_tui.runs.folder import RunFolder
from rlhf_tui.runs.turn import waits_for

WIDTH = 80


def report(kind: str, result: Mapping[str, Any]) -> str:
    """What a finished run of `kind` came to, in words."""
    return _REPORTS[kind](result)


# -- the stages -----------------------------------------------------------------------------------


def _demo(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All stages of the loop, one under the other, and the two truths."""
    parts = [f"{kind}\n{_indented(report(kind, result))}" for kind, result in results.items()]
    parts.append(
        "The behaviour you see is shaped by whoever did the rating: here a language model that followed\n"
        "a written guideline. RLHF tunes behaviour, not facts: the answers are no more true than before."
    )
    return "\n\n".join(parts)


def _generate(result: Mapping[str, Any]) -> str:
    return (
        f"{result['completions']} candidates sampled for {result['prompts']} prompts: "
        f"{result['pairs']} new pairs wait for your judgement ('rlhf-tui label')."
        + _near_identical(result.get("near_duplicates", 0))
        + _left_out(result.get("prompts_too_long", 0), "prompts")
    )


def _near_identical(count: int) -> str:
    return f"\nLeft out: {count} candidates too like another one (label.max_similarity)." if count else ""


def _reward(result: Mapping[str, Any]) -> str:
    """The verdict, the numbers, and where the whole report lies. Runs of older versions have only the numbers."""
    lines = [*_verdict(result), f"Learnt from {result['train_pairs']} judged pairs (raters: {_names(result)})."]
    held = result.get("heldout")
    if held is None:
        lines.append("No judged pair of a held-out prompt." if "verdict" in result else _NOT_MEASURED)
    else:
        lines += [
            f"Accuracy on {held['n']} held-out pairs   {held['accuracy']:.1%}   "
            f"95 % interval [{held['low']:.1%}, {held['high']:.1%}]",
            f"  always pick the shorter      {held['shorter']:.1%}",
            f"  always pick the longer       {held['longer']:.1%}",
        ]
    left_out = _left_out(result.get("pairs_too_long", 0), "pairs")
    where = f"\nThe whole report: {result['report']}" if result.get("report") else ""
    return "\n".join([*lines, *_memory(result)]) + left_out + where


_NOT_MEASURED = "No judged pair of a held-out prompt: how good it is cannot be said."


def _verdict(result: Mapping[str, Any]) -> list[str]:
    if not result.get("headline"):
        return []
    mark = LEVELS[result["verdict"]][0] if result.get("verdict") in LEVELS else "·"
    lines = [_hanging(f"{mark} ", result["headline"])]
    lines += [_hanging("  · ", reason) for reason in result.get("because", ())]
    lines += [_hanging("→ ", result["todo"])] if result.get("todo") else []
    return [*lines, ""]


def _hanging(first: str, text: str) -> str:
    kept = clean(text).replace(" %", "\u00a0%")  # a number and its sign stay on one line
    filled = textwrap.fill(
        kept, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
    )
    return filled.replace("\u00a0", " ")


def _names(result: Mapping[str, Any]) -> str:
    return ", ".join(clean(name) for name in result["raters"])


def _ppo(result: Mapping[str, Any]) -> str:
    """What was done, which policy is kept and why, and how it fared. Runs of older versions have only the first."""
    ended = "" if result["ended"] == "finished" else f" It was ended early: {result['ended']}."
    lines = [f"{result['updates']} updates on {result['episodes']} completions.{ended}"]
    if "kept" in result:
        which = "the start" if result["kept"] == 0 else f"update {result['kept']}"
        lines += ["", _hanging("", f"The policy that is kept is that of {which}. {result['why']}"), *_looks(result)]
    if result.get("alerts"):
        lines += ["", "Alerts:"]
        lines += [
            _hanging("  ", f"update {one['update']}, {one['code']}: {one['message']}") for one in result["alerts"]
        ]
    return "\n".join([*lines, *_memory(result)]) + _left_out(result.get("prompts_too_long", 0), "prompts")


def _memory(result: Mapping[str, Any]) -> list[str]:
    """The peak of each phase beside its plan. Runs of older versions have none."""
    found = result.get("memory") or {}
    lines = [
        f"  {clean(phase):<11} {beside_plan(one['peak'], one['planned'], one.get('reserved', 0))}"
        for phase, one in found.items()
    ]
    return ["", "Memory at its peak:", *lines] if lines else []


def _looks(result: Mapping[str, Any]) -> list[str]:
    """The start, the best policy and the end on held-out prompts, one a line."""
    found = {name: result[name] for name in ("start", "best", "end") if result.get(name)}
    if not found:
        return []
    second = any(one["gold"] is not None for one in found.values())
    head = f"  {'':<6}{'update':>8}{'score':>9}" + (f"{'second':>9}" if second else "")
    lines = [f"On {result['heldout_prompts']} held-out prompts:", f"{head}{'KL':>8}{'tokens':>9}{'ended':>8}"]
    for name, one in found.items():
        gold = f"{one['gold']:>+9.2f}" if second else ""
        lines.append(
            f"  {name:<6}{one['update']:>8}{one['score']:>+9.2f}{gold}{one['kl']:>8.1f}{one['length']:>9.0f}"
            f"{one['eos_rate']:>8.0%}"
        )
    unit = "Scores are in deviations of the reward model on the base's completions"
    return [
        *lines,
        _hanging("", f"{unit}; 'second' is a reward model that PPO does not see." if second else f"{unit}."),
    ]


def _compare(result: Mapping[str, Any]) -> str:
    before, after = result["before"], result["after"]
    low, high = result["low"], result["high"]
    verdict = "above 0" if low > 0 else "below 0" if high < 0 else "0 is inside: not shown to differ"
    return "\n".join(
        [
            f"On {result['prompts']} held-out prompts, before → after:",
            f"  mean score      {before['score']:+.2f} → {after['score']:+.2f}   "
            f"difference {result['difference']:+.2f}, 95 % interval [{low:+.2f}, {high:+.2f}] ({verdict})",
            f"  length          {before['length']:.0f} → {after['length']:.0f} tokens",
            f"  ended by itself {before['eos_rate']:.0%} → {after['eos_rate']:.0%}",
            f"  KL to the base  {result['kl']:.1f} nats an answer [{result['kl_low']:.1f}, {result['kl_high']:.1f}]",
            "Scores are in deviations of the reward model; it is the judge here, and it learnt from the raters.",
        ]
    )


def _export(result: Mapping[str, Any]) -> str:
    lines = [f"{result['format'].capitalize()} model: {result['path']}"]
    if "check" in result:
        check = result["check"]
        lines.append(
            f"Checked against the tuned model: KL {check['kl']:.1e} nats a token, "
            f"same first choice at {check['top1']:.1%} of {check['positions']} positions."
        )
    return "\n".join(lines)


def _download(result: Mapping[str, Any]) -> str:
    licence = result.get("licence") or "not known"
    where = f"{result['bytes'] / 1e6:,.0f} MB in {result['path']}"
    return f"{result['model']} is on this machine: {where}.\nLicence: {licence}."


def _chat(result: Mapping[str, Any]) -> str:
    count = result["questions"]
    asked = f"{count} question{'' if count == 1 else 's'} answered"
    return f"{asked}; the chat ended because nobody had looked at it for a while."


_REPORTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "generate": _generate,
    "reward": _reward,
    "ppo": _ppo,
    "compare": _compare,
    "export": _export,
    "bench": bench_text,
    "demo": _demo,
    "download": _download,
    "chat": _chat,
}


def _left_out(count: int, what: str) -> str:
    return f"\nLeft out: {count} {what} longer than model.max_prompt_tokens." if count else ""


# -- runs -----------------------------------------------------------------------------------------


def run_document(run: RunFolder) -> dict[str, Any]:
    """One run as `runs show --json` gives it."""
    record, end, status = run.record, ending(run), run.status()
    broken = end if end is not None and end.status in ("failed", "crashed") else None
    return {
        "run": run.name,
        "kind": run.kind,
        "status": status,
        "cause": end.cause if end is not None else "",
        "last_heard": end.heard if end is not None else None,
        "waits_for": waits_for(run) if status == "queued" else "",
        "path": str(run.path),
        "created": record.created,
        "overrides": list(record.overrides),
        "parents": record.parents,
        "seed": record.seed,
        "versions": record.versions,
        "result": run.result(),
        "error": {"what": broken.what, "why": broken.why, "todo": broken.todo} if broken is not None else None,
    }


def run_summary(run: RunFolder) -> str:
    """How a run fares, what it was made with, and what it came to."""
    record, status, done, end = run.record, run.status(), run.done(), ending(run)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
    lines = [f"{run.name}  {end.label if end is not None else status}  (made {made}, seed {record.seed})"]
    if record.parents:
        lines.append(f"Part of or built on: {', '.join(record.parents.values())}")
    if record.overrides:
        lines.append(f"Settings of its own: {'  '.join(record.overrides)}")
    if done is not None and done.status == "finished":
        lines += ["", report(run.kind, done.result)]
    elif end is not None and status in ("failed", "crashed"):
        lines += ["", *(text for text in (end.what, end.why, end.todo) if text)]
    elif end is not None:
        lines += ["", end.what]
    waits = waits_for(run) if status == "queued" else ""
    lines += ["", _NEXT[status].format(name=run.name, log=run.log_path, other=waits or "another run")]
    return "\n".join(lines)


_NEXT = {
    "new": "It has not been started: 'rlhf-tui runs resume {name}'.",
    "queued": "It begins when {other} has ended; 'rlhf-tui runs stop {name}' takes it out of the queue.",
    "running": "'rlhf-tui runs watch {name}' follows it.",
    "paused": "'rlhf-tui runs resume {name}' lets it go on.",
    "finished": "Its log: {log}",
    "stopped": "'rlhf-tui runs resume {name}' goes on.",
    "failed": "Its log: {log}",
    "crashed": "'rlhf-tui runs resume {name}' takes it up again.",
}


def reward_report(run: RunFolder) -> Report:
    """The report on the reward model that a run trained. Raises UsageError when there is none."""
    from rlhf_tui.assessment.report import load_report

    found = load_report(run.path)
    if found is not None:
        return found
    if run.kind != "reward":
        raise UsageError(f"{run.name} trained no reward model.", todo="'rlhf-tui runs list' shows which runs did.")
    raise UsageError(
        f"{run.name} has no report.",
        why=f"It is {run.status()}; the report is written when a training has finished.",
        todo=f"'rlhf-tui runs show {run.name}' shows how it fares.",
    )


# -- help -----------------------------------------------------------------------------------------

#: What there is to read beside the help of each verb.
TOPICS = {"reward": "when a reward model is good enough: the verdict, its thresholds and their reasons"}


def help_topics() -> str:
    """The topics, one a line."""
    lines = [f"  {name:<8} {about}" for name, about in TOPICS.items()]
    return "\n".join(["'rlhf-tui help TOPIC' explains:", *lines, "'rlhf-tui VERB --help' shows how a verb is used."])


def help_on(topic: str) -> str:
    """The text about a topic. Raises UsageError for one that is none."""
    if topic not in TOPICS:
        todo = nearest(topic, TOPICS) or f"There is: {', '.join(TOPICS)}."
        raise UsageError(f"There is no help on {topic!r}.", todo=todo)
    from rlhf_tui.assessment.report_text import help_text

    return help_text().rstrip("\n")


# -- judgements and the machine -------------------------------------------------------------------


def label_stats(report: ProjectReport, rater: str = "") -> str:
    """What the judgements of a project, or of one of its raters, show; in at most 80 columns."""
    if not rater:
        return project_text(report)
    found = next((one for one in report.raters if one.rater == rater), None)
    return rater_text(found) if found is not None else f"{clean(rater)} has judged nothing yet."


def examination(checks: Iterable[Check]) -> str:
    """What the doctor found, one line each, with advice under it."""
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    return "\n".join(
        f"{marks[check.status]}  {check.name:<16} {check.found}" + (f"\n{'':26}{check.advice}" if check.advice else "")
        for check in checks
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
