"""Every picture decoded once, as bytes of the model's size, in one memory-mapped array.

An entry is named after what it holds: the contents of all files, their order, and how they were
resized. A file that changes gives another name, so an entry is never stale, and a moved folder
still finds its own (see `core.entries`). Deleting the cache folder loses nothing but time.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image
from platformdirs import user_cache_path

from vitreous.core.entries import bytes_in, lock_of, make_room, making, remove
from vitreous.core.machine import usable_cores
from vitreous.core.threads import SideBySide
from vitreous.data.decode import from_pillow, read_picture
from vitreous.data.loader import PixelRows
from vitreous.data.preprocess import Preprocess, fit
from vitreous.data.shards import entry_of, hasher, open_inside
from vitreous.errors import DataError, StorageError, UnreadablePicture

#: Part of every entry's name: raise it when decoding or fitting changes its result.
FORMAT_VERSION = 6

Progress = Callable[[str, int, int], None]
#: What becomes a picture: a file, its bytes, an upright RGB array, Pillow's image.
Raw = Path | bytes | np.ndarray | Image.Image
Item = TypeVar("Item")
Result = TypeVar("Result")

_PIECE = 256
#: Of a disk's free space, what pictures may take that could as well be streamed.
_SHARE_OF_DISK = 0.9
#: What an entry takes beside its pixels, at most or nearly: per picture, and once.
_INDEX_BYTES, _HEADER_BYTES = 64, 512


@dataclass(frozen=True)
class Pixels:
    """The decoded pictures of a list of files.

    Args:
        array: (files, image height, image width, 3) uint8, memory-mapped, or decoded when asked for
            (see `stream`); rows of unreadable files are zero and never used.
        fingerprints: equal for files with equal pixels before resizing; "" where unreadable.
        errors: why a file could not be decoded, by its position.
    """

    array: PixelRows
    fingerprints: tuple[str, ...]
    errors: dict[int, str]


@dataclass(frozen=True, slots=True)
class _FileState:
    """A file's contents and what would tell that they changed since."""

    digest: str
    stamp: tuple[int, int] | None
    is_readable: bool = True


def default_cache_dir() -> Path:
    """Where entries go unless a command says otherwise."""
    return user_cache_path("vitreous") / "pixels"


def cached_pixels(
    paths: Sequence[Path],
    preprocess: Preprocess,
    cache_dir: Path,
    max_cache_bytes: int,
    on_progress: Progress | None = None,
) -> Pixels:
    """Decode files, or find them decoded.

    Args:
        paths: the files, in the order wanted.
        preprocess: size and interpolation; mean and std don't matter here.
        cache_dir: the folder of all entries.
        max_cache_bytes: entries used least recently are removed to stay below it.
        on_progress: called with a description, the files done and their total.

    Raises:
        DataError: where a file changes while it is read.
        StorageError: where the entry doesn't fit the limit or the disk.
    """
    states = list(in_threads(_file_state, paths, "reading", on_progress))
    geometry = (preprocess.image_size, preprocess.resize, preprocess.interpolation)
    name = _combine([f"{FORMAT_VERSION} {geometry}", *(state.digest for state in states)])
    entry = cache_dir / name
    size = entry_bytes(len(paths), preprocess)
    if size > max_cache_bytes:
        raise StorageError(
            f"the decoded pictures take {size / 1e9:.1f} GB, more than the cache's limit of "
            f"{max_cache_bytes / 1e9:.1f} GB: raise data.max_cache_gb, choose a smaller image "
            "size, or pack the pictures, which can then be streamed (vitreous pack)"
        )
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with lock_of(entry):
            pixels = _open(entry)
            if pixels is None:
                _build(entry, paths, states, preprocess, max_cache_bytes, on_progress)
                pixels = _open(entry)
            if pixels is None:
                raise OSError("what was just written can't be read back")
            os.utime(entry)
            return pixels
    except (OSError, NotImplementedError) as error:  # the latter where files can't be locked
        raise _unusable(cache_dir, error) from error


def _unusable(cache_dir: Path, error: Exception) -> StorageError:
    return StorageError(
        f"can't write the picture cache in {cache_dir}: "
        f"{getattr(error, 'strerror', None) or error}; "
        "free some space or name another folder with --cache"
    )


def room_bytes(cache_dir: Path, max_cache_bytes: int) -> int:
    """What the cache may take: its limit, or as much as the disk still has beside its entries.

    Raises:
        StorageError: where there can be no such folder.
    """
    try:
        there = next(place for place in (cache_dir, *cache_dir.parents) if place.exists())
        room = bytes_in(there) + shutil.disk_usage(there).free
    except OSError as error:
        raise _unusable(cache_dir, error) from error
    return min(max_cache_bytes, int(_SHARE_OF_DISK * room))


def entry_bytes(count: int, preprocess: Preprocess) -> int:
    """What an entry of so many pictures takes, at most or nearly."""
    picture_bytes = preprocess.image_size[0] * preprocess.image_size[1] * 3
    return count * (picture_bytes + _INDEX_BYTES) + _HEADER_BYTES


