"""Learning with labels, to the report: train, calibrate, score, say what it is stuck on.

By folds first where they are asked for. What a run with labels is to `job`; the parts that do it
know nothing of one another and are joined here.
"""

from dataclasses import asdict, replace
from functools import partial

import numpy as np

from vitreous.core.console import Console
from vitreous.core.files import named_if_damaged, read_json, write_json, write_text
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.data.overlay import read_overlay
from vitreous.diagnosis.examination import diagnose_run
from vitreous.diagnosis.gather import cost_in_pictures, exact_copies
from vitreous.doctor.findings import Checkup
from vitreous.evaluation.inference import TorchNetwork
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.results import FoldScores
from vitreous.evaluation.score import evaluate_set, examine_set
from vitreous.evaluation.thumbnails import thumbnail_answers
from vitreous.evaluation.verdict import verdict_in_full
from vitreous.folds import cross_validate, share_of_time
from vitreous.ladder.climb import climb
from vitreous.model.vit import ViT
from vitreous.opening import known_to_init, learned_from
from vitreous.pages.pictures import picture_at
from vitreous.serving.calibrate import (
    MOST_LOOKED_AT,
    OF_EACH_CLASS,
    calibrate_run,
    choose_weights,
    settle_run,
)
from vitreous.serving.origin import first_encoder, original_encoder
from vitreous.telling import tell_memory, tell_next, tell_plan
from vitreous.training.classifier import load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, free_memory
from vitreous.training.learner import ClassLearner
from vitreous.training.trainer import Sitting, ValidScore
from vitreous.training.trainer import train as run_training


def learn_classes(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    sitting: Sitting,
) -> None:
    """Train, by folds first where they are asked for, then score the weights that are kept."""
    console = sitting.console
    facts = tell_plan(config, dataset, choose_device(config.train.device), console)
    if config.data.overlay:
        facts["Overlay"] = str(read_overlay(folder.overlay))
    warnings = _warn_of_init(config, dataset, console)
    split = "test" if "test" in dataset.sets else "valid"
    settings, folds = config, None
    if config.folds:

        def learn(fold: RunFolder, settings: RunConfig, part: Dataset, sitting: Sitting) -> None:
            _learn(fold, settings, part, "test", sitting)

        folds = cross_validate(folder, config, dataset, learn, sitting)
        console.info("all folds are scored: now the model that is kept")
        settings, clock = share_of_time(config, sitting.clock, folds)
        sitting = replace(sitting, clock=clock)
    _learn(folder, settings, dataset, split, sitting)
    _conclude(folder, config, dataset, split, folds, facts, warnings, console)


def _warn_of_init(config: RunConfig, dataset: Dataset, console: Console) -> list[str]:
    """Say where weights to begin with have seen what the run will be scored on."""
    known = known_to_init(config, dataset)
    if known and known.labelled:
        words = f"of the pictures held back, {known}: the score will be too high"
        console.warn(f"{words}; hold back others, in a folder 'test' beside the classes' 'train'")
        return [words]
    if known:
        console.info(f"of the pictures held back, {known}")
    return []


