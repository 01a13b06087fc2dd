"""The model that a server asks: opened once, warmed up, and replaced as a whole on a reload."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.console import Console
from vitreous.core.machine import usable_cores
from vitreous.data.decode import FORMATS, read_picture
from vitreous.data.preprocess import fit
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.inference import TorchNetwork
from vitreous.explanation.methods import METHOD_NAMES
from vitreous.exporting.contract import Contract
from vitreous.exporting.sealed_file import open_sealed
from vitreous.serving.guard import (
    Guard,
    MeasuredRefusal,
    guard_of_sealed,
    open_guard,
    own_calibration,
    run_guard,
    sealed_guard,
)
from vitreous.serving.hub import called
from vitreous.serving.predictor import Answer, Predictor, answer_pixels, open_predictor
from vitreous.serving.runtimes import Engine, Precision, Runtime
from vitreous.serving.sealed import check_as_written, sealed_predictor
from vitreous.serving.tune import choose_engine
from vitreous.serving.weights import Told, find_classifier, is_sealed
from vitreous.serving.wish import Wish
from vitreous.training.classifier import unmap
from vitreous.training.config import Device

VERSION = version("vitreous")
#: Pictures that a GPU classifies at once.
_GPU_BATCH = 32
#: What the page asks for by itself.
_USUAL_COVERAGE = 0.9
#: Ways to be cautious that are kept ready: people ask for the same few.
_KEPT_GUARDS = 64


@dataclass(frozen=True)
class Wanted:
    """Which model to open, and how; the same again on a reload.

    Args:
        run: a run's folder, a weights file of one, a sealed file, or a checkpoint, also on a hub.
        told: what is known of a checkpoint beside its file.
        runtime: as for `predict`.
        precision: likewise.
        device: likewise.
        workers: how many threads will ask; ``None`` for one for each core.
        name: what it is called; by default that of `run`.
    """

    run: str | PathLike[str]
    told: Told
    runtime: Runtime | None = None
    precision: Precision = "float32"
    device: Device = "auto"
    workers: int | None = None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Served:
    """A model ready to answer whatever a request may ask for.

    Args:
        name: what people call it.
        weights: the file.
        engine: what computes.
        predictors: one that all workers ask, or one for each.
        workers: how many threads may ask at a time.
        trust: what sets and refusals are made of: a run's calibration, where there is one, or
            a sealed file's contract.
        stamp: tells whether the file is still the one that was opened.
    """

    name: str
    weights: Path
    engine: Engine
    predictors: tuple[Predictor, ...]
    workers: int
    trust: Calibration | Contract | None
    stamp: tuple[int, ...]
    _guards: dict[Wish, Guard] = field(default_factory=dict)

    @property
    def explainable(self) -> bool:
        """Whether the model's insides are there to be looked into."""
        return not isinstance(self.trust, Contract)

    @property
    def refusing(self) -> bool:
        """Whether it can tell what is none of these."""
        if isinstance(self.trust, Contract):
            return self.trust.refuse is not None
        return self.trust is not None and self.trust.refusal is not None

    @property
    def on_gpu(self) -> bool:
        """Whether pictures are better classified many at once."""
        return self.predictors[0].network.device.type != "cpu"

    @property
    def batch(self) -> int:
        """Pictures to classify at once."""
        return _GPU_BATCH if self.on_gpu else 1

    def upright(self, data: bytes, max_pixels: int) -> np.ndarray:
        """A picture's bytes as RGB; a JPEG several times as large as the model needs comes smaller.

        Raises:
            UnreadablePicture: for anything that isn't a whole picture within the limits.
        """
        return read_picture(data, max_pixels, self.predictors[0].preprocess.cover)

    def fitted(self, data: bytes, max_pixels: int) -> np.ndarray:
        """A picture's bytes, decoded and fitted to the model; raises as `upright` does."""
        return fit(self.upright(data, max_pixels), self.predictors[0].preprocess)

    def answers(
        self,
        worker: int,
        names: Sequence[str],
        pictures: Sequence[np.ndarray],
        guard: Guard | None,
    ) -> list[Answer]:
        """Classify fitted pictures.

        Args:
            worker: number of the thread that asks.
            names: of the pictures.
            pictures: uint8.
            guard: makes answers cautious.

        Shape:
            pictures: (height, width, 3) each
        """
        predictor = self.predictors[worker % len(self.predictors)]
        pixels = torch.from_numpy(np.stack(pictures))
        return answer_pixels(replace(predictor, guard=guard), names, pixels)

    def guard(self, sets: float | None, by_class: bool, refuse: bool) -> Guard | None:
        """What a request asks for beside the likeliest class; ``None`` for nothing.

        Raises:
            ConfigError: for what this model can't give.
        """
        wish = Wish(sets=sets, by_class=by_class, refuse=refuse)
        if sets is None and not refuse:
            return None
        guard = self._guards.get(wish)
        if guard is None:
            guard = self._new_guard(wish)
            if len(self._guards) >= _KEPT_GUARDS:  # several threads may be here
                self._guards.clear()
            self._guards[wish] = guard
        return guard

    def _new_guard(self, wish: Wish) -> Guard:
        if isinstance(self.trust, Contract):
            guard = sealed_guard(self.trust, self.name, wish)
        else:
            classes = self.predictors[0].classes
            guard = run_guard(self.trust, self.name, len(classes), wish)
        assert guard is not None  # something is asked for
        return guard

    def warm_up(self) -> None:
        """Let each predictor choose its kernels and take its memory.

        A first set of classes imports SciPy, for which requests would have to wait.
        """
        if isinstance(self.trust, Calibration):
            self.guard(_USUAL_COVERAGE, by_class=False, refuse=self.refusing)
        height, width = self.predictors[0].preprocess.image_size
        picture = np.zeros((height, width, 3), np.uint8)
        guard = self.guard(None, by_class=False, refuse=True) if self.refusing else None
        for number in range(len(self.predictors)):
            for count in {1, self.batch}:
                self.answers(number, [""] * count, [picture] * count, guard)

    def describe(self) -> dict[str, Any]:
        """What `GET /v1/model` says of the model itself."""
        first = self.predictors[0]
        contract = self.trust if isinstance(self.trust, Contract) else None
        sets = contract.sets if contract else self.trust
        return {
            "name": self.name,
            "version": VERSION,
            "classes": list(first.classes),
            "image_size": list((contract or first).preprocess.image_size),
            "precision": contract.precision if contract else self.engine.precision,
            "runtime": self.engine.runtime,
            "sets": sets is not None,
            "coverages": sorted(map(float, contract.sets)) if contract and contract.sets else None,
            "refuse": self.refusing,
            "explain": self.explainable,
            "methods": list(METHOD_NAMES) if self.explainable else [],
            "formats": list(FORMATS),
            "license": contract.license if contract else None,
            "card": contract.card if contract else None,
        }


