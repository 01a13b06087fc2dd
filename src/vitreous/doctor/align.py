"""Is one picture a copy of another? Both are laid on one another and compared place by place.

A cropped or stretched copy shows its picture at other coordinates: x' = s_x x + t_x, and the same
for y. The four numbers are found by least squares on the difference of the pictures, with gain and
offset of the brightness beside them (Lucas and Kanade 1981; for gain and offset Evangelidis and
Psarakis 2008), from coarse to fine. Then both are filtered to the fine structure that two
different pictures of the same kind don't share, and correlated window by window. So a portrait
isn't taken for another one because both are bright in the middle, and a caption spoils a few
windows only.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.machine import usable_cores
from vitreous.core.threads import SideBySide
from vitreous.data.cache import Progress
from vitreous.doctor.similar import Candidates

#: Side in pixels, and how many steps to take there.
_LEVELS = ((16, 4), (32, 3), (64, 2))
#: Widths in pixels of the two Gaussians whose difference is compared, of 64 px pictures.
_FINE, _COARSE = 0.7, 3.0
#: The finer one in pixels of the picture itself, where that has fewer: finer than that it has none.
_FINEST = 0.5
_WINDOW = 16
#: Share of a window that both pictures have to cover.
_COVERED = 0.7
#: Largest stretch and shift, the latter as a share of half a side.
_STRETCH, _SHIFT = (0.7, 1.4), 0.3
#: Least score of a copy, see docs/experiments/LOG.md.
LEAST_SCORE = 0.85
#: For pictures of fewer pixels a side than this, which have little that could differ.
SMALL_SIDE, LEAST_SCORE_OF_SMALL = 32, 0.95
#: What quite different colours take off the score: a grey copy is one if all else agrees.
_COLOUR_WEIGHT = 0.12
#: Mean square of chroma that counts for nothing: what compression makes of grey.
_CHROMA_NOISE = 16.0
_BATCH = 32


def score_pairs(
    luma: np.ndarray,
    chroma: np.ndarray,
    short_sides: np.ndarray,
    pairs: Candidates,
    on_progress: Progress | None = None,
) -> np.ndarray:
    """How surely the pictures of each pair are copies, 1 at most; `LEAST_SCORE` is sure enough.

    Args:
        luma: small grey pictures.
        chroma: their colours.
        short_sides: of the pictures as they are, in pixels.
        pairs: which to compare.
        on_progress: called with a description, the pairs done and their total.

    Shape:
        luma: (files, 64, 64) uint8
        chroma: (files, 16, 16, 2) uint8
        short_sides: (files,)
        -> (pairs,) float32
    """
    total = len(pairs.first)
    sides = np.minimum(short_sides[pairs.first], short_sides[pairs.second])
    workers = SideBySide(usable_cores())
    scores: list[np.ndarray] = []

    def score(places: slice) -> np.ndarray:
        mirrored = torch.from_numpy(pairs.mirrored[places])
        first, second = pairs.first[places], pairs.second[places]
        grey = _mirror(_floats(luma[first])[:, None], mirrored)
        colour = _mirror(_floats(chroma[first]).permute(0, 3, 1, 2), mirrored)
        others = _floats(luma[second])[:, None], _floats(chroma[second]).permute(0, 3, 1, 2)
        width = (_FINEST * luma.shape[-1] / _floats(sides[places])).clamp(min=_FINE)
        return _score(grey, colour, *others, width).numpy()

    for piece in _pieces(total, _BATCH * workers.count):
        scores += workers.map(score, piece)
        if on_progress:
            on_progress("looking at pairs", min(piece[-1].stop, total), total)
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def _pieces(total: int, size: int) -> Iterator[Sequence[slice]]:
    """Slices of a batch each, as many at a time as there are threads."""
    for start in range(0, total, size):
        ends = range(start, min(start + size, total), _BATCH)
        yield [slice(begin, begin + _BATCH) for begin in ends]


def _floats(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32))


def _mirror(pictures: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)


def _score(
    grey: Tensor, colour: Tensor, other: Tensor, other_colour: Tensor, width: Tensor
) -> Tensor:
    """Correlation of fine structure, less what the colours differ.

    Shape:
        grey, other: (batch, 1, 64, 64)
        colour, other_colour: (batch, 2, 16, 16)
        width: (batch,), of the finer Gaussian
        -> (batch,)
    """
    grey, other = _standard(grey), _standard(other)
    place = torch.tensor([1.0, 1.0, 0.0, 0.0]).repeat(len(grey), 1)
    for side, steps in _LEVELS:
        one, two = _smaller(grey, side), _smaller(other, side)
        for _ in range(steps):
            place = _step(one, two, place)
    moved, covered = _moved(_fine(other, width), place)
    fine = _windows(_fine(grey, width), moved, covered)
    moved, covered = _moved(other_colour - 128, place)
    return fine - _COLOUR_WEIGHT * _colour_distance(colour - 128, moved, covered)


def _standard(pictures: Tensor) -> Tensor:
    """Mean 0 and deviation 1."""
    centred = pictures - pictures.mean((2, 3), keepdim=True)
    return centred / centred.std((2, 3), keepdim=True).clamp(min=1e-3)


def _smaller(pictures: Tensor, side: int) -> Tensor:
    if side == pictures.shape[-1]:
        return _blurred(pictures, _FINE)
    return F.interpolate(pictures, (side, side), mode="area")


def _blurred(pictures: Tensor, width: float) -> Tensor:
    """Gaussian blur as two matrix products; at the edges the weights are those inside."""
    at = torch.arange(pictures.shape[-1]).float()
    apart = (at[:, None] - at).abs() / width
    # Further out they would be numbers so small that the processor takes a detour for each.
    weights = torch.exp(-(apart**2) / 2) * (apart < 5)
    weights = (weights / weights.sum(1, keepdim=True)).T
    # With the matrix on the right, all pictures are one large product.
    return ((pictures @ weights).mT.contiguous() @ weights).mT


def _fine(pictures: Tensor, width: Tensor) -> Tensor:
    """What is finer than `_COARSE` and not finer than each picture's width."""
    sharp = torch.empty_like(pictures)
    for one in width.unique().tolist():
        sharp[width == one] = _blurred(pictures[width == one], one)
    return sharp - _blurred(pictures, _COARSE)


