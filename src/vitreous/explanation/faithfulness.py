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


@dataclass(frozen=True)
class Faithfulness:
    """How a map of one picture did.

    Args:
        insertion: mean probability of the class while the patches come back, the most important
            first; high is good.
        deletion: the same while they are blurred, the most important first; low is good.
        random: the same in orders drawn at random, either way.
        luck: standard deviation of `gain` of such an order.
    """

    insertion: float
    deletion: float
    random: float
    luck: float

    @property
    def gain(self) -> float:
        """Mean of what insertion is above and deletion below a random order, as a probability.

        What a random order gives cancels: to insert in one order is to delete in the reverse.
        """
        return (self.insertion - self.deletion) / 2


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
        seed: of the random orders.
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
    # The mean of the gain is zero by symmetry, so none has to be estimated.
    luck = float(np.sqrt(np.square((insertion[drawn] - deletion[drawn]) / 2).mean()))
    return [
        Faithfulness(float(insertion[at]), float(deletion[at]), random, luck)
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
