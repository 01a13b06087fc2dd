"""One job from listed pictures to its report: what a new run and a resumed one share.

`begin` starts a new run, `work` does what its configuration is for, with labels or without, and a
`Run` is what is left. `api` decides what to do; the parts that do it know nothing of one another
and are joined here.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from html import escape
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch

from vitreous.core.config import dump_toml
from vitreous.core.console import Console
from vitreous.core.files import named_if_damaged, read_json, write_json, write_text
from vitreous.core.launch import first_files, run_place
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.data.folder import Listing
from vitreous.data.folds import fold_datasets
from vitreous.data.overlay import Overlay, read_overlay
from vitreous.data.preprocess import denormalise
from vitreous.data.remote import is_remote
from vitreous.diagnosis.examination import diagnose_run
from vitreous.diagnosis.gather import cost_in_pictures, exact_copies
from vitreous.doctor.findings import Checkup
from vitreous.doctor.first_look import look_first
from vitreous.errors import Interrupted, StorageError, TrainingError
from vitreous.evaluation.inference import TorchNetwork
from vitreous.evaluation.metrics import Evaluation
from vitreous.evaluation.results import FoldScores
from vitreous.evaluation.score import evaluate_set, examine_set
from vitreous.evaluation.thumbnails import thumbnail_answers
from vitreous.evaluation.verdict import verdict_in_full
from vitreous.folds import cross_validate, share_of_time
from vitreous.ladder.climb import climb
from vitreous.model.vit import ViT
from vitreous.opening import known_to_init, learned_from, open_pictures
from vitreous.pages.pictures import picture_at
from vitreous.recipes.facts import Choice
from vitreous.serving.calibrate import (
    MOST_LOOKED_AT,
    OF_EACH_CLASS,
    calibrate_run,
    choose_weights,
    settle_run,
)
from vitreous.serving.origin import first_encoder, original_encoder
from vitreous.telling import tell_next, tell_plan
from vitreous.training.classifier import load_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, free_memory
from vitreous.training.guard import is_out_of_memory
from vitreous.training.learner import ClassLearner
from vitreous.training.pretrain import MaskedAutoencoder, PatchLearner, loss_on, reconstructions
from vitreous.training.provenance import circumstances, note_memory
from vitreous.training.trainer import Sitting, ValidScore
from vitreous.training.trainer import train as run_training


class Run:
    """A training run on disk.

    Args:
        path: its folder.

    Raises:
        RunError: where that is no run.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._folder = RunFolder.open(Path(path))
        self.path = self._folder.path
        self.report = self._folder.report

    @property
    def evaluation(self) -> dict[str, Any]:
        """The final score, with the keys of ``vitreous evaluate --json``."""
        return read_json(self._folder.evaluation)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str | None:
        """In a notebook: the report, where there is one."""
        if not self.report.exists():
            return None
        page = escape(self.report.read_text(encoding="utf-8"))
        style = "width:100%;height:720px;border:0"
        return f'<iframe srcdoc="{page}" style="{style}" sandbox></iframe>'


def begin(
    default: Path,
    out: str | PathLike[str] | None,
    choice: Choice,
    listing: Listing,
    sitting: Sitting,
    overlay: Overlay | None = None,
) -> Run:
    """A new run, from listed pictures, changed by an overlay or not, to its end.

    Its folder appears with all that is known before the first step.

    Args:
        default: its place, or where that is taken one beside it, if nobody named another.
        out: the place named.
        choice: every setting, with reasons.
        listing: the pictures.
        sitting: this process.
        overlay: what was changed of the listing.
    """
    config, console = choice.config, sitting.console
    dataset = open_pictures(listing, config, console)
    if config.folds:
        # Too few pictures are told before anything is written.
        for repeat in range(config.folds.repeats):
            fold_datasets(dataset, config.folds.count, repeat, config.train.seed)
    files = {
        "choice.json": json.dumps(choice.rows()),
        "split.csv": dataset.split_table(),
        "data.json": f'{{"fingerprint": "{dataset.fingerprint()}"}}\n',
        RunFolder(default).provenance.name: json.dumps(circumstances(config.train.device)),
    }
    if checkup := _look_first(listing, config, sitting):
        files[RunFolder(default).findings.name] = json.dumps(checkup.to_record())
    path, _ = run_place(default, out)  # only now: another command may have taken one meanwhile
    if overlay:
        console.info(f"overlay: {overlay}")
        own = RunFolder(path).overlay
        files[own.name] = overlay.text
        config = replace(config, data=replace(config.data, overlay=str(own.absolute())))
    files |= {"config.toml": dump_toml(config), **first_files(path)}
    folder = RunFolder.create(path, files)
    with folder.locked():
        work(folder, config, dataset, sitting)
    return Run(folder.path)


