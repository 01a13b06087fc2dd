"""What pictures that a model didn't learn from say about how far it can be trusted, in one file.

``calibration.safetensors`` lies beside the weights that it belongs to and knows them by their
bytes. It holds what `conformal` needs for sets of any coverage and what `refusal` needs to call a
picture none of these. The temperature is not in it: the head of the weights has been divided by it
(`training.classifier`), so probabilities need no second file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.core.files import read_metadata, read_tensors, write_tensors
from vitreous.errors import RunError
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.refusal import FEATURES, LOOKS, Refusal, View

#: What it is called, beside a weights file.
CALIBRATION_FILE = "calibration.safetensors"


@dataclass(frozen=True)
class Calibration:
    """How far a model can be trusted.

    Args:
        scores: for prediction sets.
        refusal: for none of these; ``None`` where nobody knows what the model learned from.
        untouched: whether these pictures were used for nothing else, not even to choose the
            weights: only then is there a promise.
    """

    scores: ConformalScores
    refusal: Refusal | None
    untouched: bool


def calibration_path(weights: Path) -> Path:
    """Where the calibration of a weights file lies."""
    return weights.parent / CALIBRATION_FILE


def save_calibration(weights: Path, calibration: Calibration) -> None:
    """Write it beside the weights, atomically; equal contents give equal bytes.

    Raises:
        StorageError: where it can't be written.
    """
    parts: dict[str, Any] = {"scores": calibration.scores}
    metadata = {"weights": _digest(weights), "untouched": calibration.untouched}
    if refusal := calibration.refusal:
        parts |= refusal.views
        metadata |= {"limit": refusal.limit, "promised": refusal.promised}
    tensors = {
        f"{name}.{field}": torch.as_tensor(value)
        for name, part in parts.items()
        for field, value in vars(part).items()
    }
    write_tensors(calibration_path(weights), tensors, metadata)


def load_calibration(weights: Path) -> Calibration | None:
    """What `save_calibration` wrote; ``None`` where there is no file.

    Raises:
        RunError: where it is damaged, or belongs to other weights.
    """
    path = calibration_path(weights)
    if not path.exists():
        return None
    tensors, metadata = read_tensors(path)
    if metadata.get("weights") != _digest(weights):
        raise RunError(
            f"{path} belongs to other weights than {weights}: put its own back, or take it away "
            "and calibrate these (vitreous calibrate)"
        )
    try:
        refusal = None
        if "limit" in metadata:
            views = {name: View(**_fields(tensors, name)) for name in (LOOKS, FEATURES)}
            refusal = Refusal(views, metadata["limit"], metadata["promised"])
        known = _fields(tensors, "scores")
        scores = ConformalScores(**{name: tensor.numpy() for name, tensor in known.items()})
        return Calibration(scores, refusal, metadata["untouched"])
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged or from another version: {error}; take it away and calibrate anew "
            "(vitreous calibrate)"
        ) from None


def is_calibrated(weights: Path) -> bool:
    """Whether a calibration lies beside the weights and is theirs.

    Raises:
        RunError: where it is damaged.
    """
    path = calibration_path(weights)
    return path.exists() and read_metadata(path).get("weights") == _digest(weights)


def _fields(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    named = (key.split(".") for key in tensors)
    # Copies: the file may be overwritten while its calibration is in use.
    return {field: tensors[f"{part}.{field}"].clone() for part, field in named if part == name}


def _digest(weights: Path) -> str:
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"can't read {weights}: {error.strerror or error}") from None
