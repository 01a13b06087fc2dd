"""A ViT without its head, in a safetensors file: what pretraining makes and training begins with.

The encoder is everything from the patches to the last norm. What stands behind it (a pooling's
weights, dense layers, the classifier) belongs to certain classes and is never taken over. A file
of `classifier` can be read as an encoder too; the other way round there are no classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, RunError, WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT

_HEAD = ("attn_pool", "fc_norm", "head_mlp", "head")
#: Settings that the encoder's weights don't depend on.
_FREE = ("num_classes", "pool", "fc_norm", "head_hidden", "init",
         "drop_path_rate", "dropout", "attention_dropout", "patch_dropout")  # fmt: skip
_NAMED = 6


@dataclass(frozen=True)
class Encoder:
    """Weights with what is needed to go on with them.

    Args:
        config: of the whole model, head included.
        preprocess: from an upright RGB picture to its input.
        tensors: by their names in `ViT`.
    """

    config: ModelConfig
    preprocess: Preprocess
    tensors: Mapping[str, Tensor]

    def check_fits(self, config: ModelConfig) -> None:
        """Refuse a model that these weights were not made for.

        Raises:
            ConfigError: naming what differs.
        """
        mine, theirs = asdict(self.config), asdict(config)
        different = [
            f"model.{name} {mine[name]}, not {theirs[name]}"
            for name in mine
            if name not in _FREE and mine[name] != theirs[name]
        ]
        if different:
            raise ConfigError(
                f"--init brings its own model, which has {'; '.join(different)}: leave those "
                "settings, --model and --image-size out, or pretrain anew with them; a "
                "checkpoint gets pictures of another size by --preprocess crop=..."
            )

    def load_into(self, model: ViT) -> ViT:
        """Give a model these weights; its head stays as it is.

        Raises:
            ConfigError: where the model is another one.
        """
        self.check_fits(model.config)
        model.load_state_dict({**model.state_dict(), **self.tensors})
        return model


def without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors that belong to its encoder."""
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in _HEAD}


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write weights, configuration and preprocessing as one file, atomically."""
    metadata = {
        "model": to_mapping(encoder.config),
        "preprocess": to_mapping(encoder.preprocess),
    }
    write_tensors(path, encoder.tensors, metadata)


def load_encoder(path: Path) -> Encoder:
    """Read a file of `save_encoder` or of `classifier.save_classifier`.

    Raises:
        RunError: where the file is missing, damaged or from another version.
        WeightsError: where its tensors are not those of the model it names.
    """
    tensors, metadata = read_tensors(path)
    try:
        config = from_mapping(ModelConfig, metadata["model"])
        preprocess = from_mapping(Preprocess, metadata["preprocess"])
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{path} is damaged or from another version: {error}") from None
    with torch.device("meta"):
        expected = without_head(ViT(config).state_dict())
    found = without_head(tensors)
    problems = {
        "missing": [name for name in expected if name not in found],
        "left over": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            for name in expected
            if name in found and found[name].shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        words = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise WeightsError(f"{path} doesn't fit the model that it names; {words}")
    return Encoder(config, preprocess, found)


def _some(names: list[str]) -> str:
    """The first names, and how many there are beside them."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
