"""What the pages of `accuracy.py` and `finetune.py` share: rows, paired differences, curves."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from wall_page import MUTED, STYLE

from vitreous.core.files import atomic_path
from vitreous.core.rng import numpy_stream

REFERENCE = "ours"
RESAMPLES = 10_000
OURS_COLOR = "#0f766e"
#: Characters that leave room for the curves.
_LONGEST_LABEL = 40
COLORS = ("#b45309", "#1d4ed8", "#9d174d", "#6d28d9", "#4d7c0f", "#57534e")

Result = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """The runs of one contender.

    Args:
        name: of its files.
        title: what it is.
        runs: the results, a seed each.
        right: by the name of what is compared, which pictures each run answered rightly.
        labels: true class of each picture.

    Shape:
        right: (seeds, pictures); labels: (pictures,)
    """

    name: str
    title: str
    runs: tuple[Result, ...]
    right: dict[str, np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A difference of two shares with the interval that holds 95 % of its resamples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"

    @property
    def verdict(self) -> str:
        """What may be said of the first of the two."""
        if self.low > 0:
            return f"ahead by {self.value:.3f}"
        return f"behind by {-self.value:.3f}" if self.high < 0 else "not told apart"


def read_rows(out: Path, answers: Callable[[Result, Arrays], dict[str, np.ndarray]]) -> list[Row]:
    """The contenders that have results in a folder.

    Args:
        out: the folder, with a JSON file and an npz file for each run.
        answers: from a result and its arrays to the probabilities that are compared, by name.
    """
    found: dict[str, list[tuple[Result, dict[str, np.ndarray]]]] = {}
    labels = None
    for file in sorted(out.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz")) as arrays:
            scored = arrays["labels"]
            given = answers(result, arrays)
        labels = scored if labels is None else labels
        if not np.array_equal(labels, scored):
            raise SystemExit(f"{file} was scored on other pictures than the files before it")
        right = {name: probabilities.argmax(1) == labels for name, probabilities in given.items()}
        found.setdefault(result["name"], []).append((result, right))
    rows = []
    for name, pairs in found.items():
        assert labels is not None
        right = {key: np.stack([right[key] for _, right in pairs]) for key in pairs[0][1]}
        runs = tuple(result for result, _ in pairs)
        rows.append(Row(name, runs[0]["title"], runs, right, labels))
    return rows


def compare(ours: np.ndarray, other: np.ndarray, labels: np.ndarray) -> dict[str, Difference]:
    """Ours minus another's accuracy and balanced accuracy, resampled over the same pictures.

    A picture counts as right by the share of the seeds that answered it rightly, so the interval
    is about other pictures, not about other seeds.

    Shape:
        (seeds, pictures), (other seeds, pictures), (pictures,)
    """
    gain = ours.mean(0) - other.mean(0)
    classes = [labels == label for label in np.unique(labels)]
    rng = numpy_stream(0, "bootstrap")
    accuracy, balanced = [], []
    for _ in range(10):  # in parts, for the memory
        count = len(gain)
        times = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES // 10).astype(float)
        accuracy.append(times @ gain / count)
        recalls = [times[:, one] @ gain[one] / times[:, one].sum(1).clip(1) for one in classes]
        balanced.append(np.mean(recalls, axis=0))
    values = {
        "accuracy": (gain.mean(), accuracy),
        "balanced_accuracy": (np.mean([gain[one].mean() for one in classes]), balanced),
    }
    return {
        name: Difference(float(value), *np.quantile(np.concatenate(parts), [0.025, 0.975]))
        for name, (value, parts) in values.items()
    }


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def draw_curves(rows: Sequence[Row], file: Path) -> None:
    """Balanced accuracy on validation over minutes, as SVG."""
    with matplotlib.rc_context(STYLE), atomic_path(file) as staging:
        _curves(rows).savefig(staging, format="svg", metadata={"Date": None})


def _curves(rows: Sequence[Row]) -> Figure:
    figure = Figure((8, 4.8), layout="constrained")
    axes: Axes = figure.subplots()
    colors = iter(COLORS * len(rows))
    ends = []
    for row in rows:
        color = OURS_COLOR if row.name == REFERENCE else next(colors)
        seeds = [
            (
                [point["seconds"] / 60 for point in run["curve"]],
                [point["balanced_accuracy"] for point in run["curve"]],
            )
            for run in row.runs
        ]
        if len(seeds) > 1:
            for minutes, values in seeds:
                axes.plot(minutes, values, color=color, linewidth=0.6, alpha=0.4)
        # The seeds were validated at times of their own: their mean where all of them were.
        begin, end = max(s[0][0] for s in seeds), min(s[0][-1] for s in seeds)
        # A single validation, that of a head alone, is a dot.
        grid = np.linspace(begin, end, 200) if begin < end else np.array([end])
        mean = np.mean([np.interp(grid, *seed) for seed in seeds], axis=0)
        width = 2.6 if row.name == REFERENCE else 1.8
        marker = "o" if len(grid) == 1 else None
        axes.plot(grid, mean, color=color, linewidth=width, marker=marker)
        label = row.title if len(row.title) <= _LONGEST_LABEL else row.name
        ends.append((mean[-1], label, color))
    classes = len(np.unique(rows[0].labels))
    axes.axhline(1 / classes, color=MUTED, linewidth=0.8, linestyle=":")
    low, high = axes.get_ylim()
    place = high
    for value, label, color in sorted(ends, reverse=True):
        place = min(value, place - 0.05 * (high - low))  # so that no two labels lie on each other
        axes.annotate(label, (1.01, place), xycoords=("axes fraction", "data"), color=color,
                      va="center", fontsize=8, annotation_clip=False)  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_xlabel("minutes")
    axes.set_title("Balanced accuracy on validation; dotted: one answer for all")
    return figure
