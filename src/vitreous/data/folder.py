"""Listing the pictures of a folder or a table, before any of them is decoded.

A folder has one sub-folder a class, directly or below `train`, `valid` and `test`. A table is a
CSV or Parquet file with the columns `path` (or `image`), `label` and, where wanted, `split` and
`group`. Both become the same list of `Sample`. Nothing is ever written beside the pictures.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.core.config import did_you_mean
from vitreous.data.decode import EXTENSIONS
from vitreous.errors import DataError

SPLITS = ("train", "valid", "test")
_SPLIT_WORDS = {"val": "valid", "validation": "valid", "dev": "valid", "training": "train"} | {
    split: split for split in SPLITS
}


@dataclass(frozen=True)
class Sample:
    """One picture and what is known about it.

    Args:
        path: the file.
        label: its class' name; ``None`` where unknown.
        split: "train", "valid" or "test" where the folder or table says so.
        group: pictures of one group (one person, one scene) stay in one split.
    """

    path: Path
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """All pictures found, in a fixed order, and the files that were passed over.

    Args:
        samples: the pictures.
        classes: names in sorted order; an index into it is the model's output index.
        ignored: files that don't have a picture's extension.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    ignored: tuple[Path, ...] = ()


def list_labelled(source: Path) -> Listing:
    """List a folder of classes or a table.

    Raises:
        DataError: for a missing source, no classes, an empty class, or a bad table.
    """
    if source.is_dir():
        return _list_folder(source)
    if not source.exists():
        raise DataError(f"no folder or table at {source}")
    return _list_table(source)


def list_pictures(sources: Iterable[Path]) -> list[Path]:
    """The files to predict: each named file as it stands, each folder's pictures sorted.

    Raises:
        DataError: for a source that doesn't exist, or a folder without pictures.
    """
    files: list[Path] = []
    for source in sources:
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


def _list_folder(root: Path) -> Listing:
    subfolders = _visible_folders(root)
    if not subfolders:
        raise DataError(
            f"{root} has no sub-folders: put each class' pictures into a folder with its name"
        )
    splits = {folder: _SPLIT_WORDS.get(folder.name.lower()) for folder in subfolders}
    named = [folder for folder in subfolders if splits[folder]]
    if not named:
        return _collect([(root, None)], root)
    if _has_pictures_directly(named):
        # "train" may be a class: pictures of trains, beside planes. Then no folder is a split.
        return _collect([(root, None)], root)
    others = [folder.name for folder in subfolders if not splits[folder]]
    if others:
        raise DataError(
            f"{root} has the split folders {', '.join(f.name for f in named)} and beside them "
            f"{', '.join(others)}: move those into a split or out of the folder"
        )
    if "train" not in splits.values():
        if len(named) == 1:
            return _collect([(named[0], splits[named[0]])], root)
        raise DataError(f"{root} has {', '.join(f.name for f in named)} but no 'train' folder")
    return _collect([(folder, splits[folder]) for folder in named], root)


def _collect(parts: list[tuple[Path, str | None]], root: Path) -> Listing:
    samples: list[Sample] = []
    ignored: list[Path] = []
    names: dict[str | None, set[str]] = {}
    for folder, split in parts:
        for class_folder in _visible_folders(folder):
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
    return _checked(samples, classes, ignored, root)


def _list_table(path: Path) -> Listing:
    rows = list(_read_rows(path))
    if not rows:
        raise DataError(f"{path} has no rows")
    columns = [name for name in rows[0] if name]
    picture = next((name for name in ("path", "image") if name in columns), None)
    if picture is None or "label" not in columns:
        missing = "label" if picture else "path"
        raise DataError(
            f"{path} has no column '{missing}': it has {', '.join(columns) or 'none'}; "
            "needed are path (or image) and label, and split and group where wanted"
        )
    samples = []
    for number, row in enumerate(rows, start=2):
        samples.append(_table_sample(path, number, row, picture))
    train = {s.label for s in samples if s.split in ("train", None) and s.label}
    classes = train or {s.label for s in samples if s.label}
    _check_known({s.label for s in samples if s.label}, classes, str(path))
    return _checked(samples, classes, [], path)


def _table_sample(table: Path, number: int, row: dict[str, Any], picture: str) -> Sample:
    values = {key: "" if value is None else str(value).strip() for key, value in row.items()}
    if not values[picture] or not values["label"]:
        empty = picture if not values[picture] else "label"
        raise DataError(f"{table}, row {number}: '{empty}' is empty")
    split = values.get("split") or None
    if split:
        split = _SPLIT_WORDS.get(split.lower())
        if split is None:
            raise DataError(
                f"{table}, row {number}: split '{values['split']}' is unknown: "
                f"{did_you_mean(values['split'], _SPLIT_WORDS)}"
            )
    # Relative paths count from the table, so that a folder with its table can be moved.
    return Sample(
        table.parent / values[picture], values["label"], split, values.get("group") or None
    )


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise DataError(
                f"reading {path} needs pyarrow: pip install 'vitreous[parquet]'"
            ) from None
        try:
            yield from parquet.read_table(path).to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a Parquet table: {error}") from None
    elif path.suffix.lower() == ".csv":
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from csv.DictReader(file)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path} is not a CSV table in UTF-8: {error}") from None
    else:
        raise DataError(f"{path} is neither a folder nor a .csv or .parquet table")


def _check_known(labels: set[str], classes: set[str], where: str) -> None:
    for label in sorted(labels - classes):
        raise DataError(
            f"class '{label}' in {where} has no training pictures: {did_you_mean(label, classes)}"
        )


def _checked(
    samples: list[Sample], classes: set[str], ignored: list[Path], source: Path
) -> Listing:
    if not samples:
        raise DataError(f"no pictures in {source} ({_extension_words()})")
    return Listing(tuple(samples), tuple(sorted(classes)), tuple(ignored))


def _visible_folders(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.is_dir())
    return sorted(child for child in children if not child.name.startswith("."))


def _has_pictures_directly(folders: list[Path]) -> bool:
    return any(_is_picture(child) for folder in folders for child in folder.iterdir())


def _walk(folder: Path) -> Iterator[Path]:
    """All visible files below a folder, sorted; links are followed, loops of links once."""
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _extension_words() -> str:
    return "looked for " + " ".join(sorted(EXTENSIONS))
