"""Projects as the app meets them: empty, with labels, and with runs whose journals were really written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.app import App

from rlhf_tui.assessment.records import (
    Accuracy,
    Baseline,
    Bin,
    Calibration,
    Choice,
    Curve,
    CurvePoint,
    Disagreement,
    Ensemble,
    Finding,
    LabelFacts,
    Normalisation,
    Preview,
    Report,
    Slice,
    TrainingFacts,
    Verdict,
)
from rlhf_tui.preferences.intervals import Estimate, rate
from rlhf_tui.project import Project, create_project
from rlhf_tui.runs.events import (
    Done,
    Event,
    Metric,
)
from rlhf_tui.runs.folder import RunFolder
from tests.app.project_states import LONG, add_pairs, go_through, judge_all, ppo_events, write_report, write_run

#: What says where this terminal is and what it can do.
SURROUNDINGS = (
    *("NO_COLOR", "RLHF_TUI_ASCII", "RLHF_TUI_THEME", "TEXTUAL_THEME", "COLORFGBG"),
    *("TMUX", "STY", "DISPLAY", "WAYLAND_DISPLAY"),
)


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("SSH_CONNECTION", "a far place")  # no program of this machine is given what a test copies
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    # the app lives on after a bug; a test that met one by chance has failed
    crashes = list(tmp_path.rglob("crash-*.txt"))
    assert not crashes, "\n".join(path.read_text() for path in crashes)


#: What the starter's config.json says, as far as the memory plan reads it.
STARTER = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


@pytest.fixture(autouse=True)
def _models_of_this_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter looks as if it were here; the hub's cache is empty."""
    own = tmp_path_factory.mktemp("models")  # not in a folder that a test looks at
    for name in ("HF_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(own / "hub-cache"))
    monkeypatch.setenv("RLHF_TUI_CACHE", str(own / "own-cache"))
    folder = own / "own-cache" / "starter-smollm2-135m-instruct"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(STARTER))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with nothing in it."""
    return create_project(tmp_path / "my-assistant")


@pytest.fixture
def prompted(project: Project) -> Project:
    """Prompts with two candidates each: ten pairs wait to be judged."""
    add_pairs(project)
    return project


@pytest.fixture
def labelled(prompted: Project) -> Project:
    """The same, with all pairs judged by a model called 'demo'."""
    judge_all(prompted, "demo", kind="model")
    return prompted


WriteRun = Callable[..., RunFolder]


@pytest.fixture(name="write_run")
def _write_run() -> WriteRun:
    """Make a run folder and write a journal into it with the real writer."""
    return write_run


@pytest.fixture(name="ppo_events")
def _ppo_events() -> list[Event]:
    """A PPO run of twelve updates, with a score that is missing once."""
    return ppo_events()


@pytest.fixture
def finished(labelled: Project) -> Project:
    """Every stage has been through once."""
    go_through(labelled)
    return labelled


@pytest.fixture
def alive() -> Callable[[RunFolder], Iterator[None]]:
    """Hold a run's lock, as its worker does."""

    @contextmanager
    def hold(run: RunFolder) -> Iterator[None]:
        with run.lock():
            yield

    return hold  # type: ignore[return-value]


