"""Two copies of a project become one: nothing lost, nothing doubled, whichever takes over the other."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences import judging, merging
from rlhf_tui.preferences.records import ImportedCandidate, ImportedLabel, Merged, Verdict, prefer, tied
from rlhf_tui.preferences.store import Message, NewCompletion, NewPrompt, Store

Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`
Copies = tuple[Store, Store]

NOTHING = Merged(0, 0, 0, 0, {})


@pytest.fixture
def copies(fill: Filled, sit: Sit, tmp_path: Path) -> Iterator[Copies]:
    """A project that two people went on with, each in a copy of their own."""
    ours = fill(prompts=6, per_prompt=4)
    me = sit(ours)
    for task in range(1, 5):
        me.answer(task_id=task)
    shutil.copy(copied(ours), tmp_path / "theirs.db")
    with Store.open(tmp_path / "theirs.db") as theirs:
        yield ours, theirs


def copied(store: Store) -> Path:
    """The file with everything in it, nothing left in the journal beside it."""
    store.database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return store.database.path


def history(store: Store, *, names: bool = True) -> dict[str, list[str]]:
    """Every row of what people said and what it is about, in words that do not depend on ids."""
    find = {
        "prompt": "SELECT uid, messages_json, split, source, tags_json FROM prompt",
        "model": "SELECT uid, name, kind, sha FROM model",
        "generation": "SELECT sha256, temperature, top_p, max_new_tokens, system_prompt FROM generation",
        "guideline": "SELECT sha256, body_md FROM guideline",
        "rater": f"SELECT uid, {'handle' if names else 'kind'}, kind, card_json, consent FROM rater",
        "session": """SELECT s.uid, r.uid, s.columns, s.rows, s.started_at, s.ended_at
            FROM session s JOIN rater r ON r.id = s.rater_id""",
        "completion": """SELECT c.uid, p.uid, m.uid, g.sha256, c.seed, c.characters, c.n_tokens, c.finish_reason, e.uid,
            c.text FROM completion c JOIN prompt p ON p.id = c.prompt_id JOIN model m ON m.id = c.model_id
            LEFT JOIN generation g ON g.id = c.generation_id LEFT JOIN completion e ON e.id = c.edited_from""",
        "near_duplicate": """SELECT c.uid, l.uid, n.similarity FROM near_duplicate n
            JOIN completion c ON c.id = n.completion_id JOIN completion l ON l.id = n.like_id""",
        "task": """SELECT t.uid, t.kind, p.uid, t.round, t.position, i.slot, c.uid FROM task t
            JOIN prompt p ON p.id = t.prompt_id JOIN task_item i ON i.task_id = t.id
            JOIN completion c ON c.id = i.completion_id""",
        "presentation": """SELECT p.uid, t.uid, r.uid, s.uid, g.sha256, p.purpose, p.layout, p.selection, p.predicted,
            p.shown_at, o.key, c.uid FROM presentation p
            JOIN task t ON t.id = p.task_id JOIN rater r ON r.id = p.rater_id
            LEFT JOIN session s ON s.id = p.session_id LEFT JOIN guideline g ON g.id = p.guideline_id
            JOIN json_each(p.order_json) o JOIN completion c ON c.id = o.value""",
        "judgement": """SELECT j.uid, p.uid, t.uid, r.uid, j.purpose, j.outcome, j.strength, j.note, j.flags_json,
            j.latency_ms, j.created_at, i.place, c.uid, i.rank, i.rating, i.accepted FROM judgement j
            JOIN presentation p ON p.id = j.presentation_id JOIN task t ON t.id = j.task_id
            JOIN rater r ON r.id = j.rater_id LEFT JOIN judgement_item i ON i.judgement_id = j.id
            LEFT JOIN completion c ON c.id = i.completion_id""",
        "active": "SELECT uid FROM active_judgement",
        "revision": """SELECT r.uid, j.uid, r.action, r.newest_uid, r.created_at FROM revision r
            JOIN judgement j ON j.id = r.judgement_id""",
        "gold": """SELECT g.uid, t.uid, j.uid, g.created_at FROM gold g JOIN task t ON t.id = g.task_id
            LEFT JOIN judgement j ON j.id = g.judgement_id""",
        "known": """SELECT t.uid, j.uid FROM gold_answer g JOIN task t ON t.id = g.task_id
            JOIN judgement j ON j.id = g.judgement_id""",
    }
    return {name: sorted(json.dumps(list(row)) for row in store.database.rows(sql)) for name, sql in find.items()}


def tasks_of(store: Store, kind: str) -> list[int]:
    return [row[0] for row in store.database.rows("SELECT id FROM task WHERE kind = ? ORDER BY uid", kind)]


def work(store: Store, sit: Sit, handle: str, *, verdict: Verdict, side: int) -> None:
    """A sitting with everything in it. `side` makes the two copies differ."""
    store.set_guideline(f"The taste of {handle}.")
    store.add_prompts([NewPrompt((Message("user", f"New to {side}?"),), "file", None, ("new",))], heldout_fraction=0.2)
    prompt = store.prompts()[-1]
    model = store.add_model(f"model-{side}", "policy", sha=str(side))
    how = store.add_generation(temperature=0.5 + side, top_p=1.0, max_new_tokens=8, system_prompt="")
    texts = ("So 🙂", "Otherwise", "Thirdly", "so 🙂")
    store.add_completions(NewCompletion(prompt.id, model, how, text, seed=k) for k, text in enumerate(texts))
    store.make_tasks(prompt.id)
    for other in store.prompts()[: 3 + side]:
        store.make_tasks(other.id, kind="rank", size=4)
        store.make_tasks(other.id, kind="rate", size=4)
        store.make_tasks(other.id, kind="accept", size=4)
    me = sit(store, handle)
    me.judge(verdict, 1)  # both sides answer it anew, and differently
    for task in (5 + side, 6 + side):
        shown = me.show(task)
        store.judge(shown.id, prefer(side, 2), note=f"note {side}", flags=("wrong",), latency_ms=7)
    store.mark_gold(store.history(me.rater)[0].judgement_id)
    me.judge(Verdict("ordered", ranks=(2, 1, 1, 3)), tasks_of(store, "rank")[side])
    me.judge(Verdict("rated", ratings=(1, 5, 3, 3)), tasks_of(store, "rate")[side])
    me.judge(Verdict("accepted", accepted=(True, False, True, False)), tasks_of(store, "accept")[side])
    again = store.present(
        2 + side, rater_id=me.rater, session_id=me.session, layout="x", purpose="repeat", selection="repeat"
    )
    store.judge(again.id, tied(), latency_ms=2)
    edited = store.history(me.rater, 99)[-1]
    shown = store.reopen(edited.judgement_id)
    store.edit(shown.shown[0].id, f"Better, says {side}.", rater_id=me.rater, session_id=me.session)
    me.judge(Verdict("skip"), 9)
    me.judge(Verdict("discard"), 10)
    me.answer("both_bad", task_id=11)
    store.undo(me.rater)
    if side:
        store.redo(me.rater)
    file = store.add_rater(f"file-{side}", kind="import")
    candidates = (ImportedCandidate("yes"), ImportedCandidate("no"))
    label = ImportedLabel(NewPrompt((Message("user", "From a file?"),), "file"), candidates, "pair", prefer(side))
    with store.transaction():
        store.import_judgement(label, rater_id=file.id, heldout_fraction=0.2)
    store.end_session(me.session)


def merged_both_ways(copies: Copies, tmp_path: Path) -> tuple[Store, Store]:
    """Ours with theirs, and theirs with ours, in two further copies."""
    ours, theirs = copies
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    shutil.copy(copied(ours), first)
    shutil.copy(copied(theirs), second)
    one, other = Store.open(first), Store.open(second)
    one.merge(theirs.database.path)
    other.merge(ours.database.path)
    return one, other


@pytest.mark.parametrize("handle", ["me", "you"])
def test_what_two_people_did_is_all_there_whichever_way(copies: Copies, sit: Sit, tmp_path: Path, handle: str) -> None:
    ours, theirs = copies
    work(ours, sit, "me", verdict=tied(), side=0)
    work(theirs, sit, handle, verdict=prefer(1, 2), side=1)
    separate = history(ours), history(theirs)
    one, other = merged_both_ways(copies, tmp_path)
    with one, other:
        together = history(one)
        assert together == history(other)
        for table, rows in together.items():
            if table not in ("active", "known"):
                assert set(rows) == set(separate[0][table]) | set(separate[1][table]), table
        assert one.snapshot_hash() == other.snapshot_hash()
        assert one.counts() == other.counts()
        assert one.database.row("PRAGMA foreign_key_check") is None
        texts = [(pair.prompt.text, pair.chosen.text, pair.rejected.text, pair.strength) for pair in one.pairs()]
        assert sorted(texts) == sorted(
            (pair.prompt.text, pair.chosen.text, pair.rejected.text, pair.strength) for pair in other.pairs()
        )
    assert (history(ours), history(theirs)) == separate  # they were only read


def test_the_newest_answer_counts_when_one_person_answered_in_both(
    copies: Copies, sit: Sit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = copies
    monkeypatch.setattr(judging, "now", lambda: "2101-01-01T00:00:00.000+00:00")
    sit(ours).judge(prefer(0, 2), 3)
    monkeypatch.setattr(judging, "now", lambda: "2100-01-01T00:00:00.000+00:00")
    sit(theirs).judge(prefer(1, 2), 3)  # given before, merged after
    one, other = merged_both_ways(copies, tmp_path)
    with one, other:
        for store in (one, other):
            assert {judged.task_id: judged.verdict for judged in store.judgements()}[3] == prefer(0, 2)
            assert store.history(store.raters()[0].id)[0].verdict == prefer(0, 2)


def test_answers_of_the_same_moment_are_settled_the_same_way_in_both(
    copies: Copies, sit: Sit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a clock was wrong, new answers all bear the time of the latest: the two copies must agree still."""
    ours, theirs = copies
    monkeypatch.setattr(judging, "now", lambda: "2100-01-01T00:00:00.000+00:00")
    sit(ours).judge(prefer(0, 2), 3)
    sit(theirs).judge(prefer(1, 2), 3)
    one, other = merged_both_ways(copies, tmp_path)
    with one, other:
        assert history(one)["active"] == history(other)["active"]
        assert one.snapshot_hash() == other.snapshot_hash()


