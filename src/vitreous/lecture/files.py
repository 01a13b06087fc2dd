"""The lecture's model from Keras' files and back."""

from collections.abc import Mapping
from pathlib import Path

from vitreous.errors import WeightsError
from vitreous.lecture.steps import ViT
from vitreous.model import vit
from vitreous.model.weights import keras


def load_keras(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    names: Mapping[str, str] | None = None,
) -> ViT:
    """Read the lecture's model out of a file that Keras wrote; needs h5py, not TensorFlow.

    Args:
        path: ``.weights.h5`` or ``.keras`` of Keras 3, ``.h5`` of tf.keras 2.
        image_size: height and width in pixels, where the patches don't make a square.
        names: our layer's or block's name to a path in the file, where layers can't be told apart
            by shape and number, such as ``{"blocks.0.norm1": "encoder/norm_before"}``.

    Returns:
        The model, in evaluation mode.

    Raises:
        WeightsError: where the file doesn't hold such a model; it names tensors and shapes.
    """
    config, state = keras.load(Path(path), image_size=image_size, names=names)
    units = set(config.head_hidden)
    if len(config.head_hidden) != 2 or len(units) != 1:
        raise WeightsError(
            f"{path} has dense layers of {', '.join(map(str, config.head_hidden)) or 'no'} units "
            "behind its encoders: the lecture's model has two of one width"
        )
    model = ViT(
        config.num_heads,
        config.embed_dim,
        config.num_patches,
        config.depth,
        units.pop(),
        num_classes=config.num_classes,
        patch_size=config.patch_size[0],
        in_channels=config.in_channels,
        image_size=config.image_size,
        head_dim=config.head_dim,
        mlp_dim=config.mlp_dim,
    )
    dtype = next(iter(state.values())).dtype
    model.to(dtype).load_state_dict(state)
    return model.eval()


def save_keras(
    model: vit.ViT,
    path: str | Path,
    *,
    like: str | Path | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Write the model so that Keras loads it; needs h5py, not TensorFlow.

    Args:
        model: the lecture's.
        path: ends with ``.weights.h5`` or ``.keras``; with `like`, as that file does.
        like: a file that your own class saved, whose names are kept; by default those of
            docs/lecture/keras_vit.py are written.
        names: as for `load_keras`, of `like`.

    Raises:
        WeightsError: for another model, or one that doesn't fit `like`.
        StorageError: where the file can't be written.
    """
    keras.save(
        Path(path), model.config, model.state_dict(), like=Path(like) if like else None, names=names
    )
