"""What the labelling screen says in its lines and panels. Pure: facts in, text out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from textual.content import Content

from rlhf_tui.app import keys, words
from rlhf_tui.app.labelling import described
from rlhf_tui.app.screens.label_draft import Draft
from rlhf_tui.app.widgets.panel import Row, lines, rows, tinted
from rlhf_tui.preferences.agreement import Agreement
from rlhf_tui.preferences.display import clean, hidden
from rlhf_tui.preferences.intervals import Estimate, Rate
from rlhf_tui.preferences.nudges import Nudge
from rlhf_tui.preferences.records import FLAGS, Completion, Fact, HistoryEntry, Message, Prompt
from rlhf_tui.preferences.statistics import LabelReport

#: What one task of a kind is called, and one of its answers.
CALLED = {"pair": "pair", "rank": "ranking", "rate": "rating", "accept": "accept or reject"}


@dataclass(frozen=True)
class Progress:
    """How far the sitting is. `judged` and `waiting` count tasks; `each` is NaN before the first answer."""

    kind: str
    judged: int
    waiting: int
    each: float

    @property
    def total(self) -> int:
        """Judged and waiting."""
        return self.judged + self.waiting


def where(progress: Progress, rater: str) -> Content:
    """The left end of the first line: what is being judged, which of how many, and by whom."""
    number = min(progress.judged + 1, progress.total)
    count = f"{CALLED[progress.kind]} {number} of {progress.total:,}" if progress.total else "nothing to judge"
    return Content.assemble(tinted("Label", "accent"), "  ", tinted(count, "strong"), tinted(f"  {rater}", "quiet"))


def pace(progress: Progress) -> str:
    """The right end of the first line: share done, seconds for each, time left."""
    if not progress.total:
        return ""
    share = words.percent(progress.judged / progress.total)
    if math.isnan(progress.each):
        return share
    left = words.duration(progress.each * progress.waiting)
    return f"{share} · {words.duration(progress.each)} each · {left} left"


def first_line(body: str) -> str:
    """What a guideline is called: its first line that says something."""
    return next((line.strip(" #*") for line in clean(body).splitlines() if line.strip(" #*")), "guideline")


def asked(prompt: Prompt) -> tuple[str, list[tuple[int, int]], int]:
    """The conversation as one text, the spans of it that are said quietly, and where the last turn begins.

    Earlier turns carry the name of who speaks; the last turn is what the candidates answer.
    """
    *earlier, last = prompt.messages or (Message("user", ""),)
    text, quiet = "", []
    for turn in earlier:
        said = f"{turn.role}: {clean(turn.content).strip()}\n"
        quiet.append((len(text), len(text) + len(said)))
        text += said
    return text + clean(last.content), quiet, len(text)


def facts(completion: Completion) -> str:
    """What may be known of a candidate without unblinding it: its length, and whether it ended."""
    size = f"{completion.n_tokens} tok" if completion.n_tokens else words.plural(len(completion.text), "character")
    return f"{size} · cut off" if completion.finish_reason == "length" else size


def facts_and_hidden(completion: Completion) -> str:
    """The same with how many characters cannot be seen; counting them takes a moment for a long text."""
    unseen = hidden(completion.text)
    return f"{facts(completion)} · {unseen:,} hidden" if unseen else facts(completion)


# The panel of the answer


def answers(kind: str, draft: Draft, keymap: keys.Keymap, width: int) -> Content:
    """The keys that answer, with the order typed so far where one is being typed; in short words if need be."""
    screen = keys.screen_of(kind)
    if kind == "rank":
        now = draft.typed
        missing = f"missing {' '.join(map(str, now.missing))}" if now.missing else "⏎ stores it"
        typing = Content.assemble(tinted(now.text, "strong"), "   ", tinted(missing, "quiet"))
        if not draft.order:
            typing = tinted(f"type the best first, such as {''.join(map(str, range(draft.size, 0, -1)))}", "quiet")
        return Content("   ").join([typing, *_offered(screen, keymap, ("label.equal", "label.all-bad"))])
    if kind == "rate":
        said = "1 worst to 5 best, for the lit answer" if None in draft.marks else "⏎ stores the marks"
        return tinted(said, "quiet")
    if kind == "accept":
        done = [] if None in draft.marks else [tinted("⏎ stores it", "quiet")]
        return Content("   ").join([*_offered(screen, keymap, ("label.accept", "label.reject")), *done])
    said_of_pairs = {"label.left": "A better", "label.right": "B better", "label.tie": "tie", "label.bad": "both bad"}
    whole = Content("   ").join(_offered(screen, keymap, _PAIR, said_of_pairs))
    if whole.cell_length <= width:
        return whole
    return Content("  ").join(_offered(screen, keymap, _PAIR, _BRIEFLY))


_PAIR = ("label.left2", "label.left", "label.tie", "label.right", "label.right2", "label.bad")
_BRIEFLY = {"label.left": "A", "label.right": "B", "label.tie": "tie", "label.bad": "bad"}


def _offered(
    screen: str, keymap: keys.Keymap, wanted: Sequence[str], said: dict[str, str] | None = None
) -> list[Content]:
    actions = {action.id: action for action in keys.actions(screen, keymap)}
    return [
        Content.assemble(tinted(actions[name].shown, "accent"), f" {(said or {}).get(name, actions[name].label)}")
        for name in wanted
    ]


def remarks(last: str, note: str, flags: Sequence[str], unsaved: str) -> Content:
    """What was said last, and what will be stored with the answer. An answer that is not stored comes first."""
    if unsaved:
        return tinted(f"⚠ not stored: {unsaved}. Answer again.", "warn")
    parts = [f"last: {last}" if last else "", f"flag: {', '.join(FLAGS[flag] for flag in flags)}" if flags else ""]
    parts.append(f"note: {words.one_line(clean(note), 40)}" if note else "")
    return tinted("   ".join(part for part in parts if part), "quiet")


def yourself(report: LabelReport | None) -> Content:
    """How often the rater agrees with themselves, in a few words; nothing before the first repeat."""
    agreed = report.consistency.self_consistency if report else None
    if agreed is None or agreed.share is None:
        return Content("")
    said = f"you vs you {words.percent(agreed.share)} ({agreed.successes:g}/{agreed.n})"
    return tinted(said, "" if agreed.enough else "quiet")


def ends(left: Content, right: Content, width: int) -> Content:
    """Both on one line of a width; the left is cut first."""
    left = left.truncate(max(width - right.cell_length - 2, 0), ellipsis=True) if right else left
    room = max(width - left.cell_length - right.cell_length, 0)
    return Content.assemble(left, " " * room, right)


# The panels at the side, and the windows


def progress_panel(progress: Progress, skipped: int, today: int, width: int) -> Content:
    """Done, left, skipped; today."""
    return lines(
        tinted(words.bar(progress.judged, progress.total, width), "accent"),
        f"{progress.judged:,} done   {progress.waiting:,} left   {skipped:,} skipped",
        tinted(f"{today:,} today   {words.duration(progress.each)} each", "quiet"),
    )


def statistics(report: LabelReport) -> list[Row]:
    """The habits of a rater with their intervals: what the panel at the side shows."""
    seconds = "-" if report.median_seconds is None else words.duration(report.median_seconds)
    return [
        Row("judged", f"{report.n:,}", f"{seconds} each"),
        _rate("first chosen", report.first_side),
        _rate("longer chosen", report.longer_wins),
        _rate("ties", report.tie_share),
        _rate("both bad", report.both_bad_share),
        _rate("under 2 s", report.too_fast),
        _rate("you vs you", report.consistency.self_consistency),
        _estimate("ceiling", report.consistency.ceiling),
    ]


def statistics_window(report: LabelReport, nudged: Sequence[Nudge], agreed: Sequence[Agreement]) -> Content:
    """The same and more, with what it means, and how far several people agree."""
    more = [
        _rate("gold right", report.gold),
        Row("skipped", f"{report.skipped:,}", f"{report.discarded:,} discarded"),
        Row("repeats", f"{report.consistency.repeats:,}", "own answers, asked again"),
        Row("an hour", f"{report.per_hour:.0f}" if report.per_hour else "-", f"{report.sitting} in this sitting"),
    ]
    parts = [
        rows([*statistics(report), *more]),
        tinted(_MEANING, "quiet"),
        *(tinted(f"⚠ {nudge.text}", "warn") for nudge in nudged),
        *(agreement(one) for one in agreed),
    ]
    return Content("\n\n").join(parts)


_MEANING = (
    "First chosen: near 50 % without a habit, because the order is drawn by chance. Longer chosen: careful people are "
    "at 64 to 70 %. Ceiling: how often one answer is what you mean; no reward model can agree with single answers "
    "of yours more often. With 95 % intervals; grey until n is 30."
)
_AGREED = {
    "exact": "same answer",
    "relaxed": "tie counts half",
    "decisive": "both see a better",
    "alpha": "Krippendorff alpha",
    "ac1": "Gwet AC1",
    "ac2": "Gwet AC2",
}


def agreement(one: Agreement) -> Content:
    """How far several people agree about one kind of thing: percent three ways, alpha, AC."""
    found = [
        _estimate(said, one.estimates[name], name.startswith("a"))
        for name, said in _AGREED.items()
        if name in one.estimates
    ]
    head = f"{', '.join(clean(rater) for rater in one.raters)}: {words.plural(one.units, 'item')} judged by two or more"
    return lines(head, rows(found))


def last_answers(given: Sequence[Fact], height: int) -> Content:
    """The newest answers, newest first, with their number and time."""
    if not given:
        return tinted("None yet.", "quiet")
    newest = range(len(given), max(len(given) - height, 0), -1)
    return lines(*(_answer(number, given[number - 1]) for number in newest))


def _answer(number: int, fact: Fact) -> Content:
    seconds = "" if fact.latency_ms is None else words.duration(fact.latency_ms / 1000)
    said = words.one_line(described(fact.verdict, fact.kind), 16)
    return Content.assemble(tinted(f"{number:>4}  ", "quiet"), f"{said:<16} ", tinted(f"{seconds:>5}", "quiet"))


def history_line(entry: HistoryEntry, gold: bool, width: int) -> Content:
    """One judgement in the history list: gold, verdict, remarks, prompt."""
    star = tinted("* " if gold else "  ", "warn")
    what = "better version" if entry.selection == "edit" else described(entry.verdict, entry.kind)
    said = f"{words.one_line(what, 16):<17}"
    marks = f"{'note ' if entry.note else ''}{'flag ' if entry.flags else ''}"
    when = clock_time(entry.at)
    room = max(width - len(said) - len(when) - len(marks) - 5, 0)
    prompt = words.one_line(clean(entry.prompt[:400]), room)
    return Content.assemble(star, said, tinted(f"{when}  {marks}", "quiet"), tinted(prompt, "quiet"))


def clock_time(at: str, *, now: datetime | None = None) -> str:
    """A stored moment on the clock of this machine: '18:22' today, else '2026-11-02 18:22'."""
    local = datetime.fromisoformat(at).astimezone()
    today = (now or datetime.now().astimezone()).date()
    return local.strftime("%H:%M" if local.date() == today else "%Y-%m-%d %H:%M")


# Nothing to judge


def nothing_left(
    progress: Progress,
    rater: str,
    going_on: str,
    trouble: str,
    key: Callable[[str], str],
    begin: str = "⏎ generates candidates",
) -> Content:
    """Why there is nothing on screen, and what to do.

    `going_on`: the run that may make more, in words; `trouble`: what failed when the next was looked for;
    `key`: the key of an action of the labelling screen.
    """
    if trouble:
        return lines(tinted(trouble, "warn"), "It is tried again every second.")
    what = {"pair": "pair", "rank": "set to rank", "rate": "set to rate", "accept": "set to decide on"}[progress.kind]
    back, other = key("label.back"), f"{key('label.mode')} judges in another way."
    waits: list[Content | str] = []
    if going_on:
        waits = [tinted(going_on, "accent"), "What it makes appears here by itself."]
    if progress.judged:
        done = f"✓ No {what} is left: {words.plural(progress.judged, 'judgement')} by {rater}."
        train = f"{back} and then 3 trains the reward model."
        return lines(
            tinted(done, "good"), *(waits or [train]), other, f"{key('label.undo')} goes back to the last answer."
        )
    none = "pair to judge" if progress.kind == "pair" else what
    return lines(f"There is no {none} yet.", *(waits or [f"{back} and then {begin}."]), other)


def _rate(label: str, found: Rate) -> Row:
    if found.share is None:
        return Row(label, "-")
    interval = f"{found.low * 100:.0f} to {found.high * 100:.0f} %"
    return Row(label, words.percent(found.share), interval, "" if found.enough else "quiet")


def _estimate(label: str, found: Estimate, coefficient: bool = False) -> Row:
    """A share as percent; a coefficient, which may be negative, as it is."""
    if found.value is None or found.low is None or found.high is None:
        return Row(label, "-")
    write = words.number if coefficient else words.percent
    low = write(found.low).removesuffix(" %")
    return Row(label, write(found.value), f"{low} to {write(found.high)}", "" if found.enough else "quiet")
