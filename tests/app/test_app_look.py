"""The themes: what can be read in each, on every screen; what is told without any colour."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from textual.color import Color
from textual.pilot import Pilot

from rlhf_tui import projects
from rlhf_tui.app import keytable, look
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.glyphs import ascii_wanted
from rlhf_tui.app.home import HomeApp
from rlhf_tui.app.themefile import Taste, keep, taste
from rlhf_tui.assessment.records import Report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt
from rlhf_tui.project import Project
from tests.app.contrast import Faint, contrast, faint, linear_part

COLOURED = [name for name, theme in look.THEMES.items() if not theme.ansi]
MARKDOWN = """# Leash

A `KL` **penalty**:

```python
def leash(x):  # short
    return "x" + 1
```

- one
- [two](http://x)

> said

| a | b |
|---|---|
| 1 | 2 |
"""


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ((0, 0, 0), (255, 255, 255), 21.0),
        ((119, 119, 119), (255, 255, 255), 4.48),
        ((118, 118, 118), (255, 255, 255), 4.54),
        ((148, 148, 148), (255, 255, 255), 3.03),
        ((255, 0, 0), (255, 255, 255), 4.00),
        ((0, 0, 255), (255, 255, 255), 8.59),
        ((7, 7, 7), (7, 7, 7), 1.0),
    ],
)
def test_contrast_is_the_published_one(one: tuple[int, int, int], other: tuple[int, int, int], ratio: float) -> None:
    assert contrast(one, other) == contrast(other, one) == pytest.approx(ratio, abs=0.006)


@pytest.fixture
def full(finished: Project, report_of: Callable[..., Report], reported: Callable[[Report], Project]) -> Project:
    """A project with something on every screen: also a report, Markdown to judge, and a rater's note."""
    reported(report_of("narrow"))
    with finished.store() as store:
        store.add_prompts([NewPrompt((Message("user", "Explain it in Markdown."),), "test")], heldout_fraction=0.0)
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt="")
        prompt = max(store.prompts(), key=lambda one: one.id)
        store.add_completions(
            [
                NewCompletion(prompt.id, model, sampling, MARKDOWN, 118, "stop", 1),
                NewCompletion(prompt.id, model, sampling, MARKDOWN.replace("Leash", "Rope") * 9, 118, "stop", 2),
            ]
        )
        store.make_tasks(prompt.id)
    return finished


async def settle(pilot: Pilot[Any]) -> None:
    for _ in range(3):
        await pilot.pause()


Press = Callable[..., Awaitable[None]]


async def stages(press: Press) -> AsyncIterator[str]:
    """Every stage, and the charts when one is lit."""
    for number, (name, _) in enumerate(keytable.STAGES, start=1):
        await press(str(number))
        yield name
        if name in ("reward", "ppo"):
            await press("tab")
            yield f"{name}, a lit chart"
            await press("escape")


async def labelling(press: Press) -> AsyncIterator[str]:
    """The labelling screen in its ways to draw a text."""
    await press("2", "l")
    yield "label"
    await press("tab")
    yield "label, lit"
    for key in ("D", "m"):
        await press(key)
        yield f"label {key}"
    await press("escape")


async def windows(press: Press) -> AsyncIterator[str]:
    """The windows that keys open, the settings, and the palette."""
    for stage, key in [
        ("1", "question_mark"),
        ("2", "w"),
        ("2", "i"),
        ("3", "v"),
        ("3", "d"),
        ("3", "b"),
        ("1", "L"),
        ("1", "D"),
    ]:
        await press(stage, key)
        yield f"{stage} {key}"
        await press("escape")
    for key in ("s", "w", "h", "k", "slash"):
        await press("4", key)
        yield f"4 {key}"
        await press("escape")
    await press("e")
    yield "settings"
    await press("enter")
    yield "a setting"
    await press("escape", "slash", "k", "l", "enter")
    yield "settings found"
    await press("escape", "escape", "escape", "T", "l")
    yield "the palette"
    await press("escape", "escape", "2", "l")
    for key in ("h", "n", "exclamation_mark", "g", "i", "M", "R", "o"):
        await press(key)
        yield f"label {key}"
        await press("escape")
    await press("escape")


async def messages(app: RlhfApp, press: Press) -> AsyncIterator[str]:
    """What comes by itself."""
    app.show_error(UserError("It broke.", why="A disk is full.", todo="Make room."))
    await press()
    yield "an error"
    await press("escape")
    app.notify("Said in passing.", title="A title")
    app.notify("Beware.", severity="warning")
    app.notify("Broken.", severity="error")
    await press()
    yield "notices"


def presser(pilot: Pilot[Any]) -> Press:
    async def press(*names: str) -> None:
        await pilot.press(*names)
        await settle(pilot)

    return press