def open_served(wanted: Wanted, console: Console) -> Served:
    """Open a model for as many threads as will ask it.

    On a CPU each thread computes alone: threads that share every small operation mostly wait for
    one another (ADR 7). A PyTorch module can be asked by all of them at a time; a compiled graph
    is opened once for each.

    Raises:
        UserError: where there is no such model, or it can't be opened like that.
    """
    path = find_classifier(wanted.run, wanted.told, console, sealed=True)
    stamp = stamp_of(path)
    workers = wanted.workers or min(usable_cores(), torch.get_num_threads())
    name = wanted.name or called(wanted.run)
    if is_sealed(path):
        check_as_written(name, wanted.runtime, wanted.precision, wanted.device)
        files = [open_sealed(path, threads=1) for _ in range(workers)]
        contract = files[0].contract
        is_usual = contract.sets is not None and f"{_USUAL_COVERAGE:g}" in contract.sets
        usual = Wish(sets=_USUAL_COVERAGE if is_usual else None, refuse=contract.refuse is not None)
        guard_of_sealed(contract, name, usual, console)  # says what can be promised
        guard = Guard(refusal=MeasuredRefusal(contract.refuse)) if contract.refuse else None
        predictors = tuple(sealed_predictor(file, 1, guard) for file in files)
        engine = Engine("onnxruntime", threads=1)
        return Served(name, path, engine, predictors, workers, contract, stamp)
    calibration = own_calibration(path, console)
    engine = choose_engine(path, wanted.runtime, wanted.precision, wanted.device, console)
    engine = replace(engine, threads=1)
    if calibration:
        refuse = calibration.refusal is not None
        usual = Wish(precision=engine.precision, sets=_USUAL_COVERAGE, refuse=refuse)
        open_guard(path, wanted.run, usual, console)  # says what can be promised
    # With a guard that refuses, a predictor gives the features that refusing takes.
    guard = Guard(refusal=calibration.refusal if calibration else None)
    copies = 1 if engine.runtime == "torch" else workers
    predictors = [open_predictor(path, engine, console, guard) for _ in range(copies)]
    for predictor in predictors:
        if isinstance(predictor.network, TorchNetwork):
            unmap(predictor.network.model)
    return Served(name, path, engine, tuple(predictors), workers, calibration, stamp)


def stamp_of(path: Path) -> tuple[int, ...]:
    """Differs once a file has been replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
