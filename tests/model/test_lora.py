import copy

import pytest
import torch

from vitreous.model.config import ModelConfig
from vitreous.model.lora import LoraLinear, add_lora, merge_lora
from vitreous.model.vit import ViT

CONFIG = ModelConfig(
    image_size=(16, 16), patch_size=(8, 8), num_classes=3, embed_dim=16, depth=2, num_heads=2,
    pool="map", fc_norm=True, qkv_bias=False,
)  # fmt: skip


@pytest.fixture
def plain() -> ViT:
    torch.manual_seed(0)
    model = ViT(CONFIG).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def taught(model: ViT, images: torch.Tensor) -> ViT:
    """After three steps of everything that learns."""
    learned = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=0.05, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    return model.eval()


def test_it_begins_as_the_model_itself(plain, images):
    model = add_lora(copy.deepcopy(plain), 4)
    assert torch.equal(model(images), plain(images))


def test_only_updates_and_head_learn(plain, images):
    before = {name: one.clone() for name, one in plain.state_dict().items()}
    model = taught(add_lora(plain, 4), images)
    after = {name.replace(".linear.", "."): one for name, one in model.state_dict().items()}
    moved = {name for name, one in before.items() if not torch.equal(one, after[name])}
    assert moved
    assert {name.split(".")[0] for name in moved} == {"attn_pool", "fc_norm", "head"}
    updates = [module for module in model.modules() if isinstance(module, LoraLinear)]
    assert len(updates) == 4 * CONFIG.depth
    assert all(module.up.weight.abs().max() > 0 for module in updates)


def test_merged_it_is_a_plain_model_that_answers_the_same(plain, images):
    model = taught(add_lora(copy.deepcopy(plain), 4), images)
    merged = merge_lora(model)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(merged(images), model(images), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(merged(images), plain(images), atol=0.1)
    # An update of rank 4 has no more than four directions.
    change = merged.blocks[0].mlp.fc1.weight - plain.blocks[0].mlp.fc1.weight
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 4
    assert any(isinstance(module, LoraLinear) for module in model.modules())


def test_a_plain_model_is_its_own_merger(plain):
    assert merge_lora(plain) is plain
