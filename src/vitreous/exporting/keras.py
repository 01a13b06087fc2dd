"""A trained model of the lecture's kind as a file that Keras loads."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.core.rng import torch_stream
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.errors import VitreousError
from vitreous.model.vit import ViT
from vitreous.model.weights import keras
from vitreous.training.classifier import Classifier

#: Largest difference of a probability between the file's weights and the run's.
TOLERANCE = 1e-5


def export_keras(classifier: Classifier, path: Path) -> None:
    """Write a classifier for Keras; its pixels go from 0 to 255, scaling is part of the weights.

    Looking at mirror images too (`Preprocess.mirror`) is left to whoever uses the file.

    Its weights are compared with the classifier on random pixels before they are written.

    Args:
        classifier: with the lecture's model.
        path: ends with ``.keras`` or ``.weights.h5``.

    Raises:
        WeightsError: for another model.
        StorageError: where the file can't be written.
        VitreousError: where an answer would differ by more than the tolerance.
    """
    config = classifier.model.config
    keras.check_lecture(config)
    state = _with_scaling(classifier.model.state_dict(), classifier.preprocess)
    answers = ViT(config).eval()
    answers.load_state_dict(state)
    shape = (8, *config.image_size, config.in_channels)
    pixels = torch.randint(0, 256, shape, generator=torch_stream(0, "export"), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = classifier.model(normalise(pixels, classifier.preprocess))
        found = answers(pixels.float().permute(0, 3, 1, 2))
    off = (F.softmax(found, 1) - F.softmax(wanted, 1)).abs().max().item()
    if not off <= TOLERANCE:  # not a number is no answer either
        raise VitreousError(
            f"the exported model differs by {off:.1e} in a probability, more than {TOLERANCE:.0e}: "
            f"{path} is not written"
        )
    keras.save(path, config, state)


def _with_scaling(state: dict[str, Tensor], preprocess: Preprocess) -> dict[str, Tensor]:
    """Weights for raw pixels: (x / 255 - mean) / std multiplied into the patch projection."""
    weight = state["patch_embed.proj.weight"]
    bias = state["patch_embed.proj.bias"]
    mean = torch.tensor(preprocess.mean, dtype=torch.float64, device=weight.device)
    std = torch.tensor(preprocess.std, dtype=torch.float64, device=weight.device)
    scaled = weight.double() / std.view(1, -1, 1, 1)
    shift = (scaled * mean.view(1, -1, 1, 1)).sum((1, 2, 3))
    return state | {
        "patch_embed.proj.weight": (scaled / 255).to(weight.dtype),
        "patch_embed.proj.bias": (bias.double() - shift).to(bias.dtype),
    }
