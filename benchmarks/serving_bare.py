"""A worker of `serving.py`: the server's model in a loop over the same bytes, without a server.

Reads lines of "threads seconds" and answers each with a line of JSON.
"""

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from vitreous.core.console import Console
from vitreous.server.model import Served, Wanted, open_served
from vitreous.server.settings import Settings
from vitreous.serving.weights import Told


def main() -> None:
    weights, labels, preprocess, pictures, different, runtime, workers = sys.argv[1:]
    told = Told(Path(labels) if labels else None, (preprocess,) if preprocess else ())
    wanted = Wanted(weights, told, runtime, workers=int(workers))  # pyright: ignore[reportArgumentType]
    served = open_served(wanted, Console(quiet=True))
    served.warm_up()
    files = [path.read_bytes() for path in sorted(Path(pictures).iterdir())[: int(different)]]
    for line in sys.stdin:
        threads, seconds = line.split()
        print(json.dumps(measure(served, files, int(threads), float(seconds))), flush=True)


def measure(served: Served, files: list[bytes], count: int, seconds: float) -> dict[str, Any]:
    """So many threads, each on pictures of its own."""
    most, times = Settings().max_pixels, [[] for _ in range(count)]
    until = time.perf_counter() + seconds

    def work(number: int) -> None:
        torch.set_num_threads(1)
        at = number * len(files) // count
        while time.perf_counter() < until:
            at += 1
            began = time.perf_counter()
            fitted = served.fitted(files[at % len(files)], most)
            served.answers(number, ["picture"], [fitted], None)
            times[number].append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    all_ = [one for own in times for one in own]
    return {
        "rate": round(len(all_) / took, 2),
        "p50_ms": round(1e3 * statistics.median(all_), 2),
        "cpu_ms": round(1e3 * spent / len(all_), 2),
    }


if __name__ == "__main__":
    main()
