"""Prompts and completions: the texts that judgements are about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.database import Database, Row, now
from rlhf_tui.preferences.identity import fraction, uid
from rlhf_tui.preferences.records import (
    ROLES,
    SPLITS,
    Added,
    Completion,
    Generation,
    Message,
    NewCompletion,
    NewPrompt,
    Prompt,
)

COMPLETIONS = """SELECT c.id, c.uid, c.prompt_id, c.text, c.n_tokens, c.finish_reason, m.name AS model, c.seed,
  c.generation_id, c.edited_from FROM completion c JOIN model m ON m.id = c.model_id"""


# Prompts


def messages_json(messages: Sequence[Message]) -> str:
    """The canonical text of a conversation: what a prompt's uid is the hash of."""
    plain = [{"role": message.role, "content": message.content} for message in messages]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def prompt_uid(messages: Sequence[Message]) -> str:
    """The same conversation has the same uid in every project."""
    return uid("prompt", messages_json(messages))


def check_prompt(prompt: NewPrompt) -> None:
    """Raises UsageError unless the prompt can be answered: known roles, ends with a non-empty user turn."""
    if not prompt.messages or prompt.messages[-1].role != "user" or not prompt.messages[-1].content.strip():
        raise UsageError(
            "A prompt must end with a user message that is not empty.",
            todo="Add the user's message, or leave this prompt out.",
        )
    for message in prompt.messages:
        if message.role not in ROLES:
            raise UsageError(
                f"A prompt has a message of role {message.role!r}.",
                why=f"Known are {', '.join(ROLES)}.",
                todo=nearest(message.role, ROLES) or "Give the message one of these roles, or leave this prompt out.",
            )
        check_text(message.content)
    if prompt.split is not None and prompt.split not in SPLITS:
        raise UsageError(
            f"A prompt has the split {prompt.split!r}.",
            why=f"Known are {' and '.join(SPLITS)}.",
            todo="Name one of them, or none: then the project chooses.",
        )


def check_text(text: str) -> None:
    """Raises UsageError for a text that cannot be written as UTF-8 (half of a surrogate pair)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("A text holds half a character (a lone surrogate).", todo="Repair it at its source.") from None


def check_edit(original: Completion, text: str) -> None:
    """Raises UsageError unless the text is a better version of a completion that can be stored."""
    check_text(text)
    if not text.strip():
        raise UsageError("The edited answer is empty.", todo="Write something, or leave it as it was.")
    if text.strip() == original.text.strip():
        raise UsageError("The edited answer is the same as before.", todo="Change it, or leave without storing.")


def seed_of(db: Database) -> int:
    """The project's seed."""
    return db.number("SELECT seed FROM project")


def add_prompts(db: Database, rows: Iterable[NewPrompt], *, heldout_fraction: float) -> Added:
    """Add prompts; one that is there already stays as it is, split included."""
    added = duplicates = 0
    with db.transaction():
        for prompt in rows:
            _, is_new = add_prompt(db, prompt, heldout_fraction=heldout_fraction)
            added += is_new
            duplicates += not is_new
    return Added(added, duplicates)


def add_prompt(db: Database, prompt: NewPrompt, *, heldout_fraction: float) -> tuple[int, bool]:
    """The id of the prompt, and whether it is new. Call it inside a transaction."""
    check_prompt(prompt)
    identity = prompt_uid(prompt.messages)
    found = db.row("SELECT id FROM prompt WHERE uid = ?", identity)
    if found is not None:
        return int(found["id"]), False
    split = prompt.split or choose_split(identity, seed_of(db), heldout_fraction)
    new = db.insert(
        "INSERT INTO prompt(uid, messages_json, split, source, tags_json, created_at) VALUES(?, ?, ?, ?, ?, ?)",
        identity,
        messages_json(prompt.messages),
        split,
        prompt.source,
        json.dumps(list(prompt.tags), ensure_ascii=False),
        now(),
    )
    return new, True


def choose_split(prompt_uid: str, seed: int, heldout_fraction: float) -> str:
    """The split of a prompt: depends on nothing but the prompt, the project's seed and the fraction."""
    return "heldout" if fraction("split", seed, prompt_uid) < heldout_fraction else "train"


def prompts(db: Database, split: str | None = None) -> list[Prompt]:
    """All prompts, or those of one split, in the order they were added."""
    if split is not None and split not in SPLITS:
        raise ValueError(f"unknown split {split!r}")
    return [as_prompt(row) for row in db.rows("SELECT * FROM prompt WHERE ?1 IS NULL OR split = ?1 ORDER BY id", split)]


def prompt(db: Database, prompt_id: int) -> Prompt:
    """One prompt. Raises UsageError when there is none of that id."""
    row = db.row("SELECT * FROM prompt WHERE id = ?", prompt_id)
    if row is None:
        raise UsageError(f"There is no prompt {prompt_id}.", todo="'rlhf-tui prompts list' shows them all.")
    return as_prompt(row)


