"""The report on the Reward screen and in its windows: every verdict, every size, nothing measured, hostile texts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from textual.app import App
from textual.pilot import Pilot
from textual.screen import ModalScreen

from rlhf_tui.app.app import RlhfApp
from rlhf_tui.app.appraisal import LEVELS, Appraisal, with_handles
from rlhf_tui.app.screens import reward_panels
from rlhf_tui.app.screens.dialogs import TextDialog
from rlhf_tui.app.screens.reward import RewardScreen
from rlhf_tui.app.screens.reward_page import page
from rlhf_tui.app.screens.reward_pictures import CALIBRATION, CURVE, PICTURES, captioned
from rlhf_tui.app.screens.reward_windows import BestOfDialog, DisagreementsDialog, ReportDialog
from rlhf_tui.app.widgets.textpane import TextPane
from rlhf_tui.assessment import report as report_module
from rlhf_tui.assessment.records import Choice, Curve, CurvePoint, Finding, Preview, Report
from rlhf_tui.assessment.report_sections import sections
from rlhf_tui.preferences.records import Rater
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project
from rlhf_tui.runs.events import Done, Metric
from rlhf_tui.runs.folder import RunFolder, create_run
from rlhf_tui.runs.journal import JournalWriter

SIZES = [(80, 24), (160, 48)]
SMALL = [(60, 16), (40, 12), (20, 6)]
ALL = [*SIZES, *SMALL, (120, 30)]
TextOf = Callable[[App[None]], str]
Make = Callable[..., Report]
Put = Callable[[Report], Project]
#: What a terminal would obey, or nobody could see; the box of a panel is drawn over nothing of it.
OBEYED = "\x1b\x07\u202e\u202c"


async def settle(pilot: Pilot[None]) -> None:
    for _ in range(3):
        await pilot.pause()
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
    await pilot.pause()


@asynccontextmanager
async def opened(project: Project, size: tuple[int, int], *pressed: str) -> Any:
    app = RlhfApp(project, start="reward")
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for key in pressed:
            await pilot.press(key)
            await settle(pilot)
        yield app, pilot


def flat(text: str) -> str:
    """The words on screen, run together across lines and borders."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


def beside(text: str, first: str, *others: str) -> bool:
    """Whether these, which are all on screen, stand in one line of it."""
    assert not [one for one in (first, *others) if one not in text]
    line = next(line for line in text.split("\n") if first in line)
    return all(one in line for one in others)


# The verdict


@pytest.mark.parametrize("size", [*SIZES, (120, 36), (110, 32)])
@pytest.mark.parametrize("level", LEVELS)
async def test_the_verdict_its_reasons_and_what_to_do_are_seen_at_once(
    level: str, size: tuple[int, int], report_of: Make, reported: Put, text_of: TextOf
) -> None:
    report = report_of(level)
    async with opened(reported(report), size) as (app, _):
        text = text_of(app)
    said = flat(text)
    assert f"{LEVELS[level][0]} {report.verdict.headline}" in said
    for reason in report.verdict.because:
        assert f"· {reason}" in said
    assert f"→ {report.verdict.todo}" in said
    assert {cell_len(row) for row in text.split("\n")} == {size[0]}
    assert re.search(r"rater's ceiling\s+86 %", text)
    assert re.search(r"always shorter\s+58 %", text)
    assert "coin" in text


def test_every_level_has_a_mark_of_its_own_that_needs_no_colour() -> None:
    assert [mark for mark, _ in LEVELS.values()] == ["✓", "~", "…", "✗"]


