"""Where a patch sits: the fixed sine table, turned queries and keys, learned tables resized."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos2d(grid_size: tuple[int, int], width: int) -> Tensor:
    """Fixed two-dimensional sine-cosine positions (Chen et al. 2021, MoCo v3, section 4).

    A quarter of the width each for sine and cosine of the column and of the row, with
    frequencies 10000^(-i / (width / 4 - 1)) as in Beyer et al. 2022 ("Better plain ViT baselines").

    Args:
        grid_size: rows and columns of patches.
        width: of a token; a multiple of 4.

    Shape:
        -> (rows * columns, width)
    """
    rows, columns = grid_size
    quarter = width // 4
    # Computed, not learned: real numbers also where a model is built without memory for weights.
    count = partial(torch.arange, dtype=torch.float64, device="cpu")
    frequency = 10000.0 ** -(count(quarter) / max(quarter - 1, 1))
    y, x = torch.meshgrid(count(rows), count(columns), indexing="ij")
    angle_y = y.flatten()[:, None] * frequency
    angle_x = x.flatten()[:, None] * frequency
    return torch.cat([angle_x.sin(), angle_x.cos(), angle_y.sin(), angle_y.cos()], dim=1).float()


def rope2d(grid_size: tuple[int, int], head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """How far each patch turns the channels of queries and keys: cosines and sines.

    The centre of a patch lies between -1 and 1 on either axis, whatever the picture's size. A
    quarter of the channels each takes row and column, at rates that fall from once around per unit
    to nearly `theta` times less; the second half of the channels turns with the first.

    Args:
        grid_size: rows and columns of patches.
        head_dim: channels of a head; a multiple of 4.
        theta: ratio of the fastest rate to the slowest, which is never quite reached.

    Shape:
        -> two of (rows * columns, head_dim)

    Reference:
        Su et al. 2021, "RoFormer", section 3.4.2; in two dimensions Siméoni et al. 2025, "DINOv3",
        section 3.2.
    """
    # On the CPU for the same reason as above.
    rates = head_dim // 4
    share = torch.arange(rates, dtype=torch.float32, device="cpu") / rates
    rate = 2 * math.pi * theta**-share
    y, x = ((torch.arange(count, device="cpu") + 0.5) / count * 2 - 1 for count in grid_size)
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
    angle = (place[:, :, None] * rate).flatten(1).tile(2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the channels against the second, pair by pair.

    Shape:
        (batch, heads, tokens, head_dim), two of (batch or 1, 1, tokens, head_dim) -> as the first
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)


def resize_positions(
    table: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], prefix: int = 0
) -> Tensor:
    """Interpolate a learned table of patch positions to another grid, bicubically.

    As Dosovitskiy et al. 2021, section 3.2, propose for other resolutions.

    Args:
        table: the positions, those of other tokens first.
        old_grid: rows and columns it was learned for.
        new_grid: rows and columns wanted.
        prefix: positions that belong to no patch, such as the class token's, which stay.

    Shape:
        (1, prefix + old rows * old columns, embed) -> (1, prefix + new rows * new columns, embed)
    """
    if old_grid == new_grid:
        return table
    image = table[:, prefix:].float().view(1, *old_grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, new_grid, mode="bicubic", antialias=True, align_corners=False)
    patches = image.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1]).to(table.dtype)
    return torch.cat([table[:, :prefix], patches], dim=1) if prefix else patches
