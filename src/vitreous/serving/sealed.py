"""A sealed file in the place of a run: its graph as a network, its contract as the description.

What is decoded and scaled for a network is uint8 of one size, so that pictures can be kept and
taken in batches. The graph scales a picture of that size to itself, and sees the same middle of it
that it would see of the whole picture.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.console import Console
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError
from vitreous.exporting.sealed_file import SealedFile, open_sealed
from vitreous.serving.guard import Guard, guard_of_sealed
from vitreous.serving.predictor import Predictor
from vitreous.serving.runtimes import Precision, Runtime
from vitreous.serving.tune import choose_engine
from vitreous.serving.wish import Wish
from vitreous.training.config import Device


class SealedNetwork:
    """A sealed file's graph, one picture after another.

    Args:
        file: whose graph it is.
        strangeness: whether that stands behind the logits, as features of other networks do.

    Shape:
        (batch, 3, height, width), whole numbers from 0 to 255 -> (batch, classes), logarithms of
        probabilities, or (batch, classes + views)
    """

    device = torch.device("cpu")
    side_by_side = 1

    def __init__(self, file: SealedFile, strangeness: bool) -> None:
        self._file, self._strangeness = file, strangeness
        self._cover = file.contract.preprocess.cover

    def __call__(self, images: Tensor) -> Tensor:
        height, width = self._cover
        # A last row or column that isn't seen, where the margin can't be as wide on both sides.
        missing = (0, width - images.shape[3], 0, height - images.shape[2])
        pictures = F.pad(images, missing).round().byte().permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.stack([self._row(picture) for picture in pictures]))

    def _row(self, picture: np.ndarray) -> np.ndarray:
        probabilities, *strangeness = self._file.answer(np.ascontiguousarray(picture))
        # The softmax of logarithms of probabilities is those probabilities.
        logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        return np.concatenate([logits, *strangeness]) if self._strangeness else logits


def open_sealed_predictor(path: Path, where: object, wish: Wish, console: Console) -> Predictor:
    """A sealed file, ready to answer.

    Args:
        path: the file.
        where: what the person called it.
        wish: what is asked of its answers.
        console: is told what is promised.

    Raises:
        ConfigError: where ONNX Runtime isn't installed, or the file doesn't carry what is asked.
        WeightsError: where the file is damaged or no sealed file of vitreous.
    """
    check_as_written(where, wish.runtime, wish.precision, wish.device)
    engine = choose_engine(path, "onnxruntime", "float32", "auto", console)
    file = open_sealed(path, engine.threads)
    return sealed_predictor(
        file, engine.threads, guard_of_sealed(file.contract, where, wish, console)
    )


def check_as_written(
    where: object, runtime: Runtime | None, precision: Precision, device: Device
) -> None:
    """Refuse another way to compute than the one that a sealed file was written for.

    Raises:
        ConfigError: for another library, precision or device.
    """
    is_cpu = device in ("auto", "cpu")
    if runtime not in (None, "onnxruntime") or precision != "float32" or not is_cpu:
        raise ConfigError(
            f"{where} is computed by ONNX Runtime on the CPU, as it was written: leave --runtime, "
            "--precision and --device out, or name the run that it was made of"
        )


def sealed_predictor(file: SealedFile, threads: int, guard: Guard | None) -> Predictor:
    """What answers with a sealed file that has been opened."""
    contract = file.contract
    return Predictor(
        SealedNetwork(file, strangeness=guard is not None and guard.refusal is not None),
        fitting(contract.preprocess),
        contract.classes,
        contract.majority_class,
        threads,
        guard=guard,
    )


def fitting(preprocess: Preprocess) -> Preprocess:
    """How pictures are prepared for a graph that prepares them itself, without any loss.

    They are scaled as it would scale them and keep a margin as wide as it will cut off, as nearly
    as both sides of it can be equal. Pixels keep their values.
    """
    height, width = (
        seen + (whole - seen) // 2 * 2
        for seen, whole in zip(preprocess.image_size, preprocess.cover, strict=True)
    )
    return Preprocess(
        image_size=(height, width),
        resize=preprocess.cover,
        interpolation=preprocess.interpolation,
        mean=(0.0, 0.0, 0.0),
        std=(1 / 255, 1 / 255, 1 / 255),
    )
