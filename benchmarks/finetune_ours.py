"""`vitreous train --weights` as a person runs it, and what its weights answer afterwards."""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import predict
from picture_links import count_splits, samples_of

from vitreous.core.config import load_toml
from vitreous.core.files import read_json
from vitreous.core.run import RunFolder
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_labelled
from vitreous.data.folder import Listing
from vitreous.data.table import Sample
from vitreous.evaluation.results import Ladder
from vitreous.training.classifier import load_classifier
from vitreous.training.logbook import read_logbook

#: What decides how threads share the work.
_THREADS = ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the command lines of `finetune.py` and `ladder.py` have in common."""
    parser.add_argument("source", type=Path, help="folder with train/ and valid/")
    parser.add_argument("--weights", type=Path, required=True, help="pretrained, with timm's names")
    parser.add_argument("--preprocess", default="half", help="imagenet, half or clip. [half]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="pictures of each class and split, for a try")


def asked_for(arguments: argparse.Namespace, samples: Sequence[Sample]) -> dict[str, Any]:
    """What is written down of a command line, without paths."""
    with arguments.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "source": arguments.source.resolve().name,
        "pictures": count_splits(samples),
        "weights": arguments.weights.name,
        "weights_sha256": digest,
        "preprocess": arguments.preprocess,
        "minutes": arguments.minutes,
        "limit": arguments.limit,
        "environment": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


def command_of(script: str, asked: Mapping[str, Any], further: str) -> str:
    """The command line again, with letters for paths.

    Args:
        script: beside this file.
        asked: by `asked_for`.
        further: options that only this script has.
    """
    words = [f"{name}={value}" for name, value in asked["environment"].items()]
    words += ["python", f"benchmarks/{script}", asked["source"].upper()]
    words += ["--weights", asked["weights"], "--preprocess", asked["preprocess"], "--out", "DIR"]
    if asked["minutes"] is not None:
        words += ["--minutes", f"{asked['minutes']:g}"]
    if asked["limit"] is not None:
        words += ["--limit", str(asked["limit"])]
    return f"`{' '.join(words)} {further}`"


@dataclass(frozen=True)
class Climb:
    """A run of the command.

    Args:
        pictures: their folder, with splits.
        weights: the pretrained file.
        preprocess: how the weights' pictures were prepared, as the command is told.
        length: option and value: ``("--budget", "1500s")`` or ``("--epochs", "3")``.
        tune: which rungs are climbed.
        seed: of every random draw.
    """

    pictures: Path
    weights: Path
    preprocess: str
    length: tuple[str, str]
    tune: str
    seed: int

    def run(self, place: Path) -> "Climbed":
        """Climb in a process of its own.

        Args:
            place: folder for the run, and for a cache in which nothing is yet.
        """
        run, cache = place / "run", place / "cache"
        words = ["-m", "vitreous", "train", self.pictures, "--weights", self.weights,
                 "--preprocess", self.preprocess, *self.length, "--tune", self.tune,
                 "--seed", self.seed, "--out", run, "--cache", cache]  # fmt: skip
        started = time.time()
        run_alone(words, cache)
        return Climbed(RunFolder(run), cache, started, time.time() - started)


def run_alone(words: Sequence[object], cache: Path) -> None:
    """Run a Python program in a process of its own.

    Args:
        words: its command line behind the interpreter.
        cache: what it takes for the user's cache folder, so that nothing is there from before.

    Raises:
        CalledProcessError: where it failed.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, *map(str, words)], check=True, env=environment)


@dataclass(frozen=True)
class Climbed:
    """What a run of the command left.

    Args:
        run: its folder.
        cache: its decoded pictures.
        started: value of `time.time` when its process was started.
        seconds: to the end of the process.
    """

    run: RunFolder
    cache: Path
    started: float
    seconds: float

    @property
    def ladder(self) -> Ladder:
        """What each rung scored on validation, and which was kept."""
        return Ladder.read(self.run)

    def result(self) -> dict[str, Any]:
        """What is written down of it."""
        best = load_classifier(self.run.best)
        settings = load_toml(self.run.config)
        for name in ("data", "init"):  # paths of this machine
            del settings[name]
        logs = [read_logbook(self._log(row.name)) for row in self.ladder.rows]
        last_lines = [log[-1] for log in logs if log]
        return {
            "parameters": sum(weight.numel() for weight in best.model.parameters()),
            "image_size": list(best.preprocess.image_size),
            "steps": sum(line["step"] for line in last_lines),
            "epochs": round(sum(line["epoch"] for line in last_lines), 3),
            "seconds": round(self.seconds, 1),
            "mirrors": best.preprocess.mirror,
            "ladder": read_json(self.run.ladder),
            "curve": self.curve(),
            "settings": settings,
        }

    def curve(self) -> list[dict[str, float]]:
        """Validations of all rungs, in seconds from the start of the process."""
        names = ("accuracy", "balanced_accuracy", "loss")
        curve = []
        for row in self.ladder.rows:
            log = read_logbook(self._log(row.name))
            if row.name == "probe":
                seconds = self.run.rung("probe").answers.stat().st_mtime - self.started
                found = (row.accuracy.value, row.balanced_accuracy.value, row.loss)
                curve.append(
                    {"step": 0, "epoch": 0.0, **dict(zip(names, found, strict=True))}
                    | {"seconds": round(seconds, 2)}
                )
            elif log:
                # A rung's seconds count from its own start. Its last line was written when the
                # file was changed last, which tells when that was.
                end_s = self._log(row.name).stat().st_mtime - self.started
                before_s = end_s - log[-1]["seconds"]
                curve += [
                    {name: line[name] for name in ("step", "epoch", *names)}
                    | {"seconds": round(line["seconds"] + before_s, 2)}
                    for line in log
                    if line["kind"] == "valid"
                ]
        return curve

    def answers(self, weights: Path, listing: Listing, split: str) -> np.ndarray:
        """Probabilities of a split's pictures and of their mirror images, in their order.

        Args:
            weights: of the run, or of one of its rungs.
            listing: of the run's pictures.
            split: of those.

        Shape:
            -> (2, pictures, classes)
        """
        classifier = load_classifier(weights)
        pictures = open_labelled(
            Listing(samples_of(listing, split), listing.classes),
            classifier.classes,
            DataConfig("the pictures that are scored", cache_dir=str(self.cache)),
            classifier.preprocess,
        )
        if pictures.unreadable:
            path, reason = pictures.unreadable[0]
            raise RuntimeError(f"{path.resolve()}: {reason}, and no peer leaves it out")
        return predict(classifier.model, classifier.preprocess, pictures)

    def _log(self, rung: str) -> Path:
        return self.run.rungs / rung / "metrics.jsonl"
