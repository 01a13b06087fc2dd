"""What checkpoints say of their pictures and classes, checked before it is believed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitreous.errors import WeightsError


@dataclass(frozen=True)
class Preprocessing:
    """What a checkpoint says of how a picture becomes its input; ``None`` where it doesn't.

    The fields are those of `data.preprocess.Preprocess`, which a caller makes of it.

    Args:
        image_size: height and width in pixels.
        resize: height and width in pixels that the picture covers before the centre crop.
        interpolation: of the resize.
        mean: per channel, on a scale of 0 to 1.
        std: per channel, on a scale of 0 to 1.
        mirror: whether answers for a picture and its mirror image are averaged.
    """

    image_size: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
    interpolation: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    mirror: bool | None = None


def size_of(value: Any) -> tuple[int, int] | None:
    """Height and width out of a number, a pair, a triple with channels first, or a mapping."""
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    if isinstance(value, int):
        value = [value, value]
    if not isinstance(value, list | tuple) or len(value) not in (2, 3):
        return None
    height, width = value[-2:]
    if not all(isinstance(side, int) and 0 < side <= 2**16 for side in (height, width)):
        return None
    return height, width


def three_numbers(value: Any) -> tuple[float, float, float] | None:
    """A number per colour channel; one for all is repeated.

    Raises:
        WeightsError: for anything else, since it is wrong rather than missing.
    """
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else [value]
    values = list(values) * 3 if len(values) == 1 else list(values)
    fine = all(isinstance(v, int | float) and math.isfinite(v) for v in values)
    if len(values) != 3 or not fine:
        raise WeightsError(f"a mean or std of {str(value)[:80]} isn't a number per colour channel")
    return float(values[0]), float(values[1]), float(values[2])


def positive(where: Path, settings: Mapping[str, Any], name: str, default: float) -> float:
    """A number above 0.

    Raises:
        WeightsError: for anything else, naming the file.
    """
    value = settings.get(name, default)
    if type(value) not in (int, float) or not 0 < value < 1e9:
        raise WeightsError(f"{where} has a config.json with {name} {str(value)[:40]!r}")
    return float(value)


def names_in_order(value: Any) -> tuple[str, ...] | None:
    """Class names by index, out of a list or a mapping from index to name.

    ``None`` where there are none, an index is missing, or they only repeat the index.
    """
    if isinstance(value, Mapping):
        value = [value.get(str(index), value.get(index)) for index in range(len(value))]
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(name, str) for name in value):
        return None
    if all(name == f"LABEL_{index}" for index, name in enumerate(value)):
        return None
    return tuple(value)
