"""What `accuracy.py` found: the tables with who wins, and the curves over time."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from wall_page import MUTED, STYLE

from vitreous.core.files import atomic_path, write_text
from vitreous.core.rng import numpy_stream

REFERENCE = "ours"
RESAMPLES = 10_000
OURS_COLOR = "#0f766e"
COLORS = ("#b45309", "#1d4ed8", "#9d174d", "#6d28d9", "#4d7c0f", "#57534e")


@dataclass(frozen=True)
class Row:
    """The runs of one contender.

    Args:
        name: of its files.
        title: what it is.
        runs: the results, a seed each.
        right: by "best" and "last" weights, which pictures each run answered rightly.
        labels: true class of each picture.

    Shape:
        right: (seeds, pictures); labels: (pictures,)
    """

    name: str
    title: str
    runs: tuple[dict[str, Any], ...]
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


def write_page(out: Path, flip: bool) -> None:
    """Write `README.md` and `curves.svg` beside the results that are there.

    Args:
        out: their folder.
        flip: whether the score is that of pictures and mirror images together.
    """
    rows = _read_rows(out, flip)
    if not rows:
        return
    with matplotlib.rc_context(STYLE), atomic_path(out / "curves.svg") as staging:
        _curves(rows).savefig(staging, format="svg", metadata={"Date": None})
    write_text(out / "README.md", _page(rows, flip))


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


def _read_rows(out: Path, flip: bool) -> list[Row]:
    """The contenders, best balanced accuracy first."""
    found: dict[str, list[tuple[dict[str, Any], dict[str, np.ndarray]]]] = {}
    for file in sorted(out.glob("*.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz")) as arrays:
            found.setdefault(result["name"], []).append((result, dict(arrays)))
    rows = []
    for name, pairs in found.items():
        labels = pairs[0][1]["labels"]
        right = {
            weights: np.stack(
                [
                    (both[weights].mean(0) if flip else both[weights][0]).argmax(1) == labels
                    for _, both in pairs
                ]
            )
            for weights in ("best", "last")
        }
        runs = tuple(result for result, _ in pairs)
        rows.append(Row(name, runs[0]["title"], runs, right, labels))
        if not np.array_equal(labels, rows[0].labels):
            raise SystemExit(f"{name} was scored on other pictures than {rows[0].name}")
    kind = _kind(flip)
    return sorted(rows, key=lambda row: -np.mean(_scores(row, "best", kind, "balanced_accuracy")))


def _kind(flip: bool) -> str:
    return "flip" if flip else "plain"


def _scores(row: Row, weights: str, kind: str, name: str) -> list[float]:
    return [run["scores"][weights][kind][name] for run in row.runs]


def _page(rows: Sequence[Row], flip: bool) -> str:
    runs = [run for row in rows for run in row.runs]
    minutes = " and ".join(f"{value:g}" for value in sorted({r["asked"]["minutes"] for r in runs}))
    seeds = " ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    limits = {run["asked"]["limit"] for run in runs}
    others = [run["others_cores"] for run in runs if run["others_cores"] is not None]
    shared = f"{min(others):.1f} to {max(others):.1f}" if others else "unknown"
    votes = {run["asked"]["votes"] for run in runs} == {True}
    targets = "the shares of the annotators' votes" if votes else "the pictures' labels"
    only = "" if limits == {None} else " **A try with few pictures, which says nothing.**"
    return "\n".join(
        [
            "# Accuracy with equal time",
            "",
            "`GOMP_SPINCOUNT=1000 python benchmarks/accuracy.py EMOTIONS --out DIR "
            f"--minutes {minutes} --only {' '.join(sorted(row.name for row in rows))} "
            f"--seeds {seeds}{' --votes' if votes else ''}"
            f"`{'' if flip else ' with `--no-flip-test`'}",
            "",
            f"Every contender learned {targets} from nothing, on the same pictures, for {minutes} "
            "minutes from behind the decoding, one after another. Scored on "
            f"{len(rows[0].labels)} validation pictures"
            f"{', each seen as it is and mirrored' if flip else ''}.{only} "
            "Mean and standard deviation over the seeds.",
            "",
            f"Machine: {'; '.join(sorted({run['machine'] for run in runs}))}. Cores that other "
            f"processes took during a run: {shared}.",
            "",
            *_verdict(rows, flip),
            "",
            "## The weights kept",
            "",
            "Those with the highest balanced accuracy among the validations of a run: the product's"
            " choice, made for every contender. All gain a little from being chosen on the pictures"
            " that they are scored on.",
            "",
            *_table(rows, "best", flip),
            "",
            "## The weights at the end",
            "",
            *_table(rows, "last", flip),
            "",
            "The last two columns are paired bootstraps over the pictures, "
            f"{RESAMPLES:,} resamples, seeds averaged: ours minus the contender, with the interval "
            "that holds 95 %. The intervals don't hold what another seed would change.",
            "",
            "## The runs",
            "",
            *_runs(rows),
            "",
            "![Balanced accuracy on validation over minutes](curves.svg)",
            "",
            "The curves are of validation during training, without mirror images: the moving "
            "average of the weights, a thin line for each seed and a thick one for their mean.",
            "",
        ]
    )


def _verdict(rows: Sequence[Row], flip: bool) -> list[str]:
    """Who wins, in words."""
    kind = _kind(flip)

    def leader(name: str, best: Callable[..., Row]) -> str:
        row = best(rows, key=lambda row: np.mean(_scores(row, "best", kind, name)))
        return f"{row.title} ({np.mean(_scores(row, 'best', kind, name)):.3f})"

    lines = [
        f"**Highest accuracy: {leader('accuracy', max)}. Highest balanced accuracy: "
        f"{leader('balanced_accuracy', max)}. Lowest negative log-likelihood: "
        f"{leader('loss', min)}.**"
    ]
    ours = next((row for row in rows if row.name == REFERENCE), None)
    if ours is None or len(rows) == 1:
        return lines
    lines += ["", "Ours, with the weights kept:", ""]
    for row in rows:
        if row is not ours:
            found = compare(ours.right["best"], row.right["best"], row.labels)
            lines.append(
                f"- against {row.title}: accuracy {found['accuracy'].verdict}, balanced accuracy "
                f"{found['balanced_accuracy'].verdict}"
            )
    return lines


def _table(rows: Sequence[Row], weights: str, flip: bool) -> list[str]:
    lines = [
        "| contender | accuracy | balanced | NLL | parameters | epochs | "
        "ours minus it: accuracy | ours minus it: balanced |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = next((row for row in rows if row.name == REFERENCE), None)
    for row in rows:
        cells = [
            _spread(_scores(row, weights, _kind(flip), name))
            for name in ("accuracy", "balanced_accuracy", "loss")
        ]
        cells.append(f"{row.runs[0]['parameters'] / 1e6:.2f} M")
        cells.append(f"{np.mean([run['epochs'] for run in row.runs]):.1f}")
        if ours is None or row is ours:
            cells += ["", ""]
        else:
            found = compare(ours.right[weights], row.right[weights], row.labels)
            cells += [str(found["accuracy"]), str(found["balanced_accuracy"])]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _runs(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| contender | seeds | px | steps | pictures a second | seconds | NLL without mirror image "
        "| validations |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        first = row.runs[0]
        cells = [
            ", ".join(str(run["seed"]) for run in row.runs),
            "x".join(map(str, first["image_size"])),
            *(_rounded([run[name] for run in row.runs]) for name in
              ("steps", "pictures_per_s", "seconds")),
            _spread(_scores(row, "best", "plain", "loss")),
            _rounded([len(run["curve"]) for run in row.runs]),
        ]  # fmt: skip
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _rounded(values: Sequence[float]) -> str:
    return f"{np.mean(values):.0f}"


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
        grid = np.linspace(max(s[0][0] for s in seeds), min(s[0][-1] for s in seeds), 200)
        mean = np.mean([np.interp(grid, *seed) for seed in seeds], axis=0)
        axes.plot(grid, mean, color=color, linewidth=2.6 if row.name == REFERENCE else 1.8)
        ends.append((mean[-1], row.title, color))
    classes = len(np.unique(rows[0].labels))
    axes.axhline(1 / classes, color=MUTED, linewidth=0.8, linestyle=":")
    low, high = axes.get_ylim()
    place = high
    for value, title, color in sorted(ends, reverse=True):
        place = min(value, place - 0.05 * (high - low))  # so that no two labels lie on each other
        axes.annotate(title, (1.01, place), xycoords=("axes fraction", "data"), color=color,
                      va="center", fontsize=8, annotation_clip=False)  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_xlabel("minutes")
    axes.set_title("Balanced accuracy on validation; dotted: one answer for all")
    return figure
