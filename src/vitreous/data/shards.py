"""Pictures that lie many in a file: WebDataset's tar shards, and Parquet shards of our own.

A picture in a shard has a path like any other, which leads into the shard:
``shards/train-000000.tar/000000012.jpg``. `open_inside` reads it. Beside each shard that `vitreous
pack` wrote lies a table that says where every picture's bytes are, so that nothing is read in
vain; other tars are read through once. Shards may lie behind a url (see `remote`).

WebDataset: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import csv
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from vitreous.data.remote import SPOOL, glob_remote, is_remote, read_part, read_remote, url_of
from vitreous.data.table import EXTENSIONS, NO_VOTES, SPLIT_WORDS, VOTES, Entry, Row
from vitreous.data.tars import tar_rows
from vitreous.errors import DataError

SUFFIXES = frozenset((".tar", ".parquet"))
INDEX = "index.json"
FORMAT = "vitreous shards 1"
#: Columns of a shard's table, in front of those of votes.
COLUMNS = ("path", "label", "split", "group", "offset", "bytes", "height", "width", "digest",
           "fingerprint")  # fmt: skip
#: Shards whose tables are kept in memory.
_KEPT = 256
_LEADS_INSIDE = re.compile(rf"\.(tar|parquet){re.escape(os.sep)}")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def hasher() -> "hashlib.blake2b":
    """What digests of files' contents are made by."""
    return hashlib.blake2b(digest_size=16)


def find_shards(source: Path) -> tuple[Path, ...]:
    """The shards that a source names; none where it isn't about shards.

    Args:
        source: a folder of shards, one tar, or a pattern such as ``train-{000000..000011}.tar`` or
            ``train-*.tar``; or a url of these.

    Raises:
        DataError: for a damaged index, a url without one, or a pattern that nothing matches.
    """
    is_pattern = bool(re.search(r"[*{]", source.name)) and not source.exists()
    if is_pattern:
        return _expanded(source)
    if source.suffix == ".tar" and (is_remote(source) or source.is_file()):
        return (source,)
    if not is_remote(source) and not source.is_dir():
        return ()
    try:
        index = read_index(source)
    except FileNotFoundError:
        if is_remote(source):
            raise DataError(
                f"no {INDEX} at {url_of(source)}: name a folder that 'vitreous pack' wrote, or "
                "all shards by a pattern such as train-{000000..000011}.tar"
            ) from None
        return tuple(shard for shard in _shards_alone(source) if shard.suffix == ".tar")
    shards = tuple(source / shard["name"] for shard in index["shards"])
    for shard, told in zip(shards, index["shards"], strict=True):
        if not is_remote(source) and not shard.exists():
            raise DataError(f"{shard} is missing: copy it too, or pack anew")
        if not is_remote(source) and _size(shard) != told["bytes"]:
            raise DataError(
                f"{shard} has {_size(shard)} bytes, not the {told['bytes']} that were packed: copy "
                "or pack it anew"
            )
    return shards


def read_index(folder: Path) -> dict[str, Any]:
    """What `vitreous pack` says of a folder of shards.

    Raises:
        FileNotFoundError: where it didn't write this folder.
        DataError: where the index is damaged.
    """
    path = folder / INDEX
    data = _read_small(path)
    try:
        if not is_remote(folder) and _is_of_others(folder, data):
            raise FileNotFoundError(f"{path} is somebody else's file")
        index = json.loads(data)
        if index["format"] != FORMAT:
            raise DataError(f"{url_of(path)} has the format {index['format']}, not {FORMAT}")
        for shard in index["shards"]:
            if PurePosixPath(shard["name"]).name != shard["name"]:
                raise DataError(f"{url_of(path)} names a shard outside its folder: {shard['name']}")
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{url_of(path)} is no index of shards: {error!r}") from None
    return index


def _is_of_others(folder: Path, index: bytes) -> bool:
    """Whether a file with the index' name is another one; damaged ones among shards are ours."""
    try:
        told = json.loads(index)
    except ValueError:
        return not _shards_alone(folder)
    form = told.get("format") if isinstance(told, dict) else None
    return not str(form).startswith(FORMAT.rpartition(" ")[0])


