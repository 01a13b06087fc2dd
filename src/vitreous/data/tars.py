"""What WebDataset finds in a tar, found without unpacking it.

WebDataset: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import starmap
from pathlib import PurePosixPath
from typing import BinaryIO

from vitreous.data.table import EXTENSIONS, SPLIT_WORDS, Entry, Row, is_visible
from vitreous.errors import DataError

#: Of a picture and of what a tar says of it: far more than any has that Pillow would decode.
_MAX_PICTURE_BYTES, _MAX_LABEL_BYTES = 2**30, 2**20
#: Files that say what a picture is.
_LABELS = (".cls", ".json")


def tar_rows(file: BinaryIO, where: str, split: str | None) -> Iterator[Row]:
    """The pictures of a tar, in their order, hidden files and those of systems left out.

    Files in a row that are named alike up to their first dot belong together; where those of a
    picture don't lie in a row, its labels would be missed, and it is refused.

    Args:
        file: the tar.
        where: it is, for messages.
        split: of its pictures, where it is known.

    Raises:
        DataError: for one that is damaged, cut off, or no tar of pictures.
    """
    group, entries, parted = _Group(""), dict[str, Entry](), _Parted(where)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # All headers ever seen, which nobody asks for.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                path = _inside(member.name)
                if not _is_own(path) or path.suffix.lower() not in (*EXTENSIONS, *_LABELS):
                    continue
                if member.issym() and path.suffix.lower() != ".json":
                    raise DataError(
                        f"{where}: {path} is a symbolic link: make the tar with --dereference"
                    )
                if not (member.isfile() or member.islnk()):
                    continue
                if member.issparse() or member.size > _limit(path):
                    raise DataError(
                        f"{where} is no tar of pictures: {path} says that it has "
                        f"{member.size:,} bytes"
                    )
                if (key := str(path.with_name(path.name.partition(".")[0]))) != group.key:
                    parted.check(group)
                    yield from group.rows(split)
                    group = _Group(key)
                entry = Entry(member.offset_data, member.size)
                if member.islnk():  # has the bytes of a file before it
                    entry = entries.get(str(_inside(member.linkname)))
                if entry is None:
                    raise DataError(f"{where}: {path} is a link to {member.linkname}, not there")
                entries[str(path)] = entry
                if path.suffix.lower() in EXTENSIONS:
                    group.pictures.append((str(path), entry))
                else:
                    file.seek(entry.offset)
                    said = file.read(min(entry.size, _MAX_LABEL_BYTES))
                    group.labels[_stem(path), path.suffix.lower()] = said
            _check_end(file, tar.offset, where)
        parted.check(group)
        yield from group.rows(split)
    except (tarfile.TarError, ValueError, RecursionError, KeyError) as error:
        raise DataError(f"{where} is damaged or no tar of pictures: {error}") from None


class _Group:
    """Files that are named alike up to their first dot."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.pictures: list[tuple[str, Entry]] = []
        self.labels: dict[tuple[str, str], bytes] = {}

    def rows(self, split: str | None) -> Iterator[Row]:
        """One picture with all labels, unless names with several dots say otherwise.

        Where a picture and a label share more than the key, or there is no label, all pictures are
        pictures of their own, each with the labels of its own name.
        """
        stems = {_stem(PurePosixPath(name)) for name, _ in self.pictures}
        if self.labels and not any(stem in stems - {self.key} for stem, _ in self.labels):
            told = {suffix: text for (_, suffix), text in self.labels.items()}
            for picture in self.pictures[:1]:
                yield _row(self.key, told, picture, split)
            return
        for picture in self.pictures:
            stem = _stem(PurePosixPath(picture[0]))
            own = {kind: self.labels.get((stem, kind)) for kind in _LABELS}
            told = {kind: text for kind, text in own.items() if text is not None}
            yield _row(stem, told, picture, split)


def _says_something(name: tuple[str, str], text: bytes) -> bool:
    """Whether a label file says what `_row` asks for; a .json may be about anything else."""
    try:
        said = {"label": text} if name[1] == ".cls" else json.loads(text)
    except (ValueError, RecursionError):  # told where it is a picture's own
        return True
    return isinstance(said, dict) and not said.keys().isdisjoint(("label", "split", "group"))


class _Parted:
    """Groups that have pictures alone, or labels alone: no two may be of one name."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._pictures, self._labels = set[str](), set[str]()

    def check(self, group: _Group) -> None:
        """Refuse a group whose other half has been passed."""
        says = any(starmap(_says_something, group.labels.items()))
        if bool(group.pictures) == says:
            return
        mine, other = self._pictures, self._labels
        if says:
            mine, other = other, mine
        if group.key in other:
            raise DataError(
                f"{self._where}: the files of {group.key} don't lie in a row, so that its labels "
                "would be missed: make it of the folder, tar --sort=name -cf FILE.tar FOLDER"
            )
        mine.add(group.key)


def _inside(name: str) -> PurePosixPath:
    """A member's name as a path inside the tar."""
    return PurePosixPath(name.removeprefix("./").lstrip("/"))


def _stem(path: PurePosixPath) -> str:
    return str(path.with_suffix(""))


def _is_own(path: PurePosixPath) -> bool:
    return bool(path.name) and ".." not in path.parts and all(map(is_visible, path.parts))


def _limit(path: PurePosixPath) -> int:
    """Bytes that a member of a tar may have, before any of them are read."""
    if path.suffix.lower() in EXTENSIONS:
        return _MAX_PICTURE_BYTES
    return _MAX_LABEL_BYTES


def _check_end(file: BinaryIO, offset: int, where: str) -> None:
    """Behind the last member a tar has blocks of zeros; Python takes anything for its end."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        what = "another file's header is damaged" if block else "it is cut off"
        raise DataError(f"{where} is damaged: at byte {offset:,} {what}; copy or make it anew")


def _row(key: str, told: Mapping[str, bytes], picture: tuple[str, Entry], split: str | None) -> Row:
    """A picture with its class: of its .json, else its .cls, else the folder it lies in.

    So with its split: of its .json, else the tar's, else a folder around it, that of its class
    left out.
    """
    said = json.loads(told.get(".json", b"{}"))
    said = said if isinstance(said, dict) else {}
    label = said.get("label")
    if label is None:
        label = told.get(".cls", b"").decode().strip() or None
    folders = [*PurePosixPath(key).parent.parts]
    around = folders[-2:]  # the one that it lies in may be of the class, or of the split
    if label is None and folders:
        around, label = folders[-2:-1], folders[-1]
    if split is None:
        splits = [SPLIT_WORDS[name.lower()] for name in around if name.lower() in SPLIT_WORDS]
        split = splits[-1] if splits else None
    group = said.get("group")
    return Row(
        *picture,
        None if label is None else str(label),
        SPLIT_WORDS.get(str(said.get("split", "")).lower(), split),
        None if group is None else str(group),
    )
