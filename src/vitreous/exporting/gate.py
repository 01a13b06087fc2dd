"""Whether fewer bits cost accuracy: the same pictures asked twice, and a decision.

What is compared are two ways to answer for a picture; what lies between file and picture isn't.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.errors import DataError
from vitreous.evaluation.comparison import Comparison, compare_answers
from vitreous.evaluation.intervals import Interval, difference_interval

#: Points of accuracy, of 100.
MAX_DROP = 0.5
#: Pictures; where more would be needed to be sure, no number is named.
_MOST_NEEDED = 10_000_000

Answer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Gate:
    """What fewer bits cost and gain.

    Args:
        file: where the network with fewer bits goes.
        precision: of the network with fewer bits.
        max_drop: points of accuracy that may be lost.
        comparison: float32 as "a", fewer bits as "b".
        milliseconds: that one picture takes, medians: float32, fewer bits.
        megabytes: of the files likewise.
    """

    file: Path
    precision: str
    max_drop: float
    comparison: Comparison
    milliseconds: tuple[float, float]
    megabytes: tuple[float, float]

    @property
    def loss(self) -> Interval:
        """Points of accuracy lost, below 0 where some were gained."""
        gain = self.comparison.gain
        return Interval(-100 * gain.value, -100 * gain.high, -100 * gain.low)

    @property
    def verdict(self) -> str:
        """One of "kept", "refused" (surely loses too much), "unsure" (too few pictures)."""
        return _verdict(self.loss, self.max_drop)

    @property
    def speedup(self) -> float:
        return self.milliseconds[0] / self.milliseconds[1]

    @property
    def needed(self) -> int | None:
        """About how many such pictures would settle it; ``None`` where hardly any number would."""
        return _needed(self.comparison, self.max_drop)

    def in_words(self) -> str:
        """One sentence on what was decided, and why."""
        loss, count = self.loss, self.comparison.n
        found = f"{loss.value:+.1f} points of accuracy lost ({loss.low:+.1f} to {loss.high:+.1f})"
        if self.verdict == "refused":
            return f"{self.precision} costs too much: {found}, {self.max_drop:g} allowed"
        if self.verdict == "kept":
            return f"{self.precision} is as good: {found}, {self.max_drop:g} allowed"
        enough = f"it takes about {self.needed:,}" if self.needed else "hardly any number would do"
        return (
            f"can't tell with so few pictures: {count:,} of them; {enough} to be sure that no more "
            f"than {self.max_drop:g} is lost, or that more is; {found}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "file": str(self.file),
            "precision": self.precision,
            "verdict": self.verdict,
            "max_drop": self.max_drop,
            "loss": asdict(self.loss),
            "needed": self.needed if self.verdict == "unsure" else None,
            "speedup": self.speedup,
            "milliseconds": list(self.milliseconds),
            "megabytes": list(self.megabytes),
            "comparison": self.comparison.to_json(),
        }


def ask_both(
    first: Answer,
    second: Answer,
    pictures: Iterable[tuple[np.ndarray, str]],
    classes: tuple[str, ...],
) -> tuple[Comparison, tuple[float, float]]:
    """Ask two networks about the same pictures, in turns, and take the time.

    Args:
        first: probabilities or logits of a picture.
        second: the same of another network.
        pictures: each with its class.
        classes: names in the order of the answers.

    Returns:
        The comparison, and the median milliseconds of both.

    Raises:
        DataError: where there are no pictures.
    """
    answers: tuple[list[str], list[str]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    labels = []
    for picture, label in pictures:
        if not labels:  # kernels are chosen, memory taken
            first(picture)
            second(picture)
        turns = list(zip((first, second), answers, times, strict=True))
        for answer, given, took in turns[:: -1 if len(labels) % 2 else 1]:
            started = time.perf_counter()
            found = answer(picture)
            took.append(1e3 * (time.perf_counter() - started))
            given.append(classes[int(found.argmax())])
        labels.append(label)
    if not labels:
        raise DataError("there is no picture that can be read to compare answers on")
    medians = statistics.median(times[0]), statistics.median(times[1])
    return compare_answers(answers, labels), medians


def _verdict(loss: Interval, max_drop: float) -> str:
    if loss.low > max_drop:
        return "refused"
    return "unsure" if loss.high > max_drop else "kept"


def _needed(found: Comparison, max_drop: float) -> int | None:
    """The fewest pictures that decide if as large a share of them fall apart, to two digits."""
    gained, lost = found.only_right["b"], found.only_right["a"]

    def decides(count: int) -> bool:
        times = count / found.n
        gain = difference_interval(round(gained * times), round(lost * times), count)
        return _verdict(Interval(0, -100 * gain.high, -100 * gain.low), max_drop) != "unsure"

    few, many = found.n, 2 * found.n
    while not decides(many):
        few, many = many, 2 * many
        if many > _MOST_NEEDED:
            return None
    while many - few > max(1, few // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    digits = max(0, len(str(many)) - 2)
    return -(-many // 10**digits) * 10**digits
