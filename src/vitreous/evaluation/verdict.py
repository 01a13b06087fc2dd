"""The verdict on a model, in words that a person can act on: what its score allows to be said.

A score is held against answers that don't look at the picture, and against one that hardly does.
"""

from dataclasses import dataclass
from typing import Literal

from vitreous.evaluation.intervals import Interval
from vitreous.evaluation.metrics import Evaluation

Standing = Literal["one class", "collapsed", "worse", "guessing", "uneven", "learned"]

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_THUMBNAILS = "a linear classifier of 8x8 pixels"
#: Of fewer pictures, one answer for all of them says little.
_COLLAPSED = 10


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


def verdict_in_full(evaluation: Evaluation) -> str:
    """The verdict, and that it flatters where the same pictures also chose the weights."""
    flattered = " That is a little optimistic: these pictures also chose the weights."
    return f"{verdict(evaluation)}{flattered if evaluation.chose_weights else ''}"


def verdict(evaluation: Evaluation) -> str:
    """The score in words that a person can act on, held against answers without looking.

    Example:
        >>> import numpy as np
        >>> from vitreous.evaluation.metrics import evaluate_probabilities
        >>> always_b, labels = np.tile([0.2, 0.8], (12, 1)), np.array([0, 1, 1] * 4)
        >>> verdict(evaluate_probabilities(always_b, labels, ["a", "b"], 1))
        "It answers 'b' for every picture: collapsed to one class. That is right for 8 of 12, 67 %."
    """
    digits = digits_for(evaluation.n)
    right = f"{hits(evaluation)} of {evaluation.n}"
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
    digits = digits_for(score.support)
    return (
        f"Weakest: '{name}', found in {percent(score.recall.value, digits)} of its pictures "
        f"({percent_range(score.recall, digits)}), "
        f"most often taken for '{evaluation.classes[row.index(max(row))]}'."
    )


def all_baselines(evaluation: Evaluation, metric: str) -> list[Baseline]:
    """Those that don't look at the picture, and the one that hardly does."""
    baselines = _baselines(evaluation, metric)
    if thumbnails := evaluation.baselines.get("thumbnails"):
        baselines.append(Baseline(_THUMBNAILS, thumbnails[metric], "thumbnails"))
    return baselines


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


def digits_for(pictures: int) -> int:
    """Decimals of a percentage that so many pictures can carry."""
    return 0 if pictures < 1_000 else 1 if pictures < 100_000 else 2


def hits(evaluation: Evaluation) -> int:
    """How many pictures were answered rightly."""
    return sum(row[index] for index, row in enumerate(evaluation.confusion))


def _number(count: int) -> str:
    return _NUMBER_WORDS[count] if count < len(_NUMBER_WORDS) else str(count)


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
