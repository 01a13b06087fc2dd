"""Running a model over pictures, in float32, without gradients."""

from collections.abc import Sequence

import numpy as np
import torch

from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.errors import DataError
from vitreous.evaluate.metrics import Evaluation, evaluate_probabilities
from vitreous.model.vit import ViT

BATCH_SIZE = 64


@torch.inference_mode()
def predict_pixels(model: ViT, pixels: torch.Tensor, preprocess: Preprocess) -> np.ndarray:
    """Class probabilities of one batch of fitted pictures.

    Shape:
        (batch, height, width, 3) uint8 -> (batch, classes) float32
    """
    device = next(model.parameters()).device
    images = normalise(pixels.to(device), preprocess)
    return model(images).float().softmax(dim=1).cpu().numpy()


def predict_set(model: ViT, pictures: PictureSet, preprocess: Preprocess) -> np.ndarray:
    """Class probabilities of every readable picture of a set.

    Shape:
        -> (pictures, classes) float32
    """
    model.eval()
    batches = np.array_split(np.arange(len(pictures)), -(-len(pictures) // BATCH_SIZE))
    return np.concatenate(
        [predict_pixels(model, pictures.batch(batch)[0], preprocess) for batch in batches]
    )


def evaluate_set(
    model: ViT,
    pictures: PictureSet,
    preprocess: Preprocess,
    classes: Sequence[str],
    majority_class: int,
) -> tuple[Evaluation, np.ndarray]:
    """Score a model on a set of labelled pictures.

    Returns:
        The evaluation, and the probabilities (pictures, classes) that it was made from.

    Raises:
        DataError: where no picture is readable.
    """
    if not len(pictures):
        raise DataError(f"none of the {len(pictures.unreadable)} pictures can be read")
    probabilities = predict_set(model, pictures, preprocess)
    unreadable = [{"file": str(path), "error": reason} for path, reason in pictures.unreadable]
    evaluation = evaluate_probabilities(
        probabilities, pictures.labels.numpy(), classes, majority_class, unreadable
    )
    return evaluation, probabilities
