"""Shards against the cache, and a folder of a million pictures.

    python benchmarks/streaming.py --out benchmarks/results/DATE_streaming
    python benchmarks/streaming.py --quick --json FILE
    python benchmarks/streaming.py --folder-entries 1000000 --json FILE

All pictures are drawn: faces as 48 px PNGs, and JPEGs of 500x375. Ours and the peer are both
vitreous: training steps on pictures streamed from shards, or from shards that the cache has room
for, beside the same steps on pictures from a folder in the cache, as they are from the second epoch
on. The entries of the folder are PNGs of 2x2 pixels, no two alike, in ten classes; "ready" is
listed, hashed, decoded and divided.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feeding import draw_photos
from feeding_ours import prepare
from speed_pairs import Worker, machine, row, table, take_turns

from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.data.faces import write_faces
from vitreous.data.packing import pack

#: Less than any of the pictures below take, so that all are streamed.
_NO_ROOM_GB = 1e-6

_OPEN = """
import json, resource, sys, time
from pathlib import Path
began, used = time.time(), time.process_time()
import torch
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_dataset
from vitreous.data.folder import list_labelled
from vitreous.data.preprocess import Preprocess
config = DataConfig(sys.argv[1], cache_dir=sys.argv[2])
listing = list_labelled(Path(sys.argv[1]))
listed = time.time()
dataset = open_dataset(listing, config, Preprocess(image_size=(2, 2)), 0)
dataset.split_table()
print(json.dumps({
    "pictures": len(dataset.splits),
    "listed_s": round(listed - began, 1),
    "ready_s": round(time.time() - began, 1),
    "processor_s": round(time.process_time() - used, 1),
    "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
}))
"""


def compare(folder: Path, pairs: int, quick: bool) -> list[dict[str, Any]]:
    """Training steps, streamed or not, in turns with those on cached pictures."""
    write_faces(folder / "faces", 200 if quick else 1000, size=48, seed=0)
    draw_photos(folder / "photos", 60 if quick else 300, (500, 375))
    rows = []
    for name, title, side, shard_mb in (
        ("faces", "48 px PNGs", 48, 1.0),
        ("photos", "500x375 JPEGs at 96 px", 96, 8.0),
    ):
        shards = folder / f"{name}-shards"
        pack(folder / name, shards, shard_mb=shard_mb, console=Console(quiet=True))
        cached = {"what": "training", "pictures": str(folder / name), "side": side}
        for what, limit in (("streamed", _NO_ROOM_GB), ("shards in the cache", 20.0)):
            settings = {**cached, "pictures": str(shards), "max_cache_gb": limit}
            rows.append({"work": f"{title}, {what}"})
            if pairs:
                workers = (Worker("feeding_ours.py", one, False) for one in (settings, cached))
                speeds = take_turns(*workers, pairs)  # pyright: ignore[reportCallIssue]
                rows[-1] = row(rows[-1]["work"], "folder in the cache", speeds)
            rows[-1]["processor"] = processor_ratio(settings, cached)
            print(rows[-1], flush=True)
    return rows


def processor_ratio(ours: dict[str, Any], peer: dict[str, Any], steps: int = 12) -> float:
    """How much processor time a step on the peer's pictures takes, as a share of one on ours.

    That is the ratio of speeds where training fills all cores, and neighbours change it little.
    """
    both = [prepare(settings)[0] for settings in (ours, peer)]
    used = [0.0, 0.0]
    for round_ in range(3):
        for at, step in enumerate(both):
            began = time.process_time()
            for _ in range(steps):
                step()
            used[at] += (time.process_time() - began) if round_ else 0.0
    return round(used[1] / used[0], 3)


def draw_many(folder: Path, count: int) -> None:
    """PNGs of 2x2 pixels, no two alike, in ten classes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
    for label in range(10):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        first, second = number.to_bytes(6, "big"), (number * 2654435761 % 2**48).to_bytes(6, "big")
        pixels = zlib.compress(b"\0" + first + b"\0" + second, 1)
        path = folder / f"class{number % 10}" / f"{number:07}.png"
        path.write_bytes(start + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def open_many(folder: Path, count: int) -> dict[str, Any]:
    """Seconds and memory until a folder of so many pictures is ready, in a process of its own."""
    draw_many(folder / "many", count)
    command = [sys.executable, "-c", _OPEN, str(folder / "many"), str(folder / "cache")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def page(rows: Sequence[dict[str, Any]], many: dict[str, Any], pairs: int, quick: bool) -> str:
    how = "--quick" if quick else f"--pairs {pairs} --folder-entries {many['pictures']}"
    lines = [
        "# Shards, and a folder of very many pictures",
        "",
        f"`python benchmarks/streaming.py --out DIR {how}`; {machine()}.",
        "",
        *(table(rows) if pairs else ()),
        "",
        "| work | processor time of a step: folder in the cache / this |",
        "| --- | --- |",
        *(f"| {one['work']} | {one['processor']:.2f} |" for one in rows),
        "",
        "| pictures in the folder | listed, s | ready, s | processor time, s | peak memory, MB |",
        "| --- | --- | --- | --- | --- |",
        f"| {many['pictures']:,} | {many['listed_s']} | {many['ready_s']} | "
        f"{many['processor_s']} | {many['peak_memory_mb']:,} |",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer pictures, three pairs")
    parser.add_argument("--pairs", type=int, default=7, help="0: processor time alone")
    parser.add_argument("--folder-entries", type=int, default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--out", type=Path, help="folder for page and figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.folder_entries = 3, 10_000
    with tempfile.TemporaryDirectory() as name:
        rows = compare(Path(name), arguments.pairs, arguments.quick)
        many = open_many(Path(name), arguments.folder_entries)
    found = {"rows": rows, "many": many}
    if arguments.json:
        write_json(arguments.json, found)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "streaming.json", found)
        text = page(rows, many, arguments.pairs, arguments.quick)
        write_text(arguments.out / "README.md", text)


if __name__ == "__main__":
    main()
