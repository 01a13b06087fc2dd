"""Listing the pictures of a folder or a table, before any of them is decoded.

A folder has one sub-folder a class, directly or below `train`, `valid` and `test`. A table is read
by `table`. Both become the same list of `Sample`; where labels are not needed, any folder of
pictures does. Nothing is ever written beside the pictures.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.core.config import did_you_mean
from vitreous.data.decode import EXTENSIONS
from vitreous.data.table import SPLIT_WORDS, Sample, table_samples
from vitreous.errors import DataError


@dataclass(frozen=True)
class Listing:
    """All pictures found, in a fixed order, and the files that were passed over.

    Args:
        samples: the pictures.
        classes: names in sorted order; an index into it is the model's output index.
        ignored: files passed over: without a picture's extension, or outside all class folders.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    ignored: tuple[Path, ...] = ()


def list_labelled(source: Path) -> Listing:
    """List a folder of classes or a table.

    Raises:
        DataError: for a missing source, no classes, an empty class, or a bad table.
    """
    with _access_errors():
        return _list_folder(source) if source.is_dir() else _list_table(source)


def list_unlabelled(source: Path) -> Listing:
    """List a folder of pictures or a table for learning without labels.

    All pictures are taken, however they are sorted into folders, except where the folder or table
    names splits: then those of train alone, and none of them has a split any more.

    Raises:
        DataError: for a missing source, no pictures, splits without train, or a bad table.
    """
    with _access_errors():
        if source.is_dir():
            return _list_any_folder(source)
        samples = table_samples(source, labelled=False)
    kept = [replace(sample, split=None) for sample in samples if sample.split in (None, "train")]
    if not kept:
        raise DataError(f"{source} has no training pictures, only some held back")
    return Listing(tuple(kept), ())


def list_pictures(sources: Iterable[Path]) -> list[Path]:
    """The files to predict: each named file as it stands, each folder's pictures sorted.

    Raises:
        DataError: for a source that doesn't exist, or a folder without pictures.
    """
    files: list[Path] = []
    for source in sources:
        with _access_errors():
            if source.is_dir():
                found = [path for path in _walk(source) if _is_picture(path)]
                if not found:
                    raise DataError(f"no pictures in {source} ({_extension_words()})")
                files += found
            elif source.exists() or source.is_symlink():
                files.append(source)
            else:
                raise DataError(f"no file or folder at {source}")
    return files


@contextmanager
def _access_errors() -> Iterator[None]:
    """A folder or table that may not be opened is named, instead of passed over or traced."""
    try:
        yield
    except OSError as error:
        raise DataError(f"can't read {error.filename}: {error.strerror or error}") from None


def _list_folder(root: Path) -> Listing:
    subfolders = _visible_folders(root)
    if not subfolders:
        raise DataError(
            f"{root} has no sub-folders: put each class' pictures into a folder with its name"
        )
    return _collect(_split_folders(root) or [(root, None)], root)


def _list_any_folder(root: Path) -> Listing:
    parts = _split_folders(root)
    folders = [folder for folder, split in parts if split == "train"] if parts else [root]
    if not folders:
        raise DataError(f"{root} has {', '.join(f.name for f, _ in parts)} but no 'train' folder")
    files = [path for folder in folders for path in _walk(folder)]
    samples = tuple(Sample(path) for path in files if _is_picture(path))
    if not samples:
        raise DataError(f"no pictures in {', '.join(map(str, folders))} ({_extension_words()})")
    return Listing(samples, (), tuple(path for path in files if not _is_picture(path)))


def _split_folders(root: Path) -> list[tuple[Path, str | None]]:
    """The sub-folders that are splits with what they mean; none where sub-folders are classes."""
    subfolders = _visible_folders(root)
    splits = {folder: SPLIT_WORDS.get(folder.name.lower()) for folder in subfolders}
    named = [folder for folder in subfolders if splits[folder]]
    others = [folder.name for folder in subfolders if not splits[folder]]
    # "train" may be a class: pictures of trains, beside planes. Then no folder is a split.
    if not named or (others and not any(_visible_folders(folder) for folder in named)):
        return []
    if others:
        raise DataError(
            f"{root} has the split folders {', '.join(f.name for f in named)} and beside them "
            f"{', '.join(others)}: move those into a split or out of the folder"
        )
    if "train" not in splits.values() and len(named) > 1:
        raise DataError(f"{root} has {', '.join(f.name for f in named)} but no 'train' folder")
    return [(folder, splits[folder]) for folder in named]


def _collect(parts: list[tuple[Path, str | None]], root: Path) -> Listing:
    samples: list[Sample] = []
    ignored: list[Path] = []
    names: dict[str | None, set[str]] = {}
    for place in dict.fromkeys((root, *(folder for folder, _ in parts))):
        ignored += _loose_files(place)
    for folder, split in parts:
        class_folders = _visible_folders(folder)
        if not class_folders:
            raise DataError(
                f"{folder} has no sub-folders: put each class' pictures into a folder with its name"
            )
        for class_folder in class_folders:
            found = 0
            for path in _walk(class_folder):
                if _is_picture(path):
                    samples.append(Sample(path, class_folder.name, split))
                    found += 1
                else:
                    ignored.append(path)
            names.setdefault(split, set()).add(class_folder.name)
            if not found:
                raise DataError(
                    f"class '{class_folder.name}' is empty: {class_folder} has no pictures "
                    f"({_extension_words()})"
                )
    classes = names.get("train") or set().union(*names.values())
    for split, labels in names.items():
        _check_known(labels, classes, f"the {split} folder of {root}" if split else str(root))
    return _listing(samples, classes, ignored)


def _list_table(path: Path) -> Listing:
    samples = table_samples(path, labelled=True)
    train = {s.label for s in samples if s.split in ("train", None) and s.label}
    classes = train or {s.label for s in samples if s.label}
    _check_known({s.label for s in samples if s.label}, classes, str(path))
    return _listing(samples, classes, [])


def _check_known(labels: set[str], classes: set[str], where: str) -> None:
    for label in sorted(labels - classes):
        raise DataError(
            f"class '{label}' in {where} has no training pictures: {did_you_mean(label, classes)}"
        )


def _listing(samples: list[Sample], classes: set[str], ignored: list[Path]) -> Listing:
    for name in sorted(classes):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"class {name!r} has a name that isn't UTF-8: rename it") from None
    return Listing(tuple(samples), tuple(sorted(classes)), tuple(ignored))


def _visible_folders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.is_dir())
    return sorted(child for child in children if not child.name.startswith("."))


def _loose_files(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if not child.is_dir())
    return sorted(child for child in children if not child.name.startswith("."))


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder, sorted; links are followed, but never round a loop."""

    def refuse(error: OSError) -> None:
        raise error

    # A link back to a folder above this one would lead into the other classes.
    above = (*folder.absolute().parents, *folder.resolve().parents)
    seen = {_identity(parent) for parent in above}
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        identity = _identity(Path(here))
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _extension_words() -> str:
    return "looked for " + " ".join(sorted(EXTENSIONS))
