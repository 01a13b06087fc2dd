"""Models converted for other libraries, made once and kept in the user's cache folder.

An entry is a folder named after what it holds: the weights' bytes, the format, and the versions
that wrote it. A run trained anew gives another name, so an entry is never stale. It is made beside
its place and renamed into it, so it is whole or not there; one that can't be read is made anew.
Deleting the cache folder loses nothing but time.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from platformdirs import user_cache_path

from vitreous.core.files import storage_errors

Opened = TypeVar("Opened")

#: Part of every entry's name: raise it when a conversion changes what it writes.
FORMAT_VERSION = 1

#: Entries used least recently are removed beyond this.
MAX_BYTES = 8 * 10**9


def default_models_dir() -> Path:
    """Where converted models are kept."""
    return user_cache_path("vitreous") / "models"


def open_converted(
    weights: Path,
    kind: str,
    make: Callable[[Path], None],
    open_entry: Callable[[Path], Opened],
    on_make: Callable[[], None],
) -> Opened:
    """Open what a weights file was converted to, converting it first where that isn't done yet.

    Args:
        weights: the file that is converted; its contents name the entry.
        kind: format and versions, whatever makes two conversions of the same weights differ.
        make: writes into an empty folder.
        open_entry: reads such a folder; whatever it raises means that the entry is damaged.
        on_make: is called before a conversion.

    Raises:
        StorageError: where the entry can't be written.
    """
    cache_dir = default_models_dir()
    entry = cache_dir / _name(weights, kind)
    with storage_errors(entry):
        cache_dir.mkdir(parents=True, exist_ok=True)
    if entry.is_dir():
        try:
            opened = open_entry(entry)
            os.utime(entry)
            return opened
        except Exception:  # each library has errors of its own for a file it can't read
            pass
    with FileLock(cache_dir / f"{entry.name}.lock"):
        # Another process may have made it meanwhile; whether it is whole shows when it's opened.
        try:
            return open_entry(entry)
        except Exception:
            on_make()
            _build(entry, make)
            _make_room(cache_dir, keep=entry)
            return open_entry(entry)


def _name(weights: Path, kind: str) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{digest} {FORMAT_VERSION} {kind}".encode()).hexdigest()[:32]


def _build(entry: Path, make: Callable[[Path], None]) -> None:
    with storage_errors(entry):
        staging = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        try:
            make(staging)
            shutil.rmtree(entry, ignore_errors=True)
            staging.rename(entry)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make_room(cache_dir: Path, keep: Path) -> None:
    """Remove the entries used least recently; who has one open keeps its mapped pages."""
    entries = [path for path in cache_dir.iterdir() if path.is_dir() and path != keep]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    total = _bytes_of(keep)
    for entry in entries:
        total += _bytes_of(entry)
        if total > MAX_BYTES:
            shutil.rmtree(entry, ignore_errors=True)


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
