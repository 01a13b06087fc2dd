"""What `wall.py` found, drawn: a panel for each condition, the units that died, and a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vitreous.core.files import atomic_path, write_text

DEAD, ALIVE, MUTED = "#b45309", "#0f766e", "#8a8f98"
STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "vitreous",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}

Result = dict[str, Any]


def write_page(out: Path, results: Sequence[Result]) -> None:
    """Write `story.svg`, `curves.svg`, `units.svg` and `table.md` beside the figures."""
    named = {result["name"]: result for result in results}
    with matplotlib.rc_context(STYLE):
        if {"longer", "learns"} <= named.keys():
            _save(_story(named["longer"], named["learns"]), out / "story.svg")
        _save(_curves(results), out / "curves.svg")
        _save(_units(results), out / "units.svg")
    write_text(out / "table.md", _table(results))


def is_collapsed(result: Result) -> bool:
    """Whether at the end one answer was given for 99 % of the validation pictures or more."""
    answers = [sum(column) for column in zip(*result["scores"][-1]["confusion"], strict=True)]
    return max(answers) >= 0.99 * sum(answers)


def _story(stuck: Result, learns: Result) -> Figure:
    """The two long runs beside each other: what they score, and what is left of the head."""
    figure = Figure((9, 3.2), layout="constrained")
    scores, units = figure.subplots(1, 2)
    scores.axhline(_majority(stuck), color=MUTED, linewidth=0.8, linestyle=":")
    scores.axhline(1 / 3, color=MUTED, linewidth=0.8)
    for result, color, text in ((stuck, DEAD, "as in the lecture"),
                                (learns, ALIVE, "the same model, learning")):  # fmt: skip
        epochs = [score["epoch"] for score in result["scores"]]
        scores.plot(epochs, [score["accuracy"] for score in result["scores"]], color=color,
                    linestyle=":")  # fmt: skip
        balanced = [score["balanced_accuracy"] for score in result["scores"]]
        scores.plot(epochs, balanced, color=color, label=text)
        steps_per_epoch = result["probes"][-1]["step"] / epochs[-1]
        at = [probe["step"] / steps_per_epoch for probe in result["probes"]]
        off = [probe["stages"]["dense 1"]["off"] for probe in result["probes"]]
        units.plot(at, off, color=color)
    scores.set_title("Balanced accuracy (dotted: accuracy)")
    units.set_title("Units off for every picture, first dense layer")
    units.yaxis.set_major_formatter(PercentFormatter(1.0))
    scores.legend(loc="upper left")
    scores.set_ylim(0.2, 0.85)
    for panel in (scores, units):
        panel.set_xlim(0, None)
        panel.set_xlabel("epochs")
    return figure


def _curves(results: Sequence[Result]) -> Figure:
    columns = 4
    rows = -(-len(results) // columns)
    figure = Figure((11, 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for panel, result in zip(panels, results, strict=False):
        color = DEAD if is_collapsed(result) else ALIVE
        epochs = [score["epoch"] for score in result["scores"]]
        panel.axhline(1 / 3, color=MUTED, linewidth=0.8)
        panel.axhline(_majority(result), color=MUTED, linewidth=0.8, linestyle=":")
        accuracy = [score["accuracy"] for score in result["scores"]]
        panel.plot(epochs, accuracy, color=color, linestyle=":", label="accuracy")
        balanced = [score["balanced_accuracy"] for score in result["scores"]]
        panel.plot(epochs, balanced, color=color, label="balanced accuracy")
        panel.set_title(_wrapped(result["title"]))
        panel.set_ylim(0.2, max(0.7, *accuracy) + 0.02)
        panel.set_xlim(0, None)
    for panel in figure.axes[len(results) :]:
        panel.set_axis_off()
    figure.axes[0].legend(loc="upper left")
    figure.supxlabel("epochs")
    return figure


def _units(results: Sequence[Result]) -> Figure:
    figure = Figure((8, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    ends = []
    for result in results:
        color = DEAD if is_collapsed(result) else ALIVE
        steps = [probe["step"] for probe in result["probes"]]
        off = [probe["stages"]["dense 1"]["off"] for probe in result["probes"]]
        axes.plot(steps, off, color=color, alpha=0.75)
        ends.append((off[-1], result["title"], color))
    place = 2.0
    for off, title, color in sorted(ends, reverse=True):
        place = min(off, place - 0.045)  # so that no two labels lie on each other
        axes.annotate(title, (1.01, place), xycoords=("axes fraction", "data"), color=color,
                      va="center", fontsize=7.5, annotation_clip=False)  # fmt: skip
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, None)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("training steps")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Units of the first dense layer that are off for every picture")
    return figure


def _table(results: Sequence[Result]) -> str:
    lines = [
        "| what differs | accuracy | balanced | answers by class | off units, dense 1 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        last = result["scores"][-1]
        columns = zip(*last["confusion"], strict=True)
        answers = zip(result["classes"], map(sum, columns), strict=True)
        counts = ", ".join(f"{count} {name}" for name, count in answers)
        off = result["probes"][-1]["stages"]["dense 1"]["off"]
        lines.append(
            f"| {result['title']} | {last['accuracy']:.3f} | {last['balanced_accuracy']:.3f} | "
            f"{counts} | {off:.0%} |"
        )
    return "\n".join(lines) + "\n"


def _majority(result: Result) -> float:
    rows = [sum(row) for row in result["scores"][-1]["confusion"]]
    return max(rows) / sum(rows)


def _wrapped(title: str) -> str:
    words, lines = title.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 30:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as staging:
        figure.savefig(staging, format="svg", metadata={"Date": None})
