"""A folder of entries that can be made again: whole or not there, and bounded in size.

An entry is a folder of files with a name of 32 hexadecimal digits that says what it holds, so it is
never stale. It is made beside its place and renamed into it, under a lock that the operating system
frees when its process dies. Those used least recently go first; whatever else lies among them
stays.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

#: Names of entries; whatever else lies in the folder is not ours to remove.
_NAME = re.compile("[0-9a-f]{32}")
#: Prefix of an entry that is being made or removed; it is a leftover when its lock is free.
_PARTIAL = ".making-"


def lock_of(entry: Path, wait_s: float = -1) -> FileLock:
    """An entry's lock, or another by a name that no entry has; by default waited for."""
    return FileLock(entry.parent / f"{entry.name}.lock", timeout=wait_s)


@contextmanager
def making(entry: Path) -> Iterator[Path]:
    """An empty folder that takes the entry's place at the end of the block; its lock is held."""
    staging = _partial(entry)
    shutil.rmtree(staging, ignore_errors=True)  # of one who was killed
    staging.mkdir()
    try:
        yield staging
        shutil.rmtree(entry, ignore_errors=True)  # a damaged one, and half of it is no better
        staging.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def make_room(
    folder: Path, allowed_bytes: int, keep: Callable[[Path], bool] = lambda entry: False
) -> None:
    """Remove what was left half made, then the least recently used entries until the rest fits.

    A process that still reads a removed entry keeps its mapped pages. What others are making or
    opening stays, even where the limit is passed for a while.

    Args:
        folder: of the entries.
        allowed_bytes: for those that are not kept.
        keep: whether an entry stays in any case.
    """
    for partial in _partials(folder):
        with _if_free(folder / partial.name.removeprefix(_PARTIAL)) as free:
            if free:
                shutil.rmtree(partial, ignore_errors=True)
    entries = sorted((entry for entry in _entries(folder) if not keep(entry)), key=_last_use)
    total = sum(map(bytes_of, (*entries, *_partials(folder))))
    for entry in entries:
        if total <= allowed_bytes:
            break
        with _if_free(entry) as free:
            if free:
                total -= bytes_of(entry)
                remove(entry)


def remove(entry: Path) -> None:
    """Remove an entry whose lock is held, so that a kill in between leaves no half in its place."""
    partial = _partial(entry)
    shutil.rmtree(partial, ignore_errors=True)
    if entry.exists():
        entry.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)


def bytes_in(folder: Path) -> int:
    """What all entries take, with those that are being made."""
    return sum(map(bytes_of, (*_entries(folder), *_partials(folder))))


def bytes_of(entry: Path) -> int:
    """What an entry takes; nothing where it has just gone."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in entry.iterdir())
    return 0


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and _is_entry(path)]


def _is_entry(path: Path) -> bool:
    """Whether it is a folder of files; what others name alike often isn't."""
    with suppress(OSError):
        return path.is_dir() and all(inside.is_file() for inside in path.iterdir())
    return False


def _partials(folder: Path) -> list[Path]:
    """What is being made or removed, or was left half so."""
    partials = folder.glob(f"{_PARTIAL}*")
    return [path for path in partials if _NAME.fullmatch(path.name.removeprefix(_PARTIAL))]


def _partial(entry: Path) -> Path:
    return entry.with_name(_PARTIAL + entry.name)


def _last_use(entry: Path) -> float:
    with suppress(FileNotFoundError):
        return entry.stat().st_mtime
    return 0.0


@contextmanager
def _if_free(entry: Path) -> Iterator[bool]:
    """Hold an entry's lock if nobody does; says whether that succeeded."""
    lock = lock_of(entry, wait_s=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
