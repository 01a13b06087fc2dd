"""Models of other libraries whose every weight matters, and how far ours are from them."""

import torch
from torch import Tensor, nn

from vitreous.model.vit import ViT


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter: fresh ones have zeros and ones that hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.2 * noise)
    return model.eval()


def pictures(height: int = 32, width: int = 32, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width, generator=generator)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest, of answers that differ from picture to picture."""
    assert ours.shape == theirs.shape
    assert (theirs[0] - theirs[1]).abs().max() > 0.01
    return (ours - theirs).abs().max().item()


def answers(model: ViT, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)
