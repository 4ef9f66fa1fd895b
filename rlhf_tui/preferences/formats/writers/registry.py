"""Every format judgements can be written in, by name."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_tui.errors import UsageError, nearest
from rlhf_tui.preferences.formats.writers import (
    axolotl,
    hh,
    leaderboards,
    llamafactory,
    oasst,
    openrlhf,
    own,
    rewardbench,
    swift,
    tables,
    trl,
)
from rlhf_tui.preferences.formats.writers.sources import (
    Rows,
    judgements_of,
    marks_of,
    own_lines,
    pairs_of,
    prompts_of,
)

#: The format that holds prompts and no judgements.
PROMPTS = "trl-prompts"
#: What can be done with ties: left out, written in both directions (one row each), or kept as ties.
TIES = ("drop", "half", "keep")

# The first is what is done when nobody says.
_TRAINER = ("drop", "half")
_TABLE = ("keep", "drop", "half")
_RANKING = ("keep", "drop")
_NONE = ("drop",)


@dataclass(frozen=True)
class Format:
    """A format by name: the name of its file in a folder of all, its rows, its body, its ties, its use.

    `body`: 'lines' or 'array' of JSON, 'csv', 'tsv' or 'parquet'. `plain`: the tool reads no compressed file.
    """

    name: str
    file: str
    rows: Rows
    body: str
    ties: tuple[str, ...]
    use: str
    plain: bool = False


def _llamafactory(name: str, file: str, rows: Rows, body: str, ties: tuple[str, ...] = _TRAINER) -> Format:
    return Format(name, file, rows, body, ties, llamafactory.USE[name], plain=True)


_ALL = (
    Format("rlhf-tui", "labels.rlhf_tui.jsonl", own_lines(), "lines", _RANKING, own.USE),
    Format("trl", "pref.trl.jsonl", pairs_of(trl.explicit), "lines", _TRAINER, trl.USE["trl"]),
    Format(
        "trl-implicit", "pref.trl_implicit.jsonl", pairs_of(trl.implicit), "lines", _TRAINER, trl.USE["trl-implicit"]
    ),
    Format("trl-text", "pref.trl_text.jsonl", pairs_of(trl.text), "lines", _TRAINER, trl.USE["trl-text"]),
    Format("trl-unpaired", "unpaired.trl.jsonl", marks_of(trl.unpaired), "lines", _NONE, trl.USE["trl-unpaired"]),
    Format(PROMPTS, "prompts.trl.jsonl", prompts_of(trl.prompt_only), "lines", _NONE, trl.USE["trl-prompts"]),
    Format("hh", "pref.hh.jsonl", pairs_of(hh.row), "lines", _TRAINER, hh.USE),
    _llamafactory("llamafactory-alpaca", "pref.alpaca.json", pairs_of(llamafactory.alpaca), "array"),
    _llamafactory("llamafactory-sharegpt", "pref.sharegpt.json", pairs_of(llamafactory.sharegpt), "array"),
    _llamafactory("llamafactory-kto", "kto.json", marks_of(llamafactory.kto), "array", _NONE),
    _llamafactory("llamafactory-v1", "pref.llamafactory_v1.jsonl", pairs_of(llamafactory.v1), "lines"),
    Format("axolotl", "pref.axolotl.jsonl", pairs_of(axolotl.chat), "lines", _TRAINER, axolotl.USE["axolotl"]),
    Format(
        "axolotl-intel",
        "pref.axolotl_intel.jsonl",
        pairs_of(axolotl.intel),
        "lines",
        _TRAINER,
        axolotl.USE["axolotl-intel"],
    ),
    Format(
        "axolotl-nectar",
        "rankings.nectar.jsonl",
        judgements_of(axolotl.nectar),
        "lines",
        _RANKING,
        axolotl.USE["axolotl-nectar"],
    ),
    Format(
        "axolotl-rm",
        "pref.axolotl_rm.jsonl",
        pairs_of(axolotl.bradley_terry),
        "lines",
        _TRAINER,
        axolotl.USE["axolotl-rm"],
    ),
    Format("ms-swift", "pref.ms_swift.jsonl", pairs_of(swift.row), "lines", _TRAINER, swift.USE, plain=True),
    Format("openrlhf", "pref.openrlhf.jsonl", pairs_of(openrlhf.row), "lines", _TRAINER, openrlhf.USE, plain=True),
    Format("rewardbench", "pref.rewardbench.jsonl", pairs_of(rewardbench.row), "lines", _TRAINER, rewardbench.USE),
    Format(
        "arena",
        "battles.jsonl",
        pairs_of(leaderboards.battle, bad=leaderboards.both_bad),
        "lines",
        _TABLE,
        leaderboards.USE["arena"],
    ),
    Format(
        "alpacaeval",
        "annotations.alpacaeval.json",
        pairs_of(leaderboards.annotation),
        "array",
        _TABLE,
        leaderboards.USE["alpacaeval"],
    ),
    Format("oasst", "trees.oasst.jsonl", judgements_of(oasst.tree), "lines", _NONE, oasst.USE),
    Format("csv", "pairs.csv", pairs_of(tables.row, bad=tables.both_bad), "csv", _TABLE, tables.USE),
    Format("tsv", "pairs.tsv", pairs_of(tables.row, bad=tables.both_bad), "tsv", _TABLE, tables.USE),
    Format(
        "parquet", "pairs.parquet", pairs_of(tables.row, bad=tables.both_bad), "parquet", _TABLE, tables.USE, plain=True
    ),
)

FORMATS = {format.name: format for format in _ALL}


def find(name: str) -> Format:
    """The format of that name. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(
            f"The format {name!r} is unknown.", why=nearest(name, FORMATS), todo=f"Known are {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def settle_ties(format: Format, ties: str | None) -> str:
    """What is done with ties in that format; None: what it does by itself. Raises UsageError."""
    if ties is None:
        return format.ties[0]
    if ties not in TIES:
        raise UsageError(f"Ties cannot be {ties!r}.", todo=f"Choose one of {', '.join(TIES)}.")
    if ties not in format.ties:
        able = ", ".join(one.name for one in _ALL if ties in one.ties)
        raise UsageError(
            f"The format {format.name!r} cannot {ties} ties."
            if ties == "keep"
            else f"Ties cannot be halved in the format {format.name!r}.",
            why="It has no way to say that two answers are equally good." if ties == "keep" else "It has no pairs.",
            todo=f"Choose {' or '.join(repr(one) for one in format.ties)}, or one of the formats {able}.",
        )
    return ties
