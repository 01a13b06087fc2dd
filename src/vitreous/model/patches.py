"""From pixels to patch tokens: one projection, or a short convolutional stem.

The projection is a matrix product over non-overlapping patches; its weight keeps the shape of the
strided convolution that it equals, as in every public checkpoint.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig, grid_of


def extract_patches(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cut pictures into non-overlapping patches, row by row.

    Args:
        images: pictures whose sides are multiples of the patch size.
        patch_size: height and width in pixels.

    Shape:
        (batch, channels, height, width) -> (batch, patches, channels * patch height * patch width)

    Raises:
        ConfigError: where the patches don't fill the picture exactly.

    Example:
        >>> import torch
        >>> extract_patches(torch.zeros(1, 3, 32, 48), (16, 16)).shape
        torch.Size([1, 6, 768])
    """
    grid_of((images.shape[-2], images.shape[-1]), patch_size)
    return (
        windows(images, patch_size, patch_size).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    )


def join_patches(
    patches: Tensor, image_size: tuple[int, int], patch_size: tuple[int, int]
) -> Tensor:
    """Put pictures together again: the reverse of `extract_patches`.

    Shape:
        (batch, patches, channels * patch height * patch width) -> (batch, channels, height, width)

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 48)
        >>> patches = extract_patches(image, (16, 16))
        >>> torch.equal(join_patches(patches, (32, 48), (16, 16)), image)
        True
    """
    grid = grid_of(image_size, patch_size)
    x = patches.view(len(patches), *grid, -1, *patch_size).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(len(patches), -1, *image_size)


def windows(
    images: Tensor,
    size: tuple[int, int],
    stride: tuple[int, int],
    rate: tuple[int, int] = (1, 1),
    padding: Literal["VALID", "SAME"] = "VALID",
) -> Tensor:
    """Cut a grid of windows out of pictures, overlapping or with gaps between or inside them.

    Args:
        images: a batch.
        size: rows and columns of pixels in a window.
        stride: pixels from a window to the next.
        rate: pixels from one of a window's pixels to the next; 1 for neighbours.
        padding: "VALID" leaves out what doesn't fill a window; "SAME" makes as many windows as
            strides fit, with zeros around the picture, the odd one behind it.

    Shape:
        (batch, channels, height, width) -> (batch, channels, rows, columns, size, size)

    Raises:
        ConfigError: where a number is below 1, the padding unknown, or a window larger than the
            picture by twice its stride; one that is a little larger fits no times.
    """
    if min(*size, *stride, *rate) < 1:
        raise ConfigError(f"size {size}, stride {stride} and rate {rate} are at least 1")
    if padding not in ("VALID", "SAME"):
        raise ConfigError(f"padding is '{padding}': it is VALID or SAME")
    for axis in (0, 1):
        reach = (size[axis] - 1) * rate[axis] + 1  # pixels that a window spans
        pixels, step = images.shape[2 + axis], stride[axis]
        if padding == "SAME":
            missing = max((-(-pixels // step) - 1) * step + reach - pixels, 0)
            before_and_behind = (missing // 2, missing - missing // 2)
            images = F.pad(images, (0, 0, *before_and_behind) if axis == 0 else before_and_behind)
            pixels += missing
        if pixels - reach <= -2 * step:  # TensorFlow's own bound; up to it there are no windows
            raise ConfigError(
                f"a window of {size[axis]} px at rate {rate[axis]} spans {reach} px, more than the "
                f"picture's {pixels}: choose smaller ones or padding 'SAME'"
            )
    return _unfold(_unfold(images, 2, size[0], stride[0], rate[0]), 3, size[1], stride[1], rate[1])


def _unfold(images: Tensor, axis: int, size: int, stride: int, rate: int) -> Tensor:
    """Windows along one axis; their pixels become a new last axis."""
    reach = (size - 1) * rate + 1
    if images.shape[axis] < reach:  # as TensorFlow: no window at all
        return images.narrow(axis, 0, 0)[..., None].expand(*[-1] * images.ndim, size)
    return images.unfold(axis, reach, stride)[..., ::rate]


def resize_projection(weight: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """The projection for patches of another size that answers a resized patch alike.

    With B for the bicubic resize of a patch, w' is the least-squares solution of B^T w' = w: where
    patches grow, the answers to resized patches are exactly the old ones.

    Args:
        weight: of the projection.
        patch_size: height and width in pixels wanted.

    Shape:
        (embed, channels, height, width) -> (embed, channels, new height, new width)

    Reference:
        Beyer et al. 2023, "FlexiViT", section 3.4.
    """
    old = (weight.shape[-2], weight.shape[-1])
    if old == patch_size:
        return weight
    pixels = torch.eye(old[0] * old[1], dtype=torch.float64).view(-1, 1, *old)
    resized = F.interpolate(pixels, patch_size, mode="bicubic", antialias=True)
    # Rows are the old pixels' pictures: the transpose of B.
    solved = torch.linalg.pinv(resized.flatten(1)) @ weight.double().flatten(2).flatten(0, 1).T
    return solved.T.reshape(*weight.shape[:2], *patch_size).to(weight.dtype)


def fold_channels(weight: Tensor, in_channels: int) -> Tensor:
    """The projection for pictures of another number of colour channels.

    One channel gets the sum: a grey picture is answered as the same picture in equal colours. Other
    numbers get the old channels in turn, scaled by old / new; where the new number is a multiple of
    the old, equal channels are answered as before.

    Shape:
        (embed, channels, height, width) -> (embed, in_channels, height, width)
    """
    old = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    order = torch.arange(in_channels) % old
    return weight[:, order] * (old / in_channels)


class PatchEmbed(nn.Module):
    """Linear projection of flattened patches (Dosovitskiy et al. 2021, section 3.1).

    Shape:
        (batch, channels, height, width) -> (batch, patches, embed)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        # Only a holder of weight and bias under their usual names and shapes.
        self.proj = nn.Conv2d(
            config.in_channels, config.embed_dim, config.patch_size, config.patch_size
        )

    def forward(self, images: Tensor) -> Tensor:
        patches = extract_patches(images, self.patch_size)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """3x3 convolutions with batch norm instead of one big projection (Xiao et al. 2021).

    The first ones have stride 2 until one position stands for a patch; a linear projection to the
    token's width ends it.

    Shape:
        (batch, channels, height, width) -> (batch, patches, embed)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        layers: list[nn.Module] = []
        channels = config.in_channels
        blocks = config.stem_blocks or (0,) * len(config.stem)
        for width, stride, count in zip(config.stem, config.stem_strides, blocks, strict=True):
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            layers += [ConvBlock(width) for _ in range(count)]
            channels = width
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Linear(channels, config.embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        grid_of((images.shape[-2], images.shape[-1]), self.patch_size)
        images = images.contiguous(memory_format=torch.channels_last)
        return self.proj(self.convs(images).flatten(2).transpose(1, 2))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions and a way around them (He et al. 2016, section 3.3).

    It begins as the identity, whatever `ModelConfig.init` (Goyal et al. 2017, section 5.1).

    Shape:
        (batch, channels, height, width) -> the same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(out)))
