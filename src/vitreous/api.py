"""What a person can ask for, as Python functions: wiring of the parts, nothing else.

Each function here is also a command of the same name (see `cli`), with the same settings. Paths
may be text or `Path`.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.core.config import dump_toml, from_mapping, load_toml, merge
from vitreous.core.console import Console
from vitreous.core.files import read_json, write_json, write_text
from vitreous.core.run import RunFolder, check_free, versions
from vitreous.data.config import DataConfig
from vitreous.data.dataset import Dataset, open_dataset, open_labelled
from vitreous.data.faces import write_faces
from vitreous.data.folder import Listing, list_labelled, list_pictures
from vitreous.data.loader import PictureSet
from vitreous.errors import DataError, RunError
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.score import evaluate_set
from vitreous.model.presets import PRESETS, preset
from vitreous.model.summary import Summary, summarize
from vitreous.model.vit import ViT
from vitreous.recipes.configure import configure, named_settings
from vitreous.serving.predictor import load_run, predict_files
from vitreous.training.classifier import Classifier, load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, describe_device
from vitreous.training.trainer import Clock, ValidScore
from vitreous.training.trainer import train as run_training

Source = str | PathLike[str]

#: Enough to learn the drawn faces; the budget only matters on a slow or busy machine.
DEMO_LENGTH = {"epochs": 12.0, "budget_s": 8 * 60.0}


class Run:
    """A training run on disk.

    Args:
        path: its folder.

    Raises:
        RunError: where that is no run.
    """

    def __init__(self, path: Source) -> None:
        self._folder = RunFolder.open(Path(path))
        self.path = self._folder.path
        self.report = self._folder.report

    @property
    def evaluation(self) -> dict[str, Any]:
        """The final score, with the keys of ``vitreous evaluate --json``."""
        return read_json(self._folder.evaluation)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """In a notebook: the report."""
        page = escape(self.report.read_text(encoding="utf-8"))
        style = "width:100%;height:720px;border:0"
        return f'<iframe srcdoc="{page}" style="{style}" sandbox></iframe>'


def train(
    source: Source,
    out: Source | None = None,
    *,
    epochs: float | None = None,
    budget_s: float | None = None,
    recipe: str = "scratch",
    model: str | None = None,
    image_size: int | None = None,
    seed: int | None = None,
    config: Source | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Source | None = None,
    tensorboard: bool = False,
    console: Console | None = None,
    started: float | None = None,
) -> Run:
    """Learn a classifier from pictures, score it and write its report.

    Args:
        source: a folder with one sub-folder a class, with or without train/valid/test around
            them, or a CSV or Parquet table.
        out: the run's folder, which must not exist; by default ``runs/<name of source>``.
        epochs: passes over the training pictures; then no clock changes a number.
        budget_s: instead of epochs: seconds from start to end, everything included.
        recipe: "scratch", or "lecture" for the lecture's model and training as they were.
        model: a preset's name; by default chosen by the recipe.
        image_size: height and width in pixels that the model sees.
        seed: of every random draw.
        config: a TOML file of settings, all or some.
        settings: nested settings, stronger than the file's.
        cache: folder of decoded pictures.
        tensorboard: write TensorBoard's files too.
        console: where messages go.
        started: value of `time.monotonic` when the command began.

    Raises:
        UserError: for settings or pictures that need a change.
        Interrupted: after Ctrl-C, with the state saved.
    """
    clock = Clock(time.monotonic() if started is None else started)
    console = console or Console()
    source = Path(source).absolute()
    path = _first_free(Path("runs") / source.stem) if out is None else Path(out)
    check_free(path)
    changes = merge(
        settings or {}, named_settings(epochs, budget_s, seed, Path(cache) if cache else None)
    )
    listing = list_labelled(source)
    run_config = configure(
        source,
        listing,
        recipe=recipe,
        model=model,
        image_size=image_size,
        config_file=Path(config) if config else None,
        changes=changes,
    )
    dataset = _open(listing, run_config, console)
    folder = RunFolder.create(
        path,
        {
            "config.toml": dump_toml(run_config),
            "split.csv": dataset.split_table(),
            "data.json": f'{{"fingerprint": "{dataset.fingerprint()}"}}\n',
        },
    )
    with folder.locked():
        _work(folder, run_config, dataset, console, clock, tensorboard)
    return Run(folder.path)


def resume(run: Source, *, tensorboard: bool = False, console: Console | None = None) -> Run:
    """Go on with a run that was stopped; a finished one is left as it is.

    Args:
        run: the run's folder.
        tensorboard: write TensorBoard's files too.
        console: where messages go.

    Raises:
        RunError: where the folder is no run or in use, or its pictures have changed.
    """
    clock = Clock(time.monotonic())
    console = console or Console()
    folder = RunFolder.open(Path(run))
    with folder.locked():
        if folder.evaluation.exists() and folder.report.exists():
            console.info(f"{folder.path} is finished, nothing to do. Its report: {folder.report}")
            return Run(folder.path)
        run_config = from_mapping(RunConfig, load_toml(folder.config))
        dataset = _open_own(folder, run_config, console)
        _work(folder, run_config, dataset, console, clock, tensorboard)
    return Run(folder.path)


def evaluate(
    run: Source,
    data: Source | None = None,
    *,
    split: str | None = None,
    cache: Source | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Score a trained model on labelled pictures.

    Args:
        run: a run's folder or a weights file of one.
        data: a folder or table; by default the pictures that the run held back.
        split: "train", "valid" or "test"; by default the test pictures where there are any, or
            else those for validation, or else those without a split.
        cache: folder of decoded pictures.
        console: where messages go.

    Raises:
        DataError: for a class that the model doesn't know, or no such pictures.
        RunError: where there is no trained model.
    """
    console = console or Console()
    classifier = load_run(Path(run))
    if data is None:
        folder = RunFolder.open(Path(run))
        own = _open_own(folder, from_mapping(RunConfig, load_toml(folder.config)), console)
        name = _choose_split(set(own.sets), split, folder.path)
        pictures = own.sets[name]
    else:
        listing = list_labelled(Path(data))
        name = _choose_split({sample.split or "" for sample in listing.samples}, split, Path(data))
        chosen = tuple(sample for sample in listing.samples if (sample.split or "") == name)
        with console.stages() as on_progress:
            pictures = open_labelled(
                replace(listing, samples=chosen),
                classifier.classes,
                DataConfig(str(data), cache_dir=str(cache) if cache else None),
                classifier.preprocess,
                on_progress,
            )
    console.info(f"evaluating {len(pictures)} {name} pictures".replace("  ", " "))
    _warn_unreadable(pictures, console)
    return _evaluate(classifier, pictures)[0]


