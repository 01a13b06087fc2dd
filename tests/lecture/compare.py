"""What the tests against Keras have in common."""

import numpy as np
import torch


def distance(ours: torch.Tensor, theirs: object) -> float:
    """Largest difference relative to the largest value."""
    a, b = ours.detach().double().numpy(), np.asarray(theirs, dtype=np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def shake(model) -> None:
    """Biases, scales and positions away from the zeros and ones of the start."""
    rng = np.random.default_rng(1)
    model.set_weights([value + 0.1 * rng.normal(size=value.shape) for value in model.get_weights()])
