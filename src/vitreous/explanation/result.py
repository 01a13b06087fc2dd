"""What explaining some pictures gives: maps, how far they can be believed, and the model's own."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitreous.core.files import atomic_path
from vitreous.errors import ConfigError
from vitreous.evaluation.intervals import Interval
from vitreous.explanation.faithfulness import Faithfulness
from vitreous.explanation.places import Places
from vitreous.explanation.sanity import ALIKE


@dataclass(frozen=True)
class Check:
    """Whether a method shows what this model goes by, on the pictures at hand.

    Args:
        gain: mean of `Faithfulness.gain` over the pictures.
        luck: what the same mean of a map that knows nothing stays below in 95 of 100 cases.
        alike: rank correlation with the maps of the model with shuffled weights.
    """

    gain: Interval
    luck: float
    alike: float

    @property
    def is_faithful(self) -> bool:
        """Whether it is above random orders."""
        return self.gain.value > self.luck

    @property
    def depends_on_model(self) -> bool:
        """Whether the maps change with the weights."""
        return self.alike < ALIKE

    @property
    def passed(self) -> bool:
        """Whether it is faithful and depends on the model."""
        return self.is_faithful and self.depends_on_model

    def __str__(self) -> str:
        faults = []
        if not self.is_faithful:
            faults.append(f"no better than random order ({self.gain.value:+.2f})")
        if not self.depends_on_model:
            faults.append(f"hardly changes when the weights are shuffled (alike {self.alike:.2f})")
        return ", ".join(faults) or f"better than random order by {self.gain.value:.2f}"

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        verdicts = {
            "faithful": self.is_faithful,
            "depends_on_model": self.depends_on_model,
            "passed": self.passed,
        }
        return {**asdict(self), **verdicts}


@dataclass(frozen=True)
class Map:
    """How much each part of a picture counts for a class.

    Args:
        values: from -1 to 1, the largest either way 1; below 0 what speaks against the class,
            which "rollout" and "attention" can't tell, nor "relevance" where only class tokens
            are read.
        faithfulness: what becomes of the class when parts are blurred in the map's order.

    Shape:
        values: (height, width) float32
    """

    values: np.ndarray
    faithfulness: Faithfulness


@dataclass(frozen=True)
class Explanation:
    """One picture's answer, and where it comes from.

    Args:
        file: as it was named.
        picture: what the model sees of it.
        probabilities: by class name.
        label: the class that is explained.
        maps: by the method's name, the most faithful method first.
        checks: of the same methods, over all the pictures.
        heads: what each head of each block looks at; the attention of one head sums to 1, of
            which class and register tokens have a part.
        places: where the patches lie.

    Shape:
        picture: (height, width, 3) uint8
        heads: (layers, heads, patches)
    """

    file: str
    picture: np.ndarray
    probabilities: Mapping[str, float]
    label: str
    maps: Mapping[str, Map]
    checks: Mapping[str, Check]
    heads: Tensor
    places: Places

    @property
    def attention(self) -> np.ndarray:
        """What each head of each block looks at, as a map of the patches.

        Shape:
            (layers, heads, rows, columns) float32
        """
        grid = (self.places.down.shape[1], self.places.across.shape[1])
        return self.heads.unflatten(-1, grid).numpy()

    @property
    def answer(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    def save(self, path: str | Path) -> None:
        """Draw the picture and its maps, as a PNG; one that exists is replaced.

        Raises:
            StorageError: where it can't be written.
        """
        from vitreous.explanation.render import draw_explanation

        _write(Path(path), draw_explanation(self))

    def save_attention(self, path: str | Path) -> None:
        """Draw what each head of each block looks at, as a PNG; one that exists is replaced.

        Raises:
            StorageError: where it can't be written.
        """
        from vitreous.explanation.render import draw_heads

        _write(Path(path), draw_heads(self))

    def save_arrays(self, path: str | Path) -> None:
        """Write ``picture``, ``heads`` (`attention`) and a map for each method as NumPy's ``.npz``.

        Raises:
            StorageError: where it can't be written.
        """
        maps = {name: found.values for name, found in self.maps.items()}
        _write_arrays(Path(path), {"picture": self.picture, "heads": self.attention, **maps})

    def to_json(self) -> dict[str, Any]:
        """Plain values, without arrays."""
        return {
            "file": self.file,
            "label": self.answer,
            "probability": self.probabilities[self.answer],
            "explained": self.label,
            "explained_probability": self.probabilities[self.label],
            "methods": {name: found.faithfulness.to_json() for name, found in self.maps.items()},
        }


@dataclass(frozen=True)
class Explanations:
    """Explanations of some pictures, and how far the methods can be believed on this model.

    Args:
        pictures: those that could be read, in their order.
        checks: of every method that was tried, the most faithful first.
        unreadable: file and reason for those that couldn't.
        filters: principal components of what the model looks for in the pixels of a patch.
        positions: how similar each place's position is to every other's; ``None`` for a model
            without positions.

    Shape:
        filters: (components, height, width, 3) float32, from 0 to 1
        positions: (rows, columns, rows, columns) float32, from -1 to 1
    """

    pictures: tuple[Explanation, ...]
    checks: Mapping[str, Check]
    unreadable: tuple[tuple[str, str], ...]
    filters: np.ndarray
    positions: np.ndarray | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without arrays."""
        return {
            "pictures": [picture.to_json() for picture in self.pictures],
            "checks": {name: check.to_json() for name, check in self.checks.items()},
            "unreadable": [{"file": file, "error": reason} for file, reason in self.unreadable],
        }

    def save_filters(self, path: str | Path) -> None:
        """Draw `filters` as a PNG; one that exists is replaced.

        Raises:
            StorageError: where it can't be written.
        """
        from vitreous.explanation.render import draw_filters

        _write(Path(path), draw_filters(self.filters))

    def save_model_arrays(self, path: str | Path) -> None:
        """Write `filters`, and `positions` where there are some, as NumPy's ``.npz``.

        Raises:
            StorageError: where it can't be written.
        """
        positions = {} if self.positions is None else {"positions": self.positions}
        _write_arrays(Path(path), {"filters": self.filters, **positions})

    def save_positions(self, path: str | Path) -> None:
        """Draw `positions` as a PNG; one that exists is replaced.

        Raises:
            ConfigError: for a model without positions.
            StorageError: where it can't be written.
        """
        from vitreous.explanation.render import draw_positions

        if self.positions is None:
            raise ConfigError("the model has no positions to draw (model.pos_embed is 'none')")
        _write(Path(path), draw_positions(self.positions))


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as staging:
        staging.write_bytes(content)
