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
from vitreous.recipes.facts import TRAINING_SHARE, Choice, Facts, Reason
from vitreous.training.config import RunConfig, TrainConfig

#: Fewer training pictures than this, or fewer seen in all, and the model of half the width learned
#: more in the same time.
SMALL_BELOW_SEEN = 50_000


def scratch(facts: Facts) -> Choice:
    """Settings for training from nothing on a few hundred to some ten thousand pictures."""
    side = _model_side(facts.typical_side)
    reasons = [
        Reason(
            ("model.image_size",),
            f"the pictures' shorter side is {facts.typical_side} px; 32, 48, 64 and 96 are offered",
        )
    ]
    config = _settings(facts, f"compact-{side}")
    if facts.embed_dim is None:
        seen, how = _pictures_seen(facts, config)
        if seen < SMALL_BELOW_SEEN:
            config = _settings(facts, f"compact-{side}-small")
        reasons.append(Reason(("model.embed_dim",), how))
    reasons.append(
        Reason(
            ("train.learning_rate",), "0.192 over the width: narrow models learn at higher rates"
        )
    )
    return Choice(config, tuple(reasons))


def _pictures_seen(facts: Facts, config: RunConfig) -> tuple[float, str]:
    """How many pictures the model of a configuration gets to see, repeats included, and why."""
    number = f"{facts.num_pictures:,} pictures"
    most = facts.epochs * facts.num_pictures
    if facts.budget_s is None:
        return most, f"it sees {most:,.0f} in all: {number}, {facts.epochs:g} times"
    assert facts.pictures_per_s is not None
    rate = facts.pictures_per_s(config)
    seen = min(TRAINING_SHARE * facts.budget_s * rate, most)
    return seen, (
        f"this machine learns from {rate:,.0f} a second at width {config.model.embed_dim}, "
        f"so it sees about {seen:,.0f} in all: {number}, {seen / facts.num_pictures:.3g} times"
    )


def _settings(facts: Facts, model_name: str) -> RunConfig:
    model = preset(model_name, num_classes=facts.num_classes)
    return RunConfig(
        recipe="scratch",
        data=DataConfig(source=facts.source),
        model=model,
        preprocess=Preprocess(image_size=model.image_size, mirror=True),
        # Mixing, erasing and strong colours slowed learning for as long as was measured.
        augment=AugmentConfig(color_chance=0.3, erase_chance=0.0, mix_chance=0.0),
        train=TrainConfig(
            epochs=facts.epochs,
            budget_s=facts.budget_s,
            batch_size=_batch_size(facts.num_pictures),
            optimizer="muon",
            learning_rate=0.192 / (facts.embed_dim or model.embed_dim),
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
