"""The Vision Transformer, whole: patches, tokens, blocks, pooling, head.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", with the variations that `ModelConfig`
names. State-dict keys are timm's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model import initialise
from vitreous.model.chance import Dropout, random_order, recomputed
from vitreous.model.config import ModelConfig, grid_of
from vitreous.model.layers import ACTIVATIONS, Block, Mlp, Rotation, attend
from vitreous.model.patches import ConvStem, PatchEmbed
from vitreous.model.positions import resize_positions, rope2d, sincos2d

#: The modules behind the last norm, which turn tokens into one vector, and that into classes.
POOLING = ("attn_pool", "fc_norm")
HEAD = ("head_mlp", "head")


class ViT(nn.Module):
    """A Vision Transformer classifier.

    Shape:
        (batch, channels, height, width), normalised -> logits (batch, classes), or without a head
        (batch, features)

    Example:
        >>> import torch
        >>> from vitreous.model.presets import preset
        >>> model = ViT(preset("Ti/16"))
        >>> model(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 1000])
    """

    pos_embed: Tensor | None
    sincos: Tensor
    rope_cos: Tensor
    rope_sin: Tensor
    #: Whether training keeps no more of a block than its input: less memory, a third more work.
    grad_checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.patch_embed = ConvStem(config) if config.stem else PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.class_token else None
        registers = config.num_register_tokens
        self.reg_token = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        if config.pos_embed == "learned":
            positions = config.num_patches + int(config.class_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        else:
            self.pos_embed = None
        self._register_fixed_positions()
        self.pos_drop = Dropout(config.dropout)
        self.norm_pre = nn.LayerNorm(width, config.norm_eps) if config.pre_norm else nn.Identity()
        last = max(config.depth - 1, 1)
        self.blocks = nn.ModuleList(
            Block(config, config.drop_path_rate * index / last) for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, config.norm_eps) if config.final_norm else nn.Identity()
        self.attn_pool = _pooling_module(config)
        features = config.pooled_dim
        self.fc_norm = nn.LayerNorm(features, config.norm_eps) if config.fc_norm else nn.Identity()
        self.head_mlp = nn.ModuleList()
        for hidden in config.head_hidden:
            self.head_mlp.append(nn.Linear(features, hidden))
            features = hidden
        self.act = ACTIVATIONS[config.activation]
        classes = config.num_classes
        self.head = nn.Linear(features, classes) if classes else nn.Identity()
        if config.init == "keras2":
            initialise.keras2(self, config.num_heads)
        elif config.init == "identity":
            initialise.identity(self)
        else:
            initialise.xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_tokens(images))

    def forward_tokens(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """All tokens after the last block and norm: class token, registers, patches.

        Args:
            images: normalised pictures.
            visible: which patch tokens of each picture the blocks see; ``None`` for all, but for
                those that `ModelConfig.patch_dropout` takes.

        Shape:
            (batch, channels, height, width), (batch, visible) int64 -> (batch, tokens, embed)

        Raises:
            ConfigError: where patches don't fill the picture, or its size isn't the configured
                one and the head is "flatten".
        """
        image_size = (images.shape[-2], images.shape[-1])
        if self.config.pool == "flatten" and image_size != self.config.image_size:
            raise ConfigError(
                f"pictures are {image_size[0]}x{image_size[1]} px, but a 'flatten' head only fits "
                f"{self.config.image_size[0]}x{self.config.image_size[1]} px"
            )
        x = self.patch_embed(images)
        x = self.pos_drop(self._add_prefix_and_positions(x, image_size))
        visible = self._draw_visible(x) if visible is None else visible
        rotation = self._rotation(x, image_size, visible)
        x = self.norm_pre(x if visible is None else self._keep_patches(x, visible))
        again = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = recomputed(block, x, rotation) if again else block(x, rotation)
        return self.norm(x)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Pool the tokens and classify.

        Shape:
            (batch, tokens, embed) -> (batch, classes)
        """
        x = self.pool(tokens)
        for layer in self.head_mlp:
            x = self.act(layer(x))
        return self.head(x)

    def pool(self, tokens: Tensor) -> Tensor:
        """What the head sees of the tokens: see `ModelConfig.pool`.

        Shape:
            (batch, tokens, embed) -> (batch, features)
        """
        return self.fc_norm(self._pool(tokens))

    def _pool(self, tokens: Tensor) -> Tensor:
        kind = self.config.pool
        if kind == "cls":
            return tokens[:, 0]
        if kind == "prefix":
            return tokens[:, : self.num_prefix_tokens].flatten(1)
        patches = tokens[:, self.num_prefix_tokens :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        if kind == "cls+mean":
            return torch.cat([tokens[:, 0], patches.mean(1)], dim=1)
        return patches.mean(1) if kind == "mean" else patches.flatten(1)

    @property
    def num_prefix_tokens(self) -> int:
        """Class and register tokens."""
        return int(self.config.class_token) + self.config.num_register_tokens

    def _add_prefix_and_positions(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        grid = grid_of(image_size, self.config.patch_size)
        prefix = []
        if self.config.pos_embed == "sincos2d":
            is_own = grid == self.config.grid_size
            table = self.sincos if is_own else sincos2d(grid, x.shape[-1])
            x = x + table.to(x)
        elif self.pos_embed is not None:
            cls_position = self.pos_embed[:, : int(self.config.class_token)]
            patch_positions = self.pos_embed[:, int(self.config.class_token) :]
            x = x + resize_positions(patch_positions, self.config.grid_size, grid)
            if self.cls_token is not None:
                prefix.append(self.cls_token + cls_position)
        if self.cls_token is not None and not prefix:
            prefix.append(self.cls_token)
        if self.reg_token is not None:
            prefix.append(self.reg_token)
        return torch.cat([token.expand(x.shape[0], -1, -1) for token in prefix] + [x], dim=1)

    def _register_fixed_positions(self) -> None:
        """Keep what is computed for the configured size where the weights are, but in no file."""
        config = self.config
        if config.pos_embed == "sincos2d":
            table = sincos2d(config.grid_size, config.embed_dim)
            self.register_buffer("sincos", table, persistent=False)
        elif config.pos_embed == "rope2d":
            head_dim = config.attention_dim // config.num_heads
            cos, sin = rope2d(config.grid_size, head_dim, config.rope_theta)
            self.register_buffer("rope_cos", cos, persistent=False)
            self.register_buffer("rope_sin", sin, persistent=False)

    def _rotation(
        self, x: Tensor, image_size: tuple[int, int], visible: Tensor | None
    ) -> Rotation | None:
        """Turns of every token: those of the patches it has, and none for what stands before."""
        if self.config.pos_embed != "rope2d":
            return None
        config = self.config
        grid = grid_of(image_size, config.patch_size)
        turns = (self.rope_cos, self.rope_sin)
        if grid != config.grid_size:
            turns = rope2d(grid, config.attention_dim // config.num_heads, config.rope_theta)
        cos, sin = (turn[None, None].to(x.device) for turn in turns)
        if visible is not None:
            cos, sin = cos[0, 0, visible][:, None], sin[0, 0, visible][:, None]
        before = (0, 0, self.num_prefix_tokens, 0)
        return F.pad(cos, before, value=1.0), F.pad(sin, before)

    def _draw_visible(self, x: Tensor) -> Tensor | None:
        """A random share of the patch tokens of each picture, in training; ``None`` for all."""
        if not self.training or self.config.patch_dropout == 0.0:
            return None
        count = x.shape[1] - self.num_prefix_tokens
        kept = max(1, round(count * (1 - self.config.patch_dropout)))
        return random_order(len(x), count, x.device)[:, :kept]

    def _keep_patches(self, x: Tensor, kept: Tensor) -> Tensor:
        prefix, patches = x.split([self.num_prefix_tokens, x.shape[1] - self.num_prefix_tokens], 1)
        chosen = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[-1]))
        return torch.cat([prefix, chosen], dim=1)


class SequencePool(nn.Module):
    """Mean of the tokens weighted by a learned softmax score (Hassani et al. 2021, section 3.2).

    Shape:
        (batch, tokens, embed) -> (batch, embed)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        weights = self.score(tokens).softmax(dim=1)
        return (weights * tokens).sum(dim=1)


class AttentionPool(nn.Module):
    """A learned query attends to the tokens, then an MLP (Zhai et al. 2022, section 2.3).

    Shape:
        (batch, tokens, embed) -> (batch, embed)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.num_heads = config.num_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, config.attention_dim)
        self.kv = nn.Linear(width, 2 * config.attention_dim)
        self.proj = nn.Linear(config.attention_dim, width)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.mlp = Mlp(width, config.mlp_hidden_dim, config.activation)
        nn.init.trunc_normal_(self.latent, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, _ = tokens.shape
        q = self.q(self.latent.expand(batch, -1, -1)).view(batch, 1, self.num_heads, -1)
        k, v = self.kv(tokens).view(batch, count, 2, self.num_heads, -1).unbind(2)
        x = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        x = self.proj(x.transpose(1, 2).reshape(batch, 1, -1))
        return (x + self.mlp(self.norm(x)))[:, 0]


def _pooling_module(config: ModelConfig) -> nn.Module | None:
    if config.pool == "seq":
        return SequencePool(config.embed_dim)
    return AttentionPool(config) if config.pool == "map" else None
