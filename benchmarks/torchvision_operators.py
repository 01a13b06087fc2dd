"""What torchvision, which timm and transformers import, lacks beside a CPU build of PyTorch."""

import torch

_libraries: list[torch.library.Library] = []


def name_operators() -> None:
    """Let torchvision be imported."""
    try:
        # It names them itself where it was built for this PyTorch.
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)  # gone, it would take them with it
