"""What the report shows, as values: mistakes, rungs, folds, doubtful labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitreous.evaluation.intervals import Interval
from vitreous.pages.pictures import Embedded


@dataclass(frozen=True)
class Mistake:
    """A picture that was given the wrong class.

    Args:
        picture: as the model got it, before augmentation.
        file: its name, for the caption.
        truth: the class it has.
        answer: the class it was given.
        probability: of the answer, 0 to 1.
        overlay: the picture with what the answer comes from in colour, where that is known.

    Shape:
        picture, overlay: (height, width, 3) uint8
    """

    picture: np.ndarray
    file: str
    truth: str
    answer: str
    probability: float
    overlay: np.ndarray | None = None


@dataclass(frozen=True)
class Rung:
    """One way to use a pretrained model, as it did on the validation pictures.

    Args:
        what: in words.
        accuracy, balanced_accuracy: with their intervals.
        seconds: that it took.
        kept: whether it is the one that is used.
    """

    what: str
    accuracy: Interval
    balanced_accuracy: Interval
    seconds: float
    kept: bool


@dataclass(frozen=True)
class FoldRow:
    """One fold, or all of them together.

    Args:
        name: of the fold, or what is shown instead.
        n: pictures held out.
        accuracy, balanced_accuracy: shares, 0 to 1.
    """

    name: str
    n: int
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True)
class CrossValidated:
    """A score by cross-validation.

    Args:
        rows: a fold each.
        n: pictures in all.
        scores: name, mean, standard deviation over the folds, and interval over all pictures.
    """

    rows: Sequence[FoldRow]
    n: int
    scores: Sequence[tuple[str, float, float, Interval]]


@dataclass(frozen=True)
class Doubt:
    """A label that the folds' answers contradict.

    Args:
        picture: as the models got it.
        file: its name, for the caption.
        label: its class.
        suggested: the class that it was taken for.
        probability: of that class, 0 to 1.
    """

    picture: Embedded
    file: str
    label: str
    suggested: str
    probability: float


@dataclass(frozen=True)
class DoubtfulLabels:
    """What the folds say of the labels.

    Args:
        verdict: in a sentence.
        first: the likeliest wrong ones.
        command: that shows all of them.
    """

    verdict: str
    first: Sequence[Doubt]
    command: str