def as_prompt(row: Row) -> Prompt:
    messages = tuple(Message(m["role"], m["content"]) for m in json.loads(row["messages_json"]))
    return Prompt(row["id"], row["uid"], messages, row["split"], row["source"], tuple(json.loads(row["tags_json"])))


# Models, generations and completions


def add_model(db: Database, name: str, kind: str, *, sha: str, facts: dict[str, object]) -> int:
    """The id of a model; the same name, kind and sha is the same model."""
    identity = uid("model", name, kind, sha)
    with db.transaction():
        found = db.row("SELECT id FROM model WHERE uid = ?", identity)
        if found is not None:
            return int(found["id"])
        return db.insert(
            "INSERT INTO model(uid, name, kind, sha, facts_json, created_at) VALUES(?, ?, ?, ?, ?, ?)",
            identity,
            name,
            kind,
            sha,
            json.dumps(facts, ensure_ascii=False, sort_keys=True, default=str),
            now(),
        )


def add_generation(db: Database, *, temperature: float, top_p: float, max_new_tokens: int, system_prompt: str) -> int:
    """The id of these sampling settings; the same settings are the same row."""
    sha = uid("generation", float(temperature), float(top_p), max_new_tokens, system_prompt)
    with db.transaction():
        found = db.row("SELECT id FROM generation WHERE sha256 = ?", sha)
        if found is not None:
            return int(found["id"])
        return db.insert(
            "INSERT INTO generation(sha256, temperature, top_p, max_new_tokens, system_prompt) VALUES(?, ?, ?, ?, ?)",
            sha,
            temperature,
            top_p,
            max_new_tokens,
            system_prompt,
        )


def generation(db: Database, generation_id: int) -> Generation:
    """The sampling settings of one generation."""
    (row,) = db.rows(
        "SELECT id, temperature, top_p, max_new_tokens, system_prompt FROM generation WHERE id = ?", generation_id
    )
    return Generation(*row)


def add_completions(db: Database, rows: Iterable[NewCompletion]) -> list[int]:
    """Add completions as they are; the same text from the same draw is the same completion."""
    with db.transaction():
        return [_add_completion(db, row) for row in rows]


def _add_completion(db: Database, new: NewCompletion) -> int:
    check_text(new.text)
    owners = db.row(
        """SELECT (SELECT uid FROM prompt WHERE id = ?) AS prompt, (SELECT uid FROM model WHERE id = ?) AS model,
        (SELECT sha256 FROM generation WHERE id = ?) AS generation""",
        new.prompt_id,
        new.model_id,
        new.generation_id,
    )
    assert owners is not None
    if owners["prompt"] is None or owners["model"] is None:
        raise ValueError(f"a completion names prompt {new.prompt_id} and model {new.model_id}; one does not exist")
    identity = uid("completion", owners["prompt"], owners["model"], owners["generation"], new.seed, new.text)
    found = db.row("SELECT id FROM completion WHERE uid = ?", identity)
    if found is not None:
        return int(found["id"])
    return db.insert(
        """INSERT INTO completion(uid, prompt_id, model_id, generation_id, seed, characters, n_tokens, finish_reason,
        edited_from, created_at, text) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        identity,
        new.prompt_id,
        new.model_id,
        new.generation_id,
        new.seed,
        len(new.text),
        new.n_tokens,
        new.finish_reason,
        new.edited_from,
        now(),
        new.text,
    )


def completions(db: Database, prompt_id: int) -> list[Completion]:
    """The completions of one prompt, in the order they were added."""
    return [Completion(*row) for row in db.rows(f"{COMPLETIONS} WHERE c.prompt_id = ? ORDER BY c.id", prompt_id)]


def completions_by_prompt(db: Database) -> dict[int, int]:
    """How many completions each prompt has, by prompt id."""
    return {row[0]: row[1] for row in db.rows("SELECT prompt_id, COUNT(*) FROM completion GROUP BY prompt_id")}


def completion(db: Database, completion_id: int) -> Completion:
    """One completion. Raises ValueError when there is none of that id."""
    row = db.row(f"{COMPLETIONS} WHERE c.id = ?", completion_id)
    if row is None:
        raise ValueError(f"no completion {completion_id}")
    return Completion(*row)


def set_scores(db: Database, run: str, scores: Mapping[int, float]) -> None:
    """Replace every stored score by these (completion id to score)."""
    with db.transaction():
        db.run("DELETE FROM score")
        for completion_id, score in scores.items():
            db.insert("INSERT INTO score(completion_id, score, run) VALUES(?, ?, ?)", completion_id, score, run)


def scores(db: Database) -> dict[int, float]:
    """The stored score of each scored completion, by id."""
    return {row["completion_id"]: row["score"] for row in db.rows("SELECT completion_id, score FROM score")}
