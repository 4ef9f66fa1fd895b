"""The user's own keys: a small file that is theirs, not a project's.

# keys.toml: action = "key" or "key,other key"; 'rlhf-tui config keys' lists the actions
label.left = "a"
label.right = "l"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from rlhf_tui.app.keys import Keymap, keymap, spelt
from rlhf_tui.app.keytable import REGISTRY
from rlhf_tui.errors import UsageError


def key_file() -> Path:
    """Where the user's keys are, whether or not the file exists."""
    return platformdirs.user_config_path("rlhf-tui") / "keys.toml"


def load_keymap(path: Path) -> Keymap:
    """The keys of the file; those of the registry when there is none.

    Raises UsageError, naming the file, when it is broken or asks for keys that cannot be.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        return keymap(dict(_flat(tree)))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read.", why=str(error), todo="Correct it, or remove it.") from None
    except UsageError as error:
        raise UsageError(
            f"{path}: {error.what}", why=error.why, todo=error.todo or "Correct it, or remove the file."
        ) from None


@dataclass(frozen=True)
class Listed:
    """One action as a person reads it; `own`: its keys are the user's, not ours."""

    id: str
    keys: str
    help: str
    own: bool


def listing(mapped: Keymap) -> list[Listed]:
    """Every action of the app once, with the keys that `mapped` gives it."""
    return [
        Listed(
            action.id,
            " ".join(spelt(key) for key in mapped.get(action.id, action.keys).split(",")),
            action.help,
            mapped.get(action.id, action.keys) != action.keys,
        )
        for group in REGISTRY.values()
        for action in group
    ]


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """TOML reads `label.left = "a"` as a table in a table."""
    for name, content in tree.items():
        if isinstance(content, Mapping):
            yield from _flat(content, f"{before}{name}.")
        elif isinstance(content, str):
            yield f"{before}{name}", content
        else:
            raise UsageError(f"The key of {before}{name} must be a text.", todo='Write it in quotes: "a".')
