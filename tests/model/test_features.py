import pytest
import torch

from vitreous.model.features import WithFeatures
from vitreous.model.presets import preset
from vitreous.model.vit import ViT

SMALL = {"image_size": (32, 32), "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("pool", ["cls", "mean", "map", "seq", "cls+mean"])
def test_what_the_head_sees_stands_behind_its_answer(pool):
    torch.manual_seed(0)
    model = ViT(preset("Ti/16", pool=pool, **SMALL)).eval()
    torch.nn.init.normal_(model.head.weight)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        outputs, logits = WithFeatures(model).eval()(images), model(images)
        again = model.head(outputs[:, 5:])
    assert torch.equal(outputs[:, :5], logits)
    torch.testing.assert_close(again, logits)


def test_of_a_flat_head_the_mean_of_the_patches():
    model = ViT(preset("compact-32", embed_dim=32, stem=(8, 16, 32), num_heads=2, depth=1)).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs, tokens = WithFeatures(model)(images), model.forward_tokens(images)
        logits = model.forward_head(tokens)
    assert torch.equal(outputs[:, :3], logits)
    torch.testing.assert_close(outputs[:, 3:], tokens.mean(1))
