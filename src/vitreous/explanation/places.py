"""Between tokens and pixels: which part of a picture a token tells of."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.model.config import ModelConfig, grid_of


@dataclass(frozen=True)
class Places:
    """How much of each token's value each pixel gets, along the two axes.

    Shape:
        down: (height, rows)
        across: (width, columns)
    """

    down: Tensor
    across: Tensor

    def to_pixels(self, values: Tensor) -> Tensor:
        """Values of the patch tokens as maps of the picture.

        Shape:
            (..., patches) -> (..., height, width)
        """
        grid = values.unflatten(-1, (self.down.shape[1], self.across.shape[1]))
        return self.down.to(values) @ grid @ self.across.T.to(values)


def places(config: ModelConfig, image_size: tuple[int, int]) -> Places:
    """Where the tokens of a model's patches lie in a picture.

    A projected patch is what its token tells of, alike in all its pixels. Behind a convolutional
    stem a token tells of pixels around the one that the strides lead to, which is the first of its
    patch and not the middle: with each 3x3 convolution of stride 2 and a border of one pixel,
    output i looks at input 2i and its neighbours. Between those places a map is linear.

    Raises:
        ConfigError: where the patches don't fill the picture.
    """
    grid = grid_of(image_size, config.patch_size)
    down, across = (
        _spread(count, patch, bool(config.stem))
        for count, patch in zip(grid, config.patch_size, strict=True)
    )
    return Places(down, across)


def to_patches(maps: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Mean of a map in each patch, row by row.

    Shape:
        (batch, height, width) -> (batch, patches)
    """
    return F.avg_pool2d(maps[:, None], patch_size).flatten(1)


def _spread(count: int, patch: int, stem: bool) -> Tensor:
    """One axis of `Places`: (count * patch, count)."""
    place = torch.arange(count * patch) / patch
    before = place.floor().long()
    behind = (before + 1).clamp(max=count - 1)
    share = (place - before if stem else torch.zeros_like(place))[:, None]
    return (1 - share) * F.one_hot(before, count) + share * F.one_hot(behind, count)
