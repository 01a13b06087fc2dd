"""Attention as it is and multiplied through the blocks: where information can have come from.

Neither looks at values or at a class, so both answer the same whatever is asked for.
"""

import torch
from torch import Tensor

from vitreous.explanation.capture import Captured, capture
from vitreous.model.vit import ViT


def rollout(model: ViT, images: Tensor) -> Tensor:
    """Attention weights averaged over the heads, halved with the way around them, and multiplied.

    Shape:
        (batch, channels, height, width) -> (batch, patches)

    Reference:
        Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """
    captured = capture(model, images, gradients=False)
    row = reading(model, captured)
    for weights in reversed(captured.attention):
        row = (row + looked_at(row, weights.detach().mean(1))) / 2
    return row[:, model.num_prefix_tokens :]


def attention(
    model: ViT, images: Tensor, layer: int | None = None, head: int | None = None
) -> Tensor:
    """What is looked at, from the tokens that the pooling reads.

    Args:
        model: in evaluation mode.
        images: normalised.
        layer: index of the block; by default what is looked at last: by the pooling where that
            attends, else in the last block.
        head: index of the head; by default the mean of all.

    Shape:
        (batch, channels, height, width) -> (batch, patches)
    """
    captured = capture(model, images, gradients=False)
    if layer is None and head is None and captured.pooling is not None:
        return reading(model, captured)[:, model.num_prefix_tokens :]
    by_head = attention_by_head(model, captured)[:, -1 if layer is None else layer]
    return by_head.mean(1) if head is None else by_head[:, head]


def attention_by_head(model: ViT, captured: Captured) -> Tensor:
    """What each head of each block looks at, from the tokens that the pooling reads.

    Shape:
        -> (batch, layers, heads, patches)
    """
    row = reading(model, captured)
    seen = [
        (row[:, None, None] @ weights.detach())[:, :, 0, model.num_prefix_tokens :]
        for weights in captured.attention
    ]
    return torch.stack(seen, dim=1)


def reading(model: ViT, captured: Captured) -> Tensor:
    """Share of each token in what the head sees: the row that stands for the whole answer.

    The class token's own where it alone is read; even shares where several tokens are read alike;
    the weights that "map" and "seq" have learned.

    Shape:
        -> (batch, tokens), each row sums to 1
    """
    batch, tokens, _ = captured.tokens.shape
    prefix, pool = model.num_prefix_tokens, model.config.pool
    row = captured.tokens.new_zeros(batch, tokens)
    if captured.pooling is not None:
        row[:, prefix:] = by_patch(captured.pooling).mean(1)
    elif pool == "cls":
        row[:, 0] = 1
    elif pool == "prefix":
        row[:, :prefix] = 1 / prefix
    else:
        row[:, prefix:] = 1 / (tokens - prefix)
        if pool == "cls+mean":
            row /= 2
            row[:, 0] = 1 / 2
    return row


def looked_at(row: Tensor, weights: Tensor) -> Tensor:
    """One step back: from how much each token counts to how much those it looked at count.

    Shape:
        (batch, tokens), (batch, tokens, tokens) -> (batch, tokens)
    """
    return (row[:, None] @ weights)[:, 0]


def by_patch(pooling: Tensor) -> Tensor:
    """Weights of a pooling, or something of their shape, in one order, without gradients.

    Shape:
        (batch, heads, 1, patches) or (batch, patches, 1) -> (batch, heads, patches)
    """
    pooling = pooling.detach()
    return pooling[:, :, 0] if pooling.ndim == 4 else pooling.transpose(1, 2)
