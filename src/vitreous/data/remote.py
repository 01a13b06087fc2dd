"""Files behind a url: named as paths, read whole, a few of them kept while they are needed.

A `Path` keeps one slash of two: "s3://bucket/shards" is the path "s3:/bucket/shards" here, and a
url again where something is read. Naming a url is what allows the network; nothing else does.
"""

import errno
import io
import os
import re
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO

from vitreous.errors import DataError, StorageError, VitreousError

SCHEMES = ("http", "https", "s3", "gs", "az")
_URL = re.compile(f"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL)
#: Endings of sources that are files.
_FILES = (".csv", ".parquet", ".pq", ".tar")
#: What some kinds of url take beside our extra.
_DRIVERS = {"gs": "gcsfs", "az": "adlfs"}
#: Bytes that a copy is made by, and how often a read that breaks off is tried, in seconds apart.
_CHUNK, _PAUSES_S = 1 << 22, (0.5, 2.0)
#: Files that are fetched at once.
_CONNECTIONS = 4


def source_path(source: str | PathLike[str]) -> Path:
    """A source as a path: absolute where it lies here, and of a url the path that stands for it."""
    path = Path(source)
    return path if is_remote(path) else path.absolute()


def name_of(source: Path) -> str:
    """A source's last part, of a table or tar without its ending; of `..` the folder's it means."""
    path = Path(os.path.abspath(source))  # noqa: PTH100  # a link has a name of its own
    return path.stem if path.suffix.lower() in _FILES else path.name


def is_remote(path: Path) -> bool:
    """Whether a path stands for a url."""
    return _URL.fullmatch(str(path)) is not None


def url_of(path: Path) -> str:
    """The url that a path stands for; any other path as it is written."""
    match = _URL.fullmatch(str(path))
    return f"{match[1]}://{match[2]}" if match else str(path)


def read_remote(path: Path) -> bytes:
    """A small file behind a url.

    Raises:
        FileNotFoundError: where there is none.
        DataError: where it can't be read.
    """
    return _patiently(path, lambda: _filesystem(path).cat_file(url_of(path)))


def read_part(path: Path, start: int, end: int) -> bytes:
    """Some bytes of a file behind a url.

    Raises:
        FileNotFoundError: where there is none.
        DataError: where it can't be read.
    """
    data = _patiently(path, lambda: _filesystem(path).cat_file(url_of(path), start=start, end=end))
    # A server that knows no parts sends everything.
    return data[start:end] if len(data) > end - start else data


def glob_remote(pattern: Path) -> list[Path]:
    """The files that a pattern with `*` stands for, sorted; not over http, which lists nothing.

    Raises:
        DataError: where the place can't be listed.
    """
    scheme = url_of(pattern).partition("://")[0]
    if scheme.startswith("http"):
        return []
    found = _patiently(pattern, lambda: _filesystem(pattern).glob(url_of(pattern)))
    return sorted(Path(f"{scheme}:/{name}") for name in found)


def _filesystem(path: Path) -> Any:
    scheme = url_of(path).partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        driver = _DRIVERS.get(scheme)
        raise DataError(
            f"reading {url_of(path)} takes more than is installed ({error}): "
            f"pip install 'vitreous[stream]'{f' {driver}' if driver else ''}"
        ) from None


def _patiently(path: Path, read: Callable[[], Any]) -> Any:
    """What a read gives, tried again where the network fails, as it does now and then."""
    for pause_s in (*_PAUSES_S, None):
        try:
            return read()
        except (FileNotFoundError, VitreousError):
            raise
        except Exception as error:  # each of fsspec's libraries has errors of its own
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise StorageError(
                    f"no room for a copy of {url_of(path)} in {tempfile.gettempdir()}: free some, "
                    "or name another folder in TMPDIR"
                ) from None
            if isinstance(error, PermissionError) or pause_s is None:
                raise DataError(f"can't read {url_of(path)}: {error}") from None
            time.sleep(pause_s)
    raise AssertionError


class _Copy(io.RawIOBase):
    """A remote file's bytes on this disk, to be read at one's own place by each who asks.

    The system frees them when nobody holds the file any more.
    """

    def __init__(self, file: Any, lock: threading.Lock) -> None:
        self._file, self._lock, self._at = file, lock, 0

    def another(self) -> "_Copy":
        """The same bytes, at their beginning."""
        return _Copy(self._file, self._lock)

    def readinto(self, buffer: Any, /) -> int:  # the rest of reading is made of this
        with self._lock:
            self._file.seek(self._at)
            count = self._file.readinto(buffer)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            with self._lock:
                offset += self._file.seek(0, io.SEEK_END)
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class Spool:
    """Remote files while they are needed: fetched whole and ahead, the oldest forgotten.

    The copies have no name on this disk, so that nothing is left of them, whatever happens.
    """

    def __init__(self) -> None:
        self._copies: OrderedDict[Path, Future[_Copy]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(_CONNECTIONS, "fetch")
        self.follow((), 1)

    def follow(self, files: Sequence[Path], ahead: int) -> None:
        """Say in which order files will be asked for.

        Args:
            files: in that order, each once.
            ahead: how many to fetch beyond the one that is asked for; twice as many are kept.
        """
        with self._lock:
            self._files, self._ahead = tuple(files), ahead
            self._places = {file: place for place, file in enumerate(self._files)}

    def expects(self, file: Path) -> bool:
        """Whether a file is among those that will be asked for, or is here already."""
        with self._lock:
            return file in self._places or file in self._copies

    def open(self, file: Path) -> BinaryIO:
        """A file at its beginning.

        Raises:
            DataError: where it can't be fetched.
            StorageError: where there is no room for it.
        """
        return io.BufferedReader(self._get(file).another())

    def _get(self, file: Path) -> _Copy:
        with self._lock:
            place = self._places.get(file)
            following = () if place is None else self._files[place + 1 : place + 1 + self._ahead]
            for wanted in (file, *following):
                known = self._copies.get(wanted)
                # What failed a while ago, when it was fetched ahead, is tried anew.
                if known is None or (known.done() and known.exception()):
                    self._copies[wanted] = self._pool.submit(_fetch, wanted)
                self._copies.move_to_end(wanted)
            # The one asked for goes last of all.
            self._copies.move_to_end(file)
            while len(self._copies) > 2 * (self._ahead + 1):
                self._copies.popitem(last=False)
            copy = self._copies[file]
        try:
            return copy.result()
        except BaseException:
            with self._lock:  # what failed once is tried anew when it is asked for again
                self._copies.pop(file, None)
            raise


def _fetch(path: Path) -> _Copy:
    def read() -> IO[bytes]:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as it is needed)
        with _filesystem(path).open(url_of(path), "rb", block_size=_CHUNK) as file:
            shutil.copyfileobj(file, copy, _CHUNK)
        copy.flush()
        return copy

    try:
        return _Copy(_patiently(path, read), threading.Lock())
    except FileNotFoundError:
        raise DataError(f"no file at {url_of(path)}") from None


#: The one of this process, as the system has one memory of files that were read.
SPOOL = Spool()
