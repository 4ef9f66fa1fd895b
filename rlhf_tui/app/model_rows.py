"""What the Model screen says: a line for each model, the memory stage by stage, the checks, the next key.

Free of widgets; text of models and folders is cleaned before it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from rlhf_tui import hub, locate
from rlhf_tui.app import words
from rlhf_tui.app.machine import MARKS
from rlhf_tui.app.model_plan import Outcome, Unknown
from rlhf_tui.app.shelf import short
from rlhf_tui.app.widgets.panel import Row, lines, list_line, rows, tinted
from rlhf_tui.doctor import Check
from rlhf_tui.errors import UserError
from rlhf_tui.fit import Parts
from rlhf_tui.models import FoundModel
from rlhf_tui.preferences.display import clean
from rlhf_tui.room import Fitting, remedy

#: The last line of the list.
OTHER = "a folder or hub id…"
_COLUMNS = 2 + 7 + 10 + 14 + 20  # of a line without the name: all of them,
_FEW_COLUMNS = 2 + 10 + 20  # and without parameters and licence
_STATE_TONES = {"cached": "good", "folder": "good", "to download": "quiet", "partly here": "warn", "gone": "bad"}


# -- the list -------------------------------------------------------------------------------------


def model_line(found: FoundModel, width: int, *, lit: bool, current: bool) -> Content:
    """A model in the list: name, parameters, bytes, licence, where it is, and whether it is the project's."""
    roomy = width >= 68
    name_width = max(width - (_COLUMNS if roomy else _FEW_COLUMNS), 12)
    size = words.size(found.size) if found.size is not None else "size ?"
    parts: list[Content | str] = [
        tinted(words.one_line(clean(found.title), name_width).ljust(name_width), "strong" if current else ""),
        parameters(found.parameters).rjust(7) if roomy else "",
        size.rjust(8) + "  ",
        tinted(words.one_line(_licence(found), 12).ljust(14), "quiet") if roomy else "",
        tinted(found.state, _STATE_TONES[found.state]),
        tinted(" · in use" if current else "", "accent"),
    ]
    return list_line(parts, width, lit=lit)


def other_line(width: int, *, lit: bool) -> Content:
    """The line that asks for a name."""
    return list_line([OTHER], width, lit=lit)


def parameters(count: int | None) -> str:
    """'135M', '1.5B'; a question mark while it is not known."""
    if count is None:
        return "?"
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def _licence(found: FoundModel) -> str:
    return clean(found.licence) or "not known"


def licence(found: FoundModel) -> str:
    """The licence in words."""
    return clean(found.licence) or "licence not known"


def told(name: str) -> tuple[bool, str]:
    """Whether there is no model of this name, and what to say of it: above all, what will be fetched."""
    if not name:
        return True, "✗ A model is needed."
    try:
        found = locate.locate(name)
    except UserError as error:
        return True, f"✗ {error.what} {error.why}"
    if found.kind == "starter":
        here = (locate.starter_folder() / "config.json").is_file()
        return False, "✓ SmolLM2-135M: already here" if here else "✓ SmolLM2-135M: the first run fetches 93 MB, once"
    if found.kind == "folder":
        return False, "✓ a model folder; nothing is fetched"
    if hub.is_cached(name):
        return False, "✓ in the hub's cache on this machine"
    return False, "✓ fetched from the hub when a run first needs it, or when you ask for it"


# -- the memory -----------------------------------------------------------------------------------


def plan_body(outcome: Outcome, width: int, height: int) -> Content:
    """Stage by stage, where the memory goes and whether there is enough; then what would help."""
    if outcome is None:
        return tinted("● counting…", "accent")
    if isinstance(outcome, UserError):
        return lines(tinted(f"✗ {clean(outcome.what)}", "bad"), clean(f"{outcome.why} {outcome.todo}".strip()))
    if isinstance(outcome, Unknown):
        return lines(
            tinted(f"How large {clean(outcome.name)} is, its config.json says, which is still on the hub.", "warn"),
            "a asks the hub for it: some kilobytes, no weights. Then the plan is here, before you download.",
        )
    table = plan_table(outcome, width)
    return lines(*table, *plan_advice(outcome, width, max(height - len(table), 1)))


def plan_table(found: Fitting, width: int) -> list[Content]:
    """A head and a line for each stage; in little room only weights and peak."""
    roomy, bars = width >= 72, max(min(width - 92, 40), 0)
    heads = ["stage", "weights", *(["adapters+opt", "activations", "KV+rollout", "rest"] if roomy else []), "peak"]
    table = [tinted(_columns(heads, roomy) + f"  of {words.size(found.room.size)}", "quiet")]
    for stage, judged in zip(found.plan.stages, found.verdicts, strict=True):
        columns = _memory(stage.parts)[: None if roomy else 1]
        cells = [stage.stage, *(words.size(part) if part else "-" for part in columns), words.size(stage.peak)]
        left = words.size(abs(judged.spare))
        verdict = f"✓ fits, {left} left" if judged.fits else f"✗ {left} short"
        if width < 50 or (roomy and width < 86):
            verdict = "✓ fits" if judged.fits else f"✗ -{left}"
        bar = words.bar(stage.peak, found.room.size, bars) + " " if bars else ""
        tone = "good" if judged.fits else "bad"
        table.append(Content.assemble(_columns(cells, roomy), "  ", tinted(bar, tone), tinted(verdict, tone)))
    return table