@pytest.mark.parametrize("size", ALL)
async def test_no_size_breaks_it(size: tuple[int, int], report_of: Make, reported: Put, text_of: TextOf) -> None:
    async with opened(reported(report_of("narrow")), size) as (app, pilot):
        for keys in ((), ("v",), ("d",), ("b",), ("c",), ("c", "pagedown", "pagedown")):
            await pilot.press(*keys)
            await settle(pilot)
            text = text_of(app)
            assert len(text.split("\n")) == size[1]
            assert {cell_len(row) for row in text.split("\n")} == {size[0]}
            assert not set(text) & set(OBEYED)
            for other in ((100, 30), size):
                await pilot.resize_terminal(*other)
                await settle(pilot)
            if isinstance(app.screen, ModalScreen):
                await pilot.press("escape")
        assert isinstance(app.screen, RewardScreen)


@pytest.mark.parametrize("size", ALL)
async def test_a_report_that_could_measure_nothing(
    size: tuple[int, int], nothing_measured: Make, reported: Put, text_of: TextOf
) -> None:
    async with opened(reported(nothing_measured()), size, "v", "escape", "d", "b") as (app, _):
        assert isinstance(app.screen, RewardScreen)
        if size in SIZES:
            assert "Nothing could be measured" in text_of(app)


async def test_what_decides_comes_first(report_of: Make, reported: Put, text_of: TextOf) -> None:
    def order(text: str) -> list[str]:
        return re.findall(r"(held-out|cross-validated) +\d+ %", text)

    narrow, ready = report_of("narrow"), report_of("ready")
    assert (narrow.measured_on, ready.measured_on) == ("crossvalidated", "heldout")
    async with opened(reported(narrow), (80, 24)) as (app, _):
        assert order(text_of(app)) == ["cross-validated", "held-out"]
    async with opened(reported(ready), (80, 24)) as (app, _):
        assert order(text_of(app)) == ["held-out", "cross-validated"]


async def test_on_a_large_terminal_there_is_everything(report_of: Make, reported: Put, text_of: TextOf) -> None:
    async with opened(reported(report_of("narrow")), (160, 48)) as (app, _):
        text = flat(text_of(app))
    for said in (
        "The one shown first was called better in 64 % of 480 pairs.",
        "→ Read both completions before answering",
        "always longer 42 %",
        "training labels 97 %",
        "Of a quick head in cross-validation. Off by",
        "50 more pairs: +0.8 points (-0.2 to +2.1)",
        "by strength",
        "much better 71 %",
        "about as long (within 10 %) 73 %",
        "of 16 +0.81 = of 4",
        "scores +0.31 ± 1.42 64 of the base",
        "whoever did the rating: ann, demo.",
        "ensemble 64, 66, 61 %",
        "judged 598 pairs 310 prompts",
        "a quick head in cross-validation",
    ):
        assert said in text, said


async def test_findings_are_named_on_a_small_terminal(report_of: Make, reported: Put, text_of: TextOf) -> None:
    async with opened(reported(report_of("narrow")), (80, 24)) as (app, _):
        assert "⚠ Found: position   v says what to do" in text_of(app)
    async with opened(reported(report_of("broken")), (80, 24)) as (app, _):
        assert "✗ Found: collapsed" in text_of(app)
    async with opened(reported(report_of("ready")), (80, 24)) as (app, _):
        assert "Found:" not in text_of(app)


def test_reasons_that_do_not_fit_are_pointed_to(report_of: Make) -> None:
    report = report_of("narrow")
    for width in (20, 40, 76):
        for height in range(1, 16):
            text = reward_panels.banner(report, width, height, "v").plain
            assert len(text.split("\n")) <= height
            assert text.startswith("~ Usable")
    whole = reward_panels.banner(report, 76, 15, "v").plain
    assert "v shows" not in whole
    cut = reward_panels.banner(report, 76, 6, "v").plain
    assert "v shows the whole report" in cut
    assert "→ Label about 120" in cut


