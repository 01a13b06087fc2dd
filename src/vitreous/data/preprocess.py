"""Resize, crop, normalise: one plain definition for training, prediction, export and serving.

Two pure functions, so that the first half can be cached as bytes: `fit` makes a uint8 picture of
the model's size from one of any size, `normalise` turns such bytes into the model's input.
`exporting.fitting` says the first once more in operations that a graph can hold.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.errors import ConfigError

#: That a picture is scaled to; a file that says more would have every picture fill the memory.
MOST_PIXELS_A_SIDE = 4096


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the model's input; travels with the weights.

    Args:
        image_size: height and width in pixels that the model sees.
        resize: height and width in pixels that the picture is scaled to cover before the centre
            crop; ``None`` means `image_size`.
        interpolation: of the antialiased resize.
        mean: per channel, on a scale of 0 to 1, subtracted.
        std: per channel, on a scale of 0 to 1, divided by.
        mirror: whether an answer is the mean of those for the picture and for its mirror image:
            more accurate, at twice the cost.
    """

    image_size: tuple[int, int] = (224, 224)
    resize: tuple[int, int] | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = False

    def __post_init__(self) -> None:
        cover = self.cover
        if min(self.image_size) < 1:
            raise ConfigError(f"preprocess.image_size {self.image_size} is at least 1 px a side")
        if max(cover) > MOST_PIXELS_A_SIDE:
            raise ConfigError(
                f"pictures scaled to {cover[0]}x{cover[1]} px: at most {MOST_PIXELS_A_SIDE} a side"
            )
        if cover[0] < self.image_size[0] or cover[1] < self.image_size[1]:
            raise ConfigError(
                f"preprocess.resize {cover} is smaller than image_size {self.image_size}: "
                "the crop would reach outside the picture"
            )
        if not all(0 < std < math.inf for std in self.std):
            raise ConfigError(f"preprocess.std is {list(self.std)}: above 0 in every channel")
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"preprocess.mean is {list(self.mean)}: a number in every channel")

    @property
    def cover(self) -> tuple[int, int]:
        """Height and width in pixels that a picture is scaled to cover before the crop."""
        return self.resize or self.image_size

    def at(self, image_size: tuple[int, int]) -> "Preprocess":
        """The same for another size, with the same share of the picture cropped away."""
        if self.resize is None:
            return replace(self, image_size=image_size)
        height, width = (
            round(side * cover / own)
            for side, cover, own in zip(image_size, self.resize, self.image_size, strict=True)
        )
        return replace(self, image_size=image_size, resize=(height, width))


#: How many times the part that is seen a picture may be long before its ends are cut off.
REACH = 16


def fit(picture: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Scale a picture until it covers the wanted size, then crop its centre.

    Args:
        picture: upright RGB of any size.
        preprocess: sizes and interpolation.

    Shape:
        (height, width, 3) uint8 -> (image height, image width, 3) uint8
    """
    target_height, target_width = preprocess.cover
    height, width = picture.shape[:2]
    # The axis along which there is nothing to spare: so many pixels become so many. It comes out
    # exactly; the other is rounded down, as torchvision does it.
    by_height = target_height * width >= target_width * height
    few, become = (height, target_height) if by_height else (width, target_width)
    # A picture of 1 x 20 000 pixels would take gigabytes when scaled up, for ends never seen.
    picture = _centre(
        picture, *(-(-REACH * target * few // become) for target in (target_height, target_width))
    )
    height, width = picture.shape[:2]
    new_height, new_width = height * become // few, width * become // few
    if (new_height, new_width) != (height, width):
        picture = _resize(picture, (new_height, new_width), preprocess.interpolation)
    top = (new_height - preprocess.image_size[0]) // 2
    left = (new_width - preprocess.image_size[1]) // 2
    bottom, right = top + preprocess.image_size[0], left + preprocess.image_size[1]
    return np.ascontiguousarray(picture[top:bottom, left:right])


def seen_part(height: int, width: int, preprocess: Preprocess) -> tuple[float, ...]:
    """Which part of an upright picture `fit` keeps.

    Args:
        height: of the picture, in pixels.
        width: likewise.
        preprocess: sizes.

    Returns:
        Left, top, width and height, as shares of the picture's own width and height.

    Example:
        >>> seen_part(100, 200, Preprocess((50, 50)))
        (0.25, 0.0, 0.5, 1.0)
    """
    scale = max(preprocess.cover[0] / height, preprocess.cover[1] / width)
    wide = min(1.0, preprocess.image_size[1] / (scale * width))
    high = min(1.0, preprocess.image_size[0] / (scale * height))
    return (1 - wide) / 2, (1 - high) / 2, wide, high


def _resize(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Scale with antialiasing, as Pillow does: width first, bytes between the two passes."""
    channels_last = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = F.interpolate(
        channels_last, size, mode=interpolation, align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0).numpy()


def _centre(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of a picture, of at most this size or a pixel more, exactly about its centre."""
    top, left = max(0, picture.shape[0] - height) // 2, max(0, picture.shape[1] - width) // 2
    return picture[top : picture.shape[0] - top, left : picture.shape[1] - left]


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Bytes to the model's input.

    Args:
        pixels: uint8, or floats on the same scale of 0 to 255 (after augmentation).
        preprocess: mean and std.

    Shape:
        (batch, height, width, 3) -> (batch, 3, height, width), float32
    """
    mean = torch.tensor(preprocess.mean, device=pixels.device).view(3, 1, 1) * 255.0
    std = torch.tensor(preprocess.std, device=pixels.device).view(3, 1, 1) * 255.0
    # Turned first, while a pixel is a byte: less to move.
    return (pixels.permute(0, 3, 1, 2).contiguous().float() - mean).div_(std)


def denormalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """The model's input back to bytes, for looking at.

    Shape:
        (batch, 3, height, width) -> (batch, height, width, 3) uint8
    """
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    pixels = (images.cpu().permute(0, 2, 3, 1) * std + mean) * 255
    return pixels.round().clamp(0, 255).to(torch.uint8)
