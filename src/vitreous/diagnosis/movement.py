"""How far the weights have come, and how large a step of theirs is, whatever the model."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from vitreous.training.config import TrainConfig

#: Root mean square of a step, as a share of the rate: of Muon by definition (Liu et al. 2025,
#: section 2.2), of Adam where gradients are mostly noise.
_STEP = 0.2


def relative_step(first: Mapping[str, Tensor], config: TrainConfig) -> float | None:
    """Size of a step at the highest rate, relative to the first weights it moves.

    Args:
        first: weights that the run began with.
        config: its rate.

    Returns:
        The median over the blocks' matrices that weren't drawn as zero; ``None`` without any.
    """
    sizes = [size for name, tensor in _matrices(first) if (size := _rms(tensor)) > 0]
    return _STEP * config.learning_rate / float(np.median(sizes)) if sizes else None


def relative_distance(first: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> float | None:
    """How far the blocks' matrices lie from where they began, relative to their size there.

    Returns:
        The median, as for `relative_step`.
    """
    moved = [
        _rms(last[name].cpu().float() - tensor.cpu().float()) / size
        for name, tensor in _matrices(first)
        if name in last and (size := _rms(tensor)) > 0
    ]
    return float(np.median(moved)) if moved else None


def _matrices(weights: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [
        (name, tensor)
        for name, tensor in weights.items()
        if name.startswith("blocks.") and tensor.ndim == 2
    ]


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())
