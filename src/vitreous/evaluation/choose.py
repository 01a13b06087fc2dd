"""Which of several ways to answer is kept: the simplest that the pictures can't tell from the best.

So it is decided between the rungs of a ladder, and between the weights of a training.
"""

import math
from collections.abc import Sequence

import numpy as np


def simplest_within_one_error(right: Sequence[np.ndarray], labels: np.ndarray) -> int:
    """Index of the first way that is within one standard error of the best.

    Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3, but with the error of
    the difference: all ways were tried on the same pictures. The score is balanced accuracy.

    Args:
        right: for each way, the simplest first, which pictures it answers rightly.
        labels: the pictures' classes.

    Shape:
        each (pictures,) bool, (pictures,) -> index

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> simple, costly = np.array([1, 0, 1, 1]), np.array([1, 1, 1, 1])
        >>> simplest_within_one_error([simple, costly], labels)
        0
    """
    gaps = [difference(np.zeros_like(one, dtype=float), one, labels)[0] for one in right]
    best = right[int(np.argmax(gaps))]
    for index, one in enumerate(right):
        gap, error = difference(one, best, labels)
        # A single picture more is exactly one error, whichever way the two are rounded.
        if gap <= error * (1 + 1e-9):
            return index
    raise AssertionError("the best is within no distance of itself")


def difference(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """How much higher the other's balanced accuracy is, and the standard error of that.

    The error is that where neither is better, so that each picture on which they differ counts for
    either by even chance (McNemar 1947, "Note on the sampling error of the difference between
    correlated proportions or percentages"): never 0 where they differ, and 1 / n for one picture of
    a class's n.

    Shape:
        three of (pictures,) -> two numbers
    """
    gains = other.astype(float) - one.astype(float)
    of_classes = [gains[labels == label] for label in np.unique(labels)]
    mean = float(np.mean([gain.mean() for gain in of_classes]))
    variance = sum((gain**2).sum() / len(gain) ** 2 for gain in of_classes)
    return mean, math.sqrt(variance) / len(of_classes)