def test_merging_twice_adds_nothing(copies: Copies, sit: Sit) -> None:
    ours, theirs = copies
    work(ours, sit, "me", verdict=tied(), side=0)
    work(theirs, sit, "you", verdict=prefer(1), side=1)
    added = ours.merge(theirs.database.path)
    assert added.renamed == {}
    assert (added.prompts, added.raters) == (1, 2)
    assert added.completions == 5  # four new ones and an edited one
    assert added.judgements == 12
    before = history(ours), ours.counts(), ours.snapshot_hash()
    assert ours.merge(theirs.database.path) == NOTHING
    assert ours.merge(ours.database.path) == NOTHING
    assert (history(ours), ours.counts(), ours.snapshot_hash()) == before
    theirs.merge(ours.database.path)
    assert ours.merge(theirs.database.path) == NOTHING  # there and back again
    assert (history(ours), ours.counts(), ours.snapshot_hash()) == before


def test_undo_and_redo_go_on_after_a_merge(copies: Copies, sit: Sit) -> None:
    ours, theirs = copies
    you = sit(theirs, "you")
    first, second = you.answer(), you.answer("tie")
    theirs.undo(you.rater)
    ours.merge(theirs.database.path)
    rater = ours.rater("you")
    assert rater is not None
    given = ours.redo(rater.id)
    assert given is not None
    assert given.prompt == second.prompt
    taken = [ours.undo(rater.id), ours.undo(rater.id), ours.undo(rater.id)]
    assert [shown.prompt if shown else None for shown in taken] == [second.prompt, first.prompt, None]


