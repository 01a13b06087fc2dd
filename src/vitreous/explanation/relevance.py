"""Attention that counts as much as the answer depends on it: relevance for a class."""

import torch
from torch import Tensor

from vitreous.explanation.capture import Captured, capture, log_odds
from vitreous.explanation.rollout import by_patch, looked_at
from vitreous.model.vit import ViT


def relevance(model: ViT, images: Tensor, classes: Tensor) -> Tensor:
    """How much of the evidence for a class reached the head from each patch, through attention.

    From the head back to the first block, a row of how much each token counts becomes r + r A,
    where A is the mean over the heads of the positive part of attention times its gradient. That
    is the rule of Chefer et al., R + A R, for the one row of R that is needed. In their models the
    row begins at the class token; here at whatever the head reads (see `evidence`). So it is below
    0 where a patch that the head reads speaks against the class; with class tokens it never is.

    Shape:
        (batch, channels, height, width), (batch,) -> (batch, patches)

    Reference:
        Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", equations 5 and 6.
    """
    captured = capture(model, images)
    row, weighted = evidence(model, captured, classes)
    for weights in reversed(weighted):
        row = row + looked_at(row, weights)
    return row[:, model.num_prefix_tokens :]


def evidence(model: ViT, captured: Captured, classes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """How much each token counts for the head, and each look of a block for the answer.

    A patch counts by its part in the log-odds: token times gradient; or where a pooling attends
    ("map", "seq"), by weight times gradient, like attention elsewhere but with its sign. A class or
    register token counts by the size of its part alone: the evidence that it has gathered may speak
    against the class as a whole, and what in it speaks for the class is still to be found.

    Returns:
        The row and, for each block, its weighted attention.

    Shape:
        -> (batch, tokens), depth times (batch, tokens, tokens)
    """
    depth, prefix = len(captured.attention), model.num_prefix_tokens
    pooling = () if captured.pooling is None else (captured.pooling,)
    parts = (*captured.attention, captured.tokens, *pooling)
    score = log_odds(captured.logits, classes).sum()
    gradients = torch.autograd.grad(score, parts)
    # One block after the other: all of their products at once would be as much as all attention.
    pairs = [(part.detach(), slope) for part, slope in zip(parts, gradients, strict=True)]
    weighted = tuple((part * slope).clamp(min=0).mean(1) for part, slope in pairs[:depth])
    tokens, slope = pairs[depth]
    row = (tokens * slope).sum(-1)
    row[:, :prefix] = row[:, :prefix].abs()
    if pooling:
        weights, slope = pairs[-1]
        row = torch.zeros_like(row)
        row[:, prefix:] = by_patch(weights * slope).mean(1)
    return row, weighted
