"""Whether one classifier is better than another on the same pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vitreous.evaluation.intervals import (
    CONFIDENCE,
    Interval,
    balanced_interval,
    difference_interval,
    mean_interval,
    proportion_interval,
)


@dataclass(frozen=True)
class Comparison:
    """Two classifiers, "a" and "b", on the same pictures; differences are b's gain.

    Args:
        n: pictures compared.
        accuracy, balanced_accuracy: of each.
        only_right: pictures that only this one is right on.
        gain: of accuracy.
        balanced_gain: of balanced accuracy.
        p_value: how often pictures would fall apart as unevenly if both were as good (McNemar's
            exact test).
        unreadable: files left out.
    """

    n: int
    accuracy: dict[str, Interval]
    balanced_accuracy: dict[str, Interval]
    only_right: dict[str, int]
    gain: Interval
    balanced_gain: Interval
    p_value: float
    unreadable: int = 0

    @property
    def better(self) -> str | None:
        """Which one is, where both the interval and the test tell them apart."""
        if self.p_value >= 1 - CONFIDENCE or self.gain.low <= 0 <= self.gain.high:
            return None
        return "b" if self.gain.value > 0 else "a"

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**asdict(self), "better": self.better}


def compare_answers(
    answers: tuple[Sequence[str], Sequence[str]], labels: Sequence[str], unreadable: int = 0
) -> Comparison:
    """Compare what two classifiers answer for the same pictures.

    Args:
        answers: class names given by the first and by the second, at least one picture.
        labels: the true ones.
        unreadable: files left out.

    Reference:
        Intervals: Bonett and Price 2012; for balanced accuracy recovered from the classes' own
        (Zou and Donner 2008). Test: McNemar 1947, exact.
    """
    from scipy.stats import binomtest

    truth = np.asarray(labels)
    right = {name: np.asarray(given) == truth for name, given in zip("ab", answers, strict=True)}
    classes = [truth == label for label in np.unique(truth)]

    def gain(chosen: np.ndarray) -> Interval:
        first, second = right["a"][chosen], right["b"][chosen]
        return difference_interval(
            int((second & ~first).sum()), int((first & ~second).sum()), len(first)
        )

    def accuracy(name: str, chosen: np.ndarray) -> Interval:
        return proportion_interval(int(right[name][chosen].sum()), int(chosen.sum()))

    everything = np.ones(len(truth), dtype=bool)
    only = {"a": int((right["a"] & ~right["b"]).sum()), "b": int((right["b"] & ~right["a"]).sum())}
    apart = sum(only.values())
    return Comparison(
        n=len(truth),
        accuracy={name: accuracy(name, everything) for name in right},
        balanced_accuracy={name: balanced_interval(right[name], truth) for name in right},
        only_right=only,
        gain=gain(everything),
        balanced_gain=mean_interval([gain(chosen) for chosen in classes], lowest=-1.0),
        p_value=float(binomtest(only["b"], apart).pvalue) if apart else 1.0,
        unreadable=unreadable,
    )


def comparison_in_words(found: Comparison, names: tuple[str, str]) -> str:
    """One sentence that a person can act on.

    Example:
        >>> good, better = ["x"] * 40 + ["y"] * 20, ["x"] * 60
        >>> comparison_in_words(compare_answers((good, better), ["x"] * 60), ("A", "B"))
        'B is right on 20 more of 60 pictures, +33.3 points (+19.8 to +44.7): better'
    """
    more = found.only_right["b"] - found.only_right["a"]
    low, high = 100 * found.gain.low, 100 * found.gain.high
    first, second = names
    if more < 0:
        first, second, more, low, high = second, first, -more, -high, -low
    points = f"+{100 * more / found.n:.1f} points ({low:+.1f} to {high:+.1f})"
    if not more:
        lead = f"{first} and {second} are right on as many of {found.n} pictures"
    else:
        lead = f"{second} is right on {more} more of {found.n} pictures"
    if found.better:
        return f"{lead}, {points}: better"
    return f"{lead}, {points}: too few to tell which is better"
