"""What a trained model is for: scoring, calibrating, asking it, and asking it why.

The functions are part of `api`; how a model comes about is told there.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from vitreous.core.config import from_mapping, load_toml
from vitreous.core.console import Console
from vitreous.core.run import RunFolder
from vitreous.data.cache import decode_fitted
from vitreous.data.config import DataConfig
from vitreous.data.dataset import open_labelled
from vitreous.data.folder import Listing, is_unread, list_pictures
from vitreous.data.left_out import warn_of_formats
from vitreous.data.loader import PictureSet
from vitreous.errors import DataError, RunError, UnreadablePicture
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.comparison import Comparison, compare_answers
from vitreous.evaluation.inference import BATCH_SIZE, predict_set
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.score import examine_set
from vitreous.explanation.anatomy import patch_filters, position_similarity
from vitreous.explanation.methods import MethodName
from vitreous.explanation.pictures import Question, explain_pictures
from vitreous.explanation.result import Explanations
from vitreous.opening import (
    choose_split,
    learned_from,
    list_split,
    open_own_pictures,
    tell_unknown,
    warn_unreadable,
    with_cache,
)
from vitreous.serving.calibrate import calibrate_on
from vitreous.serving.hub import hub_id
from vitreous.serving.loaded import Model, named
from vitreous.serving.model import open_model
from vitreous.serving.predictor import Predictor, compare_precision, tell_change
from vitreous.serving.runtimes import Precision, Runtime
from vitreous.serving.tune import Tuning
from vitreous.serving.tune import tune as tune_weights
from vitreous.serving.weights import NOTHING, find_classifier, told_by
from vitreous.serving.wish import Wish
from vitreous.training.classifier import Description, load_classifier, read_description
from vitreous.training.config import Device, RunConfig
from vitreous.training.device import choose_device

Source = str | PathLike[str]


def evaluate(
    run: Source,
    data: Source | None = None,
    *,
    split: str | None = None,
    labels: Source | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    runtime: Runtime | None = None,
    precision: Precision = "float32",
    device: Device = "auto",
    cache: Source | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Score a trained model on labelled pictures.

    Args:
        run: a run's folder, a weights file of one, a sealed file, or another library's checkpoint,
            also on a hub (``owner/name[@revision]``).
        data: a folder or table; by default the pictures that the run held back.
        split: "train", "valid", "calibration" or "test"; by default the test pictures where there
            are any, or else those for validation, or else those without a split.
        labels: of a checkpoint that doesn't say them: a file with one class a line.
        preprocess: of a checkpoint that doesn't say it: "imagenet", "half" or "clip", and single
            settings such as "crop=384" or "mean=0.5".
        num_heads: of a checkpoint whose heads aren't 64 wide and that doesn't say so.
        runtime: as for `Model`.
        precision: likewise.
        device: likewise.
        cache: folder of decoded pictures.
        console: where messages go.

    Raises:
        ConfigError: for a runtime that isn't installed, a precision that it doesn't have, or
            something said of a checkpoint that makes no sense.
        DataError: for a class that the model doesn't know, or no such pictures.
        RunError: where there is no trained model.
        WeightsError: for a checkpoint that can't be read, or says too little.
    """
    console = console or Console()
    is_run = (Path(run) / "config.toml").exists()
    if data is None and not is_run and (Path(run).exists() or hub_id(run)):
        what = "is no run" if Path(run).exists() else "does not exist here"
        raise RunError(f"{run} {what}, and has no pictures of its own: name some (DATA)")
    told, wish = told_by(labels, preprocess, num_heads), Wish(runtime, precision, device)
    weights, predictor = open_model(run, told, wish, console)
    old = None
    if data is None:
        folder = RunFolder.open(Path(run))
        config = with_cache(from_mapping(RunConfig, load_toml(folder.config)), cache)
        own = open_own_pictures(folder, config, console)
        name = choose_split(set(own.sets), split, folder.path)
        pictures = own.sets[name]
    else:
        listing, name = list_split(Path(data), split)
        pictures = _open(listing, Path(data), predictor, cache, console)
        if old := learned_from(pictures.paths, weights, read=[pictures]):
            console.warn(f"{old}: expect less of it on new ones")
        tell_unknown(weights, console)
    console.info(f"evaluating {len(pictures)} {name} pictures".replace("  ", " "))
    warn_unreadable(pictures, console)
    evaluation, _ = examine_set(
        predictor.network,
        pictures,
        predictor.preprocess,
        predictor.classes,
        predictor.majority_class,
        predictor.temperature,
    )
    first = pictures.batch(range(min(BATCH_SIZE, len(pictures))))[0]
    tell_change(precision, compare_precision(predictor, first), console)
    is_own = data is None or (old is not None and 2 * len(old.paths) > old.total)
    return replace(evaluation, chose_weights=is_own and name == "valid")


