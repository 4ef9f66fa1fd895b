"""Can this machine do it? Python, memory, disk, packages, card, terminal and glyphs, the starter, the project.

Nothing here imports torch or a model: packages are known by their metadata, the card through NVIDIA's
management library, so that the answer comes at once and even where torch is broken. Every probe is a
small function that returns what it found; the checks turn that into a status and advice.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from rlhf_tui import locate
from rlhf_tui.errors import UserError
from rlhf_tui.project import CONFIG
from rlhf_tui.runs.trust import untrusted
from rlhf_tui.settings import load

Status = Literal["ok", "note", "problem"]

GIB = 2**30
PYTHON = (3, 11)
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "textual", "safetensors")
SAMPLE = "⣀⣤⣶⣿ ▁▄█ ✓"

_STARTER_MEMORY = 2.5 * GIB  # training the starter on the CPU peaks at about 2 GB with short texts
_PROJECT_DISK = 2 * GIB
_COLUMNS, _ROWS = 80, 24
_SHARED_DISKS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "fuse.rclone", "glusterfs"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    """ok; note: works, with a limit worth knowing; problem: something will not work"""
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Card:
    """An NVIDIA card as its driver describes it. Memory in bytes."""

    name: str
    total: int
    free: int
    capability: tuple[int, int]


class NoDriver(Exception):
    """There is no NVIDIA driver, or it does not answer; the text says which."""


def examine(folder: Path) -> list[Check]:
    """Every check, in the order a person reads them. Changes nothing; `folder` may be a project, or not exist yet."""
    return [
        _python(),
        _memory(),
        _cores(),
        _disk(folder),
        *_packages(),
        _torch_and_cards(),
        *_terminal(),
        _tmux(),
        _starter(),
        *_project(folder),
    ]


# -- the machine ----------------------------------------------------------------------------------


def _python() -> Check:
    if sys.version_info[:2] < PYTHON:
        return Check("python", "problem", platform.python_version(), "Install Python 3.11 or newer.")
    return Check("python", "ok", platform.python_version())


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB free"
    if memory.available >= _STARTER_MEMORY:
        return Check("memory", "ok", found)
    return Check(
        "memory",
        "problem" if memory.total < _STARTER_MEMORY else "note",
        found,
        "Even the starter model takes about 2 GiB without a card. Close other programs; see 'rlhf-tui fit'.",
    )


def _cores() -> Check:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False)
    found = f"{allowed} usable" + (f", {physical} physical" if physical else "")
    return Check("cpu cores", "ok", found)


def _disk(folder: Path) -> Check:
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check("disk", "problem", f"{existing} cannot be read: {error.strerror}", "Choose another folder.")
    found = f"{free / GIB:.1f} GiB free for {folder}"
    if free >= _PROJECT_DISK:
        return Check("disk", "ok", found)
    return Check("disk", "note", found, "Checkpoints and exports need more; free some space or use another disk.")


# -- packages and the card ------------------------------------------------------------------------


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            yield Check(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "problem", "not installed", f"Install it: 'pip install {name}'.")


def torch_build() -> Literal["cuda", "cpu", "rocm", "none"]:
    """Which torch is installed, by its version ('2.9.0+cu128', '2.9.0+cpu'), else by what it requires."""
    try:
        _, _, build = importlib.metadata.version("torch").partition("+")
        needs = importlib.metadata.requires("torch") or []
    except importlib.metadata.PackageNotFoundError:
        return "none"
    if build.startswith("rocm"):
        return "rocm"
    if build:
        return "cuda" if build.startswith("cu") else "cpu"
    # the package index carries the CUDA build without a suffix; it requires NVIDIA's libraries
    return "cuda" if any(need.startswith(("nvidia-", "cuda-")) for need in needs) else "cpu"


def driver() -> Any:
    """NVIDIA's management library, ready to be asked; whoever has it shuts it down. Raises NoDriver."""
    try:
        import pynvml
    except ImportError:
        raise NoDriver("the package nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriver(str(error)) from None
    return pynvml


def cards() -> list[Card]:
    """The NVIDIA cards of this machine. Raises NoDriver when there is no driver to ask."""
    pynvml = driver()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_card(handle) for handle in handles]
    except pynvml.NVMLError as error:
        raise NoDriver(str(error)) from None
    finally:
        pynvml.nvmlShutdown()


