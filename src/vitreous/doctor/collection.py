"""The listed pictures together with what was seen of each: what every check is handed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vitreous.data.folder import Listing, folder_of
from vitreous.data.table import SPLITS, Sample
from vitreous.doctor.examine import Examination, Examined

#: A picture whose small copy varies by no more than this, of 255, shows nothing.
BLANK_CONTRAST = 10


@dataclass(frozen=True)
class Collection:
    """Pictures, what is said of them and what was seen of them, row by row.

    Args:
        listing: of `survey`.
        examination: of its samples, in their order.
        source: the folder or table that lists them.
    """

    listing: Listing
    examination: Examination
    source: Path

    @property
    def folder(self) -> Path:
        """What relative paths count from."""
        return folder_of(self.source)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What is said of each."""
        return self.listing.samples

    @property
    def examined(self) -> tuple[Examined, ...]:
        """What was seen of each."""
        return self.examination.pictures

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Where each belongs; "" for all where no splits are named.

        As in training, a picture without a split is in train where others have one.
        """
        named = any(sample.split for sample in self.samples)
        return tuple(sample.split or ("train" if named else "") for sample in self.samples)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The class of each."""
        return tuple(sample.label or "" for sample in self.samples)

    @cached_property
    def rows_of(self) -> dict[Path, list[int]]:
        """Where each file is listed: a table may list one several times."""
        found: dict[Path, list[int]] = {}
        for row, sample in enumerate(self.samples):
            found.setdefault(sample.path, []).append(row)
        return found

    @cached_property
    def readable(self) -> np.ndarray:
        """Rows of the pictures that can be decoded, ascending."""
        found = [row for row, picture in enumerate(self.examined) if not picture.fault]
        return np.array(found, dtype=np.int64)

    def splits_of(self, rows: Sequence[int]) -> list[str]:
        """The splits that some pictures stand in, in the usual order."""
        found = {self.splits[row] for row in rows}
        return [split for split in ("", *SPLITS) if split in found]

    def is_blank(self, row: int) -> bool:
        """Whether a readable picture shows nothing."""
        return self.examined[row].contrast <= BLANK_CONTRAST

    def path(self, row: int) -> Path:
        """The file, as listed."""
        return self.samples[row].path
