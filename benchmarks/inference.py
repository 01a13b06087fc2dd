"""Predictions side by side: ours against timm, transformers, ONNX Runtime and OpenVINO.

    python benchmarks/inference.py --install   # the peers, in their own environment
    python benchmarks/inference.py --out benchmarks/results/DATE_inference
    python benchmarks/inference.py --quick --json FILE

A step is what a user waits for: JPEG files of 500x375 pixels are read, decoded, resized and
classified. Every row is one of ours and one peer, each a process of its own, that take turns of
about a second. "tuned" is what `vitreous tune` chose beforehand, "on torch" what is there without
extras. A busy neighbour is a process bound to one core that multiplies matrices without a pause.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from speed_pairs import (
    Condition,
    Worker,
    gemm_peak,
    left_out_if_ended,
    left_out_lines,
    machine,
    read_command,
    row,
    table,
    take_turns,
    write_results,
)
from training import draw

from vitreous.core.machine import allowed_cores
from vitreous.data.preprocess import Preprocess
from vitreous.model.presets import preset
from vitreous.model.summary import summarize
from vitreous.model.vit import ViT
from vitreous.training.classifier import Classifier, save_classifier

SIDE = 224
PEERS = {
    "timm": "timm",
    "transformers": "transformers",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
}
#: Not a library: the same work of ours by one thread while nobody disturbs it.
OURS_ALONE = "ours, quiet, one thread"


@dataclass(frozen=True)
class Work:
    """A model, how many pictures it gets at once, and the peers it is compared with.

    Args:
        runtime: of ours; ``None`` for the one that was tuned.
        busy: whether a neighbour keeps a core busy.
    """

    model: str
    batch_size: int
    peers: tuple[str, ...]
    precision: str = "float32"
    runtime: str | None = None
    busy: bool = False

    @property
    def title(self) -> str:
        how = "tuned" if self.runtime is None else f"on {self.runtime}"
        place = ", beside a busy neighbour" if self.busy else ""
        return f"{self.model}, batch {self.batch_size}, {self.precision}, {how}{place}"


GRAPHS = ("ONNX Runtime", "OpenVINO")
EAGER = ("timm", "transformers")
ALL = (
    *(Work(model, batch, EAGER + GRAPHS) for model in ("Ti/16", "S/16", "B/16")
      for batch in (1, 32)),
    *(Work(model, batch, EAGER, runtime="torch") for model in ("Ti/16", "S/16", "B/16")
      for batch in (1, 32)),
    *(Work(model, 1, (OURS_ALONE, *EAGER, *GRAPHS), busy=True)
      for model in ("Ti/16", "S/16", "B/16")),
    Work("S/16", 1, (OURS_ALONE, *EAGER), runtime="torch", busy=True),
    *(Work("S/16", batch, ("timm", "OpenVINO"), "bfloat16", "openvino") for batch in (1, 32)),
    Work("S/16", 1, ("timm",), "bfloat16", "torch"),
    *(Work("S/16", batch, ("ONNX Runtime",), "int8", "onnxruntime") for batch in (1, 32)),
)  # fmt: skip
QUICK = (
    Work("S/16", 1, EAGER + GRAPHS),
    Work("S/16", 1, ("timm",), runtime="torch"),
    Work("S/16", 32, ("OpenVINO",)),
    Work("S/16", 1, (OURS_ALONE,), busy=True),
    Work("S/16", 1, ("OpenVINO",), "bfloat16", "openvino"),
    Work("S/16", 1, ("ONNX Runtime",), "int8", "onnxruntime"),
)


class Neighbour:
    """Another process that multiplies matrices on one core, while it is let."""

    def __init__(self) -> None:
        core = min(allowed_cores())
        script = (
            f"import os, torch; os.sched_setaffinity(0, {{{core}}}); torch.set_num_threads(1)\n"
            "a = torch.randn(512, 512)\nwhile True: a @ a"
        )
        self._process = subprocess.Popen([sys.executable, "-c", script])
        self._process.send_signal(signal.SIGSTOP)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def draw_pictures(folder: Path, count: int) -> None:
    """JPEG files with the detail of a photograph: noise of several scales."""
    folder.mkdir()
    numbers = np.random.default_rng(0)
    for number in range(count):
        total = np.zeros((375, 500, 3))
        for cells in (4, 16, 64):
            noise = numbers.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            image = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
            total += np.asarray(image) / 3
        Image.fromarray(total.astype(np.uint8)).save(folder / f"{number:02}.jpg", quality=90)


def write_weights(model: str, folder: Path) -> Path:
    """Random weights of a model in a folder of their own."""
    torch.manual_seed(0)
    place = folder / model.replace("/", "-")
    place.mkdir()
    weights = place / "best.safetensors"
    network = ViT(preset(model, image_size=(SIDE, SIDE), num_classes=3))
    save_classifier(weights, Classifier(network, Preprocess((SIDE, SIDE)), ("a", "b", "c"), 0))
    return weights


def tuned(weights: Path) -> Path:
    subprocess.run([sys.executable, "-m", "vitreous", "tune", str(weights)], check=True)
    return weights


def workers(work: Work, peer: str, weights: Path, pictures: Path) -> tuple[Worker, Worker]:
    settings = {
        "pictures": str(pictures),
        "batch_size": work.batch_size,
        "precision": work.precision,
    }
    ours = {**settings, "weights": str(weights), "runtime": work.runtime}
    mine = Worker("inference_ours.py", ours, is_peer=False)
    if peer == OURS_ALONE:
        return mine, Worker("inference_ours.py", {**ours, "threads": 1}, is_peer=False)
    theirs = {**settings, "library": PEERS[peer], "model": work.model}
    return mine, Worker("inference_peers.py", theirs, is_peer=True)


def compare(
    works: Sequence[Work], pairs: int, folder: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and those that were left out."""
    pictures = folder / "pictures"
    draw_pictures(pictures, 32)
    models = dict.fromkeys(one.model for one in works)
    weights = {model: tuned(write_weights(model, folder)) for model in models}
    peaks = {name: gemm_peak(getattr(torch, name)) for name in ("float32", "bfloat16")}
    neighbour, rows, left_out = Neighbour(), [], []
    try:
        for work in works:
            flops = summarize(preset(work.model, image_size=(SIDE, SIDE))).flops
            for peer in work.peers:
                with left_out_if_ended(f"{work.title} v {peer}", left_out):
                    mine: Condition = neighbour.at_work if work.busy else nullcontext
                    theirs: Condition = nullcontext if peer == OURS_ALONE else mine
                    both = workers(work, peer, weights[work.model], pictures)
                    one = row(work.title, peer, take_turns(*both, pairs, (mine, theirs)))
                    peak = peaks.get(work.precision)  # nothing here multiplies eight-bit matrices
                    if peak:
                        one["share_of_gemm_peak"] = round(flops * one["ours"] / (peak * 1e9), 3)
                        one["gemm_peak_gflops"] = round(peak)
                    rows.append(one)
                    print(f"{one['work']} v {peer}: {one['ours']:g} and {one['peer']:g} pictures a "
                          f"second, {one['ratio']:.2f} times", flush=True)  # fmt: skip
    finally:
        neighbour.end()
    return rows, left_out


