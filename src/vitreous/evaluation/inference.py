"""Running a network over pictures, without gradients: one way for every runtime."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vitreous.core.threads import SideBySide
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise

BATCH_SIZE = 64


class Network(Protocol):
    """Something that turns normalised pictures into logits, whichever library computes them.

    Attributes:
        device: where it takes pictures and gives logits.
        side_by_side: how many calls from threads at once pay; 1 where a call has threads itself.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def side_by_side(self) -> int: ...

    def __call__(self, images: Tensor) -> Tensor:
        """One forward pass.

        Shape:
            (batch, channels, height, width) float32 -> logits (batch, classes) float32
        """
        ...


class TorchNetwork:
    """A PyTorch module as it is, in evaluation mode.

    Args:
        model: pictures in, logits out; its weights have the type `dtype`.
        dtype: in which it computes.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        self.model, self._dtype = model.eval(), dtype
        self.device = next(model.parameters()).device

    @property
    def side_by_side(self) -> int:
        """On a CPU every thread takes pictures of its own."""
        return min(torch.get_num_threads(), BATCH_SIZE) if self.device.type == "cpu" else 1

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images.to(self._dtype)).float()


@torch.inference_mode()
def outputs_of_pixels(network: Network, pixels: Tensor, preprocess: Preprocess) -> np.ndarray:
    """What a network says of one batch of fitted pictures, at each look.

    There are two looks where `preprocess` wants the mirror image too, else one.

    Shape:
        (batch, height, width, 3) uint8 -> (batch, looks, outputs) float32
    """
    images = normalise(pixels.to(network.device), preprocess)
    looks = [images, images.flip(-1)] if preprocess.mirror else [images]
    return torch.stack([network(look) for look in looks], dim=1).cpu().numpy()


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """The mean over the looks of each look's probabilities.

    Shape:
        (batch, looks, classes) -> (batch, classes), of the same type
    """
    return torch.from_numpy(logits).softmax(dim=2).mean(dim=1).numpy()


def predict_pixels(
    network: Network, pixels: Tensor, preprocess: Preprocess, num_classes: int | None = None
) -> np.ndarray:
    """Class probabilities of one batch of fitted pictures.

    Args:
        network: what answers.
        pixels: uint8.
        preprocess: from them to its input.
        num_classes: how many of its outputs are logits, the first ones; ``None`` for all.

    Shape:
        (batch, height, width, 3) uint8 -> (batch, classes) float32
    """
    return probabilities_of(outputs_of_pixels(network, pixels, preprocess)[..., :num_classes])


@torch.inference_mode()
def features_of_pixels(network: Network, pixels: Tensor, preprocess: Preprocess) -> np.ndarray:
    """What a network without a head makes of one batch of fitted pictures.

    Shape:
        (batch, height, width, 3) uint8 -> (batch, features) float32
    """
    return network(normalise(pixels.to(network.device), preprocess)).cpu().numpy()


def predict_set(network: Network, pictures: PictureSet, preprocess: Preprocess) -> np.ndarray:
    """Class probabilities of every readable picture of a set.

    Shape:
        -> (pictures, classes) float32
    """
    return probabilities_of(outputs_of_set(network, pictures, preprocess))


def outputs_of_set(network: Network, pictures: PictureSet, preprocess: Preprocess) -> np.ndarray:
    """What a network says of every readable picture of a set, at each look.

    Shape:
        -> (pictures, looks, outputs) float32
    """
    everything = np.arange(len(pictures))
    return in_batches(outputs_of_pixels, network, pictures, everything, preprocess)


def in_batches(
    work: Callable[[Network, Tensor, Preprocess], np.ndarray],
    network: Network,
    pictures: PictureSet,
    positions: np.ndarray,
    preprocess: Preprocess,
) -> np.ndarray:
    """What `outputs_of_pixels` or `features_of_pixels` makes of some of a set's pictures."""
    threads = SideBySide(network.side_by_side)
    # Together no more than a GPU does at once.
    size = BATCH_SIZE // threads.count
    batches = np.array_split(positions, -(-len(positions) // size))

    def work_on(batch: np.ndarray) -> np.ndarray:
        return work(network, pictures.batch(batch)[0], preprocess)

    return np.concatenate(threads.map(work_on, batches))
