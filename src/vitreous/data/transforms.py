"""Augmentation of whole batches, on the device that trains.

All changes of geometry (flip, shift, scale, rotation, shear) are one affine map per picture and
one resampling; all changes of colour are one pass. Random numbers are drawn on the CPU from the
generator given, so that every device sees the same augmentations.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.data.config import AugmentConfig
from vitreous.data.loader import Part


def augment(
    images: Tensor,
    config: AugmentConfig,
    generator: torch.Generator,
    plain: bool = False,
    part: Part | None = None,
) -> Tensor:
    """Change a batch at random, each picture on its own.

    Args:
        images: normalised pictures.
        config: chances and strengths.
        generator: CPU generator of all draws.
        plain: leave erasing out (towards the end of training).
        part: which pictures of a batch they are, where they aren't all: each is changed as it
            would be among all.

    Shape:
        (batch, channels, height, width) -> the same
    """
    draws = _Draws(generator, part or Part.among(len(images)))
    images = _affine(images, config, draws)
    images = _color(images, config, draws)
    return images if plain else _erase(images, config, draws)


@dataclass(frozen=True)
class _Draws:
    """One number for each picture of a whole batch, of which those at hand get theirs."""

    generator: torch.Generator
    part: Part

    def rand(self) -> Tensor:
        return self.part.of(torch.rand(self.part.batch, generator=self.generator))


def _uniform(limit: float, draws: _Draws) -> Tensor:
    return (draws.rand() * 2 - 1) * limit


def _chosen(chance: float, draws: _Draws) -> Tensor:
    return (draws.rand() < chance).float()


def _affine(images: Tensor, config: AugmentConfig, draws: _Draws) -> Tensor:
    flip = 1 - 2 * _chosen(config.flip, draws)
    use = _chosen(config.affine_chance, draws)
    angle = _uniform(math.radians(config.rotate_degrees), draws) * use
    shear = torch.tan(_uniform(math.radians(config.shear_degrees), draws) * use)
    scale = torch.exp(_uniform(math.log1p(config.scale), draws) * use)
    aspect = torch.exp(_uniform(math.log1p(config.aspect) / 2, draws) * use)
    shift_x = _uniform(2 * config.shift, draws) * use
    shift_y = _uniform(2 * config.shift, draws) * use
    if config.affine_chance == 0.0:
        # A flip alone moves whole pixels: no resampling, no blur.
        return torch.where(flip.to(images)[:, None, None, None] < 0, images.flip(-1), images)
    # From output to input coordinates in [-1, 1]: flip, then shear, then rotate and scale.
    # On pictures that aren't square a rotation has to be made in pixels, hence the ratio.
    ratio = images.shape[-2] / images.shape[-1]
    cos, sin = torch.cos(angle), torch.sin(angle)
    xx, xy = cos * scale * aspect, (cos * shear - sin) * scale * aspect
    yx, yy = sin * scale / aspect, (sin * shear + cos) * scale / aspect
    top = torch.stack([xx * flip, xy * ratio, shift_x], dim=1)
    bottom = torch.stack([yx * flip / ratio, yy, shift_y], dim=1)
    theta = torch.stack([top, bottom], dim=1).to(images)
    grid = affine_grid(theta, *images.shape[-2:])
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, as `F.affine_grid` has it with corners not aligned.

    What a row adds and what a column adds are computed apart, which takes a twentieth of the time
    of a product for each pixel (docs/experiments/LOG.md).

    Shape:
        (batch, 2, 3) -> (batch, height, width, 2), in [-1, 1]
    """
    place = {"device": theta.device, "dtype": theta.dtype}
    y, x = ((2 * torch.arange(side, **place) + 1) / side - 1 for side in (height, width))
    of_rows = theta[:, :, 1:2] * y + theta[:, :, 2:]
    of_columns = theta[:, :, :1] * x
    return (of_rows[..., None] + of_columns[:, :, None]).permute(0, 2, 3, 1)


def _color(images: Tensor, config: AugmentConfig, draws: _Draws) -> Tensor:
    """Contrast and saturation about the picture's own means, then brightness."""
    use = _chosen(config.color_chance, draws)
    contrast = 1 + _uniform(config.contrast, draws) * use
    saturation = 1 + _uniform(config.saturation, draws) * use
    brightness = _uniform(config.brightness, draws) * use
    if config.color_chance == 0.0:
        return images
    contrast, saturation, brightness = (
        factor.to(images)[:, None, None, None] for factor in (contrast, saturation, brightness)
    )
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    # contrast * (saturation * (x - grey) + grey - mean) + mean + brightness, gathered by factor
    factor = contrast * saturation
    return torch.addcmul(
        (contrast - factor) * grey + (1 - contrast) * mean + brightness, images, factor
    )


def _erase(images: Tensor, config: AugmentConfig, draws: _Draws) -> Tensor:
    """Noise in a random rectangle of 2 % to 20 % of the area (Zhong et al. 2020)."""
    height, width = images.shape[-2:]
    use = _chosen(config.erase_chance, draws)
    area = 0.02 + 0.18 * draws.rand()
    ratio = torch.exp(_uniform(math.log(3.0), draws))
    rectangle = _rectangle_masks(
        torch.sqrt(area * ratio) * use, torch.sqrt(area / ratio) * use, height, width, draws
    )
    if config.erase_chance == 0.0:
        return images
    # The same noise for all, of which each shows another part: a picture's worth is soon drawn.
    noise = torch.randn(images.shape[1:], generator=draws.generator)
    return torch.where(rectangle.to(images.device)[:, None], noise.to(images), images)


def _rectangle_masks(
    heights: Tensor, widths: Tensor, rows: int, columns: int, draws: _Draws
) -> Tensor:
    """True inside one rectangle per picture; sizes are shares of the sides, places are random.

    Shape:
        (batch,), (batch,) -> (batch, rows, columns)
    """
    tall = (heights.clamp(max=1.0) * rows).round()
    wide = (widths.clamp(max=1.0) * columns).round()
    top = (draws.rand() * (rows - tall + 1)).floor()
    left = (draws.rand() * (columns - wide + 1)).floor()
    y, x = torch.arange(rows), torch.arange(columns)
    inside_y = (y >= top[:, None]) & (y < (top + tall)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + wide)[:, None])
    return inside_y[:, :, None] & inside_x[:, None, :]
