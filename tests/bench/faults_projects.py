"""The runs of the soak in `faults.py`: how they are made, and how a disturbed one is compared with another."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What a worker needs, imported before it is forked; nothing here calls torch, whose threads would not survive that.
import rlhf_tui.stages.table  # noqa: F401
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.queue import Queue, Rules
from rlhf_tui.preferences.records import prefer, tied
from rlhf_tui.preferences.store import Store
from rlhf_tui.project import Project, open_project
from rlhf_tui.runs.events import Metric, Stage
from rlhf_tui.runs.folder import RunFolder, list_runs
from rlhf_tui.runs.journal import JournalReader

KINDS = ("generate", "reward", "ppo")
CLOCKS = ("seconds_sampling", "seconds_scoring", "seconds_update", "tokens_per_second", "update_tokens_per_second")
RATER = "me"  # judges during the soak; the reward model learns from 'demo' alone
_MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from faults_projects import make
make(*sys.argv[2:])
"""
SETTINGS = (
    "model.device=cpu",  # where a run that goes on is the same bit for bit
    "adapters.layers=2",
    "adapters.rank=4",
    "generate.prompts=30",
    "generate.batch_size=6",
    "generate.max_new_tokens=12",
    "reward.raters=demo",
    "reward.epochs=3",
    "reward.patience=0",
    "reward.learning_rate=0.001",
    "reward.save_every=2",
    "reward.ensemble=2",
    "reward.folds=2",
    "reward.reference_completions=16",
    "reward.preview_prompts=1",
    "ppo.max_new_tokens=8",
    "ppo.updates=10",
    "ppo.rollout_size=8",
    "ppo.policy_learning_rate=0.003",
    "ppo.save_every=2",
    "ppo.evaluate_every=3",
    "ppo.evaluate_prompts=4",
    "run.threads=1",
)


# -- making ---------------------------------------------------------------------------------------


def make(folder: str, kind: str) -> None:
    """A project with a tiny model, prompts, labels and a run of `kind` that has not begun. In a process of its own."""
    import importlib.util
    from importlib.resources import as_file, files

    from rlhf_tui import demo
    from rlhf_tui.preferences.formats import import_labels, read_prompts
    from rlhf_tui.project import create_project
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.worker import execute

    root = Path(folder)
    spec = importlib.util.spec_from_file_location("shared", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    model = root.parent / "model"
    if not model.exists():
        shared.tiny_folder.__wrapped__(_Folders(model))
    model_folder = next(model.glob("*/tiny-llama"))
    project = create_project(root, overrides=(*SETTINGS, f"model.name={model_folder}"))
    with as_file(files(demo)) as data, project.store() as store:
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=0.2)
        some = root.parent / "some.jsonl"
        some.write_text("".join((data / "pairs.jsonl").read_text().splitlines(keepends=True)[::5]))
        store.add_rater("demo", kind="model", card={})
        import_labels(store, some, rater="demo", heldout_fraction=0.2)
    if kind == "ppo":
        done = execute(project, create_run(project, "reward", overrides=("reward.folds=0",)))
        assert done.status == "finished", done
    create_run(project, kind)


