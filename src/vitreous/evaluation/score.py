"""Scoring a model on a set of labelled pictures."""

from collections.abc import Sequence

import numpy as np

from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess
from vitreous.errors import DataError
from vitreous.evaluation.inference import Network, predict_set
from vitreous.evaluation.metrics import Evaluation, evaluate_probabilities


def evaluate_set(
    network: Network,
    pictures: PictureSet,
    preprocess: Preprocess,
    classes: Sequence[str],
    majority_class: int | None,
) -> tuple[Evaluation, np.ndarray]:
    """Score a network on a set of labelled pictures.

    Returns:
        The evaluation, and the probabilities (pictures, classes) that it was made from.

    Raises:
        DataError: where no picture is readable.
    """
    if not len(pictures):
        raise DataError(f"none of the {len(pictures.unreadable)} pictures can be read")
    probabilities = predict_set(network, pictures, preprocess)
    unreadable = [{"file": str(path), "error": reason} for path, reason in pictures.unreadable]
    evaluation = evaluate_probabilities(
        probabilities, pictures.labels.numpy(), classes, majority_class, unreadable
    )
    return evaluation, probabilities
