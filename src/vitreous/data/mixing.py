"""Mixup and CutMix: pairs of pictures blended, their labels in the same shares."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Mixing:
    """How a batch is blended with itself.

    Args:
        partners: for each picture, which one it is blended with.
        share: of the picture itself in mixup.
        box: top, left, height and width of what CutMix takes from the partner; ``None`` for mixup.
    """

    partners: Tensor
    share: float
    box: tuple[int, int, int, int] | None

    def blend(self, values: Tensor, others: Tensor, targets: Tensor, other_targets: Tensor):
        """Pictures with their partners, and targets with theirs.

        Shape:
            twice (count, channels, height, width), twice (count, classes) -> one of each
        """
        if self.box is None:
            return (
                values.lerp(others, 1 - self.share),
                targets.lerp(other_targets, 1 - self.share),
            )
        top, left, tall, wide = self.box
        images = values.clone()
        rows, columns = slice(top, top + tall), slice(left, left + wide)
        images[:, :, rows, columns] = others[:, :, rows, columns]
        # The share that was really replaced, after rounding to pixels.
        replaced = tall * wide / (images.shape[-2] * images.shape[-1])
        return images, targets.lerp(other_targets, replaced)


def draw_mixing(
    batch: int, image_size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Mixing | None:
    """Choose mixup or CutMix for a batch, and who is blended with whom; ``None`` leaves it.

    CutMix' rectangle lies whole inside the picture. Its paper draws the centre and cuts off what
    sticks out, which leaves less of the partner than was drawn.
    """
    chance, choice = rng.random(2)
    # With one of the two turned off, the other takes its batches.
    use_cutmix = config.mixup_alpha == 0 or (config.cutmix_alpha > 0 and choice < 0.5)
    alpha = config.cutmix_alpha if use_cutmix else config.mixup_alpha
    if alpha == 0 or chance >= config.mix_chance:
        return None
    share = rng.beta(alpha, alpha)
    partners = torch.from_numpy(rng.permutation(batch))
    if not use_cutmix:
        return Mixing(partners, share, None)
    height, width = image_size
    tall, wide = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    return Mixing(partners, share, (int(top), int(left), tall, wide))


def mix(
    images: Tensor, targets: Tensor, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Blend the batch with itself in a random order, by mixup or by CutMix, or leave it.

    Shape:
        (batch, channels, height, width), (batch, classes) -> the same
    """
    size = (images.shape[-2], images.shape[-1])
    mixing = draw_mixing(len(images), size, config, rng)
    if mixing is None:
        return images, targets
    partners = mixing.partners.to(images.device)
    return mixing.blend(images, images[partners], targets, targets[partners])
