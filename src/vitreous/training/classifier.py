"""A trained model with what is needed to use it, in one safetensors file.

The file says how the model is built, how a picture becomes its input and what its outputs are
called. It holds no time, path or run, so equal training gives equal bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import read_metadata, read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, RunError
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT


@dataclass(frozen=True)
class Description:
    """All that a file says beside its weights.

    Args:
        model: how the network is built.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline; ``None``
            for a checkpoint that doesn't say it.
    """

    model: ModelConfig
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int | None


@dataclass(frozen=True)
class Classifier:
    """Pictures in, classes out.

    Args:
        model: the network.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline; ``None``
            for a checkpoint that doesn't say it.
    """

    model: ViT
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int | None


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Write weights, configuration, preprocessing and class names as one file, atomically."""
    metadata = {
        "model": to_mapping(classifier.model.config),
        "preprocess": to_mapping(classifier.preprocess),
        "classes": classifier.classes,
        "majority_class": classifier.majority_class,
    }
    write_tensors(path, classifier.model.state_dict(), metadata)


def load_classifier(path: Path) -> Classifier:
    """Read a file of `save_classifier`; the model is in evaluation mode.

    Its weights stay in the file, mapped into memory, until they are moved or changed.

    Raises:
        RunError: where the file is missing, damaged or contradicts itself, or has no classes.
    """
    tensors, metadata = read_tensors(path)
    described = _describe(path, metadata)
    try:
        with torch.device("meta"):  # first weights would be drawn for nothing
            model = ViT(described.model)
        types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
        tensors = {
            name: tensor.to(types.get(name, tensor.dtype)) for name, tensor in tensors.items()
        }
        model.load_state_dict(tensors, assign=True)
    except (RuntimeError, ConfigError) as error:
        raise _damaged(path, error) from None
    return Classifier(
        model.eval(), described.preprocess, described.classes, described.majority_class
    )


def read_description(path: Path) -> Description:
    """Read what a file of `save_classifier` says beside its weights.

    Raises:
        RunError: where the file is missing, damaged or has no classes.
    """
    return _describe(path, read_metadata(path))


def _describe(path: Path, metadata: dict[str, Any]) -> Description:
    if "classes" not in metadata:
        raise RunError(
            f"{path} is pretrained and knows no classes yet: let it learn them with "
            f"vitreous train FOLDER --init {path}"
        )
    try:
        return Description(
            from_mapping(ModelConfig, metadata["model"]),
            from_mapping(Preprocess, metadata["preprocess"]),
            tuple(metadata["classes"]),
            metadata["majority_class"],
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RunError:
    reason = str(error).splitlines()[0]
    return RunError(f"{path} is damaged or from another version: {reason}")
