"""From pixels to patch tokens: one projection, or a short convolutional stem.

The projection is a matrix product over non-overlapping patches; its weight keeps the shape of the
strided convolution that it equals, as in every public checkpoint.
"""

import torch.nn.functional as F
from torch import Tensor, nn

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
    batch, channels, height, width = images.shape
    rows, columns = grid_of((height, width), patch_size)
    patches = images.view(batch, channels, rows, patch_size[0], columns, patch_size[1])
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)


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
        for width, stride in zip(config.stem, config.stem_strides, strict=True):
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Linear(channels, config.embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        grid_of((images.shape[-2], images.shape[-1]), self.patch_size)
        return self.proj(self.convs(images).flatten(2).transpose(1, 2))
