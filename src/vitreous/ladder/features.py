"""What a pretrained model, as it is, makes of every picture: computed once, for all that asks."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vitreous.core.console import Console
from vitreous.core.files import read_tensors, write_tensors
from vitreous.core.rng import numpy_stream, streams_kept
from vitreous.data.loader import PictureSet, some_of_each_class
from vitreous.data.preprocess import Preprocess
from vitreous.errors import RunError
from vitreous.evaluation.inference import (
    BATCH_SIZE,
    TorchNetwork,
    features_of_pixels,
    in_batches,
)
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, choose_precision
from vitreous.training.encoder import Encoder

#: Pictures between two signs of progress.
_CHUNK = 512
#: Numbers in the table of the training pictures' features; a fit reads it some hundred times.
MOST_NUMBERS = 50_000_000


@dataclass(frozen=True)
class Features:
    """The pictures as a head would see them.

    Args:
        train, valid: (pictures, features) float32.
        train_labels, valid_labels: their classes' indices.
    """

    train: np.ndarray
    train_labels: np.ndarray
    valid: np.ndarray
    valid_labels: np.ndarray


def frozen_features(
    path: Path,
    config: RunConfig,
    encoder: Encoder,
    train: PictureSet,
    valid: PictureSet,
    console: Console,
    seconds: float | None,
) -> Features:
    """Features of the validation pictures and of as many training pictures as time allows.

    Args:
        path: file that keeps them; where it exists it is read.
        config: model, preprocessing, device and precision.
        encoder: the pretrained weights.
        train: to learn from.
        valid: to compare with.
        console: where progress goes.
        seconds: that may be spent on training pictures; ``None`` for any.
    """
    if (kept := _read(path)) is not None:
        return kept
    network = _network(config, encoder)
    once = replace(config.preprocess, mirror=False)
    if network.device.type != "cpu":  # its libraries are loaded once, whatever follows
        first = np.arange(min(BATCH_SIZE, len(valid)))
        in_batches(features_of_pixels, network, valid, first, once)
    started = time.monotonic()
    of_valid = _extract(network, valid, np.arange(len(valid)), once, console, "looking at valid")
    per_picture_s = (time.monotonic() - started) / len(valid)
    most = max(1, MOST_NUMBERS // of_valid.shape[1])
    if seconds is not None:
        most = min(most, max(int(seconds / per_picture_s), 1))
    stream = numpy_stream(config.train.seed, "features")
    positions = some_of_each_class(train.labels, most, stream)
    of_train = _extract(network, train, positions, once, console, "looking at train")
    features = Features(of_train, train.labels.numpy()[positions], of_valid, valid.labels.numpy())
    write_tensors(path, {name: torch.from_numpy(a) for name, a in vars(features).items()}, {})
    return features


def _read(path: Path) -> Features | None:
    try:
        tensors, _ = read_tensors(path)
        return Features(**{name: tensor.numpy() for name, tensor in tensors.items()})
    except (RunError, TypeError):
        return None


def _network(config: RunConfig, encoder: Encoder) -> TorchNetwork:
    """The encoder up to where a head would stand, in the precision of training."""
    device = choose_device(config.train.device)
    dtype = choose_precision(config.train.precision, device)
    # Drawn with its head, without which other numbers would be drawn for what is new below it.
    model = encoder.load_into(drawn_model(config.model))
    model.head = nn.Identity()
    return TorchNetwork(model.to(device, dtype), dtype)


def drawn_model(config: ModelConfig) -> ViT:
    """A model whose first weights are the same every time: a pooling may keep them."""
    with streams_kept():
        torch.default_generator.manual_seed(0)
        return ViT(config)


def _extract(
    network: TorchNetwork,
    pictures: PictureSet,
    positions: np.ndarray,
    preprocess: Preprocess,
    console: Console,
    description: str,
) -> np.ndarray:
    parts, done = [], 0
    with console.task(description, len(positions)) as task:
        for chunk in np.array_split(positions, -(-len(positions) // _CHUNK)):
            parts.append(in_batches(features_of_pixels, network, pictures, chunk, preprocess))
            done += len(chunk)
            task.update(done)
    return np.concatenate(parts)
