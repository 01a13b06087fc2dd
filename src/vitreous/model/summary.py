"""A model in numbers: parameters, tokens, operations, and a table of its layers.

The model is built on PyTorch's meta device, so a summary of the largest one costs no memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT


@dataclass(frozen=True)
class LayerRow:
    """One line of the table: a layer, its output's shape for one picture, its parameters."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """What `summarize` found.

    Args:
        parameters: trainable numbers.
        tokens: of one picture, class and register tokens included.
        flops: 2 x multiply-adds of one forward pass of one picture.
        layers: the table, in the order of the forward pass.
    """

    parameters: int
    tokens: int
    flops: int
    layers: tuple[LayerRow, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values for `json.dumps`."""
        return asdict(self)


def summarize(config: ModelConfig) -> Summary:
    """Count a model's parameters, tokens and operations.

    Example:
        >>> from vitreous.model.presets import preset
        >>> summarize(preset("Ti/16")).parameters
        5717416
    """
    with torch.device("meta"):
        # The counter's hooks stumble over a learned query, unless nothing asks for gradients.
        model = ViT(config).eval().requires_grad_(False)
        image = torch.empty(1, config.in_channels, *config.image_size)
    counter = FlopCounterMode(display=False)
    # The counter knows matrix products; the "math" attention is made of nothing else.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _record(model) as rows, counter:
        model(image)
    return Summary(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=config.num_tokens,
        flops=counter.get_total_flops(),
        layers=tuple(rows),
    )


@contextmanager
def _record(model: ViT) -> Iterator[list[LayerRow]]:
    """Collect a row for each direct part of the model, the blocks one by one."""
    rows = [
        LayerRow(name, "Parameter", tuple(parameter.shape[1:]), parameter.numel())
        for name, parameter in model.named_parameters(recurse=False)
    ]
    parts = dict(model.named_children())
    for name in ("blocks", "head_mlp"):
        del parts[name]
        children = getattr(model, name).named_children()
        parts |= {f"{name}.{index}": child for index, child in children}

    def remember(name: str, module: nn.Module):
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            count = sum(parameter.numel() for parameter in module.parameters())
            rows.append(LayerRow(name, type(module).__name__, tuple(output.shape[1:]), count))

        return hook

    handles = [part.register_forward_hook(remember(name, part)) for name, part in parts.items()]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
