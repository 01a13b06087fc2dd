"""Explanations as pictures: heat over the picture, heads side by side, filters and positions.

The colours can be told apart whatever one's colour vision: what counts runs from black over red to
yellow; what speaks for a class is orange and what speaks against it violet. Takes arrays and gives
PNGs; runs no model.
"""

import io
import warnings
from pathlib import PurePath
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from vitreous.explanation.result import Explanation

_HEAT, _LIKENESS = matplotlib.colormaps["inferno"], matplotlib.colormaps["viridis"]
# Of matplotlib's own, the ends are too dark to be seen over a dark picture.
_SIGNED = LinearSegmentedColormap.from_list("signed", ["#6a3df0", "#b4b4b4", "#ff8a00"])
_TITLES = {
    "relevance": "Relevance",
    "integrated": "Integrated gradients",
    "rollout": "Attention rollout",
    "attention": "Attention",
}
_BAD, _MUTED = "#b3261e", "#59626b"
_DPI = 120
#: In inches: width of a panel, space between panels, above and below them.
_PANEL, _GAP, _ABOVE, _BELOW = 2.4, 0.25, 0.6, 0.5
#: How much of the picture is left under the hottest place.
_LEFT = 0.15
#: White lines in a mosaic, and the height of one of its pictures, of a filter about.
_LINE_PX, _CELL_PX, _FILTER_PX = 3, 96, 64
_FILTER_COLUMNS = 7
#: Characters of a file's name.
_NAME = 36


def is_signed(values: np.ndarray) -> bool:
    """Whether a map tells what speaks against a class, too."""
    return bool(values.min() < 0)


