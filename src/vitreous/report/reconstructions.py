"""The picture that a pretraining run leaves: what was shown, what was hidden, what was told."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.core.files import atomic_path

_SIDE_PX, _GAP_PX = 96, 4


def draw_reconstructions(rows: Sequence[np.ndarray], path: Path) -> None:
    """Write rows of pictures as one PNG, small ones enlarged pixel by pixel.

    Args:
        rows: of equally many pictures of one size, each row (pictures, height, width, 3) uint8.
        path: the file; one that exists is replaced.

    Raises:
        StorageError: where it can't be written.
    """
    gap = ((0, 0), (_GAP_PX, 0), (_GAP_PX, 0), (0, 0))
    factor = max(1, _SIDE_PX // rows[0].shape[1])
    lines = []
    for row in rows:
        large = row.repeat(factor, axis=1).repeat(factor, axis=2)
        lines.append(np.concatenate(np.pad(large, gap, constant_values=255), axis=1))
    with atomic_path(path) as staging:
        Image.fromarray(np.concatenate(lines)).save(staging, format="PNG")
