"""What serving costs beside the model itself, what happens at twice the load, and how it ends.

    python benchmarks/serving.py --weights TI16.safetensors --labels NAMES.txt --pictures FOLDER \
        --out benchmarks/results/DATE_serving
    python benchmarks/serving.py ... --requests 100000      # the whole test of memory
    python benchmarks/serving.py ... --peers pipeline litserve

The bare model is the server's own `Predictor` in a loop over the same bytes, reading them included,
by as many threads as the server has workers. Both are measured in turns, with the clients on the
same cores; processor seconds a picture are given too, which a busy neighbour hardly changes. Where
others kept the machine busy the table says so, and its times mean little.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from result_files import OtherWork, machine
from serving_load import HOST, Seen, arrive, form_request, keep_busy, median, picture_request

from vitreous.core.files import write_json, write_text

HERE = Path(__file__).parent
#: How long a server may take to open its model.
_START_S = 300.0


def main() -> int:
    words = _words()
    files = sorted(Path(words.pictures).iterdir())[: words.different]
    pictures = [file.read_bytes() for file in files]
    requests = [picture_request(picture) for picture in pictures]
    other = OtherWork()
    results: dict[str, Any] = {"workers": words.workers, "pictures": len(files)}
    with tempfile.TemporaryDirectory() as folder:
        for runtime in words.runtimes:
            print(f"== {runtime}", flush=True)
            results[runtime] = measure(words, runtime, requests)
        if words.peers:
            checkpoint = Path(folder) / "checkpoint"
            _vitreous("export", words, "--to", "transformers", "--out", str(checkpoint))
            for peer in words.peers:
                print(f"== {peer}", flush=True)
                results[peer] = measure_peer(words, peer, checkpoint, pictures)
    libraries = {"pipeline": "transformers", "litserve": "litserve"}
    peers = [libraries[peer] for peer in words.peers]
    results["machine"] = machine("fastapi", "uvicorn", "onnxruntime", *peers)
    results["others_cores"] = other.cores()
    results["command"] = " ".join(sys.argv)
    if words.out:
        out = Path(words.out)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "results.json", results)
        write_text(out / "README.md", page(results, words))
    print(json.dumps(results, indent=1))
    return 0


def measure(words: argparse.Namespace, runtime: str, requests: list[bytes]) -> dict[str, Any]:
    """One runtime: bare and served in turns, then too much, then for long, then its end."""
    rounds: list[dict[str, Any]] = []
    connections = 2 * words.workers
    with _bare(words, runtime) as bare, _server(words, runtime) as (port, server):
        keep_busy(port, requests, connections, count=4 * connections)
        bare(words.workers, 1.0)
        for _ in range(words.rounds):
            alone, together = bare(1, words.seconds), bare(words.workers, words.seconds)
            one = keep_busy(port, requests, 1, words.seconds)
            before = _cpu_s(server.pid)
            all_ = keep_busy(port, requests, connections, words.seconds)
            spent = _cpu_s(server.pid) - before
            rounds.append(
                {"bare_one": alone, "bare": together, "one": one.to_json(), "all": all_.to_json(),
                 "cpu_ms": round(1e3 * spent / max(1, len(all_.seconds)), 2)}
            )  # fmt: skip
            print(json.dumps(rounds[-1]), flush=True)
        capacity = median([each["all"]["rate"] for each in rounds])
        twice = arrive(port, requests, 2 * capacity, 2 * words.seconds)
        unloaded = median([each["one"]["p99_ms"] for each in rounds])
        memory = _memory(port, server.pid, requests, connections, words.requests)
        ending = _end(port, server, requests, connections)
    return {
        "rounds": rounds,
        "throughput_of_bare": median(
            [each["all"]["rate"] / each["bare"]["rate"] for each in rounds]
        ),
        "cpu_of_bare": median([each["bare"]["cpu_ms"] / each["cpu_ms"] for each in rounds]),
        "p50_over_bare_ms": median(
            [each["one"]["p50_ms"] - each["bare_one"]["p50_ms"] for each in rounds]
        ),
        "capacity": capacity,
        "twice": {
            **twice.to_json(), "p99_of_unloaded": round(twice.quantile_ms(0.99) / unloaded, 2)
        },
        "memory": memory,
        "ending": ending,
    }  # fmt: skip


def measure_peer(
    words: argparse.Namespace, peer: str, checkpoint: Path, pictures: list[bytes]
) -> dict[str, Any]:
    """Throughput and latency alone: they have no limits to test."""
    make = form_request if peer == "litserve" else picture_request
    requests = [make(picture) for picture in pictures]
    port = _free_port()
    command = [sys.executable, str(HERE / f"serving_{peer}.py"), str(checkpoint), str(port)]
    server = subprocess.Popen(command, start_new_session=True)
    try:
        _wait_for(port, server)
        keep_busy(port, requests, 2, count=8)
        one = keep_busy(port, requests, 1, words.rounds * words.seconds)
        all_ = keep_busy(port, requests, 2 * words.workers, words.rounds * words.seconds)
        return {"one": one.to_json(), "all": all_.to_json()}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _memory(
    port: int, pid: int, requests: list[bytes], connections: int, count: int
) -> dict[str, Any]:
    """Resident megabytes after a tenth of the requests, and after all."""
    keep_busy(port, requests, connections, count=count // 10)
    before = _resident_mb(pid)
    seen = keep_busy(port, requests, connections, count=count - count // 10)
    return {"requests": count, "before_mb": before, "after_mb": _resident_mb(pid),
            "statuses": dict(seen.statuses)}  # fmt: skip


def _end(
    port: int, server: "subprocess.Popen[bytes]", requests: list[bytes], connections: int
) -> dict[str, Any]:
    """SIGTERM while every connection asks without a pause."""
    threading.Timer(1.0, server.send_signal, (signal.SIGTERM,)).start()
    seen: Seen = keep_busy(port, requests, connections)
    return {"statuses": dict(seen.statuses), "exit_status": server.wait()}


@contextmanager
def _server(
    words: argparse.Namespace, runtime: str
) -> "Iterator[tuple[int, subprocess.Popen[bytes]]]":
    port = _free_port()
    options = ["--port", str(port), "--workers", str(words.workers), "--runtime", runtime]
    server = subprocess.Popen(_command("serve", words, *options, "--quiet"))
    try:
        _wait_for(port, server)
        yield port, server
    finally:
        server.kill()
        server.wait()


@contextmanager
def _bare(words: argparse.Namespace, runtime: str) -> Iterator[Any]:
    """The model alone, in a process of its own that sleeps while the server is measured."""
    command = [sys.executable, str(HERE / "serving_bare.py"), words.weights, words.labels or "",
               words.preprocess or "", words.pictures, str(words.different), runtime,
               str(words.workers)]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    sent, said = process.stdin, process.stdout

    def ask(threads: int, seconds: float) -> dict[str, float]:
        print(threads, seconds, file=sent, flush=True)
        return json.loads(said.readline())

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def _command(what: str, words: argparse.Namespace, *options: str) -> list[str]:
    told = ["--labels", words.labels] if words.labels else []
    told += ["--preprocess", words.preprocess] if words.preprocess else []
    return [sys.executable, "-m", "vitreous", what, words.weights, *told, *options]


def _vitreous(what: str, words: argparse.Namespace, *options: str) -> None:
    subprocess.run(_command(what, words, *options), check=True, stdout=subprocess.DEVNULL)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection((HOST, port), 1.0).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"no server on port {port}: it ended, or took {_START_S:.0f} s")


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process so far (proc(5))."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def page(results: dict[str, Any], words: argparse.Namespace) -> str:
    """The results for people."""
    rows = [
        "| | pictures a second | of the bare model | processor time of it | p50, p99 alone (ms) |"
        " p50 over bare (ms) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in (*words.runtimes, *words.peers):
        one = results[name]
        if "rounds" in one:
            alone = [each["one"] for each in one["rounds"]]
            p50, p99 = (median([each[key] for each in alone]) for key in ("p50_ms", "p99_ms"))
            rows.append(
                f"| vitreous, {name} | {one['capacity']:.1f} | {one['throughput_of_bare']:.2f} | "
                f"{1 / one['cpu_of_bare']:.2f} | {p50:.1f}, {p99:.1f} | "
                f"{one['p50_over_bare_ms']:+.2f} |"
            )
        else:
            alone = one["one"]
            rows.append(
                f"| {name} | {one['all']['rate']:.1f} | | | {alone['p50_ms']:.1f}, "
                f"{alone['p99_ms']:.1f} | |"
            )
    told = []
    for name in words.runtimes:
        one = results[name]
        told.append(
            f"- {name}, twice the load: {one['twice']['statuses']}, p99 of the accepted "
            f"{one['twice']['p99_of_unloaded']} times that of one client alone. "
            f"Memory over {one['memory']['requests']:,} requests: {one['memory']['before_mb']} MB "
            f"after a tenth, {one['memory']['after_mb']} MB after all. SIGTERM under load: "
            f"{one['ending']['statuses']}, exit status {one['ending']['exit_status']}."
        )
    return "\n".join(
        ["# Serving", "", f"`python {results['command']}`", "", results["machine"] + ".",
         f"Others kept {results['others_cores']} cores busy meanwhile (clients and servers of this "
         "benchmark that were still at work count as others).",
         "", *rows, "", *told, ""]
    )  # fmt: skip


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--preprocess")
    parser.add_argument("--pictures", required=True, help="folder of JPEG files")
    parser.add_argument("--different", type=int, default=100, help="pictures that are sent")
    parser.add_argument("--runtimes", nargs="+", default=["torch", "onnxruntime"])
    parser.add_argument("--peers", nargs="*", default=[], choices=["pipeline", "litserve"])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each part of a round")
    parser.add_argument("--requests", type=int, default=2000, help="of the test of memory")
    parser.add_argument("--out")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
