"""Low-rank updates: a pretrained model stays as it is and learns by small matrices beside its own.

What was learned is merged into plain weights when a model is saved, so no file and nobody who uses
one knows of it.
"""

import copy
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.model.vit import HEAD, POOLING, ViT

Layer = TypeVar("Layer", bound=nn.Module)

#: What the update counts, whatever its rank: alpha / rank of the paper.
_SCALE = 2.0


class LoraLinear(nn.Module):
    """A dense layer that doesn't learn, and a low-rank one beside it that does.

    It begins as the layer itself, because `up` begins with zeros.

    Args:
        linear: the layer.
        rank: width between `down` and `up`.

    Shape:
        (..., in) -> (..., out)

    Reference:
        Hu et al. 2022, "LoRA", section 4.1.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        # The narrow layer between them is scaled, the cheapest of the three places.
        return self.linear(x) + F.linear(self.down(x) * _SCALE, self.up.weight)

    def merged(self) -> nn.Linear:
        """One layer that gives the same."""
        linear = copy.deepcopy(self.linear)
        linear.weight.data += _SCALE * self.up.weight.data @ self.down.weight.data
        return linear


def add_lora(model: ViT, rank: int) -> ViT:
    """Put an update beside every dense layer of the blocks; all else but the head is frozen.

    Args:
        model: changed in place.
        rank: of the updates.
    """
    model.requires_grad_(False)
    for name in (*POOLING, *HEAD):
        if (part := getattr(model, name)) is not None:
            part.requires_grad_()
    for parent, name, linear in _layers(model.blocks, nn.Linear):
        setattr(parent, name, LoraLinear(linear, rank))
    return model


def merge_lora(model: ViT) -> ViT:
    """The model in plain layers: a copy where it has low-rank updates, itself where not."""
    if not any(isinstance(module, LoraLinear) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for parent, name, layer in _layers(model.blocks, LoraLinear):
        setattr(parent, name, layer.merged())
    return model


def _layers(root: nn.Module, kind: type[Layer]) -> list[tuple[nn.Module, str, Layer]]:
    """Every layer of a kind, with the module that has it and the name it has there."""
    return [
        (parent, name, child)
        for parent in root.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