def test_a_difference_of_nothing_has_no_sign(report_of: Make) -> None:
    rule = replace(report_of().baselines[0], difference=(-0.004, -0.1, 0.004))
    notes = [one.note for one in reward_panels.measured(report_of(baselines=(rule,)))]
    assert "0 (-10 to 0)" in notes


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_curve_that_is_one_value_lies_where_the_scale_says(report_of: Make, share: float) -> None:
    points = tuple(CurvePoint(part, part * 100, share, share, share) for part in (0.25, 0.5, 0.75, 1.0))
    report = report_of(curve=Curve(points, (0.0, 0.0, 0.0), share, None))
    rows = PICTURES[CURVE](report, 50, 8).plain.split("\n")
    labels = [rows[0].split()[0], rows[6].split()[0]]
    assert labels[0] != labels[1]
    assert (rows[0] if share else rows[6]).count("●") == 4


def test_the_whiskers_of_a_bin_are_those_of_the_report(report_of: Make) -> None:
    report = report_of()
    assert report.calibration is not None
    sure = replace(report.calibration.bins[0], predicted=0.75, observed=0.8, under=0.78, over=0.82)
    tall = [
        PICTURES[CALIBRATION](replace(report, calibration=replace(report.calibration, bins=(one,))), 50, 20).plain
        for one in (sure, replace(sure, under=0.4, over=1.0))
    ]
    assert tall[0].count("│") < 3 < tall[1].count("│")


def test_a_number_and_its_sign_stay_together() -> None:
    for width in range(8, 40):
        lines = reward_panels.wrapped("right about 64 % (58 to 70 %) of 240 pairs", width)
        assert not any(line.startswith("%") for line in lines)


# When it is there, and whether it is still of these labels


async def test_without_a_report_the_keys_say_so(finished: Project, text_of: TextOf) -> None:
    async with opened(finished, (80, 24)) as (app, pilot):
        assert "v Report" not in text_of(app)
        assert "train loss" in text_of(app)
        for key in "vdbc":
            app.clear_notifications()
            await pilot.press(key)
            assert next(iter(app._notifications)).message.startswith("There is no report yet")
        assert isinstance(app.screen, RewardScreen)


async def test_while_it_trains_there_are_the_curves(
    report_of: Make, reported: Put, alive: Callable[[RunFolder], AbstractContextManager[None]], text_of: TextOf
) -> None:
    project = reported(report_of("ready"))
    run = create_run(project, "reward")
    with alive(run), JournalWriter(run.events_path) as emit:
        emit(Metric(1, {"loss": 0.69}))
        async with opened(project, (80, 24)) as (app, _):
            text = text_of(app)
            assert "train loss  0.690" in text
            assert "Is it good enough?" not in text
            assert "v Report" not in text


async def test_a_run_that_failed_after_its_report_is_no_finished_one(
    report_of: Make, labelled: Project, write_run: Callable[..., RunFolder], write_report: Any, text_of: TextOf
) -> None:
    error = {"what": "The adapter cannot be saved.", "why": "", "todo": ""}
    write_report(report_of("ready"), write_run(labelled, "reward", [Done("failed", error=error)]))
    async with opened(labelled, (80, 24)) as (app, _):
        assert "The adapter cannot be saved; L says why" in text_of(app)
        assert "Ready" not in text_of(app)


async def test_the_curves_can_be_looked_at_again(report_of: Make, reported: Put, text_of: TextOf) -> None:
    async with opened(reported(report_of("ready")), (80, 24), "c") as (app, pilot):
        assert "train loss" in text_of(app)
        assert "c shows the report" in text_of(app)
        assert app.command_line().startswith("rlhf-tui train reward --project ")
        await pilot.press("c")
        await settle(pilot)
        assert "✓ Ready" in text_of(app)
        assert app.command_line().startswith("rlhf-tui runs report reward-0001 --project ")


