"""Any checkpoint of a Vision Transformer becomes the one model.

The way of a file: `files` reads it as named tensors, the module of its format translates names and
settings, `adapt` brings it to the wanted size and loads it. Which format it is, its content says.
"""

from dataclasses import dataclass
from pathlib import Path

from vitreous.core.memory import is_out_of_memory
from vitreous.errors import ConfigError, WeightsError, first_line
from vitreous.model.config import ModelConfig
from vitreous.model.vit import ViT
from vitreous.model.weights import (
    adapt,
    google,
    keras,
    own,
    timm,
    torchvision,
    transformers,
)
from vitreous.model.weights.damage import too_large
from vitreous.model.weights.files import Source, read_source
from vitreous.model.weights.naming import as_numbers, listed
from vitreous.model.weights.settings import Preprocessing
from vitreous.model.weights.translation import Translation, Wanted

_FORMATS = (own, timm, transformers, torchvision, google)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, read.

    Args:
        model: with its weights, in evaluation mode.
        classes: names in output order; ``None`` where the checkpoint has none, or the head is new.
        preprocessing: what the checkpoint says of it; ``None`` where it says nothing.
        format: where it comes from.
        notes: what was assumed, left out, changed or made anew, in plain English.
    """

    model: ViT
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    format: str
    notes: tuple[str, ...]

    @property
    def config(self) -> ModelConfig:
        """Of the model."""
        return self.model.config


def read_checkpoint(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    patch_size: tuple[int, int] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
) -> Checkpoint:
    """Read a checkpoint of any known format.

    Args:
        path: a file, or the folder of a model or of a run.
        image_size: height and width in pixels of the pictures to come; positions are interpolated.
        patch_size: height and width in pixels of a patch; the projection is resized.
        in_channels: colour channels of the pictures to come; the projection is folded.
        num_classes: outputs; where the checkpoint has another number, the head is new. 0 for none.
        num_heads: where the checkpoint doesn't say it; 64 channels per head are assumed otherwise.

    Returns:
        The model and what came with it. Without a head in the checkpoint and without
        `num_classes` the model's output is what a head would see.

    Raises:
        WeightsError: where the file is missing, damaged, hostile, of no known format, or anything
            of it is missing, left over or of another shape.

    Reference:
        Positions: Dosovitskiy et al. 2021, section 3.2. Patches: Beyer et al. 2023, "FlexiViT",
        section 3.4.
    """
    path = Path(path)
    try:
        source = read_source(path)
        found = _translate(source, Wanted(num_heads, image_size))
        if in_channels is not None:
            found = adapt.to_channels(found, in_channels)
        found = adapt.to_sizes(
            path,
            found,
            image_size or found.config.image_size,
            patch_size or found.config.patch_size,
        )
        if num_classes is not None:
            found = adapt.to_classes(found, num_classes)
        classes = found.classes
        if classes is not None and len(classes) != found.config.num_classes:
            classes = None
        model = adapt.load(path, found.config, found.state)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise too_large(path) from None
        # Tensors of odd shapes, which PyTorch refuses to join or turn.
        reason = first_line(error)
        raise WeightsError(f"{path} has tensors that don't fit one another: {reason}") from None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        # Settings of odd kinds, such as a list where a word is meant.
        kind = type(error).__name__
        raise WeightsError(f"{path} can't be understood ({kind}: {error})") from error
    notes = (*source.notes, *found.notes)
    return Checkpoint(model, classes, found.preprocessing, found.format, notes)


def _translate(source: Source, wanted: Wanted) -> Translation:
    if source.container == "keras":
        config, state = keras.load(source.path, image_size=wanted.image_size)
        state = {name: as_numbers(source.path, name, tensor) for name, tensor in state.items()}
        return Translation("the lecture's Keras model", config, state)
    for module in _FORMATS:
        if module.matches(source):
            return module.translate(source, wanted)
    raise WeightsError(
        f"{source.path} holds no Vision Transformer of a known layout (docs/guide/checkpoints.md "
        f"has those that are read): {listed([*source.tensors])}"
    )
