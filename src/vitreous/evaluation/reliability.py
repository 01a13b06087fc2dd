"""Whether probabilities can be taken at their word: of answers called 80 % sure, are 80 % right?"""

from dataclasses import dataclass

import numpy as np

from vitreous.evaluation.intervals import CONFIDENCE, Interval, proportion_interval

#: Bins of equally many pictures, fewer where they would have less than so many each.
_BINS, _PER_BIN = 10, 20
#: Simulated sets for each true error that is tried, and how many of those there are.
_DRAWS, _TRIED = 1000, 81
#: True errors are tried up to so much above the one seen.
_BEYOND = 0.15
#: A bin whose answers are all right could still have held a wrong one.
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Bin:
    """Answers that are about equally sure.

    Args:
        n: how many.
        confidence: their mean probability.
        accuracy: share of them that is right.
    """

    n: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Reliability:
    """How far the probabilities of the answers given are from how often those are right.

    Args:
        confidence: mean probability of the answers.
        ece: expected calibration error: the distance between probability and share of right
            answers, from 0 to 1, its mean over the bins.
        bins: of equally many pictures, the least sure first.
    """

    confidence: float
    ece: Interval
    bins: tuple[Bin, ...]


def measure_reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """Compare how sure the answers are with how often they are right.

    Args:
        probabilities: each row sums to 1.
        labels: true class index of each row.

    Shape:
        (pictures, classes), (pictures,) with at least 1 picture

    Reference:
        Guo et al. 2017, section 2; bins of equal mass as in Nixon et al. 2019, section 3.3. The
        interval is explained at `_error_interval`.
    """
    right = probabilities.argmax(1) == labels
    sure = probabilities.max(1).astype(np.float64)
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(_BINS, max(1, len(labels) // _PER_BIN)))
    bins = tuple(
        Bin(
            n=len(part),
            confidence=float(sure[part].mean()),
            accuracy=proportion_interval(int(right[part].sum()), len(part)),
        )
        for part in parts
    )
    return Reliability(float(sure.mean()), _error_interval(bins), bins)


def _error_interval(bins: tuple[Bin, ...]) -> Interval:
    """The calibration error with the true ones that the pictures don't rule out.

    A few pictures in a bin are never right exactly as often as they should be, so the error seen is
    too large, most of all where the true one is 0; resampling makes it larger still, and its
    percentiles then miss the truth nearly always. Instead true errors are tried one after another:
    sets of as many pictures are simulated for each (of a calibrated model as in Bröcker and Smith
    2007), and it is ruled out where the error seen would be among the highest or lowest 2.5 %.

    How a true error is spread over the bins is taken from the gaps seen, drawn towards their mean
    by as much of their variance as chance explains (Efron and Morris 1975).
    """
    counts = np.array([one.n for one in bins])
    sure = np.array([one.confidence for one in bins])
    gaps = np.array([one.accuracy.value for one in bins]) - sure
    weights = counts / counts.sum()
    seen = float(weights @ np.abs(gaps))
    shape = _drawn_together(gaps, weights, np.maximum(sure * (1 - sure), _LEAST_VARIANCE) / counts)
    # A mean gap of exactly 0 has no direction: any will do for the smallest errors.
    size = float(weights @ np.abs(shape))
    shape = shape / size if size > 0 else np.ones_like(shape)
    tried = np.linspace(0.0, seen + _BEYOND, _TRIED)
    accuracy = np.clip(sure + tried[:, None] * shape, 0.0, 1.0)
    true = np.abs(accuracy - sure) @ weights
    spread = np.sqrt(np.maximum(accuracy * (1 - accuracy), _LEAST_VARIANCE) / counts)
    noise = np.random.default_rng(0).standard_normal((_DRAWS, len(bins)))
    simulated = np.stack([np.abs(a - sure + noise * s) @ weights
                          for a, s in zip(accuracy, spread, strict=True)])  # fmt: skip
    tail = (1 - CONFIDENCE) / 2
    as_high, as_low = (simulated >= seen).mean(1), (simulated <= seen).mean(1)
    # With very many pictures even two neighbours of those tried may both be ruled out.
    too_small, too_large = np.flatnonzero(as_high < tail), 1 + np.flatnonzero(as_low[1:] < tail)
    low = float(true[too_small[-1]]) if len(too_small) else 0.0
    high = float(true[too_large[0]] if len(too_large) else true[-1])
    return Interval(seen, min(low, seen), max(high, seen))


def _drawn_together(gaps: np.ndarray, weights: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The gaps without the part of their differences that chance alone explains."""
    mean = float(weights @ gaps)
    between = max(0.0, float(weights @ ((gaps - mean) ** 2 - variance)))
    return mean + between / (between + variance) * (gaps - mean)
