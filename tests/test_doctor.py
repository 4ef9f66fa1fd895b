"""What the doctor says of machines that are described to it."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from rlhf_tui import doctor, locate
from rlhf_tui.doctor import GIB, Card, Check, NoDriver
from rlhf_tui.project import CONFIG

ADA = Card("RTX 4070", 12 * GIB, 11 * GIB, (8, 9))
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A healthy machine without a card; a test then breaks one thing."""
    for name in ("LC_ALL", "LC_CTYPE", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"LANG": "en_GB.UTF-8", "TERM": "xterm-256color", "COLORTERM": "truecolor"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RLHF_TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "terminal_size", lambda: (160, 48))
    monkeypatch.setattr(doctor, "cards", no_driver)
    monkeypatch.setattr(doctor, "filesystem", lambda folder: "ext4")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(500 * GIB, 100 * GIB, 400 * GIB))
    memory(monkeypatch, total=16, free=12)
    packages(monkeypatch)


def no_driver() -> list[Card]:
    raise NoDriver("Driver Not Loaded")


def memory(monkeypatch: pytest.MonkeyPatch, *, total: float, free: float) -> None:
    found = SimpleNamespace(total=int(total * GIB), available=int(free * GIB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)


def packages(monkeypatch: pytest.MonkeyPatch, *, missing: str = "", torch: str = "2.9.0+cpu", needs: str = "") -> None:
    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return torch if name == "torch" else "1.2.3"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [needs] if needs else None)


def find(name: str, folder: Path = Path()) -> Check:
    found = [check for check in doctor.examine(folder) if check.name == name]
    assert len(found) == 1
    return found[0]


def test_a_healthy_machine_has_no_problem(tmp_path: Path) -> None:
    checks = doctor.examine(tmp_path)
    assert [check.name for check in checks] == [
        *("python", "memory", "cpu cores", "disk"),
        *doctor.PACKAGES,
        *("card", "terminal", "colours", "glyphs", "tmux", "starter model"),
    ]
    assert [check.name for check in checks if check.status != "ok"] == ["card", "starter model"]
    assert all(check.advice for check in checks if check.status != "ok")


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    assert find("python").status == "problem"


@pytest.mark.parametrize(
    ("total", "free", "status"), [(16, 12, "ok"), (16, 2.5, "ok"), (16, 2.4, "note"), (2, 1, "problem")]
)
def test_memory(monkeypatch: pytest.MonkeyPatch, total: float, free: float, status: str) -> None:
    memory(monkeypatch, total=total, free=free)
    assert find("memory").status == status
    assert f"{total:.1f} GiB, {free:.1f} GiB free" in find("memory").found


def test_the_disk_of_a_folder_that_does_not_exist_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10 * GIB, 9 * GIB, GIB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check = find("disk", tmp_path / "not" / "yet")
    assert (check.status, asked[0]) == ("note", tmp_path.resolve())
    assert "1.0 GiB free" in check.found


def test_a_disk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache" / "starter-smollm2-135m-instruct").mkdir(parents=True)
    (tmp_path / "cache" / "starter-smollm2-135m-instruct" / "config.json").touch()

    def broken(path: Path) -> Usage:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    assert find("disk").status == "problem"
    assert "Input/output error" in find("disk").found


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, missing="peft")
    assert find("peft") == Check("peft", "problem", "not installed", "Install it: 'pip install peft'.")
    assert find("safetensors").found == "1.2.3"


@pytest.mark.parametrize(
    ("version", "needs", "build"),
    [
        ("2.9.0+cpu", "nvidia-cuda-runtime-cu12==12.8.90", "cpu"),
        ("2.9.0+cu128", "", "cuda"),
        ("2.9.0+rocm6.4", "", "rocm"),
        ("2.9.0", "nvidia-cuda-runtime-cu12==12.8.90; platform_system == 'Linux'", "cuda"),
        ("2.9.0", "sympy>=1.13", "cpu"),
        ("2.9.0", "", "cpu"),
    ],
)
def test_the_build_of_torch(monkeypatch: pytest.MonkeyPatch, version: str, needs: str, build: str) -> None:
    packages(monkeypatch, torch=version, needs=needs)
    assert doctor.torch_build() == build


def test_no_card_is_a_note_that_says_why() -> None:
    check = find("card")
    assert (check.status, check.advice) == ("note", "Small models run on the CPU.")
    assert "Driver Not Loaded" in check.found


@pytest.mark.parametrize(
    ("card", "torch", "status", "words"),
    [
        (ADA, "2.9.0+cu128", "ok", ""),
        (ADA, "2.9.0+cpu", "problem", "CUDA build"),
        (ADA, "2.9.0+rocm6.4", "note", "AMD"),
        (Card("RTX 2080", 8 * GIB, 8 * GIB, (7, 5)), "2.9.0+cu128", "note", "fp16"),
        (Card("GTX 1080", 8 * GIB, 8 * GIB, (6, 1)), "2.9.0+cu128", "note", "left it behind"),
        (Card("RTX 4070", 12 * GIB, 5 * GIB, (8, 9)), "2.9.0+cu128", "note", "other programs"),
    ],
)
def test_a_card(monkeypatch: pytest.MonkeyPatch, card: Card, torch: str, status: str, words: str) -> None:
    monkeypatch.setattr(doctor, "cards", lambda: [card])
    packages(monkeypatch, torch=torch)
    check = find("card")
    assert check.status == status
    assert words in check.advice
    if "rocm" not in torch:
        assert f"{card.name}, {card.total / GIB:.1f} GiB, {card.free / GIB:.1f} GiB free" in check.found


