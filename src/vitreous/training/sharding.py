"""Weights that are divided among processes, for models that one device has no room for.

PyTorch's FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023, "PyTorch FSDP") keeps of
each tensor a part in each process and puts a block's weights together while they are needed.
Files don't know of it: what is written was put together before.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vitreous.model.layers import Block


def divide(model: nn.Module, device: torch.device) -> None:
    """Leave this process its part of a model that all have alike, and move that there."""
    # A second and a half to import, for what few runs need.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in [module for module in model.modules() if isinstance(module, Block)]:
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to(device)


def divided_like(value: Tensor, weight: Any) -> Tensor:
    """This process' part of a tensor that all have alike, divided as a weight is.

    Args:
        value: whole; of another shape than the weight, such as an optimiser's count of steps, it
            stays so.
        weight: that it belongs to, divided or not.
    """
    value = value.to(weight.device, copy=True)  # what a file is mapped to may go away
    if not hasattr(weight, "placements") or value.shape != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def own_part(tensor: Any) -> Tensor:
    """What this process has of a tensor, divided or not, in the same place in memory."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Any) -> Tensor:
    """The whole of a divided tensor; all processes have to ask for it, in the same order."""
    return tensor.full_tensor().cpu() if hasattr(tensor, "full_tensor") else tensor
