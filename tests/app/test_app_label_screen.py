"""The labelling screen on a real store: every mode, every key, both sizes, and what happens when things fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import OptionList

from rlhf_tui.app import keys
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.screens.dialogs import TextDialog, WritingDialog
from rlhf_tui.app.screens.label import LabelScreen
from rlhf_tui.app.screens.label_aside import HEARD
from rlhf_tui.app.screens.label_dialogs import ChoiceDialog, FlagDialog, HistoryDialog, RaterDialog, ReadingDialog
from rlhf_tui.app.widgets.candidate import Candidate
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Judged, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store
from rlhf_tui.project import Project

SIZES = [(80, 24), (160, 48)]
FIVE = (prefer(0, 2), prefer(0), tied(), prefer(1), prefer(1, 2))
TextOf = Callable[[App[None]], str]
STRANGE = "a\x1b]0;title\x07\x1b[31mred \u202eright to left\u202c \u200bnone [bold]not[/bold] 漢字 😀 e\u0301 "


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(4):
        await pilot.pause()


@pytest.fixture
def several(project: Project) -> Project:
    """Eight prompts, some with earlier turns, with four candidates each."""
    with project.store() as store:
        rows = []
        for number in range(8):
            turns: tuple[Message, ...] = (Message("user", f"Explain a KL penalty, take {number}."),)
            if number % 2:
                turns = (Message("user", "Hello."), Message("assistant", "What can I do?"), *turns)
            rows.append(NewPrompt(turns, "test"))
        store.add_prompts(rows, heldout_fraction=0.2)
        model = store.add_model("starter", "base")
        sampling = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=128, system_prompt="")
        for prompt in store.prompts():
            texts = (
                f"A leash holds the new model near the old one, {prompt.id}. " * 20,
                f"In plain words: do not run away from what you were.\n\nThat is number {prompt.id}.",
                f"**Think** of elastic.\n\n- it pulls\n- back {prompt.id}",
                f"{STRANGE}{prompt.id}",
            )
            store.add_completions(
                NewCompletion(prompt.id, model, sampling, text, 30 + place, "stop", place)
                for place, text in enumerate(texts)
            )
    return project


class Desk:
    """An app on the labelling screen, and the hands of a rater."""

    def __init__(self, app: RlhfApp, pilot: Pilot[None], clock: Any, text_of: TextOf) -> None:
        self.app, self.pilot, self._clock, self._text_of = app, pilot, clock, text_of

    async def press(self, *pressed: str, after: float = 3.0) -> None:
        """Press keys, each so many seconds after the one before."""
        for key in pressed:
            self._clock.now += after
            await self.pilot.press(key)
            await settle(self.pilot)

    @property
    def screen(self) -> LabelScreen:
        screen = next(one for one in reversed(self.app.screen_stack) if isinstance(one, LabelScreen))
        return screen

    @property
    def shown(self) -> list[int]:
        """The completions on screen, in their order."""
        presentation = self.screen.sitting.shown
        return [one.id for one in presentation.shown] if presentation else []

    @property
    def panes(self) -> list[Candidate]:
        return list(self.screen.view.candidates.shown)

    @property
    def told(self) -> list[str]:
        """What the app has said in passing."""
        return [one.message for one in self.app._notifications]

    @property
    def text(self) -> str:
        return self._text_of(self.app)


@pytest.fixture
def desk(clock: Any, text_of: TextOf) -> Callable[..., Any]:
    """Open the labelling screen of a project."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def sit(project: Project, size: tuple[int, int] = (80, 24), **options: Any) -> Any:
        app = RlhfApp(project, clock=clock, start="label", **options)
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            yield Desk(app, pilot, clock, text_of)

    return sit


def judged(project: Project) -> list[Judged]:
    with project.store() as store:
        return store.judgements()


# Ways of judging