def test_a_card_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cards", lambda: [ADA])
    packages(monkeypatch, missing="torch")
    assert "torch is not installed" in find("card").found


# -- the driver's library, in place of the real one -----------------------------------------------


class Nvml(ModuleType):
    """A driver with the given cards; `failing` is the call that raises."""

    class NVMLError(Exception):
        pass

    def __init__(self, found: list[Card], failing: str = "") -> None:
        super().__init__("pynvml")
        self.found, self.failing, self.open = found, failing, 0

    def _try(self, call: str) -> None:
        if call == self.failing:
            raise self.NVMLError(f"{call} failed")

    def nvmlInit(self) -> None:
        self._try("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.found)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self.found[handle].name.encode()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        self._try("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=self.found[handle].total, free=self.found[handle].free)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        return self.found[handle].capability


def test_cards_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    library = Nvml([ADA, Card("RTX 3060", 12 * GIB, 12 * GIB, (8, 6))])
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert doctor.cards() == library.found
    assert library.open == 0


@pytest.mark.parametrize("failing", ["nvmlInit", "nvmlDeviceGetMemoryInfo"])
def test_a_driver_that_fails(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    monkeypatch.undo()
    library = Nvml([ADA], failing)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with pytest.raises(NoDriver, match=failing):
        doctor.cards()
    assert library.open == 0


def test_the_drivers_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoDriver, match="nvidia-ml-py"):
        doctor.cards()


# -- the terminal ---------------------------------------------------------------------------------


def test_without_a_terminal_nothing_is_said_of_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "terminal_size", lambda: None)
    names = [check.name for check in doctor.examine(Path())]
    assert find("terminal").status == "note"
    assert "colours" not in names
    assert "glyphs" not in names


@pytest.mark.parametrize(("size", "status"), [((80, 24), "ok"), ((79, 24), "note"), ((80, 23), "note")])
def test_the_size(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], status: str) -> None:
    monkeypatch.setattr(doctor, "terminal_size", lambda: size)
    assert find("terminal").status == status


def test_the_size_of_a_real_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked: list[int] = []

    def size(fd: int) -> os.terminal_size:
        asked.append(fd)
        if fd != 0:
            raise OSError("not a terminal")
        return os.terminal_size((100, 30))

    monkeypatch.setattr(os, "get_terminal_size", size)
    assert doctor.terminal_size() == (100, 30)
    assert asked == [1, 2, 0]


@pytest.mark.parametrize(
    ("term", "colorterm", "status"),
    [
        ("xterm-256color", "", "ok"),
        ("xterm", "truecolor", "ok"),
        ("xterm", "", "note"),
        ("dumb", "truecolor", "problem"),
        ("", "", "problem"),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, term: str, colorterm: str, status: str) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLORTERM", colorterm)
    assert find("colours").status == status


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({"LANG": "de_DE.utf8"}, "ok"),
        ({"LANG": "C"}, "note"),
        ({"LANG": ""}, "note"),
        ({"LANG": "C.UTF-8", "LC_ALL": "POSIX"}, "note"),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "ok"),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, "note"),
    ],
)
def test_glyphs(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], status: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find("glyphs").status == status
    assert "RLHF_TUI_ASCII=" in find("glyphs").advice
    assert (doctor.SAMPLE in find("glyphs").found) == (status == "ok")


def test_tmux(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("tmux").found == "installed"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert find("tmux").status == "note"
    monkeypatch.setenv("TMUX", "/tmp/tmux-1000/default,1,0")
    assert find("tmux") == Check("tmux", "ok", "running inside")


# -- the starter and the project ------------------------------------------------------------------


def test_the_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("starter model").status == "note"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GIB, GIB, 2**20))
    assert find("starter model").status == "problem"
    locate.starter_folder().mkdir(parents=True)
    (locate.starter_folder() / "config.json").touch()
    assert find("starter model").status == "ok"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / CONFIG).touch()
    return folder


def test_a_project_on_a_local_disk_is_left_as_it_was(project: Path) -> None:
    assert find("project", project).status == "ok"
    assert [path.name for path in project.iterdir()] == [CONFIG]


def test_a_project_on_a_network_disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "filesystem", lambda folder: "nfs4")
    check = find("project", project)
    assert check.status == "problem"
    assert "nfs4" in check.found
    assert "local disk" in check.advice


def test_locks_that_are_refused_or_exclude_nobody(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
    assert find("project", project).found.endswith("locks do not exclude")

    def unsupported(fd: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert find("project", project).status == "problem"
    assert "Operation not supported" in find("project", project).found


def test_the_innermost_mount_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    inner = tmp_path.resolve() / "share"
    mounts = [("/", "ext4"), (str(inner), "cifs"), (str(inner) + "-other", "nfs")]
    parts = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert doctor.filesystem(inner / "deep" / "project") == "cifs"
    assert doctor.filesystem(tmp_path) == "ext4"
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [])
    assert doctor.filesystem(tmp_path) == ""


def test_the_doctor_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rlhf_tui import doctor; doctor.examine(Path(sys.argv[1]));"
        "print([m for m in ('torch', 'transformers', 'peft', 'bitsandbytes') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
