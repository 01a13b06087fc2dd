"""Which labels are probably wrong, by answers of models that never learned from them.

How many is told by confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning:
Estimating Uncertainty in Dataset Labels"): a picture counts for a class when that class is at least
as probable for it as on average for the pictures with its label, which makes up for a model that is
surer of some classes than of others. Which ones is told by the odds of another class against the
label. Taking the pictures that count for another class, as the paper's simplest way does, finds
fewer wrong labels in as many suspects (docs/experiments/LOG.md).

The probabilities must come from cross-validation: a model agrees with labels that it has learned.
"""

from dataclasses import dataclass

import numpy as np

from vitreous.evaluation.intervals import (
    Interval,
    balanced_interval,
    proportion_interval,
    total_interval,
)


@dataclass(frozen=True)
class LabelErrors:
    """What is known of the labels of some pictures.

    Args:
        order: all pictures, the label that is likeliest wrong first.
        against: how many of the first the answers speak against.
        suggested: of each picture the most probable class but its label.
        noise: expected number of pictures with the label of the row that belong to the class of the
            column.
        expected: how many labels are wrong: all of `noise` but its diagonal. A model's own mistakes
            count in it, so it is rather too high; the interval only says how exactly so many
            pictures can tell.
        agreement: balanced share of the labels that the answers agree with.

    Shape:
        order, suggested: (pictures,) int64; noise: (classes, classes) float64
    """

    order: np.ndarray
    against: int
    suggested: np.ndarray
    noise: np.ndarray
    expected: Interval
    agreement: Interval

    @property
    def means_something(self) -> bool:
        """Whether the answers are better than guessing; if not, they tell nothing about labels."""
        return self.agreement.low > 1 / len(self.noise)

    @property
    def suspects(self) -> np.ndarray:
        """The pictures whose labels are worth a look, in order; none by answers that guess.

        As many as are expected to be wrong, but no label that is more probable than all others.

        Shape:
            (suspects,) int64
        """
        count = min(round(self.expected.value), self.against)
        return self.order[: count if self.means_something else 0]


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> LabelErrors:
    """Compare labels with answers by models that never learned from them.

    Args:
        probabilities: of each class; each picture answered by a model that it was held out of.
        labels: class index that each picture was given.

    Shape:
        (pictures, classes), (pictures,) int64

    Reference:
        Northcutt, Jiang and Chuang 2021, section 3.1: thresholds, confident joint, its calibration.

    Example:
        >>> answers = np.repeat([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], [10, 9, 1], axis=0)
        >>> found = find_label_errors(answers, np.repeat([0, 1], 10))
        >>> found.suspects.tolist(), found.suggested[19].item()
        ([19], 0)
    """
    every = np.arange(len(labels))
    own = probabilities[every, labels].astype(np.float64)
    others = probabilities.copy()
    others[every, labels] = -1.0
    # A network may be so sure that a probability becomes 0.
    odds = others.max(1) / np.maximum(own, np.finfo(np.float32).tiny)
    sizes = np.bincount(labels, minlength=probabilities.shape[1])
    joint = _confident_joint(probabilities, labels, own, sizes)
    return LabelErrors(
        order=np.argsort(-odds, kind="stable"),
        against=int((odds > 1).sum()),
        suggested=others.argmax(1),
        noise=_calibrated(joint, sizes),
        expected=_expected(joint, sizes),
        agreement=balanced_interval(odds <= 1, labels),
    )


def _confident_joint(
    probabilities: np.ndarray, labels: np.ndarray, own: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """How many pictures with the label of the row count for the class of the column (eq. 1)."""
    # A class that no picture has can't be confused with.
    thresholds = np.full(len(sizes), np.inf)
    np.divide(np.bincount(labels, own, len(sizes)), sizes, out=thresholds, where=sizes > 0)
    # The mean of equal numbers may be rounded above them.
    enough = np.where(probabilities >= thresholds - 1e-6, probabilities, -1.0)
    counts = enough.max(1) >= 0
    joint = np.zeros((len(sizes), len(sizes)), dtype=np.int64)
    np.add.at(joint, (labels[counts], enough.argmax(1)[counts]), 1)
    return joint


def _calibrated(joint: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The same so scaled that each row counts all pictures with its label (eq. 3)."""
    rows = joint.sum(1, keepdims=True)
    # Where no picture counts for anything, nothing speaks against the labels.
    shares = np.where(rows > 0, joint / np.maximum(rows, 1), np.eye(len(joint)))
    return shares * sizes[:, None]


def _expected(joint: np.ndarray, sizes: np.ndarray) -> Interval:
    """How many labels are wrong: of each class the share that counts for others, of its size."""
    seen = np.flatnonzero(joint.sum(1))
    shares = [proportion_interval(int(joint[label].sum() - joint[label, label]),
                                  int(joint[label].sum())) for label in seen]  # fmt: skip
    return total_interval(shares, sizes[seen].tolist())


def label_errors_in_words(errors: LabelErrors) -> str:
    """One sentence."""
    count, suspects = len(errors.order), len(errors.suspects)
    if not errors.means_something:
        return (
            f"The folds' answers for {count:,} pictures are no better than guessing: they tell "
            "nothing about the labels."
        )
    if not suspects:
        return f"None of {count:,} labels stands out."
    return (
        f"{suspects:,} of {count:,} labels {'is' if suspects == 1 else 'are'} worth a look; where "
        "the folds are mistaken themselves, right ones are among them."
    )
