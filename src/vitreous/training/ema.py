"""A moving average of the weights: the model that is validated, saved and used."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """Exponential moving average of a model's weights and statistics.

    In the first steps the average is shorter, so that the initial weights are soon forgotten.

    Args:
        model: the one being trained.
    """

    def __init__(self, model: Model) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Model, step: int, window: float) -> None:
        """Move the average towards the model's present weights.

        Args:
            model: the one being trained.
            step: counted from 0.
            window: in steps, over which the average forgets; 1 or less copies.
        """
        decay = min(1.0 - 1.0 / max(window, 1.0), (1.0 + step) / (10.0 + step))
        averages, values = [], []
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]
