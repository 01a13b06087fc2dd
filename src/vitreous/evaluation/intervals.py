"""95 % confidence intervals for shares, for means of shares, and for differences of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_DEVIATIONS = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
#: Pictures, answered as all are, that each class is given where its recall's spread is estimated.
_LENT = 2


@dataclass(frozen=True)
class Interval:
    """An estimate with the range that the data leave open.

    Args:
        value: the share observed, 0 to 1, or a difference of two, -1 to 1.
        low: lower end of the 95 % confidence interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def proportion_interval(hits: int, total: int) -> Interval:
    """Wilson score interval of a share (Wilson 1927).

    Unlike the textbook interval it stays inside 0 to 1 and keeps its promise for small samples.

    Example:
        >>> interval = proportion_interval(26, 60)
        >>> round(interval.low, 2), round(interval.high, 2)
        (0.32, 0.56)
    """
    return _wilson(hits / total, total) if total else Interval(math.nan, 0.0, 1.0)


def _wilson(share: float, count: float) -> Interval:
    """Wilson's interval of a share observed in so many draws, which needn't be a whole number."""
    square = _DEVIATIONS**2
    middle = share + square / (2 * count)
    half = _DEVIATIONS * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    low, high = ((middle + side) / (1 + square / count) for side in (-half, half))
    return Interval(share, low if share > 0 else 0.0, high if share < 1 else 1.0)


def mean_share_interval(hits: Sequence[int], sizes: Sequence[int]) -> Interval:
    """Interval of the mean of independent shares, such as balanced accuracy's of recalls.

    The wider of two, because each fails where the other holds. MOVER (see `mean_interval`) knows
    how few pictures a class has, but finds no room above classes that are all right, of which
    there are many where there are many classes. Wilson's, for as many pictures as would leave the
    mean as open as all classes together do, has that room, but takes a small class to be much like
    the others. What both cover is measured in `benchmarks/trust.py`.

    Args:
        hits: right answers in each class.
        sizes: pictures of each class, at least one.
    """
    pairs = list(zip(hits, sizes, strict=True))
    by_class = mean_interval([proportion_interval(right, size) for right, size in pairs])
    if not pairs:
        return by_class
    share = (sum(hits) + 1) / (sum(sizes) + 2)
    recalls = [(right + _LENT * share) / (size + _LENT) for right, size in pairs]
    spread = sum(
        recall * (1 - recall) / size for recall, size in zip(recalls, sizes, strict=True)
    ) / len(pairs) ** 2  # fmt: skip
    mean = sum(recalls) / len(pairs)
    pooled = _wilson(by_class.value, mean * (1 - mean) / spread)
    return Interval(by_class.value, min(by_class.low, pooled.low), max(by_class.high, pooled.high))


def balanced_interval(right: np.ndarray, labels: np.ndarray) -> Interval:
    """Interval of the balanced accuracy: the mean of the recalls of the classes that are there.

    Args:
        right: whether a picture was answered rightly, or in which share of several answers.
        labels: of its class, in any form.

    Shape:
        two of (pictures,)
    """
    _, rows, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(rows, right, len(sizes))
    return mean_share_interval([round(count) for count in hits.tolist()], sizes.tolist())


def difference_interval(gained: int, lost: int, total: int) -> Interval:
    """Interval of a difference of two shares over the same pictures (Bonett and Price 2012).

    One picture is added to those gained and one to those lost, so that two ways to answer that
    differ on hardly any picture, or none, still leave a range open; a bootstrap, which has nothing
    to resample there, would not.

    Args:
        gained: pictures that only the second is right on.
        lost: pictures that only the first is right on.
        total: all pictures.

    Example:
        >>> interval = difference_interval(30, 12, 200)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.026, 0.152)
    """
    if total == 0:
        return Interval(math.nan, -1.0, 1.0)
    more, less = (gained + 1) / (total + 2), (lost + 1) / (total + 2)
    middle = more - less
    half = _DEVIATIONS * math.sqrt((more + less - middle**2) / (total + 2))
    value = (gained - lost) / total
    low, high = min(middle - half, value), max(middle + half, value)
    return Interval(value, max(-1.0, float(low)), min(1.0, float(high)))


def mean_interval(parts: Sequence[Interval], lowest: float = 0.0) -> Interval:
    """Interval of the mean of independent estimates, recovered from theirs.

    MOVER (Zou and Donner 2008): distances to each end add up in squares. It stays honest where a
    bootstrap has nothing to resample: a class of five pictures, all answered rightly, still widens
    the interval.

    Args:
        parts: the estimates.
        lowest: that the mean can be: -1 for differences.
    """
    if not parts:
        return Interval(math.nan, lowest, 1.0)
    count = len(parts)
    value = sum(part.value for part in parts) / count
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / count
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / count
    return Interval(value, max(lowest, value - below), min(1.0, value + above))


def total_interval(shares: Sequence[Interval], sizes: Sequence[int]) -> Interval:
    """Interval of how many there are in all, from the share in each of some parts.

    MOVER again: distances to each end, each times the size of its part, add up in squares.

    Args:
        shares: independent estimates, one of each part.
        sizes: of the parts.

    Example:
        >>> interval = total_interval([Interval(0.1, 0.07, 0.14)] * 2, [100, 200])
        >>> round(interval.value), round(interval.low, 1), round(interval.high, 1)
        (30, 23.3, 38.9)
    """
    parts = list(zip(shares, sizes, strict=True))
    value = sum(share.value * size for share, size in parts)
    below = math.sqrt(sum(((share.value - share.low) * size) ** 2 for share, size in parts))
    above = math.sqrt(sum(((share.high - share.value) * size) ** 2 for share, size in parts))
    return Interval(value, max(0.0, value - below), min(float(sum(sizes)), value + above))


def sample_interval(values: Sequence[float], low: float, high: float) -> Interval:
    """Student's t interval of the mean that a sample comes from.

    Args:
        values: one for each of some independent pictures; one alone leaves everything open.
        low: what no value can be below.
        high: what none can be above.

    Example:
        >>> interval = sample_interval([0.2, 0.3, 0.4], -0.5, 0.5)
        >>> round(interval.low, 3), interval.high
        (0.052, 0.5)
    """
    from scipy.stats import sem, t

    value = sum(values) / len(values)
    if len(values) == 1:
        return Interval(value, low, high)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values))
    return Interval(value, max(low, value - reach), min(high, value + reach))
