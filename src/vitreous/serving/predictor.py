"""Pictures in, named probabilities out: what every way of using a model goes through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.console import Console
from vitreous.core.threads import torch_threads
from vitreous.data.cache import Progress, Raw, decode_fitted
from vitreous.data.preprocess import Preprocess
from vitreous.errors import UnreadablePicture
from vitreous.evaluation.inference import (
    BATCH_SIZE,
    Network,
    predict_pixels,
    probabilities_of,
)
from vitreous.evaluation.seeing import see_pixels
from vitreous.serving.guard import Caution, Guard
from vitreous.serving.runtimes import Engine, Precision, open_network
from vitreous.training.classifier import read_description


@dataclass(frozen=True)
class Answer:
    """What the model says of one file.

    Args:
        file: as it was named.
        probabilities: by class name; empty where the file can't be read.
        error: why the file can't be read.
        caution: what was asked for beside the likeliest class.
    """

    file: str
    probabilities: dict[str, float]
    error: str | None = None
    caution: Caution | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"file", "label", "probability", "probabilities"}`` or ``{"file", "error"}``.

        Behind those "set", "refused" and "reason" where they were asked for; of a picture that is
        none of these, label and probability are ``None``.
        """
        if self.error is not None:
            return {"file": self.file, "error": self.error}
        label = max(self.probabilities, key=self.probabilities.__getitem__)
        answer = {
            "file": self.file,
            "label": label,
            "probability": self.probabilities[label],
            "probabilities": self.probabilities,
        }
        return {**answer, **self.caution.to_json()} if self.caution else answer


@dataclass(frozen=True)
class Predictor:
    """A trained model ready to answer.

    Args:
        network: what computes.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline; ``None``
            where that isn't known.
        threads: that PyTorch should have meanwhile.
        temperature: that the network's head was divided by, where one was fitted.
        reference: opens the same network in float32, out of the same file as it is then; where
            `network` is less precise.
        guard: what makes answers cautious, where that was asked for; the network then gives
            features behind its logits.
    """

    network: Network
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int | None
    threads: int
    temperature: float | None = None
    reference: Callable[[], Network] | None = None
    guard: Guard | None = None


@dataclass(frozen=True)
class Change:
    """What another precision than float32 makes of some pictures.

    Args:
        pictures: how many were compared.
        labels: how many got another label.
        largest: difference of a probability.
    """

    pictures: int
    labels: int
    largest: float

    def __str__(self) -> str:
        return (
            f"pictures compared with float32: {self.pictures}, other labels: {self.labels}, "
            f"largest difference of a probability: {self.largest:.4f}"
        )


def open_predictor(
    weights: Path, engine: Engine, console: Console, guard: Guard | None = None
) -> Predictor:
    """A weights file, ready to answer by an engine; attention is folded where that is cheaper.

    Args:
        weights: the file.
        engine: what computes.
        console: where messages go.
        guard: makes answers cautious.

    Raises:
        ConfigError: where the engine's library isn't installed.
        RunError: where the weights are damaged or know no classes.
    """
    described = read_description(weights)
    features = guard is not None and guard.refusal is not None
    reference = None
    if engine.precision != "float32":
        exact = Engine(threads=engine.threads, device=engine.device)
        reference = partial(open_network, weights, exact, console, features)
    return Predictor(
        open_network(weights, engine, console, features),
        described.preprocess,
        described.classes,
        described.majority_class,
        engine.threads,
        described.temperature,
        reference,
        guard,
    )


def compare_precision(predictor: Predictor, pixels: torch.Tensor) -> Change | None:
    """What the predictor's precision changes; ``None`` where it is float32.

    Shape:
        (pictures, height, width, 3) uint8
    """
    if predictor.reference is None:
        return None
    found, wanted = (
        predict_pixels(network, pixels, predictor.preprocess, len(predictor.classes))
        for network in (predictor.network, predictor.reference())
    )
    labels = int((found.argmax(1) != wanted.argmax(1)).sum())
    return Change(len(pixels), labels, float(np.abs(found - wanted).max()))


def tell_change(precision: Precision, change: Change | None, console: Console) -> None:
    """Say what a precision changes, even to whoever wants to hear only warnings."""
    if change:
        console.warn(f"{precision}: {change}")


def predict_files(
    predictor: Predictor,
    files: Sequence[Raw],
    names: Sequence[str] | None = None,
    on_progress: Progress | None = None,
    on_change: Callable[[Change], None] | None = None,
) -> list[Answer]:
    """Classify pictures, in their order; an unreadable one doesn't stop the others.

    Args:
        predictor: what answers.
        files: those, or what else becomes a picture.
        names: what they are called; by default as text.
        on_progress: called with a description, the files done and their total.
        on_change: told what a precision other than float32 changes, by the first pictures.
    """
    answers: dict[int, Answer] = {}
    called = list(map(str, files)) if names is None else names
    compared = False
    waiting: list[tuple[int, np.ndarray]] = []

    def classify_waiting() -> None:
        nonlocal compared
        pixels = torch.from_numpy(np.stack([picture for _, picture in waiting]))
        change = compare_precision(predictor, pixels) if on_change and not compared else None
        if on_change and change:
            on_change(change)
        compared = True
        places = [at for at, _ in waiting]
        answered = answer_pixels(predictor, [called[at] for at in places], pixels)
        answers.update(zip(places, answered, strict=True))
        waiting.clear()

    with torch_threads(predictor.threads):
        pictures = decode_fitted(
            files,
            predictor.preprocess,
            on_progress,
            fingerprints=False,
            threads=predictor.threads,
        )
        for at, fitted in enumerate(pictures):
            if isinstance(fitted, UnreadablePicture):
                answers[at] = Answer(called[at], {}, str(fitted))
            else:
                waiting.append((at, fitted.pixels))
            if len(waiting) == BATCH_SIZE:
                classify_waiting()
        if waiting:
            classify_waiting()
    return [answers[at] for at in range(len(files))]


def answer_pixels(predictor: Predictor, files: Sequence[str], pixels: torch.Tensor) -> list[Answer]:
    """Classify one batch of fitted pictures.

    Args:
        predictor: what answers.
        files: what the pictures are called.
        pixels: uint8.

    Shape:
        pixels: (batch, height, width, 3)
    """
    classes, guard, preprocess = predictor.classes, predictor.guard, predictor.preprocess
    if guard is None or guard.refusal is None:
        probabilities = predict_pixels(predictor.network, pixels, preprocess, len(classes))
        numbers = {}
    else:
        seen = see_pixels(predictor.network, pixels, preprocess, len(classes))
        probabilities, numbers = probabilities_of(seen.logits), seen.numbers
    cautions: Sequence[Caution | None] = [None] * len(pixels)
    if guard:
        cautions = guard.cautions(numbers, probabilities, classes)
    return [
        Answer(file, dict(zip(classes, row, strict=True)), caution=caution)
        for file, row, caution in zip(files, probabilities.tolist(), cautions, strict=True)
    ]
