"""An ONNX file computes what the model computes, for batches of any size."""

import numpy as np
import onnx
import pytest
import torch

from vitreous.exporting.libraries import import_onnxruntime
from vitreous.exporting.onnx import write_onnx
from vitreous.model.config import ModelConfig
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

onnxruntime = import_onnxruntime()

STEM = preset("compact-32", depth=2, embed_dim=32, num_heads=2, stem=(8, 16, 32), num_classes=3)
MAP = ModelConfig(image_size=(32, 32), patch_size=(8, 8), embed_dim=24, depth=1, num_heads=2,
                  num_classes=3, pool="map", class_token=False, qk_norm=True)  # fmt: skip


def drawn(config: ModelConfig) -> ViT:
    torch.manual_seed(0)
    model = ViT(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("config", [STEM, MAP], ids=["stem", "map"])
def test_the_graph_answers_as_the_model_does(tmp_path, config):
    model = drawn(config)
    write_onnx(model, tmp_path / "model.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape[1:] == [3, *config.image_size]
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, *config.image_size)
        with torch.no_grad():
            wanted = model(images).numpy()
        (found,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
