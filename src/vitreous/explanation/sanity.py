"""Does a map depend on what the model has learned? The weights are shuffled, and it has to change.

A map that stays the same shows the picture, or the architecture, and not the model.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from vitreous.core.rng import torch_stream
from vitreous.explanation.methods import Method
from vitreous.explanation.places import to_patches
from vitreous.model.vit import ViT

#: Rank correlation from which on maps count as the same. Half of the order kept is far above
#: what two unrelated maps of some dozens of patches have by chance.
ALIKE = 0.5
_DRAWS = 2


def similarity(
    method: Method,
    model: ViT,
    images: Tensor,
    blurred: Tensor,
    classes: Tensor,
    seed: int = 0,
) -> float:
    """Rank correlation of a method's maps with those for the same model with shuffled weights.

    Each tensor keeps its values and loses their places, so layers stay as strong as they were. The
    correlation is over the patches of a picture, averaged over pictures and draws; a map without
    any order is like nothing.

    Args:
        method: what makes the maps.
        model: in evaluation mode; left as it is.
        images: normalised.
        blurred: the same pictures blurred.
        classes: index for each.
        seed: of the shuffling.

    Shape:
        two of (batch, channels, height, width), (batch,) int64

    Reference:
        Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.
    """

    def maps(asked: ViT) -> list[np.ndarray]:
        # One picture after the other, because attention with its gradients takes much memory.
        inputs = zip(images.split(1), blurred.split(1), classes.split(1), strict=True)
        made = (method(asked, *one) for one in inputs)
        return [to_patches(one, model.config.patch_size)[0].cpu().numpy() for one in made]

    true, found = maps(model), []
    for draw in range(_DRAWS):
        other = maps(shuffled(model, seed, draw))
        found += [_rank_correlation(one, two) for one, two in zip(true, other, strict=True)]
    return float(np.mean(found))


def shuffled(model: ViT, seed: int, draw: int) -> ViT:
    """A copy whose every tensor of weights has its values in another order."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in other.state_dict().items():
            order = torch.randperm(
                tensor.numel(), generator=torch_stream(seed, "shuffle", draw, name)
            )
            tensor.copy_(tensor.flatten()[order.to(tensor.device)].view_as(tensor))
    return other.eval()


def _rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(spearmanr(one, two).statistic)  # pyright: ignore[reportAttributeAccessIssue]