def rows_of(shard: Path) -> Iterator[Row]:
    """The pictures of a shard, in their order.

    Raises:
        DataError: where the shard, or its table, is missing or damaged.
    """
    table = shard.with_suffix(".csv")
    try:
        data = _read_small(table)
    except FileNotFoundError:
        data = b""
    if not data.startswith(",".join(COLUMNS).encode()):
        data = b""  # somebody else's file, in whatever encoding
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise DataError(f"{url_of(table)} is not a table in UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(rows, [])
    except csv.Error:
        columns = []
    if tuple(columns[: len(COLUMNS)]) == COLUMNS:
        yield from _table_rows(table, columns, rows)
    elif shard.suffix == ".tar":
        yield from _rows_of_tar(shard)
    else:
        raise DataError(
            f"{url_of(shard)} has no table beside it: of Parquet, shards that 'vitreous pack' "
            "wrote can be read"
        )


def shard_of(path: Path) -> Path | None:
    """The shard that a path leads into; ``None`` where it leads into none."""
    inside = _inside(path)
    return inside[0] if inside else None


def entry_of(path: Path) -> Entry | None:
    """Where a picture lies in a shard; ``None`` where the path leads into none, or to nothing."""
    inside = _inside(path)
    return _contents(inside[0]).get(inside[1]) if inside else None


def open_inside(path: Path) -> io.BytesIO | None:
    """A picture in a shard, as a file; ``None`` where the path leads into none, or to nothing.

    Raises:
        DataError: where the shard is not what its table says.
    """
    inside = _inside(path)
    entry = _contents(inside[0]).get(inside[1]) if inside else None
    if inside is None or entry is None:
        return None
    shard = inside[0]
    if is_remote(shard) and not SPOOL.expects(shard):
        data = read_part(shard, entry.offset, entry.offset + entry.size)
    else:
        with _open_shard(shard) as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
    digest = hasher()
    digest.update(data)
    if len(data) < entry.size or entry.digest not in ("", digest.hexdigest()):
        raise DataError(
            f"{url_of(shard)} is damaged or was changed: {path.name} is not what was packed; copy "
            "or pack the shard anew"
        )
    return io.BytesIO(data)


def _open_shard(shard: Path) -> BinaryIO:
    return SPOOL.open(shard) if is_remote(shard) else shard.open("rb")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _read_small(path: Path) -> bytes:
    return read_remote(path) if is_remote(path) else path.read_bytes()


def _inside(path: Path) -> tuple[Path, str] | None:
    """The shard that a path leads into, and the picture's name there.

    By its text, because this is asked of every file, and of each picture again and again.
    """
    text = str(path)
    for match in _LEADS_INSIDE.finditer(text):
        shard = Path(text[: match.end() - 1])
        if is_remote(shard) or shard.is_file():
            return shard, text[match.end() :].replace(os.sep, "/")
    return None


_contents_lock = threading.Lock()


def _contents(shard: Path) -> dict[str, Entry]:
    with _contents_lock:  # so that a table is read once, not by each thread
        # A path may be another file by now: packed anew, or seen from another working folder.
        known = None if is_remote(shard) else shard.stat()
        stamp = known and (known.st_dev, known.st_ino, known.st_mtime_ns, known.st_size)
        return _read_contents(shard, stamp)


@lru_cache(_KEPT)
def _read_contents(shard: Path, stamp: tuple[int, ...] | None) -> dict[str, Entry]:
    return {row.name: row.entry for row in rows_of(shard)}


def _expanded(pattern: Path) -> tuple[Path, ...]:
    names = [str(pattern)]
    while any(_RANGE.search(name) for name in names):
        names = [one for name in names for one in _counted(name)]
    found: list[Path] = []
    for name in names:
        if "*" not in name:
            found.append(Path(name))
        elif is_remote(pattern):
            found += glob_remote(Path(name))
        else:
            found += sorted(Path(name).parent.glob(Path(name).name))
    shards = tuple(path for path in found if path.suffix in SUFFIXES)
    if not shards and pattern.suffix in SUFFIXES:
        raise DataError(f"no shards (.tar or .parquet) at {url_of(pattern)}")
    if not shards:
        raise DataError(
            f"nothing is called {url_of(pattern)}: name a folder, a picture, or shards by a "
            "pattern such as train-*.tar"
        )
    return shards


def _counted(name: str) -> Iterable[str]:
    match = _RANGE.search(name)
    if match is None:
        return [name]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    return [f"{name[: match.start()]}{n:0{len(first)}}{name[match.end() :]}" for n in numbers]


def _shards_alone(folder: Path) -> tuple[Path, ...]:
    """The shards of a folder that has nothing else to learn from."""
    children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    if any(child.is_dir() or child.suffix.lower() in EXTENSIONS for child in children):
        return ()
    return tuple(sorted(child for child in children if child.suffix in SUFFIXES))


def _table_rows(table: Path, columns: list[str], rows: Iterator[list[str]]) -> Iterator[Row]:
    voted = [name.removeprefix(VOTES) for name in columns[len(COLUMNS) :]]
    try:
        for row in rows:
            path, label, split, group, *place = row[: len(COLUMNS)]
            offset, size, height, width = map(int, place[:4])
            entry = Entry(offset, size, height, width, *place[4:])
            votes = map(float, row[len(COLUMNS) :])
            name = path.partition("/")[2]
            if (inside := PurePosixPath(name)).is_absolute() or ".." in inside.parts:
                raise ValueError(f"{name} would lie outside the shard")
            yield Row(
                name,
                entry,
                label or None,
                split or None,
                group or None,
                dict(zip(voted, votes, strict=True)) if voted else NO_VOTES,
            )
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{url_of(table)} is damaged: {error}") from None


def _rows_of_tar(shard: Path) -> Iterator[Row]:
    try:
        with _open_shard(shard) as file:
            yield from tar_rows(file, url_of(shard), _split_of(shard))
    except FileNotFoundError:
        raise DataError(f"no file at {url_of(shard)}") from None


def _split_of(shard: Path) -> str | None:
    word = re.match("[a-z]*", shard.name.lower())
    return SPLIT_WORDS.get(word[0]) if word else None
