"""Pictures as every library reads them: links below split and class, in an order that all share."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vitreous.data.folder import Listing, list_labelled
from vitreous.data.table import Sample


def read_splits(source: Path, limit: int | None) -> list[Sample]:
    """The pictures of a folder that has train, valid and perhaps test.

    Args:
        source: the folder.
        limit: the first so many of each class and split; ``None`` for all.
    """
    counts: Counter[tuple[str | None, str | None]] = Counter()
    kept = []
    for sample in list_labelled(source).samples:
        key = (sample.split, sample.label)
        counts[key] += 1
        if limit is None or counts[key] <= limit:
            kept.append(sample)
    splits = {sample.split for sample in kept}
    if not {"train", "valid"} <= splits:
        raise SystemExit(f"{source} needs the folders train and valid (or val)")
    return kept


def link_pictures(samples: Iterable[Sample], folder: Path) -> Listing:
    """Link pictures into a new folder, and list it.

    Args:
        samples: with label and split.
        folder: where ``split/class/number.suffix`` appear.
    """
    for number, sample in enumerate(samples):
        assert sample.label is not None
        assert sample.split is not None
        place = folder / sample.split / sample.label
        place.mkdir(parents=True, exist_ok=True)
        # Of one length, so that libraries that sort names and those that sort numbers agree.
        (place / f"{number:08d}{sample.path.suffix}").symlink_to(sample.path.absolute())
    return list_labelled(folder)


def samples_of(listing: Listing, split: str) -> tuple[Sample, ...]:
    """The pictures of a split, in the order that they are scored in."""
    return tuple(sample for sample in listing.samples if sample.split == split)


def labels_of(listing: Listing, split: str) -> np.ndarray:
    """Their classes' numbers."""
    classes = [str(sample.label) for sample in samples_of(listing, split)]
    return np.array([listing.classes.index(name) for name in classes])


def count_splits(samples: Iterable[Sample]) -> dict[str, int]:
    """Pictures of each split."""
    return dict(Counter(str(sample.split) for sample in samples))
