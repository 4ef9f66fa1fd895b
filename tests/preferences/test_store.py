"""Prompts, completions, raters, guideline, scores: what goes in comes out, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.store import Added, Message, NewCompletion, NewPrompt, Store

storable = st.text(st.characters(exclude_categories=["Cs"]))


Filled = Callable[..., Store]
Sit = Callable[..., Any]  # one rater at one terminal: the fixture `sit`


def ask(text: str, split: str | None = None) -> NewPrompt:
    return NewPrompt((Message("user", text),), "test", split)


# Opening


def test_a_created_store_opens_again_with_its_name_and_seed(tmp_path: Path) -> None:
    Store.create(tmp_path / "p.db", name="mine", seed=-3).close()
    with Store.open(tmp_path / "p.db") as store:
        assert (store.name, store.seed) == ("mine", -3)
    assert [file.name for file in tmp_path.iterdir()] == ["p.db"]  # no WAL left beside it


def test_create_refuses_an_existing_file_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        Store.create(path, name="x", seed=0)
    assert path.read_text() == "mine"


def test_create_in_a_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be made"):
        Store.create(tmp_path / "absent" / "p.db", name="x", seed=0)


def test_open_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no preferences"):
        Store.open(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()

    (tmp_path / "text.db").write_text("not a database, but long enough to have a header " * 4)
    with pytest.raises(UsageError, match="not a database"):
        Store.open(tmp_path / "text.db")

    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t(x)")
    other.close()
    with pytest.raises(UsageError, match="does not hold rlhf-tui preferences"):
        Store.open(tmp_path / "other.db")

    Store.create(tmp_path / "newer.db", name="x", seed=0).close()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 3")
    newer.close()
    with pytest.raises(UsageError, match="newer rlhf-tui"):
        Store.open(tmp_path / "newer.db")


def test_the_connection_is_durable_and_checks_references(store: Store) -> None:
    pragmas = {name: store.database.rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL
    with pytest.raises(sqlite3.IntegrityError):
        store.database.run("INSERT INTO task VALUES(1, 'u', 'pair', 1, 0, 4, 'now')")


# Prompts


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(system=storable, question=storable.filter(str.strip), tags=st.lists(storable))
def test_prompts_come_back_exactly(store: Store, system: str, question: str, tags: list[str]) -> None:
    messages = (Message("system", system), Message("user", question))
    store.add_prompts([NewPrompt(messages, "file", "train", tuple(tags))], heldout_fraction=0.2)
    found = next(prompt for prompt in store.prompts() if prompt.messages == messages)
    assert found.text == question
    assert store.prompt(found.id) == found


def test_a_prompt_is_added_once_and_keeps_its_split(store: Store) -> None:
    assert store.add_prompts([ask("a", "heldout"), ask("b"), ask("a")], heldout_fraction=0.2) == Added(2, 1)
    assert store.add_prompts([ask("a", "train")], heldout_fraction=0.2) == Added(0, 1)
    assert [prompt.text for prompt in store.prompts("heldout")][:1] == ["a"]
    with pytest.raises(sqlite3.IntegrityError, match="never changes its split"):
        store.database.run("UPDATE prompt SET split = 'train'")


def test_the_split_is_stable_and_follows_the_fraction(tmp_path: Path) -> None:
    def heldout(name: str, seed: int, order: int) -> set[str]:
        with Store.create(tmp_path / name, name=name, seed=seed) as store:
            store.add_prompts([ask(f"q{i}") for i in range(1000)][::order], heldout_fraction=0.2)
            return {prompt.text for prompt in store.prompts("heldout")}

    first = heldout("a", 1, 1)
    assert 160 <= len(first) <= 240  # 200 ± 3 standard deviations
    assert heldout("b", 1, -1) == first  # whatever order they come in
    assert heldout("c", 2, 1) != first


@pytest.mark.parametrize(
    "bad",
    [
        NewPrompt((), "x"),
        NewPrompt((Message("user", "  "),), "x"),
        NewPrompt((Message("user", "hi"), Message("assistant", "ho")), "x"),
        NewPrompt((Message("tool", "x"), Message("user", "hi")), "x"),
        NewPrompt((Message("user", "half \ud83d"),), "x"),
        NewPrompt((Message("user", "hi"),), "x", "test"),
    ],
)
def test_a_bad_prompt_is_refused_and_nothing_is_added(store: Store, bad: NewPrompt) -> None:
    with pytest.raises(UsageError) as caught:
        store.add_prompts([ask("good"), bad], heldout_fraction=0.2)
    assert caught.value.todo
    assert store.prompts() == []


def test_an_unknown_prompt_is_a_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="no prompt 9"):
        store.prompt(9)


# Completions


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=storable)
def test_completions_are_stored_as_they_are(store: Store, text: str) -> None:
    store.add_prompts([ask("q")], heldout_fraction=0.2)
    (prompt,) = store.prompts()
    model = store.add_model("m", "policy", sha="1", path="/x")
    (number,) = store.add_completions([NewCompletion(prompt.id, model, None, text, 3, "length", 11)])
    (again,) = store.add_completions([NewCompletion(prompt.id, model, None, text, 3, "length", 11)])
    assert again == number
    assert store.database.number("SELECT characters FROM completion WHERE id = ?", number) == len(text)
    found = next(completion for completion in store.completions(prompt.id) if completion.id == number)
    assert (found.text, found.n_tokens, found.finish_reason, found.model, found.seed) == (text, 3, "length", "m", 11)


def test_models_and_generations_are_named_once(store: Store) -> None:
    assert store.add_model("m", "base", sha="1") == store.add_model("m", "base", sha="1", revision="main")
    assert store.add_model("m", "base", sha="2") != store.add_model("m", "base", sha="1")

    def how(temperature: float) -> int:
        return store.add_generation(temperature=temperature, top_p=1.0, max_new_tokens=8, system_prompt="")

    warm = how(1)
    assert warm == how(1.0)
    assert warm != how(0.9)
    assert store.generation(warm).max_new_tokens == 8


# People


def test_the_same_guideline_is_the_same_version(store: Store) -> None:
    assert store.guideline() is None
    first = store.set_guideline("Be brief.")
    second = store.set_guideline("Be kind.")
    assert (first.version, second.version) == (1, 2)
    assert store.set_guideline("Be brief.") == first
    assert store.guideline() == first


def test_raters_have_one_handle_one_kind_and_a_card(store: Store) -> None:
    demo = store.add_rater("demo", kind="model", card={"who": "a model"})
    assert store.add_rater("demo", kind="model") == demo
    assert store.rater("demo") == demo
    assert store.rater("nobody") is None
    assert store.add_rater("demo", kind="model", card={"who": "another"}).card == {"who": "another"}
    with pytest.raises(UsageError, match="of kind 'model'"):
        store.add_rater("demo")
    with pytest.raises(UsageError, match="name") as caught:
        store.add_rater(" ")
    assert caught.value.todo
    assert [rater.handle for rater in store.raters()] == ["demo"]


def test_a_rater_can_be_renamed_and_what_they_judged_stays_theirs(fill: Filled, sit: Sit) -> None:
    store = fill()
    me = sit(store)
    me.answer()
    store.add_rater("taken")
    renamed = store.rename_rater(me.rater, "ada")
    assert (renamed.handle, renamed.uid) == ("ada", me.who.uid)
    assert store.rater("me") is None
    assert [pair.rater for pair in store.pairs()] == ["ada"]
    assert store.rename_rater(me.rater, "ada") == renamed
    for name, word in (("taken", "already"), ("  ", "name")):
        with pytest.raises(UsageError, match=word) as caught:
            store.rename_rater(me.rater, name)
        assert caught.value.todo
    with pytest.raises(ValueError, match="no rater 99"):
        store.rename_rater(99, "nobody")
    assert store.rater_by_uid(me.who.uid) == renamed


def test_a_person_is_named_outside_only_with_their_consent(store: Store) -> None:
    ada = store.add_rater("ada", card={"languages": "en"})
    assert not ada.consent
    assert ada.public_name == f"rater-{ada.uid[:8]}"
    agreed = store.set_consent(ada.id, True)
    assert (agreed.public_name, agreed.card) == ("ada", {"languages": "en"})
    assert store.rater("ada") == agreed
    assert store.set_consent(ada.id, False) == ada
    assert (ada.is_public, ada.card, ada.public_card) == (False, {"languages": "en"}, {})
    assert (agreed.is_public, agreed.public_card) == (True, {"languages": "en"})
    demo = store.add_rater("demo", kind="model", card={"who": "a model"})  # not a person
    assert (demo.consent, demo.is_public) == (False, True)
    assert (demo.public_name, demo.public_card) == ("demo", {"who": "a model"})
    with pytest.raises(ValueError, match="no rater 99"):
        store.set_consent(99, True)


def test_a_rater_can_be_made_with_the_uid_of_another_copy(store: Store) -> None:
    assert store.add_rater("ada", uid="0123").uid == "0123"
    assert store.add_rater("ada").uid == "0123"
    assert store.rater_by_uid("4567") is None


def test_scores_replace_older_scores(fill: Filled) -> None:
    store = fill(prompts=2)
    assert store.scores() == {}
    store.set_scores("reward-1", {1: 0.5, 2: -3.25})
    assert store.scores() == {1: 0.5, 2: -3.25}
    store.set_scores("reward-2", {3: 1.0})
    assert store.scores() == {3: 1.0}
    assert store.database.rows("SELECT run FROM score")[0]["run"] == "reward-2"


def test_no_scores_clear_all_older_ones(fill: Filled) -> None:
    """What a reward model that is retrained without scoring leaves behind: nothing, rather than what its elder said."""
    store = fill(prompts=2)
    store.set_scores("reward-1", {1: 0.5, 2: -3.25})
    store.set_scores("reward-2", {})
    assert store.scores() == {}


def test_scores_are_replaced_whole_or_not_at_all(fill: Filled) -> None:
    store = fill(prompts=1)
    store.set_scores("reward-1", {1: 0.5})
    with pytest.raises(sqlite3.IntegrityError):
        store.set_scores("reward-2", {2: 1.0, 999: 1.0})
    assert store.scores() == {1: 0.5}


def test_changed_tells_of_other_programs_once_and_not_of_ourselves(store: Store) -> None:
    store.add_rater("me")
    with Store.open(store.database.path) as other:
        assert not store.changed()
        assert not other.changed()
        store.add_rater("you")
        assert other.changed()
        assert not other.changed()
        other.add_rater("them")
        assert not other.changed()
        assert store.changed()


def test_a_new_store_notices_the_first_change_too(store: Store) -> None:
    with Store.open(store.database.path) as other:
        other.add_rater("them")
    assert store.changed()


def test_the_counts_add_up(fill: Filled) -> None:
    store = fill(prompts=8)
    counts = store.counts()
    assert (counts.prompts, counts.completions, counts.pairs_waiting) == (8, 16, 8)
    assert counts.train + counts.heldout == 8
    assert (counts.judgements, counts.raters) == (0, 0)
    assert (counts.repeats, counts.discarded, counts.near_duplicates) == (0, 0, 0)