def _moved(pictures: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures drawn at other coordinates, and where there is something of them.

    Args:
        pictures: what to draw.
        place: stretch in x and y, shift in x and y; the picture reaches from -1 to 1.

    Shape:
        pictures: (batch, channels, side, side)
        place: (batch, 4)
        -> as the pictures; (batch, 1, side, side)
    """
    side = pictures.shape[-1]
    at = _coordinates(side)
    x = place[:, 0:1] * at + place[:, 2:3]
    y = place[:, 1:2] * at + place[:, 3:4]
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    covered = (grid.abs() <= 1).all(-1).float()[:, None]
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return moved, covered


def _coordinates(side: int) -> Tensor:
    return (torch.arange(side) + 0.5) / side * 2 - 1


def _step(one: Tensor, two: Tensor, place: Tensor) -> Tensor:
    """One step of Gauss and Newton towards the place where `two` looks like `one`."""
    side = one.shape[-1]
    moved, covered = _moved(two, place)
    moved, mask = moved[:, 0], covered[:, 0]
    along_x, along_y = torch.zeros_like(moved), torch.zeros_like(moved)
    along_x[:, :, 1:-1] = (moved[:, :, 2:] - moved[:, :, :-2]) * side / 4
    along_y[:, 1:-1] = (moved[:, 2:] - moved[:, :-2]) * side / 4
    # Slopes of the moved picture, in coordinates of the picture as it was.
    along_x, along_y = along_x / place[:, 0, None, None], along_y / place[:, 1, None, None]
    at = _coordinates(side)
    columns = (along_x * at, along_y * at[:, None], along_x, along_y, moved, torch.ones_like(moved))
    slopes = torch.stack([(column * mask).flatten(1) for column in columns], dim=2)
    target = (one[:, 0] * mask).flatten(1)[:, :, None]
    normal = slopes.transpose(1, 2) @ slopes
    # A flat picture gives no direction: then the smallest step will do.
    normal = normal + torch.diag_embed(1e-4 * normal.diagonal(dim1=1, dim2=2) + 1e-6)
    solved = torch.linalg.solve(normal, slopes.transpose(1, 2) @ target)[:, :, 0]
    gain = solved[:, 4:5]
    gain = torch.where(gain.abs() < 0.1, torch.full_like(gain, 0.1), gain)
    place = place + (solved[:, :4] / gain).clamp(-0.1, 0.1)
    return torch.cat([place[:, :2].clamp(*_STRETCH), place[:, 2:].clamp(-_SHIFT, _SHIFT)], dim=1)


def _windows(one: Tensor, two: Tensor, covered: Tensor) -> Tensor:
    """Mean correlation of overlapping windows, each weighted by how much there is to see in it."""

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, _WINDOW, _WINDOW // 2).flatten(1)

    share = mean(covered)
    whole = share.clamp(min=1e-2)
    mean_one, mean_two = mean(one * covered) / whole, mean(two * covered) / whole
    variance_one = (mean(one**2 * covered) / whole - mean_one**2).clamp(min=0)
    variance_two = (mean(two**2 * covered) / whole - mean_two**2).clamp(min=0)
    deviation = (variance_one * variance_two).sqrt()
    correlation = (mean(one * two * covered) / whole - mean_one * mean_two) / deviation.clamp(
        min=1e-6
    )
    weight = deviation.sqrt() * (share > _COVERED)
    return (correlation * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def _colour_distance(one: Tensor, two: Tensor, covered: Tensor) -> Tensor:
    """0 for equal colours, about 1 for unrelated ones or for grey beside colour, 2 for opposite."""

    def total(values: Tensor) -> Tensor:
        return (values * covered).sum((1, 2, 3)) / covered.sum((1, 2, 3)).clamp(min=1)

    return total((one - two) ** 2) / (total(one**2) + total(two**2) + _CHROMA_NOISE)
