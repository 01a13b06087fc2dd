"""What is wrong with single files: damage, and what sets one apart from the rest."""

from collections import Counter
from collections.abc import Iterator
from math import log2

import numpy as np

from vitreous.data.decode import Header
from vitreous.data.table import ENDINGS
from vitreous.doctor.collection import Collection
from vitreous.doctor.findings import Finding, Severity

#: Below this many pictures there is no rest to be set apart from.
_FEWEST = 8
#: Largest share of pictures that can still be odd.
_ODD_SHARE = 0.05
#: Share of the median shorter side below which a picture is tiny, and bounds in pixels.
_TINY_SHARE, _TINY_LEAST, _TINY_MOST = 0.25, 17, 64
#: Longer side to shorter, and doublings of the area from the median, from which a picture is odd.
_LONG, _FAR = 3.0, 3.0


def file_findings(collection: Collection) -> Iterator[Finding]:
    """Findings about one file each."""
    yield from _faults(collection)
    yield from _plain(collection)
    typical = _typical_side(collection)
    tiny = list(_tiny_rows(collection, typical))
    for row in tiny:
        detail = f"{collection.examined[row].short_side} px, where {typical:.0f} is usual"
        yield _finding(collection, row, "tiny", detail, "warning")
    if len(collection.readable) >= _FEWEST:
        yield from _odd_modes(collection)
        yield from _odd_sizes(collection, set(tiny))


def _finding(
    collection: Collection, row: int, kind: str, detail: str, severity: Severity
) -> Finding:
    return Finding(kind, (collection.path(row),), detail, severity)


def _faults(collection: Collection) -> Iterator[Finding]:
    for row, picture in enumerate(collection.examined):
        if picture.fault:
            kind, detail = picture.fault
            yield _finding(collection, row, kind, detail, "error")


def _plain(collection: Collection) -> Iterator[Finding]:
    for row, header in _headers(collection):
        if collection.is_blank(row) and pixel_kind(header) == "16-bit":
            detail = "the upper eight bits, which are what is read, are nearly constant"
            yield _finding(collection, row, "narrow_range", detail, "warning")
        elif collection.is_blank(row):
            yield _finding(collection, row, "blank", "one colour, or nearly so", "warning")
        if header.animated:
            detail = f"a {header.format} of several frames, of which the first is used"
            yield _finding(collection, row, "animated", detail, "warning")
        suffix = collection.path(row).suffix
        if suffix.lower() not in ENDINGS[header.format]:
            detail = f"a {header.format} by its content, {suffix or 'nothing'} by its name"
            yield _finding(collection, row, "wrong_extension", detail, "note")


def _headers(collection: Collection) -> Iterator[tuple[int, Header]]:
    for row in map(int, collection.readable):
        header = collection.examined[row].header
        if header:
            yield row, header


def _typical_side(collection: Collection) -> float:
    sides = [collection.examined[row].short_side for row in collection.readable]
    return float(np.median(sides)) if sides else 0.0


def _tiny_rows(collection: Collection, typical: float) -> Iterator[int]:
    """Pictures far smaller than the rest; where all are small, none is tiny."""
    least = max(_TINY_SHARE * typical, min(_TINY_LEAST, typical / 2))
    for row in map(int, collection.readable):
        if collection.examined[row].short_side < min(least, _TINY_MOST):
            yield row


def pixel_kind(header: Header) -> str:
    """Pixels in a person's words."""
    if header.transparent:
        return "transparent"
    if header.mode.startswith("I;16"):
        return "16-bit"
    known = {"L": "grey", "1": "black and white", "P": "palette", "CMYK": "CMYK", "RGB": "colour"}
    return known.get(header.mode, header.mode)


#: Kinds of pixels that change when they are read as 8-bit RGB.
_CHANGED = ("transparent", "16-bit", "CMYK", "LAB")


def _odd_modes(collection: Collection) -> Iterator[Finding]:
    kinds = {row: pixel_kind(header) for row, header in _headers(collection)}
    counts = Counter(kinds.values())
    usual = counts.most_common(1)[0][0]
    for row, kind in kinds.items():
        if kind != usual and counts[kind] <= max(1, _ODD_SHARE * len(kinds)):
            severity: Severity = "warning" if kind in _CHANGED else "note"
            detail = f"{kind} pixels, where {usual} is usual"
            yield _finding(collection, row, "odd_mode", detail, severity)


def _odd_sizes(collection: Collection, tiny: set[int]) -> Iterator[Finding]:
    """Pictures of another size where nearly all have one; else those far from the usual."""
    sizes = {row: (header.width, header.height) for row, header in _headers(collection)}
    usual, count = Counter(sizes.values()).most_common(1)[0]
    alike = count >= (1 - _ODD_SHARE) * len(sizes) or count >= len(sizes) - 1
    areas = np.array([log2(width * height) for width, height in sizes.values()])
    low, middle, high = np.quantile(areas, (0.25, 0.5, 0.75))
    far = max(_FAR, 4 * (high - low))
    typical_shape = np.median([max(size) / min(size) for size in sizes.values()])
    for row, (width, height) in sizes.items():
        if row in tiny or (width, height) == usual:
            continue
        shape = max(width, height) / min(width, height)
        if alike:
            detail = f"{width} x {height} px, where {usual[0]} x {usual[1]} is usual"
        elif shape > _LONG * typical_shape:
            detail = f"{width} x {height} px: {shape:.0f} times as long as wide"
        elif abs(log2(width * height) - middle) > far:
            detail = f"{width} x {height} px, where {2**middle / 1e6:.2g} megapixels are usual"
        else:
            continue
        yield _finding(collection, row, "odd_size", detail, "note")
