"""Tables of pictures: CSV or Parquet, a row each.

The columns are `path` (or `image`), `label` and, where wanted, `split`, `group` and, for each
class, `votes_<class>`: how many of several annotators chose it. `folder` is who asks.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from vitreous.core.config import did_you_mean
from vitreous.errors import DataError, first_line

#: Formats that are read, in Pillow's words, and how their files' names end.
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
#: What files of pictures are called.
EXTENSIONS = frozenset(ending for endings in ENDINGS.values() for ending in endings)
#: Formats that telephones and cameras write too, and that nothing here reads.
UNREAD_EXTENSIONS = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2")
)
#: Folders that systems, storage and archives put among a person's own, in lower case.
_SYSTEM = frozenset(
    ("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
#: What the columns of votes begin with; the class' name follows.
VOTES = "votes_"
SPLITS = ("train", "valid", "calibration", "test")
SPLIT_WORDS = {split: split for split in SPLITS} | {
    "training": "train",
    "val": "valid",
    "validation": "valid",
    "validate": "valid",
    "dev": "valid",
    "testing": "test",
}


#: The votes of all pictures that nobody voted on.
NO_VOTES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what is known about it.

    Args:
        path: the file.
        label: its class' name; ``None`` where unknown.
        split: one of `SPLITS` where the folder or table says so.
        group: pictures of one group (one person, one scene) stay in one split.
        votes: how many annotators chose each class, where the table says so.
    """

    path: Path
    label: str | None = None
    split: str | None = None
    group: str | None = None
    votes: Mapping[str, float] = field(default_factory=lambda: NO_VOTES)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a picture's bytes are in its shard, and what is known without reading them.

    Args:
        offset: of its first byte.
        size: in bytes.
        height: in pixels; 0 where unknown, and so is the width.
        width: likewise.
        digest: of its bytes, as `hasher` makes it; "" where unknown.
        fingerprint: equal for equal pixels; "" where unknown.
    """

    offset: int
    size: int
    height: int = 0
    width: int = 0
    digest: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a shard.

    Args:
        name: inside the shard.
        entry: where it is.
        label: its class; ``None`` where the shard doesn't say.
        split: one of `SPLITS`, likewise.
        group: likewise.
        votes: how many annotators chose each class.
    """

    name: str
    entry: Entry
    label: str | None = None
    split: str | None = None
    group: str | None = None
    votes: Mapping[str, float] = field(default_factory=lambda: NO_VOTES)


