"""Answers of one class or several that hold the true one as often as they promise to.

Split conformal prediction with the score 1 - probability of the true class (Sadinle et al. 2019,
"least ambiguous" sets: the smallest on average), calibrated so that the promise is kept by this
model and these calibration pictures, and not only on average over all that might have been drawn
(Vovk 2012, "Conditional Validity of Inductive Conformal Predictors", section 2).
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from vitreous.errors import ConfigError

#: How sure it is that a promise of a share is kept.
SURE = 0.95


def tolerance_rank(n: int, share: float, limits: int = 1) -> int | None:
    """Which of n sorted values at least a share of all to come stays below or at, surely enough.

    The share of a distribution up to the k-th smallest of n draws has a Beta(k, n + 1 - k)
    distribution (Wilks 1941), whatever the distribution is; k is the smallest with which that
    share is large enough in 95 % of the cases. What stays within several limits at once, all drawn
    by the same n, is known less well: each further one costs one more of the n (Tukey 1947).

    Args:
        n: values.
        share: of those to come.
        limits: that hold at once.

    Returns:
        k, from 1; ``None`` where even the largest of so few values is not enough.

    Example:
        >>> tolerance_rank(1000, 0.9), tolerance_rank(29, 0.9), tolerance_rank(28, 0.9)
        (916, 29, None)
    """
    from scipy.stats import binom

    rank = int(binom.ppf(SURE, n, share)) + limits if n else limits
    return rank if rank <= n else None


def needed_for(share: float, limits: int = 1) -> int:
    """With how many values a promise of so large a share begins.

    Example:
        >>> needed_for(0.9), needed_for(0.95), needed_for(0.97, limits=2)
        (29, 59, 157)
    """

    def enough(n: int) -> bool:
        return tolerance_rank(n, share, limits) is not None

    return bisect_left(range(1 << 40), True, key=enough)


def limit_of(values: np.ndarray, share: float, limits: int = 1) -> tuple[float, bool]:
    """A limit that at least a share of values to come keeps.

    Args:
        values: seen so far.
        share: to be kept.
        limits: how many the values are the largest of (see `tolerance_rank`).

    Returns:
        The limit, and whether it can be promised. Where it can't, it is the largest value seen, and
        without any there is none.
    """
    rank = tolerance_rank(len(values), share, limits)
    if rank is None:
        return float(values.max()) if len(values) else math.inf, False
    return float(np.sort(values)[rank - 1]), True


@dataclass(frozen=True)
class ConformalScores:
    """What calibration pictures say about how far down the list the true class stands.

    Args:
        scores: 1 - probability of the true class, of each calibration picture; float32.
        labels: their classes; int64.
    """

    scores: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> "ConformalScores":
        """Those of pictures with known classes.

        Shape:
            (pictures, classes), (pictures,)
        """
        of_truth = probabilities[np.arange(len(labels)), labels]
        return cls((1 - of_truth).astype(np.float32), labels.astype(np.int64))

    def rule(self, coverage: float, num_classes: int, by_class: bool = False) -> "SetRule":
        """When a class belongs to a set.

        Args:
            coverage: share of the pictures whose set shall hold the true class.
            num_classes: that the model knows.
            by_class: keep that share in each class, not only in all of them together.

        Raises:
            ConfigError: for a coverage that isn't between 0 and 1.
        """
        if not 0.0 < coverage < 1.0:
            raise ConfigError(f"sets for a coverage of {coverage}: it lies between 0 and 1")
        groups = [self.scores]
        if by_class:
            groups = [self.scores[self.labels == label] for label in range(num_classes)]
        found = [limit_of(group, coverage) for group in groups]
        return SetRule(
            coverage=coverage,
            limits=np.broadcast_to(
                np.array([limit for limit, _ in found], np.float32), num_classes
            ),
            counts=tuple(map(len, groups)),
            promised=tuple(kept for _, kept in found),
        )


@dataclass(frozen=True)
class SetRule:
    """A class belongs to a picture's set where 1 - its probability is at most its limit.

    Args:
        coverage: share of the pictures whose set shall hold the true class.
        limits: of each class.
        counts: pictures that the limits were taken from: all together, or class by class.
        promised: for each of these, whether they are enough for a promise.
    """

    coverage: float
    limits: np.ndarray
    counts: tuple[int, ...]
    promised: tuple[bool, ...]

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Which classes are in each picture's set; the likeliest always is.

        Shape:
            (pictures, classes) -> the same, bool
        """
        within = 1 - probabilities <= self.limits
        within[np.arange(len(within)), probabilities.argmax(1)] = True
        return within
