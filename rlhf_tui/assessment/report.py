"""From the evidence a run has gathered to its report, and the report on disk.

Reading a report needs no numpy: that is what the screens and the command line do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from rlhf_tui.assessment.case import Case
from rlhf_tui.assessment.counting import by_length, by_rater, by_strength
from rlhf_tui.assessment.detectors import INVARIANCE, findings
from rlhf_tui.assessment.grounds import Grounds, measured_on
from rlhf_tui.assessment.records import (
    VERSION,
    CrossvalidatedBy,
    Curve,
    Ensemble,
    Finding,
    LabelFacts,
    Normalisation,
    Preview,
    RaterAgreement,
    Report,
    Scored,
    TrainingFacts,
)
from rlhf_tui.assessment.report_text import report_markdown
from rlhf_tui.assessment.verdict import judge
from rlhf_tui.errors import UserError
from rlhf_tui.preferences.formats.writers.files import replacing
from rlhf_tui.preferences.intervals import Estimate

JSON = "report.json"
MARKDOWN = "report.md"


@dataclass(frozen=True)
class Evidence:
    """What a run knows about its reward model.

    `train` and `heldout` are scored by the trained model, `cross` are the training pairs scored out of fold by
    models of the kind `cross_by`. `agreement` is about the decided pairs that two raters both judged. `invariance`
    is the largest difference between one completion's score alone, in a batch, and with other padding;
    `invariance_limit` what rounding may come to: more in 16-bit arithmetic than in fp32.
    `findings` are those that only the engine can make, such as 'template'.
    """

    run: str
    labels: LabelFacts
    train: tuple[Scored, ...]
    heldout: tuple[Scored, ...]
    cross: tuple[Scored, ...]
    cross_by: CrossvalidatedBy
    ceiling: Estimate | None
    curve: Curve | None
    preview: tuple[Preview, ...]
    normalisation: Normalisation
    ensemble: Ensemble | None
    training: TrainingFacts
    agreement: tuple[RaterAgreement, ...]
    invariance: float
    seed: int
    findings: tuple[Finding, ...] = ()
    invariance_limit: float = INVARIANCE


@dataclass(frozen=True)
class _Versioned:
    """The one field that every version of the file has."""

    v: int


def build_report(evidence: Evidence) -> Report:
    """The whole report. The same evidence gives the same report, interval by interval (`evidence.seed`)."""
    from rlhf_tui.assessment import baselines, measures

    heldout, cross, train = (measures.accuracy(pairs) for pairs in (evidence.heldout, evidence.cross, evidence.train))
    by: CrossvalidatedBy = evidence.cross_by if cross is not None else ""
    on = measured_on(heldout, cross, by)
    measured = {"heldout": evidence.heldout, "crossvalidated": evidence.cross, "": ()}[on]
    deciding = {"heldout": heldout, "crossvalidated": cross, "": None}[on]
    if on == "heldout":
        rules = baselines.heldout_baselines(evidence.train, measured, seed=evidence.seed)
    else:
        rules = baselines.crossvalidated_baselines(measured, seed=evidence.seed)
    calibration = measures.calibration(measured)
    case = Case(
        train=evidence.train,
        heldout=evidence.heldout,
        measured=measured,
        measured_on=on,
        train_accuracy=train,
        heldout_accuracy=heldout,
        crossvalidated=cross,
        crossvalidated_by=by,
        deciding=deciding,
        baselines=rules,
        calibration=calibration,
        ceiling=evidence.ceiling,
        agreement=evidence.agreement,
        invariance=evidence.invariance,
        invariance_limit=evidence.invariance_limit,
    )
    found = (*evidence.findings, *findings(case))
    grounds = Grounds(evidence.labels, on, by, deciding, heldout, evidence.ceiling, rules, found, evidence.curve)
    return Report(
        run=evidence.run,
        labels=evidence.labels,
        verdict=judge(grounds),
        measured_on=on,
        heldout=heldout,
        crossvalidated=cross,
        crossvalidated_by=by,
        train=train,
        ceiling=evidence.ceiling,
        baselines=rules,
        by_strength=by_strength(measured),
        by_rater=by_rater(measured),
        by_length=by_length(measured),
        calibration=calibration,
        length_correlation=measures.length_correlation(measured, seed=evidence.seed),
        disagreements=measures.disagreements(evidence.heldout, evidence.cross),
        curve=evidence.curve,
        preview=evidence.preview,
        findings=found,
        normalisation=evidence.normalisation,
        ensemble=evidence.ensemble,
        training=evidence.training,
    )


def save_report(report: Report, folder: Path) -> None:
    """Write report.json and report.md into the folder, whole or not at all. Raises UserError when that fails."""
    body = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    # The Markdown first: where report.json is, both are.
    with replacing(folder / MARKDOWN, folder / JSON) as (markdown, data):
        markdown.write(report_markdown(report).encode("utf-8"))
        data.write(body)


def load_report(folder: Path) -> Report | None:
    """The report in a run's folder; None when there is none. Raises UserError for one that is damaged."""
    path = folder / JSON
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read.",
            why=error.strerror or str(error),
            todo=f"Check the rights of the file, or read {MARKDOWN} beside it.",
        ) from None
    try:
        found = msgspec.json.decode(data, type=_Versioned)
        if found.v != VERSION:  # before the rest, which another version may call otherwise
            raise UserError(
                f"{path} is of version {found.v}.",
                why=f"This program reads version {VERSION}.",
                todo=f"Read {MARKDOWN} beside it, or train the reward model again with this rlhf-tui.",
            )
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is damaged.",
            why=str(error),
            todo=f"Read {MARKDOWN} beside it, or train the reward model again.",
        ) from None
