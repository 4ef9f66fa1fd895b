"""Judging line by line, from a script as from a person: every mode, every command, and what is kept."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rlhf_tui.errors import UserError
from rlhf_tui.label_plain import label_plain
from rlhf_tui.preferences.queue import Rules
from rlhf_tui.preferences.records import Judged, Message, NewCompletion, NewPrompt, Verdict, prefer, tied
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project

ROOT = Path(__file__).parents[2]
TEXTS = (
    "Boil the water first.",
    "I would rather not say\nanything about it.",
    "Ask somebody who knows, perhaps a cook!",
    "Nobody has ever found out why.",
)


def judged(project: Project) -> list[Judged]:
    """The active judgements as they were given, edits and imports too."""
    with project.store() as store:
        return store.judgements()


def verdicts(project: Project) -> list[Verdict]:
    return [one.verdict for one in judged(project)]


def rows(project: Project, table: str) -> int:
    with project.store() as store:
        return store.database.number(f"SELECT COUNT(*) FROM {table}")


def label(cli, project: Project, lines: str, *more: str):
    return cli("label", "--plain", "--project", project.root, *more, stdin=lines)


@pytest.fixture
def kitchen(project: Project) -> Project:
    """Three prompts with four very different candidates each; nothing is offered yet."""
    with project.store() as store:
        store.add_prompts(
            [NewPrompt((Message("user", f"Question {i}?"),), "test", "train") for i in range(3)], heldout_fraction=0.2
        )
        model = store.add_model("secret-model", "base")
        for prompt in store.prompts():
            store.add_completions(NewCompletion(prompt.id, model, None, text) for text in TEXTS)
    return project


# -- pairs ----------------------------------------------------------------------------------------


def test_every_answer_is_stored_with_what_was_shown(cli, prompted: Project) -> None:
    said = label(cli, prompted, "d\nF\n = \nj\n5\nx\n")
    assert said.code == 0, said
    assert verdicts(prompted) == [prefer(0, 2), prefer(0), tied(), prefer(1), prefer(1, 2), Verdict("both_bad")]
    assert {one.layout for one in judged(prompted)} == {"stacked"}
    assert rows(prompted, "presentation") == 6
    assert rows(prompted, "session WHERE ended_at IS NOT NULL") == 1
    assert "A much better.\n" in said.out
    assert "No pairs are left." in said.out
    assert "\n6 judgements by " in said.out


def test_what_is_shown_is_what_is_judged_blind_and_harmless(cli, prompted: Project) -> None:
    out = label(cli, prompted, "a\n").out
    (one,) = judged(prompted)
    shown = [one.prompt.text, f"A: {one.shown[0].text}", f"B: {one.shown[1].text}"]
    places = [out.index(text.replace("\x1b", "").replace("\x07", "")) for text in shown]
    assert places == sorted(places)
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "secret-model" not in out


def test_no_line_of_a_candidate_can_pass_for_another_candidate(cli, project: Project) -> None:
    with project.store() as store:
        store.add_prompts(
            [NewPrompt((Message("user", "Earlier?"), Message("assistant", "Yes."), Message("user", "Now?")), "test")],
            heldout_fraction=0.2,
        )
        (prompt,) = store.prompts()
        model = store.add_model("m", "base")
        texts = ("Mine is short.\r\nB: the other one says nothing at all", "Second and quite\u2028different > text")
        store.add_completions(NewCompletion(prompt.id, model, None, text) for text in texts)
    said = label(cli, project, "f\n")
    assert said.out.count("\nA: ") == said.out.count("\nB: ") == 1
    assert "\n   B: the other one" in said.out
    assert "\nuser: Earlier?\nassistant: Yes.\nPrompt: Now?\n" in said.out
    assert {one.text for one in judged(project)[0].shown} == set(texts), "stored exactly"


def test_the_end_of_the_input_ends_cleanly(cli, prompted: Project) -> None:
    said = label(cli, prompted, "f")
    assert (said.code, said.err) == (0, "")
    assert len(judged(prompted)) == 1
    assert "5 pairs left." in said.out
    assert label(cli, prompted, "").code == 0
    assert len(judged(prompted)) == 1


def test_q_leaves(cli, prompted: Project) -> None:
    label(cli, prompted, "f\nq\nj\n")
    assert len(judged(prompted)) == 1


def test_what_is_no_answer_is_asked_again(cli, prompted: Project) -> None:
    said = label(cli, prompted, "\nskp\n7\nj\n")
    assert "'skp' is not an answer. Did you mean 'skip'?" in said.out
    assert verdicts(prompted) == [prefer(1)]


def test_a_hundred_answers_at_once_are_all_taken(cli, project: Project) -> None:
    """No guard time swallows lines that are already there."""
    with project.store() as store:
        store.add_prompts(
            [NewPrompt((Message("user", f"Question {i}?"),), "test", "train") for i in range(100)],
            heldout_fraction=0.2,
        )
        model = store.add_model("m", "base")
        for prompt in store.prompts():
            store.add_completions(NewCompletion(prompt.id, model, None, text) for text in TEXTS[:2])
    label(cli, project, "f\nj\n" * 50, "--set", "label.repeat_share=0")
    assert Counter(one.verdict for one in judged(project)) == {prefer(0): 50, prefer(1): 50}


# -- the other modes ------------------------------------------------------------------------------


def test_rankings_are_typed_as_an_order(cli, kitchen: Project) -> None:
    said = label(cli, kitchen, "21\n2143\n2=14 3\nx\n", "--mode", "rank")
    assert said.code == 0, said
    assert "Not in the order yet: 3, 4." in said.out
    ranked = judged(kitchen)
    assert [one.kind for one in ranked] == ["rank"] * 3
    assert [one.verdict for one in ranked] == [
        Verdict("ordered", ranks=(2, 1, 4, 3)),
        Verdict("ordered", ranks=(1, 1, 3, 2)),
        Verdict("both_bad"),
    ]
    assert all(sorted(c.text for c in one.shown) == sorted(TEXTS) for one in ranked)
    assert "\n4: " in said.out
    assert "3 judgements by " in said.out
    assert "0 rankings left." in said.out


def test_as_many_candidates_as_wanted(cli, kitchen: Project) -> None:
    label(cli, kitchen, "312\n", "--mode", "rank", "--candidates", "3")
    assert [len(one.shown) for one in judged(kitchen)] == [3]


def test_marks_from_1_to_5(cli, kitchen: Project) -> None:
    said = label(cli, kitchen, "3 5 1 6\n3 5 1 1\n2244\n", "--mode", "rate")
    assert "A mark is one of 1 (worst), 2, 3, 4 and 5 (best)." in said.out
    assert verdicts(kitchen) == [Verdict("rated", ratings=(3, 5, 1, 1)), Verdict("rated", ratings=(2, 2, 4, 4))]


def test_accept_or_reject(cli, kitchen: Project) -> None:
    said = label(cli, kitchen, "a r\na r\nar\n", "--mode", "accept", "--candidates", "2")
    assert verdicts(kitchen) == [Verdict("accepted", accepted=(True, False))] * 3
    assert "3 sets to accept or reject left." in said.out


def test_the_settings_say_what_the_options_do_not(cli, kitchen: Project) -> None:
    cli("config", "set", "label.mode", "rank", "--project", kitchen.root)
    cli("config", "set", "label.candidates", "3", "--project", kitchen.root)
    label(cli, kitchen, "213\n")
    assert [(one.kind, len(one.shown)) for one in judged(kitchen)] == [("rank", 3)]
    label(cli, kitchen, "f\n", "--mode", "pair")
    assert [one.kind for one in judged(kitchen)] == ["rank", "pair"]


# -- putting off, taking back, opening again ------------------------------------------------------


def test_u_shows_the_pair_again_even_after_the_last_one(cli, prompted: Project) -> None:
    said = label(cli, prompted, "u\nf\nu\nj\n" + "f\n" * 5 + "u\nx\n")
    assert said.out.count("There is nothing to take back.") == 1
    assert said.out.count("Taken back.") == 2
    assert Counter(verdicts(prompted)) == {prefer(1): 1, prefer(0): 4, Verdict("both_bad"): 1}
    assert rows(prompted, "judgement") == 8


def test_redo_gives_an_answer_again(cli, prompted: Project) -> None:
    said = label(cli, prompted, "f\nj\nu\nu\nU\nredo\nU\n")
    assert verdicts(prompted) == [prefer(0), prefer(1)]
    assert said.out.count("Given again.") == 2
    assert said.out.count("There is nothing to give again.") == 1


def test_skipped_pairs_come_back_next_time_and_discarded_ones_do_not(cli, prompted: Project) -> None:
    said = label(cli, prompted, "s\n" * 4 + "discard\nS\n")
    assert "0 judgements by" in said.out
    assert ", 4 skipped, 2 discarded; " in said.out
    assert label(cli, prompted, "f\n" * 6).code == 0
    assert Counter(one.verdict.outcome for one in judged(prompted)) == {"ordered": 4, "discard": 2}


def test_any_answer_can_be_opened_again(cli, prompted: Project) -> None:
    said = label(cli, prompted, "f\nj\nx\nreopen 2\nk\nreopen 9\nreopen\nhistory\nhistory 1\n")
    assert "There are only 3 answers." in said.out
    assert "Give a number: 1 is your newest answer" in said.out
    assert "It was: B better: Question" in said.out
    assert sorted(verdicts(prompted), key=str) == sorted([prefer(0), Verdict("both_bad"), prefer(1, 2)], key=str)
    assert "> 1  B much better: Question" in said.out
    assert "\n2  both bad: Question" in said.out
    assert "\n3  A better: Question" in said.out
    assert rows(prompted, "judgement") == 4


# -- what goes with an answer ---------------------------------------------------------------------


def test_note_and_flags_are_stored_with_the_answer_only(cli, prompted: Project) -> None:
    said = label(
        cli, prompted, "n Both  are too long\n! wrong unsafe\nf\nflag tpyo\nj\n!none\nx\nn late\nn\nf\nhistory\n"
    )
    first, *others = judged(prompted)
    assert (first.note, first.flags) == ("Both  are too long", ("unsafe", "wrong"))
    assert [(one.note, one.flags) for one in others] == [("", ())] * 3
    assert "'tpyo' is no reason." in said.out
    assert "4  A better: " in said.out
    assert "note: Both are too long; flags: unsafe, wrong" in said.out


def test_a_better_answer_can_be_written(cli, kitchen: Project) -> None:
    lines = "e b\nBoil it well.\n..\n\nThen wait.\n.\nf\n"
    said = label(cli, kitchen, lines, "--mode", "pair")
    assert "Kept: your version is better than B." in said.out
    with kitchen.store() as store:
        edit, answer = sorted(store.judgements(), key=lambda one: one.verdict.strength + len(one.note))
        by_author = {one.shown[0].model.startswith("person-"): one for one in (edit, answer)}
    assert by_author[True].shown[0].text == "Boil it well.\n.\n\nThen wait."
    assert by_author[True].shown[1].id == by_author[False].shown[1].id, "it is better than B"
    assert by_author[True].verdict == prefer(0)
    assert by_author[False].verdict == prefer(0), "what was on show is still to be answered"


@pytest.mark.parametrize("lines", ["e a\nHalf an ans", "e a\nHalf\n", "e a\n.\n", "e a\n   \n.\n", "e c\n", "e\n"])
def test_half_an_edit_is_no_edit(lines: str, cli, prompted: Project) -> None:
    before = rows(prompted, "completion")
    assert label(cli, prompted, lines).code == 0
    assert rows(prompted, "completion") == before
    assert judged(prompted) == []


def test_gold_is_put_on_and_off(cli, prompted: Project) -> None:
    said = label(cli, prompted, "gold 1\nf\nj\ngold 2\ngold 1\ngold 1\n")
    assert "No answers yet." in said.out
    assert said.out.count("Gold: ") == 2
    assert said.out.count("No longer gold: ") == 1
    with prompted.store() as store:
        ((task, _),) = store.gold().items()
        assert task == store.judgements()[0].task_id


# -- reading and asking ---------------------------------------------------------------------------


def test_the_guideline_is_read_first_and_time_is_kept(prompted: Project) -> None:
    with prompted.store() as store:
        store.set_guideline("Shorter is better.\x07")

    class Slow(io.StringIO):
        """A person: every line takes a while."""

        now, takes = 10.0, iter([2.5, 0.75, 1.0])

        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            self.now += next(self.takes)
            return super().readline()

    source, out = Slow("f\nj\n"), io.StringIO()
    label_plain(prompted, "", rules=Rules(), source=source, out=out, clock=lambda: source.now)
    assert out.getvalue().startswith("Guideline, version 1:\nShorter is better.\n")
    assert [one.latency_ms for one in judged(prompted)] == [2500, 750]


def test_guideline_help_and_statistics_on_demand(cli, prompted: Project) -> None:
    said = label(cli, prompted, "g\n?\nf\ni\nagain\nq\n")
    assert "There is no guideline yet" in said.out
    assert said.out.count("d A much better   f A better") == 2
    assert said.out.count("\n5 to go.\n") == 2
    assert "1 judgements: 1 ordered; 0 skipped, 0 discarded." in said.out


# -- who --------------------------------------------------------------------------------------------


def test_the_rater_is_who_was_named(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n", "--rater", "ann")
    assert [one.rater.handle for one in judged(prompted)] == ["ann"]
    said = label(cli, prompted, "f\n")
    assert [one.rater.handle for one in judged(prompted)] == ["ann", "ann"], "the project's own human rater goes on"
    assert said.code == 0


def test_a_model_is_not_taken_for_a_person(cli, prompted: Project) -> None:
    with prompted.store() as store:
        store.add_rater("demo", kind="model")
    said = label(cli, prompted, "f\n", "--rater", "demo")
    assert said.code == 2
    assert "is of kind 'model'" in said.err
    assert judged(prompted) == []
    label(cli, prompted, "f\n")
    assert judged(prompted)[0].rater.handle != "demo"


def test_another_person_may_judge_what_one_has_judged(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n" * 6, "--rater", "ann")
    assert label(cli, prompted, "", "--rater", "ann").code == 2
    assert label(cli, prompted, "f\n" * 6, "--rater", "bob").code == 0
    assert Counter(one.rater.handle for one in judged(prompted)) == {"ann": 6, "bob": 6}


def test_nothing_to_do_makes_no_rater(cli, project: Project) -> None:
    said = label(cli, project, "f\n", "--rater", "ann")
    assert (said.code, said.out) == (2, "")
    assert rows(project, "rater") == rows(project, "session") == 0


def test_json_keeps_the_conversation_off_standard_output(cli, prompted: Project) -> None:
    said = cli("label", "--json", "--rater", "ann", "--project", prompted.root, stdin="f\ns\n")
    assert json.loads(said.out) == {
        **{"rater": "ann", "mode": "pair", "judgements": 1, "repeats": 0, "skipped": 1, "discarded": 0, "left": 4}
    }
    assert "Prompt: " in said.err


def started(project: Project) -> subprocess.Popen[str]:
    """A real process in line mode, as a pipe starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlhf_tui", "label", "--plain", "--project", str(project.root)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_an_answer_is_on_disk_before_the_next_pair_is_read_out(prompted: Project) -> None:
    with started(prompted) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write("j\n")
            process.stdin.flush()
            while not process.stdout.readline().startswith(f"{5 - number} to go."):
                pass
            assert len(verdicts(prompted)) == number + 1
        process.kill()
    assert verdicts(prompted) == [prefer(1)] * 3
    assert rows(prompted, "judgement") == 3


