"""What vitreous writes itself, and the lecture's Keras files, through the same door."""

from dataclasses import replace

import pytest
import torch

from tests.model.weights.compare import answers, difference, pictures, shake
from vitreous.core.files import METADATA_KEY, read_tensors, write_safetensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.presets import preset
from vitreous.model.vit import ViT
from vitreous.model.weights import keras
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.training.classifier import Classifier, save_classifier
from vitreous.training.encoder import Encoder, save_encoder, without_head, without_pooling

PLAIN = ModelConfig(
    image_size=(32, 32), patch_size=(8, 8), num_classes=3, embed_dim=24, depth=2, num_heads=3
)
CLASSES = ("angry", "happy", "sad")


def saved(folder, config):
    model = shake(ViT(config))
    preprocess = Preprocess(image_size=config.image_size, mirror=True)
    save_classifier(folder / "best.safetensors", Classifier(model, preprocess, CLASSES, 1))
    return model


@pytest.mark.parametrize(
    "config",
    [PLAIN, preset("compact-32", embed_dim=24, stem=(8, 12, 16)), replace(PLAIN, pool="seq"),
     replace(PLAIN, pool="cls+mean", fc_norm=True, gated_mlp=True, pre_norm=True),
     replace(PLAIN, pos_embed="rope2d", pool="prefix", num_register_tokens=2)],
)  # fmt: skip
def test_a_run_comes_back_to_the_bit(tmp_path, config):
    model = saved(tmp_path, config)
    found = read_checkpoint(tmp_path)
    assert found.config == config
    assert found.format == "vitreous"
    assert found.classes == CLASSES
    assert found.preprocessing is not None
    assert (found.preprocessing.mirror, found.preprocessing.image_size) == (True, (32, 32))
    assert torch.equal(answers(found.model, pictures()), answers(model, pictures()))


def test_a_run_is_brought_to_another_size_and_channels(tmp_path):
    model = saved(tmp_path, PLAIN)
    found = read_checkpoint(tmp_path, image_size=(48, 40))
    ours = answers(found.model, pictures(48, 40))
    assert difference(ours, answers(model, pictures(48, 40))) < 1e-5
    saved(tmp_path, preset("compact-32", embed_dim=24, stem=(8, 12, 16)))
    grey = read_checkpoint(tmp_path, in_channels=1).model
    colour = read_checkpoint(tmp_path).model
    images = pictures(32, 32, 1)
    same = answers(colour, images.expand(-1, 3, -1, -1))
    assert difference(answers(grey, images), same) < 1e-5
    with pytest.raises(WeightsError, match="flatten"):
        read_checkpoint(tmp_path, image_size=(48, 48))
    with pytest.raises(WeightsError, match="stem"):
        read_checkpoint(tmp_path, patch_size=(8, 8), image_size=(64, 64))
    with pytest.raises(WeightsError, match="multiple of the patch size"):
        read_checkpoint(tmp_path, image_size=(33, 32))


@pytest.mark.parametrize("pretrained", [True, False])
def test_an_encoder_has_no_head(tmp_path, pretrained):
    """Its pooling it has where that was trained; pretraining teaches none."""
    model = shake(ViT(replace(PLAIN, pool="map", fc_norm=True, head_hidden=(7,))))
    tensors = without_head(model.state_dict())
    tensors = without_pooling(tensors) if pretrained else tensors
    encoder = Encoder(model.config, Preprocess(), tensors)
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    found = read_checkpoint(tmp_path / "encoder.safetensors")
    with torch.no_grad():
        tokens = model.forward_tokens(pictures())
        features = tokens[:, 1:].mean(1) if pretrained else model.pool(tokens)
    assert difference(answers(found.model, pictures()), features) < 1e-5
    assert found.notes == ("a pretrained encoder: it has no head",)


def test_metadata_of_another_version_or_making_is_refused(tmp_path):
    saved(tmp_path, PLAIN)
    path = tmp_path / "best.safetensors"
    tensors, metadata = read_tensors(path)
    for model, words in (
        ({"dpeth": 2}, "another version"),
        (3, "another version"),
        ({"depth": 10**9}, "fewer than the model has blocks"),
        ({"embed_dim": 12 * 10**12}, "no model has its sizes"),
        ({"embed_dim": 12 * 10**30}, "no model has its sizes"),
        ({"depth": 1, "pos_embed": "sincos2d", "image_size": [30_000, 30_000],
          "patch_size": [1, 1]}, "900,000,000 patches"),
    ):  # fmt: skip
        write_tensors(path, tensors, {**metadata, "model": model})
        with pytest.raises(WeightsError, match=words):
            read_checkpoint(path)
    for text in ("[" * 100_000, "[]"):
        write_safetensors(path, tensors, {METADATA_KEY: text})
        with pytest.raises(WeightsError, match="another version or damaged"):
            read_checkpoint(path)
    write_tensors(path, tensors, metadata)
    with pytest.raises(WeightsError, match="3 heads, not 4"):
        read_checkpoint(path, num_heads=4)


def test_the_lectures_keras_files_are_read_too(tmp_path):
    config = preset("lecture-small", image_size=(32, 32), patch_size=(8, 8), embed_dim=12,
                    head_dim=12, mlp_dim=12, head_hidden=(16, 16))  # fmt: skip
    model = shake(ViT(config))
    for name in ("lecture.weights.h5", "lecture.keras"):
        keras.save(tmp_path / name, config, model.state_dict())
        found = read_checkpoint(tmp_path / name)
        assert torch.equal(answers(found.model, pictures()), answers(model, pictures()))
        assert "Keras" in found.format


@pytest.mark.parametrize("name", ["lecture.weights.h5", "lecture.keras"])
def test_keras_files_are_float32_and_finite_like_all_others(tmp_path, name):
    config = preset("lecture-small", image_size=(32, 32), patch_size=(8, 8), embed_dim=12,
                    head_dim=12, mlp_dim=12, head_hidden=(16, 16))  # fmt: skip
    model = shake(ViT(config))
    keras.save(tmp_path / name, config, model.double().state_dict())
    found = read_checkpoint(tmp_path / name).model
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    with torch.no_grad():
        model.blocks[1].mlp.fc1.bias[5] = float("nan")
    keras.save(tmp_path / name, config, model.float().state_dict())
    with pytest.raises(WeightsError, match=r"1 numbers in blocks\.1\.mlp\.fc1\.bias"):
        read_checkpoint(tmp_path / name)
