"""Pictures whose class one patch decides, and models that learn it: what a map has to find.

Everything is noise, but for one patch somewhere with stripes: lying, standing or chequered are the
classes. In a quarter of the pictures there is none, so that no class can be told by the others'
absence, for which there would be no place. Used by `explanations.py` and by the tests of
`vitreous.explanation`.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.model.config import ModelConfig, Pool
from vitreous.model.vit import ViT

CLASSES = ("lying", "standing", "chequered", "none")
#: Every pooling, and what its model needs besides.
POOLINGS: dict[Pool, dict[str, object]] = {
    "cls": {},
    "mean": {"class_token": False},
    "map": {"class_token": False},
    "seq": {"class_token": False},
    "flatten": {"class_token": False},
    "cls+mean": {},
    "prefix": {"num_register_tokens": 1},
}


def planted_pictures(
    count: int, image_size: int, patch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, their classes and the patches that decide them; of "none" they decide nothing.

    Shape:
        -> (count, 3, image_size, image_size), (count,), (count,)
    """
    side = image_size // patch_size
    classes = torch.randint(len(CLASSES), (count,), generator=generator)
    places = torch.randint(side * side, (count,), generator=generator)
    line = 1.0 - 2.0 * (torch.arange(patch_size) % 2)
    flat = torch.ones(patch_size)
    kinds = [line.outer(flat), flat.outer(line), line.outer(line), torch.zeros(2 * (patch_size,))]
    pictures = 0.5 * torch.randn(count, 3, image_size, image_size, generator=generator)
    patches = pictures.unflatten(3, (side, patch_size)).unflatten(2, (side, patch_size))
    rows, columns = places // side, places % side
    patches[torch.arange(count), :, rows, :, columns] += 0.8 * torch.stack(kinds)[classes][:, None]
    return pictures, classes, places


def learned(config: ModelConfig, steps: int, seed: int = 0, batch_size: int = 64) -> ViT:
    """A model of this build that has learned such pictures, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = ViT(replace(config, num_classes=len(CLASSES)))
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(steps):
        pictures, classes, _ = planted_pictures(
            batch_size, config.image_size[0], config.patch_size[0], generator
        )
        loss = F.cross_entropy(model(pictures), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()
