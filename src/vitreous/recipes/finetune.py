"""Begin with a model that has seen a very large set, and climb the ladder (see `ladder`).

AdamW with a rate that falls from the head to the patches, so that what was learned on the large set
is changed least where it is most general (Bao et al. 2022, "BEiT"; Kumar et al. 2022).
Small pictures are fed at a size between their own and that of the large set's: upscaled pixels tell
nothing new and cost time, but a patch must not see much more of a picture than it used to.
What was compared stands in docs/experiments/LOG.md.
"""

import math
from dataclasses import replace

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.errors import ConfigError
from vitreous.recipes.facts import Choice, Facts, Reason, batch_size
from vitreous.training.config import LadderConfig, RunConfig, TrainConfig

#: How often a picture should be seen at the least; with less time its sides are made shorter.
MIN_EPOCHS = 6.0
#: The same where only a new head is fitted: each picture is looked at once, which costs about a
#: third of learning from it, in a part of the time.
PROBE_EPOCHS = 1.0
#: With a budget, so that few pictures aren't seen hundreds of times; lengths were not compared.
MOST_EPOCHS = 40.0
#: Side that the model sees, over that of the pictures themselves.
UPSCALE = 2.4


def finetune(facts: Facts) -> Choice:
    """Settings for tuning pretrained weights on a few hundred to some ten thousand pictures."""
    if facts.encoder is None:
        raise ConfigError("recipe 'finetune' needs weights to begin with: name them with --weights")
    config = _settings(facts)
    if facts.image_size is not None:
        return Choice(config)
    config, why = _sized(facts, config)
    return Choice(config, (Reason(("model.image_size",), why),))


def _settings(facts: Facts) -> RunConfig:
    assert facts.encoder is not None
    model = replace(facts.encoder.config, num_classes=facts.num_classes)
    config = RunConfig(
        recipe="finetune",
        data=DataConfig(source=facts.source),
        model=model,
        preprocess=replace(facts.encoder.preprocess, resize=None, mirror=True),
        augment=AugmentConfig(color_chance=0.3, erase_chance=0.0, mix_chance=0.0),
        train=TrainConfig(
            epochs=min(facts.epochs, MOST_EPOCHS) if facts.budget_s else facts.epochs,
            budget_s=facts.budget_s,
            batch_size=batch_size(facts.num_pictures, most=64),
            optimizer="adamw",
            learning_rate=1e-3,
            layer_decay=0.75,
            betas=(0.9, 0.999),
        ),
        init=facts.init,
        ladder=LadderConfig(),
    )
    return config if facts.image_size is None else _with_side(config, facts.image_size)


def _sized(facts: Facts, config: RunConfig) -> tuple[RunConfig, str]:
    """The same at the size that suits the pictures and the time."""
    native = max(config.model.image_size)
    patch = max(config.model.patch_size)
    least = min(native, 4 * patch)
    enough = PROBE_EPOCHS if facts.rungs == ("probe",) else MIN_EPOCHS
    side = min(native, patch * round(UPSCALE * facts.typical_side / patch))
    side = max(side, least)
    why = f"the pictures' shorter side is {facts.typical_side} px, the weights' was {native}"
    if facts.learning_s is None or facts.pictures_per_s is None:
        return _with_side(config, side), why
    while True:
        config = _with_side(config, side)
        seen = facts.learning_s * facts.pictures_per_s(config)
        epochs = seen / facts.num_pictures
        if epochs >= enough or side <= least:
            why = f"{why}; the time is enough to learn from each picture {epochs:.1f} times"
            return config, why
        # What a picture costs goes about with its area; to measure that at many sizes takes long.
        fitting = patch * round(side * math.sqrt(epochs / enough) / patch)
        side = max(least, min(side - patch, fitting))


def _with_side(config: RunConfig, side: int) -> RunConfig:
    size = (side, side)
    return replace(
        config,
        model=replace(config.model, image_size=size),
        preprocess=replace(config.preprocess, image_size=size),
    )