def told(found: dict[str, list[Faint]]) -> str:
    return "\n".join(f"{name}: {one}" for name, many in found.items() for one in dict.fromkeys(many))


@pytest.mark.parametrize("theme", COLOURED)
async def test_everything_on_screen_can_be_read(full: Project, theme: str) -> None:
    app, found = RlhfApp(full, taste=Taste(theme)), dict[str, list[Faint]]()
    async with app.run_test(size=(80, 24)) as pilot:
        press = presser(pilot)
        for tour in (stages(press), labelling(press), windows(press), messages(app, press)):
            async for name in tour:
                found[name] = list(faint(app))
    assert len(found) > 35
    assert not any(found.values()), told(found)


@pytest.mark.parametrize("theme", COLOURED)
async def test_everything_on_a_large_screen_can_be_read(full: Project, theme: str) -> None:
    app, found = RlhfApp(full, taste=Taste(theme)), dict[str, list[Faint]]()
    async with app.run_test(size=(160, 48)) as pilot:
        press = presser(pilot)
        for tour in (stages(press), labelling(press)):
            async for name in tour:
                found[name] = list(faint(app))
    assert not any(found.values()), told(found)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("theme", COLOURED)
async def test_home_can_be_read(
    full: Project, theme: str, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if begun:
        projects.note(full.root)
    app = HomeApp(tmp_path, taste=Taste(theme))
    async with app.run_test(size=(80, 24)) as pilot:
        press = presser(pilot)
        await press()
        assert not (found := list(faint(app))), found
        await press("n")
        assert not (found := list(faint(app))), found


def test_no_colour_is_fixed_or_mixed_outside_the_themes() -> None:
    """Mixing ($accent 18%) would be lost where colours are the terminal's own."""
    folder = Path(look.__file__).parent
    mixed = re.compile(r"#[0-9a-fA-F]{6}\b|\$[a-z-]+ \d+%|ansi_(?!color)|\bcolor=[\"']")
    found = {
        f"{path.name}: {line.strip()}"
        for path in (*folder.rglob("*.py"), *folder.rglob("*.tcss"))
        for line in path.read_text().splitlines()
        if path.name != "look.py" and mixed.search(line)
    }
    assert found == set()


# Colour-blindness

#: What is left of linear red, green and blue for eyes without one kind of cones (Machado, Oliveira, Fernandes 2009).
EYES = {
    "no red cones": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def lab(colour: str, eyes: str) -> tuple[float, float, float]:
    """A colour as such eyes see it, in CIE L*a*b* (D65): there, distance is how different two look."""
    linear = [linear_part(part) for part in Color.parse(colour).rgb]
    seen = [max(sum(a * b for a, b in zip(row, linear, strict=True)), 0.0) for row in EYES[eyes]]
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, seen, strict=True)) for row in to_xyz]
    x, y, z = (
        part ** (1 / 3) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116
        for part in (xyz[0] / 0.9505, xyz[1], xyz[2] / 1.089)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eyes", EYES)
def test_what_colours_mean_is_told_apart_by_colour_blind_eyes(eyes: str) -> None:
    theme = look.THEMES["colour-blind"]
    seen = {
        "good": lab(str(theme.success), eyes),
        "warn": lab(str(theme.warning), eyes),
        "bad": lab(str(theme.error), eyes),
        "plain": lab(str(theme.foreground), eyes),
    }
    nearest = min((math.dist(one, other), a, b) for (a, one), (b, other) in combinations(seen.items(), 2))
    assert nearest[0] > 20, nearest


# Without colours


async def test_a_theme_that_is_chosen_shows_at_once_and_is_kept(full: Project, tmp_path: Path) -> None:
    file = tmp_path / "config" / "theme.toml"
    app = RlhfApp(full, taste=Taste("calm", file))

    def colours() -> set[str]:
        return {
            colour.triplet.hex
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style
            for colour in (segment.style.color, segment.style.bgcolor)
            if colour and colour.triplet
        }

    async with app.run_test(size=(160, 48)) as pilot:
        press = presser(pilot)
        await press("4", "tab")
        charts = colours()
        await press("escape", "2", "l", "m")
        texts = colours()
        await press("escape", "T", "l", "i", "g", "h", "t", "enter", "enter")
        assert app.theme == "light"
        assert theme_of(file) == "light"
        await press("4", "tab")
        assert not charts & colours()
        await press("escape", "2", "l", "m")
        assert not texts & colours()
    assert taste(file, {"TERM": "xterm-256color"}).theme == "light"


def theme_of(file: Path) -> object:
    return tomllib.loads(file.read_text())["theme"]


async def test_no_color_sends_no_colour_and_loses_nothing(
    full: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app, plain = RlhfApp(full, taste=taste(tmp_path / "theme.toml")), 0
    async with app.run_test(size=(80, 24)) as pilot:
        press = presser(pilot)
        for tour in (stages(press), labelling(press), windows(press), messages(app, press)):
            async for name in tour:
                for strip in app.screen._compositor.render_strips():
                    for segment in strip:
                        if segment.style:
                            assert segment.style.color is None or segment.style.color.is_default, (name, segment)
                            assert segment.style.bgcolor is None or segment.style.bgcolor.is_default, (name, segment)
                            plain += 1
    assert plain > 1000


# Without glyphs

OF_PEOPLE = set("漢字")


async def test_in_plain_ascii_nothing_else_is_drawn(
    full: Project, monkeypatch: pytest.MonkeyPatch, text_of: Callable[[RlhfApp], str]
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
    found = dict[str, set[str]]()
    for size in [(80, 24), (160, 48)]:
        app = RlhfApp(full)
        async with app.run_test(size=size) as pilot:
            press = presser(pilot)
            for tour in (stages(press), labelling(press), windows(press), messages(app, press))[
                : 4 if size[0] == 80 else 2
            ]:
                async for name in tour:
                    strange = {sign for sign in text_of(app) if not sign.isascii()} - OF_PEOPLE
                    if strange:
                        found[f"{name} {size}"] = strange
    assert found == {}


@pytest.mark.parametrize(
    ("environ", "plain"),
    [
        ({"LANG": "de_DE.UTF-8", "TERM": "xterm-256color"}, False),
        ({"LANG": "de_DE.utf8", "TERM": "screen-256color"}, False),
        ({"TERM": "xterm-256color"}, False),
        ({"LANG": "C.UTF-8", "LC_ALL": "C", "TERM": "xterm-256color"}, True),
        ({"LANG": "C.UTF-8", "LC_CTYPE": "en_US.ISO-8859-1", "TERM": "xterm"}, True),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, True),
        ({"LANG": "C.UTF-8", "TERM": "dumb"}, True),
        ({"LANG": "C.UTF-8", "TERM": "vt220"}, True),
        ({"LANG": "C", "TERM": "linux", "RLHF_TUI_ASCII": "0"}, False),
        ({"LANG": "C.UTF-8", "TERM": "xterm-256color", "RLHF_TUI_ASCII": "1"}, True),
        ({"LANG": "C.UTF-8", "TERM": "linux", "RLHF_TUI_ASCII": ""}, True),
    ],
)
def test_plain_ascii_where_the_terminal_has_no_more(environ: dict[str, str], plain: bool) -> None:
    assert ascii_wanted(environ) == plain


# Which theme


@pytest.mark.parametrize(
    ("environ", "theme"),
    [
        ({"TERM": "xterm-256color"}, "calm"),
        ({"TERM": "xterm-256color", "COLORFGBG": "15;0"}, "calm"),
        ({"TERM": "xterm-256color", "COLORFGBG": "0;15"}, "light"),
        ({"TERM": "xterm-256color", "COLORFGBG": "0;default;7"}, "light"),
        ({"TERM": "xterm-256color", "COLORFGBG": "0;15", "RLHF_TUI_THEME": "colour-blind"}, "colour-blind"),
        ({"TERM": "xterm-kitty"}, "calm"),
        ({"TERM": "foot", "COLORTERM": "truecolor"}, "calm"),
        ({"TERM": "linux"}, "ansi"),
        ({"TERM": "vt220", "COLORFGBG": "0;15"}, "ansi"),
        ({}, "ansi"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1", "RLHF_TUI_THEME": "light"}, "ansi"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, "calm"),
    ],
)
def test_the_first_theme_suits_the_terminal(environ: dict[str, str], theme: str, tmp_path: Path) -> None:
    assert taste(tmp_path / "theme.toml", environ) == Taste(theme, tmp_path / "theme.toml")


@pytest.mark.parametrize("content", ["theme = ", "theme = 'neon'", "theme = 7", "", "\x00"])
async def test_a_broken_choice_is_told_once_and_does_not_matter(content: str, project: Project, tmp_path: Path) -> None:
    file = tmp_path / "theme.toml"
    file.write_text(content)
    found = taste(file, {"TERM": "xterm-256color"})
    assert found.theme == "calm"
    assert str(file) in found.notice
    app = RlhfApp(project, taste=found)
    async with app.run_test(size=(160, 48)) as pilot:
        await settle(pilot)
        assert [notice.message for notice in app._notifications] == [found.notice]
    assert keep(file, "light") == ""
    assert taste(file, {"TERM": "xterm-256color"}) == Taste("light", file)


def test_a_name_that_is_no_theme_is_told(tmp_path: Path) -> None:
    found = taste(tmp_path / "theme.toml", {"TERM": "xterm-256color", "RLHF_TUI_THEME": "neon"})
    assert found.theme == "calm"
    assert "calm, light, colour-blind, ansi" in found.notice


def test_a_choice_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "could not be kept" in keep(tmp_path / "file" / "theme.toml", "light")
