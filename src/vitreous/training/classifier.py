"""A trained model with what is needed to use it, in one safetensors file.

The file says how the model is built, how a picture becomes its input and what its outputs are
called. It holds no time, path or run, so equal training gives equal bytes.
"""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import nn

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import read_metadata, read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, RunError
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.model.weights.adapt import misfits, unfilled
from vitreous.model.weights.naming import check_finite


@dataclass(frozen=True)
class Description:
    """All that a file says beside its weights.

    Args:
        model: how the network is built.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline; ``None``
            for a checkpoint that doesn't say it.
        temperature: that the head has been divided by; ``None`` where it hasn't.
    """

    model: ModelConfig
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int | None
    temperature: float | None = None


@dataclass(frozen=True)
class Classifier:
    """Pictures in, classes out.

    Args:
        model: the network.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline; ``None``
            for a checkpoint that doesn't say it.
        temperature: that the head has been divided by; ``None`` where it hasn't.
    """

    model: ViT
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int | None
    temperature: float | None = None


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Write weights, configuration, preprocessing and class names as one file, atomically."""
    metadata = {
        "model": to_mapping(classifier.model.config),
        "preprocess": to_mapping(classifier.preprocess),
        "classes": classifier.classes,
        "majority_class": classifier.majority_class,
    }
    if classifier.temperature is not None:
        metadata["temperature"] = classifier.temperature
    write_tensors(path, classifier.model.state_dict(), metadata)


def unmap(model: nn.Module) -> None:
    """Copy weights out of the file that they are mapped from.

    Whoever overwrites that file in place would otherwise end this process (SIGBUS), however long
    ago it was opened.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def load_classifier(path: Path) -> Classifier:
    """Read a file of `save_classifier`; the model is in evaluation mode.

    Its weights stay in the file, mapped into memory, until they are moved or changed (`unmap`).

    Raises:
        RunError: where the file is missing, damaged or contradicts itself, or has no classes.
        WeightsError: for NaN and infinity among its numbers.
    """
    tensors, metadata = read_tensors(path)
    described = _describe(path, metadata)
    try:
        model = unfilled(described.model, tensors)  # first weights would be drawn for nothing
    except ConfigError as error:
        raise _damaged(path, error) from None
    expected = model.state_dict()
    if words := misfits(expected, tensors):
        raise RunError(f"{path} is damaged or from another version; {words}")
    tensors = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(tensors, assign=True)
    for name, tensor in tensors.items():
        check_finite(path, name, tensor)
    return Classifier(
        model.eval(),
        described.preprocess,
        described.classes,
        described.majority_class,
        described.temperature,
    )


def tempered(classifier: Classifier, temperature: float) -> Classifier:
    """The same with its head divided by a temperature (Guo et al. 2017), so its logits are too.

    Wherever such weights go, into whichever library or format, their probabilities go with them.

    Args:
        classifier: whose head hasn't been divided yet; it stays as it is.
        temperature: above 0.
    """
    assert classifier.temperature is None
    model = copy.deepcopy(classifier.model)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.copy_(parameter / temperature)
    return replace(classifier, model=model, temperature=temperature)


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
            f"vitreous train FOLDER --init {quote(str(path))}"
        )
    try:
        return Description(
            from_mapping(ModelConfig, metadata["model"]),
            from_mapping(Preprocess, metadata["preprocess"]),
            tuple(metadata["classes"]),
            metadata["majority_class"],
            metadata.get("temperature"),
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is damaged or from another version: {error}")
