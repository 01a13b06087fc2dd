"""Pictures in, named probabilities out: what every way of using a model goes through."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.run import RunFolder
from vitreous.data.cache import Progress, decode_fitted
from vitreous.errors import RunError, UnreadablePicture
from vitreous.evaluation.inference import BATCH_SIZE, predict_pixels
from vitreous.model.fold import fold
from vitreous.training.classifier import Classifier, load_classifier
from vitreous.training.device import choose_device


@dataclass(frozen=True)
class Answer:
    """What the model says of one file.

    Args:
        file: as it was named.
        probabilities: by class name; empty where the file can't be read.
        error: why the file can't be read.
    """

    file: str
    probabilities: dict[str, float]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"file", "label", "probability", "probabilities"}`` or ``{"file", "error"}``."""
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        label = max(self.probabilities, key=lambda name: self.probabilities[name])
        return {
            "file": self.file,
            "label": label,
            "probability": self.probabilities[label],
            "probabilities": self.probabilities,
        }


def load_run(path: Path) -> Classifier:
    """The best weights of a run's folder, or of a weights file, on this machine's device.

    For answering only: attention is folded where that is cheaper.

    Raises:
        RunError: where there are none, or they are damaged.
    """
    classifier = load_classifier(find_weights(path))
    fold(classifier.model).to(choose_device("auto"))
    return classifier


def find_weights(path: Path) -> Path:
    """The best weights' file of a run's folder, or `path` itself where it is a file.

    Raises:
        RunError: where there are none.
    """
    weights = path if path.is_file() else RunFolder.open(path).best
    if not weights.exists():
        raise RunError(
            f"{path} has no weights yet: let its training go on (vitreous train --resume {path})"
        )
    return weights


def predict_files(
    classifier: Classifier, files: Sequence[Path], on_progress: Progress | None = None
) -> list[Answer]:
    """Classify files, in their order; an unreadable one doesn't stop the others."""
    answers: dict[int, Answer] = {}
    waiting: list[tuple[int, np.ndarray]] = []

    def classify_waiting() -> None:
        pixels = torch.from_numpy(np.stack([picture for _, picture in waiting]))
        rows = predict_pixels(classifier.model, pixels, classifier.preprocess).tolist()
        for (at, _), row in zip(waiting, rows, strict=True):
            answers[at] = Answer(str(files[at]), dict(zip(classifier.classes, row, strict=True)))
        waiting.clear()

    for at, fitted in enumerate(decode_fitted(files, classifier.preprocess, on_progress)):
        if isinstance(fitted, UnreadablePicture):
            answers[at] = Answer(str(files[at]), {}, str(fitted))
        else:
            waiting.append((at, fitted.pixels))
        if len(waiting) == BATCH_SIZE:
            classify_waiting()
    if waiting:
        classify_waiting()
    return [answers[at] for at in range(len(files))]
