"""What the report draws: learning curves as SVG, heat map, filters and positions as data URIs.

Everything is text that goes into the page, the same for the same input. Colours of the curves are
the page's own variables, so that they follow light and dark.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from vitreous.evaluation.reliability import Reliability
from vitreous.explanation.render import draw_filters, draw_positions
from vitreous.pages.pictures import image_uri, picture_uri

# Matplotlib can't draw in CSS variables: it draws in these, which are replaced afterwards.
_INK, _RULE, _FIRST, _SECOND = "#5b6470", "#d9d6cd", "#0f766e", "#b45309"
_VARIABLES = {_INK: "--muted", _RULE: "--rule", _FIRST: "--first", _SECOND: "--second"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vitreous",
    "font.size": 12,
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": _RULE,
    "ytick.left": False,
    "xtick.major.size": 3,
    "lines.linewidth": 2,
    "lines.markersize": 4,
    "savefig.transparent": True,
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_POINTS = 150
_HEIGHT_PX = 250
_WIDE_PX, _NARROW_PX = 380, 250
#: Longest side of what the model looks for; positions of many patches are drawn far larger.
_LOOK_PX = 800
# Mid tones, seen on white and on near-black alike.
_RIGHT_RGB, _WRONG_RGB = (20, 150, 138), (222, 108, 32)

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One panel of the learning curves.

    Args:
        title: its heading.
        svg: to stand inside the page.
        width_px: its natural width.
        keys: what each line style means, as (style, text); styles are classes of the page's CSS.
        text: what it shows, in a sentence.
    """

    title: str
    svg: Markup
    width_px: int
    keys: Sequence[tuple[str, str]]
    text: str


def learning_curves(
    history: Sequence[Line], chance: float, keeps_last: bool = False
) -> list[Curve]:
    """Loss, accuracy and learning rate over the epochs, as far as they were written down.

    Args:
        history: lines of ``metrics.jsonl``.
        chance: balanced accuracy of guessing.
        keeps_last: whether the weights kept are the last ones, not those that validated best.
    """
    trained = [line for line in history if line["kind"] == "train"]
    validated = [line for line in history if line["kind"] == "valid"]
    curves = []
    if history:
        curves.append(_loss_curve(trained, validated))
    if validated:
        curves.append(_accuracy_curve(validated, chance, keeps_last))
    if trained:
        curves.append(_learning_rate_curve(trained))
    return curves


