"""Which labels are probably wrong, by answers of models that never learned from them.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels"). A picture counts for a class when the class is at least as probable for it as it
is on average for the pictures that have its label; where that class isn't its label, the label is
worth a look. The thresholds make up for a model that is surer of some classes than of others.

The probabilities must come from cross-validation: a model agrees with labels that it has learned.
"""

from dataclasses import dataclass

import numpy as np

from vitreous.evaluation.intervals import (
    Interval,
    mean_interval,
    proportion_interval,
    total_interval,
)


@dataclass(frozen=True)
class LabelErrors:
    """What is known of the labels of some pictures.

    Args:
        order: all pictures, the label that is likeliest wrong first.
        is_suspect: whether the label is worth a look.
        suggested: another class than the label: the one it counts for, or else the most probable.
        noise: expected number of pictures with the label of the row that belong to the class of the
            column.
        expected: how many labels are wrong: all of `noise` but its diagonal. The interval is about
            how many pictures there are; a model's own mistakes can make it too high.
        agreement: balanced share of the labels that the answers agree with.

    Shape:
        order, is_suspect, suggested: (pictures,); noise: (classes, classes)
    """

    order: np.ndarray
    is_suspect: np.ndarray
    suggested: np.ndarray
    noise: np.ndarray
    expected: Interval
    agreement: Interval

    @property
    def suspects(self) -> np.ndarray:
        """The pictures whose labels are worth a look, in order.

        Shape:
            (suspects,) int64
        """
        return self.order[self.is_suspect[self.order]]

    @property
    def means_something(self) -> bool:
        """Whether the answers are better than guessing; if not, they tell nothing about labels."""
        return self.agreement.low > 1 / len(self.noise)


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> LabelErrors:
    """Compare labels with answers by models that never learned from them.

    Args:
        probabilities: of each class; each picture answered by a model that it was held out of.
        labels: class index that each picture was given.

    Shape:
        (pictures, classes), (pictures,) int64

    Reference:
        Northcutt, Jiang and Chuang 2021: thresholds and confident joint, section 3.1; order, 3.2.

    Example:
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]])
        >>> found = find_label_errors(answers, np.array([0, 0, 1, 1, 1]))
        >>> found.suspects.tolist(), found.suggested[4].item()
        ([4], 0)
    """
    count, num_classes = probabilities.shape
    every = np.arange(count)
    own = probabilities[every, labels].astype(np.float64)
    others = probabilities.copy()
    others[every, labels] = -1.0
    sizes = np.bincount(labels, minlength=num_classes)
    # A class that no picture has can't be confused with.
    thresholds = np.full(num_classes, np.inf)
    np.divide(np.bincount(labels, own, num_classes), sizes, out=thresholds, where=sizes > 0)
    enough = np.where(probabilities >= thresholds, probabilities, -1.0)
    counts_for, counts = enough.argmax(1), enough.max(1) >= 0
    is_suspect = counts & (counts_for != labels)
    joint = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(joint, (labels[counts], counts_for[counts]), 1)
    right = [proportion_interval(int((own >= others.max(1))[labels == label].sum()), int(size))
             for label, size in enumerate(sizes) if size]  # fmt: skip
    return LabelErrors(
        order=np.argsort(own - others.max(1), kind="stable"),
        is_suspect=is_suspect,
        suggested=np.where(is_suspect, counts_for, others.argmax(1)),
        noise=_calibrated(joint, sizes),
        expected=_expected(joint, sizes),
        agreement=mean_interval(right),
    )


def _calibrated(joint: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The confident joint, so scaled that each row counts all pictures with its label (eq. 3)."""
    rows = joint.sum(1, keepdims=True)
    # Where no picture counts for anything, nothing speaks against the labels.
    shares = np.where(rows > 0, joint / np.maximum(rows, 1), np.eye(len(joint)))
    return shares * sizes[:, None]


def _expected(joint: np.ndarray, sizes: np.ndarray) -> Interval:
    """How many labels are wrong: of each class the share seen, times its pictures."""
    seen = [(label, int(row.sum())) for label, row in enumerate(joint) if row.sum()]
    shares = [proportion_interval(count - int(joint[label, label]), count) for label, count in seen]
    return total_interval(shares, [int(sizes[label]) for label, _ in seen])


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
    low, high = round(errors.expected.low), round(errors.expected.high)
    return (
        f"{suspects:,} of {count:,} labels {'is' if suspects == 1 else 'are'} worth a look; about "
        f"{round(errors.expected.value):,} ({low:,} to {high:,}) may be wrong."
    )