def table_samples(path: Path, labelled: bool) -> list[Sample]:
    """The rows of a table, in their order.

    Args:
        path: a .csv or .parquet file.
        labelled: whether there has to be a label in every row.

    Raises:
        DataError: for a missing or damaged table, missing columns or values, unknown splits.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"no folder or table at {path}")
    if suffix not in (".csv", ".parquet", ".pq"):
        raise DataError(f"{path} is neither a folder nor a .csv or .parquet table")
    rows = (_csv_rows if suffix == ".csv" else _parquet_rows)(path, labelled)
    faults: dict[str, str] = {}
    samples = [_table_sample(path, place, row, faults) for place, row in rows]
    if not samples:
        raise DataError(f"{path} has no rows")
    # Another column may begin like this: who voted, say.
    if wrong := sorted(faults.keys() & {sample.label for sample in samples}):
        raise DataError(faults[wrong[0]])
    return samples


def _table_sample(table: Path, place: str, row: dict[str, Any], faults: dict[str, str]) -> Sample:
    """A sample of a row.

    Args:
        table: that it stands in.
        place: which row it is.
        row: with the columns of `_wanted_columns`.
        faults: by class, the first of its votes that is no number goes in.
    """
    values = {name: "" if value is None else str(value).strip() for name, value in row.items()}
    picture = next(iter(values))
    if not isinstance(row[picture], str | None):
        raise DataError(
            f"{table}, {place}: '{picture}' holds {type(row[picture]).__name__}, not a path"
        )
    for name in (picture, "label"):
        if values.get(name) == "":
            raise DataError(f"{table}, {place}: '{name}' is empty")
    split = values.get("split") or None
    if split:
        split = SPLIT_WORDS.get(split.lower())
        if split is None:
            raise DataError(
                f"{table}, {place}: split '{values['split']}' is unknown: "
                f"{did_you_mean(values['split'], SPLIT_WORDS)}"
            )
    # Relative paths count from the table, so that a folder with its table can be moved.
    return Sample(
        table.parent / values[picture],
        values.get("label"),
        split,
        values.get("group") or None,
        _votes(table, place, values, faults),
    )


def _votes(
    table: Path, place: str, values: dict[str, str], faults: dict[str, str]
) -> Mapping[str, float]:
    votes = {}
    for name, text in values.items():
        if not name.startswith(VOTES):
            continue
        try:
            number = float(text or 0)
        except ValueError:
            number = -1.0
        label = name.removeprefix(VOTES)
        if 0 <= number < math.inf:
            votes[label] = number
        else:
            fault = f"{table}, {place}: {name} is '{text}', not a number of 0 or more"
            faults.setdefault(label, fault)
    return votes or NO_VOTES


def _wanted_columns(table: Path, columns: Sequence[str], labelled: bool) -> list[str]:
    """The columns that are read, the pictures' first."""
    picture = next((name for name in ("path", "image") if name in columns), None)
    labels = ("label",) if labelled else ()
    if picture is None or not set(labels) <= set(columns):
        missing = "label" if picture else "path"
        raise DataError(
            f"{table} has no column '{missing}': it has {', '.join(columns) or 'none'}; needed are "
            f"path (or image){' and label' if labelled else ''}, and split and group where wanted"
        )
    wanted = [name for name in (picture, *labels, "split", "group") if name in columns]
    wanted += [name for name in columns if labelled and name.startswith(VOTES)]
    for name in wanted:
        if columns.count(name) > 1:
            raise DataError(f"{table} has {columns.count(name)} columns '{name}': keep one of them")
    return wanted


def _csv_rows(path: Path, labelled: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Strict, because a quote left open would otherwise swallow all rows behind it.
            rows = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(rows, [])]
            wanted = _wanted_columns(path, columns, labelled)
            places = {name: columns.index(name) for name in wanted}
            for row in filter(None, rows):
                if len(row) > len(columns):
                    raise DataError(
                        f"{path}, line {rows.line_num}: {len(row)} fields for {len(columns)} "
                        "columns (a text with a comma goes into double quotes)"
                    )
                row += [""] * (len(columns) - len(row))
                yield f"line {rows.line_num}", {name: row[at] for name, at in places.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV table in UTF-8: {error}") from None


def _parquet_rows(path: Path, labelled: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        raise DataError(f"reading {path} needs pyarrow: pip install 'vitreous[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            wanted = _wanted_columns(path, file.schema_arrow.names, labelled)
            holds = {name: file.schema_arrow.field(name).type for name in wanted}
            for name, what in holds.items():
                is_path = name == wanted[0]  # else pictures themselves, maybe gigabytes
                # By its name, which all of them have: of any length, of one, in a dictionary.
                if types.is_nested(what) or (is_path and "binary" in str(what)):
                    words = "paths" if is_path else "text or numbers"
                    raise DataError(f"{path}: '{name}' holds {what}, not {words}")
            rows = file.read(columns=wanted).to_pylist()
    except ArrowException as error:
        raise DataError(f"{path} is not a Parquet table: {first_line(error)}") from None
    for number, row in enumerate(rows, start=1):
        try:
            values = {name: _as_text(row[name]) for name in wanted}
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, row {number}: {error.object[:40]!r} is no UTF-8") from None
        yield f"row {number}", values


def _as_text(value: Any) -> Any:
    """Text that other libraries store as its bytes."""
    return value.decode() if isinstance(value, bytes) else value


def is_visible(name: str) -> bool:
    """Whether a file or folder is the person's, and not a system's own."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def write_rows(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Rows of CSV that every reader gets back, with line ends inside of values too.

    Python's writer leaves a carriage return unquoted until version 3.13.
    """
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any("\r" in str(cell) for cell in row) else plain).writerow(row)
