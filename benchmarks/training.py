"""Training steps side by side: ours against timm, transformers and Keras on the same machine.

    python benchmarks/training.py --install              # the peers, in an environment of their own
    python benchmarks/training.py --out benchmarks/results/DATE_training
    python benchmarks/training.py --quick --json FILE

Every row is one of ours and one peer, each a process of its own, that take turns of about a second.
A step is forward, backward and optimiser on one batch that lies ready; ours also clips the gradient
and moves the average of the weights. "default" is how the peer comes, "best" what its documentation
offers to make it fast (see the workers); the offers have not been compared with one another.

On an NVIDIA GPU the same command has larger batches, peers at their best, and rows of ours fed with
pictures against ours on a batch that lies ready. PEER_PYTHON names another Python that has the
peers. --quick is for a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from speed_pairs import (
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
from training_ours import configuration
from wall_page import MUTED, STYLE

from vitreous.core.files import atomic_path
from vitreous.model.summary import summarize


@dataclass(frozen=True)
class Work:
    """A model that is trained, and the peers it is compared with."""

    title: str
    model: str
    image_size: int
    batch_size: int
    peers: tuple[str, ...]
    precision: str = "auto"
    is_fed: bool = False

    def settings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "is_fed": self.is_fed,
        }


TIMM, TRANSFORMERS = ("timm default", "timm best"), ("transformers default", "transformers best")
KERAS = (
    "Keras-TensorFlow default", "Keras-TensorFlow best", "Keras-JAX default", "Keras-JAX best",
)  # fmt: skip
ALL = (
    Work("Ti/16, 224 px, batch 32", "Ti/16", 224, 32, TIMM + TRANSFORMERS),
    Work("S/16, 224 px, batch 8", "S/16", 224, 8, TIMM + TRANSFORMERS),
    Work("S/16, 224 px, batch 32", "S/16", 224, 32, TIMM + TRANSFORMERS),
    Work("B/16, 224 px, batch 8", "B/16", 224, 8, TIMM + TRANSFORMERS),
    Work("48 px model, batch 128", "compact-48", 48, 128, TIMM),
    Work("lecture-small, 256 px, batch 4", "lecture-small", 256, 4, KERAS),
    Work(
        "lecture-small in float32, 256 px, batch 4", "lecture-small", 256, 4, KERAS[:1], "float32"
    ),
    Work("lecture, 256 px, batch 4", "lecture", 256, 4, KERAS),
)
READY = "ours on a batch that lies ready"
GPU = (
    Work("Ti/16, 224 px, batch 1024", "Ti/16", 224, 1024, TIMM[1:]),
    Work("S/16, 224 px, batch 512", "S/16", 224, 512, (*TIMM, TRANSFORMERS[1])),
    Work("B/16, 224 px, batch 256", "B/16", 224, 256, TIMM[1:]),
    Work("L/16, 224 px, batch 128", "L/16", 224, 128, TIMM[1:]),
    Work("48 px model, batch 128", "compact-48", 48, 128, TIMM[1:]),
    Work("48 px model, batch 128, fed", "compact-48", 48, 128, (READY,), is_fed=True),
    Work("S/16, 224 px, batch 512, fed", "S/16", 224, 512, (READY,), is_fed=True),
)
QUICK = (
    Work("S/16, 224 px, batch 8", "S/16", 224, 8, (*TIMM, "transformers default")),
    Work("48 px model, batch 128", "compact-48", 48, 128, ("timm best",)),
    Work("lecture-small, 256 px, batch 4", "lecture-small", 256, 4, KERAS[:1]),
)


def peer_worker(work: Work, peer: str) -> Worker:
    """The peer's process: its name says library or backend, and how it is set."""
    if peer == READY:
        return Worker("training_ours.py", {**work.settings(), "is_fed": False}, is_peer=False)
    library, how = peer.split(" ")
    settings = {**work.settings(), "best": how == "best"}
    if library.startswith("Keras"):
        settings["backend"] = library.removeprefix("Keras-").lower()
        return Worker("training_keras_peer.py", settings, is_peer=True)
    return Worker("training_torch_peers.py", {**settings, "library": library}, is_peer=True)


def share_of_peak(work: Work, pictures_per_s: float, peak: float) -> float:
    """Share of the measured bfloat16 peak, at three times the forward operations a picture."""
    config = configuration(work.model, work.image_size, work.batch_size, work.precision)
    return 3 * summarize(config.model).flops * pictures_per_s / (peak * 1e9)


def compare(works: Sequence[Work], pairs: int) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and those that were left out."""
    peak, rows, left_out = gemm_peak(), [], []
    for work in works:
        for peer in work.peers:
            with left_out_if_ended(f"{work.title} v {peer}", left_out):
                ours = Worker("training_ours.py", work.settings(), is_peer=False)
                one = row(work.title, peer, take_turns(ours, peer_worker(work, peer), pairs))
                one["share_of_gemm_peak"] = round(share_of_peak(work, one["ours"], peak), 3)
                one["gemm_peak_gflops"] = round(peak)
                rows.append(one)
                print(f"{one['work']} v {peer}: {one['ours']:g} and {one['peer']:g} pictures a "
                      f"second, {one['ratio']:.2f} times", flush=True)  # fmt: skip
    return rows, left_out


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of the ratios; 1 is as fast as the peer."""
    with matplotlib.rc_context(STYLE), atomic_path(path) as staging:
        figure = Figure(figsize=(7.2, 0.5 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        names = [f"{one['work']} v {one['peer_name']}" for one in rows]
        axes.barh(names, [one["ratio"] for one in rows], color="#3b6fb6")
        axes.axvline(1.0, color=MUTED, linewidth=1)
        axes.invert_yaxis()
        axes.set_xlabel("times as many pictures a second as the peer")
        figure.savefig(staging, format="svg", metadata={"Date": None})


def page(rows: Sequence[dict[str, Any]], left_out: Sequence[str], pairs: int, quick: bool) -> str:
    how = "--quick" if quick else f"--pairs {pairs}"
    lines = [
        "# Training steps, side by side",
        "",
        f"`python benchmarks/training.py --out DIR {how}`; medians of {pairs} "
        f"alternating pairs; {machine()}; bfloat16 matrix products reach "
        f"{rows[0]['gemm_peak_gflops']:,} GFLOP/s there.",
        "",
        *table(rows),
        "",
        *left_out_lines(left_out),
        "| ours | pictures a second | share of that peak |",
        "| --- | --- | --- |",
        *(
            f"| {work} | {one['ours']:g} | {one['share_of_gemm_peak']:.0%} |"
            for work, one in {one["work"]: one for one in rows}.items()
        ),
        "",
        "![Ratios](ratios.svg)",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    whole = GPU if torch.cuda.is_available() else ALL
    arguments = read_command(
        "five rows", [one.title for one in whole], [one.title for one in QUICK]
    )
    works = [one for one in (QUICK if arguments.quick else whole) if arguments.only in one.title]
    torch.manual_seed(0)
    rows, left_out = compare(works, arguments.pairs)
    if not rows:
        raise SystemExit("no row is left: each has ended, and said above why")
    text = page(rows, left_out, arguments.pairs, arguments.quick)
    write_results(arguments, "training", rows, text, draw)


if __name__ == "__main__":
    main()
