"""Models converted for other libraries, made once and kept in the user's cache folder.

An entry is a folder named after what it holds: the weights' bytes, the format, and the versions
that wrote it. A run trained anew gives another name, so an entry is never stale. It is made beside
its place and renamed into it, so it is whole or not there; one that can't be read is made anew.
Deleting the cache folder loses nothing but time, and of a checkpoint what `tune` chose and what
`calibrate` measured.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from vitreous.core.files import storage_errors
from vitreous.evaluation.calibration import CALIBRATION_FILE

Opened = TypeVar("Opened")

#: Part of every entry's name: raise it when a conversion changes what it writes.
FORMAT_VERSION = 1

#: Names of entries; staging folders and locks have others.
_NAME = re.compile("[0-9a-f]{32}")

#: Prefix of an entry that is being made; it is a leftover where its lock is free.
_STAGING = ".making-"

#: Entries used least recently are removed beyond this.
MAX_BYTES = 8 * 10**9


def default_models_dir() -> Path:
    """Where converted models are kept."""
    return user_cache_path("vitreous") / "models"


def open_converted(
    sources: Sequence[Path],
    kind: str,
    make: Callable[[Path], None],
    open_entry: Callable[[Path], Opened],
    on_make: Callable[[], None],
) -> Opened:
    """Open what weights were converted to, converting them first where that isn't done yet.

    Args:
        sources: the files that are converted; their names and contents name the entry.
        kind: format and versions, whatever makes two conversions of the same weights differ.
        make: writes into an empty folder.
        open_entry: reads such a folder; whatever it raises means that the entry is damaged.
        on_make: is called before a conversion.

    Raises:
        StorageError: where the entry can't be written.
    """
    cache_dir = default_models_dir()
    entry = cache_dir / _name(sources, kind)
    if entry.is_dir():
        try:
            opened = open_entry(entry)
        except Exception:  # each library has errors of its own for a file it can't read
            pass
        else:
            with suppress(OSError):  # a cache that can only be read is fine too
                os.utime(entry)
            return opened
    with storage_errors(entry):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f"{entry.name}.lock").acquire()
    with lock:
        # Another process may have made it meanwhile; whether it is whole shows when it's opened.
        try:
            return open_entry(entry)
        except Exception:
            on_make()
            _build(entry, make)
            _make_room(cache_dir, keep={entry, *(path.parent for path in sources)})
            return open_entry(entry)


def _name(sources: Sequence[Path], kind: str) -> str:
    whole = hashlib.sha256(f"{FORMAT_VERSION} {kind}".encode())
    for path in sources:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f" {path.name} {digest}".encode())
    return whole.hexdigest()[:32]


def _build(entry: Path, make: Callable[[Path], None]) -> None:
    """Make an entry whose lock is held."""
    staging = entry.with_name(_STAGING + entry.name)
    with storage_errors(entry):
        shutil.rmtree(staging, ignore_errors=True)  # of one who was killed
        staging.mkdir()
    try:
        make(staging)
        with storage_errors(entry):
            shutil.rmtree(entry, ignore_errors=True)
            staging.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _make_room(cache_dir: Path, keep: set[Path]) -> None:
    """Remove the entries used least recently; who has one open keeps its mapped pages.

    What was calibrated stays, because that took pictures and not only time; what a killed process
    left goes. Others may do the same at the same time, so whatever is gone already counts as
    nothing.
    """
    for staging in cache_dir.glob(f"{_STAGING}*"):
        lock = cache_dir / f"{staging.name.removeprefix(_STAGING)}.lock"
        with suppress(Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(staging, ignore_errors=True)
    entries = [path for path in cache_dir.iterdir() if _NAME.fullmatch(path.name)]
    entries.sort(key=_last_use, reverse=True)
    total = sum(_bytes_of(entry) for entry in entries if entry in keep)
    for entry in entries:
        if entry not in keep and not (entry / CALIBRATION_FILE).exists():
            total += _bytes_of(entry)
            if total > MAX_BYTES:
                shutil.rmtree(entry, ignore_errors=True)


def _last_use(entry: Path) -> float:
    with suppress(FileNotFoundError):
        return entry.stat().st_mtime
    return 0.0


def _bytes_of(folder: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0
