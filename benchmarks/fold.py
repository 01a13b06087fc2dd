"""The lecture's wide heads, folded and not: seconds of a forward pass, side by side.

    python benchmarks/fold.py --out benchmarks/results/DATE_fold

Both models have the same weights and take turns; medians, and the largest difference of a
probability.
"""

import argparse
import copy
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from vitreous.core.files import write_json, write_text
from vitreous.model.fold import fold
from vitreous.model.presets import preset
from vitreous.model.vit import ViT


def measure(name: str, image_size: int, batch: int, pairs: int) -> dict[str, object]:
    torch.manual_seed(0)
    model = ViT(preset(name, image_size=(image_size, image_size))).eval()
    folded = fold(copy.deepcopy(model))
    pictures = torch.randn(batch, 3, image_size, image_size)
    times: dict[str, list[float]] = {"plain": [], "folded": []}
    with torch.inference_mode():
        off = (model(pictures).softmax(1) - folded(pictures).softmax(1)).abs().max().item()
        for _ in range(pairs):
            for which, network in (("plain", model), ("folded", folded)):
                started = time.perf_counter()
                network(pictures)
                times[which].append(time.perf_counter() - started)
    plain, fast = (statistics.median(times[which]) for which in ("plain", "folded"))
    return {
        "model": name,
        "image_size": image_size,
        "batch": batch,
        "plain_ms": round(1e3 * plain, 1),
        "folded_ms": round(1e3 * fast, 1),
        "ratio": round(plain / fast, 2),
        "largest_difference": off,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cases = [("lecture-small", 96, 1), ("lecture-small", 96, 8), ("lecture-small", 256, 1),
             ("lecture", 256, 1), ("lecture", 256, 4)]  # fmt: skip
    rows = [measure(*case, arguments.pairs) for case in cases]
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    machine = f"{platform.machine()}, {threads}, torch {torch.__version__}, float32"
    write_json(arguments.out / "fold.json", {"machine": machine, "rows": rows})
    lines = [
        "# Wide heads, folded",
        "",
        f"`python benchmarks/fold.py --out DIR`; medians of {arguments.pairs} alternating pairs; "
        f"{machine}.",
        "",
        "| model | px | batch | plain | folded | ratio | largest difference of a probability |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['model']} | {row['image_size']} | {row['batch']} | {row['plain_ms']} ms | "
            f"{row['folded_ms']} ms | {row['ratio']} | {row['largest_difference']:.0e} |"
            for row in rows
        ),
    ]
    write_text(arguments.out / "README.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