def predict(run: Source, *sources: Source, console: Console | None = None) -> list[dict[str, Any]]:
    """Classify pictures.

    Args:
        run: a run's folder or a weights file of one.
        sources: files, and folders that are searched for pictures.
        console: where progress goes.

    Returns:
        For each picture in the order given ``{"file", "label", "probability", "probabilities"}``,
        or ``{"file", "error"}`` for one that can't be read.

    Raises:
        DataError: for a source that doesn't exist.
        RunError: where there is no trained model.
    """
    classifier = load_run(Path(run))
    files = list_pictures(Path(source) for source in sources)
    with (console or Console()).stages() as on_progress:
        answers = predict_files(classifier, files, on_progress)
    return [answer.to_json() for answer in answers]


def summary(model: str, *, image_size: int | None = None, classes: int | None = None) -> Summary:
    """A model in numbers.

    Args:
        model: a preset's name, or a run's folder.
        image_size: height and width in pixels instead of the preset's.
        classes: width of the output instead of the preset's.

    Raises:
        ConfigError: for an unknown preset or a size that doesn't fit it.
    """
    is_run = model not in PRESETS and (Path(model) / "config.toml").exists()
    config = load_run(Path(model)).model.config if is_run else preset(model)
    if image_size:
        config = replace(config, image_size=(image_size, image_size))
    return summarize(replace(config, num_classes=classes) if classes else config)


def demo(
    folder: Source | None = None, *, console: Console | None = None, started: float | None = None
) -> Run:
    """Draw faces, learn them, test on unseen ones and classify a few.

    Args:
        folder: where the drawn faces and the run go, which must not exist; by default ``demo``
            or, from the second time on, ``demo-2`` and so on.
        console: where messages go.
        started: value of `time.monotonic` when the command began.
    """
    console = console or Console()
    folder = _first_free(Path("demo")) if folder is None else Path(folder)
    check_free(folder)
    counts = {"train": 1500, "valid": 150, "test": 400}
    with console.task("drawing faces", 3 * sum(counts.values())) as task:
        for seed, (split, per_class) in enumerate(counts.items()):
            write_faces(
                folder / "faces" / split,
                per_class,
                size=48,
                seed=seed,
                on_done=lambda count: task.update(task.done + count),
            )
    return train(
        folder / "faces",
        folder / "run",
        settings={"train": DEMO_LENGTH},
        console=console,
        started=started,
    )


