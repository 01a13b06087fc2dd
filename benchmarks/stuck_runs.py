"""Runs with a cause planted into them, and healthy ones: what `diagnosis.py` and the tests train.

The pictures are faces drawn anew, listed in tables, so that labels and splits can be spoilt without
touching a picture.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from vitreous.core.config import merge
from vitreous.data.faces import write_faces
from vitreous.model import initialise
from vitreous.model.vit import ViT

Row = tuple[str, str, str]


class Pictures:
    """Drawn faces of one size, and tables of them.

    Args:
        folder: where everything is written.
        train, valid: pictures of each class.
        size: side in pixels.
        seed: of the faces.
    """

    def __init__(self, folder: Path, train: int, valid: int, size: int, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed
        self.rows: list[Row] = []
        for number, (split, count) in enumerate({"train": train, "valid": valid}.items()):
            there = folder / f"faces-{size}-{seed}" / split
            if not there.exists():
                write_faces(there, count, size=size, seed=seed + number)
            self.rows += [
                (str(path), path.parent.name, split) for path in sorted(there.glob("*/*.png"))
            ]

    def table(self, name: str, rows: Sequence[Row]) -> Path:
        """Write a table of pictures."""
        path = self.folder / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
        return path

    def of(self, split: str) -> list[Row]:
        return [row for row in self.rows if row[2] == split]

    def whole(self) -> Path:
        return self.table("whole", self.rows)

    def first(
        self, name: str, train: Mapping[str, int], valid: Mapping[str, int] | None = None
    ) -> Path:
        """The first so many pictures of each class; of those for validation all, unless said."""
        taken: Counter[tuple[str, str]] = Counter()
        rows = []
        for path, label, split in self.rows:
            counts = train if split == "train" else valid
            taken[label, split] += 1
            if counts is None or taken[label, split] <= counts[label]:
                rows.append((path, label, split))
        return self.table(name, rows)

    def shuffled(self) -> Path:
        """Each picture with the label of another one."""
        rng, rows = np.random.default_rng(self.seed), []
        for split in ("train", "valid"):
            part = self.of(split)
            labels = rng.permutation([label for _, label, _ in part])
            rows += [
                (path, str(new), split) for (path, _, _), new in zip(part, labels, strict=True)
            ]
        return self.table("shuffled", rows)

    def one_label(self) -> Path:
        """All but every twentieth picture called happy."""
        rows = [
            (path, label if number % 20 == 0 else "happy", split)
            for number, (path, label, split) in enumerate(self.rows)
        ]
        return self.table("one-label", rows)

    def leaking(self) -> Path:
        """Half of the validation pictures among a third of the training pictures."""
        rows = self.of("train")[::3] + self.of("valid")
        rows += [(path, label, "train") for path, label, _ in self.of("valid")[::2]]
        return self.table("leaking", rows)

    def two_classes(self) -> Path:
        return self.table("two", [row for row in self.rows if row[1] != "sad"])

    def turned(self, turns: int) -> Path:
        """Each picture in so many orientations, each of them a class of its own."""
        folder = self.folder / f"turned-{self.size}-{self.seed}"
        rows = []
        for number, (path, label, split) in enumerate(self.rows):
            turn = number % turns
            new = folder / split / f"{label}-{90 * turn}" / Path(path).name
            if not new.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(path) as image:
                    image.rotate(90 * turn).save(new)
            rows.append((str(new), f"{label}-{90 * turn}", split))
        return self.table(f"turned-{turns}", rows)

    def upright(self, turns: int) -> Path:
        """The same, with the orientation alone as the class: easy to learn."""
        lines = self.turned(turns).read_text(encoding="utf-8").splitlines()[1:]
        rows = [tuple(line.split(",")) for line in lines]
        return self.table(
            f"upright-{turns}", [(path, label.split("-")[1], split) for path, label, split in rows]
        )


@dataclass(frozen=True)
class Planted:
    """A run to be made.

    Args:
        name: of it.
        cause: planted, as `vitreous.diagnosis.causes` calls it; ``None`` for a healthy run.
        what: was done, in words.
        pictures: the folder or table.
        settings: of the run, nested.
        options: of `vitreous.train`.
        around: what is spoilt while it is trained and looked at.
    """

    name: str
    cause: str | None
    what: str
    pictures: Callable[[], Path]
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = nullcontext


def compact(epochs: float, rate: float | None = None, **train: Any) -> dict[str, Any]:
    """A small model of the default recipe's kind."""
    if rate is not None:
        train["learning_rate"] = rate
    return {
        "model": {"depth": 2, "embed_dim": 64, "num_heads": 4, "patch_size": [8, 8],
                  "stem": [16, 32, 64], "stem_blocks": [1, 1, 0]},
        "train": {"epochs": epochs, "budget_s": None, "batch_size": 32, **train},
    }  # fmt: skip


def plain(epochs: float, rate: float = 1e-3, **train: Any) -> dict[str, Any]:
    """A plain ViT as in the paper: one projection, a class token, learned positions."""
    return {
        "model": {"depth": 4, "embed_dim": 64, "num_heads": 4, "patch_size": [8, 8], "stem": [],
                  "stem_blocks": [], "init": "xavier", "pool": "cls", "class_token": True,
                  "pos_embed": "learned"},
        "train": {"epochs": epochs, "budget_s": None, "batch_size": 32, "optimizer": "adamw",
                  "learning_rate": rate, **train},
    }  # fmt: skip


