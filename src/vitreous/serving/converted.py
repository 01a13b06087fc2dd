"""Models converted for other libraries, made once and kept in the user's cache folder.

An entry is a folder named after what it holds: the weights' bytes, the format, and the versions
that wrote it (see `core.entries`). A run trained anew gives another name; an entry that can't be
read is made anew. Deleting the cache folder loses nothing but time, and of a checkpoint what `tune`
chose and what `calibrate` measured.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_path

from vitreous.core.entries import bytes_of, lock_of, make_room, making
from vitreous.core.files import storage_errors
from vitreous.evaluation.calibration import CALIBRATION_FILE

Opened = TypeVar("Opened")

#: Part of every entry's name: raise it when a conversion changes what it writes.
FORMAT_VERSION = 1

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
        lock = lock_of(entry).acquire()
    with lock:
        # Another process may have made it meanwhile; whether it is whole shows when it's opened.
        try:
            return open_entry(entry)
        except Exception:
            on_make()
            with ExitStack() as stack:
                with storage_errors(entry):
                    staging = stack.enter_context(making(entry))
                make(staging)
            with suppress(OSError):  # what belongs to others is in nobody's way
                _make_room(entry, sources)
            return open_entry(entry)


def _name(sources: Sequence[Path], kind: str) -> str:
    whole = hashlib.sha256(f"{FORMAT_VERSION} {kind}".encode())
    for path in sources:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f" {path.name} {digest}".encode())
    return whole.hexdigest()[:32]


def _make_room(entry: Path, sources: Sequence[Path]) -> None:
    """Bound the cache behind a new entry; what was calibrated took pictures, not only time."""
    needed = {entry, *(path.parent for path in sources)}

    def keep(other: Path) -> bool:
        return other in needed or (other / CALIBRATION_FILE).exists()

    with lock_of(entry.parent / "room"):
        make_room(entry.parent, MAX_BYTES - bytes_of(entry), keep)
