"""A training set's pictures, where training takes them from."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vitreous.data.loader import PictureSet
from vitreous.data.stream import StreamedPixels

#: Share of a GPU's free memory that pictures may fill; a step needs the rest.
_GPU_SHARE = 0.25
#: Pictures that are moved to the GPU at once.
_CHUNK = 1024


class Feed:
    """Hands out batches of a set on the device that trains.

    A GPU keeps all the pictures, as bytes, where they fit: then nothing is moved from step to
    step. Otherwise each batch goes there from pinned memory, which doesn't hold up the host.

    Args:
        pictures: decoded, with labels.
        device: that trains.
    """

    def __init__(self, pictures: PictureSet, device: torch.device) -> None:
        self._pictures, self._device = pictures, device
        self._on_gpu: Tensor | None = None
        # What is decoded when it is asked for would all be decoded here, before the first step.
        if device.type == "cuda" and not isinstance(pictures.pixels, StreamedPixels):
            size = len(pictures) * math.prod(pictures.pixels.shape[1:])
            free, _ = torch.cuda.mem_get_info(device)
            if size <= _GPU_SHARE * free:
                self._on_gpu = self._all_pixels()

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pictures on the device and labels on the CPU, at these positions of the set.

        Shape:
            -> (batch, height, width, 3) uint8, (batch,) int64
        """
        if self._on_gpu is not None:
            places = torch.tensor(positions)
            chosen = places.pin_memory().to(self._device, non_blocking=True)
            return self._on_gpu[chosen], self._pictures.labels[places]
        pixels, labels = self._pictures.batch(positions)
        if self._device.type != "cuda":
            # MPS would read, later, memory that has been given back (pytorch issue 189690).
            return pixels.to(self._device), labels
        return pixels.pin_memory().to(self._device, non_blocking=True), labels

    def _all_pixels(self) -> Tensor:
        count, shape = len(self._pictures), self._pictures.pixels.shape[1:]
        pixels = torch.empty((count, *shape), dtype=torch.uint8, device=self._device)
        for start in range(0, count, _CHUNK):
            places = range(start, min(start + _CHUNK, count))
            pixels[start : places.stop] = self._pictures.batch(places)[0].to(self._device)
        return pixels
