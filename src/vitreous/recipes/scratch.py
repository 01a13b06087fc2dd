"""The default: a compact Vision Transformer learned from nothing but the person's own pictures.

A short convolutional stem gives a small set the locality that a plain ViT would need millions of
pictures to learn (Hassani et al. 2021, "Escaping the Big Data Paradigm with Compact
Transformers"; Xiao et al. 2021). Sine positions, a head that sees every token in its place, blocks
that begin as the identity and Muon take it off the plateau of one answer for all, where a plain
ViT stays for epochs. It is narrow, because within minutes a narrow model sees several times as
many pictures. What was compared, and over how few epochs, stands in docs/experiments/LOG.md.

``vitreous train emotions --budget 25m`` on two CPU cores: 83 epochs of 12,969 faces in three
classes, 0.940 accuracy, 0.924 balanced (benchmarks/results/2026-11-26_accuracy25).
"""

from dataclasses import replace

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.model.config import ModelConfig
from vitreous.model.presets import preset
from vitreous.recipes.facts import Choice, Facts, Reason, batch_size
from vitreous.training.config import RunConfig, TrainConfig

#: From so many pictures seen in a run on, repeats included, the model is twice as wide. Up to 2.6
#: million the narrow one was no worse; above that nothing was measured.
WIDE_FROM_SEEN = 4_000_000
#: From so many on, and from so many epochs, pictures are varied more. It lost or drew up to 60
#: epochs of 12,969 pictures and gained at 200, with one seed; between nothing was measured.
VARIED_FROM_SEEN, VARIED_FROM_EPOCHS = 1_500_000, 100

_PLAIN = AugmentConfig(color_chance=0.3, erase_chance=0.0, mix_chance=0.0)
_VARIED = AugmentConfig(color_chance=0.5, erase_chance=0.25, mix_chance=0.3)


def scratch(facts: Facts) -> Choice:
    """Settings for training from nothing on a few hundred to some ten thousand pictures."""
    name = f"compact-{_model_side(facts.image_size or facts.typical_side)}"
    config = _settings(facts, preset(name, num_classes=facts.num_classes))
    reasons = []
    if facts.image_size is None:
        size = (
            f"the pictures' shorter side is {facts.typical_side} px; 32, 48, 64 or 96 are offered"
        )
        reasons.append(Reason(("model.image_size",), size))
    seen, how = _pictures_seen(facts, config)
    if facts.embed_dim is None:
        is_wide = seen >= WIDE_FROM_SEEN
        if is_wide:
            config = _settings(facts, preset(f"{name}-wide", num_classes=facts.num_classes))
        limit = f"{how}; twice as wide {'' if is_wide else 'only '}from {WIDE_FROM_SEEN:,} on"
        reasons.append(Reason(("model.embed_dim",), limit))
    if seen >= max(VARIED_FROM_SEEN, VARIED_FROM_EPOCHS * facts.num_pictures):
        config = replace(config, augment=_VARIED)
    names = ("augment.color_chance", "augment.erase_chance", "augment.mix_chance")
    limit = f"more from {VARIED_FROM_SEEN:,} pictures seen and {VARIED_FROM_EPOCHS} epochs on"
    reasons.append(Reason(names, limit))
    reasons.append(Reason(("train.learning_rate",), "the wider the model, the lower"))
    return Choice(config, tuple(reasons))


def _pictures_seen(facts: Facts, config: RunConfig) -> tuple[float, str]:
    """How many pictures a configuration gets to see, repeats included, and how that is known."""
    most = facts.epochs * facts.num_pictures
    if facts.learning_s is None:
        return most, f"in all it sees {most:,.0f}: {_times(most, facts)}"
    assert facts.pictures_per_s is not None
    rate = facts.pictures_per_s(config)
    seen = min(facts.learning_s * rate, most)
    return seen, (
        f"this machine learns from {rate:,.0f} a second at width {config.model.embed_dim}, in all "
        f"{seen:,.0f}: {_times(seen, facts)}"
    )


def _times(seen: float, facts: Facts) -> str:
    return f"{facts.num_pictures:,} pictures times {seen / facts.num_pictures:.3g}"


def _settings(facts: Facts, model: ModelConfig) -> RunConfig:
    return RunConfig(
        recipe="scratch",
        data=DataConfig(source=facts.source),
        model=model,
        preprocess=Preprocess(image_size=model.image_size, mirror=True),
        augment=_PLAIN,
        train=TrainConfig(
            epochs=facts.epochs,
            budget_s=facts.budget_s,
            batch_size=batch_size(facts.num_pictures, most=128),
            optimizer="muon",
            learning_rate=_learning_rate(facts.embed_dim or model.embed_dim),
        ),
    )


def _model_side(typical_side: int) -> int:
    """The preset's size nearest above the pictures' own, up to 96 px.

    Pixels cost time and from-scratch models of a few thousand pictures rarely use more.
    """
    return next((side for side in (32, 48, 64) if typical_side <= side * 1.25), 96)


def _learning_rate(embed_dim: int) -> float:
    """To one digit: 1e-3 at width 192, 3e-3 at 96, and on the line between those two elsewhere."""
    return float(f"{1e-3 * (192 / embed_dim) ** 1.5:.0e}")
