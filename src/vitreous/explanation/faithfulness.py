"""Does a map show what the model goes by? Parts of the picture are blurred, and it is asked again.

If the patches that a map calls important are blurred first, the class should become improbable
quickly (deletion); if they are the first to come back into a blurred picture, it should become
probable quickly (insertion). The same done in orders drawn at random tells what such curves are
worth (Petsiuk, Das and Saenko 2018, "RISE", section 4.2; blurring instead of grey on both ways,
so that no new edges are drawn).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from vitreous.core.rng import numpy_stream

#: Probabilities of a class: (pictures, height, width, 3) uint8 -> (pictures,).
Answer = Callable[[np.ndarray], np.ndarray]

#: How often a curve is looked at, its ends included.
_POINTS = 9
_RANDOM_ORDERS = 4
#: Share of the maps that know nothing that a check is to find out.
_SURE = 0.95


@dataclass(frozen=True)
class Faithfulness:
    """How a map of one picture did.

    Args:
        insertion: mean probability of the class while the patches come back, the most important
            first; high is good.
        deletion: the same while they are blurred, the most important first; low is good.
        random: the same in orders drawn at random, either way.
        drawn: `gain` of each of them.
    """

    insertion: float
    deletion: float
    random: float
    drawn: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean of what insertion is above and deletion below a random order, as a probability.

        What a random order gives cancels: to insert in one order is to delete in the reverse.
        """
        return (self.insertion - self.deletion) / 2

    @property
    def luck(self) -> float:
        """Standard deviation of `gain` of a random order."""
        return _deviation(np.array(self.drawn))

    def to_json(self) -> dict[str, float]:
        """Plain values, `gain` first."""
        names = ("gain", "insertion", "deletion", "random", "luck")
        return {name: getattr(self, name) for name in names}


def chance_gain(found: Sequence[Faithfulness]) -> float:
    """What the mean gain of a map that knows nothing stays below in 95 of 100 cases.

    Student's t makes up for a deviation that is known from few random orders. All pictures are
    held against the same orders: where a map's order differs from picture to picture, so do its
    gains, and all that was drawn tells how far their mean goes; a map that has one order for all
    pictures is like one random order for all. The larger of the two holds for both.

    Args:
        found: of pictures that were measured with the same seed and number of random orders.
    """
    from scipy.stats import t

    drawn = np.array([each.drawn for each in found])
    pictures, orders = drawn.shape
    apart = t.ppf(_SURE, drawn.size) * _deviation(drawn) / np.sqrt(pictures)
    together = t.ppf(_SURE, orders) * _deviation(drawn.mean(0))
    return float(max(apart, together))


def _deviation(gains: np.ndarray) -> float:
    """Of gains of random orders; their mean is zero by symmetry, so none has to be estimated."""
    return float(np.sqrt(np.square(gains).mean()))


def blur(picture: np.ndarray, patch_size: tuple[int, int]) -> np.ndarray:
    """A picture from which everything smaller than a few patches is gone.

    Args:
        picture: as the model gets it.
        patch_size: height and width in pixels; the standard deviation of the blur.

    Shape:
        (height, width, 3) uint8 -> the same
    """
    radius = (patch_size[1], patch_size[0])
    return np.array(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def measure(
    answer: Answer,
    picture: np.ndarray,
    importance: Sequence[np.ndarray],
    patch_size: tuple[int, int],
    seed: int = 0,
    random_orders: int = _RANDOM_ORDERS,
) -> list[Faithfulness]:
    """Hold maps of one picture against orders drawn at random.

    Args:
        answer: the model.
        picture: as the model gets it.
        importance: of each patch, row by row, by each of the maps.
        patch_size: height and width in pixels.
        seed: of the random orders, which are the same for all pictures of one size.
        random_orders: how many.

    Shape:
        picture: (height, width, 3) uint8
        importance: (patches,) each
    """
    rng = numpy_stream(seed, "faithfulness")
    orders = [np.argsort(-values, kind="stable") for values in importance]
    orders += [rng.permutation(len(orders[0])) for _ in range(random_orders)]
    curves = _curves(answer, picture, orders, patch_size)
    # Mean height by the trapezoidal rule over evenly spaced points.
    insertion, deletion = ((curves[:, :, 1:] + curves[:, :, :-1]) / 2).mean(2).T
    drawn = slice(len(importance), None)
    random = float((insertion[drawn] + deletion[drawn]).mean() / 2)
    gains = tuple(((insertion[drawn] - deletion[drawn]) / 2).tolist())
    return [
        Faithfulness(float(insertion[at]), float(deletion[at]), random, gains)
        for at in range(len(importance))
    ]


def _curves(
    answer: Answer, picture: np.ndarray, orders: list[np.ndarray], patch_size: tuple[int, int]
) -> np.ndarray:
    """Probabilities along insertion and deletion, from no patch to all of them.

    Shape:
        -> (orders, 2, points)
    """
    blurred = blur(picture, patch_size)
    count = len(orders[0])
    steps = np.round(np.linspace(0, count, _POINTS)).astype(int)[1:-1]
    grid = (picture.shape[0] // patch_size[0], picture.shape[1] // patch_size[1])
    pictures = [blurred, picture]
    for order in orders:
        rank = np.empty(count, dtype=int)
        rank[order] = np.arange(count)
        ranks = rank.reshape(grid).repeat(patch_size[0], 0).repeat(patch_size[1], 1)[..., None]
        pictures += [np.where(ranks < step, picture, blurred) for step in steps]
        pictures += [np.where(ranks < step, blurred, picture) for step in steps]
    found = answer(np.stack(pictures))
    between = found[2:].reshape(len(orders), 2, len(steps))
    ends = np.array([[found[0], found[1]], [found[1], found[0]]])[None].repeat(len(orders), 0)
    return np.concatenate([ends[:, :, :1], between, ends[:, :, 1:]], axis=2)