def _build(
    entry: Path,
    paths: Sequence[Path],
    states: Sequence[_FileState],
    preprocess: Preprocess,
    max_cache_bytes: int,
    on_progress: Progress | None,
) -> None:
    """Write an entry whose lock is held, and move it into its place once it is whole."""
    size, shape = entry_bytes(len(paths), preprocess), (len(paths), *preprocess.image_size, 3)
    fingerprints: list[str] = []
    errors: dict[int, str] = {}
    with ExitStack() as stack:
        with lock_of(entry.parent / "room"):
            remove(entry)  # a damaged one doesn't count
            room = room_bytes(entry.parent, max_cache_bytes)
            if room < size:  # nothing need go for what the disk has no room for anyway
                room = max_cache_bytes
            make_room(entry.parent, room - size)
            staging = stack.enter_context(making(entry))
            # The disk is full now, before the work, or not at all.
            _reserve(staging / "pixels.npy", shape)
        with (staging / "pixels.npy").open("r+b") as file:
            _write_header(file, shape)
            results = decode_fitted(paths, preprocess, on_progress)
            for row, (result, state) in enumerate(zip(results, states, strict=True)):
                if _stamp(paths[row]) != state.stamp:
                    raise DataError(
                        f"{paths[row]} changed while it was read: start again when nothing "
                        "writes to it any more"
                    )
                if isinstance(result, UnreadablePicture):
                    if result.passing and state.is_readable:
                        # An entry is named after contents that it would be without for ever.
                        raise DataError(
                            f"{paths[row]} could be read a moment ago, and now it {result}: start "
                            "again when it can"
                        )
                    errors[row] = str(result)
                    result = Fitted(np.zeros(shape[1:], np.uint8), "")
                file.write(result.pixels.data)
                fingerprints.append(result.fingerprint)
            file.flush()
            os.fsync(file.fileno())
        whole = {"fingerprints": fingerprints, "errors": errors, "preprocess": asdict(preprocess)}
        (staging / "index.json").write_text(json.dumps(whole))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _reserve(path: Path, shape: tuple[int, ...]) -> None:
    with path.open("wb") as file:
        _write_header(file, shape)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, file.tell() + math.prod(shape))


def _open(entry: Path) -> Pixels | None:
    """An entry, or nothing where there is none or a damaged one (after a power cut, say)."""
    try:
        index = json.loads((entry / "index.json").read_text())
        return Pixels(
            array=np.load(entry / "pixels.npy", mmap_mode="r"),
            fingerprints=tuple(index["fingerprints"]),
            errors={int(row): reason for row, reason in index["errors"].items()},
        )
    except (OSError, ValueError, EOFError, LookupError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Fitted:
    """One decoded file at the model's size.

    Args:
        pixels: (image height, image width, 3) uint8.
        fingerprint: equal for equal pixels before resizing.
    """

    pixels: np.ndarray
    fingerprint: str


def decode_fitted(
    pictures: Sequence[Raw],
    preprocess: Preprocess,
    on_progress: Progress | None = None,
    fingerprints: bool = True,
    threads: int | None = None,
) -> Iterator[Fitted | UnreadablePicture]:
    """Read pictures and fit them to the model's size, in order, by all cores.

    An unreadable one gives its error instead. Without fingerprints they are "", which saves reading
    every pixel once more; without a number of threads each usable core has one.
    """

    def decode(raw: Raw) -> Fitted | UnreadablePicture:
        try:
            if isinstance(raw, np.ndarray):
                picture = raw
            elif isinstance(raw, Image.Image):
                picture = from_pillow(raw)
            else:
                picture = read_picture(raw, cover=preprocess.cover)
        except UnreadablePicture as error:
            return error
        return Fitted(fit(picture, preprocess), fingerprint(picture) if fingerprints else "")

    return in_threads(decode, pictures, "decoding", on_progress, threads)


def fingerprint(picture: np.ndarray) -> str:
    """Equal for pictures of equal size and pixels."""
    return _combine([str(picture.shape), np.ascontiguousarray(picture).data])


def in_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    on_progress: Progress | None,
    threads: int | None = None,
    piece_length: int = _PIECE,
) -> Iterator[Result]:
    """What work on each item gives, in order, by all cores.

    Pillow, PyTorch and hashing free the interpreter while they work. Of what comes out, a piece is
    in memory at once.
    """
    workers = SideBySide(max(1, min(threads or usable_cores(), len(items))))
    # In pieces, so that a million pictures are not all waiting in memory at once.
    for start in range(0, len(items), piece_length):
        piece = items[start : start + piece_length]
        # Handing a tiny picture to a thread takes as long as reading it, so each gets some at once.
        some = max(1, piece_length // (8 * workers.count))
        parts = [piece[at : at + some] for at in range(0, len(piece), some)]
        for results in workers.map(lambda part: list(map(work, part)), parts):
            yield from results
        if on_progress:
            on_progress(description, start + len(piece), len(items))


def _file_state(path: Path) -> _FileState:
    packed = entry_of(path)
    if packed and packed.digest:  # as it was when it was packed, which is looked at in reading
        return _FileState(packed.digest, _stamp(path))
    stamp = _stamp(path)
    try:
        if packed is None and not path.is_file():  # opening a pipe would wait forever
            return _FileState("not a file" if stamp else "missing", stamp, False)
        with open_inside(path) or path.open("rb") as file:
            return _FileState(hashlib.file_digest(file, hasher).hexdigest(), stamp)
    except (OSError, ValueError) as error:
        return _FileState(f"unreadable: {getattr(error, 'strerror', error)}", stamp, False)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # the latter for a name that no file can have
        packed = entry_of(path)
        return (packed.size, 0) if packed else None
    return status.st_size, status.st_mtime_ns


def _combine(parts: Iterable[str | memoryview]) -> str:
    digest = hasher()
    for part in parts:
        digest.update(part.encode() + b"\n" if isinstance(part, str) else part)
    return digest.hexdigest()
