"""A trained model with what is needed to use it, in one safetensors file.

The file says how the model is built, how a picture becomes its input and what its outputs are
called. It holds no time, path or run, so equal training gives equal bytes.
"""

from dataclasses import dataclass
from pathlib import Path

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, RunError
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT


@dataclass(frozen=True)
class Classifier:
    """Pictures in, classes out.

    Args:
        model: the network.
        preprocess: from an upright RGB picture to its input.
        classes: names in output order.
        majority_class: index of the most frequent class in training, for the baseline.
    """

    model: ViT
    preprocess: Preprocess
    classes: tuple[str, ...]
    majority_class: int


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

    Raises:
        RunError: where the file is missing, damaged or contradicts itself, or has no classes.
    """
    tensors, metadata = read_tensors(path)
    if "classes" not in metadata:
        raise RunError(
            f"{path} is pretrained and knows no classes yet: let it learn them with "
            f"vitreous train FOLDER --init {path}"
        )
    try:
        model = ViT(from_mapping(ModelConfig, metadata["model"]))
        model.load_state_dict(tensors)
        preprocess = from_mapping(Preprocess, metadata["preprocess"])
        classes = tuple(metadata["classes"])
        return Classifier(model.eval(), preprocess, classes, metadata["majority_class"])
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is damaged or from another version: {reason}") from None