def _card(handle: object) -> Card:
    import pynvml

    name = pynvml.nvmlDeviceGetName(handle)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    text = name.decode() if isinstance(name, bytes) else str(name)
    return Card(text, int(memory.total), int(memory.free), (int(major), int(minor)))


def _torch_and_cards() -> Check:
    build = torch_build()
    if build == "rocm":
        return Check("card", "note", "torch is the ROCm build", "AMD cards are untried here; NVIDIA cards are known.")
    try:
        found = cards()
    except NoDriver as error:
        return Check("card", "note", f"no NVIDIA card ({error})", "Small models run on the CPU.")
    if not found:
        return Check("card", "note", "no NVIDIA card", "Small models run on the CPU.")
    text = "; ".join(
        f"{card.name}, {card.total / GIB:.1f} GiB, {card.free / GIB:.1f} GiB free, "
        f"compute capability {card.capability[0]}.{card.capability[1]}"
        for card in found
    )
    if build != "cuda":
        state = "not installed" if build == "none" else "the CPU build"
        cure = "Install the CUDA build of PyTorch: see pytorch.org/get-started."
        return Check("card", "problem", f"{text}; torch is {state}", f"The card cannot be used. {cure}")
    return _first_card(found[0], text)


def _first_card(card: Card, text: str) -> Check:
    """Judge the card that 'auto' takes."""
    advice = []
    if card.capability < (8, 0):
        advice.append("The card has no bf16: the model computes in fp16.")
    if card.capability < (7, 5):
        advice.append("Recent builds of PyTorch may have left it behind.")
    if card.free < card.total / 2:
        advice.append("More than half of its memory is taken by other programs.")
    return Check("card", "note" if advice else "ok", text, " ".join(advice))


# -- the terminal ---------------------------------------------------------------------------------


def terminal_size() -> tuple[int, int] | None:
    """Columns and rows of the terminal this runs in, or None without one."""
    for fd in (1, 2, 0):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        return size.columns, size.lines
    return None


def _terminal() -> Iterator[Check]:
    size = terminal_size()
    if size is None:
        yield Check("terminal", "note", "none", "The app needs one; every other verb works without.")
        return
    small = size[0] < _COLUMNS or size[1] < _ROWS
    advice = f"The app is made for {_COLUMNS}x{_ROWS} and more." if small else ""
    yield Check("terminal", "note" if small else "ok", f"{size[0]}x{size[1]}", advice)
    yield _colours(os.environ.get("TERM", ""), os.environ.get("COLORTERM", ""))
    yield _glyphs(os.environ)


def _colours(term: str, colorterm: str) -> Check:
    found = f"TERM={term or '(unset)'} COLORTERM={colorterm or '(unset)'}"
    if term in ("", "dumb", "unknown"):
        return Check("colours", "problem", found, "Set TERM to what your terminal is, such as xterm-256color.")
    if colorterm in ("truecolor", "24bit") or "256color" in term or "direct" in term:
        return Check("colours", "ok", found)
    return Check("colours", "note", found, "Few colours; set TERM=xterm-256color if your terminal has more.")


