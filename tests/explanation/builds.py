"""Models of every build, with weights that make their answers differ."""

from dataclasses import replace

import torch

from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT

SMALL = ModelConfig(
    image_size=(32, 48),
    patch_size=(8, 8),
    num_classes=5,
    embed_dim=24,
    depth=3,
    num_heads=2,
    num_register_tokens=1,
)
NO_TOKEN = {"class_token": False, "num_register_tokens": 0}
#: Every pooling, and everything else that a model may have.
BUILDS = {
    "cls": {},
    "mean": {"pool": "mean", **NO_TOKEN},
    "map": {"pool": "map"},
    "seq": {"pool": "seq"},
    "flatten": {"pool": "flatten"},
    "cls+mean": {"pool": "cls+mean"},
    "prefix": {"pool": "prefix"},
    "stem": {"pool": "flatten", "stem": (6, 8, 12), "stem_blocks": (1, 0, 0), **NO_TOKEN},
    "turned, normed and scaled": {
        "pool": "mean",
        "pos_embed": "rope2d",
        "qk_norm": True,
        "layer_scale_init": 0.7,
        "gated_mlp": True,
        "pre_norm": True,
        "fc_norm": True,
    },
    "wide heads": {
        "pool": "flatten",
        "head_dim": 24,
        "final_norm": False,
        "head_hidden": (12,),
        "mlp_output_activation": True,
        **NO_TOKEN,
    },
}


def drawn(changes: dict, seed: int = 0) -> ViT:
    """A model whose weights are large enough for its attention not to be even."""
    torch.manual_seed(seed)
    model = ViT(replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25 * torch.randn_like(parameter))
    return model
