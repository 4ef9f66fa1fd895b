"""From a disagreement to the labelling screen and back, on a real store: what is answered there counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import OptionList

from rlhf_tui.app import keys
from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.labelling import SecondLook
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.label_dialogs import FlagDialog
from rlhf_tui.app.screens.rejudge import RejudgeScreen
from rlhf_tui.app.screens.reward import RewardScreen
from rlhf_tui.app.screens.reward_windows import DisagreementsDialog
from rlhf_tui.assessment.records import Disagreement, Report
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import Judged, Verdict, prefer
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Done
from rlhf_tui.runs.folder import RunFolder

SIZES = [(80, 24), (160, 48), (60, 16)]
TextOf = Callable[[App[None]], str]


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def judge_all(project: Project, name: str, kind: str = "human", task: str = "pair", most: int = 99) -> None:
    with project.store() as store:
        rater = store.add_rater(name, kind=kind)
        session = store.start_session(rater.id, columns=80, rows=24)
        queue = Queue(store, rater, Rules(kind=task, size=2, repeat_share=0.0))
        while most and (offer := queue.next()) is not None:
            shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
            store.judge(shown.id, prefer(0) if task == "pair" else Verdict("ordered", ranks=(1, 2)), latency_ms=4000)
            queue.refresh(offer.task_id, offer.purpose)
            most -= 1


def active(project: Project) -> dict[int, Judged]:
    with project.store() as store:
        return {one.id: one for one in store.judgements()}


class Desk:
    """An app on the Reward screen with the list of disagreements open."""

    def __init__(self, app: RlhfApp, pilot: Pilot[None], clock: Any, text_of: TextOf) -> None:
        self.app, self.pilot, self._clock, self._text_of = app, pilot, clock, text_of

    async def press(self, *pressed: str, after: float = 3.0) -> None:
        for key in pressed:
            self._clock.now += after
            await self.pilot.press(key)
            await settle(self.pilot)

    @property
    def text(self) -> str:
        return self._text_of(self.app)

    @property
    def at(self) -> int | None:
        return self.app.screen.query_one("#listed", OptionList).highlighted


Open = Callable[..., Any]


@pytest.fixture
def desk(
    clock: Any,
    text_of: TextOf,
    report_of: Callable[..., Report],
    disagree: Callable[..., Disagreement],
    write_run: Callable[..., RunFolder],
    write_report: Callable[[Report, RunFolder], None],
) -> Open:
    """Open the disagreements of a project whose report disagrees with these judgements."""

    @asynccontextmanager
    async def sit(
        project: Project, ids: list[int], size: tuple[int, int] = (80, 24), **more: Any
    ) -> AsyncIterator[Desk]:
        found = tuple(disagree(one, -3.25 + place / 10, **more) for place, one in enumerate(ids))
        run = write_run(project, "reward", [Done("finished", result={})])
        write_report(report_of(disagreements=found), run)
        app = RlhfApp(project, clock=clock, start="reward")
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            it = Desk(app, pilot, clock, text_of)
            await it.press("d")
            assert isinstance(app.screen, DisagreementsDialog)
            yield it

    return sit


@pytest.mark.parametrize("size", SIZES)
async def test_a_judgement_is_given_again_and_the_list_comes_back(
    prompted: Project, desk: Open, size: tuple[int, int]
) -> None:
    judge_all(prompted, "ann")
    before = active(prompted)
    ids = list(before)[:3]
    async with desk(prompted, ids, size) as it:
        await it.press("enter")
        screen = it.app.screen
        assert isinstance(screen, RejudgeScreen)
        assert [one.id for one in screen.sitting.shown.shown] == [one.id for one in before[ids[0]].shown]
        await it.press("k")
        assert isinstance(it.app.screen, DisagreementsDialog)
        assert it.text.count("✓ judged again") == 1
        assert it.at == 1
        await it.press("escape")
        assert isinstance(it.app.screen, RewardScreen)
    after = active(prompted)
    assert ids[0] not in after
    (new,) = set(after) - set(before)
    assert (after[new].task_id, after[new].rater.handle) == (before[ids[0]].task_id, "ann")
    assert after[new].verdict == prefer(1, 2)
    assert {key: after[key] for key in before if key != ids[0]} == {key: before[key] for key in before if key != ids[0]}


async def test_one_after_the_other_until_all_are_settled(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    ids = list(active(prompted))[:3]
    async with desk(prompted, ids) as it:
        await it.press("enter", "j", "enter", "j", "enter", "space")
        assert it.text.count("✓ judged again") == 3
        assert it.at == 2
    assert not set(ids) & set(active(prompted))


async def test_a_label_given_again_makes_the_report_old(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    ids = list(active(prompted))[:1]
    async with desk(prompted, ids) as it:
        await it.press("escape")
        assert "The labels have changed" not in it.text
        await it.press("d", "enter", "j", "escape")
        it.app.look()
        await settle(it.pilot)
        assert "The labels have changed since: ⏎ trains again." in it.text


async def test_it_is_blind(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    ids = list(active(prompted))[:2]
    async with desk(prompted, ids) as it:
        assert "▶3.2x" in it.text
        assert "The model prefers this" in it.text
        await it.press("enter")
        for word in ("prefer", "3.2", "score", "isagree", "The model", "reward"):
            assert word not in it.text, word
        assert "Judge again  ann" in it.text
        assert "esc leaves the answer as it is" in it.text


async def test_esc_leaves_the_answer_as_it_was(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    before = active(prompted)
    async with desk(prompted, list(before)[:2]) as it:
        await it.press("down", "enter", "escape")
        assert isinstance(it.app.screen, DisagreementsDialog)
        assert "judged again" not in it.text
        assert it.at == 1
    assert active(prompted) == before


async def test_a_key_that_comes_too_early_judges_nothing(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    before = active(prompted)
    async with desk(prompted, list(before)[:1]) as it:
        await it.press("enter")
        await it.press("k", after=0.1)
        assert isinstance(it.app.screen, RejudgeScreen)
    assert active(prompted) == before


async def test_nothing_leads_away_from_the_one_judgement(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    before = active(prompted)
    async with desk(prompted, list(before)[:1]) as it:
        await it.press("enter", "s", "u", "U", "h", "M", "R")
        assert isinstance(it.app.screen, RejudgeScreen)
        last = it.text.splitlines()[-1]
        assert "Skip" not in last
        assert "Undo" not in last
        assert "esc Back" in last
        await it.press("exclamation_mark")
        assert isinstance(it.app.screen, FlagDialog)
        await it.press("escape", "question_mark")
        assert isinstance(it.app.screen, TextDialog)
        assert "Take the last answer back" not in it.text
    assert active(prompted) == before


async def test_every_rater_is_asked_as_themselves(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    judge_all(prompted, "bob")
    his = [key for key, one in active(prompted).items() if one.rater.handle == "bob"]
    async with desk(prompted, his[:1], rater="bob") as it:
        await it.press("enter")
        assert "Judge again  bob" in it.text
        await it.press("d")
    after = active(prompted)
    assert his[0] not in after
    assert [one.rater.handle for one in after.values()].count("ann") == 10
    assert [one.rater.handle for one in after.values()].count("bob") == 10


@pytest.mark.parametrize("kind", ["model", "rule"])
async def test_nobody_answers_for_a_model_or_a_rule(prompted: Project, desk: Open, kind: str) -> None:
    judge_all(prompted, "demo", kind)
    before = active(prompted)
    async with desk(prompted, list(before)[:1], rater="demo") as it:
        await it.press("enter")
        assert isinstance(it.app.screen, TextDialog)
        assert f"This is a judgement of demo, a {kind}." in it.text
        assert "Judge the pair as yourself, on the Label stage." in " ".join(it.text.replace("│", " ").split())
        await it.press("escape")
        assert isinstance(it.app.screen, DisagreementsDialog)
    assert active(prompted) == before


async def test_an_imported_rater_is_corrected_in_their_name(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "file", "import")
    before = active(prompted)
    async with desk(prompted, list(before)[:1], rater="file") as it:
        await it.press("enter")
        assert "Judge again  file" in it.text
        await it.press("k")
    assert next(iter(before)) not in active(prompted)


async def test_what_no_longer_counts_is_said(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann")
    ids = list(active(prompted))[:2]
    with prompted.store() as store:
        rater = store.rater("ann")
        assert rater is not None
        session = store.start_session(rater.id, columns=80, rows=24)
        shown = store.reopen(ids[0])
        store.judge(shown.id, prefer(1), latency_ms=4000)
        store.end_session(session)
    async with desk(prompted, ids) as it:
        assert it.text.count("✓ judged again") == 1
        await it.press("enter")
        assert "This judgement no longer counts." in it.text
        await it.press("escape")
        assert isinstance(it.app.screen, DisagreementsDialog)


def test_a_second_look_at_what_no_longer_counts_ends_its_sitting(prompted: Project, clock: Any) -> None:
    judge_all(prompted, "ann", most=2)
    with prompted.store() as store:
        rater = store.rater("ann")
        assert rater is not None
        with pytest.raises(UserError, match="no longer counts"):
            SecondLook(store, rater, judgement_id=999, rules=Rules(), columns=80, rows=24, clock=clock)
        assert store.database.number("SELECT COUNT(*) FROM session WHERE ended_at IS NULL") == 1  # of judge_all


def test_a_second_look_shows_nothing_else(prompted: Project, clock: Any) -> None:
    judge_all(prompted, "ann", most=2)
    (first, _) = active(prompted)
    with prompted.store() as store:
        rater = store.rater("ann")
        assert rater is not None
        shown = store.database.number("SELECT COUNT(*) FROM presentation")
        sitting = SecondLook(store, rater, judgement_id=first, rules=Rules(), columns=80, rows=24, clock=clock)
        clock.now += 3
        assert sitting.shown is not None
        assert sitting.answer(prefer(1))
        assert sitting.shown is None
        assert sitting.look() is False
        assert store.database.number("SELECT COUNT(*) FROM presentation") == shown


async def test_a_ranking_is_opened_as_a_ranking(prompted: Project, desk: Open) -> None:
    judge_all(prompted, "ann", task="rank")
    before = active(prompted)
    async with desk(prompted, list(before)[:1]) as it:
        await it.press("enter")
        assert it.app.screen.kind == "rank"  # type: ignore[attr-defined]
        await it.press("2", "1", "enter")
        assert isinstance(it.app.screen, DisagreementsDialog)
    after = active(prompted)
    (new,) = set(after) - set(before)
    assert after[new].verdict.ranks == (2, 1)


def _full(*_: Any, **__: Any) -> None:
    raise UserError("The disk is full.")


@asynccontextmanager
async def answered_while(desk: Open, project: Project, owner: type, failing: str) -> AsyncIterator[Desk]:
    """A judgement that was opened and answered while one method fails; it counts in the end."""
    judge_all(project, "ann")
    first = next(iter(active(project)))
    async with desk(project, [first]) as it:
        await it.press("enter")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, failing, _full)
            await it.press("k")
        assert isinstance(it.app.screen, TextDialog)
        yield it
        assert isinstance(it.app.screen, DisagreementsDialog)
    assert first not in active(project)


async def test_an_answer_that_cannot_be_stored_can_be_given_again(prompted: Project, desk: Open) -> None:
    async with answered_while(desk, prompted, Store, "judge") as it:
        await it.press("escape")
        assert isinstance(it.app.screen, RejudgeScreen)
        assert "not stored: B much better" in it.text
        await it.press("k")


async def test_trouble_after_the_answer_is_stored_still_leads_back(prompted: Project, desk: Open) -> None:
    async with answered_while(desk, prompted, Queue, "refresh") as it:
        assert "Your answer is stored" in it.text
        await it.press("escape")


async def test_looking_for_more_between_the_answer_and_the_end_is_harmless(prompted: Project, desk: Open) -> None:
    async with answered_while(desk, prompted, Queue, "refresh") as it:
        (screen,) = [one for one in it.app.screen_stack if isinstance(one, RejudgeScreen)]
        screen._look_for_more()  # the clock's, under the window that tells of the trouble
        await it.press("escape")


def test_the_keys_of_a_second_look() -> None:
    for kind in ("pair", "rank", "rate", "accept"):
        one, again = keys.screen_of(kind), keys.rejudging(keys.screen_of(kind))
        gone = {action.id for action in keys.actions(one)} - {action.id for action in keys.actions(again)}
        assert gone == {"label.skip", "label.undo", "label.redo", "label.history", "label.mode", "label.rater"}