@pytest.fixture
def text_of() -> Callable[[App[None]], str]:
    """What is on screen, line by line, without colours."""

    def text(app: App[None]) -> str:
        strips = app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    return text


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Time that passes only when the test says so."""
    return Clock()


# Reports on reward models

HOSTILE = "\x1b]0;title\x07\x1b[31mred \u202eright to left\u202c [bold]not[/bold] 漢字"

VERDICTS = {
    "ready": Verdict(
        "ready",
        "Ready: right about 78 % (70 to 85 %) of new pairs.",
        (
            "Right about 78 % (70 to 85 %) of 118 pairs of held-out prompts.",
            "Always picking the shorter one is right about 58 %; the model differs from that by +20 points (+9 to "
            "+31).",
            "Your own labels are right about 90 % (84 to 95 %) of the time.",
        ),
        "Look at what it would choose (best-of-n), then start PPO: 4 in the app, or 'rlhf-tui train ppo'. The "
        "behaviour will be shaped by whoever did the rating; RLHF tunes behaviour, not facts.",
        None,
    ),
    "narrow": Verdict(
        "narrow",
        "Usable for a narrow taste: right about 64 % (58 to 70 %) of new pairs.",
        (
            "Right about 64 % (58 to 70 %) of 240 pairs in cross-validation (a quick head on the base's features).",
            "'Ready' asks for 65 % or more.",
            "The trained model itself was measured on 12 held-out pairs; 'ready' asks for 20.",
        ),
        "Label about 120 more pairs and train again. Or use it as it is: best-of-n shows what it would choose.",
        120,
    ),
    "not_yet": Verdict(
        "not_yet",
        "Not yet — label about 80 more pairs.",
        (
            "Right about 55 % (38 to 71 %) of 31 pairs of held-out prompts.",
            "Of models that have learnt nothing, 29 in 100 look as good as this.",
        ),
        "Judge them (2 and l in the app, or 'rlhf-tui label') and train again. If it is right as often then, luck is "
        "ruled out. A narrower taste (one thing you want, written into the guideline) needs fewer labels.",
        80,
    ),
    "broken": Verdict(
        "broken",
        "Broken — because all completions score about the same: better and worse differ by 0.0021 on average.",
        (
            "All completions score about the same: better and worse differ by 0.0021 on average. Such a model prefers "
            "nothing; PPO would follow rounding errors.",
        ),
        "Look at the training loss: at 0.693 nothing was learnt. Try a higher reward.learning_rate, and "
        "check that the candidates differ at all.",
        None,
    ),
}
FINDINGS = (
    Finding(
        "position",
        "warning",
        "The one shown first was called better in 64 % of 480 pairs.",
        "Sides are drawn by chance, so a habit of side is noise to a model that does not see the screen.",
        "Read both completions before answering, and judge in shorter sittings; label some pairs again.",
    ),
    Finding(
        "memorised",
        "note",
        "It is right about 97 % of the labels it was trained on, and about 64 % on prompts kept out of training.",
        "It knows these labels by heart; only the number on new prompts says what it will do in PPO.",
        "Normal with few labels. Fewer reward.epochs help a little, more labels help more.",
    ),
)
COLLAPSED = Finding(
    "collapsed",
    "broken",
    "All completions score about the same: better and worse differ by 0.0021 on average.",
    "Such a model prefers nothing; PPO would follow rounding errors.",
    "Look at the training loss: at 0.693 nothing was learnt.",
)


def accuracy(right: int, n: int) -> Accuracy:
    return Accuracy(rate(right, n), 0.61, 4)


def disagreement(judgement_id: int, gap: float, **more: Any) -> Disagreement:
    return Disagreement(
        **{
            "judgement_id": judgement_id,
            "prompt_text": f"Explain a KL penalty, take {judgement_id}. {HOSTILE}",
            "better_text": f"A leash. {HOSTILE}",
            "worse_text": LONG,
            "rater": "ann",
            "gap": gap,
            "kind": "heldout",
            **more,
        }
    )


def full_report(level: str = "narrow", **more: Any) -> Report:
    """A report with something to say in every part."""
    calibration = Calibration(
        bins=tuple(
            Bin(low, low + 0.1, low + 0.05, observed, 24)
            for low, observed in ((0.5, 0.52), (0.6, 0.58), (0.7, 0.71), (0.8, 0.69), (0.9, 0.83))
        ),
        ece=0.07,
        brier=0.212,
        log_loss=0.61,
        temperature=1.4,
    )
    curve = Curve(
        points=tuple(
            CurvePoint(share, share * 480, value, value - 0.05, value + 0.05)
            for share, value in ((0.25, 0.55), (0.5, 0.59), (0.75, 0.62), (1.0, 0.64))
        ),
        gain_50=(0.008, -0.002, 0.021),
        asymptote=0.72,
        pairs_to_ready=600,
    )
    previews = tuple(
        Preview(
            f"Why is the sky blue, take {number}? {HOSTILE}",
            (
                Choice(1, f"Because of air. {LONG}", -0.42, 118),
                Choice(4, f"Light scatters. {HOSTILE}", 0.81, 40),
                Choice(16, f"Light scatters. {HOSTILE}", 0.81, 40),
            ),
        )
        for number in range(1, 4)
    )
    parts: dict[str, Any] = {
        "run": "reward-0001",
        "labels": LabelFacts(
            hash="",
            snapshot="snapshot.jsonl",
            raters_filter=(),
            ties="half",
            folds=5,
            judgements=560,
            comparisons=598,
            train_pairs=480,
            heldout_pairs=118,
            heldout_ties=12,
            prompts=310,
            raters=("ann", "demo"),
            too_long=0,
        ),
        "verdict": VERDICTS[level],
        "measured_on": "crossvalidated" if level == "narrow" else "heldout",
        "heldout": accuracy(*{"ready": (92, 118), "narrow": (7, 12), "not_yet": (17, 31), "broken": (16, 31)}[level]),
        "crossvalidated": accuracy(154, 240),
        "crossvalidated_by": "probe",
        "train": accuracy(466, 480),
        "ceiling": Estimate(0.86, 0.78, 0.92, 41, True),
        "baselines": (
            Baseline("longer", rate(100, 240), (0.22, 0.12, 0.32)),
            Baseline("shorter", rate(140, 240), (0.06, -0.02, 0.14)),
            Baseline("bag of words", rate(134, 240), (0.08, 0.01, 0.15)),
        ),
        "by_strength": (Slice("better", rate(100, 164)), Slice("much better", rate(54, 76))),
        "by_rater": (Slice("ann", rate(110, 160)), Slice("demo", rate(44, 80))),
        "by_length": (
            Slice("about as long (within 10 %)", rate(44, 60)),
            Slice("the longer one is better", rate(60, 100)),
            Slice("the shorter one is better", rate(50, 80)),
        ),
        "calibration": calibration,
        "length_correlation": Estimate(-0.31, -0.44, -0.16, 480, True),
        "disagreements": tuple(disagreement(number, -3.1 + number / 5) for number in range(1, 13)),
        "curve": curve,
        "preview": previews,
        "findings": (COLLAPSED,) if level == "broken" else FINDINGS if level == "narrow" else (),
        "normalisation": Normalisation(0.31, 1.42, 64, "reference completions"),
        "ensemble": Ensemble(3, (0.64, 0.66, 0.61), 0.38),
        "training": TrainingFacts(3, 2, True, 180, 1, False),
    }
    return Report(**{**parts, **more})


def bare_report(**more: Any) -> Report:
    """A report that could measure nothing."""
    nothing: dict[str, Any] = {
        **dict.fromkeys(("heldout", "crossvalidated", "train", "ceiling", "calibration", "curve", "ensemble")),
        **dict.fromkeys(("baselines", "by_strength", "by_rater", "by_length", "disagreements", "preview"), ()),
        "measured_on": "",
        "crossvalidated_by": "",
        "length_correlation": Estimate(None, None, None, 0, False),
    }
    return full_report("not_yet", **{**nothing, **more})


@pytest.fixture
def report_of() -> Callable[..., Report]:
    """A report of a level, with other parts where they are given."""
    return full_report


@pytest.fixture
def nothing_measured() -> Callable[..., Report]:
    """A report that could measure nothing."""
    return bare_report


@pytest.fixture
def disagree() -> Callable[..., Disagreement]:
    """One disagreement about a judgement."""
    return disagreement


WriteReport = Callable[[Report, RunFolder], None]


@pytest.fixture(name="write_report")
def _write_report() -> WriteReport:
    """Put a report into a run's folder; it is of the labels as they are now, unless it names others."""
    return write_report


@pytest.fixture
def reported(labelled: Project, write_run: WriteRun, write_report: WriteReport) -> Callable[[Report], Project]:
    """A project whose newest run is a finished training with this report."""

    def put(report: Report) -> Project:
        run = write_run(labelled, "reward", [Metric(1, {"loss": 0.69}), Done("finished", result={})])
        write_report(report, run)
        return labelled

    return put
