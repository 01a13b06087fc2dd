"""Which runtime is the fastest for a run on this machine: measured once, used from then on.

The choice lies beside the weights as ``runtime.json``. It is for this machine and these versions of
the libraries; where they differ it is left alone, and PyTorch answers.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitreous.core.console import Console
from vitreous.core.files import read_json, write_json
from vitreous.core.machine import free_cores, processor
from vitreous.core.rng import torch_stream
from vitreous.core.threads import torch_threads
from vitreous.errors import VitreousError
from vitreous.evaluation.inference import Network
from vitreous.serving.runtimes import (
    PRECISIONS,
    Engine,
    Precision,
    Runtime,
    is_installed,
    open_network,
    version_of,
)
from vitreous.training.classifier import read_description
from vitreous.training.config import Device

#: Pictures at once, beside one that somebody waits for.
MANY = 32

#: Rounds end when both are reached.
_MIN_ROUNDS, _MIN_S = 3, 3.0

#: A time is the mean over as many calls as fit into this.
_CALLS_S = 0.05


@dataclass(frozen=True)
class Timing:
    """One way to run a model, with medians over the rounds.

    Args:
        runtime: the library.
        threads: that it had.
        one_ms: milliseconds for one picture.
        many_ms: milliseconds a picture, 32 at once.
    """

    runtime: Runtime
    threads: int
    one_ms: float
    many_ms: float


@dataclass(frozen=True)
class Tuning:
    """What was measured, and the way with the lowest product of both times.

    Args:
        timings: all ways, as they were measured.
        choice: the one to use.
        missing: runtimes that aren't installed.
        path: where the choice was written.
    """

    timings: tuple[Timing, ...]
    choice: Timing
    missing: Sequence[Runtime]
    path: Path

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "runtime": self.choice.runtime,
            "threads": self.choice.threads,
            "timings": [asdict(timing) for timing in self.timings],
            "missing": list(self.missing),
            "file": str(self.path),
        }


def tune(weights: Path, console: Console) -> Tuning:
    """Measure the installed runtimes in turns, in float32, and keep the fastest for `predict`.

    Args:
        weights: a weights file.
        console: where progress goes.

    Raises:
        RunError: where it is damaged or knows no classes.
        StorageError: where the choice can't be written.
    """
    threads = _threads_to_use()
    if threads < torch.get_num_threads():
        console.warn("other work keeps some cores busy: tune again when they are free")
    installed: dict[Runtime, bool] = {runtime: is_installed(runtime) for runtime in PRECISIONS}
    engines = [
        Engine(runtime, "float32", count)
        for runtime, there in installed.items()
        for count in _thread_counts(threads)
        if there
    ]
    networks = [open_network(weights, engine, console) for engine in engines]
    config = read_description(weights).model
    shape = (MANY, config.in_channels, *config.image_size)
    console.info(f"measuring {len(engines)} ways to run {weights} in turns")
    timings = _measure(engines, networks, torch.randn(shape, generator=torch_stream(0, "tune")))
    choice = min(timings, key=lambda timing: timing.one_ms * timing.many_ms)
    path = _file_of(weights)
    write_json(
        path,
        {
            "runtime": choice.runtime,
            "threads": choice.threads,
            "version": version_of(choice.runtime),
            "machine": processor(),
        },
    )
    missing: list[Runtime] = [runtime for runtime, there in installed.items() if not there]
    return Tuning(timings, choice, missing, path)


def choose_engine(
    weights: Path,
    runtime: Runtime | None,
    precision: Precision,
    device: Device,
    console: Console,
) -> Engine:
    """The engine for a weights file: what is named, else what `tune` chose, else PyTorch.

    A GPU that is named is PyTorch's.

    Threads are as many as there are cores that nobody else keeps busy, and no more than PyTorch
    would take (``OMP_NUM_THREADS``) or than `tune` found useful.
    """
    threads = _threads_to_use()
    if runtime is None and device not in ("auto", "cpu"):
        runtime = "torch"
    if runtime is not None:
        return Engine(runtime, precision, threads, device)
    tuned = _read_choice(_file_of(weights), console)
    if tuned and precision in PRECISIONS[tuned.runtime]:
        return Engine(tuned.runtime, precision, min(threads, tuned.threads), device)
    able: list[Runtime] = [name for name in PRECISIONS if precision in PRECISIONS[name]]
    return Engine(able[0] if able else "torch", precision, threads, device)


def _threads_to_use() -> int:
    return min(torch.get_num_threads(), free_cores())


def _thread_counts(most: int) -> list[int]:
    """One, the most, and some between."""
    return sorted({4**power for power in range(16) if 4**power < most} | {most})


@torch.inference_mode()
def _measure(
    engines: Sequence[Engine], networks: Sequence[Network], images: Tensor
) -> tuple[Timing, ...]:
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in engines]
    batches = (images[:1], images)
    for engine, network in zip(engines, networks, strict=True):  # kernels are chosen, memory taken
        for batch in batches:
            _seconds(engine, network, batch)
    started, rounds = time.monotonic(), 0
    while rounds < _MIN_ROUNDS or time.monotonic() - started < _MIN_S:
        for engine, network, both in zip(engines, networks, times, strict=True):
            for kept, batch in zip(both, batches, strict=True):
                kept.append(_seconds(engine, network, batch))
        rounds += 1
    return tuple(
        Timing(
            engine.runtime,
            engine.threads,
            round(1e3 * statistics.median(one), 3),
            round(1e3 * statistics.median(many) / len(images), 3),
        )
        for engine, (one, many) in zip(engines, times, strict=True)
    )


def _seconds(engine: Engine, network: Network, images: Tensor) -> float:
    """How long a call takes."""
    with torch_threads(engine.threads):
        started, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - started < _CALLS_S:
            network(images.to(network.device)).cpu()
            calls += 1
        return (time.perf_counter() - started) / calls


def _file_of(weights: Path) -> Path:
    return weights.parent / "runtime.json"


def _read_choice(path: Path, console: Console) -> Engine | None:
    """What `tune` wrote, where it holds here; says so where it doesn't."""
    if not path.exists():
        return None
    again = "torch is used; measure here with vitreous tune"
    try:
        kept = read_json(path)
        engine = Engine(kept["runtime"], "float32", max(1, int(kept["threads"])))
        machine, measured = kept["machine"], kept["version"]
    except (VitreousError, KeyError, TypeError, ValueError):
        console.warn(f"{path} is damaged: {again}")
        return None
    if machine != processor():
        console.info(f"{path} was measured on another machine ({machine}): {again}")
    elif not is_installed(engine.runtime):
        console.info(f"{engine.runtime}, chosen in {path}, isn't installed any more: {again}")
    elif version_of(engine.runtime) != measured:
        console.info(f"{path} was measured with {engine.runtime} {measured}: {again}")
    else:
        return engine
    return None
