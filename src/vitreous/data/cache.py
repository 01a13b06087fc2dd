"""Every picture decoded once, as bytes of the model's size, in one memory-mapped array.

An entry is named after what it holds: the contents of all files, their order, and how they were
resized. A file that changes gives another name, so an entry is never stale, and a moved folder
still finds its own. Entries are written beside their place and renamed into it, under a lock that
the operating system frees when its process dies; the least recently used ones go when the cache
would outgrow its limit. Deleting the cache folder loses nothing but time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path

from vitreous.data.decode import read_picture
from vitreous.data.preprocess import Preprocess, fit
from vitreous.errors import StorageError, UnreadablePicture

#: Part of every entry's name: raise it when decoding or fitting changes its result.
FORMAT_VERSION = 1

Progress = Callable[[str, int, int], None]
Result = TypeVar("Result")

_PIECE = 256


@dataclass(frozen=True)
class Pixels:
    """The decoded pictures of a list of files.

    Args:
        array: (files, image height, image width, 3) uint8, memory-mapped; rows of unreadable
            files are zero and never used.
        fingerprints: equal for files with equal pixels before resizing; "" where unreadable.
        sizes: height and width of each file in pixels; (0, 0) where unreadable.
        errors: why a file could not be decoded, by its position.
    """

    array: np.ndarray
    fingerprints: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    errors: dict[int, str]


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
        StorageError: where the entry doesn't fit the limit or the disk.
    """
    digests = list(_in_threads(_digest, paths, "reading", on_progress))
    geometry = (preprocess.image_size, preprocess.resize, preprocess.interpolation)
    name = _combine([f"{FORMAT_VERSION} {geometry}", *digests])
    entry = cache_dir / name
    size = len(paths) * preprocess.image_size[0] * preprocess.image_size[1] * 3
    if size > max_cache_bytes:
        raise StorageError(
            f"the decoded pictures take {size / 1e9:.1f} GB, more than the cache's limit of "
            f"{max_cache_bytes / 1e9:.1f} GB: raise data.max_cache_gb, or choose a smaller "
            "image size"
        )
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / f"{name}.lock"):
            if not (entry / "index.json").exists():
                _make_room(cache_dir, max_cache_bytes - size)
                _build(entry, paths, preprocess, on_progress)
            os.utime(entry)
            return _open(entry)
    except OSError as error:
        raise StorageError(
            f"can't write the picture cache in {cache_dir}: {error.strerror or error}; "
            "free some space or name another folder with --cache"
        ) from error


def _build(
    entry: Path, paths: Sequence[Path], preprocess: Preprocess, on_progress: Progress | None
) -> None:
    staging = Path(tempfile.mkdtemp(prefix=".making-", dir=entry.parent))
    try:
        shape = (len(paths), *preprocess.image_size, 3)
        array = np.lib.format.open_memmap(staging / "pixels.npy", "w+", np.uint8, shape)
        # A sparse file would fail at some later write, with a signal instead of an error.
        with (staging / "pixels.npy").open("r+b") as file:
            _reserve(file.fileno(), os.fstat(file.fileno()).st_size)
        fingerprints: list[str] = []
        sizes: list[tuple[int, int]] = []
        errors: dict[int, str] = {}
        for row, result in enumerate(decode_fitted(paths, preprocess, on_progress)):
            if isinstance(result, UnreadablePicture):
                errors[row] = str(result)
                fingerprints.append("")
                sizes.append((0, 0))
            else:
                array[row] = result.pixels
                fingerprints.append(result.fingerprint)
                sizes.append(result.size)
        array.flush()
        index = {"fingerprints": fingerprints, "sizes": sizes, "errors": errors}
        index["preprocess"] = asdict(preprocess)
        (staging / "index.json").write_text(json.dumps(index))
        staging.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open(entry: Path) -> Pixels:
    index = json.loads((entry / "index.json").read_text())
    return Pixels(
        array=np.load(entry / "pixels.npy", mmap_mode="r"),
        fingerprints=tuple(index["fingerprints"]),
        sizes=tuple((height, width) for height, width in index["sizes"]),
        errors={int(row): reason for row, reason in index["errors"].items()},
    )


@dataclass(frozen=True)
class Fitted:
    """One decoded file at the model's size.

    Args:
        pixels: (image height, image width, 3) uint8.
        fingerprint: equal for equal pixels before resizing.
        size: height and width before resizing, in pixels.
    """

    pixels: np.ndarray
    fingerprint: str
    size: tuple[int, int]


def decode_fitted(
    paths: Sequence[Path], preprocess: Preprocess, on_progress: Progress | None = None
) -> Iterator[Fitted | UnreadablePicture]:
    """Read files and fit them to the model's size, in order, by all cores.

    An unreadable file gives its error instead of a picture.
    """

    def decode(path: Path) -> Fitted | UnreadablePicture:
        try:
            picture = read_picture(path)
        except UnreadablePicture as error:
            return error
        height, width = picture.shape[:2]
        fingerprint = _combine([f"{height} {width}", picture.tobytes()])
        return Fitted(fit(picture, preprocess), fingerprint, (height, width))

    return _in_threads(decode, paths, "decoding", on_progress)


def _in_threads(
    work: Callable[[Path], Result],
    paths: Sequence[Path],
    description: str,
    on_progress: Progress | None,
) -> Iterator[Result]:
    """Results in order; Pillow, NumPy and hashing free the interpreter while they work."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # In pieces, so that a million pictures are not all waiting in memory at once.
        for start in range(0, len(paths), _PIECE):
            piece = paths[start : start + _PIECE]
            yield from pool.map(work, piece)
            if on_progress:
                on_progress(description, start + len(piece), len(paths))


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _hash).hexdigest()
    except OSError:
        return "unreadable"


def _combine(parts: Iterable[str | bytes]) -> str:
    digest = _hash()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.encode() + b"\n")
    return digest.hexdigest()


def _hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=16)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def _make_room(cache_dir: Path, allowed_bytes: int) -> None:
    """Remove the least recently used entries until the rest fits.

    A process that still reads a removed entry keeps its mapped pages.
    """
    entries = [index.parent for index in cache_dir.glob("*/index.json")]
    entries.sort(key=lambda entry: entry.stat().st_mtime)
    sizes = {entry: (entry / "pixels.npy").stat().st_size for entry in entries}
    total = sum(sizes.values())
    for entry in entries:
        if total <= allowed_bytes:
            break
        shutil.rmtree(entry, ignore_errors=True)
        total -= sizes[entry]