@pytest.mark.parametrize("size", [*SIZES, (60, 16), (50, 12), (120, 30)])
async def test_pairs_on_the_home_row_and_on_digits(several: Project, desk: Any, size: tuple[int, int]) -> None:
    said = {
        **dict(zip(("d", "f", "space", "j", "k"), FIVE, strict=True)),
        **dict(zip("12345", FIVE, strict=True)),
        "x": Verdict("both_bad"),
    }
    seen = []
    async with desk(several, size) as it:
        for key in said:
            seen.append(tuple(it.shown))
            await it.press(key)
    found = judged(several)
    assert [(tuple(c.id for c in one.shown), one.verdict) for one in found] == list(
        zip(seen, said.values(), strict=True)
    )
    assert {one.latency_ms for one in found} == {3000}


@pytest.mark.parametrize("size", [*SIZES, (50, 12)])
async def test_a_ranking_is_typed(several: Project, desk: Any, size: tuple[int, int]) -> None:
    async with desk(several, size, rules=Rules(kind="rank", size=4)) as it:
        assert "ranking 1 of 8" in it.text
        await it.press("2", "1", "4")
        assert "2 > 1 > 4 > …" in it.text
        assert "missing 3" in it.text
        await it.press("enter")
        assert it.screen.sitting.judged == 0
        await it.press("backspace", "equals_sign", "4", "3", "enter")
        await it.press("enter")
        assert it.screen.sitting.judged == 1
        await it.press("x")
        await it.press("1", "equals_sign", "2", "equals_sign", "3", "equals_sign", "4", "enter")
    assert [one.verdict for one in judged(several)] == [
        Verdict("ordered", ranks=(2, 1, 3, 2)),
        Verdict("both_bad"),
        tied(4),
    ]


@pytest.mark.parametrize("count", [3, 4, 5, 6])
async def test_as_many_candidates_as_the_rules_say(several: Project, desk: Any, count: int) -> None:
    with several.store() as store:
        prompt = store.prompts()[0]
        model = store.add_model("starter", "base")
        store.add_completions(
            NewCompletion(prompt.id, model, None, f"{word} is all.", 4, "stop", 50 + place)
            for place, word in enumerate(("Elastic", "Gravity"))
        )
    async with desk(several, (160, 48), rules=Rules(kind="rank", size=count)) as it:
        most = 0
        while it.shown:
            most = max(most, len(it.shown))
            await it.press(*map(str, range(len(it.shown), 0, -1)), "enter", after=1)
    assert most == count
    first = next(one for one in judged(several) if len(one.shown) == count)
    assert first.verdict.ranks == tuple(range(count, 0, -1))


@pytest.mark.parametrize("size", SIZES)
async def test_each_answer_is_marked_in_turn(several: Project, desk: Any, size: tuple[int, int]) -> None:
    async with desk(several, size, rules=Rules(kind="rate", size=3)) as it:
        candidates = it.screen.view.candidates
        assert candidates.lit == 0
        await it.press("4", "1")
        assert candidates.lit == 2
        assert "●●●●○ 4" in it.text
        await it.press("enter")
        assert it.screen.sitting.judged == 0
        await it.press("backspace")
        assert candidates.lit == 1
        await it.press("2", "5", "enter")
        assert it.screen.sitting.judged == 1
        assert candidates.lit == 0
        await it.press("tab", "3")
        assert it.screen._draft.marks[:2] == (None, 3)
    assert [one.verdict for one in judged(several)] == [Verdict("rated", ratings=(4, 2, 5))]


@pytest.mark.parametrize("size", SIZES)
async def test_each_answer_is_accepted_or_rejected(several: Project, desk: Any, size: tuple[int, int]) -> None:
    async with desk(several, size, rules=Rules(kind="accept", size=2)) as it:
        await it.press("a", "r")
        assert "✓ accepted" in it.text
        assert "✗ rejected" in it.text
        await it.press("enter", "f", "x", "enter")
        assert it.screen.sitting.judged == 1
    assert [one.verdict for one in judged(several)] == [Verdict("accepted", accepted=(True, False))]


