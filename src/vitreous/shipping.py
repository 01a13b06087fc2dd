"""Export: a trained model as a file or folder for other programs, compared before it gets its name.

The function is part of `api`; how a model comes about is told there.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Literal, get_args

import numpy as np

from vitreous.core.config import did_you_mean
from vitreous.core.console import Console
from vitreous.core.rng import numpy_stream
from vitreous.core.run import RunFolder, run_of
from vitreous.data.dataset import check_classes, read_split_table
from vitreous.data.decode import read_picture
from vitreous.data.faces import EXPRESSIONS, draw_face
from vitreous.data.preprocess import Preprocess
from vitreous.data.remote import is_remote
from vitreous.data.shards import shard_of
from vitreous.errors import ConfigError, DataError, RunError, UnreadablePicture
from vitreous.exporting.card import UNKNOWN_LICENSE, facts_of
from vitreous.exporting.contract import TOLERANCE
from vitreous.exporting.formats import ENDINGS, SEALED, export_classifier, format_of
from vitreous.exporting.gate import MAX_DROP, Gate
from vitreous.exporting.precision import Reduced
from vitreous.exporting.reducing import Terms, seal_reduced
from vitreous.exporting.sealed_file import open_sealed
from vitreous.exporting.sealing import SealedFormat, Sealing, seal
from vitreous.exporting.web import find_runtime, write_site
from vitreous.opening import learned_from, list_split
from vitreous.serving.guard import own_calibration
from vitreous.serving.hub import called
from vitreous.serving.weights import find_classifier, find_own_weights, is_own, is_sealed, told_by
from vitreous.training.classifier import load_classifier, read_description

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
    precision: Literal["float32"] | Reduced = "float32",
    max_drop: float | None = None,
    data: str | PathLike[str] | None = None,
    on_gate: Callable[[Gate], None] | None = None,
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
        precision: of the network in a sealed ONNX file: "float32"; "int8", the fastest;
            "int8-weights" or "fp16", smaller and as fast as float32.
        max_drop: points of accuracy that fewer bits may cost, by default 0.5; where it surely is
            more, nothing is written.
        data: labelled pictures to see that on, a folder or table; by default those that chose the
            run's weights.
        on_gate: is told what fewer bits cost and gain, even where they are refused.
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        console: where messages go.

    Returns:
        The file or folder.

    Raises:
        ConfigError: for an unknown format, or one whose libraries aren't installed.
        DataError: where there are no pictures to see on what fewer bits cost.
        RunError: where there is no trained model, or `out` exists.
        VitreousError: where what was written answers otherwise than the model; it isn't kept.
        WeightsError: for a model that the format has no place for, or a checkpoint that can't be
            read.
    """
    console = console or Console()
    to = format_of(to, Path(out) if out is not None else None)
    _check_precision(precision, to, max_drop, data)
    ending = ENDINGS[to] if precision == "float32" else f"-{precision}{ENDINGS[to]}"
    path = _beside(Path(run), ending) if out is None else Path(out)
    for taken in (path, *([path.with_suffix(".bin")] if to == "openvino" else [])):
        if taken.exists():
            raise RunError(f"{taken} exists already: choose another --out")
    if runtime is not None and to != "web":
        raise ConfigError(f"--runtime is about --to web, not {to}: leave it out")
    told = told_by(labels, preprocess, num_heads)
    weights = find_classifier(run, told, console, sealed=to == "web")
    if to in SEALED:
        terms = None
        if precision != "float32":
            tested = _tested(weights, Path(data) if data is not None else None, console)
            learned = _own_pictures(weights, "train") or _drawn_faces()
            most = MAX_DROP if max_drop is None else max_drop
            terms = Terms(precision, most, tested, learned, _warning(on_gate, console))
        _seal(weights, path, to, license or UNKNOWN_LICENSE, terms, console)
        if to == "onnx":
            console.info(f"next: vitreous predict {quote(str(path))} photo.jpg")
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
    if is_sealed(weights) and license is not None:
        raise ConfigError(f"{run} says its licence itself: leave --license out")
    # Before the work: it may have to be downloaded.
    library = find_runtime(Path(runtime) if runtime else None, console)
    if is_sealed(weights):
        write_site(open_sealed(weights), library, site)
    else:
        with tempfile.TemporaryDirectory() as folder:
            sealed = Path(folder) / f"{_beside(Path(run), '').name}.onnx"  # the model's name
            _seal(weights, sealed, "onnx", license or UNKNOWN_LICENSE, None, console)
            write_site(open_sealed(sealed), library, site)
    console.info(
        f"next: python -m http.server --directory {quote(str(site))}, then open "
        "http://localhost:8000"
    )


def _check_precision(
    precision: str, to: str, max_drop: float | None, data: str | PathLike[str] | None
) -> None:
    known = ("float32", *get_args(Reduced))
    if precision not in known:
        raise ConfigError(f"unknown precision '{precision}': {did_you_mean(precision, known)}")
    if precision != "float32" and to != "onnx":
        raise ConfigError(f"{precision} is there for --to onnx alone, not for {to}")
    if precision == "float32" and data is not None:
        raise ConfigError(
            f"data is to compare fewer bits on, and float32 has all: leave {data} out"
        )
    if precision == "float32" and max_drop is not None:
        raise ConfigError("max_drop is about fewer bits, and float32 has all: leave it out")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise ConfigError(f"max_drop is {max_drop:g}; it is points of accuracy, from 0 to 100")


