"""A moving average of the weights: the model that is validated, saved and used."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vitreous.training.sharding import own_part

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """Exponential moving average of a model's weights and statistics.

    In the first steps the average is shorter, so that the initial weights are soon forgotten.

    Args:
        model: the one being trained.
        share: place for how far the average moves at the next step: a number, or a scalar tensor
            beside the weights for a step that is recorded.
    """

    def __init__(self, model: Model, share: float | Tensor = 0.0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._share = share

    def set_window(self, step: int, window: float) -> None:
        """Say how far the average moves at the next step.

        Args:
            step: counted from 0.
            window: in steps, over which the average forgets; 1 or less copies.
        """
        share = max(1.0 / max(window, 1.0), 9.0 / (10.0 + step))
        self._share = self._share.fill_(share) if isinstance(self._share, Tensor) else share

    @torch.no_grad()
    def update(self, model: Model, found_inf: Tensor) -> None:
        """Move the average towards the model's present weights.

        Args:
            model: whose weights.
            found_inf: 1 where the average stays as it is, else 0; a scalar beside the weights.
        """
        averages, values = [], []
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        for average, value in pairs:
            if average.is_floating_point():
                averages.append(own_part(average))
                values.append(own_part(value))
            else:
                average.copy_(value)
        share = (1.0 - found_inf) * self._share
        weights: Any = [share] * len(averages)
        torch._foreach_lerp_(averages, values, weights)  # pyright: ignore[reportPrivateImportUsage]
