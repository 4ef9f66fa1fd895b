"""What a run needs before it is started: checked without torch, so that the answer comes at once."""

from __future__ import annotations

from rlhf_tui import locate, models
from rlhf_tui.errors import UsageError
from rlhf_tui.project import Project, require_writable
from rlhf_tui.runs import notify
from rlhf_tui.runs.folder import list_runs
from rlhf_tui.runs.turn import require_free
from rlhf_tui.settings import Settings

KINDS = ("generate", "reward", "ppo", "compare", "export", "download", "chat")


def require_ready(project: Project, kind: str, settings: Settings) -> None:
    """Raise UsageError, saying what is missing and how to get it, when a run of `kind` cannot work yet.

    Raises ModelBusy when it would have to wait for another run and is not to.
    """
    require_writable(project)
    _refuse_while_downloading(project, settings)
    _NEEDS[kind](project, settings)
    if kind != "export":  # the export measures the disk itself, when it knows what it will write
        locate.require_disk(project.root, 200 * 2**20, f"the {kind} run")
    locate.require(settings.model.name, settings.model.revision)
    notify.require_program(settings.notify, project.root)
    require_free(project, kind, settings.run.when_busy, f"The {kind} run")


def nobody_told(project: Project, settings: Settings) -> str:
    """What to say when the project names a program or an address that the user has not allowed; mostly nothing.

    The run can be started all the same: it does without them.
    """
    alert = notify.nobody_told(settings.notify, project.root)
    return "" if alert is None else " ".join((alert.message, alert.why, alert.remedy))


def _refuse_while_downloading(project: Project, settings: Settings) -> None:
    """Two that fetch the same files would do it twice; and half a model cannot be loaded."""
    for run in list_runs(project):
        if run.kind == "download" and run.alive and run.record.settings["model"]["name"] == settings.model.name:
            raise UsageError(
                f"{run.name} is downloading the model.",
                todo=f"Wait until it has ended ('rlhf-tui runs watch {run.name}'), or stop it.",
            )


def _prompts(project: Project, split: str | None, purpose: str) -> None:
    with project.store() as store:
        if store.prompts(split):
            return
    name = {"heldout": "held-out prompts", "train": "training prompts"}.get(split or "", "prompts")
    raise UsageError(
        f"There are no {name} to {purpose}.",
        todo="Import some with 'rlhf-tui prompts import FILE'; a share of them is held out.",
    )


def _adapter(project: Project, role: str, command: str) -> None:
    if not (project.adapter(role) / "manifest.json").is_file():
        raise UsageError(f"There is no {role} adapter yet.", todo=f"Train it first: 'rlhf-tui train {command}'.")


def _for_generate(project: Project, settings: Settings) -> None:
    _prompts(project, None, "answer")


def _for_reward(project: Project, settings: Settings) -> None:
    with project.store() as store:
        waiting = store.counts().pairs_waiting
        if store.pairs("train"):
            return
    raise UsageError(
        "There are no labels to learn from yet.",
        why=f"{waiting} pairs wait for a judgement." if waiting else "There are no pairs of candidates either.",
        todo="Judge some with 'rlhf-tui label', or import labels with 'rlhf-tui labels import FILE'."
        if waiting
        else "Run 'rlhf-tui generate' and then 'rlhf-tui label', or import labels with 'rlhf-tui labels import FILE'.",
    )


def _for_ppo(project: Project, settings: Settings) -> None:
    _adapter(project, "reward", "reward")
    _prompts(project, "train", "practise on")


def _for_compare(project: Project, settings: Settings) -> None:
    _adapter(project, "reward", "reward")
    _adapter(project, "policy", "ppo")
    _prompts(project, "heldout", "compare on")


def _for_export(project: Project, settings: Settings) -> None:
    _adapter(project, "policy", "ppo")


def _for_download(project: Project, settings: Settings) -> None:
    if not models.is_here(settings.model):
        return
    found = models.find(settings.model)
    raise UsageError(f"{found.title} is on this machine already.", why=f"It lies in {found.path}.")


_NEEDS = {
    "generate": _for_generate,
    "reward": _for_reward,
    "ppo": _for_ppo,
    "compare": _for_compare,
    "export": _for_export,
    "chat": lambda project, settings: None,  # the base alone can be talked to
    "download": _for_download,
}
