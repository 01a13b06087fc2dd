"""A ViT without its head, in a safetensors file: what pretraining makes and training begins with.

The encoder is everything from the patches to the last norm, and a pooling's own weights where they
have been trained (attention pooling, the norm behind it). Dense layers and the classifier belong to
certain classes and are never taken over. A file of `classifier` can be read as an encoder too; the
other way round there are no classes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from vitreous.core.config import from_mapping, to_mapping
from vitreous.core.files import read_tensors, write_tensors
from vitreous.data.preprocess import Preprocess
from vitreous.errors import ConfigError, RunError, WeightsError
from vitreous.model.config import ModelConfig
from vitreous.model.positions import resize_positions
from vitreous.model.vit import HEAD, POOLING, ViT
from vitreous.model.weights.adapt import misfits, unfilled
from vitreous.model.weights.naming import check_finite

#: Settings that the encoder's weights don't depend on.
_FREE = ("image_size", "num_classes", "pool", "fc_norm", "head_hidden", "init",
         "drop_path_rate", "dropout", "attention_dropout", "patch_dropout")  # fmt: skip


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
                f"what this run begins with has {'; '.join(different)}: leave those settings and "
                "--model out, or begin with other weights"
            )

    def load_into(self, model: ViT) -> ViT:
        """Give a model these weights; its head stays as it is, and so does another pooling.

        Learned positions are interpolated where its pictures are of another size.

        Raises:
            ConfigError: where the model is another one.
        """
        self.check_fits(model.config)
        tensors, own = dict(self.tensors), model.state_dict()
        # A "flatten" head's is as wide as the picture has patches.
        pooled = (model.config.pool, model.config.pooled_dim)
        if pooled != (self.config.pool, self.config.pooled_dim):
            tensors = without_pooling(tensors)
        if self.config.pos_embed == "learned":
            tensors["pos_embed"] = resize_positions(
                tensors["pos_embed"],
                self.config.grid_size,
                model.config.grid_size,
                int(self.config.class_token),
            )
        # A norm behind the pooling, which the model may do without, is all that can be left over.
        model.load_state_dict(own | {name: t for name, t in tensors.items() if name in own})
        return model


def without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors that don't belong to certain classes."""
    return _without(HEAD, tensors)


def without_pooling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that every pooling has a use for."""
    return _without(POOLING, tensors)


def _without(parts: tuple[str, ...], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in parts}


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write weights, configuration and preprocessing as one file, atomically."""
    metadata = {
        "model": to_mapping(encoder.config),
        "preprocess": to_mapping(encoder.preprocess),
    }
    write_tensors(path, encoder.tensors, metadata)


def load_encoder(path: Path, with_head: bool = False) -> Encoder:
    """Read a file of `save_encoder` or of `classifier.save_classifier`.

    Args:
        path: the file.
        with_head: take the head too, for a model that tells the same classes apart.

    Raises:
        RunError: where the file is missing, damaged or from another version.
        WeightsError: where its tensors are not those of the model it names, or a number of them is
            NaN or infinite.
    """
    tensors, metadata = read_tensors(path)
    try:
        config = from_mapping(ModelConfig, metadata["model"])
        preprocess = from_mapping(Preprocess, metadata["preprocess"])
        expected = unfilled(config, tensors).state_dict()
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{path} is damaged or from another version: {error}") from None
    found = tensors
    if not with_head:
        expected, found = without_head(expected), without_head(found)
    if found.keys() == without_pooling(found).keys():  # pretraining teaches none
        expected = without_pooling(expected)
    if words := misfits(expected, found):
        raise WeightsError(f"{path} doesn't fit the model that it names; {words}")
    for name, tensor in found.items():
        check_finite(path, name, tensor)
    return Encoder(config, preprocess, found)
