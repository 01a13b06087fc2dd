"""Which formats a trained model goes out in, and what is said about each.

`sealing`, `keras` and `checkpoints` write; `shipping` and the command are the callers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, get_args

from vitreous.core.config import did_you_mean
from vitreous.errors import ConfigError, WeightsError
from vitreous.exporting.checkpoints import export_file, export_folder
from vitreous.exporting.keras import export_keras
from vitreous.exporting.sealing import SealedFormat
from vitreous.model.config import ModelConfig
from vitreous.model.weights import keras, timm_folder, transformers_folder
from vitreous.training.classifier import Classifier

#: What the name of a run is followed by, for each format; the first three are sealed files.
ENDINGS = {
    "onnx": ".onnx",
    "torch": ".pt2",
    "openvino": ".xml",
    "web": "-web",
    "timm": "-timm",
    "transformers": "-transformers",
    "safetensors": ".safetensors",
    "keras": ".keras",
}
#: The format that a file's ending names.
_FORMATS = {ending: to for to, ending in ENDINGS.items() if ending.startswith(".")}
_FORMATS[".h5"] = "keras"
#: What is read by files that end so alone.
_NAMED = ("onnx", "openvino")
SEALED: tuple[SealedFormat, ...] = get_args(SealedFormat)
#: Each refuses a model that the format has no place for; what isn't here takes all.
_CHECKS: Mapping[str, Callable[[ModelConfig], Any]] = {
    "timm": timm_folder.choose,
    "transformers": transformers_folder.choose,
    "keras": keras.check_lecture,
}


def format_of(to: str | None, out: Path | None) -> str:
    """The format that is named, or else the one that a file's name ends like, or else ONNX.

    Raises:
        ConfigError: for an unknown format, or an ending that it doesn't have.
    """
    if to is not None:
        if to not in ENDINGS:
            raise ConfigError(f"unknown format '{to}': {did_you_mean(to, ENDINGS)}")
        if out is not None and to in _NAMED and out.suffix != ENDINGS[to]:
            raise ConfigError(
                f"--to {to} writes a file that is known by its ending: --out {out}{ENDINGS[to]}"
            )
        if out is not None and _FORMATS.get(out.suffix, to) != to:
            raise ConfigError(
                f"{out} ends like a file of --to {_FORMATS[out.suffix]}, and would be taken for "
                f"one: name it otherwise for --to {to}, or leave --to out"
            )
        return to
    if out is None:
        return "onnx"
    if out.suffix not in _FORMATS:
        raise ConfigError(
            f"{out} doesn't say its format: name one with --to {' | '.join(ENDINGS)}, or end "
            f"the file with {', '.join(_FORMATS)}"
        )
    return _FORMATS[out.suffix]


def export_classifier(classifier: Classifier, path: Path, to: str) -> list[str]:
    """Write a classifier in a format.

    Args:
        classifier: what to write.
        path: the new file or folder.
        to: one of `ENDINGS`, but not of `SEALED`, which `sealing.seal` writes, nor "web", which
            `web.write_site` does.

    Returns:
        What the format can't say, and what to do with it next, in plain English.

    Raises:
        StorageError: where it can't be written, or something stands there.
        VitreousError: where what was written doesn't answer as the model does.
        WeightsError: for a model that the format has no place for, naming those that have.
    """
    config = classifier.model.config
    try:
        if to in _CHECKS:
            _CHECKS[to](config)
    except WeightsError as error:
        raise WeightsError(f"{error}; these take it: {_able(config)}") from None
    if to == "safetensors":
        export_file(classifier, path)
        return [f"next: vitreous predict {quote(str(path))} photo.jpg"]
    said = []
    if classifier.preprocess.mirror:
        said.append(
            f"here an answer is the mean of those for a picture and its mirror image; {to} has no "
            "word for that and looks at the picture alone"
        )
    if to == "keras":
        export_keras(classifier, path)
        height, width = classifier.preprocess.image_size
        return [
            *said,
            f"{path} takes {height}x{width} px, values from 0 to 255, and answers in the order "
            f"{', '.join(classifier.classes)}",
            "next: load it with the classes of docs/lecture/keras_vit.py registered",
        ]
    said += export_folder(classifier, path, to)
    call = {
        "timm": f"timm.create_model({f'local-dir:{path}'!r}, pretrained=True)",
        "transformers": f"transformers.pipeline('image-classification', {str(path)!r})",
    }
    return [*said, f"next, in Python: {call[to]}"]


def _able(config: ModelConfig) -> str:
    """The formats that have a place for a model, as options."""

    def is_able(name: str) -> bool:
        try:
            _CHECKS[name](config)
        except WeightsError:
            return False
        return True

    return ", ".join(f"--to {n}" for n in ENDINGS if n not in _CHECKS or is_able(n))
