"""Files of classifiers: the head divided by a temperature, and what isn't believed."""

import pytest
import torch

from vitreous.core.files import read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import RunError, WeightsError
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


def test_weights_that_are_not_the_models_are_listed(classifier, tmp_path):
    path = tmp_path / "best.safetensors"
    save_classifier(path, classifier)
    tensors, metadata = read_tensors(path)
    del tensors["blocks.0.attn.qkv.weight"]
    tensors |= {"norm.weight": torch.zeros(5), "blocks.7.norm1.bias": torch.zeros(32)}
    write_tensors(path, tensors, metadata)
    with pytest.raises(RunError) as caught:
        load_classifier(path)
    assert str(caught.value) == (
        f"{path} is damaged or from another version; missing: 1 (blocks.0.attn.qkv.weight); "
        "left over: 1 (blocks.7.norm1.bias 32); of another shape: 1 (norm.weight 5 instead of 32)"
    )


def test_a_head_is_not_divided_twice(classifier):
    with pytest.raises(AssertionError):
        tempered(tempered(classifier, 1.7), 1.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_named(classifier, tmp_path, number, dtype):
    """With NaN in it every answer would be the first class, and a score nonetheless."""
    path = tmp_path / "best.safetensors"
    save_classifier(path, classifier)
    tensors, metadata = read_tensors(path)
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_tensors(path, tensors, metadata)
    assert load_classifier(path).classes == ("a", "b", "c")
    tensors["blocks.0.mlp.fc2.weight"][3, 7] = number
    write_tensors(path, tensors, metadata)
    with pytest.raises(WeightsError, match=r"1 numbers in blocks\.0\.mlp\.fc2\.weight"):
        load_classifier(path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"depth": 10**9}, "fewer than the model has blocks"),
        ({"pos_embed": "sincos2d", "image_size": [30_000, 30_000], "patch_size": [1, 1]},
         "900,000,000 patches, whose positions of 32 channels would fill the memory"),
        ({"pos_embed": "rope2d", "image_size": [30_000, 30_000], "patch_size": [1, 1]},
         "positions of 16 channels"),
        ({"embed_dim": 2 * 10**30}, "no model has its sizes"),
    ],
)  # fmt: skip
def test_settings_beyond_all_measure_are_refused(classifier, tmp_path, settings, words):
    path = tmp_path / "best.safetensors"
    save_classifier(path, classifier)
    tensors, metadata = read_tensors(path)
    model = {**metadata["model"], **settings}
    write_tensors(path, tensors, {**metadata, "model": model})
    with pytest.raises(RunError, match=words):
        load_classifier(path)
