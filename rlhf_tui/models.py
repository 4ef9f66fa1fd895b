"""The models to choose from: those on this machine and the project's own, and what choosing another one means.

Nothing here asks the hub or imports torch. What `model.name` may say is in `locate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rlhf_tui import hub
from rlhf_tui.errors import UserError
from rlhf_tui.locate import STARTER, STARTER_LICENCE, STARTER_SIZE, Location, as_folder, locate, starter_folder
from rlhf_tui.project import Project, require_writable
from rlhf_tui.settings import ModelSettings, Settings, write
from rlhf_tui.shape import ModelShape, shape_of

State = Literal["cached", "folder", "partly here", "to download", "gone"]

#: The roles whose adapters are trained, in the order of the stages.
TRAINED = ("reward", "value", "policy")


@dataclass(frozen=True)
class FoundModel:
    """A model that `model.name` may name, as far as this machine knows it. Sizes in bytes."""

    name: str
    """what `model.name` says"""
    title: str
    """what people call it"""
    state: State
    kind: Literal["starter", "folder", "hub"]
    parameters: int | None = None
    size: int | None = None
    """what it takes on the disk; while it is not here, what would be downloaded; None: not known here"""
    licence: str = ""
    path: str = ""
    """where it lies; empty while it does not"""
    problem: str = ""
    """why it cannot be used"""
    todo: str = ""

    @property
    def here(self) -> bool:
        """Whether it can be loaded without the network."""
        return self.state in ("cached", "folder")

    @property
    def fetchable(self) -> bool:
        """Whether a download would bring it here."""
        return self.state in ("partly here", "to download")


def listed(current: ModelSettings) -> list[FoundModel]:
    """The starter, the models in the hub's cache, and the project's own. Reads the disk: not on a thread that draws."""
    found = [find(ModelSettings(name=STARTER)), *_cached()]
    own = find(current)
    if own.name in (names := [model.name for model in found]):
        found[names.index(own.name)] = own  # of the revision that the project names
    else:
        found.insert(1, own)
    return found


def find(settings: ModelSettings) -> FoundModel:
    """What this machine knows of the model that the settings name; one that is not there is 'gone'."""
    name = settings.name
    try:
        location = locate(name)
    except UserError as error:
        kind: Literal["folder", "hub"] = "folder" if as_folder(name).is_absolute() else "hub"
        return FoundModel(name, Path(name).name or name, "gone", kind, problem=error.what, todo=error.todo)
    if location.kind == "starter":
        return _starter()
    if location.kind == "folder":
        folder = Path(location.path)
        return _described(FoundModel(name, location.published_name, "folder", "folder"), location, folder)
    snapshot = hub.snapshot(name, settings.revision)
    if snapshot is None:
        return FoundModel(name, name, "to download", "hub")
    state: State = "cached" if hub.is_whole(snapshot) else "partly here"
    return _described(FoundModel(name, name, state, "hub"), location, snapshot)


def is_here(settings: ModelSettings) -> bool:
    """Whether the model can be loaded without the network. Some looks at the disk, no more."""
    try:
        location = locate(settings.name)
    except UserError:
        return False
    if location.kind == "starter":
        return (starter_folder() / "config.json").is_file()
    return location.kind == "folder" or hub.is_cached(settings.name, settings.revision)


def shape_here(settings: ModelSettings) -> ModelShape | None:
    """The shape of the model, or None while its config.json is still on the hub only: nothing is fetched.

    Raises UsageError for a model that is not there, or of a kind that the plan does not know.
    """
    location = locate(settings.name)
    if location.kind != "hub":
        return shape_of(location)
    folder = hub.snapshot(settings.name, settings.revision)
    if folder is None or not (folder / "config.json").is_file():
        return None
    return shape_of(Location("folder", settings.name, str(folder), location.published_name))


# -- choosing -------------------------------------------------------------------------------------


def stored_name(name: str) -> str:
    """What `model.name` shall say for a typed name: a folder by its whole path. Raises UsageError as `locate` does."""
    location = locate(name)
    return location.path if location.kind == "folder" else location.name


def trained_elsewhere(project: Project, name: str) -> Mapping[str, str]:
    """The roles that have an adapter made with another base than the model `name`, each with that base.

    A run refuses such an adapter when it loads it. Raises UsageError for an unknown name.
    """
    published = locate(name).published_name
    made = {role: _base_of(project.adapter(role)) for role in TRAINED}
    return {role: base for role, base in made.items() if base and base != published}


def belongings(elsewhere: Mapping[str, str], title: str) -> str:
    """What becomes of adapters that belong to another model, said before it is chosen."""
    roles, bases = " and ".join(elsewhere), " and ".join(sorted(set(elsewhere.values())))
    many = len(elsewhere) > 1
    return (
        f"The {roles} {'adapters belong' if many else 'adapter belongs'} to {bases}. "
        f"{title} cannot use {'them' if many else 'it'}: runs refuse an adapter of another base until that stage is "
        f"trained again, which replaces it. Prompts and judgements stay."
    )


def choose(project: Project, name: str) -> Settings:
    """Write `model.name`. The revision, which was the old model's, is taken out.

    Raises UsageError for an unknown name or a read-only project, UserError when the file cannot be written.
    """
    require_writable(project)
    stored = stored_name(name)
    settings = project.settings()
    if stored == settings.model.name:
        return settings
    if settings.model.revision:
        write(project.config, "model.revision", "")
    return write(project.config, "model.name", stored)


def _base_of(adapter: Path) -> str:
    try:
        manifest = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["layout"]["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


# -- describing -----------------------------------------------------------------------------------


def _starter() -> FoundModel:
    location = locate(STARTER)
    folder = Path(location.path)
    title = location.published_name.rpartition("/")[2]
    if not (folder / "config.json").is_file():
        parameters = shape_of(location).parameters
        return FoundModel(STARTER, title, "to download", "starter", parameters, STARTER_SIZE, STARTER_LICENCE)
    found = _described(FoundModel(STARTER, title, "cached", "starter"), location, folder)
    return replace(found, licence=STARTER_LICENCE)


def _cached() -> Iterator[FoundModel]:
    """Every language model in the hub's cache that has a configuration."""
    folder = hub.cache()
    if not folder.is_dir():
        return
    from huggingface_hub import scan_cache_dir

    try:
        repositories = scan_cache_dir(folder).repos
    except OSError:  # a folder in it that cannot be read hides the others
        return
    names = sorted((one.repo_id for one in repositories if one.repo_type == "model"), key=str.casefold)
    for name in names:
        snapshot = hub.snapshot(name)
        if snapshot is not None and (snapshot / "config.json").is_file():
            yield find(ModelSettings(name=name))


def _described(found: FoundModel, location: Location, folder: Path) -> FoundModel:
    """With what its files say."""
    found = replace(found, path=str(folder), licence=hub.licence_of(folder))
    if found.state != "partly here":
        found = replace(found, size=_size(folder))
    if not (folder / "config.json").is_file():
        return found
    try:
        shape = shape_of(Location("folder", found.name, str(folder), location.published_name))
    except UserError as error:
        return replace(found, problem=error.what, todo=error.todo)
    return replace(found, parameters=shape.parameters)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder itself: what loading reads lies there."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return 0
