"""The parts of a transformer block, under timm's names so that state dicts carry over.

Nothing here knows about pictures; patches are in `patches`, the whole model in `vit`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.chance import Dropout, DropPath, current_draws, dropout
from vitreous.model.config import Activation, ModelConfig
from vitreous.model.positions import rotate


def quick_gelu(x: Tensor) -> Tensor:
    """Compute x * sigmoid(1.702 x), the approximation that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016, section 2)."""
    return F.gelu(x, approximate="tanh")


#: Cosines and sines, (batch or 1, 1, tokens, head_dim) each; none turned are 1 and 0.
Rotation = tuple[Tensor, Tensor]

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2).

    `head_dim` is free: the heads together may be wider or narrower than a token, as in the
    lecture, where each of the heads is as wide as the token itself. With a rotation, queries and
    keys are turned by it (see `positions.rope2d`).

    Shape:
        (batch, tokens, embed) -> (batch, tokens, embed)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        width = config.attention_dim
        head_dim = width // config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * width, bias=config.qkv_bias)
        eps = config.norm_eps
        self.q_norm = nn.LayerNorm(head_dim, eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(head_dim, eps) if config.qk_norm else nn.Identity()
        self.proj = nn.Linear(width, config.embed_dim)
        self.dropout = Dropout(config.dropout)
        self.attention_dropout = config.attention_dropout

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1)
        # Taken apart first, the way back makes no copy of all three in another order.
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # (batch, heads, tokens, dim)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        rate = self.attention_dropout if self.training else 0.0
        x = attend(q, k, v, rate)
        x = x.transpose(1, 2).reshape(batch, tokens, -1)
        return self.dropout(self.proj(x))


def attend(q: Tensor, k: Tensor, v: Tensor, dropout_rate: float = 0.0) -> Tensor:
    """Scaled dot-product attention.

    Shape:
        three of (batch, heads, tokens, head_dim) -> the same
    """
    is_short = q.dtype == torch.bfloat16 and k.shape[-2] <= 4 * k.shape[-1]
    # The fused kernels' own dropout draws nothing for the rest of a batch (see `chance`), for which
    # a mask of the whole batch is there for a moment.
    is_drawn = dropout_rate > 0 and current_draws() is not None
    if is_drawn or (q.device.type == "cpu" and (is_short or dropout_rate)):
        # The fused kernel of PyTorch's CPU builds is up to eight times as slow here, backwards
        # most of all (docs/experiments/LOG.md). With more tokens than that, the weights kept for
        # the way back would outgrow the activations of an MLP of the usual width. Dropout it
        # doesn't have.
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return dropout(weights.softmax(-1), dropout_rate) @ v
    if q.device.type == "mps":  # views are read wrongly there (pytorch issue 181133, until 2.12)
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_rate)


class Mlp(nn.Module):
    """Two dense layers with an activation between them, and behind them for the lecture.

    Gated, the first layer gives twice the width, and its first half, with the activation,
    multiplies the second (Shazeer 2020, "GLU Variants Improve Transformer", section 2; with "silu"
    it is SwiGLU).

    Shape:
        (..., embed) -> (..., embed)
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        dropout: float = 0.0,
        output_activation: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(width, 2 * hidden if gated else hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.act = ACTIVATIONS[activation]
        self.output_activation = output_activation
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            x = self.act(gate) * x
        else:
            x = self.act(x)
        x = self.fc2(self.dropout(x))
        return self.dropout(self.act(x) if self.output_activation else x)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021, section 2)."""

    def __init__(self, width: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """One pre-norm transformer block (Dosovitskiy et al. 2021, equations 2 and 3).

    Shape:
        (batch, tokens, embed) -> (batch, tokens, embed)
    """

    def __init__(self, config: ModelConfig, drop_path_rate: float) -> None:
        super().__init__()
        width, eps, scale = config.embed_dim, config.norm_eps, config.layer_scale_init
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(config)
        self.ls1 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(
            width,
            config.mlp_hidden_dim,
            config.activation,
            config.dropout,
            config.mlp_output_activation,
            config.gated_mlp,
        )
        self.ls2 = nn.Identity() if scale is None else LayerScale(width, scale)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), rotation)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))
