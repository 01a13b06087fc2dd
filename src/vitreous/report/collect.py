"""From a finished run to what its report shows."""

from collections.abc import Mapping, Sequence
from shlex import quote

import numpy as np
import torch

from vitreous.core.config import dump_toml
from vitreous.core.files import read_json
from vitreous.core.rng import numpy_stream, torch_stream
from vitreous.core.run import RunFolder, versions
from vitreous.data.loader import PictureSet, TrainingOrder
from vitreous.data.mixing import mix
from vitreous.data.preprocess import denormalise, normalise
from vitreous.data.transforms import augment
from vitreous.diagnosis.causes import Diagnosis
from vitreous.evaluation.label_errors import find_label_errors, label_errors_in_words
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.results import FoldAnswers, FoldScores, Kept, Ladder
from vitreous.explanation.anatomy import patch_filters, position_similarity
from vitreous.pages.pictures import picture_uri
from vitreous.report.page import Report
from vitreous.report.parts import Doubt, DoubtfulLabels, Mistake
from vitreous.report.reasons import with_reasons
from vitreous.training.classifier import Classifier
from vitreous.training.config import RunConfig
from vitreous.training.logbook import read_logbook

MISTAKES = 24
AUGMENTED = 24
DOUBTS, _DOUBT_SIDE = 6, 128


def report_of_run(
    run: RunFolder,
    config: RunConfig,
    sets: Mapping[str, PictureSet],
    split: str,
    evaluation: Evaluation,
    probabilities: np.ndarray,
    classifier: Classifier,
    facts: Mapping[str, str],
    warnings: Sequence[str],
    diagnosis: Diagnosis,
    findings: str,
) -> Report:
    """Gather a run's files and figures.

    Args:
        run: the folder.
        config: every setting.
        sets: pictures by split.
        split: the one evaluated.
        evaluation: its score.
        probabilities: (pictures, classes) of that split.
        classifier: that was evaluated, in evaluation mode.
        facts: label and text of what else to tell.
        warnings: lines to show.
        diagnosis: what it is stuck on.
        findings: HTML of what is wrong with the pictures; empty where nobody looked.
    """
    mistakes = confident_mistakes(sets[split], probabilities, evaluation.classes)
    mistakes, reasons = with_reasons(mistakes, classifier)
    ladder, kept = Ladder.read(run), Kept.read(run)
    # Settings name the overlay, too, where the run was when it began.
    overlay = f" --overlay {quote(str(run.overlay))}" if config.data.overlay else ""
    return Report(
        name=run.path.name,
        evaluation=evaluation,
        evaluated_on=split,
        ladder=ladder,
        history=read_logbook(run.metrics),
        mistakes=mistakes,
        augmented=[] if ladder.kept == "probe" else augmented_sample(sets["train"], config),
        warnings=warnings,
        diagnosis=diagnosis,
        findings=findings,
        facts=facts,
        choice=read_json(run.choice) if run.choice.exists() else [],
        config=dump_toml(config),
        versions=versions(),
        reproduce=(
            f"vitreous train {quote(config.data.source)} "
            f"--config {quote(str(run.config))}{overlay} --out NEW_FOLDER"
        ),
        reasons=reasons,
        folds=FoldScores.read(run) if run.folds.exists() else None,
        labels=doubtful_labels(run, sets),
        filters=patch_filters(classifier.model),
        positions=position_similarity(classifier.model),
        keeps_last=kept is not None and kept.weights == "last",
    )


def doubtful_labels(run: RunFolder, sets: Mapping[str, PictureSet]) -> DoubtfulLabels | None:
    """What a run's folds say of its labels; nothing without folds."""
    if not run.fold_answers.exists():
        return None
    answers = FoldAnswers.read(run)
    probabilities, labels, rows = answers.mean(), answers.labels.numpy(), answers.rows.numpy()
    errors = find_label_errors(probabilities, labels)
    # Folds are made of these two, and all sets have one array of pixels.
    held = [(row, path) for name in ("train", "valid")
            for row, path in zip(sets[name].rows, sets[name].paths, strict=True)]  # fmt: skip
    files = {int(row): "/".join(path.parts[-2:]) for row, path in held}
    first = [
        Doubt(
            picture=picture_uri(np.asarray(sets["train"].pixels[rows[at]]), _DOUBT_SIDE),
            file=files[int(rows[at])],
            label=answers.classes[labels[at]],
            suggested=answers.classes[errors.suggested[at]],
            probability=float(probabilities[at, errors.suggested[at]]),
        )
        for at in errors.suspects[:DOUBTS]
    ]
    command = f"vitreous audit {quote(str(run.path))}"
    return DoubtfulLabels(label_errors_in_words(errors), first, command)


def confident_mistakes(
    pictures: PictureSet, probabilities: np.ndarray, classes: Sequence[str]
) -> list[Mistake]:
    """The wrong answers with the highest probability."""
    answers = probabilities.argmax(1)
    sure = probabilities.max(1)
    wrong = np.flatnonzero(answers != pictures.labels.numpy())
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]
    return [
        Mistake(
            picture=np.asarray(pictures.pixels[pictures.rows[at]]),
            file="/".join(pictures.paths[at].parts[-2:]),
            truth=classes[int(pictures.labels[at])],
            answer=classes[int(answers[at])],
            probability=float(sure[at]),
        )
        for at in worst
    ]


def augmented_sample(pictures: PictureSet, config: RunConfig) -> list[np.ndarray]:
    """The first pictures of the run as its first step saw them: uint8 (height, width, 3) each."""
    seed = config.train.seed
    is_plain = config.augment.plain_share >= 1.0
    order = TrainingOrder(len(pictures), config.train.batch_size, seed, pictures.shuffle)
    pixels, labels = pictures.batch(order.step(0))
    images = normalise(pixels, config.preprocess)
    images = augment(images, config.augment, torch_stream(seed, "augment", 0), is_plain)
    if not is_plain:
        one_hot = torch.nn.functional.one_hot(labels, config.model.num_classes).float()
        images, _ = mix(images, one_hot, config.augment, numpy_stream(seed, "mix", 0))
    return list(denormalise(images[:AUGMENTED], config.preprocess).numpy())
