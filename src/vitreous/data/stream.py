"""More pictures than there is room for once they are decoded: decoded when they are asked for.

What is trained on lies in shards (see `shards`), which are read one behind another, because one
from far away is fetched as a whole. An epoch has the shards in a random order, and so many pictures
behind one another as the shuffle buffer is long in a random order among themselves. Which order
that is depends on the seed, the epoch, the shards and the buffer's length alone, so a place in it
stays a number, and resuming is exact.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.data.cache import (
    Pixels,
    Progress,
    cached_pixels,
    decode_fitted,
    entry_bytes,
    room_bytes,
)
from vitreous.data.loader import PixelRows, Shuffle
from vitreous.data.preprocess import Preprocess
from vitreous.data.remote import SPOOL
from vitreous.data.shards import entry_of, shard_of
from vitreous.errors import DataError, UnreadablePicture


class StreamedPixels:
    """The pictures of a listing by their rows: some are in the cache, the others are decoded.

    Args:
        paths: of the pictures, in shards; kept as `paths`.
        preprocess: size and interpolation.
        buffer: pictures that are shuffled among one another.
    """

    def __init__(self, paths: Sequence[Path], preprocess: Preprocess, buffer: int) -> None:
        self.paths, self._preprocess, self._buffer = paths, preprocess, buffer
        self.shape = (len(paths), *preprocess.image_size, 3)
        numbers: dict[Path, int] = {}
        self._shards = np.array(
            [numbers.setdefault(shard_of(path) or path.parent, len(numbers)) for path in paths]
        )
        self._files = tuple(numbers)
        self._kept: PixelRows = np.zeros((0, *self.shape[1:]), np.uint8)
        self._places = np.full(len(paths), -1)

    @property
    def kept(self) -> tuple[PixelRows, np.ndarray]:
        """The pictures in the cache, and each row's place among them, -1 where it has none."""
        return self._kept, self._places

    def keep_these(self, kept: PixelRows, places: np.ndarray) -> None:
        """Take what another one keeps, in the form of `kept`."""
        self._kept, self._places = kept, places

    @property
    def num_kept(self) -> int:
        """How many pictures are in the cache."""
        return self._kept.shape[0]

    def keep(
        self,
        rows: Sequence[int] | np.ndarray,
        cache_dir: Path,
        max_cache_bytes: int,
        on_progress: Progress | None = None,
    ) -> None:
        """Decode the first of these rows into the cache, as many as have room there.

        Raises:
            StorageError: where the cache can't be written.
        """
        max_cache_bytes = room_bytes(cache_dir, max_cache_bytes)
        fixed = entry_bytes(0, self._preprocess)
        room = (max_cache_bytes - fixed) // (entry_bytes(1, self._preprocess) - fixed)
        # In sixteenths, so that the next time, with a little less room, the same are kept.
        step = -(-len(rows) // 16)
        chosen = np.asarray(rows)[: max(0, room if room >= len(rows) else room // step * step)]
        if len(chosen):
            paths = [self.paths[row] for row in chosen]
            pixels = cached_pixels(paths, self._preprocess, cache_dir, max_cache_bytes, on_progress)
            _refuse(paths, pixels.errors)
            self._kept = pixels.array
            self._places[chosen] = np.arange(len(chosen))

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """One picture of an index, several of an array of them; uint8.

        Raises:
            DataError: where one can't be read any more.
        """
        if np.ndim(rows) == 0:
            return self[np.array([rows])][0]
        places = self._places[rows]
        pictures = np.empty((len(places), *self.shape[1:]), np.uint8)
        is_kept = places >= 0
        pictures[is_kept] = self._kept[places[is_kept]]
        others = np.flatnonzero(~is_kept)
        paths = [self.paths[row] for row in np.asarray(rows)[others]]
        results = decode_fitted(paths, self._preprocess, fingerprints=False)
        for at, path, result in zip(others, paths, results, strict=True):
            if isinstance(result, UnreadablePicture):
                _refuse([path], {0: str(result)})
            else:
                pictures[at] = result.pixels
        return pictures

    def shuffle_of(self, rows: np.ndarray) -> Shuffle:
        """What draws the order of an epoch over some of the rows."""
        shards, counts = np.unique(self._shards[rows], return_counts=True)

        def shuffle(stream: np.random.Generator) -> np.ndarray:
            sequence, order = shuffled(self._shards[rows], self._buffer, stream)
            is_read = np.isin(sequence, self._shards[rows][self._places[rows] < 0])
            ahead = -(-self._buffer // max(1, int(counts.mean()))) + 1
            SPOOL.follow([self._files[shard] for shard in sequence[is_read]], ahead)
            return order

        return shuffle if len(shards) else lambda stream: stream.permutation(len(rows))


def shuffled(
    shards: np.ndarray, buffer: int, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random order that stays in a few shards at a time.

    Args:
        shards: number of the shard of each picture.
        buffer: pictures that are shuffled among one another.
        stream: of the draws.

    Returns:
        The shards in their order, and the positions of the pictures in theirs.
    """
    names, numbers = np.unique(shards, return_inverse=True)
    sequence = stream.permutation(len(names))
    order = np.argsort(np.argsort(sequence)[numbers], kind="stable")
    for start in range(0, len(order), buffer):
        stream.shuffle(order[start : start + buffer])
    return names[sequence], order


def streamed_pixels(
    paths: Sequence[Path],
    preprocess: Preprocess,
    buffer: int,
    on_progress: Progress | None = None,
) -> Pixels:
    """Pictures that are decoded when they are asked for.

    What `vitreous pack` wrote down of them is enough to divide them. Others are decoded once for
    that, and forgotten.

    Args:
        paths: of the pictures, in shards.
        preprocess: size and interpolation.
        buffer: pictures that are shuffled among one another.
        on_progress: called with a description, the files done and their total.
    """
    fingerprints = [entry.fingerprint if (entry := entry_of(path)) else "" for path in paths]
    errors: dict[int, str] = {}
    if not all(fingerprints):
        for row, result in enumerate(decode_fitted(paths, preprocess, on_progress)):
            if isinstance(result, UnreadablePicture):
                errors[row] = str(result)
            else:
                fingerprints[row] = result.fingerprint
    return Pixels(StreamedPixels(paths, preprocess, buffer), tuple(fingerprints), errors)


def _refuse(paths: Sequence[Path], errors: dict[int, str]) -> None:
    for row, reason in errors.items():
        raise DataError(
            f"{paths[row]}: {reason}; it could be read before: put it back, or pack it anew"
        )
