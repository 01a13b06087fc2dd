"""The default: a compact Vision Transformer learned from nothing but the person's own pictures.

A short convolutional stem gives a small set the locality that a plain ViT would need millions of
pictures to learn (Hassani et al. 2021, "Escaping the Big Data Paradigm with Compact
Transformers"; Xiao et al. 2021). Sine positions, a head that sees every token in its place, blocks
that begin as the identity and Muon take it off the plateau of one answer for all, where a plain
ViT stays for epochs. What was compared, and over how few epochs, stands in docs/experiments/LOG.md;
figures with their commands in the README.
"""

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.model.presets import preset
from vitreous.recipes.facts import Facts
from vitreous.training.config import RunConfig, TrainConfig

#: With neither epochs nor a budget named, a run ends after this many seconds at the latest.
DEFAULT_BUDGET_S = 20 * 60.0


def scratch(facts: Facts) -> RunConfig:
    """Settings for training from nothing on a few hundred to some ten thousand pictures."""
    side = _model_side(facts.typical_side)
    model = preset(f"compact-{side}", num_classes=facts.num_classes)
    return RunConfig(
        recipe="scratch",
        data=DataConfig(source=facts.source),
        model=model,
        preprocess=Preprocess(image_size=model.image_size, mirror=True),
        # Mixing, erasing and strong colours slowed learning for as long as was measured.
        augment=AugmentConfig(color_chance=0.3, erase_chance=0.0, mix_chance=0.0),
        train=TrainConfig(
            batch_size=_batch_size(facts.num_pictures),
            budget_s=DEFAULT_BUDGET_S,
            optimizer="muon",
            learning_rate=1e-3,
        ),
    )


def _model_side(typical_side: int) -> int:
    """The preset's size nearest above the pictures' own, up to 96 px.

    Pixels cost time and from-scratch models of a few thousand pictures rarely use more.
    """
    return next((side for side in (32, 48, 64) if typical_side <= side * 1.25), 96)


def _batch_size(num_pictures: int) -> int:
    """128, or less where an epoch would have fewer than eight steps, but at least 16."""
    batch_size = 128
    while batch_size > 16 and num_pictures < 8 * batch_size:
        batch_size //= 2
    return batch_size
