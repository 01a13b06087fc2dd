"""The head divided by a temperature."""

import pytest
import torch

from vitreous.data.preprocess import Preprocess
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.training.classifier import (
    Classifier,
    load_classifier,
    read_description,
    save_classifier,
    tempered,
)


@pytest.fixture(params=[(), (16,)], ids=["linear", "dense"])
def classifier(request) -> Classifier:
    torch.manual_seed(0)
    small = {"image_size": (32, 32), "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = ViT(preset("Ti/16", num_classes=3, head_hidden=request.param, **small)).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return Classifier(model, Preprocess(image_size=(32, 32)), ("a", "b", "c"), 0)


def test_logits_are_divided_and_the_file_says_by_what(classifier, tmp_path):
    images = torch.randn(4, 3, 32, 32)
    divided = tempered(classifier, 1.7)
    with torch.inference_mode():
        torch.testing.assert_close(divided.model(images) * 1.7, classifier.model(images))
    assert classifier.temperature is None
    path = tmp_path / "best.safetensors"
    save_classifier(path, divided)
    assert read_description(path).temperature == load_classifier(path).temperature == 1.7
    with torch.inference_mode():
        assert torch.equal(load_classifier(path).model(images), divided.model(images))


def test_a_head_is_not_divided_twice(classifier):
    with pytest.raises(AssertionError):
        tempered(tempered(classifier, 1.7), 1.7)
