"""Accuracy over the number of pictures: ours and ResNet-18s on few drawn faces, equal time.

    GOMP_SPINCOUNT=1000 python benchmarks/data_size.py --out benchmarks/results/DATE_data-size

For each number of pictures a class and each seed, faces are drawn anew, three contenders of
`accuracy.py` (ours, a ResNet-18, the same with our augmentation) learn from them for the same
minutes, and are scored on 400 unseen faces a class. What `vitreous train` needs to score them
itself is part of its time. The ResNets take batches of the sizes that ours takes for so many
pictures, at a rate that goes with their root. Each run writes a file of its own, and one that is
there already is not run again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from accuracy import OURS, Contender, asked_of, run
from accuracy_peers import PEERS, SIDE, TUNINGS, Peer
from comparison import COLORS, OURS_COLOR, spread
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from result_files import Job, run_missing
from wall_page import MUTED, STYLE

from vitreous.core.files import atomic_path, write_text
from vitreous.core.memory import keep_freed_memory
from vitreous.data.faces import EXPRESSIONS, write_faces
from vitreous.recipes.facts import batch_size

#: Unseen faces of each expression, and the validation faces that choose the weights kept.
TEST, VALID = 400, 100


def draw(folder: Path, per_class: int, seed: int) -> Path:
    """Faces in train, valid and test; the test faces are the same for every seed and number."""
    for split, count, stream in (
        ("train", per_class, 1000 + 2 * seed),
        ("valid", min(VALID, per_class), 1001 + 2 * seed),
        ("test", TEST, 999),
    ):
        write_faces(folder / split, count, size=SIDE, seed=stream)
    return folder


def make_job(contender: Contender, per_class: int, minutes: float) -> Job:
    """A contender's runs on so many faces a class."""
    contender = _sized(contender, per_class)

    def run_seed(seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with tempfile.TemporaryDirectory() as folder:
            source = draw(Path(folder) / "faces", per_class, seed)
            return run(contender, source, seed, minutes)

    asked = {"per_class": per_class, "minutes": minutes, **asked_of(contender)}
    return Job(f"{contender.name}-{per_class}", asked, run_seed)


def _sized(contender: Contender, per_class: int) -> Contender:
    """A peer with batches that leave enough steps of so few pictures."""
    if not isinstance(contender, Peer):
        return contender
    size = batch_size(per_class * len(EXPRESSIONS), most=contender.batch_size)
    rate = contender.learning_rate * (size / contender.batch_size) ** 0.5  # AdamW's
    return replace(contender, batch_size=size, learning_rate=rate)


def write_page(out: Path) -> None:
    """Write `README.md` and `curve.svg` from the results that are there."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob("*.json"))]
    scores: dict[str, dict[int, list[float]]] = {}
    for one in results:
        by_number = scores.setdefault(one["title"], {})
        score = one["scores"]["kept"]["flip"]["accuracy"]
        by_number.setdefault(one["asked"]["per_class"], []).append(score)
    with matplotlib.rc_context(STYLE), atomic_path(out / "curve.svg") as staging:
        _curve(scores).savefig(staging, format="svg", metadata={"Date": None})
    write_text(out / "README.md", _page(results, scores))


def _page(results: Sequence[dict[str, Any]], scores: dict[str, dict[int, list[float]]]) -> str:
    numbers = sorted({one["asked"]["per_class"] for one in results})
    minutes = " and ".join(
        f"{value:g}" for value in sorted({one["asked"]["minutes"] for one in results})
    )
    others = [one["others_cores"] for one in results if one["others_cores"] is not None]
    shared = f"{min(others):.1f} to {max(others):.1f}" if others else "unknown"
    seeds = " ".join(map(str, sorted({one["seed"] for one in results})))
    cells = {
        title: [spread(by_number[n]) if n in by_number else "" for n in numbers]
        for title, by_number in scores.items()
    }
    lines = [
        "# Accuracy over the number of pictures",
        "",
        "`GOMP_SPINCOUNT=1000 python benchmarks/data_size.py --out DIR "
        f"--per-class {' '.join(map(str, numbers))} --minutes {minutes} --seeds {seeds}`",
        "",
        f"Drawn faces of {SIDE} px, {len(EXPRESSIONS)} classes, drawn anew for each seed; "
        f"{minutes} minutes for each run. Accuracy on {TEST} unseen faces a class, each seen as it "
        "is and mirrored, of the last weights, or of those that were better by more than one "
        f"standard error on {VALID} others a class (on as many as there are to learn from, where "
        "that is fewer). Mean and standard deviation.",
        "",
        f"Machine: {'; '.join(sorted({one['machine'] for one in results}))}. Cores that other "
        f"processes took during a run: {shared}.",
        "",
        f"| contender | {' | '.join(f'{number:,} a class' for number in numbers)} |",
        f"| --- |{' --- |' * len(numbers)}",
        *(f"| {title} | {' | '.join(row)} |" for title, row in cells.items()),
        "",
        "| contender | pictures a class | parameters | epochs | pictures a second | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title in scores:
        for number in numbers:
            runs = [r for r in results if (r["title"], r["asked"]["per_class"]) == (title, number)]
            if runs:
                means = " | ".join(
                    f"{np.mean([one[name] for one in runs]):.0f}"
                    for name in ("epochs", "pictures_per_s", "seconds")
                )
                size = f"{runs[0]['parameters'] / 1e6:.2f} M"
                lines.append(f"| {title} | {number:,} | {size} | {means} |")
    return "\n".join([*lines, "", "![Accuracy over the number of pictures](curve.svg)", ""])


def _curve(scores: dict[str, dict[int, list[float]]]) -> Figure:
    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    colors = iter(COLORS)
    for title, by_number in scores.items():
        color = OURS_COLOR if title == OURS.title else next(colors)
        numbers = sorted(by_number)
        for number in numbers:
            axes.plot([number] * len(by_number[number]), by_number[number], ".", color=color,
                      alpha=0.4)  # fmt: skip
        axes.plot(numbers, [np.mean(by_number[n]) for n in numbers], color=color, label=title)
    numbers = sorted({number for by_number in scores.values() for number in by_number})
    axes.axhline(1 / len(EXPRESSIONS), color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers], minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("training pictures a class")
    axes.set_title("Accuracy on unseen drawn faces; dotted: guessing")
    axes.legend(loc="lower right")
    return figure


def main() -> None:
    """Run what is missing, then draw what there is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does; for all contenders
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ("resnet18", "resnet18-ours")
    peers = (peer for peer in (*PEERS, *TUNINGS) if peer.name in names)
    contenders = (OURS, *peers)
    jobs = [make_job(one, n, arguments.minutes) for n in arguments.per_class for one in contenders]
    failed = run_missing(jobs, arguments.seeds, arguments.out)
    write_page(arguments.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
