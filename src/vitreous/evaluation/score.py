"""Scoring a model on a set of labelled pictures."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.errors import DataError
from vitreous.evaluation.inference import Network, outputs_of_set, predict_set, probabilities_of
from vitreous.evaluation.metrics import (
    Evaluation,
    Untempered,
    evaluate_probabilities,
    negative_log_likelihood,
)
from vitreous.evaluation.reliability import measure_reliability


def evaluate_set(
    network: Network,
    pictures: PictureSet,
    preprocess: Preprocess,
    classes: Sequence[str],
    majority_class: int | None,
) -> tuple[Evaluation, np.ndarray]:
    """Score a network on a set of labelled pictures, by its answers alone.

    Returns:
        The evaluation, and the probabilities (pictures, classes) that it was made from.

    Raises:
        DataError: where no picture is readable.
    """
    probabilities = predict_set(network, _readable(pictures), preprocess)
    return _score(probabilities, pictures, classes, majority_class), probabilities


def examine_set(
    network: Network,
    pictures: PictureSet,
    preprocess: Preprocess,
    classes: Sequence[str],
    majority_class: int | None,
    temperature: float | None,
) -> tuple[Evaluation, np.ndarray]:
    """Score a network, and whether its probabilities can be taken at their word.

    Args:
        network: what answers.
        pictures: with labels.
        preprocess: from them to its input.
        classes: names in output order.
        majority_class: the most frequent in training, where that is known.
        temperature: that its head has been divided by, to say what that changed.

    Returns:
        The evaluation, and the probabilities (pictures, classes) that it was made from.

    Raises:
        DataError: where no picture is readable.
    """
    logits = outputs_of_set(network, _readable(pictures), preprocess)
    probabilities, labels = probabilities_of(logits), pictures.labels.numpy()
    untempered = None
    if temperature is not None:
        plain = probabilities_of(logits * np.float32(temperature))
        ece = measure_reliability(plain, labels).ece
        untempered = Untempered(temperature, negative_log_likelihood(plain, labels), ece)
    evaluation = replace(
        _score(probabilities, pictures, classes, majority_class),
        reliability=measure_reliability(probabilities, labels),
        untempered=untempered,
    )
    return evaluation, probabilities


def _readable(pictures: PictureSet) -> PictureSet:
    if not len(pictures):
        raise DataError(f"none of the {len(pictures.unreadable)} pictures can be read")
    return pictures


def _score(
    probabilities: np.ndarray,
    pictures: PictureSet,
    classes: Sequence[str],
    majority_class: int | None,
) -> Evaluation:
    unreadable = [{"file": str(path), "error": reason} for path, reason in pictures.unreadable]
    labels = pictures.labels.numpy()
    return evaluate_probabilities(probabilities, labels, classes, majority_class, unreadable)
