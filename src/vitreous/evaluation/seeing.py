"""All that refusing and calibrating need to know about pictures, from one pass of the network."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.evaluation.inference import Network, in_batches, outputs_of_pixels
from vitreous.evaluation.refusal import FEATURES, LOOKS, NUM_LOOKS, looks_of


@dataclass(frozen=True)
class Seen:
    """What is known about some pictures.

    Args:
        logits: (pictures, looks, classes).
        numbers: by way of looking (see `refusal`), (pictures, numbers).
    """

    logits: np.ndarray
    numbers: dict[str, np.ndarray]


def see_pixels(network: Network, pixels: Tensor, preprocess: Preprocess, num_classes: int) -> Seen:
    """Look at one batch of fitted pictures.

    Args:
        network: gives features behind its logits (see `model.features`).
        pixels: uint8.
        preprocess: from them to its input.
        num_classes: how many of its outputs are logits.

    Shape:
        pixels: (batch, height, width, 3)
    """
    return _seen(_rows(network, pixels, preprocess), preprocess, num_classes)


def see_set(
    network: Network,
    pictures: PictureSet,
    positions: np.ndarray,
    preprocess: Preprocess,
    num_classes: int,
) -> Seen:
    """Look at some of a set's pictures, at least one, in order."""
    rows = in_batches(_rows, network, pictures, positions, preprocess)
    return _seen(rows, preprocess, num_classes)


def _rows(network: Network, pixels: Tensor, preprocess: Preprocess) -> np.ndarray:
    """A row of numbers for each picture: its looks, then all outputs of each look."""
    outputs = outputs_of_pixels(network, pixels, preprocess)
    return np.concatenate([looks_of(pixels).numpy(), outputs.reshape(len(outputs), -1)], axis=1)


def _seen(rows: np.ndarray, preprocess: Preprocess, num_classes: int) -> Seen:
    looks, outputs = rows[:, :NUM_LOOKS], rows[:, NUM_LOOKS:]
    outputs = outputs.reshape(len(rows), 2 if preprocess.mirror else 1, -1)
    # Of a mirror image the features would be nearly the same.
    numbers = {LOOKS: looks, FEATURES: outputs[:, 0, num_classes:]}
    return Seen(np.ascontiguousarray(outputs[:, :, :num_classes]), numbers)
