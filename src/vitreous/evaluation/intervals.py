"""95 % confidence intervals for shares and for means of shares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the range that the data leave open.

    Args:
        value: the share observed, 0 to 1.
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
    # SciPy takes a second to import, and predicting needs no interval.
    from scipy.stats import binomtest

    if total == 0:
        return Interval(math.nan, 0.0, 1.0)
    bounds = binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / total, float(bounds.low), float(bounds.high))


def mean_interval(parts: Sequence[Interval]) -> Interval:
    """Interval of the mean of independent estimates, recovered from theirs.

    MOVER (Zou and Donner 2008): distances to each end add up in squares. For balanced accuracy,
    the mean of the classes' recalls, it stays honest where a bootstrap has nothing to resample:
    a class of five pictures, all answered rightly, still widens the interval.
    """
    if not parts:
        return Interval(math.nan, 0.0, 1.0)
    count = len(parts)
    value = sum(part.value for part in parts) / count
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / count
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / count
    return Interval(value, max(0.0, value - below), min(1.0, value + above))


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
