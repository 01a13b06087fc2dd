"""Two programs take turns, and the ratio of their speeds is kept.

On a shared machine a speed means little and a ratio of neighbours in time much more: the workers
warm up one behind the other, and then take turns of about a second each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitreous.core.files import write_json, write_text
from vitreous.core.machine import processor
from vitreous.training.device import choose_device

HERE = Path(__file__).parent
#: The peers' own environment.
PEERS = HERE / ".peers"
PEER_PYTHON = Path(os.environ.get("PEER_PYTHON", PEERS / "bin" / "python"))

#: The bytes of freed memory that a worker keeps.
KEPT = str(1 << 30)
#: About how long a turn takes, in seconds.
TURN_S = 1.0


@dataclass(frozen=True)
class Worker:
    """A program that takes steps in turns (see `speed_turns`).

    Args:
        script: beside this file.
        settings: what it should do, passed as JSON.
        is_peer: whether it runs in the peers' environment.
    """

    script: str
    settings: Mapping[str, Any]
    is_peer: bool

    def start(self) -> subprocess.Popen[str]:
        python = str(PEER_PYTHON) if self.is_peer else sys.executable
        environment = dict(os.environ)
        if not self.is_peer:
            # What the command `vitreous` sets for itself; peers run as they come.
            environment["GOMP_SPINCOUNT"] = "1000"
        if not self.is_peer or self.settings.get("best"):
            # The command does so too (`core.memory`); of peers at their best PyTorch's tuning guide
            # asks as much, by another allocator.
            environment |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), KEPT)
        with self.errors.open("a") as errors:  # of two of one script, neither is lost
            return subprocess.Popen(
                [python, str(HERE / self.script), json.dumps(dict(self.settings))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    @property
    def errors(self) -> Path:
        """What it says where something is wrong."""
        return Path(tempfile.gettempdir()) / f"{Path(self.script).stem}-{os.getpid()}.log"


class WorkerEndedError(Exception):
    """A worker ended before its turns were over; its last words say why."""


@contextmanager
def left_out_if_ended(what: str, left_out: list[str]) -> Iterator[None]:
    """Go on with the next row where a worker of this one ends, as for want of memory.

    Args:
        what: the row.
        left_out: gets it then.
    """
    try:
        yield
    except WorkerEndedError as error:
        print(f"{what} is left out: {error}", flush=True)
        left_out.append(what)


#: What surrounds a worker while it starts and while it has its turn.
Condition = Callable[[], AbstractContextManager[object]]


def take_turns(
    ours: Worker,
    peer: Worker,
    pairs: int,
    conditions: tuple[Condition, Condition] = (nullcontext, nullcontext),
) -> tuple[list[float], list[float]]:
    """Speeds of both, turn by turn, in pictures a second; a condition for each of them."""
    speeds: tuple[list[float], list[float]] = ([], [])
    both = []
    try:
        steps = []
        # One behind the other, so that neither is disturbed while it compiles.
        for worker, condition in zip((ours, peer), conditions, strict=True):
            with condition():
                process = worker.start()
                both.append(process)
                warm = _read(process, worker)
            steps.append(max(1, round(TURN_S / warm["last_s"])))
        for _ in range(pairs):
            for kept, process, worker, count, condition in zip(
                speeds, both, (ours, peer), steps, conditions, strict=True
            ):
                assert process.stdin is not None
                with condition():
                    process.stdin.write(f"{count}\n")
                    process.stdin.flush()
                    kept.append(_read(process, worker)["pictures_per_s"])
    finally:
        for process in both:
            process.kill()
            process.wait()
    return speeds


def _read(process: subprocess.Popen[str], worker: Worker) -> dict[str, float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        said = worker.errors.read_text()[-2000:]
        raise WorkerEndedError(f"{worker.script} {dict(worker.settings)} ended:\n{said}")
    return json.loads(line)


def row(work: str, peer_name: str, speeds: tuple[list[float], list[float]]) -> dict[str, Any]:
    """A row of the results: medians of both and of the pairs' ratios; above 1 ours is faster."""
    ours, peer = speeds
    ratios = [one / other for one, other in zip(ours, peer, strict=True)]
    return {
        "work": work,
        "ours": round(statistics.median(ours), 2),
        "peer": round(statistics.median(peer), 2),
        "peer_name": peer_name,
        "unit": "pictures/s",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def install_peers() -> None:
    """Make the peers' environment, with the PyTorch version of this one."""
    venv.create(PEERS, with_pip=True, clear=True)
    pip = [str(PEER_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    version = torch.__version__.split("+")[0]
    subprocess.run(
        [*pip, f"torch=={version}", "--requirement", str(HERE / "peers.txt")], check=True
    )
    # Its wheel may want another build of PyTorch; the peers need it for imports alone.
    subprocess.run([*pip, "--no-deps", "torchvision", "timm"], check=True)


def gemm_peak(dtype: torch.dtype = torch.bfloat16) -> float:
    """The most that matrix products of a type reach on this machine, in GFLOP/s."""
    device, best = choose_device("auto"), 0.0
    sizes = [(2048, 2048, 2048), (8192, 768, 768), (2048, 384, 1536)]
    if device.type == "cuda":
        sizes = [(8192, 8192, 8192), (32768, 4096, 4096), (50432, 768, 3072)]
    for rows, inner, columns in sizes:
        a = torch.randn(rows, inner, device=device).to(dtype)
        b = torch.randn(inner, columns, device=device).to(dtype)
        for _ in range(12):
            started = time.perf_counter()
            for _ in range(4):
                a @ b
            wait_for(device)()
            seconds = (time.perf_counter() - started) / 4
            best = max(best, 2 * rows * inner * columns / seconds / 1e9)
    return best


def wait_for(device: torch.device) -> Callable[[], object]:
    """What waits until the device has done its work; a CPU has when a call returns."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def machine() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def table(rows: Sequence[Mapping[str, Any]], unit: str = "pictures a second") -> list[str]:
    """The rows as a Markdown table."""
    return [
        f"| work | ours, {unit} | peer | {unit} | ratio | lowest to highest |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one['work']} | {one['ours']:g} | {one['peer_name']} | {one['peer']:g} | "
            f"**{one['ratio']:.2f}** | {min(one['ratios']):.2f} to {max(one['ratios']):.2f} |"
            for one in rows
        ),
    ]


def left_out_lines(left_out: Sequence[str]) -> list[str]:
    """What a page says of rows whose worker ended; nothing where there are none."""
    if not left_out:
        return []
    return [f"Left out, because a worker ended: {'; '.join(left_out)}.", ""]


def read_command(
    quick: str, titles: Sequence[str], quick_titles: Sequence[str] | None = None
) -> argparse.Namespace:
    """The command line that all speed benchmarks share; installs the peers where that is asked.

    Args:
        quick: what --quick leaves of the works, for --help.
        titles: of all works.
        quick_titles: of those that --quick leaves, where it leaves some out.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--install", action="store_true", help="install the peers first")
    parser.add_argument("--quick", action="store_true", help=f"{quick}, three pairs each")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", default="", help="works whose title contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--out", type=Path, help="folder for table, rows and picture")
    arguments = parser.parse_args()
    titles = quick_titles if arguments.quick and quick_titles is not None else titles
    if not any(arguments.only in title for title in titles):
        parser.error(f"no work whose title contains {arguments.only!r}: {', '.join(titles)}")
    if arguments.install:
        install_peers()
    if not (arguments.quick or arguments.json or arguments.out):
        raise SystemExit
    if not PEER_PYTHON.exists():
        parser.error(f"the peers are missing: python {sys.argv[0]} --install")
    if arguments.quick:
        arguments.pairs = 3
    return arguments


def write_results(
    arguments: argparse.Namespace,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    page: str,
    draw: Callable[[Any, Path], None] | None = None,
) -> None:
    """Write what was asked for: the rows as JSON, and a folder with table, rows and picture."""
    if arguments.json:
        write_json(arguments.json, rows)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / f"{name}.json", rows)
        write_text(arguments.out / "README.md", page)
        if draw:
            draw(rows, arguments.out / "ratios.svg")