def _warning(on_gate: Callable[[Gate], None] | None, console: Console) -> Callable[[Gate], None]:
    """Tells what fewer bits cost, and warns where nobody knows."""

    def tell(gate: Gate) -> None:
        if on_gate:
            on_gate(gate)
        if gate.verdict == "unsure":
            console.warn(f"{gate.file} is written all the same: {gate.in_words()}")

    return tell


def _seal(
    weights: Path,
    path: Path,
    to: SealedFormat,
    license: str,
    terms: Terms | None,
    console: Console,
) -> None:
    extra, modules = _NEEDED[to]
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ConfigError(f'{missing[0]} is not installed: pip install "vitreous[{extra}]"')
    pictures, what = _own_pictures(weights, "valid"), "pictures that chose its weights"
    if not pictures:
        pictures, what = _drawn_faces(), "drawn faces (the run's own pictures are not at hand)"
    sealing = Sealing(
        load_classifier(weights),
        own_calibration(weights, console),
        facts_of(weights),
        path.stem,
        license,
    )
    if terms is None:
        parity, way = seal(sealing, pictures, path, to), ""
    else:
        parity, way = seal_reduced(sealing, pictures, path, terms), "in float32 "
    console.info(
        f"{way}compared with the run on {parity.pictures} pictures of 1 to 20,000 px a side, "
        f"{what}: largest difference of a probability {parity.largest:.1e} "
        f"(allowed {TOLERANCE:.0e})"
    )
    if license == UNKNOWN_LICENSE:
        console.info("its licence is unknown: say it with --license, such as CC-BY-4.0")


def _own_pictures(weights: Path, split: str) -> list[np.ndarray]:
    """Some pictures of a split of the run, as they are, where they still are."""
    paths = [path for path, _ in _own_files(weights, split)]
    # From everywhere in the list, which is in order of the classes.
    chosen = [paths[int(at)] for at in np.linspace(0, len(paths) - 1, min(_COMPARED, len(paths)))]
    pictures = []
    for path in chosen:
        try:
            pictures.append(read_picture(path))
        except (UnreadablePicture, DataError):  # the latter for a shard that isn't what it was
            continue
    return pictures


def _own_files(weights: Path, split: str) -> list[tuple[Path, str]]:
    """The files of a split of the run, and their classes; none of a file of weights alone.

    Nor what lies behind a url: nobody named one here, and nothing else allows the network.
    """
    run = run_of(weights)
    if run is None:
        return []
    rows = read_split_table(run.split)
    files = [(Path(row["path"]), row["label"]) for row in rows if row["split"] == split]
    return [pair for pair in files if not is_remote(pair[0])]


def _tested(weights: Path, data: Path | None, console: Console) -> Iterator[tuple[np.ndarray, str]]:
    """Pictures to see on what fewer bits cost, each with its class."""
    described = read_description(weights)
    if data is None:
        own = _own_files(weights, "valid")
        files = [pair for pair in own if pair[0].is_file() or shard_of(pair[0])]
        if not files:
            raise DataError(
                f"{weights} has no pictures at hand to see on what fewer bits cost: name some, a "
                "folder or table, with --data"
            )
    else:
        listing, _ = list_split(data, None, ("valid", "", "test", "calibration", "train"))
        check_classes(listing, described.classes, str(data))
        if old := learned_from([one.path for one in listing.samples], weights, ("train",)):
            console.warn(f"{old}: fewer bits may cost more on others")
        files = [(sample.path, sample.label or "") for sample in listing.samples]
    return _read(files, described.preprocess, console)


def _read(
    files: Sequence[tuple[Path, str]], preprocess: Preprocess, console: Console
) -> Iterator[tuple[np.ndarray, str]]:
    with console.task("comparing with float32", len(files)) as task:
        for done, (path, label) in enumerate(files, start=1):
            try:
                yield read_picture(path, cover=preprocess.cover), label
            except (UnreadablePicture, DataError) as error:
                console.warn(f"{path}: {error}; left out")
            task.update(done)


def _drawn_faces() -> list[np.ndarray]:
    rng = numpy_stream(0, "export")
    sides = (32, 48, 100, 224, 225, 300)
    return [draw_face(EXPRESSIONS[at % 3], side, rng) for at, side in enumerate(sides)]


def _beside(run: Path, ending: str) -> Path:
    """In the folder of a run, under its name; what a checkpoint becomes, in the present folder.

    Weights that came without their run lie in a folder that may be anything, and have a name.
    """
    if not is_own(run):
        return Path(f"{run.stem if run.is_file() else called(run)}{ending}")
    folder = find_own_weights(run).resolve().parent
    is_alone = run.is_file() and not RunFolder(folder).config.exists()
    return folder / f"{run.stem if is_alone else folder.name}{ending}"