def test_what_was_taken_back_on_one_side_is_taken_back_on_both(copies: Copies, sit: Sit, tmp_path: Path) -> None:
    ours, theirs = copies
    me = sit(theirs)
    theirs.undo(me.rater)
    theirs.undo(me.rater)
    theirs.redo(me.rater)
    one, other = merged_both_ways(copies, tmp_path)
    with one, other:
        assert one.counts().judgements == other.counts().judgements == 3
        assert ours.counts().judgements == 4


def test_who_goes_on_after_the_merge_sees_only_what_is_left(copies: Copies, sit: Sit) -> None:
    """The same person labelled in two copies: nothing is asked twice."""
    ours, theirs = copies
    sit(theirs).answer(task_id=7)
    me = sit(ours)
    assert me.queue.remaining == 8
    with Store.open(ours.database.path) as elsewhere:
        elsewhere.merge(theirs.database.path)
    me.queue.next()
    assert me.queue.remaining == 7


def test_another_person_of_the_same_name_gets_a_number(tmp_path: Path, sit: Sit, fill: Filled) -> None:
    ours = fill()
    ours.add_rater("me-2")
    sit(ours).answer()
    with Store.create(tmp_path / "theirs.db", name="theirs", seed=8) as theirs:
        theirs.add_prompts([NewPrompt((Message("user", "Question 0?"),), "test")], heldout_fraction=0.25)
        model = theirs.add_model("starter", "base", sha="abc")
        theirs.add_completions(NewCompletion(1, model, None, text) for text in ("one", "two"))
        theirs.make_tasks(1)
        sit(theirs).answer("tie")
        theirs.set_consent(1, True)
        their_uid = theirs.raters()[0].uid
    added = ours.merge(tmp_path / "theirs.db")
    assert (added.raters, added.judgements, added.prompts, added.completions) == (1, 1, 0, 2)
    assert added.renamed == {"me": "me-3"}
    assert [rater.handle for rater in ours.raters()] == ["me-2", "me", "me-3"]
    renamed = ours.rater_by_uid(their_uid)
    assert renamed is not None
    assert (renamed.handle, renamed.consent) == ("me-3", True)
    assert {judged.rater.handle: judged.verdict.outcome for judged in ours.judgements()} == {
        "me": "ordered",
        "me-3": "tie",
    }
    assert ours.merge(tmp_path / "theirs.db") == NOTHING  # and is known from then on


