"""The report: one HTML file that needs nothing else, with the verdict first.

Takes values, reads no file and runs no model (`collect` gathers them); called at the end of a run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment

from vitreous.diagnosis.causes import Diagnosis
from vitreous.evaluation.metrics import ClassScore, Evaluation
from vitreous.evaluation.verdict import (
    all_baselines,
    digits_for,
    hits,
    percent,
    percent_range,
    reliability_in_words,
    standing,
    verdict,
    weakest_class,
)
from vitreous.pages.pictures import Embedded, picture_uri
from vitreous.pages.render import environment, render
from vitreous.report.figures import confusion_uri, learning_curves, looks, reliability_curve
from vitreous.report.parts import DoubtfulLabels, Mistake

if TYPE_CHECKING:  # it reads files, and what reads files imports PyTorch
    from vitreous.evaluation.results import FoldScores, Ladder

_SCORES = (
    ("Accuracy", "share of the pictures answered rightly", "accuracy"),
    ("Balanced accuracy", "mean recall: every class counts alike", "balanced_accuracy"),
)
_TABLE_CLASSES = 20
_CONFUSIONS = 10
_WARNINGS = 500
_MISTAKE_SIDE = 224
_OVERLAY_SIDE = 128
_AUGMENTED_SIDE = 160


@dataclass(frozen=True)
class Report:
    """All that the page shows. Whatever is empty leaves its section out.

    Args:
        name: of the run.
        evaluation: the headline score.
        evaluated_on: "train", "valid", "test" or a path.
        ladder: what was tried with pretrained weights; an empty one where nothing was.
        history: lines of ``metrics.jsonl``, of the kinds "train" and "valid".
        mistakes: the most confident first.
        augmented: a sample of training inputs, each (height, width, 3) uint8.
        warnings: one line each, such as ``train/happy/a.jpg: damaged``.
        facts: text by label, in the order to show.
        choice: setting, value and why the recipe chose it.
        config: TOML of every setting.
        versions: of packages, by name.
        reproduce: the command line.
        reasons: what the overlays of the mistakes are, and how far they can be believed.
        folds: the score by cross-validation, where there is one.
        labels: what it says of the labels.
        diagnosis: why it is stuck, where it is.
        findings: HTML of what is wrong with the pictures it was given.
        filters: of its patches, as `draw_filters` takes them.
        positions: how alike they are, as `draw_positions` takes them.
        keeps_last: whether the last weights are the ones to use, not those that validated best.
    """

    name: str
    evaluation: Evaluation
    evaluated_on: str
    ladder: "Ladder"
    history: Sequence[Mapping[str, Any]]
    mistakes: Sequence[Mistake]
    augmented: Sequence[np.ndarray]
    warnings: Sequence[str]
    facts: Mapping[str, str]
    choice: Sequence[Sequence[str]]
    config: str
    versions: Mapping[str, str]
    reproduce: str
    reasons: str = ""
    folds: "FoldScores | None" = None
    labels: DoubtfulLabels | None = None
    diagnosis: Diagnosis | None = None
    findings: str = ""
    filters: np.ndarray | None = None
    positions: np.ndarray | None = None
    keeps_last: bool = False


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Args:
        truth: the class the pictures have.
        answer: the class they were given.
        pictures: how many.
        share: of the true class's pictures, 0 to 1.
    """

    truth: str
    answer: str
    pictures: int
    share: float


def render_report(report: Report) -> str:
    """The page as a whole HTML document; the same report gives the same text."""
    evaluation = report.evaluation
    causes = [cause.kind for cause in report.diagnosis.causes] if report.diagnosis else []
    many = len(evaluation.classes) > _TABLE_CLASSES
    values = {
        "report": report,
        "evaluation": evaluation,
        "digits": digits_for(evaluation.n),
        "even_loss": math.log(len(evaluation.classes)),
        "standing": standing(evaluation),
        "verdict": verdict(evaluation),
        "weakest": weakest_class(evaluation),
        "pictures_name": _pictures_name(report.evaluated_on, "leak" in causes),
        "causes": causes,
        "scores": _SCORES,
        "baselines": {metric: all_baselines(evaluation, metric) for _, _, metric in _SCORES},
        "class_rows": _class_rows(evaluation, worst_first=many),
        "wrong": evaluation.n - hits(evaluation),
        "many": many,
        "heat_map": confusion_uri(evaluation.confusion) if many else "",
        "confusions": frequent_confusions(evaluation) if many else [],
        "curves": learning_curves(report.history, 1 / len(evaluation.classes), report.keeps_last),
        "reliability": reliability_curve(evaluation.reliability)
        if evaluation.reliability
        else None,
        "sureness": reliability_in_words(evaluation),
        "mistakes": [(mistake, _mistake_pictures(mistake)) for mistake in report.mistakes],
        "augmented": [picture_uri(picture, _AUGMENTED_SIDE) for picture in report.augmented],
        "warnings_shown": _WARNINGS,
        "looks": looks(report.filters, report.positions),
    }
    return render(_environment().get_template("report.html.jinja"), values)


def frequent_confusions(evaluation: Evaluation) -> list[Confusion]:
    """The pairs of classes that are mixed up most often, ten at most."""
    found = [
        Confusion(truth, answer, count, count / sum(row))
        for truth, row in zip(evaluation.classes, evaluation.confusion, strict=True)
        for answer, count in zip(evaluation.classes, row, strict=True)
        if count and answer != truth
    ]
    return sorted(found, key=lambda pair: -pair.pictures)[:_CONFUSIONS]


def _class_rows(evaluation: Evaluation, worst_first: bool) -> list[tuple[str, ClassScore]]:
    rows = [(name, evaluation.per_class[name]) for name in evaluation.classes]
    if not worst_first:
        return rows
    found = [row for row in rows if row[1].support]
    absent = [row for row in rows if not row[1].support]
    return sorted(found, key=lambda row: row[1].recall.value) + absent


def _mistake_pictures(mistake: Mistake) -> list[Embedded]:
    """The picture, and its overlay where there is one."""
    pictures = [picture_uri(mistake.picture, _MISTAKE_SIDE)]
    if mistake.overlay is not None:
        pictures.append(picture_uri(mistake.overlay, _OVERLAY_SIDE))
    return pictures


def _pictures_name(evaluated_on: str, leaked: bool) -> str:
    known = {"train": "the training pictures", "valid": "the validation pictures"}
    known["test"] = f"the test pictures{'' if leaked else ', held back from training'}"
    return known.get(evaluated_on, f"the pictures in {evaluated_on}")


@cache
def _environment() -> Environment:
    found = environment("vitreous.report")
    found.filters |= {"percent": percent, "percent_range": percent_range}
    return found
