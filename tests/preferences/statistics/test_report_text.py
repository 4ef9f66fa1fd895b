"""The statistics in words: readable at 80 columns, honest about what cannot be said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rlhf_tui.preferences.agreement import agreements, pairs_of_raters
from rlhf_tui.preferences.nudges import nudges
from rlhf_tui.preferences.project_report import ProjectReport, RaterReport, project_report
from rlhf_tui.preferences.records import Counts, Fact, Message, NewCompletion, NewPrompt, Verdict, prefer, tied
from rlhf_tui.preferences.report_text import MOST_RATERS, project_text, rater_text
from rlhf_tui.preferences.selection import selection_report
from rlhf_tui.preferences.statistics import label_report
from rlhf_tui.preferences.store import Store
from rlhf_tui.reports import label_stats

Make = Callable[..., Fact]
COUNTS = Counts(10, 8, 2, 40, 3, 7, 25, 20, 3, 2, 0, 0, 0, 4, 1, 0, 2)


def rater(name: str, facts: Sequence[Fact], kind: str = "human") -> RaterReport:
    report = label_report(facts)
    return RaterReport(name, kind, report, tuple(nudges(facts, report)))


def judged(fact: Make, name: str, n: int, *, seed: int, repeats: int = 0) -> list[Fact]:
    """Answers with noise to the same pairs for everybody, some of them twice."""
    rng, found = random.Random(seed), []
    for k in range(n):
        place = int(rng.random() < 0.3)
        more = {"rater": name, "task_id": k, "prompt_id": k // 2, "characters": (200 + k, 120)}
        found.append(fact(tied() if k % 9 == 8 else prefer(place), (2 * k, 2 * k + 1), predicted=0.7, **more))
        if k < repeats:
            found.append(fact(prefer(1 - place), (2 * k + 1, 2 * k), purpose="repeat", **more))
    return found


def whole(fact: Make, n: int) -> ProjectReport:
    anna, bob = judged(fact, "anna", n, seed=1, repeats=n // 2), judged(fact, "bob", n, seed=2)
    picked = [replace(one, selection="active") if one.task_id % 2 else one for one in anna]
    return ProjectReport(
        COUNTS,
        (rater("anna", anna), rater("bob", bob)),
        tuple(agreements([*anna, *bob])),
        tuple(pairs_of_raters([*anna, *bob])),
        selection_report(picked),
    )


def line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(name))


def test_everything_fits_into_eighty_columns(fact: Make) -> None:
    for n in (4, 200):
        text = project_text(whole(fact, n))
        assert max(map(len, text.splitlines())) <= 80


def test_enough_answers_say_what_they_mean(fact: Make) -> None:
    text = project_text(whole(fact, 200))
    assert "too few to say" not in text.split("\n\n", 1)[1]
    assert "10 prompts (8 for training, 2 held out), 40 candidates (3 near-identical left\nout)" in text
    assert "of 178 " in line(text, "the first one is better")
    spoken = " ".join(text.split())
    assert "Shown again in reverse order, what anna preferred wins again 100% of 89 times" in spoken
    assert "no reward model can agree with them more often than that" in spoken
    assert "Agreement about 200 pairs of answers (100 prompts) that two or more have judged: anna and bob." in spoken
    for name in ("Krippendorff's alpha", "Gwet's AC1", "Fleiss' kappa", "a tie counting half"):
        assert "n 200" in line(text, name) or "of 200" in line(text, name)
    assert "picked because the model was unsure: 100 pairs" in text
    assert "behaves as anna and bob would have it: behaviour is shaped by whoever did the rating" in spoken
    assert "RLHF tunes behaviour, not facts." in spoken


def test_few_answers_say_so(fact: Make) -> None:
    text = project_text(whole(fact, 4))
    for name in ("the first one is better", "ties", "Krippendorff's alpha", "the same, ties included"):
        assert line(text, name).endswith("too few to say")
    assert "Too few answers of both kinds to compare them." in text
    assert "too few to say what that means for a reward model" in " ".join(text.split())


def test_nobody_and_nothing(fact: Make) -> None:
    assert "Nobody has judged anything yet" in project_text(ProjectReport(COUNTS, (), (), (), None))
    text = rater_text(rater("me", []))
    assert "0 judgements; 0 skipped, 0 discarded." in text
    assert "No repeat yet tells how far me would say the same again" in " ".join(text.split())


def test_raters_who_never_both_see_a_better_side_are_not_said_to_agree_by_nothing(fact: Make) -> None:
    """There is nothing to count the third way, and everything is alike the fourth."""
    facts = [fact(tied(), (2 * k, 2 * k + 1), rater=name, task_id=k) for k in range(5) for name in ("anna", "bob")]
    text = project_text(ProjectReport(COUNTS, (), tuple(agreements(facts)), (), None))
    assert line(text, "where both see a better side").endswith("nothing to count yet")
    assert line(text, "the same, ties included").split()[4:7] == ["100.0%", "of", "5"]
    assert line(text, "Krippendorff's alpha").endswith("undefined n 5: nothing differs")
    assert "of 0" not in text
    assert "n 0" not in text


def test_a_habit_of_side_and_nudges_are_said(fact: Make) -> None:
    facts = []
    for k in range(40):
        facts.append(fact(prefer(0), (2 * k, 2 * k + 1), task_id=k))
        facts.append(fact(prefer(0), (2 * k + 1, 2 * k), task_id=k, purpose="repeat"))
    text = " ".join(rater_text(rater("me", facts)).split())
    assert "Of 40 that changed, 40 go with the side on screen; 0 look like chance." in text
    assert "single labels are right 50% of the time" in text
    assert "! You prefer the first answer in 100% of 40 cases" in text


def test_many_raters_are_cut_short_and_names_are_cleaned(fact: Make) -> None:
    raters = tuple(rater(f"rater{k:02}\x1b[31m", [fact(prefer(0))]) for k in range(MOST_RATERS + 3))
    text = project_text(ProjectReport(COUNTS, raters, (), (), None))
    assert "And 3 more raters: '--rater NAME' shows one of them." in text
    assert "and 3 more would have it" in " ".join(text.split())
    assert "\x1b" not in text


# -- from a store ---------------------------------------------------------------------------------


@pytest.fixture
def judged_store(tmp_path: Path) -> Iterator[Store]:
    """Two people and a rule on ten pairs: the second reads from the other side, the rule takes what is first."""
    with Store.create(tmp_path / "preferences.db", name="test", seed=7) as store:
        asked = [NewPrompt((Message("user", f"Question {k}?"),), "test") for k in range(10)]
        store.add_prompts(asked, heldout_fraction=0.2)
        model = store.add_model("starter", "base", sha="abc")
        how = store.add_generation(temperature=0.9, top_p=1.0, max_new_tokens=64, system_prompt="")
        for prompt in store.prompts():
            texts = [f"Here is what I know about {prompt.text}", f"I'm sorry, but I cannot answer {prompt.text}"]
            store.add_completions(NewCompletion(prompt.id, model, how, one, 5, "eos", 0) for one in texts)
            store.make_tasks(prompt.id)
        tasks = [int(row["id"]) for row in store.database.rows("SELECT id FROM task")]
        for handle, kind in (("anna", "human"), ("bob", "human"), ("first", "rule")):
            who = store.add_rater(handle, kind=kind)
            session = store.start_session(who.id, columns=80, rows=24)
            for purpose in ("label", "repeat") if handle == "anna" else ("label",):
                for task in tasks:
                    shown = store.present(
                        task, rater_id=who.id, session_id=session, layout="stacked", purpose=purpose, selection="random"
                    )
                    declines = [one.text.startswith("I'm sorry") for one in shown.shown]
                    verdict = prefer(0) if kind == "rule" else prefer(declines.index(True))
                    store.judge(shown.id, verdict, latency_ms=5000)
        yield store


def test_the_report_of_a_project(judged_store: Store) -> None:
    found = project_report(judged_store)
    assert [(one.rater, one.kind, one.report.n) for one in found.raters] == [
        ("anna", "human", 10),
        ("bob", "human", 10),
        ("first", "rule", 10),
    ]
    anna = found.raters[0].report
    assert (anna.consistency.repeats, anna.consistency.self_consistency.share) == (10, 1.0)
    assert (anna.refusal_wins.successes, anna.refusal_wins.n) == (10, 10)
    assert anna.gold.n == 0
    (agreement,) = found.agreement
    assert (agreement.raters, agreement.units) == (("anna", "bob"), 10)  # a rule is no person
    assert agreement.estimates["exact"].value == 1.0
    assert {(one.one, one.other) for one in found.pairs_of_raters} == {
        ("anna", "bob"),
        ("anna", "first"),
        ("bob", "first"),
    }
    assert found.selection is None
    assert json.loads(json.dumps(asdict(found)))["raters"][1]["report"]["first_side"]["n"] == 10
    assert label_stats(found) == project_text(found)
    assert label_stats(found, "bob").startswith("bob (human)\n  10 judgements: 10 ordered")
    assert label_stats(found, "cleo") == "cleo has judged nothing yet."


def test_gold_items_of_another_rater(judged_store: Store) -> None:
    annas = [one for one in judged_store.facts() if one.rater == "anna" and one.purpose == "label"]
    for one in annas[:4]:
        judged_store.mark_gold(one.judgement_id)
    reports = {one.rater: one.report for one in project_report(judged_store).raters}
    assert (reports["bob"].gold.successes, reports["bob"].gold.n) == (4, 4)
    assert (reports["anna"].gold.successes, reports["anna"].gold.n) == (4, 4)  # her repeats
    assert reports["first"].gold.n == 4
    assert "right about gold items" in label_stats(project_report(judged_store), "bob")


def test_a_skip_is_no_judgement(judged_store: Store) -> None:
    bob = judged_store.rater("bob")
    assert bob is not None
    session = judged_store.start_session(bob.id, columns=80, rows=24)
    task = judged_store.facts(bob.id)[0].task_id
    shown = judged_store.present(
        task, rater_id=bob.id, session_id=session, layout="stacked", purpose="label", selection="random"
    )
    judged_store.judge(shown.id, Verdict("skip"), latency_ms=100)
    report = {one.rater: one.report for one in project_report(judged_store).raters}["bob"]
    assert (report.n, report.skipped) == (9, 1)
