"""What the report shows, as values: mistakes, doubtful labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
