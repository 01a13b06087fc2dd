"""The one configuration from which every Vision Transformer here is built.

Variants (the paper's ViT, DeiT, a compact convolutional transformer, the lecture's model) differ
only in these values; there is no second model class. Building lives in `vit`, named sets of
values in `presets`.
"""

import math
from dataclasses import dataclass
from typing import Literal

from vitreous.errors import ConfigError

Pool = Literal["cls", "mean", "map", "seq", "flatten", "cls+mean", "prefix"]
PositionKind = Literal["learned", "sincos2d", "rope2d", "none"]
Init = Literal["xavier", "identity", "keras2"]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides a ViT's architecture; the defaults are ViT-B/16 at 224 px.

    Args:
        image_size: height and width in pixels; each a multiple of `patch_size`.
        patch_size: height and width of a patch in pixels.
        in_channels: colour channels of a picture.
        num_classes: width of the output; 0 for no head, where the output is what a head would see.
        embed_dim: width of a token.
        depth: number of transformer blocks.
        num_heads: attention heads in each block.
        head_dim: width of each head; ``None`` means ``embed_dim / num_heads``.
        mlp_dim: hidden width of each block's MLP; ``None`` means ``4 * embed_dim``.
        pos_embed: "learned" table, fixed "sincos2d", "rope2d" (patches turn queries and keys), or
            "none".
        rope_theta: ratio of the fastest turn to the slowest of "rope2d".
        class_token: whether a learned class token goes before the patch tokens.
        num_register_tokens: learned tokens without a position (Darcet et al. 2024).
        pool: what the head sees: "cls" the class token, "mean" of the patch tokens, "map" a
            learned query that attends to them (Zhai et al. 2022), "seq" their learned weighted
            mean (Hassani et al. 2021), "flatten" all of them in a row (the lecture), "cls+mean"
            the class token and the patches' mean in a row (Oquab et al. 2024), "prefix" class and
            register tokens in a row (the two tokens of a distilled DeiT).
        fc_norm: whether a norm stands between pooling and head (He et al. 2022, fine-tuned).
        head_hidden: widths of dense layers, each with the activation, before the classifier.
        stem: output channels of 3x3 convolutions, each of the first ones with stride 2 until the
            patch size is reached, that replace the single patch projection; empty for none.
        stem_blocks: residual blocks of two convolutions behind each of those; empty for none.
        qkv_bias: whether query, key and value have a bias.
        pre_norm: whether the tokens are normalised before the first block (Radford et al. 2021).
        qk_norm: whether queries and keys are layer-normalised in each head (Dehghani et al. 2023).
        layer_scale_init: initial factor of LayerScale (Touvron et al. 2021); ``None`` for none.
        gated_mlp: whether the first layer of each MLP is two, one of which, with the activation,
            multiplies the other (Shazeer 2020); `mlp_dim` is the width of each.
        mlp_output_activation: whether the MLP's second layer has the activation too (the lecture).
        final_norm: whether the tokens are normalised after the last block.
        norm_eps: epsilon of every layer norm.
        activation: of the MLPs and of `head_hidden`.
        drop_path_rate: stochastic depth at the last block, rising linearly from 0 at the first.
        dropout: rate after the positions, the attention projection and the MLP layers.
        attention_dropout: rate on the attention weights.
        patch_dropout: share of the patch tokens left out of each training step (Liu et al. 2023).
        init: how the first weights are drawn: see `initialise`.

    Raises:
        ConfigError: for values that contradict each other; nothing is rounded or cropped.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    head_dim: int | None = None
    mlp_dim: int | None = None
    pos_embed: PositionKind = "learned"
    rope_theta: float = 100.0
    class_token: bool = True
    num_register_tokens: int = 0
    pool: Pool = "cls"
    fc_norm: bool = False
    head_hidden: tuple[int, ...] = ()
    stem: tuple[int, ...] = ()
    stem_blocks: tuple[int, ...] = ()
    pre_norm: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_scale_init: float | None = None
    gated_mlp: bool = False
    mlp_output_activation: bool = False
    final_norm: bool = True
    norm_eps: float = 1e-6
    activation: Activation = "gelu"
    drop_path_rate: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    patch_dropout: float = 0.0
    init: Init = "xavier"

    def __post_init__(self) -> None:
        self._check_sizes()
        for name in ("drop_path_rate", "dropout", "attention_dropout", "patch_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"model.{name} is {getattr(self, name)}: it lies in [0, 1)")
        if not 0 < self.norm_eps < math.inf:
            raise ConfigError(f"model.norm_eps is {self.norm_eps}: a number above 0")
        if self.layer_scale_init is not None and not math.isfinite(self.layer_scale_init):
            raise ConfigError(f"model.layer_scale_init is {self.layer_scale_init}: a number")
        if self.pool in ("cls", "cls+mean", "prefix") and not self.class_token:
            raise ConfigError(
                f"model.pool is '{self.pool}' but model.class_token is false: set class_token = "
                "true, or pool to 'mean', 'map', 'seq' or 'flatten'"
            )
        if self.pool == "flatten" and self.patch_dropout:
            raise ConfigError(
                "model.pool 'flatten' needs every token, so model.patch_dropout has to be 0"
            )
        if self.pos_embed == "sincos2d" and self.embed_dim % 4:
            raise ConfigError(
                f"model.embed_dim {self.embed_dim} is not a multiple of 4, as 'sincos2d' needs"
            )
        head_dim = self.attention_dim // self.num_heads
        if self.pos_embed == "rope2d" and (head_dim % 4 or not 0 < self.rope_theta < math.inf):
            raise ConfigError(
                f"model.pos_embed 'rope2d' needs heads of a multiple of 4 channels, not "
                f"{head_dim}, and a model.rope_theta above 0, not {self.rope_theta}"
            )

    def _check_sizes(self) -> None:
        positive = {
            "in_channels": self.in_channels,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "head_dim": 1 if self.head_dim is None else self.head_dim,
            "mlp_dim": 1 if self.mlp_dim is None else self.mlp_dim,
            "image_size": min(self.image_size),
            "patch_size": min(self.patch_size),
            "stem": min(self.stem, default=1),
            "head_hidden": min(self.head_hidden, default=1),
        }
        for name, value in positive.items():
            if value < 1:
                raise ConfigError(f"model.{name} has {value}: it is at least 1")
        for name in ("num_classes", "num_register_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"model.{name} is negative: it is at least 0")
        grid_of(self.image_size, self.patch_size)
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ConfigError(
                f"model.embed_dim {self.embed_dim} is not a multiple of num_heads "
                f"{self.num_heads}: change one of them or set head_dim"
            )
        if self.stem:
            self.stem_strides  # noqa: B018 - computing it is the check
        blocks = self.stem_blocks
        if blocks and (len(blocks) != len(self.stem) or min(blocks) < 0):
            raise ConfigError(
                f"model.stem_blocks is {blocks}: it has a number of 0 or more for each of the "
                f"{len(self.stem)} convolutions of model.stem"
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return grid_of(self.image_size, self.patch_size)

    @property
    def num_patches(self) -> int:
        """Patch tokens of one picture."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def num_tokens(self) -> int:
        """All tokens of one picture, class and register tokens included."""
        return self.num_patches + int(self.class_token) + self.num_register_tokens

    @property
    def attention_dim(self) -> int:
        """Width of all heads together."""
        return self.num_heads * (self.head_dim or self.embed_dim // self.num_heads)

    @property
    def mlp_hidden_dim(self) -> int:
        """Hidden width of each block's MLP."""
        return self.mlp_dim or 4 * self.embed_dim

    @property
    def pooled_dim(self) -> int:
        """Width of what the pooling gives."""
        tokens = {
            "flatten": self.num_patches,
            "cls+mean": 2,
            "prefix": 1 + self.num_register_tokens,
        }
        return tokens.get(self.pool, 1) * self.embed_dim

    @property
    def stem_strides(self) -> tuple[int, ...]:
        """Stride of each convolution of the stem; their product is the patch size."""
        height, width = self.patch_size
        halvings = height.bit_length() - 1
        if height != width or height != 2**halvings or halvings > len(self.stem):
            raise ConfigError(
                f"model.stem with {len(self.stem)} convolutions reaches square patches of "
                f"{', '.join(str(2**n) for n in range(len(self.stem) + 1))} px, "
                f"not {height}x{width}"
            )
        return (2,) * halvings + (1,) * (len(self.stem) - halvings)


def grid_of(image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches in a picture.

    Raises:
        ConfigError: where the patches don't fill the picture exactly.
    """
    for side, pixels, patch in zip(("height", "width"), image_size, patch_size, strict=True):
        if pixels % patch:
            below = pixels - pixels % patch
            nearest = f"{below} or {below + patch}" if below else f"{patch}"
            raise ConfigError(
                f"image {side} {pixels} px is not a multiple of the patch size {patch}: "
                f"the nearest that fit are {nearest}"
            )
    return image_size[0] // patch_size[0], image_size[1] // patch_size[1]