def predict(
    run: Source,
    *sources: Source,
    labels: Source | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    runtime: Runtime | None = None,
    precision: Precision = "float32",
    device: Device = "auto",
    sets: float | None = None,
    by_class: bool = False,
    refuse: bool = False,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Classify pictures; to ask more than once, open a `Model`.

    Args:
        run: as for `Model`.
        sources: files, and folders that are searched for pictures.
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        runtime: as for `Model`, and so are the others.
        precision: what is computed in.
        device: where.
        sets: coverage of sets of classes.
        by_class: whether that is kept in each class.
        refuse: whether to say none of these.
        console: where progress and promises go.

    Returns:
        For each picture in the order given what `Model.predict` says of it.

    Raises:
        ConfigError: as for `Model`.
        DataError: for a source that doesn't exist.
        RunError: where there is no trained model.
    """
    console = console or Console()
    pictures = named(sources, console)  # before a model is opened, which may take a while
    model = Model(
        run,
        labels=labels,
        preprocess=preprocess,
        num_heads=num_heads,
        runtime=runtime,
        precision=precision,
        device=device,
        sets=sets,
        by_class=by_class,
        refuse=refuse,
        console=console,
    )
    return model.answer(pictures)


def explain(
    run: Source,
    *sources: Source,
    method: MethodName | Literal["all"] | None = None,
    class_name: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    labels: Source | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    device: Device = "auto",
    console: Console | None = None,
) -> Explanations:
    """Show where in pictures a model's answers come from, and how far that can be believed.

    Args:
        run: a run's folder, a weights file of one, or another library's checkpoint, also on a hub
            (``owner/name[@revision]``).
        sources: files, and folders that are searched for pictures; none for what the model has
            learned without any.
        method: "relevance", "integrated", "rollout", "attention", or "all" of them; by default
            those that pass their check on these pictures.
        class_name: the class to explain; by default each picture's most probable one.
        layer: the block whose attention is wanted, counted from 1.
        head: the head likewise; by default the mean of all.
        labels: of a checkpoint, as for `evaluate`.
        preprocess: likewise.
        num_heads: likewise.
        device: as for `Model`.
        console: where messages go.

    Returns:
        An explanation for each readable picture, with maps as arrays and ways to draw them, and
        what came of each method's check.

    Raises:
        ConfigError: for a class, layer or head that the model doesn't have.
        DataError: for a source that doesn't exist.
        RunError: where there is no trained model.
    """
    console = console or Console()
    question = Question.of(method, class_name, layer, head)
    weights = find_classifier(run, told_by(labels, preprocess, num_heads), console)
    classifier = load_classifier(weights)
    classifier.model.to(choose_device(device))
    question.check(classifier)
    files = list_pictures(map(Path, sources), partial(warn_of_formats, console=console))
    with console.stages() as on_progress:
        decoded = decode_fitted(files, classifier.preprocess, on_progress, fingerprints=False)
        found = list(zip(map(str, files), decoded, strict=True))
        read = [(name, one.pixels) for name, one in found if not isinstance(one, UnreadablePicture)]
        explained, checks = explain_pictures(
            classifier,
            [name for name, _ in read],
            [pixels for _, pixels in read],
            question,
            on_progress,
        )
    return Explanations(
        explained,
        checks,
        tuple((name, str(one)) for name, one in found if isinstance(one, UnreadablePicture)),
        patch_filters(classifier.model),
        position_similarity(classifier.model),
    )


def tune(
    run: Source,
    *,
    labels: Source | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    console: Console | None = None,
) -> Tuning:
    """Measure which runtime answers fastest on this machine, for `predict` and `evaluate` to use.

    The choice is written beside the weights as ``runtime.json``. Precision is never part of it.

    Args:
        run: a run's folder, a weights file of one, or another library's checkpoint, also on a hub
            (``owner/name[@revision]``).
        labels: of a checkpoint, as for `evaluate`; the choice holds where the same is said again.
        preprocess: likewise.
        num_heads: likewise.
        console: where progress goes.

    Raises:
        RunError: where there is no trained model.
        WeightsError: for a checkpoint that can't be read, or says too little.
    """
    console = console or Console()
    weights = find_classifier(run, told_by(labels, preprocess, num_heads), console)
    return tune_weights(weights, console)


def calibrate(
    run: Source,
    data: Source,
    *,
    split: str | None = None,
    labels: Source | None = None,
    preprocess: str | Sequence[str] = (),
    num_heads: int | None = None,
    device: Device = "auto",
    cache: Source | None = None,
    console: Console | None = None,
) -> Calibration:
    """Learn from pictures that the model never saw how far it can be trusted, for `predict`.

    What they say is written beside the weights as ``calibration.safetensors``, in the place of what
    was there. The weights stay as they are.

    Args:
        run: as for `evaluate`.
        data: a folder of classes or a table; its pictures must be new to the run.
        split: which of them; by default "calibration" where there are such, else those without a
            split, else "test".
        labels: of a checkpoint, as for `evaluate`; the calibration holds where the same is said
            again.
        preprocess: likewise.
        num_heads: likewise.
        device: as for `Model`.
        cache: folder of decoded pictures.
        console: where messages go.

    Raises:
        DataError: for a class that the model doesn't know, or no pictures but those that the run
            has learned from or was chosen by, which are left out.
        RunError: where there is no trained model.
    """
    console = console or Console()
    weights = find_classifier(run, told_by(labels, preprocess, num_heads), console)
    described = read_description(weights)
    listing, name = list_split(Path(data), split, ("calibration", "", "test"))
    pictures = _open(listing, Path(data), described, cache, console)
    if old := learned_from(pictures.paths, weights, read=[pictures]):
        pictures = pictures.without(set(old.paths))
        if not len(pictures):
            raise DataError(f"{old}: calibrate on others")
        console.warn(f"{old}: they are left out")
    tell_unknown(weights, console)
    if not len(pictures):
        raise DataError(f"none of the {len(pictures.unreadable)} pictures can be read")
    console.info(f"calibrating on {len(pictures)} {name} pictures".replace("  ", " "))
    warn_unreadable(pictures, console)
    return calibrate_on(weights, pictures, device)


def compare(
    a: Source,
    b: Source,
    data: Source,
    *,
    split: str | None = None,
    device: Device = "auto",
    cache: Source | None = None,
    console: Console | None = None,
) -> Comparison:
    """Whether one trained model is better than another on the same pictures.

    Args:
        a: a run's folder, a weights file of one, a sealed file, or a checkpoint that says all it
            needs.
        b: the other.
        data: a folder of classes or a table.
        split: as for `evaluate`.
        device: as for `Model`.
        cache: folder of decoded pictures.
        console: where messages go.

    Raises:
        DataError: for a class that one of them doesn't know, or no such pictures.
        RunError: where there is no trained model.
    """
    console = console or Console()
    listing, name = list_split(Path(data), split)
    console.info(f"comparing on {len(listing.samples)} {name} pictures".replace("  ", " "))
    found = []
    for run in (a, b):
        weights, predictor = open_model(run, NOTHING, Wish(device=device), console)
        pictures = _open(listing, Path(data), predictor, cache, console)
        if old := learned_from(pictures.paths, weights, read=[pictures]):
            console.warn(f"{old}: that is no fair comparison")
        tell_unknown(weights, console)
        if not len(pictures):
            raise DataError(f"none of the {len(pictures.unreadable)} pictures can be read")
        probabilities = predict_set(predictor.network, pictures, predictor.preprocess)
        found.append([predictor.classes[at] for at in probabilities.argmax(1)])
    warn_unreadable(pictures, console)
    labels = [predictor.classes[at] for at in pictures.labels.tolist()]
    return compare_answers((found[0], found[1]), labels, len(pictures.unreadable))


def _open(
    listing: Listing,
    data: Path,
    model: Predictor | Description,
    cache: Source | None,
    console: Console,
) -> PictureSet:
    """Decoded as the model wants them."""
    if unread := list(filter(is_unread, listing.ignored)):
        warn_of_formats(unread, console)
    config = DataConfig(str(data), cache_dir=str(cache) if cache else None)
    with console.stages() as on_progress:
        return open_labelled(listing, model.classes, config, model.preprocess, on_progress)
