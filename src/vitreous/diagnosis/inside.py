"""What a model does inside with a handful of pictures: sizes, and what is off."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.model.vit import HEAD, ViT

#: A unit whose output stays below this for every picture is off.
_OFF = 1e-3


@dataclass(frozen=True, kw_only=True)
class Inside:
    """One look into a model.

    Args:
        logits: root mean square of the logits' distances from each picture's own mean.
        size: root mean square of what the head is given.
        off: share of the units of the head's dense layers that are off for all pictures, of the
            layer with the most; ``None`` where there are no such layers.
        gradient: norm of the loss's gradient to all weights before the head.
    """

    logits: float
    size: float
    off: float | None
    gradient: float


def look_inside(model: ViT, images: Tensor, labels: Tensor) -> Inside:
    """Look into a model without changing it.

    Args:
        model: in any mode; it is left as it is.
        images: normalised, on the model's device.
        labels: class indices.

    Shape:
        (pictures, channels, height, width), (pictures,)
    """
    was_training = model.training
    learning = {name: weight.requires_grad for name, weight in model.named_parameters()}
    model.eval().requires_grad_(True)
    try:
        features = model.pool(model.forward_tokens(images))
        off, x = [], features
        for layer in model.head_mlp:
            x = model.act(layer(x))
            off.append(float((x.detach().abs().amax(0) < _OFF).float().mean()))
        logits = model.head(x).float()
        before = [
            weight for name, weight in model.named_parameters() if name.split(".")[0] not in HEAD
        ]
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), before, allow_unused=True)
    finally:
        model.train(was_training)
        for name, weight in model.named_parameters():
            weight.requires_grad_(learning[name])
    squares = [float(one.float().square().sum()) for one in gradients if one is not None]
    logits = logits.detach()
    centred = logits - logits.mean(1, keepdim=True)
    return Inside(
        logits=float(centred.square().mean().sqrt()),
        size=float(features.detach().square().mean().sqrt()),
        off=max(off) if off else None,
        gradient=math.sqrt(sum(squares)),
    )