async def test_beside_the_curves_there_is_no_other_verdict(
    report_of: Make, labelled: Project, write_run: Callable[..., RunFolder], write_report: Any, text_of: TextOf
) -> None:
    """61 of 100: at the usual 95 % it would beat a coin, and the report says that this may be luck."""
    heldout = {"n": 100, "accuracy": 0.61, "low": 0.512, "high": 0.7, "shorter": 0.4, "longer": 0.5}
    said = {"heldout": heldout, "verdict": "not_yet", "headline": "Not yet — label about 130 more pairs."}
    write_report(report_of("not_yet"), write_run(labelled, "reward", [Done("finished", result=said)]))
    async with opened(labelled, (160, 48), "c") as (app, _):
        assert "61 %" in text_of(app)
        assert "… Not yet — label about 130 more pairs." in text_of(app)
        assert "eats a coin" not in text_of(app)


async def test_a_damaged_report_is_told_and_nothing_breaks(report_of: Make, reported: Put, text_of: TextOf) -> None:
    project = reported(report_of("ready"))
    (project.runs / "reward-0001" / "report.json").write_text('{"run": ')
    async with opened(project, (160, 48), "v") as (app, pilot):
        assert isinstance(app.screen, TextDialog)
        assert "is damaged" in text_of(app)
        await pilot.press("escape")
        await settle(pilot)
        assert "⚠ The report cannot be read: v says why." in text_of(app)


