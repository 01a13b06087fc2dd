"""The lecture's model and training, step for step: for learning what goes wrong, not for use.

A plain ViT with heads as wide as the token, drawn as Keras draws it, fed with pixels from 0 to 255
and trained with Adam at 1e-3: no warm-up, no augmentation, no decay, no averaging. What becomes of
it, and why, is docs/lecture/wall.md. The default recipe is `scratch`.
"""

import math

from vitreous.data.config import NO_AUGMENTATION, DataConfig
from vitreous.data.preprocess import Preprocess
from vitreous.model.presets import preset
from vitreous.recipes.facts import Choice, Facts, Reason
from vitreous.training.config import RunConfig, TrainConfig


def lecture(facts: Facts) -> Choice:
    """The lecture's settings: 256 px, batches of 32, softmax cross-entropy, Adam 1e-3."""
    model = preset("lecture", num_classes=facts.num_classes)
    config = RunConfig(
        recipe="lecture",
        data=DataConfig(source=facts.source),
        model=model,
        preprocess=Preprocess(
            image_size=model.image_size,
            interpolation="bilinear",
            # Pixels from 0 to 255, as TensorFlow's loader of folders gives them.
            mean=(0.0, 0.0, 0.0),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        augment=NO_AUGMENTATION,
        train=TrainConfig(
            epochs=20.0,
            budget_s=facts.budget_s,
            batch_size=32,
            optimizer="keras_adam",
            learning_rate=1e-3,
            final_learning_rate=1.0,
            warmup=0.0,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            clip_norm=math.inf,
            label_smoothing=0.0,
            ema=0.0,
            precision="float32",
        ),
    )
    return Choice(config, (Reason(("recipe",), "as in the lecture, whatever the pictures"),))
