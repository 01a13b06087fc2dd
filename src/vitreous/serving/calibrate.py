"""Making a trained model as sure as it is right, and able to say that it doesn't know.

Behind training the weights to use are chosen, and their head is divided by the temperature that
fits the validation pictures; what those put aside for calibration say, or the validation pictures
where there are none, is written beside the weights. `calibrate_on` does the second part anew with
other pictures.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from vitreous.core.files import copy_file, write_json
from vitreous.core.rng import numpy_stream
from vitreous.core.run import RunFolder
from vitreous.data.loader import PictureSet, some_of_each_class
from vitreous.evaluation.calibration import Calibration, load_calibration, save_calibration
from vitreous.evaluation.choose import difference, simplest_within_one_error
from vitreous.evaluation.conformal import ConformalScores
from vitreous.evaluation.inference import TorchNetwork, outputs_of_set, probabilities_of
from vitreous.evaluation.refusal import FEATURES, LOOKS, Refusal, fit_views
from vitreous.evaluation.results import Kept
from vitreous.evaluation.seeing import Seen, see_set
from vitreous.evaluation.temperature import fit_temperature
from vitreous.model.features import WithFeatures
from vitreous.training.classifier import (
    Classifier,
    load_classifier,
    read_description,
    save_classifier,
    tempered,
    unmap,
)
from vitreous.training.config import Device
from vitreous.training.device import choose_device

#: Training pictures that tell where the classes lie.
MOST_LOOKED_AT = 2000
#: And at least so many of each class: one that isn't looked at is none of these.
OF_EACH_CLASS = 5


def choose_weights(run: RunFolder, valid: PictureSet, device: Device) -> None:
    """Put the weights to use where they are looked for.

    The last ones, unless those of the best validation are better by more than one standard error of
    the difference (`evaluation.choose`): the highest of many scores owes something to chance, and
    the schedule ends where it ends for a reason (docs/adr/0017). Once decided, it stays so.

    Args:
        run: whose training has ended; a head that was fitted alone has no last weights.
        valid: pictures that it didn't learn from.
        device: as in `TrainConfig`.
    """
    if not run.last.exists():
        return
    kept = Kept.read(run)
    if kept is None:
        labels = valid.labels.numpy()
        right = [
            probabilities_of(_answers(load_classifier(weights), valid, device)).argmax(1) == labels
            for weights in (run.last, run.best)
        ]
        keeps_best = simplest_within_one_error(right, labels) == 1
        gain, error = difference(right[0], right[1], labels)
        kept = Kept("best" if keeps_best else "last", gain, error)
        write_json(run.kept, asdict(kept))
    if kept.weights == "last":
        copy_file(run.last, run.best)


def settle_run(run: RunFolder, valid: PictureSet, device: Device) -> None:
    """Choose the weights to use, and divide their head by the temperature that fits them.

    A run that was stopped behind it, whose head has been divided already, stays as it is.

    Args:
        run: whose training has ended.
        valid: pictures that it didn't learn from.
        device: as in `TrainConfig`.
    """
    if read_description(run.best).temperature is not None:
        return
    choose_weights(run, valid, device)
    classifier = load_classifier(run.best)
    temperature = fit_temperature(_answers(classifier, valid, device), valid.labels.numpy())
    unmap(classifier.model)  # Windows replaces no file that is mapped
    save_classifier(run.best, tempered(classifier, temperature))


def _answers(classifier: Classifier, pictures: PictureSet, device: Device) -> np.ndarray:
    network = TorchNetwork(classifier.model.to(choose_device(device)))
    return outputs_of_set(network, pictures, classifier.preprocess)


def calibrate_run(
    weights: Path, sets: Mapping[str, PictureSet], untouched: bool, device: Device, seed: int
) -> None:
    """Write the calibration beside the weights.

    Args:
        weights: of the run.
        sets: pictures by split: train, valid, and calibration where there is one.
        untouched: whether those put aside for calibration are new to the weights.
        device: as in `TrainConfig`.
        seed: of the choice of training pictures.
    """
    classifier, train = load_classifier(weights), sets["train"]
    stream = numpy_stream(seed, "calibration")
    chosen = some_of_each_class(train.labels, MOST_LOOKED_AT, stream, each=OF_EACH_CLASS)
    once = replace(classifier, preprocess=replace(classifier.preprocess, mirror=False))
    seen = _see(once, train, device, chosen)
    views = fit_views(seen.numbers[LOOKS], seen.numbers[FEATURES], train.labels.numpy()[chosen])
    put_aside = sets.get("calibration")
    pictures = sets["valid"] if put_aside is None or not len(put_aside) else put_aside
    seen = _see(classifier, pictures, device)
    calibration = Calibration(
        ConformalScores.of(probabilities_of(seen.logits), pictures.labels.numpy()),
        Refusal.calibrated(views, seen.numbers),
        untouched=untouched and pictures is put_aside,
    )
    save_calibration(weights, calibration)


def calibrate_on(weights: Path, pictures: PictureSet, device: Device) -> Calibration:
    """Calibrate anew, on labelled pictures that were used for nothing else.

    Where the classes lie is known from training alone: a checkpoint that came without that gets
    prediction sets and can't refuse.

    Args:
        weights: whose calibration is written, over the one before.
        pictures: at least one.
        device: as in `TrainConfig`.

    Raises:
        RunError: where the weights are damaged.
    """
    classifier = load_classifier(weights)
    before = load_calibration(weights)
    seen = _see(classifier, pictures, device)
    refusal = before.refusal if before else None
    calibration = Calibration(
        ConformalScores.of(probabilities_of(seen.logits), pictures.labels.numpy()),
        Refusal.calibrated(refusal.views, seen.numbers) if refusal else None,
        untouched=True,
    )
    save_calibration(weights, calibration)
    return calibration


def _see(
    classifier: Classifier,
    pictures: PictureSet,
    device: Device,
    positions: np.ndarray | None = None,
) -> Seen:
    model = WithFeatures(classifier.model.to(choose_device(device)))
    if positions is None:
        positions = np.arange(len(pictures))
    count = len(classifier.classes)
    return see_set(TorchNetwork(model), pictures, positions, classifier.preprocess, count)
