"""What a model has learned without any picture: filters of its patches, likeness of positions.

After Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", figure 7.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.model.patches import ConvStem
from vitreous.model.positions import rope2d, sincos2d
from vitreous.model.vit import ViT

#: As many as the paper shows.
_FILTERS = 28


@torch.no_grad()
def patch_filters(model: ViT) -> np.ndarray:
    """Principal components of the filters that turn pixels into tokens, the strongest first.

    Of a convolutional stem they are those of its first convolution. Each is scaled to reach 0 or 1
    somewhere, with 0.5 for a pixel that it doesn't look at; its sign has no meaning.

    Shape:
        -> (filters, height, width, channels) float32
    """
    embed = model.patch_embed
    first = embed.convs[0] if isinstance(embed, ConvStem) else embed.proj
    weight = first.get_parameter("weight").float().cpu()
    rows = weight.flatten(1)
    components = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh
    kept = components[: min(_FILTERS, len(rows) - 1)].view(-1, *weight.shape[1:])
    largest = kept.abs().amax((1, 2, 3), keepdim=True)
    return (0.5 + 0.5 * kept / largest).permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def position_similarity(model: ViT) -> np.ndarray | None:
    """Cosine similarity of the position of each patch to those of all.

    Of turned queries and keys it is the mean cosine of the angles between two places, which is what
    a query sees of a key like itself.

    Shape:
        -> (rows, columns, rows, columns) float32, or ``None`` for a model without positions
    """
    table = _positions(model)
    if table is None:
        return None
    normed = F.normalize(table.float().cpu(), dim=1)
    grid = model.config.grid_size
    return (normed @ normed.T).view(*grid, *grid).numpy()


def _positions(model: ViT) -> Tensor | None:
    """What is added to the patches, or how they are turned: (patches, channels)."""
    config = model.config
    match config.pos_embed:
        case "learned":
            assert model.pos_embed is not None
            return model.pos_embed[0, int(config.class_token) :]
        case "sincos2d":
            return sincos2d(config.grid_size, config.embed_dim)
        case "rope2d":
            head_dim = config.attention_dim // config.num_heads
            return torch.cat(rope2d(config.grid_size, head_dim, config.rope_theta), dim=1)
        case "none":
            return None
