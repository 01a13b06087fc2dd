"""timm as an oracle: its torchvision needs operators that a CPU build of PyTorch lacks."""

import pytest
import torch


@pytest.fixture(scope="session")
def timm():
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou) -> Tensor")
    import timm.models

    return timm
