"""Attention that counts as much as the answer depends on it: relevance for a class."""

import torch
from torch import Tensor

from vitreous.explanation.capture import Captured, capture, log_odds
from vitreous.explanation.rollout import by_patch, looked_at
from vitreous.model.vit import ViT


def relevance(model: ViT, images: Tensor, classes: Tensor) -> Tensor:
    """How much of the evidence for a class reached the head from each patch, through attention.

    From the head back to the first block: a row r of how much each token counts becomes r + r A,
    where A is the mean over the heads of the positive part of attention times its gradient. That
    is the rule of Chefer et al., R + A R, for the one row of R that is needed. In their models the
    row begins at the class token; here at whatever the head reads (see `evidence`).

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

    Attention of a pooling ("map", "seq") counts like that of a block: positive weight times
    gradient. Elsewhere a patch counts by its part in the answer, its token times the gradient, as
    far as that speaks for the class; a class or register token by its size alone, because the
    evidence that it has gathered may be weak, and still is what there is.

    Returns:
        The row and, for each block, its weighted attention.

    Shape:
        -> (batch, tokens), depth times (batch, tokens, tokens)
    """
    score = log_odds(captured.logits, classes).sum()
    pooling = () if captured.pooling is None else (captured.pooling,)
    wanted = (*captured.attention, captured.tokens, *pooling)
    gradients = [part * gradient for part, gradient in
                 zip(wanted, torch.autograd.grad(score, wanted), strict=True)]  # fmt: skip
    depth, prefix = len(captured.attention), model.num_prefix_tokens
    part = gradients[depth].detach().sum(-1)
    row = torch.cat([part[:, :prefix].abs(), part[:, prefix:].clamp(min=0)], dim=1)
    if captured.pooling is not None:
        row = torch.zeros_like(part)
        row[:, prefix:] = by_patch(gradients[-1]).clamp(min=0).mean(1)
    weighted = (gradient.detach().clamp(min=0).mean(1) for gradient in gradients[:depth])
    return row, tuple(weighted)
