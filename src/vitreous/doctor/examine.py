"""One look at every file: is it whole, what is it, and a small picture to compare by.

Each file is read once. What is kept of a picture is a few numbers in memory and 4.6 KB in a
temporary file, which the system reads back as far as it is needed: so a hundred thousand pictures
take no more memory than a hundred.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.core.files import storage_errors
from vitreous.data.cache import Progress, fingerprint, in_threads
from vitreous.data.decode import Header, read_with_header
from vitreous.data.shards import entry_of
from vitreous.doctor.damage import diagnose
from vitreous.errors import UnreadablePicture

#: Side in pixels of the small pictures: light and dark, and colour.
LUMA, CHROMA = 64, 16
#: JPEGs of several times this size are decoded smaller, see `decode`.
COVER = (4 * LUMA, 4 * LUMA)
#: Width in pixels of the edge that is looked at, of the small picture's.
_BORDER = 3


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of one file.

    Args:
        size_bytes: of the file.
        fault: kind and detail of what keeps it from being read; ``None`` where it can be.
        header: what it is.
        fingerprint: equal for equal pixels; "" where unreadable.
        contrast: from the darkest to the brightest of the small picture's values, 0 to 255, in
            the channel where that is most.
        border: mean red, green and blue of the upper, lower, left and right edge, and the
            deviation of them all.
    """

    size_bytes: int
    fault: tuple[str, str] | None = None
    header: Header | None = None
    fingerprint: str = ""
    contrast: float = 0.0
    border: tuple[float, ...] = ()

    @property
    def short_side(self) -> int:
        """In pixels; 0 where unreadable."""
        return min(self.header.height, self.header.width) if self.header else 0


@dataclass(frozen=True)
class Examination:
    """All files of a listing, looked at.

    Args:
        pictures: what is known of each.
        luma: (files, 64, 64) uint8: each picture squeezed into a square, light and dark alone.
        chroma: (files, 16, 16, 2) uint8: its blue and red difference, likewise.
    """

    pictures: tuple[Examined, ...]
    luma: np.ndarray
    chroma: np.ndarray


def examine(paths: Sequence[Path], on_progress: Progress | None = None) -> Examination:
    """Read every file once.

    Args:
        paths: the files.
        on_progress: called with a description, the files done and their total.

    Raises:
        StorageError: where the small pictures don't fit the disk.
    """
    pictures: list[Examined] = []
    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        for picture, small in in_threads(_examine, paths, "looking at pictures", on_progress):
            pictures.append(picture)
            file.write(small)
        file.flush()
        shape = (len(paths), _SMALL_BYTES)
        # The mapping outlives the file's name and its handle; of nothing there is none.
        rows = np.memmap(file, np.uint8, "r", shape=shape) if paths else np.zeros(shape, np.uint8)
    luma = rows[:, : LUMA * LUMA].reshape(-1, LUMA, LUMA)
    chroma = rows[:, LUMA * LUMA :].reshape(-1, CHROMA, CHROMA, 2)
    return Examination(tuple(pictures), luma, chroma)


_SMALL_BYTES = LUMA * LUMA + 2 * CHROMA * CHROMA


def _examine(path: Path) -> tuple[Examined, bytes]:
    try:
        header, picture = read_with_header(path, COVER)
        packed = entry_of(path)
        size_bytes = packed.size if packed else path.stat().st_size
    except (UnreadablePicture, OSError) as error:
        return Examined(0, diagnose(path, str(error))), bytes(_SMALL_BYTES)
    square = Image.fromarray(picture).resize(
        (LUMA, LUMA), Image.Resampling.BILINEAR, reducing_gap=3.0
    )
    separate = square.convert("YCbCr")
    luma = np.asarray(separate)[..., 0]
    chroma = np.asarray(separate.resize((CHROMA, CHROMA), Image.Resampling.BOX))[..., 1:]
    pixels = np.asarray(square)
    spread = pixels.max((0, 1)).astype(int) - pixels.min((0, 1))
    known = Examined(
        size_bytes=size_bytes,
        header=header,
        fingerprint=fingerprint(picture),
        contrast=float(spread.max()),
        border=_border(pixels),
    )
    return known, luma.tobytes() + chroma.tobytes()


def _border(pixels: np.ndarray) -> tuple[float, ...]:
    wide = _BORDER
    edges = (pixels[:wide], pixels[-wide:], pixels[:, :wide], pixels[:, -wide:])
    means = np.concatenate([edge.mean((0, 1)) for edge in edges])
    deviation = np.concatenate([edge.reshape(-1, 3) for edge in edges]).std(0).mean()
    return (*map(float, means), float(deviation))