def _work(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    console: Console,
    clock: Clock,
    tensorboard: bool,
) -> None:
    """Train, then score the best weights and write the report."""
    # Matplotlib and Jinja2 take a while to import, and nothing but training needs them.
    from vitreous.report.collect import report_of_run
    from vitreous.report.page import render_report, verdict

    device = choose_device(config.train.device)
    facts = _tell(config, dataset, device, console)
    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]
    split = "test" if "test" in dataset.sets else "valid"
    share = len(dataset.sets[split]) / len(valid_set)
    clock = replace(clock, closing_validations=1 + 1.2 * share)
    majority = train_set.majority_class

    def validate(model: ViT) -> ValidScore:
        score, _ = evaluate_set(model, valid_set, config.preprocess, dataset.classes, majority)
        return ValidScore(score.accuracy.value, score.balanced_accuracy.value, score.loss)

    run_training(config, train_set, dataset.classes, validate, folder, console, clock, tensorboard)
    evaluation, probabilities = _evaluate(load_classifier(folder.best), dataset.sets[split])
    write_json(folder.evaluation, {"split": split, **evaluation.to_json()})
    write_json(folder.provenance, {"versions": versions(), "device": describe_device(device)})
    warnings = [f"{path}: {reason}" for path, reason in dataset.unreadable]
    report = report_of_run(
        folder, config, dataset.sets, split, evaluation, probabilities, facts, warnings
    )
    write_text(folder.report, render_report(report))
    console.info(verdict(evaluation))
    console.info(f"report: {folder.report}")
    console.info(f"next: vitreous predict {folder.path} PICTURE ...")


def _open(listing: Listing, config: RunConfig, console: Console) -> Dataset:
    with console.stages() as on_progress:
        dataset = open_dataset(
            listing, config.data, config.preprocess, config.train.seed, on_progress
        )
    for part in dataset.sets.values():
        _warn_unreadable(part, console)
    if listing.ignored:
        console.info(
            f"{len(listing.ignored)} files are not pictures by their names and are left out, "
            f"such as {listing.ignored[0]}"
        )
    return dataset


def _open_own(folder: RunFolder, config: RunConfig, console: Console) -> Dataset:
    """The pictures that a run began with."""
    dataset = _open(list_labelled(Path(config.data.source)), config, console)
    if read_json(folder.data)["fingerprint"] != dataset.fingerprint():
        raise RunError(
            f"the pictures in {config.data.source} are not those that {folder.path} began with: "
            "put them back, or train anew with another --out"
        )
    return dataset


def _tell(
    config: RunConfig, dataset: Dataset, device: torch.device, console: Console
) -> dict[str, str]:
    """Say what will be trained on what; the same goes into the report."""
    counts = ", ".join(f"{len(part)} {name}" for name, part in dataset.sets.items())
    size = summarize(config.model)
    height, width = config.model.image_size
    train = config.train
    length = f"{train.epochs:g} epochs"
    if train.budget_s is not None:
        length = f"{train.budget_s / 60:g} minutes, at most {length}"
    facts = {
        "Pictures": f"{counts}; classes {', '.join(dataset.classes)}",
        "Model": f"ViT from scratch, {size.parameters / 1e6:.1f} M parameters, {size.tokens} "
        f"tokens, {height}x{width} px, {size.flops / 1e9:.2f} GFLOP a picture",
        "Training": f"{length}, batches of {train.batch_size}, seed {train.seed}",
        "Device": describe_device(device),
    }
    for label, text in facts.items():
        console.info(f"{label.lower():9}{text}")
    return facts


def _evaluate(classifier: Classifier, pictures: PictureSet) -> tuple[Evaluation, np.ndarray]:
    return evaluate_set(
        classifier.model,
        pictures,
        classifier.preprocess,
        classifier.classes,
        classifier.majority_class,
    )


def _choose_split(there: set[str], wanted: str | None, where: Path) -> str:
    """The split asked for, or the one that the score is most honest on; "" is no split."""
    order = ("test", "valid", "", "train")
    name = wanted if wanted is not None else next(name for name in order if name in there)
    if name not in there:
        names = ", ".join(sorted(there - {""})) or "no splits"
        raise DataError(f"{where} has no '{name}' pictures: it has {names}")
    return name


def _warn_unreadable(pictures: PictureSet, console: Console) -> None:
    for path, reason in pictures.unreadable:
        console.warn(f"{path}: {reason}; left out")


def _first_free(path: Path) -> Path:
    """The path, or with the first number behind it that is free."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
