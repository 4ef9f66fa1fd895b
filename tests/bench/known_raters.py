"""Does a reward model recover a rater whose taste is known? Made-up raters judge real short texts of the starter model.

    python tests/bench/known_raters.py [--rater lexical|linear|shorter|random ...] [--noise bradley-terry|slips]
                                       [--pairs 400] [--heldout 400]

Each rater compares two sentences that the starter model wrote. What they like is hidden from the reward model:
  lexical   the sentence with more words about the reader or a way out ("you", "your", "can", "help", "try")
  linear    the larger value of a fixed direction in the base's own feature space: the first principal component of the
            mean last hidden state of a sentence as an answer (without a prompt before it, the first token's state is
            that of an attention sink, and its share of the mean makes the component one of length)
  shorter   the shorter one, whatever it says
  random    a coin
All but the coin err in one judgement of ten, in one of two ways: `bradley-terry`, the model of the field, prefers the
better one with probability sigmoid(gap / temperature), so that mistakes happen between sentences that are nearly equal;
`slips` turns the answer round in one of ten, whatever the pair, which teaches less and asks more. The temperature is
set so that nine of ten answers follow the taste.
`right` is how often the model agrees with the noisy labels of held-out prompts, `ceiling` how often the rater's true
taste does; the model is within 3 points of the ceiling when it has found the taste. Every rater gets a project of
its own, and the ordinary `train reward` run; what it prints at the end is the run's own verdict.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

WORDS = frozenset(("you", "your", "yours", "yourself", "can", "help", "try"))
SLIPS = 0.1
SETTINGS = (
    "reward.ensemble=1",  # it is the first that is measured
    "reward.reference_completions=16",
    "reward.preview_prompts=0",
    "ppo.max_new_tokens=16",
    "adapters.layers=10",
    "model.chat_template=chatml",  # the starter's own puts a long system prompt before each of these short texts
    "prompts.heldout_fraction=0.2",
)

Taste = Callable[[str], float]


def sentences() -> list[str]:
    """Sentences of 5 to 25 words from the demo's candidates, each once, in a fixed order."""
    found: dict[str, None] = {}
    for line in (files("rlhf_tui.demo") / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        for candidate in json.loads(line)["candidates"]:
            for sentence in re.split(r"(?<=[.!?])\s+", candidate["text"]):
                if 5 <= len(sentence.split()) <= 25 and sentence[-1] in ".!?":
                    found[sentence.strip()] = None
    return list(found)


def lexical(text: str) -> float:
    """How many of the rater's words it has."""
    return sum(word in WORDS for word in re.findall(r"[a-z]+", text.lower()))


def shorter(text: str) -> float:
    """Fewer words are better."""
    return -len(text.split())


def principal_component(texts: Sequence[str], threads: int) -> Taste:
    """The value of each text along the first principal component of the base's mean last hidden states of answers."""
    import torch

    from rlhf_tui.model.base import load_base
    from rlhf_tui.preferences.records import Message
    from rlhf_tui.settings import ModelSettings

    torch.set_num_threads(threads)
    base = load_base(ModelSettings(chat_template="chatml"), lambda text: None)
    prompt = list(base.chat.prompt_ids([Message("user", "Say something.")]))
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([prompt + list(base.chat.completion_ids(text, ended=True))])
            hidden = base.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
            rows.append(hidden[len(prompt) :].mean(0))
    features = torch.stack(rows)
    features = (features - features.mean(0)) / features.std(0)
    _, _, directions = torch.linalg.svd(features, full_matrices=False)
    values = dict(zip(texts, (features @ directions[0]).tolist(), strict=True))
    return lambda text: values[text]


def temperature(taste: Taste) -> float:
    """At which a Bradley–Terry rater follows this taste in all but SLIPS of the judgements (pairs without ties)."""
    order, pool = random.Random(0), sentences()
    gaps = [abs(taste(one) - taste(other)) for one, other in (order.sample(pool, 2) for _ in range(4000))]
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        follows = [1 / (1 + math.exp(-min(gap / middle, 500))) for gap in gaps if gap > 0]
        low, high = (middle, high) if sum(follows) > (1 - SLIPS) * len(follows) else (low, middle)
    return math.sqrt(low * high)


def judged(
    taste: Taste | None, pairs: int, heldout: int, seed: int, noise: str
) -> tuple[list[dict[str, object]], float]:
    """So many training and held-out pairs with the rater's labels, and how often the held-out ones follow the taste."""
    order, pool = random.Random(seed), sentences()
    heat = temperature(taste) if taste is not None and noise == "bradley-terry" else 0.0
    rows: list[dict[str, object]] = []
    kept = 0
    while len(rows) < pairs + heldout:
        one, other = order.sample(pool, 2)
        drawn = order.random()
        slip = drawn < SLIPS
        if taste is None:
            one, other = order.sample((one, other), 2)
        else:
            gap = taste(one) - taste(other)
            if gap == 0:
                continue  # nothing to prefer
            if heat:
                slip = drawn < 1 / (1 + math.exp(min(abs(gap) / heat, 500)))
            if (gap < 0) != slip:
                one, other = other, one
        split = "train" if len(rows) < pairs else "heldout"
        kept += split == "heldout" and (taste is None or not slip)
        prompt = {"prompt": f"Say something, number {len(rows) + 1}.", "split": split}
        rows.append(prompt | {"chosen": one, "rejected": other})
    return rows, kept / heldout


def measure(name: str, taste: Taste | None, options: argparse.Namespace) -> None:
    """Train on the rater's labels and print what came of it."""
    from rlhf_tui.assessment.report import load_report
    from rlhf_tui.preferences.formats import import_labels
    from rlhf_tui.project import create_project
    from rlhf_tui.runs.folder import create_run
    from rlhf_tui.runs.worker import execute

    rows, ceiling = judged(taste, options.pairs, options.heldout, options.seed, options.noise)
    with tempfile.TemporaryDirectory() as scratch:
        settings = (*SETTINGS, f"run.threads={options.threads}", *options.set)
        project = create_project(Path(scratch) / "p", overrides=settings)
        path = Path(scratch) / "labels.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with project.store() as store:
            store.add_rater(name, kind="rule", card={})
            import_labels(store, path, rater=name, heldout_fraction=0.2)
        run = create_run(project, "reward")
        began = time.monotonic()
        done = execute(project, run)
        if done.status != "finished":
            raise SystemExit(f"{name}: {done}")
        report = load_report(run.path)
        assert report is not None
        assert report.heldout is not None
        share = report.heldout.rate.share or 0.0
        cross = report.crossvalidated.rate.share if report.crossvalidated else None
        print(
            json.dumps(
                {
                    "rater": name,
                    "noise": options.noise,
                    "read": [report.training.layer, report.training.pooling],
                    "train": report.labels.train_pairs,
                    "heldout": report.heldout.rate.n,
                    "right": round(share, 4),
                    "ceiling": round(ceiling, 4),
                    "below_ceiling_points": round(100 * (ceiling - share), 1),
                    "crossvalidated_probe": round(cross, 4) if cross is not None else None,
                    "kept_epoch": report.training.kept_epoch,
                    "seconds": round(time.monotonic() - began),
                    "verdict": report.verdict.level,
                    "headline": report.verdict.headline,
                    "findings": [one.name for one in report.findings],
                }
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rater", nargs="+", default=["lexical", "linear", "shorter", "random"])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--heldout", type=int, default=400)
    parser.add_argument("--noise", choices=["bradley-terry", "slips"], default="bradley-terry")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    for name in options.rater:
        taste: Taste | None
        if name == "linear":
            taste = principal_component(sentences(), options.threads)
        else:
            taste = {"lexical": lexical, "shorter": shorter, "random": None}[name]
        measure(name, taste, options)


if __name__ == "__main__":
    main()