class _Folders:
    """As much of pytest's factory as the fixture uses."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def mktemp(self, name: str) -> Path:
        (self._root / name).mkdir(parents=True)
        return self._root / name


def bare_bytes() -> int:
    """What a worker holds before it has loaded anything."""
    code = "import psutil, rlhf_tui.runs.worker; print(psutil.Process().memory_info().rss)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


# -- a run and what it came to --------------------------------------------------------------------


@dataclass
class Soaked:
    """A project whose last run is disturbed, and the judgements that its store has acknowledged meanwhile."""

    project: Project
    acknowledged: dict[int, str] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        return list_runs(self.project)[-1]

    def journal_size(self) -> int:
        try:
            return self.run.events_path.stat().st_size
        except FileNotFoundError:
            return 0

    def events(self) -> list[Any]:
        return [one.event for one in JournalReader(self.run.events_path).read(60)]

    def pid(self) -> int:
        return int(self.run.holder().pid)

    def doing(self) -> str:
        """The last stage that the run told."""
        stages = [one.name for one in self.events() if isinstance(one, Stage)]
        return stages[-1] if stages else "starting"

    def judge(self, chance: random.Random) -> None:
        """Give an answer or two, as a person would while the run works; to a reward run that has taken its labels."""
        if self.run.kind == "reward" and not (self.run.path / "snapshot.jsonl").exists():
            return
        try:
            with self.project.store() as store:
                rater = store.add_rater(RATER)
                session = store.start_session(rater.id, columns=80, rows=24)
                queue = Queue(store, rater, Rules(repeat_share=0.0))
                for _ in range(chance.randrange(1, 3)):
                    offer = queue.next()
                    if offer is None:
                        return
                    shown = store.present(offer.task_id, rater_id=rater.id, session_id=session, layout="stacked")
                    verdict = chance.choice((prefer(0), prefer(1), tied()))
                    self.acknowledged[store.judge(shown.id, verdict, latency_ms=1000)] = verdict.outcome
                    queue.refresh(offer.task_id, offer.purpose)
        except UserError as error:
            if "disk" not in str(error).lower() and "full" not in str(error).lower():
                raise

    # -- what must hold ---------------------------------------------------------------------------

    def differences(self, whole: Whole) -> list[str]:
        """What differs from the undisturbed run, is lost, or cannot be read."""
        run = self.run
        if run.status() != "finished":
            return [f"it is {run.status()}: {run.done()}", *run.log_tail(4)]
        found = []
        for name, mine in outcome(self.project).items():
            theirs = whole.outcome[name]
            if mine != theirs:
                found.append(f"{name} differ: {_first_difference(mine, theirs)}")
        with Store.open(self.project.database) as store:
            rater = store.rater(RATER)
            kept = {one.judgement_id for one in store.facts(rater.id)} if rater is not None else set()
        lost = set(self.acknowledged) - kept
        if lost:
            found.append(f"lost judgements: {sorted(lost)}")
        return found + self.unreadable(complete=True)

    def unreadable(self, *, complete: bool) -> list[str]:
        """Files that cannot be read; in a run that has ended well, also what is left over."""
        found = [text for path in self.project.root.rglob("*") if path.is_file() for text in _unreadable(path)]
        with closing(sqlite3.connect(self.project.database)) as database:
            (said,) = database.execute("PRAGMA integrity_check").fetchone()
        found += [] if said == "ok" else [f"the database: {said}"]
        if complete:
            left = [path.relative_to(self.project.root) for path in self.project.root.rglob("*") if _is_left_over(path)]
            found += [f"left over: {path}" for path in left]
        return found

    def not_blamed_on_the_disk(self) -> list[str]:
        """What is wrong with the last word of a run whose disk was full."""
        done = self.run.done()
        if done is None:
            return [f"no last word on a full disk: {self.run.status()} {self.run.log_tail(4)}"]
        said = " ".join((done.error or {}).values())
        return [] if done.status == "failed" and "disk" in said.lower() else [f"not blamed on the disk: {done}"]


@dataclass(frozen=True)
class Whole:
    """The undisturbed run of a kind: its project before it began, how long it took, and what it came to."""

    template: Path
    size: int
    seconds: float
    outcome: dict[str, Any]


def undisturbed(
    kind: str,
    folder: Path,
    start: Callable[[Soaked], int],
    until: Callable[[int, Callable[[], bool]], bool],
) -> Whole:
    """Make the project and carry its run out without any fault."""
    folder.mkdir(exist_ok=True)
    template = folder / kind
    subprocess.run([sys.executable, "-c", _MAKE, __file__, str(template), kind], check=True, stdout=subprocess.DEVNULL)
    soaked = copy_of_template(template, folder / f"{kind}-whole")
    begin = time.monotonic()
    until(start(soaked), lambda: False)
    if soaked.run.status() != "finished":
        raise SystemExit(f"the undisturbed {kind} run is {soaked.run.status()}: {soaked.run.done()}")
    return Whole(template, soaked.journal_size(), time.monotonic() - begin, outcome(soaked.project))


def copy_of(whole: Whole, folder: Path) -> Soaked:
    """The project as it was before its run began."""
    return copy_of_template(whole.template, folder)


def copy_of_template(template: Path, folder: Path) -> Soaked:
    shutil.copytree(template, folder)
    return Soaked(open_project(folder))


def outcome(project: Project) -> dict[str, Any]:
    """Everything the last run came to, without what a clock, a path or the memory of the machine made."""
    run = list_runs(project)[-1]
    metrics: dict[int, dict[str, float]] = {}
    for one in JournalReader(run.events_path).read(60):
        if isinstance(one.event, Metric):
            values = {name: value for name, value in one.event.values.items() if name not in CLOCKS}
            metrics.setdefault(one.event.step, {}).update(values)
    result = {name: value for name, value in run.result().items() if name != "memory"}
    found: dict[str, Any] = {"metrics": metrics, "result": result, "reports": _reports(run)}
    found["weights"] = {
        str(path.relative_to(project.root)): path.read_bytes()
        for path in sorted(project.adapters.rglob("*"))
        if path.suffix in (".safetensors", ".json")
    }
    with project.store() as store:
        texts = [one for prompt in store.prompts() for one in store.completions(prompt.id)]
        found["completions"] = [(one.uid, one.text, one.seed, one.finish_reason) for one in texts]
    with closing(sqlite3.connect(project.database)) as database:
        found["tasks"] = sorted(row[0] for row in database.execute("SELECT uid FROM task"))
    return found


def _reports(run: RunFolder) -> dict[str, Any]:
    path = run.path / "report.json"
    return {path.name: json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def _is_left_over(path: Path) -> bool:
    return path.suffix in (".partial", ".old") or path.name == "reserve"


def _first_difference(mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted(mine.keys() | theirs.keys(), key=str):
            if mine.get(key) != theirs.get(key):
                return f"{key}: {_first_difference(mine.get(key), theirs.get(key))}"
    if isinstance(mine, list) and isinstance(theirs, list):
        if len(mine) != len(theirs):
            return f"{len(mine)} instead of {len(theirs)}"
        return next((f"{a!r} instead of {b!r}" for a, b in zip(mine, theirs, strict=True) if a != b), "nothing")
    return f"{mine!r:.80} instead of {theirs!r:.80}"


def _unreadable(path: Path) -> list[str]:
    from safetensors import safe_open

    if any(part.endswith((".partial", ".old")) for part in path.parts) or path.name.startswith("."):
        return []  # half-written by design: nobody reads it
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                    file.get_tensor(name)
    except FileNotFoundError:
        return []
    except Exception as error:
        return [f"unreadable: {path.name} in {path.parent.name}: {error}"]
    return []
