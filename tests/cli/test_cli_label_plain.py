"""Judging line by line, from a script as from a person."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest

from rlhf_tui.label_plain import label_plain
from rlhf_tui.preferences.store import Judged, Presentation
from rlhf_tui.project import Project


def judged(project: Project) -> list[Judged]:
    with project.store() as store:
        return store.judgements()


def rows(project: Project, table: str) -> int:
    with project.store() as store:
        return store.database.number(f"SELECT COUNT(*) FROM {table}")


def label(cli, project: Project, lines: str, *more: str):
    return cli("label", "--plain", "--project", project.root, *more, stdin=lines)


def test_every_answer_is_stored_with_what_was_shown(cli, prompted: Project) -> None:
    said = label(cli, prompted, "d\nF\n = \nj\nk\nx\n")
    assert said.code == 0, said
    found = judged(prompted)
    sides = ["left" if one.winner_id == one.left.id else "right" if one.winner_id else "" for one in found]
    assert sides == ["left", "left", "", "right", "right", ""]
    assert [one.outcome for one in found] == ["ordered", "ordered", "tie", "ordered", "ordered", "both_bad"]
    assert [one.strength for one in found] == [2, 1, 0, 1, 2, 0]
    assert {one.layout for one in found} == {"stacked"}
    assert rows(prompted, "presentation") == 6
    assert rows(prompted, "session WHERE ended_at IS NOT NULL") == 1
    assert "No pair is left." in said.out
    assert "6 judgements by " in said.out


def test_what_is_shown_is_what_is_judged_blind_and_harmless(cli, prompted: Project) -> None:
    out = label(cli, prompted, "a\n").out
    (one,) = judged(prompted)
    shown = [one.prompt.text, f"A: {one.left.text}", f"B: {one.right.text}"]
    places = [out.index(text.replace("\x1b", "").replace("\x07", "")) for text in shown]
    assert places == sorted(places)
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "secret-model" not in out


def test_words_do_as_well(cli, prompted: Project) -> None:
    label(cli, prompted, "A much\nB\nb  much\ntie\nboth bad\nSKIP\n")
    outcomes = Counter(one.outcome for one in judged(prompted))
    assert outcomes == {"ordered": 3, "tie": 1, "both_bad": 1, "skip": 1}


def test_the_end_of_the_input_ends_cleanly(cli, prompted: Project) -> None:
    said = label(cli, prompted, "f")
    assert (said.code, said.err) == (0, "")
    assert len(judged(prompted)) == 1
    assert "5 left." in said.out
    assert label(cli, prompted, "").code == 0
    assert len(judged(prompted)) == 1


def test_q_leaves(cli, prompted: Project) -> None:
    label(cli, prompted, "f\nq\nj\n")
    assert len(judged(prompted)) == 1


def test_what_is_no_answer_is_asked_again(cli, prompted: Project) -> None:
    said = label(cli, prompted, "\nskp\n1\nj\n")
    assert "'skp' is not an answer. Did you mean 'skip'?" in said.out
    (one,) = judged(prompted)
    assert one.winner_id == one.right.id


def test_u_shows_the_pair_again_even_after_the_last_one(cli, prompted: Project) -> None:
    said = label(cli, prompted, "u\nf\nu\nj\n" + "f\n" * 5 + "u\nx\n")
    assert said.out.count("There is nothing to take back.") == 1
    assert said.out.count("Taken back.") == 2
    found = judged(prompted)
    assert len(found) == 6
    assert Counter(one.outcome for one in found) == {"ordered": 5, "both_bad": 1}
    assert rows(prompted, "judgement") == 8


def test_skipped_pairs_come_back_next_time(cli, prompted: Project) -> None:
    assert "6 pairs skipped" in label(cli, prompted, "s\n" * 6).out
    assert label(cli, prompted, "f\n" * 6).code == 0
    assert len([one for one in judged(prompted) if one.outcome == "ordered"]) == 6


def test_the_rater_is_who_was_named(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n", "--rater", "ann")
    assert [one.rater for one in judged(prompted)] == ["ann"]
    said = label(cli, prompted, "f\n")
    assert [one.rater for one in judged(prompted)] == ["ann", "ann"], "the project's own human rater goes on"
    assert said.code == 0


def test_a_model_is_not_taken_for_a_person(cli, prompted: Project) -> None:
    with prompted.store() as store:
        store.add_rater("demo", kind="model")
    said = label(cli, prompted, "f\n", "--rater", "demo")
    assert said.code == 2
    assert "is of kind 'model'" in said.err
    assert judged(prompted) == []
    label(cli, prompted, "f\n")
    assert judged(prompted)[0].rater != "demo"


def test_another_person_may_judge_what_one_has_judged(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n" * 6, "--rater", "ann")
    assert label(cli, prompted, "", "--rater", "ann").code == 2
    assert label(cli, prompted, "f\n" * 6, "--rater", "bob").code == 0
    assert Counter(one.rater for one in judged(prompted)) == {"ann": 6, "bob": 6}


def test_json_keeps_the_conversation_off_standard_output(cli, prompted: Project) -> None:
    said = cli("label", "--json", "--rater", "ann", "--project", prompted.root, stdin="f\ns\n")
    assert json.loads(said.out) == {"rater": "ann", "judgements": 1, "skipped": 1, "pairs_left": 4}
    assert "Prompt: " in said.err


def test_the_guideline_is_read_first_and_time_is_kept(prompted: Project) -> None:
    with prompted.store() as store:
        store.set_guideline("Shorter is better.\x07")
    ticks = iter([10.0, 12.5, 20.0, 20.75, 30.0])
    out = io.StringIO()
    label_plain(prompted, "", source=io.StringIO("f\nj\n"), out=out, clock=lambda: next(ticks))
    assert out.getvalue().startswith("Guideline, version 1:\nShorter is better.\n")
    assert [one.latency_ms for one in judged(prompted)] == [2500, 750]


def test_an_interruption_keeps_what_was_said_and_ends_the_session(
    prompted: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.StringIO):
        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            line = super().readline()
            if not line:
                raise KeyboardInterrupt
            return line

    with pytest.raises(KeyboardInterrupt):
        label_plain(prompted, "", source=Interrupted("f\n"), out=io.StringIO())
    assert len(judged(prompted)) == 1
    assert rows(prompted, "session WHERE ended_at IS NULL") == 0


def test_sides_are_those_of_the_screen(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n", "--rater", "ann")
    (one,) = judged(prompted)
    with prompted.store() as store:
        rater = store.rater("ann")
        assert rater is not None
        session = store.start_session(rater.id, columns=80, rows=24)
        again: Presentation = store.present(one.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
    assert (again.left, again.right) == (one.left, one.right)
