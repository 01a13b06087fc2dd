"""One training job from listed pictures to its report: what a new run and a resumed one share.

`api` decides what to do; the parts that do it know nothing of one another and are joined here.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vitreous.core.console import Console
from vitreous.core.files import read_json, write_json, write_text
from vitreous.core.run import RunFolder, versions
from vitreous.data.dataset import Dataset, open_dataset
from vitreous.data.folder import Listing, list_labelled
from vitreous.data.loader import PictureSet
from vitreous.errors import RunError
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.score import evaluate_set
from vitreous.model.summary import summarize
from vitreous.model.vit import ViT
from vitreous.training.classifier import Classifier, load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, describe_device
from vitreous.training.learner import ClassLearner
from vitreous.training.trainer import Clock, ValidScore
from vitreous.training.trainer import train as run_training


def work(
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
        return ValidScore(
            accuracy=score.accuracy.value,
            balanced_accuracy=score.balanced_accuracy.value,
            loss=score.loss,
        )

    learner = partial(ClassLearner, classes=dataset.classes)
    run_training(config, train_set, learner, validate, folder, console, clock, tensorboard)
    evaluation, probabilities = score_on(load_classifier(folder.best), dataset.sets[split])
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


def open_pictures(listing: Listing, config: RunConfig, console: Console) -> Dataset:
    """Decode and divide the pictures, with progress and with a word on what is left out."""
    with console.stages() as on_progress:
        dataset = open_dataset(
            listing, config.data, config.preprocess, config.train.seed, on_progress
        )
    for part in dataset.sets.values():
        warn_unreadable(part, console)
    if listing.ignored:
        console.info(
            f"{len(listing.ignored)} files are not pictures by their names and are left out, "
            f"such as {listing.ignored[0]}"
        )
    return dataset


def open_own_pictures(folder: RunFolder, config: RunConfig, console: Console) -> Dataset:
    """The pictures that a run began with."""
    dataset = open_pictures(list_labelled(Path(config.data.source)), config, console)
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


def score_on(classifier: Classifier, pictures: PictureSet) -> tuple[Evaluation, np.ndarray]:
    """The evaluation and the probabilities of a classifier on some pictures."""
    return evaluate_set(
        classifier.model,
        pictures,
        classifier.preprocess,
        classifier.classes,
        classifier.majority_class,
    )


def warn_unreadable(pictures: PictureSet, console: Console) -> None:
    """Name each file that can't be decoded."""
    for path, reason in pictures.unreadable:
        console.warn(f"{path}: {reason}; left out")
