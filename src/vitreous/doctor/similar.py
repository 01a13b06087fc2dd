"""Which pictures might be copies of one another: all pairs, by a few numbers of each.

A perceptual hash that is kept as numbers instead of bits. Of a small picture's cosine transform
the lowest frequencies are taken (what pHash does), which survive scaling, compression and a change
of light. Then they are whitened: what the pictures of this set have in common, as portraits have,
tells nothing and counts little. A plain hash finds thousands of faces alike; whitened, about one
pair in ten thousand passes that is no copy. A picture is also compared by its middle, for copies
that were cropped, and in the mirror, which only turns the signs of the odd frequencies.

All pairs are compared by matrix products in tiles, so memory stays bounded: 10,000 pictures are
fifty million pairs and a few seconds. Who passes is looked at closely by `align`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitreous.data.cache import Progress

#: Frequencies in each direction; the mean, which is brightness, is left out.
_FREQUENCIES = 7
#: Share that is cut off each edge for the look at the middle.
_CUT = 0.05
#: Least cosine of the angle between whitened transforms (docs/experiments/LOG.md).
_LEAST_COSINE = 0.7
#: How many pictures the spectrum assumed beforehand counts as much as, see `_whiten`.
_PRIOR_PICTURES = 500
#: Added to every variance, as a share of their mean: noise counts for nothing.
_LEAST_VARIANCE = 0.01
#: Candidates of one picture that are looked at, the most similar ones.
_MOST_PARTNERS = 16
_TILE = 2048
_PIECE = 1024

_FREQUENCY = np.arange(_FREQUENCIES)
_SUM = (_FREQUENCY[:, None] ** 2 + _FREQUENCY**2).ravel()[1:]
#: Horizontal frequencies whose sign a mirror turns.
_ODD = np.tile(_FREQUENCY % 2 == 1, _FREQUENCIES)[1:]


@dataclass(frozen=True)
class Candidates:
    """Pairs of pictures that may be copies.

    Args:
        first: rows of the one.
        second: rows of the other, each above `first`.
        mirrored: whether the other shows the mirror image.

    Shape:
        each (pairs,)
    """

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray


def find_candidates(
    luma: np.ndarray, rows: np.ndarray, on_progress: Progress | None = None
) -> Candidates:
    """Compare all pictures with one another.

    Args:
        luma: small grey pictures.
        rows: which of them to compare, ascending.
        on_progress: called with a description, the tiles done and their total.

    Shape:
        luma: (files, side, side) uint8
    """
    if len(rows) < 2:
        none = np.zeros(0, np.int64)
        return Candidates(none, none, none.astype(bool))
    whole, middle = _descriptors(luma, rows)
    tiles = math.ceil(len(rows) / _TILE)
    total, done = tiles * (tiles + 1) // 2, 0
    found: list[np.ndarray] = []
    for down in range(tiles):
        best = np.zeros((4, 0))
        for across in range(down, tiles):
            more = _compare(whole, middle, down * _TILE, across * _TILE)
            best = _most_similar(np.concatenate([best, *more], axis=1))
            done += 1
            if on_progress:
                on_progress("comparing pictures", done, total)
        found.append(best)
    first, second, mirrored = np.concatenate(found, axis=1)[:3]
    return Candidates(
        rows[first.astype(np.int64)], rows[second.astype(np.int64)], mirrored.astype(bool)
    )


def _descriptors(luma: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whitened frequencies of whole pictures and of their middles, of length 1.

    Shape:
        -> (pictures, 48) twice, float32
    """
    side = luma.shape[-1]
    transform = _cosines(side)
    parts = transform, transform @ _middle(side)
    spectra = [np.concatenate(list(_spectra(luma, rows, part))) for part in parts]
    white, mean = _whiten(spectra[0])
    whole, middle = (_unit((spectrum - mean) @ white) for spectrum in spectra)
    return whole, middle


def _spectra(luma: np.ndarray, rows: np.ndarray, part: np.ndarray) -> Iterator[np.ndarray]:
    """The lowest frequencies but the mean, of length 1: contrast counts for nothing."""
    for start in range(0, len(rows), _PIECE):
        pictures = luma[rows[start : start + _PIECE]].astype(np.float32)
        yield _unit((part @ pictures @ part.T).reshape(len(pictures), -1)[:, 1:])


def _whiten(spectra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What turns spectra into numbers of variance 1 that don't depend on each other, and the mean.

    Few pictures say little about how pictures of their kind vary, so a spectrum that falls with the
    square of the frequency, as that of nature does (Field 1987), is taken for some more of them.
    Mirror images belong to them: so odd frequencies have no mean, and depend on no even ones.
    """
    count = len(spectra)
    trust = count / (count + _PRIOR_PICTURES)
    mean = np.where(_ODD, 0, trust * spectra.mean(0)).astype(np.float32)
    centred = spectra - mean
    nature = np.diag((1 / _SUM) / (1 / _SUM).sum())
    covariance = (1 - trust) * nature + trust * (centred.T @ centred) / count
    white = np.zeros_like(covariance)
    for part in (_ODD, ~_ODD):
        variances, axes = np.linalg.eigh(covariance[np.ix_(part, part)])
        scale = (variances.clip(0) + _LEAST_VARIANCE * variances.mean()) ** -0.5
        white[np.ix_(part, part)] = axes * scale @ axes.T
    return white.astype(np.float32), mean


def _compare(whole: np.ndarray, middle: np.ndarray, down: int, across: int) -> Iterator[np.ndarray]:
    """Similar pairs of a tile: rows first, second, mirrored, cosine."""
    upper, left = slice(down, down + _TILE), slice(across, across + _TILE)
    same = mirrored = np.float32(-1)
    for one, other in ((whole, whole), (middle, whole), (whole, middle)):
        even = one[upper][:, ~_ODD] @ other[left][:, ~_ODD].T
        odd = one[upper][:, _ODD] @ other[left][:, _ODD].T
        same, mirrored = np.maximum(same, even + odd), np.maximum(mirrored, even - odd)
    for is_mirrored, cosines in enumerate((same, mirrored)):
        first, second = np.nonzero(cosines > _LEAST_COSINE)
        above = first + down < second + across
        first, second = first[above], second[above]
        cosine = cosines[first, second]
        yield np.stack([first + down, second + across, np.full_like(first, is_mirrored), cosine])


def _most_similar(found: np.ndarray) -> np.ndarray:
    """Of each first row the most similar partners: in a film all frames would be pairs."""
    order = np.lexsort((-found[3], found[0]))
    found = found[:, order]
    starts = np.searchsorted(found[0], found[0], side="left")
    return found[:, np.arange(found.shape[1]) - starts < _MOST_PARTNERS]


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, 1e-6)).astype(np.float32)


def _cosines(side: int) -> np.ndarray:
    """The first rows of the orthonormal cosine transform (DCT-II), (frequencies, side)."""
    at = (2 * np.arange(side) + 1) * np.pi / (2 * side)
    rows = np.cos(_FREQUENCY[:, None] * at) * math.sqrt(2 / side)
    rows[0] /= math.sqrt(2)
    return rows.astype(np.float32)


def _middle(side: int) -> np.ndarray:
    """What scales the middle of a row of pixels up to the whole row, (side, side)."""
    at = ((np.arange(side) + 0.5) / side * (1 - 2 * _CUT) + _CUT) * side - 0.5
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
