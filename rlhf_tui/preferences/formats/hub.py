"""Data sets of the Hugging Face hub, named 'hub:OWNER/NAME[:CONFIG][/SPLIT]', through its library `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rlhf_tui.errors import UsageError, UserError
from rlhf_tui.preferences.formats.lines import Row

PREFIX = "hub:"
_NO_SCRIPTS = 4  # the first version of `datasets` that runs no code of a data set
_NAME = re.compile(r"hub:(?P<name>[^/:@\s]+/[^/:@\s]+)(:(?P<config>[^/:@\s]+))?([/@](?P<split>\S+))?")


@dataclass(frozen=True)
class HubName:
    """What to load. `split` None: 'train', or the only one there is."""

    name: str
    config: str | None
    split: str | None


def parse_name(source: str) -> HubName:
    """'hub:OWNER/NAME[:CONFIG][/SPLIT or @SPLIT]' taken apart. Raises UsageError."""
    found = _NAME.fullmatch(source)
    if found is None:
        raise UsageError(
            f"{source!r} names no data set.",
            why="The form is hub:OWNER/NAME, hub:OWNER/NAME:CONFIG or either with /SPLIT.",
            todo="For example hub:Anthropic/hh-rlhf/test.",
        )
    return HubName(found["name"], found["config"], found["split"])


def hub_rows(source: str) -> Iterator[Row]:
    """The rows of a data set, numbered from 1. Raises UserError when it cannot be had, UsageError for its name."""
    wanted = parse_name(source)
    for number, value in enumerate(_load(source, wanted), 1):
        yield Row(number, value)


def _load(source: str, wanted: HubName) -> Any:
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise UserError(
            f"{source} cannot be read.",
            why="Reading from the hub needs the package datasets.",
            todo="Install it with: pip install 'rlhf-tui[hub]'.",
        ) from None
    _require_no_scripts(source, datasets)
    try:
        found = datasets.load_dataset(wanted.name, wanted.config, split=wanted.split)
    except Exception as error:  # the library raises whatever its network, cache and file formats raise
        raise UserError(
            f"{source} cannot be read.",
            why=f"{type(error).__name__}: {error}",
            todo="Check the name and the network; or download a file of it and import that.",
        ) from error
    if wanted.split is not None:
        return found
    return found[_only_split(source, list(found))]


def _require_no_scripts(source: str, datasets: Any) -> None:
    """Raise UserError for a version of the library that may run code which comes with a data set.

    From version 4 on there is none to run: it refuses a data set that has a script, offers no way around that (a
    `trust_remote_code` is read and ignored), and opens pickles for nothing but tensors. Looked up in 4.4.0 and 5.2.0,
    the ends of what the extra 'hub' allows today; an older one may lie around where that extra was never asked for.
    """
    version = str(getattr(datasets, "__version__", _NO_SCRIPTS))
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < _NO_SCRIPTS:
        raise UserError(
            f"{source} is not read with datasets {version}.",
            why="Versions before 4 may run code that comes with a data set.",
            todo="Update it with: pip install 'rlhf-tui[hub]'.",
        )


def _only_split(source: str, splits: list[str]) -> str:
    if len(splits) == 1:
        return splits[0]
    if "train" in splits:
        return "train"
    raise UsageError(
        f"{source} has several splits.", why=f"They are {', '.join(splits)}.", todo=f"Name one: {source}/{splits[0]}."
    )