def test_a_prompt_keeps_the_split_it_has_here(fill: Filled, tmp_path: Path) -> None:
    ours = fill(prompts=3, split="heldout")
    with Store.create(tmp_path / "theirs.db", name="theirs", seed=8) as theirs:
        rows = [NewPrompt((Message("user", f"Question {k}?"),), "test", "train") for k in range(4)]
        theirs.add_prompts(rows, heldout_fraction=0.25)
    assert ours.merge(tmp_path / "theirs.db").prompts == 1
    assert [prompt.split for prompt in ours.prompts()] == ["heldout"] * 3 + ["train"]


def test_the_guideline_in_force_stays_and_the_other_is_kept(copies: Copies) -> None:
    ours, theirs = copies
    mine = ours.set_guideline("Mine.")
    theirs.set_guideline("Theirs.")
    ours.merge(theirs.database.path)
    assert ours.guideline() == mine
    assert ours.set_guideline("Theirs.").version == 2


def test_scores_are_left_behind(copies: Copies) -> None:
    ours, theirs = copies
    ours.set_scores("ours", {1: 0.5})
    theirs.set_scores("theirs", {2: 0.5})
    ours.merge(theirs.database.path)
    assert ours.scores() == {1: 0.5}


# The other file, and errors


def test_the_other_file_stays_as_it_is_byte_for_byte(copies: Copies, sit: Sit) -> None:
    ours, theirs = copies
    sit(theirs, "you").answer()
    path = theirs.database.path
    theirs.close()
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.name.startswith("theirs")}
    ours.merge(path)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.name.startswith("theirs")}
    assert after == before


