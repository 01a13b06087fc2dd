"""Copies of one picture, exact and altered, and what they spoil: scores, labels, weights.

Pictures are joined into clusters: equal pixels, or pairs that `similar` proposes and `align`
confirms. A cluster across splits is a leak, one under several classes a conflict; what is left is
a duplicate or a near duplicate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from vitreous.data.cache import Progress
from vitreous.data.decode import OVERSAMPLING, Header, read_picture
from vitreous.doctor.align import LEAST_SCORE, LEAST_SCORE_OF_SMALL, SMALL_SIDE, score_pairs
from vitreous.doctor.collection import Collection
from vitreous.doctor.examine import COVER
from vitreous.doctor.findings import Finding, listed
from vitreous.doctor.similar import find_candidates
from vitreous.errors import UnreadablePicture

#: Altered copies of smaller pictures can't be told from pictures that are merely alike.
SMALLEST_SIDE = 24
#: Score from which a pair may be the same pixels in two formats.
_SURE = 0.98
#: JPEGs of at least this shorter side are decoded at half their size or less (`examine`), so that
#: equal pixels in another format may not show.
_SMALLER_FROM = 2 * OVERSAMPLING * COVER[0]
#: Share of their strength by which the colours of copies differ that is no matter of compression or
#: brightness, and strength (mean square) that counts for nothing.
_OTHER_COLOURS, _COLOUR_NOISE = 0.2, 16.0


@dataclass(frozen=True)
class Copies:
    """Which pictures are the same.

    Args:
        exact: equal for pictures with equal pixels; -1 where there is nothing to compare.
        cluster: equal for pictures that are copies of one another, altered or not; likewise.
        mirrored: the clusters in which one picture is the mirror image of another.

    Shape:
        exact, cluster: (files,) int64
    """

    exact: np.ndarray
    cluster: np.ndarray
    mirrored: frozenset[int]


def find_copies(collection: Collection, on_progress: Progress | None = None) -> Copies:
    """Join pictures that are copies; blank and unreadable ones are left out."""
    rows = [int(row) for row in collection.readable if not collection.is_blank(int(row))]
    first: dict[str, int] = {}
    exact = np.full(len(collection.samples), -1, dtype=np.int64)
    for row in rows:
        exact[row] = first.setdefault(collection.examined[row].fingerprint, row)
    sides = np.array([picture.short_side for picture in collection.examined])
    each = np.array(sorted(first.values()), dtype=np.int64)
    each = each[sides[each] >= SMALLEST_SIDE]
    examination = collection.examination
    pairs = find_candidates(examination.luma, each, on_progress)
    scores = score_pairs(examination.luma, examination.chroma, sides, pairs, on_progress)
    small = np.maximum(sides[pairs.first], sides[pairs.second]) < SMALL_SIDE
    copied = scores >= np.where(small, LEAST_SCORE_OF_SMALL, LEAST_SCORE)
    confirmed = np.stack([pairs.first, pairs.second], axis=1)[copied]
    # The pairs of a picture follow one another.
    read = lru_cache(2)(read_picture)
    same = [
        (one, other)
        for (one, other), score in zip(confirmed.tolist(), scores[copied], strict=True)
        if score > _SURE and _same_pixels(collection, one, other, read)
    ]
    exact = _joined(exact, np.array(same, dtype=np.int64).reshape(-1, 2))
    cluster = _joined(exact, confirmed)
    turned = pairs.mirrored[copied]
    upright = set(map(tuple, confirmed[~turned].tolist()))
    # A picture that is its own mirror image is like its copy both ways.
    mirrored = [pair for pair in map(tuple, confirmed[turned].tolist()) if pair not in upright]
    return Copies(exact, cluster, frozenset(int(cluster[one]) for one, _ in mirrored))


def _joined(names: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The names after those of each pair of rows have become one."""
    # SciPy takes a while to import, and only this needs it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(names)
    one, other = names[pairs[:, 0]], names[pairs[:, 1]]
    links = coo_array((np.ones(len(pairs), bool), (one, other)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    joined = np.full(count, -1, dtype=np.int64)
    known = names >= 0
    joined[known] = component[names[known]]
    return joined


def _same_pixels(
    collection: Collection, one: int, other: int, read: Callable[[Path], np.ndarray]
) -> bool:
    """Whether a large JPEG and another file are equal once both are decoded whole.

    Two JPEGs of equal pixels are equal decoded smaller too, and others are never decoded smaller.
    """
    headers = list(_headers(collection, [one, other]))
    sizes = [(header.height, header.width) for header in headers]
    jpegs = sum(header.format == "JPEG" for header in headers)
    if jpegs != 1 or sizes[0] != sizes[1] or min(sizes[0]) < _SMALLER_FROM:
        return False
    try:
        return np.array_equal(read(collection.path(one)), read(collection.path(other)))
    except UnreadablePicture:  # has changed since
        return False


def copy_findings(collection: Collection, copies: Copies) -> Iterator[Finding]:
    """Leaks, conflicts and duplicates."""
    for rows in _members(copies.cluster):
        exact = len({int(copies.exact[row]) for row in rows}) == 1
        paths = tuple(collection.path(row) for row in rows)
        how = "the same pixels" if exact else _likeness(collection, copies, rows)
        splits = collection.splits_of(rows)
        if len(splits) > 1:
            yield Finding("leak", paths, f"in {listed(splits)}: {how}", "error")
        yield from _conflicts(collection, copies, rows)
        places: dict[tuple[str, str], list[int]] = {}
        for row in rows:
            places.setdefault((collection.splits[row], collection.labels[row]), []).append(row)
        for here in places.values():
            yield from _duplicates(collection, copies, here)


def _conflicts(collection: Collection, copies: Copies, rows: list[int]) -> Iterator[Finding]:
    """Copies under several classes: an error of equal pixels, of altered ones it may be meant."""
    by_pixels: dict[int, list[int]] = {}
    for row in rows:
        by_pixels.setdefault(int(copies.exact[row]), []).append(row)
    for same in by_pixels.values():
        if len(labels := _labels(collection, same)) > 1:
            paths = tuple(collection.path(row) for row in same)
            yield Finding("label_conflict", paths, f"as {listed(labels)}: the same pixels", "error")
    labels = _labels(collection, rows)
    if len(by_pixels) > 1 and len(labels) > 1:
        detail = f"as {listed(labels)}: {_likeness(collection, copies, rows)}"
        if _differences(collection, copies, rows):
            detail += "; the classes may differ in just that"
        paths = tuple(collection.path(row) for row in rows)
        yield Finding("label_conflict", paths, detail, "warning")


def _labels(collection: Collection, rows: Sequence[int]) -> list[str]:
    return sorted({f"'{collection.labels[row]}'" for row in rows})


def _duplicates(collection: Collection, copies: Copies, rows: list[int]) -> Iterator[Finding]:
    """Copies of one split and class: the exact ones, and the altered ones, the largest first."""
    for same in _members(copies.exact, rows):
        paths = tuple(collection.path(row) for row in same)
        what = f"{len(same)} files with the same pixels"
        if len(set(paths)) == 1:
            what = f"listed {len(same)} times"
        yield Finding("duplicate", paths, what, "warning")
    if len({int(copies.exact[row]) for row in rows}) > 1:
        best = sorted(rows, key=lambda row: -_pixels(collection, row))
        paths = tuple(collection.path(row) for row in best)
        yield Finding("near_duplicate", paths, _likeness(collection, copies, best), "warning")


def _members(names: np.ndarray, among: Sequence[int] | None = None) -> list[list[int]]:
    """Rows that share a name, where two or more do; in the order of their first row."""
    found: dict[int, list[int]] = {}
    for row in range(len(names)) if among is None else among:
        if names[row] >= 0:
            found.setdefault(int(names[row]), []).append(row)
    return [rows for rows in found.values() if len(rows) > 1]


def _likeness(collection: Collection, copies: Copies, rows: Sequence[int]) -> str:
    """In what altered copies differ, as far as that can be told at once."""
    sizes = {(header.width, header.height): None for header in _headers(collection, rows)}
    words = [f"nearly the same picture{'' if len(rows) == 2 else f' in {len(rows)} files'}"]
    words += _differences(collection, copies, rows)
    if len(sizes) > 1:
        words.append(" and ".join(f"{width} x {height}" for width, height in list(sizes)[:3]))
    return ", ".join(words)


def _differences(collection: Collection, copies: Copies, rows: Sequence[int]) -> list[str]:
    """In what altered copies differ that may make two classes of them."""
    words = ["mirrored"] if int(copies.cluster[rows[0]]) in copies.mirrored else []
    first, *others = (collection.examination.chroma[row].astype(float) - 128 for row in rows)
    if any(_recoloured(first, other) for other in others):
        words.append("in other colours")
    return words


def _recoloured(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether pictures differ in colour, mirrored or not.

    Shape:
        each (16, 16, 2), without the 128 that is grey
    """
    apart = min(((one - turned) ** 2).mean() for turned in (other, other[:, ::-1]))
    return apart > _OTHER_COLOURS * ((one**2).mean() + (other**2).mean() + _COLOUR_NOISE)


def _headers(collection: Collection, rows: Sequence[int]) -> Iterator[Header]:
    for row in rows:
        header = collection.examined[row].header
        if header:
            yield header


def _pixels(collection: Collection, row: int) -> int:
    return sum(header.height * header.width for header in _headers(collection, [row]))