NO_AUGMENTATION = {
    "augment": {"flip": 0.0, "affine_chance": 0.0, "color_chance": 0.0},
    "preprocess": {"mirror": False},
}
FAR_TOO_STRONG = {
    "augment": {"shift": 0.9, "scale": 0.9, "rotate_degrees": 180.0, "shear_degrees": 60.0,
                "affine_chance": 1.0, "contrast": 0.95, "brightness": 0.95, "color_chance": 1.0,
                "erase_chance": 1.0},
}  # fmt: skip
LECTURE = {"recipe": "lecture", "model": "lecture-small", "image_size": 48}
#: What docs/lecture/wall.md changes.
PAST_THE_WALL = {
    "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3},
    "train": {"learning_rate": 1e-4, "warmup": 0.1, "final_learning_rate": 0.01},
}


def broken(pictures: Pictures, epochs: float) -> Iterator[Planted]:
    """A run for each cause.

    Args:
        pictures: a hundred or so of each class to train with.
        epochs: with which a healthy run learns them.
    """
    whole = pictures.whole
    normal = compact(epochs)
    few = dict.fromkeys(("angry", "happy", "sad"), 6)
    yield Planted("rate-100x", "rate_too_high", "a hundred times the usual rate", whole,
                  compact(epochs, 0.4))  # fmt: skip
    yield Planted("rate-1000x-low", "rate_too_low", "a thousandth of the usual rate", whole,
                  compact(epochs, 4e-6))  # fmt: skip
    yield Planted("no-warmup", "no_warmup", "seven times the rate at once", whole,
                  compact(epochs, 0.03, warmup=0.0))  # fmt: skip
    yield Planted("shuffled", "labels", "labels shuffled", pictures.shuffled, normal)
    yield Planted("one-label", "one_label", "19 of 20 labels made the same",
                  pictures.one_label, normal)  # fmt: skip
    yield Planted("leaking", "leak", "half of the validation pictures in training",
                  pictures.leaking, merge(compact(1.5 * epochs), NO_AUGMENTATION))  # fmt: skip
    yield Planted("std-50", "normalisation", "pixels divided by a spread of 50", whole,
                  merge(plain(epochs), {"preprocess": {"std": [50.0] * 3}}))  # fmt: skip
    yield Planted("few-pictures", "too_little_data", "six pictures of each class",
                  lambda: pictures.first("few", few),
                  merge(compact(10 * epochs), {"train": {"batch_size": 16}}))  # fmt: skip
    yield Planted("by-heart", "overfitting", "a plain ViT for long, without augmentation", whole,
                  merge(plain(2 * epochs), NO_AUGMENTATION))  # fmt: skip
    yield Planted("two-epochs", "underfitting", "two epochs", whole, compact(2.0))
    tiny = {"model": {"depth": 1, "embed_dim": 4, "num_heads": 1, "stem": [2, 2, 4],
                      "pool": "mean"}}  # fmt: skip
    yield Planted("tiny-model", "underfitting", "a model of some hundred parameters", whole,
                  merge(compact(epochs, 4e-3), tiny))  # fmt: skip
    yield Planted("augmented-away", "augmentation", "augmentation that leaves nothing", whole,
                  merge(normal, FAR_TOO_STRONG))  # fmt: skip
    yield Planted("non-finite", "non_finite", "a rate of 1e30, gradients not clipped", whole,
                  plain(epochs, 1e30, clip_norm=1e30))  # fmt: skip
    hidden = {"model": {"head_hidden": [32], "activation": "relu"}}
    yield Planted("dead-head", "head", "a dense layer in the head, drawn so that it is off", whole,
                  merge(normal, hidden), around=drawn_dead)  # fmt: skip


@contextmanager
def drawn_dead() -> Iterator[None]:
    """The dense layers of a head get biases from which no ReLU of theirs is ever on."""
    draw = initialise.identity

    def draw_dead(model: ViT) -> None:
        draw(model)
        for layer in model.head_mlp:
            torch.nn.init.constant_(layer.bias, -100.0)

    with patch.object(initialise, "identity", draw_dead):
        yield


def healthy(pictures: Pictures, epochs: float, weights: Path | None) -> Iterator[Planted]:
    """Runs that learn what there is to learn.

    Args:
        pictures: as for `broken`.
        epochs: likewise.
        weights: of a healthy run, to be tuned; ``None`` leaves that out.
    """
    whole = pictures.whole
    yield Planted("compact", None, "the default recipe's kind of model", whole, compact(epochs))
    yield Planted("warmed-up", None, "seven times the rate, with a warm-up", whole,
                  compact(epochs, 0.03, warmup=0.2))  # fmt: skip
    yield Planted("two-classes", None, "two classes", pictures.two_classes, compact(epochs))
    if weights:
        yield Planted("ladder", None, "tuned rung by rung from a tiny checkpoint", whole,
                      {"train": {"epochs": epochs / 5, "budget_s": None, "batch_size": 32}},
                      {"weights": weights})  # fmt: skip
