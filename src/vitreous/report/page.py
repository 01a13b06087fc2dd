"""The report: one HTML file that needs nothing else, with the verdict first.

Takes values, reads no file and runs no model (`collect` gathers them); called at the end of a run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from jinja2 import Environment

from vitreous.diagnosis.causes import Diagnosis
from vitreous.evaluation.intervals import Interval
from vitreous.evaluation.metrics import ClassScore, Evaluation
from vitreous.pages.pictures import Embedded, picture_uri
from vitreous.pages.render import environment, render
from vitreous.report.figures import confusion_uri, learning_curves, looks, reliability_curve
from vitreous.report.parts import CrossValidated, DoubtfulLabels, Mistake, Rung

Standing = Literal["one class", "collapsed", "worse", "guessing", "uneven", "learned"]

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SCORES = (
    ("Accuracy", "share of the pictures answered rightly", "accuracy"),
    ("Balanced accuracy", "mean recall: every class counts alike", "balanced_accuracy"),
)
_THUMBNAILS = "a linear classifier of 8x8 pixels"
_TABLE_CLASSES = 20
_CONFUSIONS = 10
_WARNINGS = 500
_MISTAKE_SIDE = 224
_OVERLAY_SIDE = 128
_AUGMENTED_SIDE = 160
#: Of fewer pictures, one answer for all of them says little.
_COLLAPSED = 10


@dataclass(frozen=True)
class Report:
    """All that the page shows. Whatever is empty leaves its section out.

    Args:
        name: of the run.
        evaluation: the headline score.
        evaluated_on: "train", "valid", "test" or a path.
        ladder: what was tried with pretrained weights, from the simplest.
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
    """

    name: str
    evaluation: Evaluation
    evaluated_on: str
    ladder: Sequence[Rung]
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
    folds: CrossValidated | None = None
    labels: DoubtfulLabels | None = None
    diagnosis: Diagnosis | None = None
    findings: str = ""
    filters: np.ndarray | None = None
    positions: np.ndarray | None = None


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


@dataclass(frozen=True)
class Baseline:
    """What an answer that doesn't look at the picture, or hardly does, would score.

    Args:
        text: how it answers.
        share: its score, 0 to 1.
        kind: how the page draws it.
    """

    text: str
    share: float
    kind: Literal["chance", "majority", "thumbnails"]


def render_report(report: Report) -> str:
    """The page as a whole HTML document; the same report gives the same text."""
    evaluation = report.evaluation
    causes = [cause.kind for cause in report.diagnosis.causes] if report.diagnosis else []
    many = len(evaluation.classes) > _TABLE_CLASSES
    values = {
        "report": report,
        "evaluation": evaluation,
        "digits": _digits(evaluation.n),
        "even_loss": math.log(len(evaluation.classes)),
        "standing": standing(evaluation),
        "verdict": verdict(evaluation),
        "weakest": weakest_class(evaluation),
        "pictures_name": _pictures_name(report.evaluated_on, "leak" in causes),
        "causes": causes,
        "scores": _SCORES,
        "baselines": {metric: _all_baselines(evaluation, metric) for _, _, metric in _SCORES},
        "class_rows": _class_rows(evaluation, worst_first=many),
        "wrong": evaluation.n - _hits(evaluation),
        "many": many,
        "heat_map": confusion_uri(evaluation.confusion) if many else "",
        "confusions": frequent_confusions(evaluation) if many else [],
        "curves": learning_curves(report.history, 1 / len(evaluation.classes)),
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


def verdict_in_full(evaluation: Evaluation) -> str:
    """The verdict, and that it flatters where the same pictures also chose the weights."""
    flattered = " That is a little optimistic: these pictures also chose the weights."
    return f"{verdict(evaluation)}{flattered if evaluation.chose_weights else ''}"


def verdict(evaluation: Evaluation) -> str:
    """The score in words that a person can act on, held against answers without looking.

    Example:
        >>> from vitreous.evaluation.metrics import evaluate_probabilities
        >>> always_b, labels = np.tile([0.2, 0.8], (12, 1)), np.array([0, 1, 1] * 4)
        >>> verdict(evaluate_probabilities(always_b, labels, ["a", "b"], 1))
        "It answers 'b' for every picture: collapsed to one class. That is right for 8 of 12, 67 %."
    """
    digits = _digits(evaluation.n)
    right = f"{_hits(evaluation)} of {evaluation.n}"
    accuracy = percent(evaluation.accuracy.value, digits)
    share = f"{right} right, {accuracy} ({percent_range(evaluation.accuracy, digits)})"
    balanced = evaluation.balanced_accuracy
    by_class = f"{percent(balanced.value, digits)} ({percent_range(balanced, digits)})"
    chance, majority = _baselines(evaluation, "accuracy", merge=False)
    guessing = f"guessing one of {_number(len(evaluation.classes))}"
    best = max(chance, majority, key=lambda baseline: baseline.share)
    match standing(evaluation):
        case "one class":
            return (
                f"Every picture here is '{_present(evaluation)[0]}': {share}. "
                "One class alone can't show whether it tells classes apart."
            )
        case "collapsed":
            return (
                f"It answers '{_answered(evaluation)[0]}' for every picture: collapsed to one "
                f"class. That is right for {right}, {accuracy}."
            )
        case "worse":
            return (
                f"{share}: worse than {guessing}, which would give "
                f"{percent(chance.share, digits)}. Do the classes mean the same as in training?"
            )
        case "guessing" if evaluation.accuracy.high < chance.share:
            return (
                f"{share}: fewer than {guessing} would give ({percent(chance.share, digits)}). By "
                f"class it is not distinguishable from that: balanced accuracy {by_class}."
            )
        case "guessing" if evaluation.accuracy.low <= chance.share:
            also = f"; {best.text} would give {percent(best.share, digits)}"
            also = also if best is majority else ""
            return f"{share}: not distinguishable from {guessing}{also}."
        case "guessing":
            return (
                f"{share}: it has not learned more than {majority.text}, "
                f"which would give {percent(majority.share, digits)}."
            )
        case "uneven":
            less = evaluation.accuracy.high < best.share
            return (
                f"{share}: {'worse than' if less else 'not distinguishable from'} {best.text} "
                f"({percent(best.share, digits)}). Yet it tells the classes apart: balanced "
                f"accuracy {by_class}, by guessing {percent(chance.share, digits)}."
            )
        case "learned":
            return (
                f"Right for {right} pictures: {accuracy} "
                f"({percent_range(evaluation.accuracy, digits)}). "
                f"{best.text[0].upper()}{best.text[1:]} would give {percent(best.share, digits)}"
                f"{_against_thumbnails(evaluation, digits)}."
            )


def reliability_in_words(evaluation: Evaluation) -> str:
    """Whether the probabilities can be taken at their word; empty where nobody looked."""
    reliability, before = evaluation.reliability, evaluation.untempered
    if reliability is None:
        return ""
    text = (
        f"Its answers are {percent(reliability.confidence, 1)} sure on average and "
        f"{percent(evaluation.accuracy.value, 1)} right; a probability is off by "
        f"{percent(reliability.ece.value, 1)} on average ({percent_range(reliability.ece, 1)})."
    )
    if before is None:
        return text
    fitted = ", fitted on these very pictures," if evaluation.chose_weights else ","
    return (
        f"{text} Without the temperature, {before.temperature:.3g}{fitted} it would be "
        f"{percent(before.ece.value, 1)}, and the log loss {before.loss:.3f} instead of "
        f"{evaluation.loss:.3f}."
    )


def standing(evaluation: Evaluation) -> Standing:
    """Where the score's 95 % intervals stand towards guessing and the most frequent class.

    Returns:
        "one class": the pictures have only one, so nothing can be told apart; "collapsed": the
        answers to ten and more have only one; "worse": surely below guessing; "guessing": nothing
        shown to be learned; "uneven": not surely more right answers than by guessing or giving the
        most frequent class, yet the classes are told apart; "learned": more than either.
    """
    chance = 1 / len(evaluation.classes)
    majority = evaluation.baselines["majority"]["accuracy"]
    accuracy, balanced = evaluation.accuracy, evaluation.balanced_accuracy
    if len(_present(evaluation)) == 1:
        return "one class"
    if len(_answered(evaluation)) == 1 and evaluation.n >= _COLLAPSED:
        return "collapsed"
    if accuracy.high < chance and balanced.high < chance:
        return "worse"
    if accuracy.low > max(chance, majority):
        return "learned"
    # With classes of one size the two scores are one: the wider interval decides.
    differ = majority > chance or accuracy.high < chance
    return "uneven" if balanced.low > chance and differ else "guessing"


def weakest_class(evaluation: Evaluation) -> str:
    """One sentence on the class that is found least; empty where that would tell nothing."""
    present = _present(evaluation)
    if standing(evaluation) not in ("learned", "uneven"):
        return ""
    name = min(present, key=lambda name: evaluation.per_class[name].recall.value)
    score = evaluation.per_class[name]
    if score.recall.value == 1:
        return ""
    row = list(evaluation.confusion[evaluation.classes.index(name)])
    row[evaluation.classes.index(name)] = -1
    digits = _digits(score.support)
    return (
        f"Weakest: '{name}', found in {percent(score.recall.value, digits)} of its pictures "
        f"({percent_range(score.recall, digits)}), "
        f"most often taken for '{evaluation.classes[row.index(max(row))]}'."
    )


def frequent_confusions(evaluation: Evaluation) -> list[Confusion]:
    """The pairs of classes that are mixed up most often, ten at most."""
    found = [
        Confusion(truth, answer, count, count / sum(row))
        for truth, row in zip(evaluation.classes, evaluation.confusion, strict=True)
        for answer, count in zip(evaluation.classes, row, strict=True)
        if count and answer != truth
    ]
    return sorted(found, key=lambda pair: -pair.pictures)[:_CONFUSIONS]


def percent(share: float, digits: int = 0) -> str:
    """A share in percent; what is short of all never shows as 100 %.

    Example:
        >>> percent(0.8669, 1), percent(0.9999), percent(1.0)
        ('86.7 %', '99 %', '100 %')
    """
    shown = min(share, 1 - 10 ** -(digits + 2)) if share < 1 else share
    return f"{100 * shown:.{digits}f} %"


def percent_range(interval: Interval, digits: int = 0) -> str:
    """Both ends of an interval: "85.0 to 88.3 %"."""
    return f"{percent(interval.low, digits)[:-2]} to {percent(interval.high, digits)}"


def _digits(pictures: int) -> int:
    """Decimals of a percentage that so many pictures can carry."""
    return 0 if pictures < 1_000 else 1 if pictures < 100_000 else 2


def _number(count: int) -> str:
    return _NUMBER_WORDS[count] if count < len(_NUMBER_WORDS) else str(count)


def _hits(evaluation: Evaluation) -> int:
    return sum(row[index] for index, row in enumerate(evaluation.confusion))


def _present(evaluation: Evaluation) -> list[str]:
    return [name for name in evaluation.classes if evaluation.per_class[name].support]


def _answered(evaluation: Evaluation) -> list[str]:
    columns = zip(evaluation.classes, zip(*evaluation.confusion, strict=True), strict=True)
    return [name for name, column in columns if any(column)]


def _against_thumbnails(evaluation: Evaluation, digits: int) -> str:
    """The end of a sentence on the yardstick that hardly looks, where there is one."""
    if "thumbnails" not in evaluation.baselines:
        return ""
    share = evaluation.baselines["thumbnails"]["accuracy"]
    given = f"{_THUMBNAILS} {percent(share, digits)}"
    if share < evaluation.accuracy.low:
        return f", {given}"
    return f", but {given}: it is not shown to see more than colours and rough shapes"


def _all_baselines(evaluation: Evaluation, metric: str) -> list[Baseline]:
    """Those that don't look at the picture, and the one that hardly does."""
    baselines = _baselines(evaluation, metric)
    if thumbnails := evaluation.baselines.get("thumbnails"):
        baselines.append(Baseline(_THUMBNAILS, thumbnails[metric], "thumbnails"))
    return baselines


def _baselines(evaluation: Evaluation, metric: str, merge: bool = True) -> list[Baseline]:
    """Guessing and the most frequent class; merged into one where they score the same."""
    chance = evaluation.baselines["chance"][metric]
    majority = evaluation.baselines["majority"]
    always = f"always answering '{majority['label']}'"
    if merge and abs(chance - majority[metric]) < 5e-4:
        return [Baseline(f"guessing, or {always}", chance, "chance")]
    return [
        Baseline("guessing", chance, "chance"),
        Baseline(always, majority[metric], "majority"),
    ]


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
