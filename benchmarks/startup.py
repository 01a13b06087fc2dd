"""How long a command takes from its start to its end: `--help`, and a first prediction.

    python benchmarks/startup.py --install     # the peers, in their own environment
    python benchmarks/startup.py --out benchmarks/results/DATE_startup
    python benchmarks/startup.py --quick --json FILE

Ours is the command `vitreous`; the peers are scripts as their documentation has them, with timm's
model and transforms or transformers' pipeline, and the options that argparse gives them. All have
S/16 at 224 px with weights from a local file, and one JPEG file of 500x375 pixels. Ours and a peer
are started in turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference import draw_pictures, write_weights
from speed_pairs import HERE, PEER_PYTHON, machine, read_command, table, write_results
from training import draw

MODEL = "S/16"
LIBRARIES = ("timm", "transformers")
RUNTIMES = ("torch", "onnxruntime", "openvino")
OURS = [sys.executable, "-m", "vitreous"]
PEER = [str(PEER_PYTHON), str(HERE / "startup_peers.py")]


def seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def compare(work: str, name: str, ours: list[str], peer: list[str], pairs: int) -> dict[str, Any]:
    """Medians of seconds, after one start of each that is not counted: files are in memory then."""
    seconds(ours), seconds(peer)
    times = [(seconds(ours), seconds(peer)) for _ in range(pairs)]
    ratios = [theirs / mine for mine, theirs in times]
    row = {
        "work": work,
        "ours": round(statistics.median(mine for mine, _ in times), 3),
        "peer": round(statistics.median(theirs for _, theirs in times), 3),
        "peer_name": name,
        "unit": "s",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(f"{work} v {name}: {row['ours']:g} and {row['peer']:g} s, {row['ratio']:.2f} times "
          "as quick", flush=True)  # fmt: skip
    return row


def measure(runtimes: Sequence[str], only: str, pairs: int, folder: Path) -> list[dict[str, Any]]:
    draw_pictures(folder / "pictures", 1)
    picture = str(folder / "pictures" / "00.jpg")
    weights = str(write_weights(MODEL, folder))
    works = [
        ("--help", library, [*OURS, "--help"], [*PEER, library, "--help"]) for library in LIBRARIES
    ]
    for library in LIBRARIES:
        place = str(folder / library)
        subprocess.run([*PEER, library, place, "--make"], check=True)
        for runtime in runtimes:
            ours = [*OURS, "predict", weights, picture, "--runtime", runtime]
            peer = [*PEER, library, place, picture]
            works.append((f"first prediction on {runtime}", library, ours, peer))
    return [compare(*work, pairs) for work in works if only in work[0]]


def page(rows: Sequence[dict[str, Any]], pairs: int, quick: bool) -> str:
    how = "--quick" if quick else f"--pairs {pairs}"
    lines = [
        "# From start to end, side by side",
        "",
        f"`python benchmarks/startup.py --out DIR {how}`; medians of {pairs} alternating pairs; "
        f"{machine()}; {MODEL}, one picture, models converted before.",
        "",
        *table(rows, "seconds"),
        "",
        "![Ratios](ratios.svg)",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    titles = ["--help", *(f"first prediction on {runtime}" for runtime in RUNTIMES)]
    arguments = read_command("on torch alone", titles, titles[:2])
    runtimes = RUNTIMES[:1] if arguments.quick else RUNTIMES
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        rows = measure(runtimes, arguments.only, arguments.pairs, Path(folder))
    text = page(rows, arguments.pairs, arguments.quick)
    write_results(arguments, "startup", rows, text, draw)


if __name__ == "__main__":
    main()
