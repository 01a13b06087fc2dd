"""What benchmarks of training share: a run for each name and seed, and one way to score."""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from vitreous.core.files import atomic_path, write_json
from vitreous.core.machine import processor
from vitreous.errors import Interrupted
from vitreous.evaluation.metrics import evaluate_probabilities
from vitreous.evaluation.temperature import fit_temperature


@dataclass(frozen=True)
class Job:
    """What is run once for each seed.

    Args:
        name: of its files.
        asked: what decides its result beside the seed, as JSON has it; a file that was asked for
            otherwise is refused.
        run: from a seed to the result and the arrays that it was made from.
    """

    name: str
    asked: Mapping[str, Any]
    run: Callable[[int], tuple[dict[str, Any], Mapping[str, np.ndarray]]]


def run_missing(jobs: Sequence[Job], seeds: Sequence[int], out: Path) -> int:
    """Run what has no file yet, the order turned round from seed to seed; how many runs failed."""
    for file in (out / f"{job.name}-{seed}.json" for job in jobs for seed in seeds):
        if file.exists() and not file.with_suffix(".npz").exists():  # told before hours of others
            raise SystemExit(f"{file} lacks its arrays, which weren't kept: name another --out")
    failed = 0
    for place, seed in enumerate(seeds):
        for job in jobs[:: -1 if place % 2 else 1]:
            file = out / f"{job.name}-{seed}.json"
            if file.exists():
                if json.loads(file.read_text(encoding="utf-8"))["asked"] != job.asked:
                    raise SystemExit(f"{file} was asked for otherwise: name another --out")
                continue
            print(f"== {job.name}, seed {seed}", flush=True)
            try:
                result, arrays = job.run(seed)
            except Interrupted:
                raise
            except Exception:  # the others are worth their hours all the same
                traceback.print_exc()
                failed += 1
                continue
            with atomic_path(file.with_suffix(".npz")) as staging, staging.open("wb") as stream:
                np.savez_compressed(stream, **arrays)
            # Last, because the file says that the run is done.
            write_json(file, {**result, "asked": job.asked})
    return failed


def tempered(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same, as sure as they are right on these pictures.

    Ours are when its training ends. Of the others it is done here, in the same way and on the
    same pictures, so that no loss is that of label smoothing rather than that of what was learned.

    Shape:
        (looks, pictures, classes), (pictures,) -> the same
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).swapaxes(0, 1)
    found = softmax(logits / fit_temperature(logits, labels), axis=2)
    return found.swapaxes(0, 1).astype(np.float32)


def score_looks(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float | dict[str, float]]]:
    """Scores of the pictures as they are, and of each with its mirror image: tempered for either.

    Shape:
        (looks, pictures, classes), (pictures,)
    """
    return {
        "plain": score(tempered(probabilities[:1], labels)[0], labels, classes),
        "flip": score(tempered(probabilities, labels).mean(0), labels, classes),
    }


def score(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> dict[str, float | dict[str, float]]:
    """What is compared: shares, mean negative log-likelihood in nats, and each class' recall.

    Shape:
        (pictures, classes), (pictures,)
    """
    evaluation = evaluate_probabilities(probabilities, labels, classes, majority_class=None)
    return {
        "accuracy": evaluation.accuracy.value,
        "balanced_accuracy": evaluation.balanced_accuracy.value,
        "loss": evaluation.loss,
        "recall": {
            name: one.recall.value for name, one in evaluation.per_class.items() if one.support
        },
    }


def machine(*packages: str) -> str:
    """The processor, and the versions of what decides a run's speed.

    Args:
        packages: beside torch.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    return f"{processor()}, {torch.get_num_threads()} threads, {versions}"


class OtherWork:
    """How busy others keep the machine while a run is at work, where the system tells (Linux).

    Two threads that wait for each other suffer from a neighbour out of proportion, bfloat16
    convolutions most of all, so a table means little where this is not near 0. Own work is this
    process' and that of the processes which it has waited for.
    """

    def __init__(self) -> None:
        self._before, self._started = self._seconds(), time.monotonic()

    def cores(self) -> float | None:
        """Cores taken by other processes since the start, on average."""
        now = self._seconds()
        if now is None or self._before is None:
            return None
        return round(max(now - self._before, 0.0) / (time.monotonic() - self._started), 2)

    @staticmethod
    def _seconds() -> float | None:
        file = Path("/proc/stat")
        if not file.exists():
            return None
        user, nice, system, _idle, _wait, *interrupts = map(int, file.read_text().split()[1:9])
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return busy - sum(os.times()[:4])
