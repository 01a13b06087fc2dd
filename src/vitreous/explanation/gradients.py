"""Integrated gradients: the difference to a blurred picture, divided among the pixels."""

import numpy as np
import torch
from torch import Tensor

from vitreous.explanation.capture import log_odds
from vitreous.model.vit import ViT

#: Nodes of the integral: with half as many a quarter of the difference is missed, with these a
#: tenth (docs/experiments/LOG.md).
STEPS = 32

_BATCH_SIZE = 8


def integrated_gradients(
    model: ViT, images: Tensor, blurred: Tensor, classes: Tensor, steps: int = STEPS
) -> Tensor:
    """What each value of a picture adds to the log-odds of a class, on the way from a blurred one.

    All of it together is the difference between the log-odds of the two pictures, but for the
    error of the integral, a Gauss-Legendre sum.

    Args:
        model: in evaluation mode.
        images: normalised.
        blurred: the same without what is to be explained.
        classes: index for each picture.
        steps: pictures between the two at which the gradient is taken.

    Shape:
        two of (batch, channels, height, width), (batch,) -> (batch, channels, height, width)

    Reference:
        Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", section 3.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    shares = images.new_tensor((nodes + 1) / 2).view(-1, 1, 1, 1, 1)
    weights = images.new_tensor(weights / 2).view(-1, 1, 1, 1, 1)
    difference = images - blurred
    total = torch.zeros_like(images)
    together = max(1, _BATCH_SIZE // len(images))
    for share, weight in zip(shares.split(together), weights.split(together), strict=True):
        with torch.enable_grad():
            between = (blurred + share * difference).requires_grad_()
            logits = model(between.flatten(0, 1))
            score = log_odds(logits, classes.repeat(len(share))).sum()
        total += (weight * torch.autograd.grad(score, between)[0]).sum(0)
    return total * difference
