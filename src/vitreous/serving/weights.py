"""Where a trained run can stand, a weights file or a checkpoint of another library can too.

`find_weights` makes one thing of all three: a file of this library's weights. A checkpoint is read
and written anew, into the user's cache folder, and is from then on a file like any other.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from shlex import quote

from vitreous.core.console import Console
from vitreous.core.files import read_metadata
from vitreous.core.run import RunFolder
from vitreous.errors import ConfigError, RunError, WeightsError
from vitreous.serving.converted import open_converted
from vitreous.serving.hub import locate

#: Part of the name of what a checkpoint becomes: raise it when reading one changes its result.
_FORMAT_VERSION = 3

OnNote = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What a person says of a checkpoint, because its file doesn't.

    Args:
        labels: file of class names in output order, one a line.
        preprocess: "imagenet", "half" or "clip", and single settings such as "crop=384" (see
            `prepared`).
        num_heads: attention heads of a block.
    """

    labels: Path | None = None
    preprocess: tuple[str, ...] = ()
    num_heads: int | None = None


NOTHING = Told()


def told_by(
    labels: str | PathLike[str] | None, preprocess: str | Sequence[str], num_heads: int | None
) -> Told:
    """From what the functions of `api` take."""
    words = (preprocess,) if isinstance(preprocess, str) else tuple(preprocess)
    return Told(Path(labels) if labels else None, words, num_heads)


def find_weights(path: Path, told: Told, on_note: OnNote) -> Path:
    """The weights of a run or of a file, or what a checkpoint of another library became.

    Args:
        path: a run's folder, a weights file, or another library's file or folder.
        told: what is known of a checkpoint beside its file.
        on_note: is told what had to be assumed.

    Raises:
        ConfigError: where something is told of what says it itself, or makes no sense.
        RunError: where there are no weights yet, or nothing at all.
        WeightsError: where a checkpoint can't be read, or says too little.
    """
    if path.exists() and not is_own(path):
        return _adopted(path, told, on_note)
    weights = find_own_weights(path)
    _check_untold(path, told)
    return weights


def find_classifier(
    where: str | PathLike[str], told: Told, console: Console, sealed: bool = False
) -> Path:
    """The same from a path or a hub's id (see `hub`), where classes have been learned.

    Args:
        where: the path or id.
        told: as for `find_weights`.
        console: is told what had to be assumed.
        sealed: whether a sealed file will do, which answers and has no weights to look into.

    Raises:
        RunError: where they haven't, beside the errors of `locate` and `find_weights`.
    """
    path = locate(where, console).path
    if is_sealed(path):
        if not sealed:
            raise RunError(
                f"{where} is a sealed file, which can predict, evaluate and compare, but doesn't "
                "show its weights: name the run that it was made of"
            )
        _check_untold(path, told)
        return path
    weights = find_weights(path, told, console.info)
    if "classes" not in read_metadata(weights):
        raise RunError(  # by the name that was given, which isn't where a checkpoint is kept
            f"{where} is pretrained and knows no classes yet: let it learn them with "
            f"vitreous train FOLDER --init {quote(str(where))}"
        )
    return weights


def is_sealed(path: Path) -> bool:
    """Whether this is a file of the format of sealed ones; it may still be another's."""
    return path.suffix.lower() == ".onnx" and path.is_file()


def _check_untold(path: Path, told: Told) -> None:
    if told != NOTHING:
        raise ConfigError(
            f"{path} says its classes, preprocessing and heads itself: leave --labels, "
            "--preprocess and --num-heads out"
        )


def find_own_weights(path: Path) -> Path:
    """The best weights of a run's folder, or of a folder or file that this library wrote.

    Raises:
        RunError: where there are none.
    """
    if path.is_file():
        return path
    weights = path / "best.safetensors"
    if not weights.is_file():
        weights = RunFolder.open(path).best
    if not weights.exists():
        raise RunError(
            f"{path} has no weights yet: let its training go on (vitreous train --resume "
            f"{quote(str(path))})"
        )
    return weights


def is_own(path: Path) -> bool:
    """Whether a folder is a run, or a file or folder has weights that this library wrote."""
    if (path / "config.toml").is_file():
        return True
    try:
        read_metadata(path / "best.safetensors" if path.is_dir() else path)
    except RunError:
        return False
    return True


def _adopted(path: Path, told: Told, on_note: OnNote) -> Path:
    """The weights file that a checkpoint was, or is now, rewritten to."""
    from vitreous.model.weights.files import files_of

    labels = _read_labels(told.labels) if told.labels else None
    kind = f"adopted {_FORMAT_VERSION} {labels} {told.preprocess} {told.num_heads}"

    def make(folder: Path) -> None:
        notes = _rewrite(path, folder / "best.safetensors", told, labels)
        (folder / "notes.json").write_text(json.dumps(notes), encoding="utf-8")

    def open_entry(folder: Path) -> tuple[Path, list[str]]:
        weights = folder / "best.safetensors"
        read_metadata(weights)
        return weights, json.loads((folder / "notes.json").read_text(encoding="utf-8"))

    try:
        weights, notes = open_converted(files_of(path), kind, make, open_entry, lambda: None)
    except OSError as error:
        raise WeightsError(f"can't read {path}: {error.strerror or error}") from None
    for note in notes:
        on_note(note)
    return weights


def _rewrite(path: Path, weights: Path, told: Told, labels: tuple[str, ...] | None) -> list[str]:
    """Read a checkpoint and write it as weights of this library.

    Returns:
        What it was, and what had to be assumed.
    """
    from vitreous.model.weights.checkpoint import read_checkpoint
    from vitreous.serving.prepared import prepare
    from vitreous.training.classifier import Classifier, save_classifier
    from vitreous.training.encoder import Encoder, save_encoder, without_head

    found = read_checkpoint(path, num_heads=told.num_heads, in_channels=3)
    preprocess, note = prepare(path, found.preprocessing, found.config.image_size, told.preprocess)
    if preprocess.image_size != found.config.image_size:
        found = read_checkpoint(
            path, num_heads=told.num_heads, in_channels=3, image_size=preprocess.image_size
        )
    notes = [f"{path.name} read as {found.format}", *found.notes, note]
    config, model = found.config, found.model
    if not config.num_classes:
        if labels is not None:
            raise WeightsError(f"{path} has no head, so --labels {told.labels} names nothing")
        save_encoder(weights, Encoder(config, preprocess, without_head(model.state_dict())))
        return notes
    names = labels or found.classes
    if names is None:
        names = tuple(map(str, range(config.num_classes)))
        notes.append("its classes have no names: they are called by their index")
    if len(names) != config.num_classes:
        raise ConfigError(
            f"{told.labels} has {len(names)} names, but {path} has {config.num_classes} classes"
        )
    classes = _told_apart(names)
    if classes != names:
        notes.append("classes of one name are told apart by their index")
    save_classifier(weights, Classifier(model, preprocess, classes, majority_class=None))
    return notes


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """Equal names with their index behind them: ImageNet has two kinds of crane."""
    counts = Counter(names)
    return tuple(
        f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names)
    )


def _read_labels(path: Path) -> tuple[str, ...]:
    """Names, one a line, in index order.

    Raises:
        ConfigError: where there are none, or a line is empty.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't text"
        raise ConfigError(f"can't read the labels in {path}: {reason}") from None
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        wrong = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise ConfigError(f"{path} should name one class a line, in the model's order: {wrong}")
    return tuple(names)
