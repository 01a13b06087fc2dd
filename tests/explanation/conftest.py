import pytest
import torch

from tests.explanation.builds import BUILDS, SMALL, drawn
from vitreous.model.vit import ViT


@pytest.fixture(params=BUILDS)
def model(request) -> ViT:
    return drawn(BUILDS[request.param])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, *SMALL.image_size, generator=torch.Generator().manual_seed(1))
