"""The demo project: our own prompts, a written guideline, and judged pairs, imported as any user's would be."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

from rlhf_tui.preferences.formats import import_labels, read_prompts
from rlhf_tui.project import Project, create_project

STAGES = ("generate", "reward", "ppo", "compare", "export")

# Sized for two CPU cores and a few minutes; every one of them is an ordinary setting.
SETTINGS = (
    "adapters.layers=10",
    "adapters.rank=16",
    "generate.prompts=12",
    "generate.max_new_tokens=80",
    "generate.temperature=0.7",
    "reward.epochs=1",
    "reward.learning_rate=2e-4",
    "reward.head_learning_rate=2e-4",
    "reward.ensemble=1",  # a second one would take minutes more; seven updates are too few to exploit the first
    "reward.reference_completions=32",
    "reward.preview_prompts=2",
    "ppo.updates=7",
    "ppo.kl_coefficient=0.1",
    "ppo.rollout_size=32",
    "ppo.epochs=1",
    "ppo.minibatches=4",
    "ppo.micro_batch_tokens=1024",
    "ppo.max_new_tokens=64",
    "ppo.policy_learning_rate=1.5e-3",
    "ppo.value_learning_rate=1e-3",
    "ppo.save_every=4",
    "compare.samples_per_prompt=1",
)


def create_demo_project(folder: Path, overrides: tuple[str, ...] = ()) -> Project:
    """A new project in `folder` with the demo's prompts, guideline, rater and judgements."""
    project = create_project(folder, overrides=(*SETTINGS, *overrides))
    settings = project.settings()
    with as_file(files(__name__)) as data, project.store() as store, store.transaction():
        fraction = settings.prompts.heldout_fraction
        store.add_prompts(read_prompts(data / "prompts.jsonl"), heldout_fraction=fraction)
        store.set_guideline((data / "guideline.md").read_text(encoding="utf-8"))
        rater = json.loads((data / "rater.json").read_text(encoding="utf-8"))
        store.add_rater(rater["handle"], kind=rater["kind"], card=rater["card"])
        import_labels(store, data / "pairs.jsonl", rater=rater["handle"], heldout_fraction=fraction)
    return project