def test_a_copy_that_came_with_its_journal_stays_as_it_is(copies: Copies, sit: Sit, tmp_path: Path) -> None:
    """Copied from a machine that was switched off: the newest answers are in the journal, and count."""
    ours, theirs = copies
    sit(theirs, "you").answer()
    folder = tmp_path / "stick"
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{theirs.database.path}{suffix}", folder / f"p.db{suffix}")
    assert (folder / "p.db-wal").stat().st_size > 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert ours.merge(folder / "p.db").judgements == 1
    for name, content in before.items():  # an index of the journal (-shm) may have come, and holds nothing
        assert (folder / name).read_bytes() == content


def test_somebody_may_go_on_labelling_in_the_other_file(copies: Copies, sit: Sit) -> None:
    ours, theirs = copies
    you = sit(theirs, "you")
    you.answer()
    writer = sqlite3.connect(theirs.database.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert ours.merge(theirs.database.path).judgements == 1
    writer.execute("ROLLBACK")
    writer.close()
    you.answer()
    assert ours.merge(theirs.database.path).judgements == 1


def test_what_is_no_store_is_refused_by_its_name_and_nothing_changes(copies: Copies, tmp_path: Path) -> None:
    ours, theirs = copies
    (tmp_path / "text.db").write_text("not a database, but long enough to have a header " * 4)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t(x)")
    other.close()
    shutil.copy(copied(theirs), tmp_path / "newer.db")
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 3")
    newer.close()
    before = history(ours)
    for name, said in (
        ("absent.db", "no preferences"),
        ("text.db", "not a database"),
        ("other.db", "does not hold"),
        ("newer.db", "newer"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            ours.merge(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert history(ours) == before
    ours.add_rater("still works")


def test_a_merge_that_fails_in_the_middle_changes_nothing(
    copies: Copies, sit: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = copies
    work(theirs, sit, "you", verdict=tied(), side=1)
    before = history(ours)

    def power_cut(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging._Merge, "_judgements", power_cut)
        with pytest.raises(KeyboardInterrupt):
            ours.merge(theirs.database.path)
    assert history(ours) == before
    assert ours.merge(theirs.database.path).judgements == 12  # nothing stands in the way of trying again


def test_a_locked_project_is_said_and_nothing_changes(copies: Copies, sit: Sit) -> None:
    ours, theirs = copies
    sit(theirs, "you").answer()
    writer = sqlite3.connect(ours.database.path, isolation_level=None)
    with Store.open(ours.database.path, patience=0.01) as store:
        before = history(store)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="locked"):
            store.merge(theirs.database.path)
        assert history(store) == before
        writer.execute("ROLLBACK")
        assert store.merge(theirs.database.path).judgements == 1
    writer.close()


OLD = Path(__file__).with_name("version_1.sql")


def test_a_copy_that_cannot_be_copied_says_what_to_check(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.create(tmp_path / "theirs.db", name="theirs", seed=1).close()

    def refused(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", refused)
    with pytest.raises(UserError, match="cannot be copied") as caught:
        store.merge(tmp_path / "theirs.db")
    assert "No space left" in caught.value.why
    assert "room for a temporary copy" in caught.value.todo
    assert "Nothing was changed" in caught.value.todo


def test_a_copy_of_an_older_version_is_taken_over_too(store: Store, tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.db")
    old.executescript(OLD.read_text("utf-8"))
    old.close()
    before = (tmp_path / "old.db").read_bytes()
    added = store.merge(tmp_path / "old.db")
    assert (added.prompts, added.completions, added.judgements, added.raters) == (10, 22, 12, 3)
    assert (tmp_path / "old.db").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith("old")) == ["old.db"]
    with Store.open(tmp_path / "old.db") as upgraded:
        assert history(upgraded) == history(store)
        assert upgraded.snapshot_hash() == store.snapshot_hash()
    assert store.merge(tmp_path / "old.db") == NOTHING
