from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.core.threads import torch_threads
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.evaluation.inference import TorchNetwork, predict_pixels, probabilities_of
from vitreous.evaluation.refusal import FEATURES, LOOKS, looks_of
from vitreous.evaluation.seeing import see_pixels, see_set
from vitreous.model.features import WithFeatures
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

ONCE = Preprocess(image_size=(32, 32))


@pytest.fixture
def model() -> ViT:
    torch.manual_seed(0)
    small = {"image_size": (32, 32), "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = ViT(preset("Ti/16", num_classes=3, **small)).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.mark.parametrize("mirror", [False, True])
def test_logits_looks_and_features_each_in_their_place(model, mirror):
    preprocess = replace(ONCE, mirror=mirror)
    pixels = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    seen = see_pixels(TorchNetwork(WithFeatures(model)), pixels, preprocess, num_classes=3)
    wanted = predict_pixels(TorchNetwork(model), pixels, preprocess)
    assert seen.logits.shape == (5, 1 + mirror, 3)
    np.testing.assert_allclose(probabilities_of(seen.logits), wanted, atol=1e-6)
    np.testing.assert_array_equal(seen.numbers[LOOKS], looks_of(pixels))
    with torch.no_grad():
        pooled = model.pool(model.forward_tokens(normalise(pixels, ONCE)))
    np.testing.assert_allclose(seen.numbers[FEATURES], pooled, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_some_of_a_set_in_order(model, threads):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    labels = torch.zeros(90, dtype=torch.int64)
    pictures = PictureSet(pixels, np.arange(90), labels, (Path(),) * 90)
    chosen = np.arange(80, 3, -1)
    network = TorchNetwork(WithFeatures(model))
    with torch_threads(threads):  # each takes pictures of its own
        seen = see_set(network, pictures, chosen, ONCE, num_classes=3)
    np.testing.assert_array_equal(seen.numbers[LOOKS], looks_of(torch.from_numpy(pixels[chosen])))
    one = see_pixels(network, torch.from_numpy(pixels[chosen[40:41]]), ONCE, num_classes=3)
    np.testing.assert_allclose(seen.logits[40], one.logits[0], atol=1e-5)
