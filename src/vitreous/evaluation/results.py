"""What was found while a run learned, as its folder keeps it: rungs, folds, the weights kept."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from vitreous.core.files import read_record, read_tensors, write_tensors
from vitreous.core.run import RunFolder
from vitreous.evaluation.intervals import Interval


@dataclass(frozen=True)
class Row:
    """One way to answer, and how well it does on the validation pictures.

    Args:
        name: "baseline", "neighbors" or a rung.
        what: in words.
        accuracy, balanced_accuracy: with their 95 % intervals.
        loss: in nats.
        seconds: that it took, over all sittings.
    """

    name: str
    what: str
    accuracy: Interval
    balanced_accuracy: Interval
    loss: float
    seconds: float


@dataclass(frozen=True)
class Ladder:
    """What was climbed so far.

    Args:
        rows: from the simplest.
        skipped: names of rungs that there was no time for, or whose training failed.
        kept: name of the rung that was kept; ``None`` until all are climbed.
    """

    rows: tuple[Row, ...] = ()
    skipped: tuple[str, ...] = ()
    kept: str | None = None

    def has(self, name: str) -> bool:
        """Whether a way to answer was tried."""
        return any(row.name == name for row in self.rows)

    def is_done_with(self, name: str) -> bool:
        """Whether it was tried, or left out for good."""
        return self.has(name) or name in self.skipped

    @property
    def seconds(self) -> float:
        """That all of it took."""
        return sum(row.seconds for row in self.rows)

    def lines(self) -> list[str]:
        """The ladder as text, a line for each way to answer."""
        width = max(len(row.what) for row in self.rows)
        return [
            f"{row.what:{width}}  accuracy {row.accuracy.value:.3f}  balanced "
            f"{row.balanced_accuracy.value:.3f}  {row.seconds:6.0f} s"
            f"{'  kept' if row.name == self.kept else ''}"
            for row in self.rows
        ]

    @classmethod
    def read(cls, run: RunFolder) -> "Ladder":
        """The ladder of a run; an empty one where nothing was climbed."""
        if not run.ladder.exists():
            return cls()
        return read_record(run.ladder, cls)


@dataclass(frozen=True)
class Kept:
    """Which weights of a training are the ones to use.

    Args:
        weights: "last", or "best": those of the best validation.
        gain: balanced accuracy of the best ones less that of the last ones, as answers are given.
        error: standard error of that, by chance alone.
    """

    weights: Literal["best", "last"]
    gain: float
    error: float

    @classmethod
    def read(cls, run: RunFolder) -> "Kept | None":
        """Those of a run; ``None`` where there was nothing to choose from, or nothing yet."""
        return read_record(run.kept, cls) if run.kept.exists() else None


@dataclass(frozen=True)
class Fold:
    """One training, and its score on the pictures that were held out of it.

    Args:
        name: of its folder, "1" or of a later repeat "2-1".
        n: pictures held out.
        accuracy, balanced_accuracy: shares.
        loss: in nats.
        seconds: that it took, in the sitting in which it ended.
    """

    name: str
    n: int
    accuracy: float
    balanced_accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class Pooled:
    """A score over all folds.

    Args:
        mean, std: over the folds; the standard deviation is of a single fold's score.
        interval: over all pictures, each answered by the model that it was held out of.
    """

    mean: float
    std: float
    interval: Interval


@dataclass(frozen=True)
class FoldAnswers:
    """What each picture was answered by the folds that it was held out of.

    Args:
        probabilities: of every repeat.
        labels: indices into the classes.
        rows: of the run's listing.
        classes: their names.

    Shape:
        (repeats, pictures, classes), float32; (pictures,) and (pictures,), int64
    """

    probabilities: Tensor
    labels: Tensor
    rows: Tensor
    classes: tuple[str, ...]

    def mean(self) -> np.ndarray:
        """Over the repeats: each is an answer by a model that never saw the picture.

        Shape:
            -> (pictures, classes), float32
        """
        return self.probabilities.mean(0).numpy()

    def write(self, run: RunFolder) -> None:
        """Into the run's folder."""
        tensors = {name: getattr(self, name) for name in ("probabilities", "labels", "rows")}
        write_tensors(run.fold_answers, tensors, {"classes": self.classes})

    @classmethod
    def read(cls, run: RunFolder) -> "FoldAnswers":
        """Those of a run.

        Raises:
            RunError: where they are missing or damaged.
        """
        tensors, metadata = read_tensors(run.fold_answers)
        return cls(
            tensors["probabilities"],
            tensors["labels"],
            tensors["rows"],
            tuple(metadata["classes"]),
        )


@dataclass(frozen=True)
class FoldScores:
    """What cross-validation found.

    Args:
        folds: in order.
        n: pictures that were held out, each once in every repeat.
        accuracy, balanced_accuracy: over all of them; ``None`` until all folds are done.
    """

    folds: tuple[Fold, ...] = ()
    n: int = 0
    accuracy: Pooled | None = None
    balanced_accuracy: Pooled | None = None

    @property
    def seconds(self) -> float:
        """That all folds took."""
        return sum(fold.seconds for fold in self.folds)

    @classmethod
    def read(cls, run: RunFolder) -> "FoldScores":
        """Those of a run; none where it has no folds."""
        if not run.folds.exists():
            return cls()
        return read_record(run.folds, cls)

    def in_words(self) -> str:
        """One sentence."""
        if self.accuracy is None or self.balanced_accuracy is None:
            return ""
        parts = [
            f"{name} {score.mean:.3f} ± {score.std:.3f} ({score.interval.low:.3f} to "
            f"{score.interval.high:.3f})"
            for name, score in (
                ("accuracy", self.accuracy),
                ("balanced accuracy", self.balanced_accuracy),
            )
        ]
        return (
            f"{len(self.folds)} folds, {self.n} pictures, each answered by a model that never saw "
            f"it: {', '.join(parts)}"
        )