async def test_it_is_read_once_and_again_when_it_changes(
    report_of: Make, reported: Put, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, reads = reported(report_of("ready")), []
    really = report_module.load_report
    monkeypatch.setattr(report_module, "load_report", lambda folder: reads.append(folder) or really(folder))
    async with opened(project, (160, 48)) as (app, pilot):
        for _ in range(5):
            app.look()
            app.screen.renew()
            await settle(pilot)
        assert len(reads) == 1
        path = project.runs / "reward-0001" / "report.json"
        path.write_bytes(path.read_bytes().replace(b"Ready: right", b"Ready indeed: right"))
        app.screen.renew()
        await settle(pilot)
        assert len(reads) == 2
        assert "Ready indeed" in text_of(app)


async def test_labels_are_hashed_only_when_they_have_been_written_to(
    report_of: Make, reported: Put, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, really = [], Store.snapshot_hash
    project = reported(report_of("ready"))
    monkeypatch.setattr(Store, "snapshot_hash", lambda store: hashed.append(1) or really(store))
    async with opened(project, (80, 24)) as (app, pilot):
        for _ in range(8):
            app.look()
            app.screen.renew()
            await settle(pilot)
        assert len(hashed) == 1
        assert "have changed" not in text_of(app)
        with project.store() as store:
            store.add_prompts([], heldout_fraction=0.2)
            rater = store.rater("demo")
            assert rater is not None
            shown = store.reopen(store.facts()[0].judgement_id)
            store.judge(shown.id, replace(store.facts()[0].verdict, ranks=(2, 1)), latency_ms=4000)
        for _ in range(3):
            app.look()
            await settle(pilot)
        assert 2 <= len(hashed) <= 3
        assert "⚠ The labels have changed since: ⏎ trains again." in text_of(app)


async def test_labels_that_cannot_be_read_make_no_noise(
    report_of: Make, reported: Put, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(store: Store) -> str:
        raise report_module.UserError("The labels are locked.")

    project = reported(report_of("ready"))
    monkeypatch.setattr(Store, "snapshot_hash", locked)
    async with opened(project, (80, 24)) as (app, _):
        assert isinstance(app.screen, RewardScreen)
        assert "have changed" not in text_of(app)


def test_an_appraisal_is_of_one_run_at_a_time(
    report_of: Make, labelled: Project, write_run: Callable[..., RunFolder], write_report: Any
) -> None:
    first, second, third = (write_run(labelled, "reward", [Done("finished", result={})]) for _ in range(3))
    write_report(report_of("ready"), first)
    write_report(report_of("narrow"), second)
    appraisal = Appraisal()
    levels = [found.verdict.level if (found := appraisal.of(run)) else None for run in (first, second, third, first)]
    assert levels == ["ready", "narrow", None, "ready"]
    os.utime(first.path / "report.json", ns=(1, 1))
    (first.path / "report.json").unlink()
    assert appraisal.of(first) is None
    assert appraisal.trouble is None


def test_raters_are_called_as_in_the_project(report_of: Make, disagree: Any) -> None:
    rater = Rater(1, "0123456789abcdef", "ann", "human")
    assert rater.public_name == "rater-01234567"
    report = report_of("narrow", disagreements=(disagree(1, -2.0, rater=rater.public_name),))
    report = replace(report, labels=replace(report.labels, raters=(rater.public_name, "demo")))
    named = with_handles(report, [rater])
    assert named.labels.raters == ("ann", "demo")
    assert [one.rater for one in named.disagreements] == ["ann"]


# The windows


def test_the_page_says_all_that_the_report_says_with_both_pictures(report_of: Make) -> None:
    report = report_of("narrow")
    for width in (40, 74, 110):
        text = page(report, width).plain
        assert max(cell_len(line) for line in text.split("\n")) <= width
        said = flat(text)
        for section in sections(report):
            assert " ".join(section.title.split()) in said
        assert text.count("●") == 9  # five bins, four points
        assert "how sure it is" in text
    assert {section.title for section in sections(report)} >= set(PICTURES)


def test_hostile_texts_stay_on_the_page_as_text(report_of: Make) -> None:
    evil = "\x1b[2J\x1b]0;title\x07 \u202eevil"
    finding = Finding(evil, "warning", evil, evil, evil)
    text = page(report_of("narrow", findings=(finding,)), 74).plain
    assert not set(text) & set(OBEYED)
    assert not set(reward_panels.summary(report_of(findings=(finding,)), "v").plain) & set(OBEYED)
    assert not set(reward_panels.findings((finding,), 40, 9).plain) & set(OBEYED)


def test_wide_letters_do_not_push_a_line_over_its_end(disagree: Any) -> None:
    for done in ("", "✓ judged again"):
        for width in (30, 50, 80):
            line = reward_panels.disagreement(disagree(1, -2.0, prompt_text="漢字" * 90), 3, width, done=done)
            assert line.cell_length <= width
            assert line.plain.endswith(done or "…")


@pytest.mark.parametrize("height", range(1, 14))
def test_a_captioned_picture_keeps_to_its_height(report_of: Make, height: int) -> None:
    for title in PICTURES:
        lines = captioned(report_of("narrow"), title, 46, height).plain.split("\n")
        assert len(lines) <= height
        assert max(map(len, lines)) <= 46


async def test_the_report_window_scrolls_and_closes(report_of: Make, reported: Put, text_of: TextOf) -> None:
    async with opened(reported(report_of("narrow")), (80, 24), "v") as (app, pilot):
        assert isinstance(app.screen, ReportDialog)
        assert "Report on reward-0001" in text_of(app)
        assert "From what" not in text_of(app)
        await pilot.press("end")
        await settle(pilot)
        assert "RLHF tunes behaviour, not facts." in flat(text_of(app))
        await pilot.press("home", "j", "j", "space", "k")
        await pilot.press("escape")
        assert isinstance(app.screen, RewardScreen)


async def test_between_small_and_large_findings_and_curves_take_the_room(
    report_of: Make, reported: Put, text_of: TextOf
) -> None:
    async with opened(reported(report_of("narrow")), (120, 36)) as (app, pilot):
        for size, shown in [((120, 36), True), ((109, 36), False), ((120, 31), False), ((160, 48), True)]:
            await pilot.resize_terminal(*size)
            await settle(pilot)
            text = text_of(app)
            for title in ("What was found", "Is it as sure as it should be", "Would more labels help"):
                assert (title in text) is shown, (size, title)
            assert ("says what to do" in text) is not shown
            assert ("Largest disagreements" in text) is (size == (160, 48))


@pytest.mark.parametrize(("width", "together"), [(80, True), (60, False)])
async def test_disagreements_show_both_texts(
    width: int, together: bool, report_of: Make, reported: Put, text_of: TextOf
) -> None:
    async with opened(reported(report_of("narrow")), (width, 30), "d") as (app, pilot):
        assert isinstance(app.screen, DisagreementsDialog)
        text = text_of(app)
        assert beside(text, "ann prefers this", "The model prefers this") is together
        assert re.search(r"2\.9x  ann  Explain a KL penalty", text)
        assert "[bold]not[/bold]" in flat(text)
        assert not set(text) & set(OBEYED)
        await pilot.press("j", "down", "k")
        await settle(pilot)
        assert "▶2.7x" in text_of(app)
        before = app.screen.query_one("#contrary", TextPane).top
        await pilot.press("pagedown")
        assert app.screen.query_one("#contrary", TextPane).top > before
        assert "▶2.7x" in text_of(app)
        await pilot.press("q")
        assert isinstance(app.screen, RewardScreen)


async def test_what_was_cross_validated_is_said(report_of: Make, reported: Put, disagree: Any, text_of: TextOf) -> None:
    report = report_of("narrow", disagreements=(disagree(1, -1.0, kind="crossvalidated"),))
    async with opened(reported(report), (160, 48), "d") as (app, _):
        assert "An untaught model prefers this" in text_of(app)


@pytest.mark.parametrize(("width", "together"), [(80, False), (160, True)])
async def test_best_of_n_beside_or_above_each_other(
    width: int, together: bool, report_of: Make, reported: Put, text_of: TextOf
) -> None:
    async with opened(reported(report_of("narrow")), (width, 40), "b") as (app, pilot):
        assert isinstance(app.screen, BestOfDialog)
        text = text_of(app)
        assert beside(text, "the first one", "best of 4", "best of 16") is together
        for said in ("score -0.42 · 118 tokens", "score +0.81 · 40 tokens", "Prompt 1 of 3"):
            assert said in text, said
        assert "The same as best of 4." in text
        assert "PPO pulls towards the best of 16." in flat(text)
        assert not set(text) & set(OBEYED)
        await pilot.press("right", "right", "right", "left")
        await settle(pilot)
        assert "Prompt 3 of 3" in text_of(app)
        assert "Why is the sky blue, take 3?" in text_of(app)
        await pilot.press("down", "j", "up", "pagedown", "pageup", "b")
        assert isinstance(app.screen, RewardScreen)


async def test_previews_with_different_numbers_of_choices(report_of: Make, reported: Put, text_of: TextOf) -> None:
    many = Preview("Many?", tuple(Choice(n, f"text {n}", float(n), n) for n in (1, 4, 16)))
    one = Preview("One?", (Choice(1, "alone", 0.0, 1),))
    async with opened(reported(report_of("ready", preview=(one, many))), (80, 24), "b") as (app, pilot):
        assert "alone" in text_of(app)
        assert "best of" not in text_of(app).split("PPO")[0].replace("Best of n", "")
        await pilot.press("right")
        await settle(pilot)
        assert "text 16" in text_of(app)


# Beyond colours and glyphs


@pytest.mark.parametrize("keys", [(), ("v",), ("d",), ("b",)], ids="".join)
async def test_plain_ascii(
    keys: tuple[str, ...], report_of: Make, reported: Put, text_of: TextOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_TUI_ASCII", "1")
    async with opened(reported(report_of("narrow")), (160, 48), *keys) as (app, _):
        text = text_of(app)
        assert not {letter for letter in text if not letter.isascii()} - set("漢字")


async def test_before_ppo_the_verdict_is_said_again(
    labelled: Project, write_run: Callable[..., RunFolder], text_of: TextOf
) -> None:
    labelled.adapter("reward").mkdir()
    (labelled.adapter("reward") / "manifest.json").write_text("{}")
    result = {"verdict": "not_yet", "headline": "Not yet — label about 80 more pairs."}
    write_run(labelled, "reward", [Done("finished", result=result)])
    async with opened(labelled, (80, 24), "4") as (app, _):
        assert "… reward model: Not yet — label about 80 more pairs." in text_of(app)
