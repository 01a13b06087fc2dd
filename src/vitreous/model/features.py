"""A model that gives what its head sees beside its answer, from one pass."""

import torch
from torch import Tensor, nn

from vitreous.model.vit import ViT


class WithFeatures(nn.Module):
    """The same network with more outputs: the logits first, features behind them.

    Features are what the head sees. Where that is every token in its place (``pool = "flatten"``)
    they are the mean of the patch tokens instead, which is a hundredth as long.

    Args:
        model: with a head; it is shared, not copied.

    Shape:
        (batch, channels, height, width), normalised -> (batch, classes + features)
    """

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.model.forward_tokens(images)
        if self.config.pool == "flatten":
            features = tokens[:, self.model.num_prefix_tokens :].mean(1)
        else:
            features = self.model.pool(tokens)
        return torch.cat([self.model.forward_head(tokens), features], dim=1)
