"""The from-scratch lecture's ViT under its own names, built from this library's parts.

    from vitreous.lecture import extract_patches, PatchEncoder, TransformerEncoder, ViT

Pictures are (batch, height, width, channels) here, as in TensorFlow, and `ViT` answers with
probabilities. Nothing is implemented twice: the classes are the model's own parts with the
lecture's settings, and the tests hold them against real TensorFlow and Keras. The way through all
of it is docs/lecture/walkthrough.md.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vitreous.errors import ConfigError, WeightsError
from vitreous.model import initialise, vit
from vitreous.model.config import grid_of
from vitreous.model.layers import Block
from vitreous.model.patches import PatchEmbed, windows
from vitreous.model.presets import preset
from vitreous.model.weights import keras

__all__ = [
    "PatchEncoder",
    "TransformerEncoder",
    "ViT",
    "draw_patches",
    "extract_patches",
    "load_keras",
    "save_keras",
]


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


def draw_patches(
    patches: Tensor, *, columns: int | None = None, channels: int = 3, gap: int = 2
) -> Tensor:
    """Lay square patches out as one picture, with white lines between them.

    Args:
        patches: of one picture, values from 0 to 255: the grid of `extract_patches`, or the same
            as a sequence.
        columns: patches in a row of a sequence; by default it is taken as a square.
        channels: of a pixel.
        gap: width of the lines in pixels.

    Shape:
        (rows, columns, values) or (patches, values) -> (height, width, channels), uint8

    Raises:
        ConfigError: where the numbers don't make a grid of square patches.
    """
    if patches.ndim == 2:
        columns = columns or math.isqrt(len(patches))
        if len(patches) % columns:
            raise ConfigError(f"{len(patches)} patches make no grid of {columns} columns")
        patches = patches.unflatten(0, (-1, columns))
    if patches.ndim != 3:
        raise ConfigError(
            f"patches have the shape {tuple(patches.shape)}: give those of one picture, "
            "(rows, columns, values) or (patches, values)"
        )
    rows, columns, values = patches.shape
    side = math.isqrt(values // channels)
    if side * side * channels != values:
        raise ConfigError(f"{values} values are no square patch of {channels} channels")
    step = side + gap
    drawing = torch.full((rows * step + gap, columns * step + gap, channels), 255.0)
    cells = drawing[gap:, gap:].unflatten(0, (rows, step)).unflatten(2, (columns, step))
    cells[:, :side, :, :side] = patches.view(rows, columns, side, side, channels).transpose(1, 2)
    return drawing.round().clamp(0, 255).to(torch.uint8)


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


def load_keras(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    names: Mapping[str, str] | None = None,
) -> ViT:
    """Read the lecture's model out of a file that Keras wrote; needs h5py, not TensorFlow.

    Args:
        path: ``.weights.h5`` or ``.keras`` of Keras 3, ``.h5`` of tf.keras 2.
        image_size: height and width in pixels, where the patches don't make a square.
        names: our layer's or block's name to a path in the file, where layers can't be told apart
            by shape and number, such as ``{"blocks.0.norm1": "encoder/norm_before"}``.

    Returns:
        The model, in evaluation mode.

    Raises:
        WeightsError: where the file doesn't hold such a model; it names tensors and shapes.
    """
    config, state = keras.load(Path(path), image_size=image_size, names=names)
    units = set(config.head_hidden)
    if len(config.head_hidden) != 2 or len(units) != 1:
        raise WeightsError(
            f"{path} has dense layers of {', '.join(map(str, config.head_hidden)) or 'no'} units "
            "behind its encoders: the lecture's model has two of one width"
        )
    model = ViT(
        config.num_heads,
        config.embed_dim,
        config.num_patches,
        config.depth,
        units.pop(),
        num_classes=config.num_classes,
        patch_size=config.patch_size[0],
        in_channels=config.in_channels,
        image_size=config.image_size,
        head_dim=config.head_dim,
        mlp_dim=config.mlp_dim,
    )
    dtype = next(iter(state.values())).dtype
    model.to(dtype).load_state_dict(state)
    return model.eval()


def save_keras(
    model: vit.ViT,
    path: str | Path,
    *,
    like: str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Write the model so that Keras loads it; needs h5py, not TensorFlow.

    Args:
        model: the lecture's.
        path: ends with ``.weights.h5`` or ``.keras``; with `like`, as that file does.
        like: a file that your own class saved, whose names are kept; by default those of
            docs/lecture/keras_vit.py are written.
        names: as for `load_keras`, of `like`.

    Raises:
        WeightsError: for another model, or one that doesn't fit `like`.
        StorageError: where the file can't be written.
    """
    keras.save(
        Path(path), model.config, model.state_dict(), like=Path(like) if like else None, names=names
    )


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