def _learn(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    split: str,
    sitting: Sitting,
) -> None:
    """Train to the weights that are kept, their probabilities as sure as they are right.

    A budget leaves time to score a split afterwards.
    """
    # A first validation imports these two, and what it takes is counted many times over.
    import sklearn.metrics  # noqa: F401

    from vitreous.report.collect import MISTAKES
    from vitreous.report.reasons import cost_in_pictures as cost_of_reasons

    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]
    # Of a ladder the last rung is scored once more, and all are drawn. Two weights are compared.
    scored = 2 if config.ladder else 1
    looks = 2 if config.preprocess.mirror else 1
    own = scored * len(valid_set) + 1.2 * looks * (3 * len(valid_set) + len(dataset.sets[split]))
    behind_all = (
        1.2 * _seen_to_calibrate(dataset, looks)
        + cost_in_pictures(len(train_set))
        + looks * cost_of_reasons(MISTAKES)
    )
    pictures = own + sitting.clock.share * behind_all
    clock = replace(sitting.clock, closing_validations=pictures / len(valid_set))
    sitting = replace(sitting, clock=clock)
    majority = train_set.majority_class
    # One look is enough to compare the weights of a run, and leaves more time to learn.
    once = replace(config.preprocess, mirror=False)

    def score(model: ViT) -> tuple[Evaluation, np.ndarray]:
        return evaluate_set(TorchNetwork(model), valid_set, once, dataset.classes, majority)

    def validate(model: ViT) -> ValidScore:
        found, _ = score(model)
        return ValidScore(
            accuracy=found.accuracy.value,
            balanced_accuracy=found.balanced_accuracy.value,
            loss=found.loss,
        )

    encoder = first_encoder(folder, config, sitting.console)
    if config.ladder:
        choose = partial(choose_weights, valid=valid_set, device=config.train.device)
        climb(folder, config, dataset, encoder, score, validate, choose, sitting)
    else:
        learner = partial(ClassLearner, classes=dataset.classes, encoder=encoder)
        run_training(config, train_set, learner, validate, folder, sitting)
    free_memory()  # what comes behind training needs some
    settle_run(folder, valid_set, config.train.device)


def _seen_to_calibrate(dataset: Dataset, looks: int) -> int:
    """How many pictures are looked at for it, each held out as often as `predict` does."""
    held_out = dataset.sets.get("calibration", dataset.sets["valid"])
    most = MOST_LOOKED_AT + OF_EACH_CLASS * len(dataset.classes)
    return looks * len(held_out) + min(len(dataset.sets["train"]), most)


def _conclude(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    split: str,
    folds: FoldScores | None,
    facts: dict[str, str],
    warnings: list[str],
    console: Console,
) -> None:
    """Calibrate and score what is kept, say what it is stuck on, write the report."""
    # Matplotlib and Jinja2 take a while to import, and nothing but training needs them.
    from vitreous.report.collect import report_of_run
    from vitreous.report.page import render_report

    device, train_set = choose_device(config.train.device), dataset.sets["train"]
    console.info("calibrating: how sure it may be, and what it doesn't know")
    put_aside = dataset.sets.get("calibration")
    untouched = put_aside is not None and not (
        learned_from(put_aside.paths, folder.best, read=[put_aside])
        or exact_copies(dataset, "calibration", known=("train", "valid"))
    )
    calibrate_run(folder.best, dataset.sets, untouched, config.train.device, config.train.seed)
    best = load_classifier(folder.best)
    evaluation, probabilities = examine_set(
        TorchNetwork(best.model.to(device)),
        dataset.sets[split],
        best.preprocess,
        best.classes,
        train_set.majority_class,
        best.temperature,
    )
    thumbnails = thumbnail_answers(train_set, dataset.sets[split], config.train.seed)
    if thumbnails is not None:
        labels = dataset.sets[split].labels.numpy()
        evaluation = evaluation.with_baseline("thumbnails", thumbnails, labels)
    evaluation = replace(evaluation, chose_weights=split == "valid")
    found = {"split": split, **evaluation.to_json()}
    write_json(folder.evaluation, {**found, "folds": asdict(folds)} if folds else found)
    begun = original_encoder(config, console)
    diagnosis = diagnose_run(folder, config, dataset, split, begun, probabilities, thumbnails)
    write_json(folder.diagnosis, diagnosis.to_json())
    tell_memory(folder, device, console)
    warnings = [*warnings, *(f"{path}: {reason}" for path, reason in dataset.unreadable)]
    report = report_of_run(
        folder,
        config,
        dataset.sets,
        split,
        evaluation,
        probabilities,
        best,
        facts,
        warnings,
        diagnosis,
        _shown_findings(folder),
    )
    write_text(folder.report, render_report(report))
    console.info(verdict_in_full(evaluation))
    tell_next(folder, diagnosis, folds, report.labels, console)


def _shown_findings(folder: RunFolder) -> str:
    """What was found then, as a part of the report."""
    from vitreous.doctor.page import render_findings

    if not folder.findings.exists():
        return ""
    with named_if_damaged(folder.findings):
        checkup = Checkup.from_record(read_json(folder.findings))
    return render_findings(checkup, picture_at)
