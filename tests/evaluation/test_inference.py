from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.data.preprocess import Preprocess
from vitreous.evaluation.inference import TorchNetwork, predict_pixels
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT


@pytest.fixture
def model() -> ViT:
    torch.manual_seed(0)
    size = ModelConfig(
        image_size=(16, 24), patch_size=(8, 8), embed_dim=16, depth=1, num_heads=2, num_classes=3
    )
    model = ViT(size).eval()
    torch.nn.init.normal_(model.head.weight)  # a fresh one answers alike to everything
    return model


def test_a_mirrored_answer_is_the_mean_of_two(model):
    once = Preprocess(image_size=(16, 24))
    pixels = torch.randint(0, 256, (4, 16, 24, 3), dtype=torch.uint8)
    mirrored = torch.from_numpy(np.ascontiguousarray(pixels.numpy()[:, :, ::-1]))
    here, there = (predict_pixels(TorchNetwork(model), one, once) for one in (pixels, mirrored))
    assert np.abs(here - there).max() > 0.05
    found = predict_pixels(TorchNetwork(model), pixels, replace(once, mirror=True))
    np.testing.assert_allclose(found, (here + there) / 2, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)
