"""A folder or table opened for training: listed, decoded, divided."""

import csv
import hashlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from vitreous.core.rng import numpy_stream
from vitreous.data.cache import (
    Pixels,
    Progress,
    cached_pixels,
    default_cache_dir,
    entry_bytes,
    room_bytes,
)
from vitreous.data.config import DataConfig
from vitreous.data.decode import NO_FILE, read_size
from vitreous.data.folder import Listing, check_learnable
from vitreous.data.loader import PictureSet, is_blank
from vitreous.data.preprocess import Preprocess
from vitreous.data.shards import shard_of
from vitreous.data.split import VALID_SHARE, assign_splits
from vitreous.data.stream import StreamedPixels, streamed_pixels
from vitreous.data.table import SPLITS, Sample, write_rows
from vitreous.errors import DataError, RunError, UnreadablePicture

#: The last is what pixels are known by again in another place; runs of old have none.
_SPLIT_COLUMNS = ["path", "label", "split", "pixels"]

#: Without labels nothing is chosen by the pictures held back: a few show how the loss goes.
UNLABELLED_VALID_SHARE = 0.05
#: Class names that a message lists.
_LISTED = 20


@dataclass(frozen=True)
class Dataset:
    """Decoded pictures with their classes and splits.

    Args:
        classes: names; an index into it is the model's output index; none without labels.
        sets: by split, "train" and "valid" always, "calibration" and "test" where there are any.
        listing: every picture found.
        splits: of every picture found.
        pixels: of every picture found.
    """

    classes: tuple[str, ...]
    sets: dict[str, PictureSet]
    listing: Listing
    splits: tuple[str, ...]
    pixels: Pixels

    @property
    def unreadable(self) -> list[tuple[Path, str]]:
        """Files left out, with the reason, of all splits."""
        return [pair for part in self.sets.values() for pair in part.unreadable]

    def split_table(self) -> str:
        """CSV text of what went where, kept with a run."""
        text = io.StringIO()
        # What can't be read went nowhere.
        went = ("" if row in self.pixels.errors else split for row, split in enumerate(self.splits))
        rows = (
            (path_as_text(sample.path), sample.label or "", split, pixels)
            for sample, split, pixels in zip(
                self.listing.samples, went, self.pixels.fingerprints, strict=True
            )
        )
        write_rows(text, (_SPLIT_COLUMNS, *rows))
        return text.getvalue()

    def fingerprint(self) -> str:
        """Equal for equal pictures, labels and splits in equal order, wherever they lie."""
        digest = hashlib.blake2b(digest_size=16)
        rows = zip(self.listing.samples, self.splits, self.pixels.fingerprints, strict=True)
        for sample, split, pixels in rows:
            votes = f"\t{dict(sample.votes)}" if sample.votes else ""
            digest.update(f"{sample.label}\t{split}\t{pixels}{votes}\n".encode())
        return digest.hexdigest()


def read_split_table(path: Path) -> list[dict[str, str]]:
    """The rows of a `split.csv`: "path" as `path_as_text` has it, "label", "split" and "pixels".

    Raises:
        RunError: where it can't be read, or was changed.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            found = list(rows)
    except (OSError, csv.Error) as error:
        raise RunError(f"can't read {path}: {error}") from None
    known = (_SPLIT_COLUMNS, _SPLIT_COLUMNS[:-1])
    if rows.fieldnames not in known or any(None in row or None in row.values() for row in found):
        raise RunError(f"{path} is not as the run wrote it: it has {', '.join(_SPLIT_COLUMNS)}")
    return found


def as_it_was(listing: Listing, before: Sequence[dict[str, str]]) -> Listing:
    """Without the pictures that came since the rows of a `split.csv` were written.

    Where one of those is gone, nothing is what it was, and the listing stays as it is.
    """
    known = {row["path"] for row in before}
    kept = tuple(one for one in listing.samples if path_as_text(one.path) in known)
    if {path_as_text(one.path) for one in kept} != known:
        return listing
    labels = {one.label for one in kept}
    classes = tuple(name for name in listing.classes if name in labels)
    return replace(listing, samples=kept, classes=classes)


def path_as_text(path: Path) -> str:
    """A path as `split.csv` has it: of a name that isn't UTF-8 (out of an old archive) escapes."""
    return str(path).encode(errors="backslashreplace").decode()


