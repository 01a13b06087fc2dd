"""What a job says: before its work what is learned on what, and at its end what to do next."""

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

import torch

from vitreous.core.console import Console
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.diagnosis.causes import Diagnosis
from vitreous.evaluation.results import FoldScores
from vitreous.model.summary import summarize
from vitreous.training.config import RunConfig
from vitreous.training.device import describe_device
from vitreous.training.provenance import note_memory

if TYPE_CHECKING:
    from vitreous.report.parts import DoubtfulLabels

#: Classes that are named.
_NAMES = 20


def tell_plan(
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
    if config.folds:
        times = config.folds.count * config.folds.repeats
        each = "each" if train.budget_s is None else "in all"
        length = f"{length} {each}, {times + 1} times: {times} folds to score, the last to keep"
    if config.ladder:
        length = f"{length}, rung by rung: {', '.join(config.ladder.rungs)}"
    classes = f"; {_classes_in_words(dataset.classes)}" if dataset.classes else ""
    start = f"begun with {config.init} and a new head" if config.init else "from scratch"
    facts = {
        "Pictures": f"{counts}{classes}",
        "Model": f"ViT {start}, {size.parameters / 1e6:.1f} M parameters, {size.tokens} "
        f"tokens, {height}x{width} px, {size.flops / 1e9:.2f} GFLOP a picture",
        "Training": f"{length}, batches of {train.batch_size}, seed {train.seed}",
        "Device": describe_device(device),
    }
    if config.preprocess.mirror:
        facts["Answers"] = "mean over a picture and its mirror image; curves: the picture alone"
    for label, text in facts.items():
        console.info(f"{label.lower():9}{text}")
    return facts


def _classes_in_words(classes: Sequence[str]) -> str:
    """How many there are, and their names as far as they can be taken in."""
    more = f", and {len(classes) - _NAMES:,} more" if len(classes) > _NAMES else ""
    return f"{len(classes):,} classes: {', '.join(classes[:_NAMES])}{more}"


def tell_next(
    folder: RunFolder,
    diagnosis: Diagnosis,
    folds: FoldScores | None,
    labels: "DoubtfulLabels | None",
    console: Console,
) -> None:
    """What the run is stuck on, what its folds say, and what to do now."""
    if diagnosis.causes:
        console.warn(f"{diagnosis}. Next: vitreous diagnose {quote(str(folder.path))}")
    if folds:
        console.info(folds.in_words())
    if labels:
        console.info(labels.verdict)
        if labels.first:
            console.info(f"next: {labels.command}")
    console.info(f"report: {folder.report}")
    console.info(f"next: vitreous predict {quote(str(folder.path))} PICTURE ...")


def tell_memory(folder: RunFolder, device: torch.device, console: Console) -> None:
    """Say what memory it took at most, and write it down."""
    peak = note_memory(folder, device)
    if peak is not None:
        console.info(f"memory: at most {peak / 1e9:.1f} GB")