def _look_first(listing: Listing, config: RunConfig, sitting: Sitting) -> Checkup | None:
    """What is wrong with labelled pictures, told before it is learned."""
    if not config.data.check or config.pretrain:
        return None
    budget_s, source = config.train.budget_s, Path(config.data.source)
    left_s = None if budget_s is None else sitting.clock.left_s(budget_s, validation_s=0.0)
    console, command = sitting.console, f"vitreous check {quote(str(source))}"
    try:
        with console.stages() as on_progress:
            checkup = look_first(listing, source, left_s, on_progress)
    except StorageError as error:
        # A full folder for temporary files stands in the way of looking, not of training.
        console.warn(f"the pictures weren't looked at for faults: {error}")
        return None
    if checkup is None:
        why = "is left out for far ones" if is_remote(source) else "would take too long"
        console.info(f"looking for faults among the pictures first {why}: {command}")
    elif checkup.counts["error"] or checkup.counts["warning"]:
        console.warn(f"the pictures: {checkup.verdict} Which: {command}")
    return checkup


def _shown_findings(folder: RunFolder) -> str:
    """What was found then, as a part of the report."""
    from vitreous.doctor.page import render_findings

    if not folder.findings.exists():
        return ""
    with named_if_damaged(folder.findings):
        checkup = Checkup.from_record(read_json(folder.findings))
    return render_findings(checkup, picture_at)


def work(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    sitting: Sitting,
) -> None:
    """Do what the configuration is for: learn classes, or pretrain.

    Raises:
        Interrupted: where the person stops it, be it behind training.
        TrainingError: where a loss stays no number, or memory is too small.
    """
    job = _pretrain if config.pretrain else _train
    command = f"vitreous {'pretrain' if config.pretrain else 'train'} --resume"
    try:
        job(folder, config, dataset, sitting)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; what was saved is whole, and the rest can be done later. Go on with: "
            f"{command} {quote(str(folder.path))}"
        ) from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory is too small; what was saved is whole: free some and go on ({command} "
            f"{quote(str(folder.path))}), or begin another run with a smaller --model or "
            "--image-size"
        ) from None


def _train(
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
    pairs = zip(dataset.listing.samples, dataset.splits, strict=True)
    put_aside = [sample for sample, split in pairs if split == "calibration"]
    untouched = bool(put_aside) and not (
        learned_from(put_aside, folder.best)
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
    _note_memory(folder, device, console)
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


def _pretrain(
    folder: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    sitting: Sitting,
) -> None:
    """Pretrain, then draw what the model makes of hidden patches."""
    from vitreous.report.reconstructions import draw_reconstructions

    device, console = choose_device(config.train.device), sitting.console
    tell_plan(config, dataset, device, console)
    train_set, valid_set = dataset.sets["train"], dataset.sets["valid"]
    sitting = replace(sitting, clock=replace(sitting.clock, closing_validations=1))

    def validate(model: MaskedAutoencoder) -> ValidScore:
        return ValidScore(loss=loss_on(model, valid_set, config))

    learner = run_training(config, train_set, PatchLearner, validate, folder, sitting)
    rows = reconstructions(learner.averaged(), valid_set, config)
    draw_reconstructions(
        [denormalise(row, config.preprocess).numpy() for row in rows], folder.reconstructions
    )
    best = learner.state.best
    assert best is not None
    _note_memory(folder, device, console)
    score = {"split": "valid", "n": len(valid_set), "loss": best.loss, "step": best.step}
    write_json(folder.evaluation, score)
    console.info(
        f"loss {best.loss:.3f} on {len(valid_set)} pictures held back: 0 tells every hidden patch "
        "exactly, 1 tells no more than its mean"
    )
    console.info(f"pictures: {folder.reconstructions}")
    console.info(f"next: vitreous train FOLDER --init {quote(str(folder.path))}")


def _note_memory(folder: RunFolder, device: torch.device, console: Console) -> None:
    peak = note_memory(folder, device)
    if peak is not None:
        console.info(f"memory: at most {peak / 1e9:.1f} GB")


def is_finished(folder: RunFolder, config: RunConfig) -> bool:
    """Whether nothing is left to do."""
    shown = folder.reconstructions if config.pretrain else folder.report
    return folder.evaluation.exists() and shown.exists()
