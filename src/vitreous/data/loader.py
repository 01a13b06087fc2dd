"""Batches in a seeded order that can be entered at any step.

Training is one endless row of pictures: each epoch's random order behind the last one's. Step n
takes the n-th batch of that row, so batches are always full, and resuming needs nothing but n.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vitreous.core.rng import numpy_stream


def some_of_each_class(
    labels: Tensor, most: int, stream: np.random.Generator, each: int = 1
) -> np.ndarray:
    """Positions of at most so many pictures, drawn at random, but of every class some.

    Args:
        labels: class index of every picture.
        most: pictures, where that leaves each class its own.
        stream: of the draws.
        each: pictures of a class that are there in any case, or all it has.

    Shape:
        (pictures,) -> (chosen,) int64, in order
    """
    if most >= len(labels):
        return np.arange(len(labels))
    drawn = stream.permutation(len(labels))
    classes = labels.numpy()[drawn]
    by_class = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[by_class], classes[by_class])
    first_of_class = by_class[np.arange(len(labels)) - starts < each]
    return np.sort(drawn[np.union1d(np.arange(most), first_of_class)])


class PixelRows(Protocol):
    """Pictures of one size by row: an array, or what decodes the rows that are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all: (files, height, width, 3)."""
        ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """One picture of an index, several of an array of them; uint8."""
        ...


def is_blank(picture: np.ndarray) -> bool:
    """Whether it has one colour: what equals it need not have come from it.

    Shape:
        (height, width, 3)
    """
    return not np.ptp(picture, axis=(0, 1)).any()


#: Draws the order of an epoch: a permutation of a set's positions.
Shuffle = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class PictureSet:
    """Decoded pictures with their labels: what a model is trained or tested on.

    Args:
        pixels: (files, height, width, 3) uint8, memory-mapped or not, or decoded when asked for.
        rows: which rows of `pixels` belong to this set.
        labels: class index of each of those rows, -1 where it has no class; int64.
        paths: file of each of those rows.
        unreadable: files that belong here but can't be decoded, with the reason.
        fingerprints: equal for equal pixels before resizing, of each of those rows; none where
            nobody needs them.
        votes: share of the annotators for each class, for each of those rows; ``None`` where no
            table says so.
        shuffle: draws an epoch's order where not every one is as good as another, because pictures
            that lie together come together (see `stream`); ``None`` for any.
    """

    pixels: PixelRows
    rows: np.ndarray
    labels: Tensor
    paths: tuple[Path, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()
    fingerprints: tuple[str, ...] = ()
    votes: Tensor | None = None
    shuffle: Shuffle | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def majority_class(self) -> int:
        """Index of the most frequent class."""
        return int(self.labels.bincount().argmax())

    def without(self, paths: Collection[Path]) -> "PictureSet":
        """The same but for some files."""
        left = [at for at, path in enumerate(self.paths) if path not in paths]
        return replace(
            self,
            rows=self.rows[left],
            labels=self.labels[left],
            paths=tuple(self.paths[at] for at in left),
            fingerprints=tuple(self.fingerprints[at] for at in left),
            votes=None if self.votes is None else self.votes[left],
            shuffle=None,
        )

    def batch(self, positions: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures and labels at these positions of the set.

        Shape:
            -> (batch, height, width, 3) uint8, (batch,) int64
        """
        pixels = torch.from_numpy(self.pixels[self.rows[positions]])
        return pixels, self.labels[torch.as_tensor(np.asarray(positions))]


@dataclass(frozen=True)
class Part:
    """Some pictures of a batch; random numbers are drawn for all of it, wherever they are used.

    Args:
        batch: pictures of the whole batch.
        rows: which of them, rising; int64.
    """

    batch: int
    rows: Tensor

    @classmethod
    def among(cls, batch: int, rows: range | None = None) -> "Part":
        """A row of neighbours; all of them where nothing is said."""
        return cls(batch, torch.tensor(rows or range(batch)))

    def of(self, values: Tensor) -> Tensor:
        """What belongs to these pictures, of values for the whole batch."""
        return values if len(self.rows) == self.batch else values[self.rows]

    def with_partners(self, partners: Tensor) -> "Part":
        """These pictures and those that they are blended with.

        Args:
            partners: of every picture of the batch.
        """
        return Part(self.batch, torch.cat([self.rows, partners[self.rows]]).unique())

    def places_in(self, more: "Part") -> Tensor:
        """Where these pictures are among others that contain them."""
        return torch.searchsorted(more.rows, self.rows)


class TrainingOrder:
    """Which pictures each training step sees.

    Args:
        count: pictures in the training set.
        batch_size: pictures of a step.
        seed: of the epochs' orders.
        shuffle: draws an epoch's order, as the set may say; ``None`` for any permutation.

    Example:
        >>> order = TrainingOrder(count=3, batch_size=2, seed=0)
        >>> sorted([*order.step(0), *order.step(1), *order.step(2)])
        [0, 0, 1, 1, 2, 2]
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, shuffle: Shuffle | None = None
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._shuffle = shuffle
        self._epoch_order = lru_cache(maxsize=2)(self._draw_epoch_order)

    def step(self, step: int) -> list[int]:
        """Positions of the pictures of a step, counted from 0."""
        start = step * self.batch_size
        places = range(start, start + self.batch_size)
        return [int(self._epoch_order(at // self.count)[at % self.count]) for at in places]

    def _draw_epoch_order(self, epoch: int) -> np.ndarray:
        stream = numpy_stream(self.seed, "order", epoch)
        return self._shuffle(stream) if self._shuffle else stream.permutation(self.count)
