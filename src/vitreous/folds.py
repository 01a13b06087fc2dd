"""Cross-validation: the same training several times, each time scored on pictures held out of it.

Every fold is a run of its own inside the run's folder, as a ladder's rungs are, so that what was
stopped goes on where it was. The folds say how good such a training is, on every picture; the model
that is kept is trained afterwards as any run's is, in as much time as each fold had.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch

from vitreous.core.files import read_tensors, write_json, write_tensors
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.data.folds import fold_datasets
from vitreous.evaluation.inference import TorchNetwork, predict_set
from vitreous.evaluation.intervals import Interval, balanced_interval, proportion_interval
from vitreous.evaluation.metrics import evaluate_probabilities
from vitreous.evaluation.results import Fold, FoldAnswers, FoldScores, Pooled
from vitreous.training.classifier import load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device
from vitreous.training.trainer import Clock, Sitting

#: Trains a classifier into a folder and leaves its best weights there.
Learn = Callable[[RunFolder, RunConfig, Dataset, Sitting], None]


def cross_validate(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    learn: Learn,
    sitting: Sitting,
) -> FoldScores:
    """Train and score the folds that are left, then put all answers together.

    Args:
        run: the whole run.
        config: of it, with `folds`.
        dataset: its pictures.
        learn: trains one classifier.
        sitting: this process.

    Raises:
        DataError: where a class has too few pictures for so many folds.
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
    """
    assert config.folds is not None
    scores = FoldScores.read(run)
    if scores.accuracy is not None:
        return scores
    count, repeats = config.folds.count, config.folds.repeats
    seed = config.train.seed
    for repeat in range(repeats):
        for number, part in enumerate(fold_datasets(dataset, count, repeat, seed), start=1):
            name = f"{repeat + 1}-{number}" if repeat else f"{number}"
            if any(fold.name == name for fold in scores.folds):
                _forget_checkpoints(run.fold(name))  # the last sitting may have ended before
                continue
            sitting.console.info(f"fold {len(scores.folds) + 1} of {count * repeats}")
            begun = time.monotonic()
            settings, clock = share_of_time(config, sitting.clock, scores)
            folder = run.fold(name)
            learn(folder, settings, part, replace(sitting, clock=clock))
            fold = _score(folder, config, part, name, begun)
            scores = replace(scores, folds=(*scores.folds, fold))
            write_json(run.folds, asdict(scores))
            _forget_checkpoints(folder)
            sitting.console.info(
                f"fold {name}: accuracy {fold.accuracy:.3f}, balanced "
                f"{fold.balanced_accuracy:.3f} on {fold.n} pictures held out"
            )
    scores = _together(run, scores, dataset, repeats)
    write_json(run.folds, asdict(scores))
    return scores


def _forget_checkpoints(fold: RunFolder) -> None:
    """What resuming needed is many times the model, and nothing resumes a finished fold."""
    for folder in (fold, *(RunFolder(rung, fold.whole) for rung in fold.rungs.glob("*"))):
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        folder.features.unlink(missing_ok=True)


def share_of_time(config: RunConfig, clock: Clock, scores: FoldScores) -> tuple[RunConfig, Clock]:
    """Settings for the next training, and when it began.

    Of the time that is left it gets as much as each one still to come, the model that is kept being
    the last of them; and all leave the same time to what comes behind that one.
    """
    assert config.folds is not None
    train, now = config.train, time.monotonic()
    to_come = config.folds.count * config.folds.repeats + 1 - len(scores.folds)
    if train.budget_s is not None:
        left = train.budget_s - max(now - clock.started, scores.seconds)
        train = replace(train, budget_s=max(left / to_come, 1e-3))
    clock = replace(clock, started=now, share=1 / to_come)
    return replace(config, train=train, folds=None), clock


def _score(folder: RunFolder, config: RunConfig, part: Dataset, name: str, begun: float) -> Fold:
    """Answer for the pictures held out, and write that down."""
    classifier = load_classifier(folder.best)
    network = TorchNetwork(classifier.model.to(choose_device(config.train.device)))
    pictures = part.sets["test"]
    probabilities = predict_set(network, pictures, classifier.preprocess)
    tensors = {"probabilities": torch.from_numpy(probabilities),
               "rows": torch.from_numpy(pictures.rows)}  # fmt: skip
    write_tensors(folder.answers, tensors, {})
    found = evaluate_probabilities(probabilities, pictures.labels.numpy(), part.classes, None)
    return Fold(
        name=name,
        n=found.n,
        accuracy=found.accuracy.value,
        balanced_accuracy=found.balanced_accuracy.value,
        loss=found.loss,
        seconds=round(time.monotonic() - begun, 2),
    )


def _together(run: RunFolder, scores: FoldScores, dataset: Dataset, repeats: int) -> FoldScores:
    """Put the answers of all folds into one file, and score them together.

    The interval is that of as many pictures, whatever the repeats: they are the same ones.
    """
    answers = [read_tensors(run.fold(fold.name).answers)[0] for fold in scores.folds]
    # Every repeat has all pictures: sorted by them, its answers stand in the order of the rows.
    all_rows, all_answers = (
        torch.cat([part[name] for part in answers]).unflatten(0, (repeats, -1))
        for name in ("rows", "probabilities")
    )
    order = all_rows.argsort(dim=1)
    rows = all_rows[0, order[0]]
    probabilities = torch.take_along_dim(all_answers, order[..., None], dim=1)
    index = {name: number for number, name in enumerate(dataset.classes)}
    names = [dataset.listing.samples[row].label for row in rows.tolist()]
    labels = torch.tensor([index[name] for name in names if name is not None])
    FoldAnswers(probabilities, labels, rows, dataset.classes).write(run)
    # A picture that is answered rightly in one repeat of two counts as half a one.
    right = (probabilities.argmax(2) == labels).double().mean(0).numpy()
    return replace(
        scores,
        n=len(labels),
        accuracy=_over_folds(
            [fold.accuracy for fold in scores.folds],
            proportion_interval(round(right.sum()), len(right)),
        ),
        balanced_accuracy=_over_folds(
            [fold.balanced_accuracy for fold in scores.folds],
            balanced_interval(right, labels.numpy()),
        ),
    )


def _over_folds(values: Sequence[float], interval: Interval) -> Pooled:
    return Pooled(float(np.mean(values)), float(np.std(values, ddof=1)), interval)