def overlay(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture in grey with a map in colour over it: the more something counts, the more colour.

    Args:
        picture: as the model sees it.
        values: from 0 to 1, of which the least gets no colour, or signed from -1 to 1.

    Shape:
        (height, width, 3) uint8, (height, width) -> (height, width, 3) uint8
    """
    return _blend(picture, *_coloured(values))


def draw_heat(method: str, values: np.ndarray) -> bytes:
    """A map alone as a PNG with transparency, to be laid over the picture it belongs to.

    Args:
        method: that made it.
        values: as for `overlay`, whose colours it has.

    Shape:
        (height, width)
    """
    heat, opacity = _layer(*_coloured(_legible(method, values)))
    buffer = io.BytesIO()
    layer = np.concatenate([heat, opacity], axis=2)
    Image.fromarray(np.round(255 * layer).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def _coloured(values: np.ndarray) -> tuple[np.ndarray, Colormap]:
    """Values as they are drawn, and the colours to draw them in."""
    if is_signed(values):
        return values, _SIGNED
    # Or else rollout would colour all of a picture.
    values = values - values.min()
    return values / max(float(values.max()), 1e-12), _HEAT


def _layer(values: np.ndarray, colours: Colormap) -> tuple[np.ndarray, np.ndarray]:
    """Colours, (height, width, 3), and how dense they are, (height, width, 1); from 0 to 1."""
    heat = colours((values + 1) / 2 if colours is _SIGNED else values)[..., :3]
    return heat, (1 - _LEFT) * np.sqrt(np.abs(values))[..., None]


def _blend(picture: np.ndarray, values: np.ndarray, colours: Colormap) -> np.ndarray:
    """A picture in grey, and over it colours that are the denser the further values are from 0."""
    grey = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    heat, opacity = _layer(values, colours)
    return np.round(255 * ((1 - opacity) * grey[..., None] + opacity * heat)).astype(np.uint8)


def draw_explanation(explanation: "Explanation") -> bytes:
    """The picture beside its maps, each with what its check says, as a PNG."""
    picture, maps = explanation.picture, explanation.maps
    count, high = 1 + len(maps), _PANEL * picture.shape[0] / picture.shape[1]
    width, height = count * (_PANEL + _GAP) + _GAP, _ABOVE + high + _BELOW
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = [
        figure.add_axes(
            ((_GAP + at * (_PANEL + _GAP)) / width, _BELOW / height, _PANEL / width, high / height)
        )
        for at in range(count)
    ]
    _show(axes[0], picture)
    answer, chosen = (
        f"{_short(name, 22)} {explanation.probabilities[name]:.2f}"
        for name in (explanation.answer, explanation.label)
    )
    _title(axes[0], answer, "" if chosen == answer else f"explained: {chosen}")
    axes[0].set_xlabel(_name(explanation), color=_MUTED, fontsize=9, parse_math=False)
    for axis, (name, found) in zip(axes[1:], maps.items(), strict=True):
        values = _legible(name, found.values)
        _show(axis, overlay(picture, values))
        gain = f"{round(found.faithfulness.gain, 2) + 0.0:+.2f} over random order"
        passed = explanation.checks[name].passed
        _title(axis, _TITLES[name], gain if passed else "failed its check", passed)
        _colour_bar(figure, axis, signed=is_signed(values))
    return _png(figure)


def draw_heads(explanation: "Explanation") -> bytes:
    """What each head of each block looks at: a row for each block, the first on top; a PNG."""
    maps = explanation.places.to_pixels(explanation.heads).numpy()
    most = float(maps.max())
    cells = [
        [_resized(_blend(explanation.picture, seen / most, _HEAT)) for seen in row] for row in maps
    ]
    title = f"Attention in {_name(explanation)}"
    figure, axis = _page(_mosaic(np.array(cells)), title, "head", "layer", *maps.shape[:2])
    bar = figure.colorbar(ScalarMappable(Normalize(0, most), _HEAT), ax=axis, shrink=0.6)
    bar.set_label("share of a head's attention", fontsize=9)
    return _png(figure)


def draw_positions(similarity: np.ndarray) -> bytes:
    """For each patch how similar its position is to all, where it stands in a picture; a PNG.

    Shape:
        (rows, columns, rows, columns)
    """
    rows, columns = similarity.shape[:2]
    factor = max(1, round(_FILTER_PX / rows))
    scale = Normalize(float(similarity.min()), 1)
    colours = _LIKENESS(scale(similarity))[..., :3]
    cells = np.round(255 * colours).astype(np.uint8).repeat(factor, 2).repeat(factor, 3)
    title = "Similarity of each position to all"
    figure, axis = _page(_mosaic(cells), title, "column", "row", rows, columns)
    bar = figure.colorbar(ScalarMappable(scale, _LIKENESS), ax=axis, shrink=0.6)
    bar.set_label("cosine", fontsize=9)
    return _png(figure)


def draw_filters(filters: np.ndarray) -> bytes:
    """Filters in reading order, the strongest first, as a PNG.

    Shape:
        (filters, height, width, channels), from 0 to 1
    """
    rows = -(-len(filters) // _FILTER_COLUMNS)
    factor = max(1, round(_FILTER_PX / filters.shape[1]))
    if filters.shape[-1] != 3:  # other channels have no colours
        filters = filters.mean(-1, keepdims=True).repeat(3, axis=-1)
    cells = np.ones((rows * _FILTER_COLUMNS, *filters.shape[1:]))
    cells[: len(filters)] = filters
    cells = np.round(255 * cells).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)
    buffer = io.BytesIO()
    mosaic = _mosaic(cells.reshape(rows, _FILTER_COLUMNS, *cells.shape[1:]))
    Image.fromarray(mosaic).save(buffer, "PNG")
    return buffer.getvalue()


def _legible(method: str, values: np.ndarray) -> np.ndarray:
    """A map as it can be read: single pixels are blurred by a fiftieth of the picture's side."""
    if method != "integrated":
        return values
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(values, max(values.shape) / 50)
    return soft / max(float(np.abs(soft).max()), 1e-12)


def _resized(picture: np.ndarray) -> np.ndarray:
    """A picture that can stand among many."""
    height, width = picture.shape[:2]
    factor = _CELL_PX / height
    size = (round(width * factor), _CELL_PX)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _mosaic(cells: np.ndarray) -> np.ndarray:
    """Pictures of one size side by side, with white lines between and around them.

    Shape:
        (rows, columns, height, width, 3) uint8 -> (height, width, 3) uint8
    """
    lines = ((0, 0), (0, 0), (_LINE_PX, 0), (_LINE_PX, 0), (0, 0))
    rows = np.pad(cells, lines, constant_values=255)
    whole = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    return np.pad(whole, ((0, _LINE_PX), (0, _LINE_PX), (0, 0)), constant_values=255)


def _page(
    mosaic: np.ndarray, title: str, across: str, down: str, rows: int, columns: int
) -> tuple[Figure, Axes]:
    """A figure in which a mosaic has about its own size, its rows and columns counted from 1."""
    height, width = (side / _DPI for side in mosaic.shape[:2])
    figure = Figure(figsize=(max(width + 1.8, 4.5), height + 1.0), dpi=_DPI, layout="constrained")
    axis = figure.add_subplot()
    axis.imshow(mosaic, interpolation="nearest")
    for count, pixels, set_ticks in (
        (rows, mosaic.shape[0], axis.set_yticks),
        (columns, mosaic.shape[1], axis.set_xticks),
    ):
        shown = np.arange(0, count, 1 if count <= 16 else 2 if count <= 32 else 4)
        set_ticks((shown + 0.5) * pixels / count, [str(number + 1) for number in shown])
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(across)
    axis.set_ylabel(down)
    figure.suptitle(title, fontsize=11, fontweight="bold", parse_math=False)
    return figure, axis


def _show(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest", aspect="auto")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _title(axis: Axes, first: str, second: str, good: bool = True) -> None:
    """Two lines above a panel; an empty second one keeps its place."""
    colour = _MUTED if good else _BAD
    axis.set_title(f"{first}\n", fontsize=11, fontweight="bold", parse_math=False)
    axis.text(
        0.5, 1.03, second, color=colour, fontsize=9, ha="center", transform=axis.transAxes,
        parse_math=False,
    )  # fmt: skip


def _colour_bar(figure: Figure, panel: Axes, signed: bool) -> None:
    """What the colours mean, below a panel."""
    place = panel.get_position()
    line = 1 / figure.get_figheight()  # an inch
    bar = figure.add_axes((place.x0, place.y0 - 0.17 * line, place.width, 0.1 * line))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap=_SIGNED if signed else _HEAT, aspect="auto")
    bar.set_axis_off()
    for at, word in ((0, "against" if signed else "least"), (1, "for" if signed else "most")):
        bar.text(
            at, -0.5, word, color=_MUTED, fontsize=8, va="top",
            ha="right" if at else "left", transform=bar.transAxes,
        )  # fmt: skip


def _name(explanation: "Explanation") -> str:
    """A file and its folder, which may be all that tells files of several classes apart."""
    text = _line("/".join(PurePath(explanation.file).parts[-2:]))
    return text if len(text) <= _NAME else f"…{text[1 - _NAME :]}"


def _short(text: str, most: int) -> str:
    """A name that fits."""
    text = _line(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _line(text: str) -> str:
    """Without line breaks, and bytes that are no text become question marks."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Scripts that the font doesn't have are drawn as boxes, which one sees.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
