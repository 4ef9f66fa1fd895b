"""Prompts, completions, pairs, raters, guideline: what goes in comes out, once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.store import Added, Completion, Message, NewCompletion, NewPrompt, Store
from rlhf_tui.preferences.texts import pair_up

storable = st.text(st.characters(exclude_categories=["Cs"]))


Filled = Callable[..., Store]


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
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    with pytest.raises(UsageError, match="newer rlhf-tui"):
        Store.open(tmp_path / "newer.db")


def test_the_connection_is_durable_and_checks_references(store: Store) -> None:
    pragmas = {name: store.database.rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL
    with pytest.raises(sqlite3.IntegrityError):
        store.database.run("INSERT INTO task VALUES(1, 'u', 1, 2, 3, 4, 'now')")


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
    with pytest.raises(UsageError):
        store.add_prompts([ask("good"), bad], heldout_fraction=0.2)
    assert store.prompts() == []


def test_an_unknown_prompt_is_a_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="no prompt 9"):
        store.prompt(9)


# Completions and tasks


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=storable)
def test_completions_are_stored_as_they_are(store: Store, text: str) -> None:
    store.add_prompts([ask("q")], heldout_fraction=0.2)
    (prompt,) = store.prompts()
    model = store.add_model("m", "policy", sha="1", path="/x")
    (number,) = store.add_completions([NewCompletion(prompt.id, model, None, text, 3, "length", 11)])
    (again,) = store.add_completions([NewCompletion(prompt.id, model, None, text, 3, "length", 11)])
    assert again == number
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


@pytest.mark.parametrize(
    ("texts", "tasks"),
    [
        (["a", "b"], 1),
        (["a"], 0),
        (["a", "a"], 0),
        (["a", " a\n"], 0),
        (["a", ""], 0),
        (["a", "b", "c"], 1),
        (["a", "b", "c", "d", "a", " "], 2),
    ],
)
def test_pairs_leave_out_empty_and_identical_texts(store: Store, texts: list[str], tasks: int) -> None:
    store.add_prompts([ask("q")], heldout_fraction=0.2)
    (prompt,) = store.prompts()
    model = store.add_model("m", "base")
    store.add_completions(NewCompletion(prompt.id, model, None, text, seed=k) for k, text in enumerate(texts))
    assert store.make_pair_tasks(prompt.id) == tasks
    assert store.make_pair_tasks(prompt.id) == 0
    offered = store.database.rows("SELECT first_id, second_id FROM task")
    ids = [number for row in offered for number in row]
    assert len(set(ids)) == len(ids) == 2 * tasks


def test_a_later_generation_is_paired_too_but_never_with_a_text_already_offered(store: Store) -> None:
    store.add_prompts([ask("q")], heldout_fraction=0.2)
    (prompt,) = store.prompts()
    model = store.add_model("m", "base")
    store.add_completions(NewCompletion(prompt.id, model, None, text) for text in "abc")
    assert store.make_pair_tasks(prompt.id) == 1
    store.add_completions(NewCompletion(prompt.id, model, None, text, seed=1) for text in "abcd")
    assert store.make_pair_tasks(prompt.id) == 1
    assert store.counts().pairs_waiting == 2


@given(kinds=st.lists(st.sampled_from(["plain", "brief", "third"]), max_size=6))
def test_pairs_cross_kinds_as_far_as_possible(kinds: list[str]) -> None:
    candidates = [Completion(k, f"u{k}", 1, f"t{k}", None, None, kind, None) for k, kind in enumerate(kinds)]
    couples = pair_up(candidates)
    used = [side.id for couple in couples for side in couple]
    assert len(couples) == len(kinds) // 2
    assert len(set(used)) == len(used)
    largest = max((kinds.count(kind) for kind in kinds), default=0)
    within = sum(one.model == other.model for one, other in couples)
    assert within == max(0, (2 * largest - len(kinds)) // 2)


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
    with pytest.raises(UsageError, match="name"):
        store.add_rater(" ")
    assert [rater.handle for rater in store.raters()] == ["demo"]


def test_the_counts_add_up(fill: Filled) -> None:
    store = fill(prompts=8)
    counts = store.counts()
    assert (counts.prompts, counts.completions, counts.pairs_waiting) == (8, 16, 8)
    assert counts.train + counts.heldout == 8
    assert (counts.judgements, counts.raters) == (0, 0)