async def test_the_mode_is_changed_on_screen(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        await it.press("f", "M")
        assert isinstance(it.app.screen, ChoiceDialog)
        await it.press("r", "3")
        assert "ranking" in it.text
        assert len(it.shown) == 3
        assert it.screen.keys_named == "label-rank"
        await it.press("3", "2", "1", "enter", "M", "escape", "M", "p")
        assert "pair" in it.text
        await it.press("j")
    assert [one.kind for one in judged(several)] == ["pair", "rank", "pair"]


async def test_an_answer_of_another_mode_can_be_taken_back_and_given_again(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        first = it.shown
        await it.press("f", "M", "a", "2", "u")
        assert it.shown == first
        assert it.screen.kind == "pair"
        assert "A better" in it.text
        await it.press("k")
        assert it.screen.kind == "accept"
    assert [one.verdict for one in judged(several)] == [prefer(1, 2)]


@pytest.mark.parametrize("kind", ["pair", "rank", "rate", "accept"])
@pytest.mark.parametrize("filled", ["several", "project"])
async def test_every_key_of_every_mode(kind: str, filled: str, desk: Any, request: pytest.FixtureRequest) -> None:
    """No key raises, with candidates and without, whatever window it opens."""
    actions = [one for one in keys.actions(keys.screen_of(kind)) if one.id not in ("app.leave", "label.back")]
    async with desk(request.getfixturevalue(filled), rules=Rules(kind=kind, size=3)) as it:
        for action in actions:
            for key in action.keys.split(","):
                await it.press(key)
                while it.app.screen is not it.screen:
                    await it.press("escape", after=0)
                if it.screen.kind != kind:
                    await it.press("M", {"pair": "p", "rank": "r", "rate": "m", "accept": "a"}[kind])
        assert it.app._exception is None
        await it.press("escape")
        assert not isinstance(it.app.screen, LabelScreen)


# What does not judge


async def test_a_held_key_judges_once_and_says_nothing(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        await it.press("f")
        await it.press(*"ffffffff", after=0.03)
        assert it.screen.sitting.judged == 1
        await it.press("f", after=0.1)
        assert it.screen.sitting.judged == 2
        assert not it.app._notifications


@pytest.mark.parametrize("kind", ["rank", "rate", "accept"])
async def test_an_untouched_draft_is_not_an_answer(several: Project, desk: Any, kind: str) -> None:
    async with desk(several, rules=Rules(kind=kind, size=3)) as it:
        await it.press("enter", "enter")
        assert it.screen.sitting.judged == 0
        await it.press("s", "S")
    assert [one.verdict.outcome for one in judged(several)] == ["skip", "discard"]


async def test_skipped_comes_back_and_discarded_does_not(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        skipped = it.shown
        await it.press("s")
        discarded = it.shown
        await it.press("S")
        total = it.screen.sitting.left_over
    async with desk(several) as it:
        assert it.screen.sitting.left_over == total + 1
        seen = []
        while it.shown:
            seen.append(it.shown)
            await it.press("f", after=1)
        assert skipped in seen
        assert discarded not in seen


# Undo, history, remarks


async def test_undo_goes_back_as_far_as_there_are_answers_and_redo_forward(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        seen = []
        for key in "fjdkx":
            seen.append(it.shown)
            await it.press(key)
    async with desk(several) as it:
        for before in reversed(seen):
            await it.press("u")
            assert it.shown == before
        await it.press("u")
        assert it.shown == seen[0]
        assert "There is nothing to take back." in it.told
        await it.press("U", "U", "U", "U", "U", "U")
        assert "There is nothing to give again." in it.told
    assert [one.verdict for one in judged(several)] == [
        prefer(0), prefer(1), prefer(0, 2), prefer(1, 2), Verdict("both_bad")
    ]  # fmt: skip


async def test_any_answer_is_opened_again_from_the_history(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        first = it.shown
        await it.press("f", "j", "x", "h")
        assert isinstance(it.app.screen, HistoryDialog)
        text = it.text
        assert text.index("both bad") < text.index("B better  ") < text.index("A better  ")
        await it.press("down", "down", "enter")
        assert it.shown == first
        await it.press("k")
    assert [one.verdict for one in judged(several) if [c.id for c in one.shown] == first] == [prefer(1, 2)]


async def test_gold_is_marked_in_the_history(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        await it.press("f", "j", "h", "asterisk")
        with several.store() as store:
            assert len(store.gold()) == 1
        assert "* B better" in it.text
        await it.press("down", "asterisk", "asterisk", "escape")
        assert it.app.screen is it.screen
    with several.store() as store:
        assert list(store.gold().values()) == [judged(several)[1].id]


async def test_the_history_goes_back_further_than_it_reads_at_once(
    several: Project, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_tui.app.screens.label_dialogs.PAGE", 4)
    async with desk(several) as it:
        first = it.shown
        await it.press(*"fjfjfjfjfj", "h", *["down"] * 9, "enter")
        assert it.shown == first


async def test_an_empty_history_says_so(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        await it.press("h", "asterisk", "enter")
        assert "No answer yet." in it.text
        await it.press("h")
        assert it.app.screen is it.screen


async def test_a_note_and_flags_are_stored_with_the_answer(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        await it.press("n", *"too", "enter", "exclamation_mark")
        assert isinstance(it.app.screen, FlagDialog)
        await it.press("1", "3", "4", "3", "enter")
        assert "flag: factually wrong, cut off or garbled   note: too" in it.text
        await it.press("exclamation_mark", "2", "escape", "f")
        assert "note:" not in it.text
    (one,) = judged(several)
    assert (one.note, set(one.flags)) == ("too", {"wrong", "broken"})


async def test_an_answer_is_written_better(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        before = it.shown
        await it.press("e")
        assert isinstance(it.app.screen, ChoiceDialog)
        await it.press("b")
        assert isinstance(it.app.screen, WritingDialog)
        await it.press("X", "ctrl+s")
        assert it.shown == before
        await it.press("tab", "e")
        assert isinstance(it.app.screen, WritingDialog)
        await it.press("ctrl+s")
        assert it.screen.sitting.shown is not None
    (one,) = judged(several)
    assert one.verdict == prefer(0, one.verdict.strength)
    better, worse = one.shown
    assert worse.id == before[1]
    assert better.edited_from == before[1]
    assert better.text.startswith("X")


# Looking


async def test_candidates_scroll_in_step_and_alone(several: Project, desk: Any) -> None:
    async with desk(several, (90, 30), rules=Rules(kind="rank", size=4)) as it:
        panes = it.panes
        assert all(pane.top == 0 for pane in panes)
        long = max(panes, key=lambda pane: pane.reach)
        short = [pane for pane in panes if pane is not long]
        assert long.reach > 3
        assert f"▼ {long.reach} more lines" in str(long.border_subtitle)
        await it.press("down", "down", "down")
        assert long.top == 3
        assert all(pane.top == min(3, pane.reach) for pane in short)
        assert "↑ 3 above" in str(long.border_subtitle)
        await it.press("up", "up", "up")
        assert all(pane.top == 0 for pane in panes)
        await it.press("end")
        assert all(pane.top == pane.reach for pane in panes)
        assert long.lines_below == 0
        await it.press("home", "pagedown")
        assert long.top == min(long.size.height - 1, long.reach)
        await it.press("pageup")
        place = panes.index(long)
        await it.press(*["tab"] * (place + 1), "shift+down", "shift+down")
        assert (long.top, *{pane.top for pane in short}) == (2, 0)
        await it.press("down")
        assert long.top == 3


@pytest.mark.parametrize("size", SIZES)
async def test_zoom_stack_and_light(several: Project, desk: Any, size: tuple[int, int]) -> None:
    async with desk(several, size) as it:
        one, two = it.panes
        candidates = it.screen.view.candidates
        assert candidates.lit is None
        assert one.region.y == two.region.y
        await it.press("v")
        assert one.region.x == two.region.x
        assert it.screen.sitting.layout == "stacked"
        await it.press("v", "z")
        assert (one.region.width, two.region.width) == (candidates.size.width, 0)
        await it.press("z")
        assert (one.region.width, two.region.width) == (0, candidates.size.width)
        await it.press("z", "tab")
        assert one.region.width == two.region.width == candidates.size.width // 2
        assert candidates.lit == 0
        await it.press("tab", "tab", "shift+tab")
        assert candidates.lit == 1


async def test_one_at_a_time_where_there_is_no_room_for_more(several: Project, desk: Any) -> None:
    async with desk(several, (60, 16), rules=Rules(kind="rank", size=4)) as it:
        assert it.screen.sitting.layout == "one-at-a-time"
        heights = [pane.region.height for pane in it.panes]
        assert heights[0] > 1
        assert heights[1:] == [1, 1, 1]
        await it.press("tab", "tab")
        heights = [pane.region.height for pane in it.panes]
        assert heights[2] > 1
        assert heights.count(1) == 3


async def test_markdown_and_word_diff_are_on_a_key_and_stay_for_the_next(several: Project, desk: Any) -> None:
    async with desk(several, (160, 48), rules=Rules(kind="rank", size=4)) as it:
        assert "**Think**" in it.text
        await it.press("m")
        assert "**Think**" not in it.text
        assert "• it pulls" in it.text
        await it.press("s")
        assert "• it pulls" in it.text
        await it.press("D")
        assert "**Think**" in it.text
        assert [bool(pane._marked) for pane in it.panes] == [False, True, True, True]
        await it.press("tab", "tab")
        assert [bool(pane._marked) for pane in it.panes] == [True, False, True, True]
        await it.press("D")
        assert not [pane for pane in it.panes if pane._marked]


async def test_the_whole_conversation_opens_in_a_window(several: Project, desk: Any) -> None:
    async with desk(several, (80, 16)) as it:
        while len(it.screen.sitting.shown.prompt.messages) == 1:
            await it.press("s")
        assert "What can I do?" not in it.text
        assert "o opens it" in it.text
        await it.press("o")
        assert isinstance(it.app.screen, ReadingDialog)
        assert "assistant: What can I do?" in it.text
        await it.press("down", "pagedown", "o")
        assert it.app.screen is it.screen


async def test_a_guideline_is_one_key_away(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        assert "[g] no guideline yet" in it.text
        await it.press("g", *"Be kind.", "ctrl+s")
        assert "[g] Be kind." in it.text


@pytest.mark.parametrize("size", SIZES)
async def test_strange_text_is_shown_safely_and_stored_exactly(
    several: Project, desk: Any, size: tuple[int, int]
) -> None:
    async with desk(several, size, rules=Rules(kind="rank", size=4)) as it:
        text = it.text
        assert "[bold]not[/bold]" in text
        assert "漢字" in text
        assert "hidden" in text
        for char in "\x1b\x07\u202e\u202c\u200b":
            assert char not in text
        assert "starter" not in text
    with several.store() as store:
        assert any(one.text.startswith(STRANGE) for prompt in store.prompts() for one in store.completions(prompt.id))


async def test_long_texts_are_drawn_before_they_are_counted(project: Project, desk: Any) -> None:
    with project.store() as store:
        store.add_prompts([NewPrompt((Message("user", "漢字 " * 9000),), "test")], heldout_fraction=0.2)
        model = store.add_model("starter", "base")
        texts = ["word " * 10_000, "漢字" * 12_000, "x" * 50_000, "😀👩‍👩‍👧 " * 5000]
        store.add_completions(
            NewCompletion(store.prompts()[0].id, model, None, text, None, "stop", place)
            for place, text in enumerate(texts)
        )
    async with desk(project, (160, 48), rules=Rules(kind="rank", size=4)) as it:
        for pane in it.panes:
            assert pane.lines_below > 100
            assert f"{pane.lines_below:,} more lines" in str(pane.border_subtitle)
        await it.press("m", "D", "end")
        assert [pane.lines_below for pane in it.panes] == [0, 0, 0, 0]
        await it.press("o", "pagedown", "escape", *"2143", "enter")
    (one,) = judged(project)
    assert sorted(len(c.text) for c in one.shown) == sorted(map(len, texts))


# Statistics and nudges


async def test_statistics_come_after_the_answer_and_on_a_key(several: Project, desk: Any) -> None:
    async with desk(several, (160, 48)) as it:
        await it.press("f", "f", "space")
        it.screen._count()
        await settle(it.pilot)
        assert "judged         3" in it.text
        assert "3 done   13 left" in it.text
        assert "33 %" in it.text
        await it.press("i")
        assert isinstance(it.app.screen, TextDialog)
        assert "Ceiling: how often one answer is what you mean" in " ".join(it.text.split())


async def test_a_nudge_is_said_once_and_never_blocks(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        for _ in range(12):
            await it.press("f")
        it.screen._count()
        await settle(it.pilot)
        assert "won 12 times in a row" in it.text
        for _ in range(HEARD):
            it.screen._count()
        await settle(it.pilot)
        assert "won 12 times" not in it.text
        await it.press("j")
        assert it.screen.sitting.judged == 13


async def test_how_far_two_people_agree_is_told_in_the_statistics(several: Project, desk: Any) -> None:
    for handle in ("ada", "ben"):
        async with desk(several, rater=handle) as it:
            await it.press(*"fjfjfjfjfjfjfjfj")
    async with desk(several, (160, 48), rater="ada") as it:
        await it.press("i")
        await it.app.workers.wait_for_complete()
        await settle(it.pilot)
        assert "ada, ben: 16 items judged by two or more" in it.text
        assert "Krippendorff alpha" in it.text
        assert "Gwet AC1" in it.text


# Raters


async def test_raters_are_chosen_made_and_asked_for_consent(several: Project, desk: Any) -> None:
    async with desk(several, rater="ada") as it:
        await it.press("f", "R")
        assert isinstance(it.app.screen, RaterDialog)
        assert "▶ ✓ ada" in it.text
        await it.press("n", *"ben", "enter")
        assert it.screen.sitting.rater.handle == "ben"
        assert "pair 1 of" in it.text
        assert it.screen.command_line() == f"rlhf-tui label --rater ben --project {several.root}"
        await it.press("j", "R", "c")
        assert "may be named in exports" in it.text
        await it.press("e")
        assert isinstance(it.app.screen, WritingDialog)
        await it.press(*"tone: dry", "enter", "ctrl+s", "escape")
        await it.press("R")
        it.app.screen.query_one(OptionList).highlighted = 0
        await it.press("enter")
        assert it.screen.sitting.rater.handle == "ada"
        assert it.screen.sitting.judged == 1
    with several.store() as store:
        ada, ben = store.rater("ada"), store.rater("ben")
    assert ada is not None
    assert ben is not None
    assert (ada.consent, ben.consent, dict(ben.card)["tone"]) == (False, True, "dry")
    assert [one.rater.handle for one in judged(several)] == ["ada", "ben"]


# Nothing to judge, and others at work


async def test_new_pairs_appear_by_themselves(project: Project, desk: Any) -> None:
    async with desk(project) as it:
        assert "There is no pair to judge yet." in it.text
        await it.press("f", "d", "n", "e", "u", "z", "D", "m", "tab", "down")
        _add_pair(project, "Why?")
        it.screen._look_for_more()
        await settle(it.pilot)
        assert "Why?" in it.text
        _add_pair(project, "And why then?")
        await it.press("f")
        assert "And why then?" in it.text
        await it.press("f")
        assert "No pair is left: 2 judgements" in it.text
        await it.press("u")
        assert it.shown


def _add_pair(project: Project, prompt: str) -> None:
    with project.store() as store:
        store.add_prompts([NewPrompt((Message("user", prompt),), "test")], heldout_fraction=0.2)
        model = store.add_model("starter", "base")
        store.add_completions(
            NewCompletion(store.prompts()[-1].id, model, None, text, 3, "stop", place)
            for place, text in enumerate(("Because it is so.", "Nobody knows, and few ask."))
        )


# Keys of one's own


async def test_a_key_map_changes_what_the_keys_do(several: Project, desk: Any) -> None:
    mine = keys.keymap(
        {"label.left": "a", "label.flag": "f", "label.accept": "y", "app.copy": "Y", "label.stats": "minus"}
    )
    async with desk(several, keymap=mine) as it:
        assert "a A better" in it.text
        await it.press("f")
        assert isinstance(it.app.screen, FlagDialog)
        await it.press("escape", "a", "2")
        assert it.screen.sitting.judged == 1
        await it.press("minus")
        assert isinstance(it.app.screen, TextDialog)
        await it.press("escape", "M", "a", "2", "y", "y", "enter")
    assert [one.verdict for one in judged(several)] == [prefer(0), Verdict("accepted", accepted=(True, True))]


# What fails


@contextmanager
def locked(project: Project) -> Iterator[None]:
    """Another program holds the database."""
    other = sqlite3.connect(project.root / "preferences.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not wait for others."""
    opened = Store.open
    monkeypatch.setattr(Store, "open", classmethod(lambda cls, path, patience=0.0: opened(path, patience=0.0)))


@pytest.mark.usefixtures("impatient")
async def test_a_locked_database_is_said_and_nothing_is_lost(several: Project, desk: Any) -> None:
    async with desk(several) as it:
        before = it.shown
        await it.press("n", *"why", "enter")
        with locked(several):
            await it.press("f")
            assert isinstance(it.app.screen, TextDialog)
            await it.press("escape")
            assert it.shown == before
            assert "not stored: A better" in it.text
            assert it.screen.sitting.note == "why"
        await it.press("f")
        assert it.shown != before
        assert "not stored" not in it.text
    (one,) = judged(several)
    assert (one.verdict, one.note) == (prefer(0), "why")


async def test_a_full_disk_is_said_and_the_answer_can_be_given_again(several: Project, desk: Any) -> None:
    """SQLite is told that its file may not grow: the same failure, by the same code, as a disk without room."""
    why = "because " * 5000  # needs pages of its own
    async with desk(several) as it:
        database, before = it.screen.sitting.store.database, it.shown
        it.screen.sitting.note = why
        database.run(f"PRAGMA max_page_count = {database.number('PRAGMA page_count')}")
        await it.press("f")
        assert isinstance(it.app.screen, TextDialog)
        assert "The disk is full" in it.text
        await it.press("escape")
        assert it.shown == before
        assert "not stored: A better" in it.text
        database.run(f"PRAGMA max_page_count = {2**30}")
        await it.press("f")
        assert it.shown != before
    (one,) = judged(several)
    assert (one.verdict, one.note) == (prefer(0), why)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["rank", "rate", "accept"])
async def test_a_draft_survives_a_failure(several: Project, desk: Any, kind: str) -> None:
    said = {"rank": "213", "rate": "451", "accept": "ara"}[kind]
    async with desk(several, rules=Rules(kind=kind, size=3)) as it:
        await it.press(*said)
        with locked(several):
            await it.press("enter", "escape")
        await it.press("enter")
    assert len(judged(several)) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_sitting_that_cannot_begin_says_why(several: Project, desk: Any) -> None:
    with locked(several):
        async with desk(several) as it:
            assert isinstance(it.app.screen, TextDialog)
            await it.press("escape", "f", "u", "i", "M")
            assert it.app.screen is it.screen
            assert "esc goes back" in it.text
            await it.press("escape")
            assert not isinstance(it.app.screen, LabelScreen)


async def test_a_broken_store_is_told_in_words(several: Project, desk: Any, tmp_path: Path) -> None:
    (several.root / "preferences.db").write_bytes(b"not a database")
    async with desk(several) as it:
        assert isinstance(it.app.screen, TextDialog)