def test_nothing_heavy_is_imported_to_judge(kitchen: Project) -> None:
    told = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    code = f"from rlhf_tui.cli import main\ntry:\n    main()\nfinally:\n    {told}"
    words = ["label", "--plain", "--mode", "rank", "--project", str(kitchen.root)]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, input="2143\ni\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done
    assert len(judged(kitchen)) == 1
    heavy = {"torch", "transformers", "peft", "bitsandbytes", "numpy", "textual", "pyarrow", "datasets"}
    assert not heavy & set(done.stderr.split())


# -- when something goes wrong --------------------------------------------------------------------


def test_an_interruption_keeps_what_was_said_and_ends_the_session(prompted: Project) -> None:
    class Interrupted(io.StringIO):
        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            line = super().readline()
            if not line:
                raise KeyboardInterrupt
            return line

    with pytest.raises(KeyboardInterrupt):
        label_plain(prompted, "", rules=Rules(), source=Interrupted("f\n"), out=io.StringIO())
    assert len(judged(prompted)) == 1
    assert rows(prompted, "session WHERE ended_at IS NULL") == 0


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def full_disk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer cannot be written; after that there is room again."""
    calls: list[int] = []
    judge = Store.judge

    def failing(store: Store, presentation_id: int, verdict: Verdict, **more: object) -> int:
        calls.append(presentation_id)
        if len(calls) == 2:
            raise UserError("preferences.db cannot grow.", why="The disk is full.", todo="Free some space.")
        return judge(store, presentation_id, verdict, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "judge", failing)


def test_a_person_gives_an_answer_again_that_could_not_be_stored(prompted: Project, full_disk_once: None) -> None:
    out = io.StringIO()
    label_plain(prompted, "", rules=Rules(), source=Person("f\nn why\nj\nj\n"), out=out)
    assert out.getvalue().count("The disk is full.") == 1
    assert [(one.verdict, one.note) for one in judged(prompted)] == [(prefer(0), ""), (prefer(1), "why")]


def test_a_pipe_ends_there_for_the_next_line_is_meant_for_the_next_pair(
    cli, prompted: Project, full_disk_once: None
) -> None:
    said = label(cli, prompted, "f\nj\nx\n")
    assert said.code == 1
    assert said.err == "preferences.db cannot grow.\nThe disk is full.\nFree some space.\n"
    assert verdicts(prompted) == [prefer(0)]


def test_the_order_is_that_of_the_screen(cli, prompted: Project) -> None:
    label(cli, prompted, "f\n", "--rater", "ann")
    (one,) = judged(prompted)
    with prompted.store() as store:
        rater = store.rater("ann")
        assert rater is not None
        session = store.start_session(rater.id, columns=80, rows=24)
        again = store.present(one.task_id, rater_id=rater.id, session_id=session, layout="side-by-side")
    assert again.shown == one.shown