def open_dataset(
    listing: Listing,
    config: DataConfig,
    preprocess: Preprocess,
    seed: int,
    on_progress: Progress | None = None,
) -> Dataset:
    """Decode and divide the pictures of a listing.

    Args:
        listing: of `list_labelled`.
        config: where the cache is.
        preprocess: size of the decoded pictures.
        seed: of the division, where the source doesn't name one.
        on_progress: called with a description, the files done and their total.

    Raises:
        DataError: where there is too little to learn from or to check with.
        StorageError: where the cache can't be written.
    """
    check_learnable(listing, Path(config.source))
    pixels = _decode(listing, config, preprocess, on_progress)
    dataset = _divide(listing, pixels, seed, VALID_SHARE, config.calibration_share)
    counts = dataset.sets["train"].labels.bincount(minlength=len(listing.classes))
    if len(without := counts.eq(0).nonzero()):
        name = listing.classes[int(without[0])]
        raise DataError(f"class '{name}' has no readable training picture in {config.source}")
    if "valid" not in dataset.sets or not len(dataset.sets["valid"]):
        raise DataError(f"{config.source} has no readable validation picture")
    if "test" in dataset.sets and not len(dataset.sets["test"]):
        raise DataError(
            f"{config.source} has test pictures, but none that can be read: mend them, or leave "
            "them out and the validation pictures are scored"
        )
    return _keep_some(dataset, config, on_progress)


def open_unlabelled(
    listing: Listing,
    config: DataConfig,
    preprocess: Preprocess,
    seed: int,
    on_progress: Progress | None = None,
) -> Dataset:
    """Decode the pictures of a listing without labels and hold a few of them back.

    Args:
        listing: of `list_unlabelled`.
        config: where the cache is.
        preprocess: size of the decoded pictures.
        seed: of the choice of those held back.
        on_progress: called with a description, the files done and their total.

    Raises:
        DataError: where fewer than two pictures can be read or told apart.
        StorageError: where the cache can't be written.
    """
    pixels = _decode(listing, config, preprocess, on_progress)
    if len(pixels.errors) == len(listing.samples):
        raise DataError(f"{config.source} has no readable picture")
    dataset = _divide(listing, pixels, seed, UNLABELLED_VALID_SHARE)
    return _keep_some(dataset, config, on_progress)


def open_labelled(
    listing: Listing,
    classes: Sequence[str],
    config: DataConfig,
    preprocess: Preprocess,
    on_progress: Progress | None = None,
) -> PictureSet:
    """A whole listing as one set, for a model that knows its classes already.

    What the cache has no room for is decoded to see which can be read, and again for its answer.

    Raises:
        DataError: for a class that the model doesn't know.
        StorageError: where the cache can't be written.
    """
    check_classes(listing, classes, config.source)
    pixels = _decode(listing, config, preprocess, on_progress, once=True)
    known = Listing(listing.samples, tuple(classes), listing.ignored)
    return _picture_set("all", known, ["all"] * len(listing.samples), pixels)


def check_classes(listing: Listing, classes: Sequence[str], source: str) -> None:
    """Refuse a listing with a class that a model doesn't know.

    Raises:
        DataError: naming the class, the source, and those that it knows.
    """
    unknown = sorted(set(listing.classes) - set(classes))
    if unknown:
        more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
        raise DataError(
            f"class '{unknown[0]}' in {source} is unknown to this model: "
            f"it knows {', '.join(classes[:_LISTED])}{more}"
        )


def typical_side(listing: Listing) -> int:
    """Median of the shorter sides in pixels, from the headers of up to 200 pictures.

    Raises:
        DataError: where no picture's header can be read.
    """
    samples = listing.samples
    count = min(200, len(samples))
    chosen = numpy_stream(0, "probe").choice(len(samples), count, replace=False)
    sides, faults = [], []
    for index in sorted(chosen):
        try:
            sides.append(min(read_size(samples[index].path)))
        except UnreadablePicture as error:  # reported when it is decoded
            faults.append(f"{samples[index].path}: {error}")
    if not sides:
        hint = ""
        if faults[0].endswith(NO_FILE):
            hint = "; the paths of a table count from its own folder"
            if "\\" in faults[0] and os.sep == "/":
                hint = "; here the folders of a path are parted by '/'"
        raise DataError(
            f"none of the {count} pictures tried can be read, such as {faults[0]}{hint}"
        )
    return round(median(sides))


def _decode(
    listing: Listing,
    config: DataConfig,
    preprocess: Preprocess,
    on_progress: Progress | None,
    once: bool = False,
) -> Pixels:
    """Out of the cache; without room there, where each is asked for once or reading is quick."""
    paths = [sample.path for sample in listing.samples]
    cache_dir, limit = _cache_of(config)
    if once:
        limit = room_bytes(cache_dir, limit)
    if entry_bytes(len(paths), preprocess) > limit and (once or shard_of(paths[0])):
        return streamed_pixels(paths, preprocess, config.shuffle_buffer, on_progress)
    return cached_pixels(paths, preprocess, cache_dir, limit, on_progress)