def plan_advice(found: Fitting, width: int, height: int) -> list[Content]:
    """What is short, and the key that lowers the settings; in so many lines."""
    if found.fits:
        return [tinted("Every stage fits.", "good")]
    short = [judged for judged in found.verdicts if not judged.fits]
    names = ", ".join(judged.stage for judged in short)
    lower = remedy(found)
    helps = f"f sets {' '.join(lower)}" if len(lower) < 3 else f"f lowers {len(lower)} settings…"
    said = f"✗ {names}: {helps if lower else 'no setting helps; choose a smaller model'}"
    head = tinted(words.one_line(said, width), "bad")
    if height < 2:
        return [head]
    advice = [line for judged in short for line in words.wrapped(judged.advice, width)]
    return [head, *(tinted(line, "quiet") for line in advice)][:height]


def remedy_question(found: Fitting, now: Sequence[tuple[str, object, object]], *, then: bool) -> str:
    """The settings that would be lowered, old and new, and whether every stage fits afterwards."""
    listed = [f"{key:<28} {old} → {new}" for key, old, new in now]
    end = "Then every stage fits." if then else "Not every stage fits even then: choose a smaller model, too."
    return "\n".join([f"Lower {words.plural(len(listed), 'setting')}?", "", *listed, "", end])


def _memory(parts: Parts) -> list[int]:
    return [
        parts.weights + parts.unpacked + parts.blocks + parts.copy,
        parts.adapters,
        parts.activations + parts.logits,
        parts.cache + parts.rollout,
        parts.overhead,
    ]


def _columns(cells: Sequence[str], roomy: bool) -> str:
    widths = (9, 8, 13, 12, 11, 6, 7) if roomy else (9, 9, 8)
    first, *rest = cells
    return first.ljust(widths[0]) + "".join(cell.rjust(size) for cell, size in zip(rest, widths[1:], strict=True))


# -- the checks -----------------------------------------------------------------------------------


#: What decides here, the first ones also where they are fine.
_TOLD = ("card", "memory", "disk", "bitsandbytes", "torch")


def checks_body(checks: Sequence[Check] | None, width: int, height: int) -> Content:
    """What is not well, a line each, and what is; in so many lines."""
    if checks is None:
        return tinted("● looking…", "accent")
    wrong = sorted((one for one in checks if one.status != "ok"), key=lambda one: one.status != "problem")
    wrong = [one for one in wrong if one.name not in ("terminal", "colours", "glyphs", "tmux", "starter model")]
    fine = {one.name: one for one in checks if one.status == "ok"}
    known = [f"{name} {_short(fine[name])}" for name in _TOLD if name in fine]
    rest = len(fine) - len(known)
    good = f"✓ ok: {', '.join(known)}{f' and {rest} more' if rest > 0 and known else ''}"
    if height < 2:
        brief = [tinted(f"{MARKS[one.status][0]}: {one.name} {_short(one)}  ", MARKS[one.status][1]) for one in wrong]
        return Content.assemble(*brief, tinted(good, "good")).truncate(width, ellipsis=True)
    shown = [_check_line(one, width) for one in wrong[: height - 1]]
    return lines(*shown, tinted(words.one_line(good, width), "good"))


def _check_line(check: Check, width: int) -> Content:
    mark, tone = MARKS[check.status]
    said = clean(" — ".join(part for part in (check.found, check.advice) if part))
    return Content.assemble(tinted(f"{mark}: ", tone), words.one_line(f"{check.name}: {said}", width - len(mark) - 2))


def _short(check: Check) -> str:
    """What was found, without the details."""
    return clean(check.found).partition(",")[0].partition(" for ")[0].partition(" (")[0]


# -- what to do next ------------------------------------------------------------------------------


def next_words(lit: FoundModel | None, current: FoundModel, on: str) -> Content | str:
    """What ⏎ does now. `lit` None: the line that asks for a name; `on`: what comes after this stage."""
    if lit is None:
        return "⏎ asks for a folder with a model, or for the id of one on the hub."
    title = clean(lit.title)
    if lit.name != current.name:
        tail = "" if lit.here or not lit.fetchable else f" Only then ⏎ downloads it{_amount(lit)}."
        return f"⏎ makes {title} this project's model.{tail}"
    if lit.state == "gone":
        return tinted(f"{clean(lit.problem)} {clean(lit.todo)}", "bad")
    if lit.fetchable:
        rest = "the rest of " if lit.state == "partly here" else ""
        return f"⏎ downloads {rest}{title}{_amount(lit)}, in the background. Nothing is downloaded before that."
    return on


def _amount(found: FoundModel) -> str:
    return f" ({words.size(found.size)})" if found.size is not None else ""


def about_rows(found: FoundModel) -> Content:
    """All that is known of a model."""
    kinds = {"starter": "the starter model", "folder": "a folder of yours", "hub": "a model of the hub"}
    listed = [
        Row("model", clean(found.title), tone="strong"),
        Row("what", kinds[found.kind]),
        Row("state", found.state, tone=_STATE_TONES[found.state]),
        Row("parameters", parameters(found.parameters)),
        Row("on the disk" if found.here else "to download", _size(found)),
        Row("licence", licence(found)),
    ]
    if found.path:
        listed.append(Row("lies in", clean(short(found.path))))
    said = [clean(part) for part in (found.problem, found.todo) if part]
    return lines(rows(listed), *(tinted(part, "warn") for part in said))


def _size(found: FoundModel) -> str:
    return words.size(found.size) if found.size is not None else "not known before the hub is asked: press a"
