"""A sealed file against the model it was made of: other languages, other decoders, and its cost.

    python benchmarks/export.py CHECKPOINT PICTURES --labels FILE --preprocess half \
        --node node_modules --out benchmarks/results/DATE_export

PICTURES are photographs as JPEG. Without ``--node`` (a folder into which ``npm install
onnxruntime-node onnxruntime-web sharp jpeg-js`` has been run) the rows of Node.js are left out.
Needs onnx, onnxscript and onnxruntime.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import vitreous
from vitreous.core.console import Console
from vitreous.core.files import write_json, write_text
from vitreous.core.machine import processor
from vitreous.data.decode import read_picture
from vitreous.data.folder import list_pictures
from vitreous.data.preprocess import Preprocess, fit, normalise
from vitreous.evaluation.inference import TorchNetwork, predict_pixels
from vitreous.exporting.libraries import open_session
from vitreous.exporting.onnx import write_onnx
from vitreous.exporting.sealed_file import SealedFile, open_sealed
from vitreous.model.fold import fold
from vitreous.serving.weights import find_classifier, told_by
from vitreous.training.classifier import Classifier, load_classifier

QUIET = Console(quiet=True)
#: Longest side of an array that a photograph is scaled to.
LONGEST = 1500
ORIENTATION = 0x0112
#: Sizes whose time is measured: what a photograph has on the web, and what a camera makes.
TIMED = ((375, 500), (1200, 1600), (3000, 4000))

Answers = Callable[[Sequence[np.ndarray]], np.ndarray]
Row = dict[str, float | int | str]


def sizes(count: int) -> list[tuple[int, int]]:
    """Heights and widths from 1 pixel on, as many small as large ones, and some very long."""
    rng = np.random.default_rng(0)
    found = np.exp(rng.uniform(0, np.log(LONGEST), (count, 2))).astype(int).clip(1)
    found[::50] = (1, 20_000)
    found[25::50] = (9_000, 3)
    return [(int(height), int(width)) for height, width in found]


def rescaled(files: Sequence[Path]) -> list[np.ndarray]:
    arrays = []
    for file, (height, width) in zip(files, sizes(len(files)), strict=True):
        with Image.open(file) as image:
            arrays.append(np.array(image.convert("RGB").resize((width, height), Image.BICUBIC)))
    return arrays


def by_run(classifier: Classifier, arrays: Sequence[np.ndarray]) -> np.ndarray:
    network, preprocess = TorchNetwork(classifier.model), classifier.preprocess
    pixels = (torch.from_numpy(fit(array, preprocess))[None] for array in arrays)
    return np.concatenate([predict_pixels(network, one, preprocess) for one in pixels])


def by_file(file: SealedFile, arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([file.answer(array)[0] for array in arrays])


def by_node(words: Sequence[str], modules: Path) -> np.ndarray:
    script = Path(__file__).with_name("export_node.js")
    environment = os.environ | {"NODE_MODULES": str(modules)}
    done = subprocess.run(
        ["node", str(script), *words], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return np.array([json.loads(line) for line in done.stdout.splitlines()], np.float32)


def in_node(
    runtime: str, sealed: Path, arrays: Sequence[np.ndarray], modules: Path, folder: Path
) -> np.ndarray:
    index, pixels = folder / "index.json", folder / "pixels.bin"
    index.write_text(json.dumps([array.shape[:2] for array in arrays]))
    with pixels.open("wb") as file:
        for array in arrays:
            file.write(array.tobytes())
    return by_node([runtime, str(sealed), "arrays", str(index), str(pixels)], modules)


def write_of_every_mode(files: Sequence[Path], folder: Path) -> list[Path]:
    """Each photograph as another kind of file, turned by EXIF where the kind has that."""
    kinds = [
        ("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "png"), ("L", "png"),
        ("RGBA", "png"), ("LA", "png"), ("P", "png"), ("I;16", "png"), ("1", "png"),
        ("P", "gif"), ("RGB", "webp"), ("RGBA", "webp"), ("RGB", "bmp"), ("CMYK", "tif"),
    ]  # fmt: skip
    written = []
    for at, file in enumerate(files):
        mode, ending = kinds[at % len(kinds)]
        path = folder / f"{at:04}-{mode.replace(';', '')}.{ending}"
        with Image.open(file) as image:
            image = _as_mode(image.convert("RGB"), mode)
            exif = Image.Exif()
            exif[ORIENTATION] = at % 8 + 1
            turned = {"exif": exif} if ending in ("jpg", "png", "webp") else {}
            image.save(path, **turned)
        written.append(path)
    return written


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image.convert(mode)


def with_pillow(file: Path) -> np.ndarray:
    """As docs/guide/shipping.md reads a picture, without vitreous."""
    with Image.open(file) as image:
        if image.mode.startswith("I;16"):
            high = (np.asarray(ImageOps.exif_transpose(image)) >> 8).astype(np.uint8)
            return np.repeat(high[..., None], 3, axis=2)
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            image = Image.alpha_composite(white, layer)
        return np.array(image.convert("RGB"))


def compared(wanted: np.ndarray, found: np.ndarray) -> Row:
    apart = np.abs(wanted - found).max(1)
    return {
        "pictures": len(apart),
        "same_label": int((wanted.argmax(1) == found.argmax(1)).sum()),
        "median": float(np.median(apart)),
        "p99": float(np.quantile(apart, 0.99)),
        "largest": float(apart.max()),
    }


def answers(where: Path, files: Sequence[Path], **told: object) -> np.ndarray:
    found = vitreous.predict(where, *files, console=QUIET, **told)
    return np.array([list(answer["probabilities"].values()) for answer in found])


def milliseconds(ways: dict[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Medians of several ways, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(statistics.median(kept[1:]), 2) for name, kept in times.items()}


def costs(classifier: Classifier, sealed: SealedFile, file: Path, folder: Path) -> list[Row]:
    """What the resize inside costs on one thread: the sealed file, the network alone, our `fit`."""
    torch.set_num_threads(1)
    write_onnx(fold(classifier.model), folder / "network.onnx")
    network = open_session(folder / "network.onnx", 1)
    preprocess: Preprocess = classifier.preprocess
    rows = []
    for height, width in TIMED:
        with Image.open(file) as image:
            array = np.array(image.convert("RGB").resize((width, height), Image.BICUBIC))
        images = normalise(torch.from_numpy(fit(array, preprocess))[None], preprocess).numpy()
        ways = {
            "sealed_ms": lambda array=array: sealed.answer(array),
            "network_ms": lambda images=images: network.run(None, {"images": images}),
            "fit_ms": lambda array=array: fit(array, preprocess),
        }
        rows.append({"size": f"{width} x {height}", **milliseconds(ways)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--preprocess", action="append", default=[])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--node", type=Path, help="node_modules")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    told = {"labels": arguments.labels, "preprocess": arguments.preprocess}
    files = list_pictures([arguments.pictures])[: arguments.count]
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(arguments.checkpoint, files, told, arguments.node, Path(temporary))
    write_json(arguments.out / "export.json", found)
    write_text(arguments.out / "README.md", page(found))
    print(page(found))


def measure(
    checkpoint: Path, files: list[Path], told: dict, modules: Path | None, folder: Path
) -> dict:
    path = vitreous.export(checkpoint, folder / "sealed.onnx", **told, console=QUIET)
    weights = find_classifier(checkpoint, told_by(num_heads=None, **told), QUIET)
    classifier, sealed = load_classifier(weights), open_sealed(path)
    rows = {}
    arrays = rescaled(files)
    wanted = by_run(classifier, arrays)
    rows["arrays of every size, Python"] = compared(wanted, by_file(sealed, arrays))
    if modules:
        for runtime in ("onnxruntime-node", "onnxruntime-web"):
            theirs = in_node(runtime, path, arrays, modules, folder)
            rows[f"arrays of every size, Node.js, {runtime}"] = compared(wanted, theirs)
    of_every_mode = folder / "modes"
    of_every_mode.mkdir()
    kinds = write_of_every_mode(files, of_every_mode)
    theirs = answers(path, kinds)
    rows["files of every mode, vitreous predict"] = compared(
        answers(checkpoint, kinds, **told), theirs
    )
    whole = by_run(classifier, [read_picture(file) for file in kinds])
    alone = by_file(sealed, [with_pillow(file) for file in kinds])
    rows["files of every mode, Pillow and onnxruntime alone"] = compared(whole, alone)
    wanted = answers(checkpoint, files, **told)
    alone = by_file(sealed, [with_pillow(file) for file in files])
    rows["JPEG files, Pillow and onnxruntime alone"] = compared(wanted, alone)
    if modules:
        index = folder / "files.json"
        index.write_text(json.dumps([str(file.absolute()) for file in files]))
        for decoder in ("sharp", "jpeg-js"):
            theirs = by_node(["onnxruntime-node", str(path), decoder, str(index)], modules)
            rows[f"JPEG files, Node.js, {decoder}"] = compared(wanted, theirs)
    return {
        "processor": processor(),
        "rows": rows,
        "costs": costs(classifier, sealed, files[0], folder),
    }


def differences(rows: dict[str, dict]) -> list[str]:
    """Lines of a table: how far each row's probabilities are from the run's."""
    return [
        "| | pictures | same label | median | 99th percentile | largest |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {row['pictures']} | {row['same_label']} | {row['median']:.0e} | "
            f"{row['p99']:.0e} | {row['largest']:.0e} |"
            for name, row in rows.items()
        ),
    ]


def page(found: dict) -> str:
    lines = [
        "# A sealed file and the model it was made of",
        "",
        "`python benchmarks/export.py CHECKPOINT PICTURES --labels FILE "
        "--preprocess WORD --node node_modules --out DIR`: of each "
        "picture the difference of the probability that differs most.",
        "",
        *differences(found["rows"]),
        "",
        f"Milliseconds a picture on one thread, {found['processor']}, in turns:",
        "",
        "| picture | sealed file | network alone | our `fit` |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row['size']} | {row['sealed_ms']} | {row['network_ms']} | {row['fit_ms']} |"
            for row in found["costs"]
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
