"""What the settings editor says: a line of its list, all about the lit setting, and the lines above them."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from rlhf_tui.app import words
from rlhf_tui.app.overview import Overview
from rlhf_tui.app.settings_form import Browsing, Change, Entry, SettingsForm, entries, sections
from rlhf_tui.app.widgets.panel import lines, list_line, tinted
from rlhf_tui.preferences.display import clean

#: From this width of the list on its values have more room.
ROOMY = 84
#: From this height on the panel of the lit setting has room for everything, one below the other.
HIGH = 16
#: The lines about its value when there is less room.
FACTS = 2


def heading(section: str, width: int) -> Content:
    """The line that begins a section."""
    left = Content.assemble(tinted(f"─ {section} ", "accent"), tinted(f"{sections()[section]} ", "quiet"))
    rule = tinted("─" * max(width - left.cell_length, 0), "quiet")
    return Content.assemble(left, rule).truncate(width, ellipsis=True)


def row(entry: Entry, form: SettingsForm, width: int, *, lit: bool) -> Content:
    """A setting in the list: its name, its value, and what it is about, or from what it was changed."""
    differs = form.differs(entry)
    room = 22 if width >= ROOMY else 14
    name = Content(entry.name.ljust(22)).truncate(23)
    now = Content(now_words(entry, form)).truncate(room, ellipsis=True, pad=True)
    if differs:
        note = tinted(f"● changed from {short(entry.spelt(entry.info.default), 30)}", "warn")
    else:
        note = tinted(entry.info.explanation, "quiet")
    parts: list[Content | str] = [
        name.stylize("bold") if lit or differs else name,
        " ",
        now.stylize("bold") if differs else now,
        "  ",
        note,
    ]
    return list_line(parts, width, lit=lit)


def about(entry: Entry | None, form: SettingsForm, browsing: Browsing) -> Callable[[int, int], Content]:
    """The panel of the lit setting, for a width and a height."""
    if entry is None:
        return lambda width, height: lines(*nothing(browsing)[:height])

    def body(width: int, height: int) -> Content:
        told = words.wrapped(entry.info.explanation, width)
        if height < HIGH:
            head = _briefly(entry, form, width)
            return lines(*head, *_shortened(told, width, max(height - len(head), 1)))
        return lines(*_fully(entry, form, width), "", *told, "", *_as_command(entry, form, width))

    return body


def whole(entry: Entry, form: SettingsForm) -> Content:
    """Everything about a setting, to read in a window of its own."""
    now = form.now(entry)
    text: list[Content | str] = (
        [lines(tinted("Its text now", "quiet"), clean(now)), ""] if entry.is_text and now else []
    )
    facts = [_labelled(label, said, tone) for label, said, tone in _facts(entry, form)]
    return lines(entry.info.explanation, "", *facts, "", *text, tinted(clean(form.command(entry, now)), "accent"))


def now_words(entry: Entry, form: SettingsForm) -> str:
    """The value of a setting now, in one line."""
    return short(entry.spelt(form.now(entry)), 400) if form.settings else "?"


def short(text: str, width: int) -> str:
    """A value in one line of at most `width` signs, without anything that a terminal would obey."""
    return words.one_line(clean(text), width)


def standing(entry: Entry, form: SettingsForm) -> tuple[str, str]:
    """Whether a setting differs from its default, in words, and the tone of that."""
    if form.settings is None:
        return "✗ unknown: rlhf.toml cannot be read", "bad"
    if not form.is_allowed(entry):
        return "✗ changed, and not allowed on this machine: 'rlhf-tui config trust'", "bad"
    return ("● changed", "warn") if form.differs(entry) else ("the default", "quiet")


def command_hint(entry: Entry | None, form: SettingsForm, key: str) -> Callable[[int, int], Content]:
    """The command line of a setting as it is now, for a border; `key` copies it. A high panel says it itself."""

    def hint(width: int, height: int) -> Content:
        if entry is None or form.settings is None or height >= HIGH:
            return Content("")
        said = short(form.command(entry, form.now(entry)), max(width - 6, 8))
        return Content.assemble(tinted(key, "accent"), f" {said}")

    return hint


def stored(change: Change, undo: str) -> Content:
    """What was stored, and the key that takes it back."""
    entry = change.entry
    new, old = short(entry.spelt(change.new), 24), short(entry.spelt(change.old), 24)
    default = ", its default" if change.new == entry.info.default else ""
    return tinted(f"✓ stored: {entry.key} is {new}{default} (was {old}); {undo} takes it back.", "good")


def taken_back(change: Change) -> Content:
    """What an undo has brought back."""
    return tinted(f"✓ taken back: {change.entry.key} is {short(change.entry.spelt(change.new), 24)} again.", "good")


def nothing(browsing: Browsing) -> list[Content]:
    """Why the list is empty, and what to press."""
    if browsing.needle:
        among = " among those that differ from their defaults" if browsing.only_differing else ""
        return [Content(f"No setting{among} says “{clean(browsing.needle)}”."), tinted("esc shows all again.", "quiet")]
    return [Content("Every setting has its default."), tinted("d shows all again.", "quiet")]


def head(form: SettingsForm) -> tuple[Content, Content]:
    """The first line: the project, and how many settings differ."""
    left = Content.assemble(
        tinted("rlhf_tui", "accent"), "  ", tinted(clean(form.project.name), "strong"), "  Settings"
    )
    if form.settings is None:
        return left, tinted("✗ rlhf.toml cannot be read", "bad")
    count = len(form.differing())
    return left, tinted(f"● {count} of {len(entries())} changed" if count else "all have their defaults", "quiet")


def remarks(form: SettingsForm, overview: Overview, said: Content, width: int) -> Content:
    """The lines below it: what was just done, and what stands in the way or need not be feared."""
    found: list[Content] = [said]
    if form.trouble is not None:
        what = " ".join(part for part in (form.trouble.what, form.trouble.why) if part)
        what = what.replace(str(form.project.config), form.project.config.name)  # the first line says whose it is
        told = words.wrapped(clean(f"✗ {what} Nothing is written until that is put right."), width)
        found = [tinted(line, "bad") for line in told[:3]]
    elif not form.project.writable:
        found.append(tinted("‖ read-only: this folder can be looked at, its settings cannot be changed.", "warn"))
    if overview.live is not None:
        name = overview.live.name
        found.append(tinted(f"● {name} keeps the settings it began with; changes count for later runs.", "accent"))
    return lines(*(line.truncate(width, ellipsis=True) for line in found))


def place(browsing: Browsing) -> tuple[str, str]:
    """The borders of the list: the section in view, and the place in the list with what narrows it."""
    lit, listed = browsing.lit, browsing.listed
    title = lit.section if lit else "Settings"
    parts = [f"{listed.index(lit) + 1} of {len(listed)}"] if lit else []
    if browsing.only_differing:
        parts.append("only what differs (d: all)")
    if browsing.needle:
        parts.append(f"with “{short(browsing.needle, 20)}” (esc: all)")
    return title, " · ".join(parts)


def _facts(entry: Entry, form: SettingsForm) -> list[tuple[str, str, str]]:
    """What there is to know about its value: a label, the words, their tone."""
    said, tone = standing(entry, form)
    return [
        ("now", now_words(entry, form), "strong"),
        ("", said, tone),
        ("default", short(entry.spelt(entry.info.default), 400), ""),
        ("takes", entry.kind, ""),
    ]


def _labelled(label: str, said: str, tone: str) -> Content:
    return Content.assemble(tinted(label.ljust(9), "quiet"), tinted(said, tone))


def _briefly(entry: Entry, form: SettingsForm, width: int) -> list[Content]:
    """The value and what may stand there, in as many lines as `FACTS`."""
    (_, now, strong), (_, said, tone), (_, default, _), (_, takes, _) = _facts(entry, form)
    behind = Content.assemble("  ", tinted(said, tone))
    if form.differs(entry) or form.settings is None:
        behind = Content.assemble(behind, tinted("   default ", "quiet"), short(default, max(width // 3, 8)))
    room = max(width - 9 - behind.cell_length, 8)
    first = Content.assemble(tinted("now".ljust(9), "quiet"), tinted(short(now, room), strong), behind)
    second = _labelled("takes", takes, "")
    return [line.truncate(width, ellipsis=True) for line in (first, second)]


def _fully(entry: Entry, form: SettingsForm, width: int) -> list[Content]:
    """The same with a line for each, and more for what is long."""
    found = []
    facts = _facts(entry, form)
    (_, now, strong), (_, said, tone) = facts[:2]
    if len(now) + len(said) + 11 <= width:  # both fit on a line
        both = Content.assemble(_labelled("now", now, strong), "  ", tinted(said, tone))
        found, facts = [both], facts[2:]
    for label, said, tone in facts:
        broken = words.wrapped(said, max(width - 9, 10))
        found += [_labelled(label if at == 0 else "", line, tone) for at, line in enumerate(broken[:6])]
    return found


def _shortened(told: list[str], width: int, most: int) -> list[Content]:
    """An explanation in so many lines; if it has more, the last says how to read on."""
    if len(told) <= most:
        return [Content(line) for line in told]
    kept, last = told[: most - 1], told[most - 1]
    more = " … (o: all)"
    last = last[: max(width - len(more), 1)].rstrip()
    return [*map(Content, kept), Content.assemble(last, tinted(more, "quiet"))]


def _as_command(entry: Entry, form: SettingsForm, width: int) -> list[Content]:
    said = clean(form.command(entry, form.now(entry))) if form.settings else f"rlhf-tui config explain {entry.key}"
    return [
        tinted("As a command line (y copies it)", "quiet"),
        *(tinted(part, "accent") for part in words.wrapped(said, width)),
    ]
