"""What torchvision, which timm and transformers import, lacks beside a CPU build of PyTorch."""

import torch

_libraries: list[torch.library.Library] = []


def name_operators() -> None:
    """Let torchvision be imported; to be called before it is."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)  # gone, it would take them with it