def reliability_curve(reliability: Reliability) -> Curve:
    """How often answers are right, over how sure they are; on the diagonal they keep their word.

    Args:
        reliability: with at least one bin.
    """
    bins = reliability.bins
    sure = np.array([one.confidence for one in bins])
    right = np.array([(one.accuracy.low, one.accuracy.value, one.accuracy.high) for one in bins]).T
    with style.context(["default", _STYLE]):
        figure, axes = _panel(_WIDE_PX)
        low = max(0.0, min(sure.min(), right.min()) - 0.02)
        axes.plot([low, 1], [low, 1], color=_INK, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.vlines(sure, right[0], right[2], color=_FIRST, linewidth=1.2)
        axes.plot(sure, right[1], "o", color=_FIRST)
        axes.set_xlabel("probability of the answer", loc="right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlim(low, 1.02)
        axes.set_ylim(low, 1.02)
        keys = [("best", "share that is right, 95 % interval"), ("dotted", "as sure as right")]
        text = f"Each dot stands for {bins[0].n} answers, the least sure on the left."
        return Curve("How often it is right", _svg(figure, "reliable"), _WIDE_PX, keys, text)


def confusion_uri(confusion: Sequence[Sequence[int]]) -> str:
    """A confusion matrix of many classes as a heat map, one pixel a cell.

    The opacity tells the share of the true class's pictures, so that a few percent can be seen;
    an empty cell is clear and shows the page, light or dark.

    Shape:
        confusion: (classes, classes), rows are the true classes
    """
    counts = np.asarray(confusion, dtype=np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    pixels = np.empty((*counts.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _WRONG_RGB
    diagonal = np.arange(len(counts))
    pixels[diagonal, diagonal, :3] = _RIGHT_RGB
    pixels[..., 3] = np.round(255 * np.where(share > 0, 0.2 + 0.8 * np.sqrt(share), 0))
    return image_uri(Image.fromarray(pixels), "png")


def looks(filters: np.ndarray | None, positions: np.ndarray | None) -> list[tuple[str, str]]:
    """What a model has learned without any picture, as (data URI, what it shows).

    Args:
        filters: as `draw_filters` takes them.
        positions: as `draw_positions` takes them.
    """
    drawn = []
    if filters is not None:
        text = f"The {len(filters)} strongest principal components of its patch filters"
        drawn.append((_look_uri(draw_filters(filters)), text))
    if positions is not None:
        text = "How alike each place's position is to those of all places"
        drawn.append((_look_uri(draw_positions(positions)), text))
    return drawn


def _look_uri(png: bytes) -> str:
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return picture_uri(picture, _LOOK_PX).uri


def _loss_curve(trained: Sequence[Line], validated: Sequence[Line]) -> Curve:
    keys, text = [], []
    with style.context(["default", _STYLE]):
        figure, axes = _panel(_WIDE_PX)
        if trained:
            epochs, losses = _thinned(trained, "loss")
            axes.plot(epochs, losses, color=_FIRST, linewidth=1.2)
            keys.append(("thin", "training"))
            text.append("Training loss is taken on augmented pictures, so it may lie higher.")
        if validated:
            epochs, losses = _series(validated, "loss")
            axes.plot(epochs, losses, color=_SECOND, marker="o")
            keys.append(("dots", "validation"))
            lowest = min(validated, key=_finite_loss)
            if math.isfinite(lowest["loss"]):
                where = f"{lowest['loss']:.3g}, at epoch {lowest['epoch']:.3g}"
                text.insert(0, f"Lowest validation loss: {where}.")
        axes.set_xlim(left=0)
        return Curve("Loss", _svg(figure, "loss"), _WIDE_PX, keys, " ".join(text))


def _accuracy_curve(validated: Sequence[Line], chance: float, keeps_last: bool) -> Curve:
    keys = [("plain", "accuracy"), ("dashed", "balanced accuracy"), ("dotted", "guessing")]
    text = ""
    with style.context(["default", _STYLE]):
        figure, axes = _panel(_WIDE_PX)
        axes.axhline(chance, color=_INK, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.plot(*_series(validated, "accuracy"), color=_FIRST, marker="o")
        axes.plot(*_series(validated, "balanced_accuracy"), color=_SECOND, linestyle=(0, (4, 1.5)))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        low, high = axes.get_ylim()
        # Ticks of whole percents need room for some.
        widen = max(0.0, 0.1 - (high - low)) / 2
        axes.set_ylim(max(low - widen, -0.02), min(high + widen, 1.02))
        axes.set_xlim(left=0)
        best = [line for line in validated if line.get("best")]
        if best:
            chosen = validated[-1] if keeps_last else best[-1]
            axes.plot(chosen["epoch"], chosen["accuracy"], "o", color=_FIRST, markersize=9)
            keys.append(("best", "the weights kept"))
            score = f"{100 * chosen['accuracy']:.1f} % of the validation pictures right"
            text = f"The weights kept are those of epoch {chosen['epoch']:.3g}: {score}."
            if chosen is not best[-1]:
                text += (
                    f" They are the last ones: those of epoch {best[-1]['epoch']:.3g} validated "
                    "best, but are not better by more than one standard error."
                )
        return Curve("Accuracy in validation", _svg(figure, "accuracy"), _WIDE_PX, keys, text)


def _learning_rate_curve(trained: Sequence[Line]) -> Curve:
    epochs, rates = _thinned(trained, "learning_rate")
    with style.context(["default", _STYLE]):
        figure, axes = _panel(_NARROW_PX)
        axes.plot(epochs, rates, color=_FIRST)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4), useMathText=True)
        highest = max(line["learning_rate"] for line in trained)
        text = f"At most {highest:.2g}."
        return Curve("Learning rate", _svg(figure, "rate"), _NARROW_PX, [], text)


def _panel(width_px: int) -> tuple[Figure, Axes]:
    """A figure of 1 SVG unit a pixel (72 dpi is what SVG is written in)."""
    figure = Figure(figsize=(width_px / 72, _HEIGHT_PX / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("epoch", loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=False))
    return figure, axes


def _series(lines: Sequence[Line], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([(line["epoch"], line[key]) for line in lines], dtype=np.float64)
    return points[:, 0], points[:, 1]


def _thinned(lines: Sequence[Line], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours, so that thousands of steps stay a small and readable line."""
    epochs, values = _series(lines, key)
    parts = min(_POINTS, len(epochs))
    return (
        np.array([part.mean() for part in np.array_split(epochs, parts)]),
        np.array([part.mean() for part in np.array_split(values, parts)]),
    )


def _finite_loss(line: Line) -> float:
    return line["loss"] if math.isfinite(line["loss"]) else math.inf


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an element of the page; the name keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<svg[^>]*viewBox", '<svg aria-hidden="true" viewBox', svg)
    svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", svg)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'id="|url\(#|xlink:href="#', lambda found: found[0] + name + "-", svg)
    svg = svg.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg)  # not escaped: it holds numbers and our own words, nothing from outside
