"""A trained model that is opened once and asked as often as wanted."""

from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous.core.console import Console
from vitreous.data.cache import Raw
from vitreous.data.decode import MAX_IMAGE_PIXELS
from vitreous.data.folder import list_pictures
from vitreous.data.left_out import warn_of_formats
from vitreous.errors import DataError
from vitreous.serving.model import open_model
from vitreous.serving.predictor import Change, predict_files, tell_change
from vitreous.serving.runtimes import Precision, Runtime
from vitreous.serving.weights import told_by
from vitreous.serving.wish import Wish
from vitreous.training.config import Device

#: What can be asked about: a file or folder, a file's bytes, an upright RGB array, Pillow's image.
Picture = str | PathLike[str] | bytes | np.ndarray | Image.Image


class Model:
    """A trained model, ready to answer; ask it from one thread at a time.

    Args:
        run: a run's folder, a weights file of one, a sealed file, or another library's checkpoint,
            also on a hub (``owner/name[@revision]``).
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        runtime: "torch", "onnxruntime" or "openvino"; by default what `tune` chose, or torch.
        precision: "float32", "bfloat16" (torch, openvino) or "int8" (onnxruntime); what the last
            two change is measured on the first pictures and said.
        device: "cpu", "cuda" or "mps", where PyTorch computes; by default a GPU where there is one.
        sets: give each answer a set of classes that holds the true one for at least this share of
            the pictures, such as 0.9; whether that can be promised is said.
        by_class: keep that share in each class.
        refuse: answer none of these where a picture is unlike all that the model learned from.
        console: where progress and promises go.

    Raises:
        ConfigError: for a runtime that isn't installed, a precision that it doesn't have, a
            coverage that isn't between 0 and 1, or what the model isn't calibrated for.
        RunError: where there is no trained model.
        WeightsError: for a checkpoint that can't be read, or says too little.
    """

    def __init__(
        self,
        run: str | PathLike[str],
        *,
        labels: str | PathLike[str] | None = None,
        preprocess: str | Sequence[str] = (),
        num_heads: int | None = None,
        runtime: Runtime | None = None,
        precision: Precision = "float32",
        device: Device = "auto",
        sets: float | None = None,
        by_class: bool = False,
        refuse: bool = False,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console()
        self._precision: Precision = precision
        self._on_change: Callable[[Change], None] | None = self._tell_change
        told = told_by(labels, preprocess, num_heads)
        wish = Wish(runtime, precision, device, sets, by_class, refuse)
        _, self._predictor = open_model(run, told, wish, self._console)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the output."""
        return self._predictor.classes

    def predict(self, *pictures: Picture) -> list[dict[str, Any]]:
        """Classify pictures.

        Args:
            pictures: files, folders that are searched for pictures, a file's bytes, upright RGB
                arrays, and images opened by Pillow.

        Shape:
            of an array: (height, width, 3) uint8

        Returns:
            For each picture in the order given ``{"file", "label", "probability",
            "probabilities"}``, or ``{"file", "error"}`` for one that can't be read. One that is no
            file is called "picture 1" and so on, by its place among those given. With `sets` also
            ``"set"``, the likeliest class first; with `refuse` also ``"refused"`` and
            ``"reason"``, and of a refused picture label and probability are ``None``.

        Raises:
            DataError: for a file that doesn't exist, or an array that is no picture.
        """
        return self.answer(named(pictures, self._console))

    def answer(self, pictures: Sequence[tuple[str, Raw]]) -> list[dict[str, Any]]:
        """Classify pictures that have names, as `named` gives them; returns what `predict` does."""
        names, raw = [name for name, _ in pictures], [picture for _, picture in pictures]
        with self._console.stages() as on_progress:
            found = predict_files(self._predictor, raw, names, on_progress, self._on_change)
        return [answer.to_json() for answer in found]

    def _tell_change(self, change: Change) -> None:
        """Once, as measuring it takes a second network."""
        tell_change(self._precision, change, self._console)
        self._on_change = None


def named(pictures: Sequence[Picture], console: Console) -> list[tuple[str, Raw]]:
    """Each picture that is asked about, with what it is called.

    Args:
        pictures: as for `Model.predict`.
        console: is told of photographs in a folder that aren't read for their format.

    Raises:
        DataError: for a file that doesn't exist, or an array that is no picture.
    """
    found: list[tuple[str, Raw]] = []
    for place, picture in enumerate(pictures, start=1):
        name = f"picture {place}"
        if isinstance(picture, np.ndarray):
            found.append((name, _checked(picture, name)))
        elif isinstance(picture, bytes | Image.Image):
            found.append((name, picture))
        else:
            tell = partial(warn_of_formats, console=console)
            found += ((str(path), path) for path in list_pictures([Path(picture)], tell))
    return found


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    is_picture = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (is_picture and 0 < array.shape[0] * array.shape[1] <= MAX_IMAGE_PIXELS):
        raise DataError(
            f"{name} is an array of {array.dtype}, {array.shape}: a picture is (height, width, 3) "
            f"uint8, upright RGB, of at most {MAX_IMAGE_PIXELS / 1e6:g} megapixels"
        )
    # Turned channels, as OpenCV's are turned, lie backwards in memory, which PyTorch doesn't read.
    return np.require(array, requirements=["C", "W"])
