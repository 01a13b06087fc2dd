"""Attention with wide heads, folded: the same answers with fewer operations at inference.

A query meets a key as (x Wq + bq) (y Wk + bk)^T. Multiplied out, y enters through Wq Wk^T alone,
and what doesn't depend on y is the same for all keys, so softmax drops it. Values and the output
projection multiply out the same way. Where a head is wider than about half a token, as in the
lecture, the products are smaller matrices than their factors. Training keeps the factors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.layers import Attention
from vitreous.model.vit import ViT


class FoldedAttention(nn.Module):
    """One attention layer, multiplied out: keys and values are the tokens themselves.

    Per head the query is x (Wq Wk^T) + Wk bq and the output weight Wv Wo; the output bias gains
    bv Wo, since attention weights add up to 1. Computed in float64, then rounded once.

    Args:
        attention: without query and key norms and not rotated; its dropout is left out.

    Shape:
        (batch, tokens, embed) -> (batch, tokens, embed)
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads, weight = attention.num_heads, attention.qkv.weight
        embed = weight.shape[1]
        # (heads, head_dim, embed) and (heads, head_dim)
        q, k, v = weight.detach().double().view(3, heads, -1, embed)
        bias = attention.qkv.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        bq, _, bv = bias.double().view(3, heads, -1)
        out = attention.proj.weight.detach().double().view(embed, heads, -1)
        self.num_heads = heads
        self.scale = q.shape[1] ** -0.5
        like = {"device": weight.device, "dtype": weight.dtype}
        self.query = nn.Linear(embed, heads * embed, **like)
        self.proj = nn.Linear(heads * embed, embed, **like)
        with torch.no_grad():
            query = torch.einsum("hde,hdf->hfe", q, k).reshape(heads * embed, embed)
            output = torch.einsum("ehd,hdf->ehf", out, v).reshape(embed, heads * embed)
            output_bias = attention.proj.bias.double() + torch.einsum("ehd,hd->e", out, bv)
            self.query.weight.copy_(query)
            self.query.bias.copy_(torch.einsum("hd,hde->he", bq, k).flatten())
            self.proj.weight.copy_(output)
            self.proj.bias.copy_(output_bias)
        self.requires_grad_(False)

    def forward(self, x: Tensor, rotation: None = None) -> Tensor:
        batch, tokens, embed = x.shape
        query = self.query(x).view(batch, tokens, self.num_heads, embed).transpose(1, 2)
        keys = x[:, None].expand(-1, self.num_heads, -1, -1)
        x = F.scaled_dot_product_attention(query, keys, keys, scale=self.scale)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, -1))


def is_cheaper(attention: Attention, tokens: int) -> bool:
    """Whether folding saves multiplications for pictures of so many tokens.

    Per token and head, with width E and head width d: 4 E d + 2 T d against 2 E^2 + 2 T E.
    """
    embed = attention.qkv.in_features
    head_dim = attention.proj.in_features // attention.num_heads
    return head_dim * (4 * embed + 2 * tokens) > embed * (2 * embed + 2 * tokens)


def fold(model: ViT) -> ViT:
    """Fold every attention that gains by it, in place: from here on the model is for inference.

    Args:
        model: of any kind; attention with query and key norms or rotations stays as it is.

    Returns:
        The same model.

    Example:
        >>> from vitreous.model.presets import preset
        >>> model = ViT(preset("lecture-small", image_size=(32, 32), embed_dim=8, head_dim=8))
        >>> type(fold(model).blocks[0].attn).__name__
        'FoldedAttention'
    """
    for block in model.blocks:
        attention = block.attn
        between = model.config.qk_norm or model.config.pos_embed == "rope2d"
        if not isinstance(attention, Attention) or between:
            continue
        if is_cheaper(attention, model.config.num_tokens):
            block.attn = FoldedAttention(attention)
    return model.eval()
