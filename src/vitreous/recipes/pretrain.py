"""Pretraining without labels: the model that `scratch` would train, and what hides its patches.

As in He et al. 2022, appendix A.1: geometry alone is changed at random, not colour, and AdamW's
second moment forgets faster. Optimiser, rate and lengths are those of `scratch`; they have not been
compared for this task.
"""

from dataclasses import replace

from vitreous.data.config import AugmentConfig
from vitreous.recipes.facts import Choice, Facts
from vitreous.recipes.scratch import scratch
from vitreous.training.config import PretrainConfig


def pretrain(facts: Facts) -> Choice:
    """Settings for masked autoencoding on the person's own pictures."""
    choice = scratch(facts)
    config = replace(
        choice.config,
        recipe="pretrain",
        preprocess=replace(choice.config.preprocess, mirror=False),
        augment=AugmentConfig(color_chance=0.0, erase_chance=0.0, mix_chance=0.0),
        train=replace(choice.config.train, betas=(0.9, 0.95), label_smoothing=0.0),
        pretrain=PretrainConfig(),
    )
    reasons = (one for one in choice.reasons if not one.settings[0].startswith("augment."))
    return Choice(config, tuple(reasons))
