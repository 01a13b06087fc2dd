"""Named architectures: the published sizes in the papers' notation, small ones, the lecture's.

"S/16" is the S width and depth with 16 px patches. Each published one means 224 px and 1000
classes, as in its paper; ``preset("S/16", image_size=(96, 96), num_classes=3)`` changes that.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.core.config import did_you_mean
from vitreous.errors import ConfigError
from vitreous.model.config import ModelConfig

# Width, depth, heads: Dosovitskiy et al. 2021, table 1; Ti and S from Touvron et al. 2021.
_PUBLISHED = {
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "H": (1280, 32, 16),
}

# As measured at 48 px in docs/experiments/LOG.md; the other sizes have not been compared yet. At
# least 80 % of the parameters and 60 % of the operations lie in the blocks.
_COMPACT = ModelConfig(
    image_size=(48, 48),
    patch_size=(8, 8),
    num_classes=3,
    embed_dim=96,
    depth=6,
    num_heads=3,
    pos_embed="sincos2d",
    class_token=False,
    pool="flatten",
    stem=(24, 48, 96),
    stem_blocks=(1, 1, 0),
    init="identity",
)

_LECTURE = ModelConfig(
    image_size=(256, 256),
    patch_size=(16, 16),
    num_classes=3,
    embed_dim=768,
    depth=4,
    num_heads=8,
    head_dim=768,
    mlp_dim=768,
    class_token=False,
    pool="flatten",
    head_hidden=(1024, 1024),
    mlp_output_activation=True,
    final_norm=False,
    norm_eps=1e-3,
    init="keras2",
)


def _doubled(config: ModelConfig) -> ModelConfig:
    """Twice as wide throughout, with as many heads: four times the parameters and operations."""
    stem = tuple(2 * width for width in config.stem)
    return replace(config, embed_dim=2 * config.embed_dim, stem=stem)


def _presets() -> dict[str, ModelConfig]:
    named = {
        f"{size}/{patch}": ModelConfig(
            patch_size=(patch, patch), embed_dim=width, depth=depth, num_heads=heads
        )
        for size, (width, depth, heads) in _PUBLISHED.items()
        for patch in (14, 16, 32)
    }
    named["compact-32"] = replace(_COMPACT, image_size=(32, 32), patch_size=(4, 4))
    named["compact-48"] = _COMPACT
    named["compact-64"] = replace(_COMPACT, image_size=(64, 64))
    named["compact-96"] = replace(
        _COMPACT,
        image_size=(96, 96),
        patch_size=(16, 16),
        stem=(12, 24, 48, 96),
        stem_blocks=(0, 0, 1, 0),
    )
    for name in [name for name in named if name.startswith("compact")]:
        named[f"{name}-wide"] = _doubled(named[name])
    named["lecture"] = _LECTURE
    named["lecture-small"] = replace(_LECTURE, depth=2, num_heads=4, head_hidden=(128, 128))
    return named


PRESETS = _presets()
#: As those of published sizes are written: S/16.
_PUBLISHED_NAME = re.compile(r"[\w-]+/\d+")


def is_preset(name: str) -> bool:
    """Whether a name can only mean a preset, known or not, rather than a place or a hub's id."""
    return name in PRESETS or bool(_PUBLISHED_NAME.fullmatch(name)) or Path(name).name == name


def preset(name: str, **changes: Any) -> ModelConfig:
    """The configuration called `name`, with `changes` to single fields.

    Raises:
        ConfigError: for an unknown name, with the nearest known one.

    Example:
        >>> preset("Ti/16", num_classes=3).embed_dim
        192
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}': {did_you_mean(name, PRESETS)}")
    return replace(PRESETS[name], **changes)
