"""A real network in fewer bits: accuracy, time and size beside float32, all by ONNX Runtime.

    python benchmarks/quantised.py CHECKPOINT PICTURES --synsets FILE --preprocess half \
        --out benchmarks/results/DATE_quantised

PICTURES are named WNID_name, and `--synsets FILE` says the order of the classes. No picture that is
tested on is used for anything else: which channels are computed apart is seen on drawn faces.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_files import OtherWork, machine

from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.core.rng import numpy_stream
from vitreous.data.cache import decode_fitted
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.folder import list_pictures
from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.evaluation.comparison import compare_answers
from vitreous.exporting.libraries import import_onnxruntime, open_session
from vitreous.exporting.onnx import silence, write_onnx
from vitreous.exporting.precision import reduce_precision
from vitreous.model.fold import fold
from vitreous.serving.weights import find_classifier, told_by
from vitreous.training.classifier import load_classifier

HEAD = """\
# Fewer bits

`python benchmarks/quantised.py CHECKPOINT PICTURES --synsets FILE --preprocess WORD --pairs {pairs}
--out DIR`.
Loss is in points of accuracy, with its paired 95 % interval. Times are of the network alone, one
picture, as ratios to float32: of medians over {pairs} turns, all files in each. "CPU" is the time
that the process computed, which neighbours don't prolong by making it wait; they kept {others}
cores busy meanwhile. "ONNX Runtime's own" is `quantize_dynamic` with weights by channel.
"""


def quantise_plainly(whole: Path, path: Path) -> None:
    import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with silence():
        quantize_dynamic(
            whole,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def times(files: dict[str, Path], threads: int, image: np.ndarray, pairs: int) -> dict[str, Any]:
    """Median milliseconds by the clock and of the processor, and the least by the clock."""
    sessions = {name: open_session(path, threads) for name, path in files.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in files}
    for turn in range(pairs + 1):
        for name in list(sessions)[:: -1 if turn % 2 else 1]:
            session = sessions[name]
            session.run(None, {"images": image})  # the caches are its own again
            clock, busy = time.perf_counter(), time.process_time()
            session.run(None, {"images": image})
            took = 1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - busy)
            if turn:
                found[name].append(took)
    return {
        name: {"clock_ms": statistics.median(one for one, _ in rows),
               "cpu_ms": statistics.median(one for _, one in rows),
               "least_clock_ms": min(one for one, _ in rows)}
        for name, rows in found.items()
    }  # fmt: skip


def ask(path: Path, images: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """Logits of each picture alone, as a sealed file is asked."""
    session = open_session(path, 1)
    return np.concatenate([session.run(None, {"images": images(at)})[0] for at in range(count)])


def drawn(preprocess: Preprocess) -> list[np.ndarray]:
    rng = numpy_stream(0, "export")
    faces = [draw_face(name, max(preprocess.image_size), rng) for name in EXPRESSIONS]
    return [
        normalise(torch.from_numpy(fit(face, preprocess))[None], preprocess).numpy()
        for face in faces
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--synsets", type=Path, required=True)
    parser.add_argument("--preprocess", action="append", default=[])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = told_by(None, arguments.preprocess, None)
    classifier = load_classifier(find_classifier(arguments.checkpoint, told, Console(quiet=True)))
    order = [line.split()[0] for line in arguments.synsets.read_text().splitlines()]
    paths = list_pictures([arguments.pictures])
    labels = [order.index(path.name.split("_")[0]) for path in paths]
    decoded = list(decode_fitted(paths, classifier.preprocess, None, fingerprints=False))

    def images(at: int) -> np.ndarray:
        pixels = torch.from_numpy(decoded[at].pixels)[None]
        return normalise(pixels, classifier.preprocess).numpy()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = ["float32", "int8", "int8-weights", "fp16", "ONNX Runtime's own"]
        files = {name: folder / f"{at}.onnx" for at, name in enumerate(names)}
        write_onnx(fold(classifier.model), files["float32"])
        for name in ("int8", "int8-weights", "fp16"):
            reduce_precision(files["float32"], files[name], name, drawn(classifier.preprocess))
        quantise_plainly(files["float32"], files["ONNX Runtime's own"])
        others = OtherWork()
        took = {count: times(files, count, images(0), arguments.pairs) for count in (1, 2)}
        busy = others.cores()
        answers = {name: ask(path, images, len(paths)).argmax(1) for name, path in files.items()}
        sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
    truth = list(map(str, labels))
    rows = {}
    for name in names:
        both = tuple(list(map(str, answers[one].tolist())) for one in ("float32", name))
        rows[name] = {
            "comparison": compare_answers((both[0], both[1]), truth).to_json(),
            "same_label": int((answers[name] == answers["float32"]).sum()),
            "megabytes": sizes[name],
            "times": {str(count): one[name] for count, one in took.items()},
        }
    found = {"machine": f"{machine('onnxruntime')}, {os.cpu_count()} cores", "others_cores": busy,
             "pairs": arguments.pairs, "rows": rows}  # fmt: skip
    write_json(arguments.out / "quantised.json", found)
    text = page(found)
    write_text(arguments.out / "README.md", text)
    print(text)


def page(found: dict[str, Any]) -> str:
    lines = [
        HEAD.format(pairs=found["pairs"], others=found["others_cores"]),
        f"{found['machine']}.\n",
        "| | accuracy | points lost | same label | 1 thread, CPU | 1 thread | 2 threads | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    whole = found["rows"]["float32"]
    for name, row in found["rows"].items():
        comparison = row["comparison"]
        gain = comparison["gain"]
        lost = (
            f"{-100 * gain['value']:+.1f} ({-100 * gain['high']:+.1f} to {-100 * gain['low']:+.1f})"
        )

        def ratio(threads: str, key: str, row: dict[str, Any] = row) -> str:
            return f"{whole['times'][threads][key] / row['times'][threads][key]:.2f}"

        lines.append(
            f"| {name} | {comparison['accuracy']['b']['value']:.3f} | "
            f"{lost if name != 'float32' else ''} | {row['same_label']} of {comparison['n']} | "
            f"{ratio('1', 'cpu_ms')} | {ratio('1', 'clock_ms')} | {ratio('2', 'clock_ms')} | "
            f"{row['megabytes']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
