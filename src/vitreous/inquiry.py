"""What a person asks of a run or a model: `diagnose` and `summary`. Part of `api`.

A diagnosis here has signals, copies found by the doctor and short experiments; the same from
signals alone ends every run (`supervised`).
"""

from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from vitreous.core.config import from_mapping, load_toml
from vitreous.core.console import Console
from vitreous.core.files import read_record
from vitreous.core.run import RunFolder
from vitreous.data.cache import Progress
from vitreous.data.dataset import Dataset
from vitreous.data.folds import fold_datasets
from vitreous.diagnosis.case import Case
from vitreous.diagnosis.causes import Diagnosis
from vitreous.diagnosis.examination import newest_part, read_course, read_weights
from vitreous.diagnosis.gather import gather
from vitreous.diagnosis.judge import judge
from vitreous.diagnosis.trials import try_causes
from vitreous.doctor.collection import Collection
from vitreous.doctor.copies import find_copies
from vitreous.doctor.examine import examine
from vitreous.errors import RunError
from vitreous.evaluation.thumbnails import thumbnail_answers
from vitreous.model.presets import PRESETS, is_preset, preset
from vitreous.model.summary import Summary, summarize
from vitreous.model.weights.checkpoint import read_checkpoint
from vitreous.opening import open_own_pictures
from vitreous.serving.hub import locate
from vitreous.serving.origin import original_encoder
from vitreous.serving.weights import find_own_weights, is_own
from vitreous.training.config import RunConfig
from vitreous.training.guard import in_pieces
from vitreous.training.plan import Plan


def diagnose(
    run: str | PathLike[str],
    *,
    experiments: bool = True,
    budget_s: float = 60.0,
    console: Console | None = None,
) -> Diagnosis:
    """Say why a run is stuck: finished, stopped, or ended by a loss that is no number.

    Nothing is written, and a run that learned is left in peace.

    Args:
        run: the run's folder; its pictures are where they were.
        experiments: put causes to the test by short trainings, and look for altered copies of
            training pictures among those held back.
        budget_s: seconds that the trainings may take, about.
        console: where progress goes.

    Returns:
        At most three causes, the likeliest first, each with evidence and what to do next.

    Raises:
        RunError: where the folder is no run of `train`, or its pictures have changed.
    """
    console = console or Console()
    folder = RunFolder.open(Path(run))
    config = from_mapping(RunConfig, load_toml(folder.config))
    if config.pretrain:
        raise RunError(
            f"{folder.path} was pretrained and knows no classes: name a run of 'vitreous train'"
        )
    dataset = open_own_pictures(folder, config, console)
    part = newest_part(folder)
    place = part.path.relative_to(folder.path).parts
    dataset, config = of_part(dataset, config, place)
    if part.plan.exists():  # memory may have been too small for a batch at once
        config = in_pieces(config, read_record(part.plan, Plan).accumulate)
    split = "test" if "test" in dataset.sets else "valid"
    encoder = original_encoder(config, console)
    train, held_out = dataset.sets["train"], dataset.sets[split]
    copies = None
    if experiments:
        with console.stages() as on_progress:
            copies = find_leaks(dataset, split, Path(config.data.source), on_progress)
    signals = gather(
        config,
        dataset,
        split,
        read_course(part),
        read_weights(part, config, encoder),
        thumbnails=thumbnail_answers(train, held_out, config.train.seed),
        copies=copies,
    )
    case = Case(signals, config, dataset.classes, str(folder.path), "/".join(place))
    diagnosis = judge(case)
    # What a ladder trains, rung by rung, is not what its settings say.
    if not experiments or config.ladder or (config.init and encoder is None):
        return diagnosis
    return try_causes(case, diagnosis, encoder, train, budget_s, console)


def summary(
    model: str | PathLike[str],
    *,
    image_size: int | None = None,
    classes: int | None = None,
    num_heads: int | None = None,
    console: Console | None = None,
) -> Summary:
    """A model in numbers.

    Args:
        model: a preset's name, a run's folder, or a file or folder of weights of any known format,
            also on a hub.
        image_size: height and width in pixels instead of the model's.
        classes: width of the output instead of the model's.
        num_heads: of weights that don't say it.
        console: where messages go.

    Raises:
        ConfigError: for an unknown preset or a size that doesn't fit it.
        RunError: for a place where nothing is, or a run that has no weights yet.
        WeightsError: for weights that can't be read.
    """
    console = console or Console()
    if str(model) in PRESETS or (is_preset(str(model)) and not Path(model).exists()):
        config = preset(str(model))
    else:
        path = locate(model, console).path
        weights = find_own_weights(path) if is_own(path) else path
        found = read_checkpoint(weights, num_heads=num_heads)
        config = found.config
        for note in found.notes:
            console.info(note)
    if image_size is not None:
        config = replace(config, image_size=(image_size, image_size))
    if classes is not None:
        config = replace(config, num_classes=classes)
    return summarize(config)


def of_part(
    dataset: Dataset, config: RunConfig, place: tuple[str, ...]
) -> tuple[Dataset, RunConfig]:
    """A run's pictures as a part of it divides them, and its settings as that part has them.

    Args:
        dataset: of the run.
        config: likewise.
        place: where the part's folder is in the run's, such as ("folds", "2-1", "rungs", "lora").
    """
    if place[:1] == ("folds",) and config.folds:
        repeat, _, number = place[1].rpartition("-")
        folds = fold_datasets(dataset, config.folds.count, int(repeat or 1) - 1, config.train.seed)
        dataset = folds[int(number) - 1]
    if place[-2:] == ("rungs", "lora") and config.ladder:
        config = replace(config, train=config.ladder.of_lora(config.train))
    return dataset, config


def find_leaks(
    dataset: Dataset, split: str, source: Path, on_progress: Progress | None = None
) -> list[int]:
    """Positions in a split of pictures that training has too, altered or not (`doctor.copies`)."""
    samples = tuple(
        replace(sample, split=name)
        for sample, name in zip(dataset.listing.samples, dataset.splits, strict=True)
    )
    examination = examine([sample.path for sample in samples], on_progress)
    listing = replace(dataset.listing, samples=samples)
    cluster = find_copies(Collection(listing, examination, source), on_progress).cluster
    known = set(cluster[dataset.sets["train"].rows].tolist()) - {-1}
    return np.flatnonzero(np.isin(cluster[dataset.sets[split].rows], list(known))).tolist()
