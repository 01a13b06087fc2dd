"""Mixup and CutMix: pairs of pictures blended, their labels in the same shares."""

import numpy as np
import torch
from torch import Tensor

from vitreous.data.config import AugmentConfig


def smooth(targets: Tensor, share: float) -> Tensor:
    """Label smoothing: a share of each target spread evenly (Szegedy et al. 2016, section 7).

    Shape:
        (batch, classes) -> the same
    """
    return targets * (1 - share) + share / targets.shape[1]


def mix(
    images: Tensor, targets: Tensor, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the batch with itself in a random order, by mixup or by CutMix, or leave it.

    Shape:
        (batch, channels, height, width), (batch, classes) -> the same
    """
    chance, choice = rng.random(2)
    # With one of the two turned off, the other takes its batches.
    use_cutmix = config.mixup_alpha == 0 or (config.cutmix_alpha > 0 and choice < 0.5)
    alpha = config.cutmix_alpha if use_cutmix else config.mixup_alpha
    if alpha == 0 or chance >= config.mix_chance:
        return images, targets
    share = rng.beta(alpha, alpha)
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if not use_cutmix:
        return images.lerp(images[order], 1 - share), targets.lerp(targets[order], 1 - share)
    height, width = images.shape[-2:]
    tall, wide = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    images = images.clone()
    images[:, :, top : top + tall, left : left + wide] = images[
        order, :, top : top + tall, left : left + wide
    ]
    # The share that was really replaced, after rounding to pixels.
    return images, targets.lerp(targets[order], tall * wide / (height * width))
