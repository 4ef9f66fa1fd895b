"""Which format a file is in, by the keys of its first rows: the first rule that fits half of them or more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats.lines import Row
from rlhf_tui.preferences.formats.readers import READERS, columns, tools
from rlhf_tui.preferences.formats.readers.building import is_transcript
from rlhf_tui.preferences.formats.sources import TABLES, Source

LOOKED_AT = 50  # rows

#: What `detect` says of a file that holds prompts and no judgements.
PROMPTS = "trl-prompts"


@dataclass(frozen=True)
class Detected:
    """The format of a file, why, and for a table which of its columns is which of ours."""

    format: str
    why: str
    mapping: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rule:
    format: str
    why: str
    fits: Callable[[dict[str, Any]], bool]


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: set(keys) <= set(row)


def _sides(kind: type | tuple[type, ...]) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(isinstance(row.get(key), kind) for key in ("chosen", "rejected"))


def _strings_under(key: str, *others: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: _sides(str)(row) and isinstance(row.get(key), str) and set(others) <= set(row)


def _is_hh(row: dict[str, Any]) -> bool:
    return is_transcript(row.get("chosen")) and is_transcript(row.get("rejected"))


def _is_sharegpt(row: dict[str, Any]) -> bool:
    return isinstance(row.get("conversations"), list) and _sides(dict)(row)


def _is_trl(row: dict[str, Any]) -> bool:
    return _sides(list)(row) and bool(row.get("prompt"))


def _is_axolotl(row: dict[str, Any]) -> bool:
    return _sides((dict, str, list))(row) and isinstance(row.get("messages"), list)


def _is_tree(row: dict[str, Any]) -> bool:
    root = row.get("prompt")
    return "message_tree_id" in row and isinstance(root, dict) and "replies" in root


def _is_message(row: dict[str, Any]) -> bool:
    return {"message_id", "role", "text"} <= set(row) and ("replies" in row or "parent_id" in row)


def _is_pandalm(row: dict[str, Any]) -> bool:
    return {"response1", "response2"} <= set(row) and any(key.startswith("annotator") for key in row)


def _is_label_studio(row: dict[str, Any]) -> bool:
    annotations = row.get("annotations")
    return isinstance(row.get("data"), dict) and isinstance(annotations, list)


def _is_old_alpaca(row: dict[str, Any]) -> bool:
    return "instruction" in row and isinstance(row.get("output"), list)


def _list_under(key: str, *inside: str) -> Callable[[dict[str, Any]], bool]:
    def fits(row: dict[str, Any]) -> bool:
        value = row.get(key)
        return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and set(inside) <= set(value[0])

    return fits


def _is_pair_of_some_kind(row: dict[str, Any]) -> bool:
    return _has("chosen", "rejected")(row) or _has("chosen_response", "rejected_response")(row)


RULES = (
    _Rule("rlhf-tui", "it has candidates and outcome", _has("candidates", "outcome")),
    _Rule("hh", "chosen and rejected are transcripts that begin with 'Human:'", _is_hh),
    _Rule("llamafactory-sharegpt", "it has conversations, and chosen and rejected are messages", _is_sharegpt),
    _Rule("llamafactory-v1", "it has chosen_messages", _has("chosen_messages", "rejected_messages")),
    _Rule("ms-swift", "it has messages and rejected_response", _has("messages", "rejected_response")),
    _Rule("ms-swift", "it has messages and rejected_messages", _has("messages", "rejected_messages")),
    _Rule("trl", "chosen and rejected are messages beside a prompt", _is_trl),
    _Rule("axolotl", "chosen and rejected are answers to messages", _is_axolotl),
    _Rule("trl-implicit", "chosen and rejected are conversations, without a prompt", _sides(list)),
    _Rule("rewardbench", "it has prompt, chosen, rejected and chosen_model", _strings_under("prompt", "chosen_model")),
    _Rule("trl-text", "prompt, chosen and rejected are texts", _strings_under("prompt")),
    _Rule("llamafactory-alpaca", "it has instruction, chosen and rejected", _strings_under("instruction")),
    _Rule("axolotl-intel", "it has question, chosen and rejected", _strings_under("question")),
    _Rule("axolotl-rm", "it has input, chosen and rejected", _strings_under("input")),
    _Rule("trl", "it has chosen and rejected", _is_pair_of_some_kind),
    _Rule("axolotl-nectar", "it has answers with answer and rank", _list_under("answers", "answer", "rank")),
    _Rule("rankings", "it has completions with text and rank", _list_under("completions", "text", "rank")),
    _Rule("llamafactory-alpaca", "its output is a list", _is_old_alpaca),
    _Rule("llamafactory-kto", "it has a conversation and kto_tag", _has("kto_tag")),
    _Rule("llamafactory-kto", "it has messages and label", _has("messages", "label")),
    _Rule("trl-unpaired", "it has completion and label", _has("completion", "label")),
    _Rule("summarize", "it has summaries and choice", _has("summaries", "choice")),
    _Rule("ziegler", "it has sample0 and best", _has("sample0", "best")),
    _Rule("shp", "it has human_ref_A, human_ref_B and labels", _has("human_ref_A", "human_ref_B", "labels")),
    _Rule("pandalm", "it has response1, response2 and annotators", _is_pandalm),
    _Rule("helpsteer", "it has response and helpfulness", _has("response", "helpfulness")),
    _Rule("arena", "it has two conversations and winner", _has("conversation_a", "conversation_b", "winner")),
    _Rule("arena", "it has two responses and winner_model_a", _has("response_a", "response_b", "winner_model_a")),
    _Rule("oasst", "it has a tree of replies", _is_tree),
    _Rule("oasst", "it has messages of a tree", _is_message),
    _Rule("label-studio", "it has data and annotations", _is_label_studio),
    _Rule("alpacaeval", "it has output_1, output_2 and preference", _has("output_1", "output_2", "preference")),
    _Rule("potato", "it has a pairwise answer beside its items", lambda row: bool(tools.schemes(row))),
)  # fmt: skip
_PROMPT_KEYS = ("prompt", "text", "instruction", "turns", "question", "messages")
#: Formats that are read by a mapping, and tools whose fields may be named by one.
_BY_COLUMNS = (*TABLES, "table")
_TOOLS = ("label-studio", "potato")
_OF_TOOLS = ("prompt", "a", "b", "winner")
#: Formats that a table may have instead of its own; others of the same keys are read by a mapping.
_IN_TABLES = ("arena", "alpacaeval", "pandalm", "shp", "helpsteer")


def detect(source: Source, first: Sequence[Row], format: str | None, mapping: Mapping[str, str] | None) -> Detected:
    """The format of a source whose first rows these are; `format` and `mapping` as the user gave them.

    Raises UsageError for an unknown format or mapping, and when nothing fits, with the keys that are there.
    """
    rows = [row.value for row in first if isinstance(row.value, dict)]
    if format is not None and format not in READERS:
        todo = f"Known are {', '.join(READERS)}."
        raise UsageError(f"The format {format!r} is unknown.", why=nearest(format, READERS), todo=todo)
    if mapping:
        return _by_mapping(source, rows, format, mapping)
    if format in _BY_COLUMNS:
        return _by_columns(source, first, format)
    if format is not None:
        return Detected(format, "you named it")
    found = _by_rules(rows, _IN_TABLES if source.kind in ("csv", "tsv") else None)
    if found is not None:
        return Detected(found.format, found.why)
    return _by_columns(source, first, _table(source))


def _table(source: Source) -> str:
    return source.kind if source.kind in TABLES else "table"


def _by_mapping(source: Source, rows: list[dict[str, Any]], format: str | None, mapping: Mapping[str, str]) -> Detected:
    """The format of rows whose fields the user has named. Raises UsageError when a mapping cannot be right."""
    tool = _by_rules(rows, _TOOLS)
    chosen = format or (tool.format if tool else _table(source))
    if chosen in _TOOLS:
        unknown = [name for name in mapping if name not in _OF_TOOLS]
        if unknown:
            todo = f"Of {chosen} these can: {', '.join(_OF_TOOLS)}. Nothing was imported."
            raise UsageError(f"{unknown[0]!r} cannot be mapped.", todo=todo)
    elif chosen in _BY_COLUMNS:
        columns.check_mapping(mapping, list(dict.fromkeys(key for row in rows for key in row)))
    else:
        raise UsageError(
            f"The format {chosen!r} takes no mapping.",
            why="Its fields have fixed names.",
            todo=f"A mapping is for {', '.join((*_BY_COLUMNS, *_TOOLS))}; or leave the format away.",
        )
    return Detected(chosen, "you gave a mapping", dict(mapping))


def _by_rules(rows: list[dict[str, Any]], among: Sequence[str] | None) -> _Rule | None:
    for rule in RULES:
        if (among is None or rule.format in among) and rows and 2 * sum(map(rule.fits, rows)) >= len(rows):
            return rule
    return None


def _by_columns(source: Source, first: Sequence[Row], format: str) -> Detected:
    rows = [row.value for row in first if isinstance(row.value, dict)]
    names = list(dict.fromkeys(key for row in rows for key in row))
    if first and _describes_data_sets(first[0].value):
        raise UsageError(
            f"{source.name} holds no judgements.",
            why="It describes data sets, as LLaMA-Factory's dataset_info.json does.",
            todo="Name the file with the rows itself.",
        )
    mapping = columns.guess(names)
    if mapping is not None:
        said = ", ".join(f"{ours}={theirs}" for ours, theirs in mapping.items())
        return Detected(format, f"its columns are {said}", mapping)
    if _holds_prompts(first):
        return Detected(PROMPTS, _what_is_there(names))
    raise unknown(source, first, names)


def _holds_prompts(first: Sequence[Row]) -> bool:
    def is_prompt(value: Any) -> bool:
        return isinstance(value, str) or (isinstance(value, dict) and any(key in value for key in _PROMPT_KEYS))

    return bool(first) and all(is_prompt(row.value) for row in first)


def unknown(source: Source, first: Sequence[Row], names: list[str]) -> UsageError:
    """The error for rows that fit nothing: what is there, what it may mean, and which formats exist."""
    if not names:
        return source.broken(first[0].number, "It is not a JSON object.")
    return source.broken(
        first[0].number,
        f"No format has its keys. {_what_is_there(names)}",
        todo=f"Name the format ({', '.join(READERS)}), or give a mapping like prompt=THEIRS,chosen=THEIRS,"
        "rejected=THEIRS. Nothing was imported.",
    )


def _what_is_there(names: list[str]) -> str:
    """The keys of the rows, and which of them may be misspelt."""
    if not names:
        return ""
    known = {*columns.OURS, *_PROMPT_KEYS, "conversations", "candidates", "answers", "completions"}
    hints = dict.fromkeys(hint for name in names if name not in known and (hint := nearest(name, sorted(known))))
    many = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return " ".join((f"Its keys are {many}.", *list(hints)[:2]))


def _describes_data_sets(value: Any) -> bool:
    places = ("file_name", "hf_hub_url", "ms_hub_url", "script_url")
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and any(place in entry for place in places) for entry in value.values()
    )
