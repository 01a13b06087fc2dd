"""The lecture's functions and layers, one after another, made of the model's own parts."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model import initialise, vit
from vitreous.model.config import grid_of
from vitreous.model.layers import Block
from vitreous.model.patches import PatchEmbed, windows
from vitreous.model.presets import preset


def extract_patches(
    images: Tensor,
    sizes: Sequence[int],
    strides: Sequence[int],
    rates: Sequence[int],
    padding: Literal["VALID", "SAME"],
) -> Tensor:
    """Cut patches out of pictures: `tf.image.extract_patches`, to the bit.

    Args:
        images: a batch.
        sizes: (1, height, width, 1) of a patch in pixels.
        strides: (1, rows, columns, 1) in pixels from a patch to the next.
        rates: (1, rows, columns, 1) in pixels between neighbours inside a patch.
        padding: "VALID" leaves out what doesn't fill a patch; "SAME" pads with zeros.

    Shape:
        (batch, height, width, channels) -> (batch, rows, columns, patch height * width * channels)

    Raises:
        ConfigError: for a single picture without a batch axis, or wrong numbers.

    Example:
        >>> patches = extract_patches(
        ...     torch.zeros(1, 256, 256, 3), [1, 16, 16, 1], [1, 16, 16, 1], [1, 1, 1, 1], "VALID"
        ... )
        >>> patches.shape
        torch.Size([1, 16, 16, 768])
    """
    size = _middle("sizes", sizes)
    cut = windows(
        _channels_first(images),
        size,
        _middle("strides", strides),
        _middle("rates", rates),
        padding,
    )
    return cut.permute(0, 2, 3, 4, 5, 1).flatten(3)


class PatchEncoder(nn.Module):
    """Patches through a dense layer, plus a learned vector for each position.

    The lecture looks that vector up in an embedding at 0, 1, ..., num_patches - 1, which is the
    whole table in its own order; so the table is simply added.

    Args:
        num_patches: of a picture.
        hidden_size: width of a token.
        patch_size: side in pixels.
        in_channels: of a picture.
        image_size: height and width in pixels, where the patches don't make a square.

    Shape:
        (batch, height, width, channels) -> (batch, num_patches, hidden_size)
    """

    def __init__(
        self,
        num_patches: int,
        hidden_size: int,
        *,
        patch_size: int = 16,
        in_channels: int = 3,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        sizes = _sizes(num_patches, patch_size, image_size)
        self.config = preset("lecture", embed_dim=hidden_size, in_channels=in_channels, **sizes)
        self.patch_embed = PatchEmbed(self.config)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_patches, hidden_size))
        initialise.keras2(self, self.config.num_heads)

    def forward(self, images: Tensor) -> Tensor:
        return self.patch_embed(_channels_first(images)) + self.pos_embed


class TransformerEncoder(Block):
    """The lecture's encoder: each head as wide as the token, both dense layers with GELU.

    Args:
        num_heads: of the attention.
        hidden_size: width of a token, of each head and of both dense layers.

    Shape:
        (batch, tokens, hidden_size) -> (batch, tokens, hidden_size)
    """

    def __init__(self, num_heads: int, hidden_size: int) -> None:
        widths = {"embed_dim": hidden_size, "head_dim": hidden_size, "mlp_dim": hidden_size}
        super().__init__(preset("lecture", num_heads=num_heads, **widths), drop_path_rate=0.0)
        initialise.keras2(self, num_heads)


class ViT(vit.ViT):
    """The lecture's whole model: encoder, flatten, two dense layers, softmax.

    Args:
        num_heads: of each attention.
        hidden_size: width of a token and, unless said, of each head and of the MLP.
        num_patches: of a picture.
        num_layers: transformer encoders.
        num_dense_units: width of the two dense layers behind them.
        num_classes: width of the answer.
        patch_size: side in pixels.
        in_channels: of a picture.
        image_size: height and width in pixels, where the patches don't make a square.
        head_dim: width of each head.
        mlp_dim: hidden width of each encoder's dense layers.
        class_token: the paper's way instead of flattening: a learned token goes before the
            patches and the dense layers see what it has become. It makes the head independent of
            the number of patches, where flatten needs a weight for each token's each value.

    Shape:
        (batch, height, width, channels) -> probabilities (batch, num_classes)

    Example:
        >>> model = ViT(2, 48, 4, 1, 8, patch_size=8)
        >>> model(torch.zeros(5, 16, 16, 3)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        num_heads: int,
        hidden_size: int,
        num_patches: int,
        num_layers: int,
        num_dense_units: int,
        *,
        num_classes: int = 3,
        patch_size: int = 16,
        in_channels: int = 3,
        image_size: tuple[int, int] | None = None,
        head_dim: int | None = None,
        mlp_dim: int | None = None,
        class_token: bool = False,
    ) -> None:
        super().__init__(
            preset(
                "lecture",
                num_heads=num_heads,
                embed_dim=hidden_size,
                head_dim=head_dim or hidden_size,
                mlp_dim=mlp_dim or hidden_size,
                depth=num_layers,
                head_hidden=(num_dense_units, num_dense_units),
                num_classes=num_classes,
                in_channels=in_channels,
                class_token=class_token,
                pool="cls" if class_token else "flatten",
                **_sizes(num_patches, patch_size, image_size),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(_channels_first(images)).softmax(dim=-1)


def _channels_first(images: Tensor) -> Tensor:
    if images.ndim != 4:
        raise ConfigError(
            f"pictures have the shape {tuple(images.shape)}, but a batch has four axes (batch, "
            "height, width, channels): add the batch axis with images[None]"
        )
    return images.permute(0, 3, 1, 2)


def _middle(name: str, values: Sequence[int]) -> tuple[int, int]:
    """The two numbers for height and width, between two ones for batch and channels."""
    if len(values) != 4 or values[0] != 1 or values[3] != 1:
        raise ConfigError(f"{name} is {list(values)}: it has the form [1, height, width, 1]")
    return values[1], values[2]


def _sizes(num_patches: int, patch_size: int, image_size: tuple[int, int] | None) -> dict[str, Any]:
    """Picture and patch size for a configuration."""
    if image_size is None:
        side = math.isqrt(num_patches)
        if side * side != num_patches:
            raise ConfigError(
                f"{num_patches} patches make no square: give image_size=(height, width) in pixels"
            )
        image_size = (side * patch_size, side * patch_size)
    sizes = {"image_size": image_size, "patch_size": (patch_size, patch_size)}
    count = math.prod(grid_of(image_size, (patch_size, patch_size)))
    if count != num_patches:
        raise ConfigError(f"{image_size} px make {count} patches, not {num_patches}")
    return sizes
