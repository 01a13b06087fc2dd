"""Export: a trained model as a file or folder for other programs, compared before it gets its name.

The function is part of `api`; how a model comes about is told there.
"""

import csv
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import numpy as np

from vitreous.core.console import Console
from vitreous.core.rng import numpy_stream
from vitreous.core.run import RunFolder
from vitreous.data.decode import read_picture
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.errors import ConfigError, RunError, UnreadablePicture
from vitreous.evaluation.calibration import load_calibration
from vitreous.exporting.card import UNKNOWN_LICENSE, facts_of
from vitreous.exporting.contract import TOLERANCE
from vitreous.exporting.formats import ENDINGS, SEALED, export_classifier, format_of
from vitreous.exporting.sealed_file import open_sealed
from vitreous.exporting.sealing import SealedFormat, Sealing, seal
from vitreous.exporting.web import find_runtime, write_site
from vitreous.serving.weights import find_classifier, find_own_weights, is_own, is_sealed, told_by
from vitreous.training.classifier import load_classifier

#: Pictures that a sealed file is compared on as they are; some of them also at other sizes.
_COMPARED = 12
_NEEDED = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "torch": ("", ()),
    "openvino": ("onnx,openvino", ("onnx", "onnxscript", "openvino")),
}


def export(
    run: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    to: str | None = None,
    license: str | None = None,
    runtime: str | PathLike[str] | None = None,
    labels: str | PathLike[str] | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    console: Console | None = None,
) -> Path:
    """Write a trained model for other programs.

    Args:
        run: a run's folder, a weights file of one, or another library's checkpoint, also on a hub;
            for "web" also a sealed file.
        out: the new file or folder; by default in the run's folder, under its name, and for a
            checkpoint in the present folder.
        to: "onnx" (ONNX Runtime, in any language), "torch" (`torch.export`) or "openvino": one
            sealed file that takes an upright RGB picture of any size and gives probabilities.
            "web": a static folder with a page that classifies in the visitor's browser.
            "timm" or "transformers": a folder that the library loads; "safetensors": one file with
            everything in it, for this library and whoever reads safetensors; "keras": the
            lecture's model as ``.keras`` or ``.weights.h5``, which then takes pixels from 0 to 255.
            By default what `out` ends like, or else "onnx".
        license: of the model, for a sealed file's metadata and model card.
        runtime: folder of a copy of onnxruntime-web, for "web"; by default it is downloaded once.
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        console: where messages go.

    Returns:
        The file or folder.

    Raises:
        ConfigError: for an unknown format, or one whose libraries aren't installed.
        RunError: where there is no trained model, or `out` exists.
        VitreousError: where what was written answers otherwise than the model; it isn't kept.
        WeightsError: for a model that the format has no place for, or a checkpoint that can't be
            read.
    """
    console = console or Console()
    to = format_of(to, Path(out) if out is not None else None)
    path = _beside(Path(run), ENDINGS[to]) if out is None else Path(out)
    for taken in (path, *([path.with_suffix(".bin")] if to == "openvino" else [])):
        if taken.exists():
            raise RunError(f"{taken} exists already: choose another --out")
    if runtime is not None and to != "web":
        raise ConfigError(f"--runtime is about --to web, not {to}: leave it out")
    told = told_by(labels, preprocess, num_heads)
    weights = find_classifier(run, told, console, sealed=to == "web")
    if to in SEALED:
        _seal(weights, path, to, license or UNKNOWN_LICENSE, console)
        if to == "onnx":
            console.info(f"next: vitreous predict {path} photo.jpg")
        return path
    if to == "web":
        _write_site(run, weights, path, license, runtime, console)
        return path
    if license is not None:
        raise ConfigError(f"{to} has no place for --license: leave it out")
    for note in export_classifier(load_classifier(weights), path, to):
        console.info(note)
    return path


def _write_site(
    run: str | PathLike[str],
    weights: Path,
    site: Path,
    license: str | None,
    runtime: str | PathLike[str] | None,
    console: Console,
) -> None:
    # Before the work: it may have to be downloaded.
    library = find_runtime(Path(runtime) if runtime else None, console)
    if is_sealed(weights):
        if license is not None:
            raise ConfigError(f"{run} says its licence itself: leave --license out")
        write_site(open_sealed(weights), library, site)
    else:
        with tempfile.TemporaryDirectory() as folder:
            sealed = Path(folder) / f"{_beside(Path(run), '').name}.onnx"  # the model's name
            _seal(weights, sealed, "onnx", license or UNKNOWN_LICENSE, console)
            write_site(open_sealed(sealed), library, site)
    console.info(f"next: python -m http.server --directory {site}, then open http://localhost:8000")


def _seal(weights: Path, path: Path, to: SealedFormat, license: str, console: Console) -> None:
    extra, modules = _NEEDED[to]
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ConfigError(f'{missing[0]} is not installed: pip install "vitreous[{extra}]"')
    pictures, what = _own_pictures(weights), "pictures that chose its weights"
    if not pictures:
        pictures, what = _drawn_faces(), "drawn faces (the run's own pictures are not at hand)"
    sealing = Sealing(
        load_classifier(weights), load_calibration(weights), facts_of(weights), path.stem, license
    )
    parity = seal(sealing, pictures, path, to)
    console.info(
        f"compared with the run on {parity.pictures} pictures of 1 to 20,000 px a side, {what}: "
        f"largest difference of a probability {parity.largest:.1e} (allowed {TOLERANCE:.0e})"
    )
    if license == UNKNOWN_LICENSE:
        console.info("its licence is unknown: say it with --license, such as CC-BY-4.0")


def _own_pictures(weights: Path) -> list[np.ndarray]:
    """Some pictures that the run was validated on, as they are, where they still are."""
    run = RunFolder(weights.resolve().parent)
    if not run.split.exists():
        return []
    with run.split.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file) if row["split"] == "valid"]
    # From everywhere in the list, which is in order of the classes.
    chosen = [paths[int(at)] for at in np.linspace(0, len(paths) - 1, min(_COMPARED, len(paths)))]
    pictures = []
    for path in chosen:
        try:
            pictures.append(read_picture(Path(path)))
        except UnreadablePicture:
            continue
    return pictures


def _drawn_faces() -> list[np.ndarray]:
    rng = numpy_stream(0, "export")
    sides = (32, 48, 100, 224, 225, 300)
    return [draw_face(EXPRESSIONS[at % 3], side, rng) for at, side in enumerate(sides)]


def _beside(run: Path, ending: str) -> Path:
    """In the folder of a run, under its name; what a checkpoint becomes, in the present folder."""
    if not is_own(run):
        name = run.stem if run.is_file() else run.name.partition("@")[0]
        return Path(f"{name}{ending}")
    folder = find_own_weights(run).resolve().parent
    return folder / f"{folder.name}{ending}"