def page(rows: Sequence[dict[str, Any]], left_out: Sequence[str], pairs: int, quick: bool) -> str:
    how = "--quick" if quick else f"--pairs {pairs}"
    peaks = [one for one in rows if "gemm_peak_gflops" in one]
    lines = [
        "# Predictions, side by side",
        "",
        f"`python benchmarks/inference.py --out DIR {how}`; medians of {pairs} alternating pairs; "
        f"{machine()}. From JPEG files to probabilities, decoding included.",
        "",
        *table(rows),
        "",
        *left_out_lines(left_out),
        "| ours | pictures a second | share of the measured matrix peak of that precision |",
        "| --- | --- | --- |",
        *(
            f"| {work} | {one['ours']:g} | {one['share_of_gemm_peak']:.0%} of "
            f"{one['gemm_peak_gflops']:,} GFLOP/s |"
            for work, one in {one["work"]: one for one in peaks}.items()
        ),
        "",
        "![Ratios](ratios.svg)",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = read_command("S/16 alone", [one.title for one in ALL], [one.title for one in QUICK])
    works = [one for one in (QUICK if arguments.quick else ALL) if arguments.only in one.title]
    with tempfile.TemporaryDirectory() as folder:
        # Converted models of this benchmark are nobody's business afterwards.
        os.environ["XDG_CACHE_HOME"] = folder
        rows, left_out = compare(works, arguments.pairs, Path(folder))
    text = page(rows, left_out, arguments.pairs, arguments.quick)
    write_results(arguments, "inference", rows, text, draw)


if __name__ == "__main__":
    main()