def _cache_of(config: DataConfig) -> tuple[Path, int]:
    """Its folder, and how many bytes may be in it."""
    folder = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    return folder, int(min(config.max_cache_gb * 1e9, sys.maxsize))


def _keep_some(dataset: Dataset, config: DataConfig, on_progress: Progress | None) -> Dataset:
    """Of streamed pictures, those in the cache that have room: first the ones seen most often."""
    if isinstance(dataset.pixels.array, StreamedPixels):
        order = sorted(dataset.sets, key=lambda name: name == "train")
        rows = np.concatenate([dataset.sets[name].rows for name in order])
        dataset.pixels.array.keep(rows, *_cache_of(config), on_progress)
    return dataset


def _divide(
    listing: Listing, pixels: Pixels, seed: int, valid_share: float, calibration_share: float = 0.0
) -> Dataset:
    splits = [sample.split or "train" for sample in listing.samples]
    for part, share in (("valid", valid_share), ("calibration", calibration_share)):
        # Be those named all unreadable: no others are taken in their place.
        if share and part not in splits:
            splits = _hold_back(part, share, listing.samples, splits, pixels, seed)
    return divided(listing, splits, pixels)


def divided(listing: Listing, splits: Sequence[str], pixels: Pixels) -> Dataset:
    """Decoded pictures with each one's split; what has none of their names is in no set."""
    names = [name for name in SPLITS if name in splits]
    sets = {name: _picture_set(name, listing, splits, pixels) for name in names}
    return Dataset(listing.classes, sets, listing, tuple(splits), pixels)


def joining_prints(samples: Sequence[Sample], pixels: Pixels, rows: Sequence[int]) -> list[str]:
    """The fingerprints of what copies of a picture join; "" for a blank picture of several groups.

    A black frame in every video would join all of them to one, which nothing could divide.
    """
    prints = [pixels.fingerprints[row] for row in rows]
    first: dict[str, int] = {}
    blank: dict[str, bool] = {}
    for row, name in zip(rows, prints, strict=True):
        group, others = samples[row].group, samples[first.setdefault(name, row)].group
        if name and group != others and name not in blank:
            blank[name] = is_blank(np.asarray(pixels.array[row]))
    return ["" if blank.get(name) else name for name in prints]


def _hold_back(
    part: str,
    share: float,
    samples: Sequence[Sample],
    splits: Sequence[str],
    pixels: Pixels,
    seed: int,
) -> list[str]:
    """Take a part out of training, of the readable pictures alone."""
    readable = [row for row in range(len(samples)) if row not in pixels.errors]
    divided = assign_splits(
        [samples[row].label or "" for row in readable],
        [splits[row] for row in readable],
        [samples[row].group for row in readable],
        joining_prints(samples, pixels, readable),
        seed,
        share,
        part,
    )
    after = list(splits)
    for row, split in zip(readable, divided, strict=True):
        after[row] = split
    return after


def _picture_set(name: str, listing: Listing, splits: Sequence[str], pixels: Pixels) -> PictureSet:
    mine = [row for row, split in enumerate(splits) if split == name]
    rows = [row for row in mine if row not in pixels.errors]
    index = {label: number for number, label in enumerate(listing.classes)} | {None: -1}
    samples, array = listing.samples, pixels.array
    places = np.array(rows, dtype=np.int64)
    return PictureSet(
        pixels=array,
        rows=places,
        labels=torch.tensor([index[samples[row].label] for row in rows], dtype=torch.int64),
        paths=tuple(samples[row].path for row in rows),
        unreadable=tuple(
            (samples[row].path, pixels.errors[row]) for row in mine if row in pixels.errors
        ),
        fingerprints=tuple(pixels.fingerprints[row] for row in rows),
        votes=_votes([samples[row] for row in rows], listing.classes),
        shuffle=array.shuffle_of(places) if isinstance(array, StreamedPixels) else None,
    )


def _votes(samples: Sequence[Sample], classes: Sequence[str]) -> torch.Tensor | None:
    """Shares of the annotators; where none chose one of the classes, the label has all of them.

    A table without a column for each class has none: a name misspelt would count as no votes.

    Shape:
        -> (pictures, classes)
    """
    if not samples or not set(classes) <= set(samples[0].votes):
        return None
    rows = []
    for sample in samples:
        counts = [sample.votes.get(name, 0.0) for name in classes]
        if not sum(counts):
            counts = [float(name == sample.label) for name in classes]
        rows.append(counts)
    votes = torch.tensor(rows, dtype=torch.float32)
    return votes / votes.sum(1, keepdim=True)
