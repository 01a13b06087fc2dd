"""Where a patch sits: the fixed sine table, and learned tables at another picture size."""

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
    exponent = torch.arange(quarter, dtype=torch.float64) / max(quarter - 1, 1)
    frequency = 10000.0**-exponent
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    angle_y = y.flatten()[:, None] * frequency
    angle_x = x.flatten()[:, None] * frequency
    return torch.cat([angle_x.sin(), angle_x.cos(), angle_y.sin(), angle_y.cos()], dim=1).float()


def resize_positions(table: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Interpolate a learned table of patch positions to another grid, bicubically.

    As Dosovitskiy et al. 2021, section 3.2, propose for other resolutions.

    Args:
        table: the positions of the patches alone, without class token.
        old_grid: rows and columns it was learned for.
        new_grid: rows and columns wanted.

    Shape:
        (1, old rows * old columns, embed) -> (1, new rows * new columns, embed)
    """
    if old_grid == new_grid:
        return table
    image = table.float().view(1, *old_grid, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, new_grid, mode="bicubic", antialias=True, align_corners=False)
    return image.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1]).to(table.dtype)
