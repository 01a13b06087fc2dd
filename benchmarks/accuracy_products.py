"""The contenders that the product trains: by default, as the lecture, and ablated."""

import argparse
import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accuracy_loop import Trained

import vitreous
from vitreous.core.config import load_toml, parse_assignments
from vitreous.core.run import RunFolder
from vitreous.evaluation.results import Kept
from vitreous.training.classifier import load_classifier
from vitreous.training.logbook import read_logbook


@dataclass(frozen=True)
class Product:
    """A contender that the product trains.

    Args:
        name: of its files.
        title: of its row.
        choices: recipe, model or image size, where not the default.
        settings: single settings, nested.
        told: what `--ours` was told, where it comes from there.
    """

    name: str
    title: str
    choices: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    told: str = ""


LECTURE = Product(
    "lecture",
    "the lecture's model and training",
    {"recipe": "lecture", "model": "lecture-small", "image_size": 96},
)
OURS = Product("ours", "ours: vitreous train")


def parse_ours(text: str) -> Product:
    """A contender of ``NAME:KEY=VALUE,...``.

    Keys are settings such as ``train.ema``, or one of ``recipe``, ``model`` and ``image_size``.

    Example:
        >>> parse_ours("wide:model=compact-64,model.depth=4").choices
        {'model': 'compact-64'}
    """
    name, _, assignments = text.partition(":")
    if not re.fullmatch(r"[\w.+-]+", name):
        raise argparse.ArgumentTypeError(f"'{text}' has no name: write NAME:KEY=VALUE,...")
    # A comma inside a list belongs to its value.
    parts = [part for part in re.split(r",(?![^\[]*\])", assignments) if part]
    is_choice = re.compile(r"(recipe|model|image_size)=")
    choices = parse_assignments(part for part in parts if is_choice.match(part))
    settings = parse_assignments(part for part in parts if not is_choice.match(part))
    return Product(name, f"ours with {', '.join(parts)}", choices, settings, text)


#: Each takes one of the recipe's ingredients away, or adds one that it does without.
ABLATIONS = tuple(
    parse_ours(text)
    for text in (
        "patches:model.stem=[],model.stem_blocks=[]",
        "no-stem-blocks:model.stem_blocks=[]",
        "learned-positions:model.pos_embed=learned",
        "mean-pooling:model.pool=mean",
        "sequence-pooling:model.pool=seq",
        "xavier:model.init=xavier",
        "adamw:train.optimizer=adamw",
        "no-average:train.ema=0",
        "drop-path:model.drop_path_rate=0.1",
        "no-smoothing:train.label_smoothing=0",
        "no-decay:train.weight_decay=0",
        "no-geometry:augment.affine_chance=0",
        "no-colour:augment.color_chance=0",
        "no-flip:augment.flip=0,preprocess.mirror=false",
        "erasing:augment.erase_chance=0.25",
        "mixing:augment.mix_chance=0.3",
        "qk-norm:model.qk_norm=true",
    )
)


def train_product(product: Product, source: Path, seed: int, budget_s: float) -> Trained:
    """Train by `vitreous.train`, as a person would."""
    with tempfile.TemporaryDirectory() as folder:
        began, started = time.time(), time.monotonic()
        vitreous.train(
            source,
            Path(folder) / "run",
            budget_s=budget_s,
            seed=seed,
            settings=product.settings,
            **product.choices,
        )
        seconds = time.monotonic() - started
        run = RunFolder.open(Path(folder) / "run")
        lines = read_logbook(run.metrics)
        # The log's seconds count from behind the probing. Its last line was written when the file
        # was changed last, which tells how far behind the start that is.
        before_s = run.metrics.stat().st_mtime - began - lines[-1]["seconds"]
        curve = [
            {
                name: line[name]
                for name in ("step", "epoch", "accuracy", "balanced_accuracy", "loss")
            }
            | {"seconds": round(line["seconds"] + before_s, 2)}
            for line in lines
            if line["kind"] == "valid"
        ]
        kept, last, rule = load_classifier(run.best), load_classifier(run.last), Kept.read(run)
        assert rule is not None
        settings = load_toml(run.config)
    del settings["data"]  # paths of this machine
    return Trained(
        kept=kept.model,
        last=last.model,
        keeps=rule.weights,
        preprocess=kept.preprocess,
        steps=lines[-1]["step"],
        epochs=lines[-1]["epoch"],
        seconds=seconds,
        curve=curve,
        settings=settings,
    )
