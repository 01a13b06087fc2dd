"""How fast this machine learns."""

from dataclasses import replace

import numpy as np
import torch

from vitreous.core.rng import numpy_stream, streams_kept
from vitreous.data.loader import PictureSet
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, free_memory, in_same_order
from vitreous.training.guard import TooLittleMemory, with_less_memory
from vitreous.training.learner import ClassLearner
from vitreous.training.plan import plan_epochs

#: Seconds spent on steps that count. The two before them are slower: they allocate memory.
_MEASURED_S = 1.5


def measure_pictures_per_s(config: RunConfig) -> float:
    """Pictures a second in true training steps, augmentation included, on noise."""
    # Noise has no votes, and other processes stand by.
    train = replace(config.train, soft_labels=False, parallel="none")
    config = replace(config, train=train)
    count = config.train.batch_size
    height, width = config.preprocess.image_size
    noise = numpy_stream(0, "pace").integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    labels = torch.arange(count) % config.model.num_classes
    pictures = PictureSet(noise, np.arange(count), labels, ())
    classes = tuple(map(str, range(config.model.num_classes)))
    while True:
        try:
            return count / _measure_step_s(config, pictures, classes)
        except TooLittleMemory:
            config = with_less_memory(config)  # as training will
        finally:
            free_memory()


def _measure_step_s(config: RunConfig, pictures: PictureSet, classes: tuple[str, ...]) -> float:
    with streams_kept(choose_device(config.train.device)), in_same_order(config.train):
        learner = ClassLearner(config, pictures, classes)
        return learner.measure_step_s(plan_epochs(config.train.epochs, 1.0), _MEASURED_S)