def locale_found(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that decides about the encoding, in the order the C library looks, and its value; or nothing."""
    name = next((key for key in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(key)), "")
    return name, environ.get(name, "")


def lacks_glyphs(environ: Mapping[str, str]) -> str:
    """Why a terminal cannot draw braille dots, as far as the environment tells; empty when it seems able to."""
    value, term = locale_found(environ)[1].lower(), environ.get("TERM", "")
    if value and "utf-8" not in value and "utf8" not in value:
        return "its locale is not UTF-8"
    if term == "linux":
        return "the font of the Linux console lacks them"
    return "it is too simple a terminal" if term == "dumb" or re.fullmatch(r"vt\d+", term) else ""


def _glyphs(environ: Mapping[str, str]) -> Check:
    """Whether braille charts can be drawn: a UTF-8 locale, and a font that has them, which only eyes can tell."""
    name, value = locale_found(environ)
    found = f"{name}={value}" if name else "no locale is set"
    lacking = lacks_glyphs(environ)
    if lacking:
        advice = f"Charts are drawn in plain ASCII: {lacking}. RLHF_TUI_ASCII=0 draws dots all the same"
        return Check("glyphs", "note", found, f"{advice}; a UTF-8 locale is 'export LANG=C.UTF-8'.")
    if not name:
        return Check("glyphs", "note", found, "Choose one: 'export LANG=C.UTF-8'; or RLHF_TUI_ASCII=1.")
    return Check("glyphs", "ok", f"{found}: {SAMPLE}", "If you see boxes instead of rising bars, set RLHF_TUI_ASCII=1.")


def _tmux() -> Check:
    if os.environ.get("TMUX"):
        return Check("tmux", "ok", "running inside")
    if shutil.which("tmux"):
        return Check("tmux", "ok", "installed")
    advice = "Runs go on without it when the terminal closes; it only keeps the app itself open."
    return Check("tmux", "note", "not installed", advice)


# -- the starter and the project ------------------------------------------------------------------


def _starter() -> Check:
    if (locate.starter_folder() / "config.json").is_file():
        return Check("starter model", "ok", f"cached in {locate.starter_folder()}")
    try:
        locate.require_disk(locate.cache_folder(), locate.STARTER_DISK, "the starter model")
    except UserError as error:
        return Check("starter model", "problem", f"not fetched yet; {error.what} {error.why}", error.todo)
    return Check("starter model", "note", "not fetched yet", "It is fetched (93 MB) the first time it is used.")


def _project(folder: Path) -> Iterator[Check]:
    if not (folder / CONFIG).is_file():
        return
    yield from _told(folder)
    local = "Move the project to a local disk: locks and the database are not safe elsewhere."
    kind = filesystem(folder)
    if kind in _SHARED_DISKS:
        yield Check("project", "problem", f"{folder.resolve()} is on a network disk ({kind})", local)
        return
    if not os.access(folder, os.W_OK):
        advice = "Here it can only be looked at. Copy the project to a folder that you may write to."
        yield Check("project", "problem", f"{folder.resolve()} is read-only", advice)
        return
    try:
        excludes = locks_exclude(folder)
    except OSError as error:
        yield Check("project", "problem", f"{folder.resolve()}: {error.strerror or error}", local)
        return
    if excludes:
        yield Check("project", "ok", f"{folder.resolve()}: locks work")
    else:
        yield Check("project", "problem", f"{folder.resolve()}: locks do not exclude", local)


def _told(folder: Path) -> Iterator[Check]:
    """Whether whom the project would tell of its runs is allowed to be told."""
    try:
        wants = untrusted(load(folder / CONFIG).notify, folder)
    except UserError as error:
        yield Check("settings", "problem", error.what, error.todo)
        return
    if wants:
        advice = "If it is yours, allow it: 'rlhf-tui config trust'. Until then runs do without."
        yield Check("notify", "note", f"{' and '.join(wants)} came with the project", advice)


def filesystem(folder: Path) -> str:
    """The type of the file system that `folder` is on, such as 'ext4' or 'nfs4'; empty when unknown."""
    target = folder.resolve()
    above = [part for part in psutil.disk_partitions(all=True) if target.is_relative_to(part.mountpoint)]
    return str(max(above, key=lambda part: len(part.mountpoint)).fstype) if above else ""


def locks_exclude(folder: Path) -> bool:
    """Whether a second lock on a file in `folder` is refused. Raises OSError when files or locks cannot be had."""
    with tempfile.NamedTemporaryFile(prefix=".rlhf-tui-doctor-", dir=folder) as first:
        fcntl.flock(first.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(first.name, "rb") as second:
            try:
                fcntl.flock(second.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False
