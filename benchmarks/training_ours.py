"""A worker: whole training steps of the product on pictures that lie ready.

    python benchmarks/training_ours.py '{"model": "S/16", "image_size": 224, "batch_size": 8}'

Forward, backward, clipping, optimiser and moving average, by `ClassLearner.learn`. With
``"is_fed": true`` each step has other pictures, which are augmented as in fine-tuning.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from speed_pairs import wait_for
from speed_turns import WARMUP, Turns

from vitreous.data.config import AugmentConfig, DataConfig
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.model.presets import preset
from vitreous.recipes.facts import Facts
from vitreous.recipes.lecture import lecture
from vitreous.recipes.scratch import scratch
from vitreous.training.config import RunConfig, TrainConfig
from vitreous.training.device import choose_compile, choose_device
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs
from vitreous.training.shards import choose_shards, smallest_part

NUM_CLASSES = 3
#: Of fine-tuning, and how many batches' worth of pictures there are.
AUGMENT = AugmentConfig(color_chance=0.3, erase_chance=0.0, mix_chance=0.0)
FED_BATCHES = 8


class ReadyLearner(ClassLearner):
    """Learns from the same batch again and again."""

    def ready(self, batch_size: int) -> "ReadyLearner":
        pixels, labels = self.pictures.batch(range(batch_size))
        images = normalise(pixels.to(self.device), self.config.preprocess)
        targets = torch.nn.functional.one_hot(labels, NUM_CLASSES).float().to(self.device)
        self._batch = images, targets
        return self

    def inputs(self, step: int, progress: float) -> tuple[torch.Tensor, ...]:
        return self._batch


def configuration(model: str, image_size: int, batch_size: int, precision: str) -> RunConfig:
    """The recipe's settings where a recipe has this model, else the defaults with AdamW."""
    facts = Facts("", 10_000, NUM_CLASSES, image_size, image_size, epochs=1.0)
    if model.startswith("compact"):
        config = scratch(facts).config
    elif model.startswith("lecture"):
        config = lecture(facts).config
        size = (image_size, image_size)
        config = replace(config, model=preset(model, image_size=size, num_classes=NUM_CLASSES))
        config = replace(config, preprocess=replace(config.preprocess, image_size=size))
    else:
        size = (image_size, image_size)
        config = RunConfig(
            recipe="benchmark",
            data=DataConfig(""),
            model=preset(model, image_size=size, num_classes=NUM_CLASSES),
            preprocess=Preprocess(image_size=size),
            train=TrainConfig(),
        )
    train = replace(config.train, batch_size=batch_size, precision=precision)  # pyright: ignore[reportArgumentType]
    device = choose_device(train.device)
    train = replace(train, compile=choose_compile(device, budget_s=None))
    shards = choose_shards(device, batch_size, smallest_part(config.model), train.compile)
    return replace(config, train=replace(train, shards=shards))


def main(settings: dict[str, Any]) -> None:
    batch_size, side = settings["batch_size"], settings["image_size"]
    config = configuration(settings["model"], side, batch_size, settings.get("precision", "auto"))
    is_fed = settings.get("is_fed", False)
    count = FED_BATCHES * batch_size if is_fed else batch_size
    noise = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    pictures = PictureSet(noise, np.arange(count), torch.arange(count) % NUM_CLASSES, ())
    if is_fed:
        config = replace(config, augment=AUGMENT)
        learner = ClassLearner(config, pictures, tuple("abc"))
    else:
        learner = ReadyLearner(config, pictures, tuple("abc")).ready(batch_size)
    device = learner.device
    # On a GPU the fourth step is recorded.
    turns = Turns(batch_size, wait_for(device), WARMUP if device.type == "cpu" else 2 * WARMUP)
    plan = plan_epochs(1.0, 100_000)
    while True:
        turns.begin()
        learner.learn(plan)
        turns.end()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
