"""None of these: pictures that are unlike all that a model learned from.

A picture is looked at in two ways: by its colours and texture, and by what the model makes of it.
In each, its distance to the nearest class is Mahalanobis' (Lee et al. 2018, "A Simple Unified
Framework for Detecting Out-of-Distribution Samples"), and what counts is how few of the person's
own pictures, ones that the model didn't learn from, lie as far away. Neither way alone is enough: a
model trained from scratch places grey faces in the midst of flowers, and colours can't tell a dog
on grass from a daisy (docs/experiments/LOG.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from vitreous.evaluation.conformal import limit_of, needed_for

#: Of the person's own kind of pictures, to be kept.
KEPT = 0.97
#: The ways of looking, and what a person is told they are.
LOOKS, FEATURES = "looks", "features"
WORDS = {LOOKS: "its colours and texture", FEATURES: "what the model makes of it"}

#: Sizes of the picture, each half the one before, at which its texture is measured.
_SCALES = 3
#: How many numbers `looks_of` gives.
NUM_LOOKS = 3 * (2 + _SCALES)
#: Contrasts on a scale of 0 to 1 below which there is none.
_FAINT_SPREAD, _FAINT_STEPS = 0.003, 0.002
#: By view, a spread that means nothing: that of colour, where all pictures are grey.
_FAINT = {LOOKS: 0.3, FEATURES: 0.02}
#: Variance that every direction is given, of the 1 that a number has: where a person's pictures
#: hardly vary at all, a little more compression is no reason to refuse one.
_RIDGE = 0.03
#: By how much nearer a picture lies to count as nearer: a picture's own distance comes out a little
#: otherwise where something else computes it.
_NEARER = 1e-4


def looks_of(pixels: Tensor) -> Tensor:
    """Colours and texture in fifteen numbers.

    Of brightness, red against green, and blue against yellow: the mean, the logarithm of the
    standard deviation, and of the mean step between neighbours at three scales.

    Args:
        pixels: uint8, or floats on the same scale of 0 to 255.

    Shape:
        (pictures, height, width, 3) -> (pictures, 15) float32
    """
    red, green, blue = (pixels.float() / 255).unbind(3)
    numbers = []
    for channel in ((red + green + blue) / 3, red - green, blue - (red + green) / 2):
        numbers.append(channel.mean((1, 2)))
        numbers.append(torch.log(channel.std((1, 2), correction=0) + _FAINT_SPREAD))
        for _ in range(_SCALES):
            mean = torch.zeros(len(pixels))
            for axis in (1, 2):
                if channel.shape[axis] > 1:
                    mean = mean + channel.diff(dim=axis).abs().mean((1, 2))
            numbers.append(torch.log(mean + _FAINT_STEPS))
            channel = _halved(channel)
    return torch.stack(numbers, dim=1)


def _halved(channel: Tensor) -> Tensor:
    """Means of two by two pixels; a side of one pixel stays."""
    for axis in (1, 2):
        pairs = channel.shape[axis] // 2
        if pairs:
            both = channel.narrow(axis, 0, 2 * pairs).unflatten(axis, (pairs, 2))
            channel = both.mean(axis + 1)
    return channel


@dataclass(frozen=True)
class View:
    """Where the classes lie in one way of looking, and how far the person's own pictures are.

    Args:
        center, scale: subtracted from each number and divided by.
        means: of each class that has pictures, behind that.
        whiten: turns differences into ones whose length is Mahalanobis' distance.
        distances: of pictures that the model didn't learn from, sorted.
    """

    center: Tensor
    scale: Tensor
    means: Tensor
    whiten: Tensor
    distances: Tensor = field(default_factory=lambda: torch.zeros(0))

    @classmethod
    def fit(cls, numbers: np.ndarray, labels: np.ndarray, faint: float) -> "View":
        """Learn where the classes lie; their pictures share one covariance, as in Lee et al. 2018.

        The covariance is shrunk (Ledoit and Wolf 2004), so some hundred pictures are enough.

        Args:
            numbers: of pictures that the model learned from.
            labels: their classes.
            faint: least spread that a number is taken to have.

        Shape:
            (pictures, numbers), (pictures,)
        """
        from sklearn.covariance import LedoitWolf

        numbers = numbers.astype(np.float64)
        center, scale = numbers.mean(0), np.maximum(numbers.std(0), faint)
        numbers = (numbers - center) / scale
        classes, of_picture = np.unique(labels, return_inverse=True)
        means = np.stack([numbers[of_picture == at].mean(0) for at in range(len(classes))])
        found = LedoitWolf(assume_centered=True).fit(numbers - means[of_picture])
        covariance = found.covariance_ + _RIDGE * np.eye(len(scale))
        whiten = np.linalg.cholesky(np.linalg.inv(covariance))
        return cls(*(torch.from_numpy(part).float() for part in (center, scale, means, whiten)))

    def distance(self, numbers: Tensor) -> Tensor:
        """To the nearest class.

        Shape:
            (pictures, numbers) -> (pictures,) float32
        """
        whiten = self.whiten.double()
        numbers = ((numbers - self.center) / self.scale).double() @ whiten
        means = self.means.double() @ whiten
        # |a - b|^2 multiplied out: a thousand classes cost one product of matrices.
        products = numbers @ means.T
        squares = (numbers**2).sum(1)[:, None] + (means**2).sum(1) - 2 * products
        return squares.amin(1).clamp(min=0).sqrt().float()

    def strangeness(self, numbers: Tensor) -> Tensor:
        """Share of the person's own pictures that are nearer.

        Shape:
            (pictures, numbers) -> (pictures,) float64
        """
        distance = self.distance(numbers) * (1 - _NEARER)
        nearer = torch.searchsorted(self.distances, distance)
        return nearer.double() / max(len(self.distances), 1)


@dataclass(frozen=True)
class Refusal:
    """When a picture is called none of these.

    Args:
        views: the ways of looking, by name.
        limit: refused is what is stranger than this in any of them.
        promised: whether at least `KEPT` of the person's own kind of pictures is surely kept.
    """

    views: Mapping[str, View]
    limit: float
    promised: bool

    @classmethod
    def calibrated(cls, views: Mapping[str, View], numbers: Mapping[str, np.ndarray]) -> "Refusal":
        """With the limit that keeps pictures like these.

        Args:
            views: fitted to pictures that the model learned from.
            numbers: by view, of others of the same kind.
        """
        seen = {name: torch.from_numpy(numbers[name]) for name in views}
        views = {
            name: replace(view, distances=view.distance(seen[name]).sort().values)
            for name, view in views.items()
        }
        strangest = cls(views, 1.0, False).strangeness(seen).amax(1).numpy()
        return cls(views, *limit_of(strangest, KEPT, limits=len(views)))

    @property
    def calibrated_on(self) -> int:
        """Pictures that the limit was taken from."""
        return len(self.views[LOOKS].distances)

    @property
    def needed(self) -> int:
        """Pictures that a promise takes."""
        return needed_for(KEPT, limits=len(self.views))

    def strangeness(self, numbers: Mapping[str, Tensor]) -> Tensor:
        """Of each picture, as each view has it.

        Shape:
            each (pictures, numbers of the view) -> (pictures, views) float64
        """
        return torch.stack(
            [view.strangeness(numbers[name]) for name, view in self.views.items()], 1
        )

    def reasons(self, numbers: Mapping[str, np.ndarray]) -> list[str | None]:
        """In what each picture is unlike all that the model learned from; ``None`` to keep it.

        Args:
            numbers: of the pictures, by view.

        Shape:
            each (pictures, numbers of the view) -> (pictures,)
        """
        seen = {name: torch.from_numpy(numbers[name]) for name in self.views}
        return reasons_of(self.strangeness(seen).numpy(), tuple(self.views), self.limit)


def reasons_of(strangeness: np.ndarray, views: Sequence[str], limit: float) -> list[str | None]:
    """In what each picture is stranger than the limit, where it is so in any way.

    Shape:
        (pictures, views) -> (pictures,)
    """
    return [views[int(row.argmax())] if row.max() > limit else None for row in strangeness]


def fit_views(looks: np.ndarray, features: np.ndarray, labels: np.ndarray) -> Mapping[str, View]:
    """Both ways of looking, fitted to pictures that the model learned from.

    Shape:
        (pictures, 15), (pictures, features), (pictures,)
    """
    numbers = {LOOKS: looks, FEATURES: features}
    return {name: View.fit(numbers[name], labels, _FAINT[name]) for name in numbers}
