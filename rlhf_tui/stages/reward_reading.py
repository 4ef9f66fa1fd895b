"""Where the reward model reads a text: after which layer, and at which token. Chosen on the labels themselves.

Which layer knows most of a taste differs: words show early, meaning in the middle, and the end is busy with the next
token. A head on frozen features is fitted out of fold for each place in turn, which takes seconds, and the one with
the least log-loss is taken (compare Skean et al., 2025, "Layer by layer").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from rlhf_tui.assessment.crossvalidation import Folded, folded
from rlhf_tui.errors import UserError
from rlhf_tui.model.base import Base
from rlhf_tui.model.decoder import runs_in_part
from rlhf_tui.model.heads import Pooling, Reading
from rlhf_tui.model.roles import reading_of
from rlhf_tui.runs.folder import write_whole
from rlhf_tui.settings import RewardSettings
from rlhf_tui.stages.reward_labels import Labelled, Labels
from rlhf_tui.training.features import Features

#: In the run's folder.
CHOICE = "reading.json"
#: Of the model's layers, in turn; the first layer and the end are tried as well.
SHARES = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)
#: With fewer judged pairs chance would choose.
LEAST_PAIRS = 20
#: More pairs than this do not change which place is best, only how long it takes to see.
MOST_PAIRS = 1000
_POOLINGS: tuple[Pooling, ...] = ("mean", "last")


@dataclass(frozen=True)
class Choice:
    """Where to read, and the gap of each training pair as a quick head sees it that was fitted on the other folds.

    gaps: (pairs,), fitted and read without the pair's own fold; none where there is only one fold.
    """

    reading: Reading
    gaps: tuple[float, ...]


def read_choice(path: Path) -> Choice | None:
    """What an earlier execution of the run chose; None when it had not come so far. Raises UserError when damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Choice(Reading(**found["reading"]), tuple(map(float, found["gaps"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read.", why=str(error), todo="Remove it: the run then chooses again where to read."
        ) from None


def write_choice(path: Path, choice: Choice) -> None:
    """Keep it: a run that goes on, perhaps on another machine, does not choose anew."""
    write_whole(path, json.dumps(asdict(choice)).encode())


def readings(settings: RewardSettings, base: Base) -> list[Reading]:
    """What the settings leave to choose from, the one to take without labels first.

    Raises UserError when this model cannot be read where they say.
    """
    depth = base.model.config.get_text_config().num_hidden_layers
    layers = [settings.layer] if settings.layer else [0]
    if not settings.layer and runs_in_part(base.model):
        middle = max(1, round(2 / 3 * depth))
        layers = list(dict.fromkeys([middle, 1, *(max(1, round(share * depth)) for share in SHARES), 0]))
    poolings = _POOLINGS if settings.pooling == "auto" else (settings.pooling,)
    return list(dict.fromkeys(reading_of(base, Reading(layer, pooling)) for layer in layers for pooling in poolings))


def choose_reading(
    labels: Labels, seen: Mapping[Reading, Features], step: Callable[[int], None] = lambda done: None
) -> Choice:
    """The reading with the least out-of-fold log-loss on the training pairs; the first where there are too few.

    What is told of a fold's pairs comes from the reading that does best inside the other folds, so that choosing
    flatters nothing (nested cross-validation; Varma and Simon, 2006). `step` hears how many have been tried.
    """
    first = next(iter(seen))
    if len(labels.folds) < 2:
        return Choice(first, ())
    tried = list(seen) if len(labels.train) >= LEAST_PAIRS else [first]
    folds = pairs_to_fit(labels.train)[2]
    some = np.unique(np.linspace(0, len(folds) - 1, min(len(folds), MOST_PAIRS)).astype(np.int64))
    losses, inner = np.full(len(tried), np.inf), np.full((len(tried), len(labels.folds)), np.inf)
    if len(tried) > 1 and len(np.unique(folds[some])) == len(labels.folds):
        for place, reading in enumerate(tried):
            if torch.isfinite(seen[reading].values).all():
                pairs = _in_folds(labels, seen[reading], some)
                losses[place], inner[place] = pairs.loss(), pairs.inner_losses()
            step(place + 1)
    without = [tried[place] for place in inner.argmin(axis=0)]
    found = np.zeros(len(folds))
    for reading in dict.fromkeys(without):
        own = np.isin(folds, [fold for fold, best in zip(np.unique(folds), without, strict=True) if best == reading])
        found[own] = _in_folds(labels, seen[reading], np.arange(len(folds))).gaps()[own]
    return Choice(tried[int(losses.argmin())], tuple(found.tolist()))


def _in_folds(labels: Labels, features: Features, some: np.ndarray) -> Folded:
    """These pairs, ready for quick fits on `features`."""
    gaps = features.gaps([labels.train[index].pair for index in some]).numpy()
    targets, weights, folds = pairs_to_fit(labels.train)
    return folded(gaps, targets[some], weights[some], folds[some])


def pairs_to_fit(train: Sequence[Labelled]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, weights and folds of these pairs, (pairs,) each, as a quick fit on features wants them."""
    ties = np.array([one.row.tie for one in train])
    targets = np.where(ties, 0.5, [1 - one.row.smoothing for one in train])
    return targets, np.array([one.row.weight for one in train]), np.array([one.row.fold for one in train])
