"""A trained model as what other programs load: a folder of timm or transformers, or one file.

What is written is read again by this library's own reader and compared with the model before it
gets its name; a wrong answer leaves nothing behind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import atomic_path, new_folder, write_json, write_safetensors
from vitreous.core.rng import torch_stream
from vitreous.data.preprocess import normalise
from vitreous.errors import VitreousError
from vitreous.model.config import ModelConfig
from vitreous.model.weights import timm_folder, transformers_folder
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.model.weights.outgoing import Outgoing
from vitreous.model.weights.settings import Preprocessing, names_in_order
from vitreous.training.classifier import Classifier, save_classifier

_Write = Callable[[ModelConfig, Mapping[str, Tensor], tuple[str, ...], Preprocessing], Outgoing]
_WRITE: Mapping[str, _Write] = {
    "timm": timm_folder.write,
    "transformers": transformers_folder.write,
}
#: Largest difference of a logit that rounding explains, for logits of about 1.
TOLERANCE = 1e-4


def export_folder(classifier: Classifier, path: Path, library: str) -> tuple[str, ...]:
    """Write a classifier as the folder that a library loads.

    Args:
        classifier: what to write.
        path: the new folder.
        library: "timm" or "transformers".

    Returns:
        What the library's settings can't say, in plain English.

    Raises:
        StorageError: where the folder can't be written, or something stands there.
        VitreousError: where what was written doesn't answer as the model does.
        WeightsError: for a model that the library has no place for.
    """
    model = classifier.model
    stated = from_mapping(Preprocessing, to_mapping(classifier.preprocess))
    said = _WRITE[library](model.config, model.state_dict(), classifier.classes, stated)
    with new_folder(path) as staging:
        write_safetensors(staging / "model.safetensors", said.tensors, {"format": "pt"})
        for name, content in said.settings.items():
            write_json(staging / name, content)
        _compare(classifier, staging, path)
    return said.notes


def export_file(classifier: Classifier, path: Path) -> None:
    """Write a classifier as one safetensors file with timm's names, and all else in its metadata.

    Raises:
        StorageError: where the file can't be written.
        VitreousError: where what was written doesn't answer as the model does.
    """
    with atomic_path(path) as staging:
        save_classifier(staging, classifier)
        _compare(classifier, staging, path)


def _compare(classifier: Classifier, written: Path, path: Path) -> None:
    """Read what was written, and ask both models about the same random pixels.

    Raises:
        VitreousError: where anything differs.
    """
    found, preprocess = read_checkpoint(written), classifier.preprocess
    if found.classes != names_in_order(classifier.classes):
        raise VitreousError(f"{path} is not written: its class names came back changed")
    shape = (8, *preprocess.image_size, 3)
    pixels = torch.randint(0, 256, shape, generator=torch_stream(0, "export"), dtype=torch.uint8)
    images = normalise(pixels, preprocess)
    with torch.inference_mode():
        wanted, answer = classifier.model(images), found.model(images)
    off = ((answer - wanted).abs().max() / wanted.abs().max().clamp(min=1.0)).item()
    if not off <= TOLERANCE:  # not a number is no answer either
        raise VitreousError(
            f"{path} is not written: read again, it differs by {off:.1e} in an answer, more than "
            f"{TOLERANCE:.0e}"
        )
